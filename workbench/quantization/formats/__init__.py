"""How quantized weights are stored: each format says what it decodes to and how many bits it takes."""
