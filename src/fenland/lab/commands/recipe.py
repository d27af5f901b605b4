"""``fenland recipe``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from fenland.lab.recipes import Recipe


@dataclass(frozen=True)
class RecipeCommand:
    """Show a recipe: settings, cost, what was measured with them, and the code to paste; without a name, list them.

    Example: fenland recipe transformer --code
    """

    name: Annotated[Positional[str], option(metavar="NAME")] = ""
    """One of the list."""
    code: bool = False
    """Print the code alone."""
    json: bool = False
    """Print one JSON document."""

    def run(self, arguments: list[str]) -> int:
        """Print it."""
        from fenland.lab.recipes import RECIPES

        if self.name and self.name not in RECIPES:
            raise BadInput("NAME", self.name, one_of(RECIPES, self.name))
        if self.code and not self.name:
            raise BadInput("code", "on", f"is of one recipe; {one_of(RECIPES)}")
        if self.code:
            shared.alone(self, "code", "name")
        chosen = [recipe for name, recipe in RECIPES.items() if self.name in ("", name)]
        if self.json:
            output.print_json([recipe.as_dict() for recipe in chosen])
        elif self.code:
            print(chosen[0].pasted, end="")
        elif self.name:
            print(_shown(chosen[0]))
        else:
            output.console().print(_table(chosen))
        return output.OK


def _table(recipes: list[Recipe]) -> Any:
    table = output.table(("recipe", "for", "method", "lr", "rho", "cost", "gain over the base"), bold=1)
    for each in recipes:
        table.add_row(each.name, each.use, each.method, f"{each.lr:g}", f"{each.rho:g}", each.cost, each.gain)
    return table


def _shown(recipe: Recipe) -> str:
    lines = [
        f"{recipe.use}",
        f"{recipe.advice}",
        "",
        f"method    {recipe.method}, {recipe.cost}",
        f"when      {recipe.when}",
        f"lr        {recipe.lr:g}",
        f"rho       {recipe.rho:g}",
        f"schedule  {recipe.schedule}",
        f"source    {recipe.source}",
        f"gain      {recipe.gain}",
        "",
        "Try it on a task of this kind, beside the base:",
        f"    {recipe.command}",
        "",
        recipe.pasted,
    ]
    return "\n".join(lines).rstrip()
