"""The sheet: what each step of a run taught, cost and broke, with intervals and paired verdicts.

`build` turns variants and raw measurements into a `Sheet`; `write` and `render` draw it.
"""

from workbench.sheet.assembly import build
from workbench.sheet.markdown import render
from workbench.sheet.published import load_published
from workbench.sheet.report import write
from workbench.sheet.sheet import Curve, RowInput, Sheet, check_expectations

__all__ = ["Curve", "RowInput", "Sheet", "build", "check_expectations", "load_published", "render", "write"]
