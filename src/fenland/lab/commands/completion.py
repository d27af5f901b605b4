"""``fenland completion``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from fenland.lab.commands import output
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput, one_of

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Completion:
    """Print the script that lets a shell complete commands and options.

    To keep it: fenland completion bash > ~/.local/share/bash-completion/completions/fenland, or fenland completion zsh
    > _fenland in a directory of your fpath, or fenland completion fish > ~/.config/fish/completions/fenland.fish.

    Example: eval "$(fenland completion bash)" completes in this shell at once.
    """

    shell: Annotated[Positional[str], option(metavar="SHELL")]
    """bash, zsh or fish."""

    def run(self, arguments: list[str]) -> int:
        """Print it."""
        if self.shell not in SHELLS:
            raise BadInput("SHELL", self.shell, one_of(SHELLS, self.shell))
        from fenland.lab.commands.parsing import completion

        print(completion(self.shell))
        return output.OK
