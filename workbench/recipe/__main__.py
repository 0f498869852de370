"""Print the JSON schema of recipes: `python -m workbench.recipe > recipes/recipe.schema.json`."""

import json

from workbench.recipe import json_schema

print(json.dumps(json_schema(), indent=2))
