"""Curricula over a mixture, one a file: pure functions from what is known or measured to weights."""
