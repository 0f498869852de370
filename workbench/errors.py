"""What users can do wrong, as exception types.

Every message says where, what was found against what is allowed, and what to do. The command line
prints these without a traceback and exits with code 2; any other exception is our own fault, keeps
its traceback and exits with code 1.
"""


class WorkbenchError(Exception):
    """Base of all errors that a user can put right."""


class RecipeError(WorkbenchError):
    """A recipe, an override or a battery file is wrong."""


class DataError(WorkbenchError):
    """A text source or a token file is missing, empty, unreadable or does not fit the model."""


class ModelError(WorkbenchError):
    """A model folder is missing, incomplete, corrupt, unsafe, or not what the stage needs."""


class NumericsError(WorkbenchError):
    """A computation left the finite numbers, or a matrix could not be factored."""


class RunError(WorkbenchError):
    """A run cannot go on: folder locked, read-only, out of disk, or too large for the machine."""
