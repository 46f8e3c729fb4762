"""Counts the operations that the interpreter does: what work costs, on any machine alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count(work: Callable[[], object]) -> int:
    """Run `work` and return how many operations (byte codes) it took in Python's own functions."""
    operations = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal operations
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        operations += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return operations
