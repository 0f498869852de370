"""Matrix products with weights of 1 to 8 bits: one folder an operation, its plain torch reference in it."""
