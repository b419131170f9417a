"""What arrives over HTTP besides an answer's content: the lines of an event stream, the time of the server. Pure."""

from __future__ import annotations

import time
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

QUICK_S = 2.0
SAME_CLOCK_S = 2.0


async def lines(pieces: AsyncIterator[bytes], *, limit_bytes: int, silence_s: float) -> AsyncGenerator[bytes, None]:
    r"""Yield what ends with `\n`. Other line ends, such as U+2028, stand in JSON as they are.

    Raises TimeoutError when no line ends within `silence_s`, whatever arrives, or when one is longer than the limit.
    """
    rest, ended_s = bytearray(), time.monotonic()
    async for piece in pieces:
        if len(rest) > limit_bytes or time.monotonic() - ended_s > silence_s:
            raise TimeoutError
        rest += piece
        if b"\n" in piece:
            *whole, last = bytes(rest).split(b"\n")
            for line in whole:
                yield line
            rest, ended_s = bytearray(last), time.monotonic()


def clock_offset_ms(date: str, began_s: float, ended_s: float) -> int | None:
    """Return how far the clock that wrote a `Date` is ahead of ours; 0 where they agree to two seconds.

    `began_s` and `ended_s` are our times of the request and of its answer; None when that took too long to tell, and
    for what is no date.
    """
    said = parsedate_tz(date)
    if said is None or ended_s - began_s > QUICK_S:
        return None
    try:
        # It is cut to whole seconds.
        ahead_s = mktime_tz(said) + 0.5 - (began_s + ended_s) / 2
    except (ValueError, OverflowError):
        return None
    return round(ahead_s * 1000) if abs(ahead_s) > SAME_CLOCK_S else 0
