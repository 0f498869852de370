"""Forgetting control: one method a file.

Each is a mixture, a penalty, an anchor, a set of trainable parameters or a model surgery for the one loop;
`merging` comes after it.
"""
