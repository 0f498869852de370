"""Safety: attacks, refusal training and guards, and how well a model refuses; one method a file."""
