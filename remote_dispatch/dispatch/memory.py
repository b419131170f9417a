"""Give back what a large transcript took: glibc keeps freed memory for the thread that had it (measured: all of it)."""

from __future__ import annotations

import resource
from contextlib import suppress

_WORTH_IT_KIB = 150_000
"""Well above what a dispatch of a small session ever takes."""


def give_back() -> None:
    """Return free memory to the system where this process has used much; elsewhere than on Linux nothing is done."""
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < _WORTH_IT_KIB:
        return
    import ctypes  # noqa: PLC0415 - 10 ms that small sessions do not pay

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
