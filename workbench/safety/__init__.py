"""Safety: attacks, refusal training and guards, and how well a model refuses; one method a file.

Request sets are read without torch, so that a wrong one is found before anything heavy starts.
"""

from workbench.safety.requests import Request, RequestSet, divided, load_requests, requests_identity

__all__ = ["Request", "RequestSet", "divided", "load_requests", "requests_identity"]
