"""One direction of a simulated line: what was given to it comes out later, in order. Pure: the caller has the clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Piece = TypeVar("Piece")


class Line(Generic[Piece]):
    """A delay, and with a rate also the time that sending takes and a queue in front of it, which drops what overflows.

    Times are seconds of any one clock; `queue_bytes` counts only with a rate.
    """

    def __init__(self, *, rate_bits: float | None = None, queue_bytes: int = 0) -> None:
        self._rate_bits = rate_bits
        self._queue_bytes = queue_bytes
        self._free_at = 0.0
        self._travelling: deque[tuple[float, Piece]] = deque()
        self.dropped = 0

    @property
    def due(self) -> float | None:
        """When the next piece comes out; None when the line is empty."""
        return self._travelling[0][0] if self._travelling else None

    def put(self, piece: Piece, size_bytes: int, now: float, delay_s: float) -> bool:
        """Send a piece; False when the queue was full and it is lost."""
        sent = now
        if self._rate_bits is not None:
            begun = max(now, self._free_at)
            if (begun - now) * self._rate_bits / 8 + size_bytes > self._queue_bytes:
                self.dropped += 1
                return False
            self._free_at = sent = begun + size_bytes * 8 / self._rate_bits
        self._travelling.append((sent + delay_s, piece))
        return True

    def take(self, now: float) -> Piece | None:
        """Return the next piece that has arrived by now, if there is one."""
        if not self._travelling or self._travelling[0][0] > now:
            return None
        return self._travelling.popleft()[1]
