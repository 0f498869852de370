"""Matrix products with weights of 1 to 8 bits: one folder per operation, its plain torch reference beside it."""
