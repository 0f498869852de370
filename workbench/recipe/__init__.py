"""Recipes: one YAML file, strictly checked before anything heavy is imported.

`load` reads a file and reports everything that is wrong with it at once; `variants` says which rows the
recipe makes. The settings themselves are the classes of `workbench.recipe.schema`.
"""

from workbench.recipe.loading import Loaded, json_schema, load, read
from workbench.recipe.naming import Variant, variants
from workbench.recipe.schema import Recipe

__all__ = ["Loaded", "Recipe", "Variant", "json_schema", "load", "read", "variants"]
