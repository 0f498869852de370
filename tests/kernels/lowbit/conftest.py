"""Triton's interpreter without the work whose results it throws away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import FunctionType

import pytest


@pytest.fixture(autouse=True, scope="session")
def lean_interpreter() -> Iterator[None]:
    """Spare the interpreter, in a process that runs under it, two thirds of its time and no number.

    It computes for every sum and product whether it overflowed, to assert nothing unless debug is set;
    and for every call of a device function it searches all of triton.language for what to replace, though
    all of that is replaced since the kernel began.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from triton import language
    from triton.runtime import interpreter

    options, replace_all = interpreter.interpreter_builder.options, interpreter._patch_lang
    assert not options.debug  # else the overflow is asserted

    def replace_once(function: FunctionType) -> object:
        seen = [m for m in function.__globals__.values() if m is language or m is language.core]
        return replace_all(function) if any(language.core.is_builtin(m.load) for m in seen) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(options.__dict__, "sanitize_overflow", False)
        patch.setattr(interpreter, "_patch_lang", replace_once)
        yield
