"""What a link's process and its user share: the delay, which may change at any time, and counters.

It is a piece of memory behind a file without a name, so that nothing is left of it whatever is killed.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Literal, Self, get_args

Counter = Literal["bytes_up", "bytes_down", "packets_up", "packets_down", "connections", "starts"]
_COUNTERS: tuple[Counter, ...] = get_args(Counter)
_DELAY, _COUNT = struct.Struct("=d"), struct.Struct("=Q")


class Board:
    """The memory behind an open file, which the other process opens by `descriptor`. Each number has one writer."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _DELAY.size + _COUNT.size * len(_COUNTERS))

    @classmethod
    def new(cls) -> Self:
        """Make one, with a delay of zero and all counters at zero."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_DELAY.size + _COUNT.size * len(_COUNTERS))
            return cls(os.dup(file.fileno()))

    def close(self) -> None:
        """Forget it here."""
        self._memory.close()
        os.close(self.descriptor)

    @property
    def one_way_s(self) -> float:
        """The delay in one direction."""
        return float(_DELAY.unpack_from(self._memory)[0])

    @one_way_s.setter
    def one_way_s(self, seconds: float) -> None:
        _DELAY.pack_into(self._memory, 0, seconds)

    def count(self, name: Counter) -> int:
        """Return a counter."""
        return int(_COUNT.unpack_from(self._memory, _place(name))[0])

    def add(self, name: Counter, amount: int = 1) -> None:
        """Count."""
        _COUNT.pack_into(self._memory, _place(name), self.count(name) + amount)


def _place(name: Counter) -> int:
    return _DELAY.size + _COUNT.size * _COUNTERS.index(name)
