"""The adaptation workbench: teach a LLaMA-3 model, keep what it knew, squeeze it, and measure all of it."""
