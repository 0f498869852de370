"""Exports: quantized models in layouts that other tools load, one layout a file."""
