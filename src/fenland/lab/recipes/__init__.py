"""Recipes: settings for a kind of task, the code to paste, and what was measured with them."""

from fenland.lab.recipes.recipe import Recipe
from fenland.lab.recipes.table import RECIPES

__all__ = ["RECIPES", "Recipe"]
