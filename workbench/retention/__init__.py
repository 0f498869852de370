"""Forgetting control: one method a file, each a mixture, a penalty or a model surgery for the one loop."""
