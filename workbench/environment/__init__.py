"""The Python that everything runs on: its lock, and how `.venv` is made from it.

It runs on a bare Python before anything is installed, so it imports the standard library alone.
"""
