"""Runs: walk the stages of a recipe, record where everything came from, forecast what it will cost."""
