"""Messages as lines: one JSON object each, of any length up to a bound; what is none is skipped and counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Message = dict[str, Any]
"""One message of JSON-RPC, whatever fields it has."""

LINE_LIMIT_BYTES = 64 * 1024 * 1024
NOISE_BYTES = 200
"""How much of a line that is no message is kept for the log."""


class LineTooLongError(IntegrityError):
    """A line is longer than any message may be: what follows cannot be trusted."""


def line_of(message: Message) -> bytes:
    """Return a message as its line. ASCII only, so that lone surrogates travel and no reader splits the line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineReader:
    """Turns chunks of bytes, cut anywhere, into messages. `skipped` counts the lines that were none."""

    def __init__(
        self, *, limit_bytes: int = LINE_LIMIT_BYTES, on_noise: Callable[[bytes], None] = lambda _: None
    ) -> None:
        """`on_noise` gets the first 200 bytes of each line that is skipped; a blank one is none."""
        self.skipped = 0
        self._limit_bytes = limit_bytes
        self._on_noise = on_noise
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[Message]:
        """Take a chunk and return the messages that it completes.

        Raises LineTooLongError for a line above the limit, whole or not; the reader is of no use afterwards.
        """
        return [message for line in self._lines(chunk) if (message := self._message(line)) is not None]

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._hold(end)
            # Joined once a line: adding each chunk to a growing text would take the square of its length.
            line = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
            yield line
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        if self._held_bytes > self._limit_bytes:
            raise LineTooLongError(
                f"a message of the agent is longer than {self._limit_bytes} bytes",
                hint="start a new session: something in this one is too large to show",
            )
        if piece:
            self._pieces.append(piece)

    def _message(self, line: bytes) -> Message | None:
        line = line.strip()
        if not line:
            return None
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):  # bytes that are no UTF-8 are a ValueError too
            message = None
        if isinstance(message, dict):
            return message
        self.skipped += 1
        self._on_noise(line[:NOISE_BYTES])
        return None
