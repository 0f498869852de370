"""Stage kinds: the glue from a recipe's words to the areas that do the work, one file a kind."""
