"""How a script and its values reach a POSIX shell through any login shell: one fixed command line, the rest on stdin.

The command line holds nothing but a fixed text without single quote, backslash, newline or `!` (one pair of single
quotes keeps it whole in bash, dash, zsh, fish, tcsh, ksh and busybox), a marker and numbers. Values and script come on
stdin, each with a last byte of its own so that nothing is stripped, and the script between two marker lines: where the
link broke, or a start-up file read some of it, nothing runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ = "$(PATH=$PATH:/usr/bin:/bin dd ibs=1 obs=65536 count=$c 2>/dev/null)"
_BOOTSTRAP = (
    "m=$1; n=$2; shift 2; "
    f'for c do v={_READ}; shift; set -- "$@" "${{v%.}}"; done; shift; '
    f"c=$n; v={_READ}; "
    'case "$v" in "#$m"*"#$m") ;; *) exit 70; esac; '
    'cd 2>/dev/null; echo "$m"; echo "$m" >&2; unset m n c; eval "$v"'
)
"""`dd ibs=1` reads exactly: `head -c`, `read` and `sh -s` of some shells take more than they were told."""

_GUARD = "exit 70\n"
"""The first value, which is dropped: a shell that a start-up file put in our place (`exec fish`) takes stdin for a
script, and every shell understands this line."""


def command_line(marker: str, script: str, values: Sequence[str]) -> str:
    """Return the one line for the login shell. `marker` is a random hexadecimal word."""
    counts = " ".join(str(len(word)) for word in _value_words(values))
    return f"exec /bin/sh -c '{_BOOTSTRAP}' sh {marker} {len(_script_word(marker, script))} {counts}".rstrip()


def opening(marker: str, script: str, values: Sequence[str]) -> bytes:
    """Return what stdin starts with; the script's own input follows."""
    return b"".join(_value_words(values)) + _script_word(marker, script)


def encoded(value: str) -> bytes:
    """Return a value as it travels. Raises ValueError for a NUL, which no shell can hold."""
    if "\0" in value:
        raise ValueError("a value holds a NUL")
    return value.encode("utf-8", "surrogateescape")


def _value_words(values: Sequence[str]) -> list[bytes]:
    return [encoded(value) + b"." for value in (_GUARD, *values)]


def _script_word(marker: str, script: str) -> bytes:
    sign = b"#" + marker.encode()
    return sign + b"\n" + encoded(script) + b"\n" + sign


class NoiseFilter:
    """Drops what a login shell's start-up files print before the marker line, and no more than `limit_bytes` of it."""

    def __init__(self, marker: str, *, limit_bytes: int = 4_000_000) -> None:
        self._line = marker.encode() + b"\n"
        self._held = b""
        self._dropped = 0
        self._limit_bytes = limit_bytes
        self.has_started = False

    @property
    def noise(self) -> bytes:
        """What came last while no marker was seen."""
        return self._held

    @property
    def is_too_loud(self) -> bool:
        """Whether more than the limit came before the marker."""
        return not self.has_started and self._dropped > self._limit_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk and return what of it belongs to the script."""
        if self.has_started:
            return chunk
        before, line, after = (self._held + chunk).partition(self._line)
        if line:
            self.has_started = True
            self._held = b""
            return after
        self._dropped += len(chunk)
        self._held = before[-4096:]
        return b""
