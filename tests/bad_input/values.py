"""Values that no part of remote-dispatch may obey, each under a name that says what it is."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _pytest.mark.structures import ParameterSet

ESCAPES = {
    "OSC 52, which sets the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "OSC 8, which hides a link": "\x1b]8;;http://evil.invalid/\x1b\\text\x1b]8;;\x1b\\",
    "a window title": "\x1b]0;owned\x07",
    "a colour": "\x1b[31mred",
    "cursor and screen": "\x1b[2J\x1b[1;1H\x1b[?1049h",
    "C1 controls": "\x9b31m\x9d0;owned\x9c",
    "a carriage return that overwrites": "harmless\rdangerous",
    "bell, backspace and NUL-like bytes": "\x07\x08\x01",
    "right-to-left override": "abc\u202etxt.exe",
}
"""What a terminal would obey."""

COMMANDS = {
    "two commands": "a;touch canary",
    "a command in $()": "$(touch canary)",
    "a command in backticks": "`touch canary`",
    "a pipe": "a|touch canary",
    "a command in the background": "a&touch canary",
    "a redirection": "a>canary",
    "a quote that is closed": "'; touch canary; '",
    "a double quote that is closed": '"; touch canary; "',
}
"""What a shell would obey."""

PRIVATE = re.compile(r"203\.0\.113\.7|box\.example|(?<!\d)2222(?!\d)|me@")
"""Addresses that these tests give, and that nothing may repeat; the port is no part of a time such as 07:22:22."""


def named(values: Mapping[str, object]) -> list[ParameterSet]:
    """Return the values as parameters whose ids are their names."""
    return [pytest.param(value, id=name) for name, value in values.items()]


def controls_in(text: str) -> str:
    """Return every character of a text that a terminal may obey; line ends and tabs are none."""
    hidden = ("\u200b", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2069")
    return "".join(
        one for one in text if (ord(one) < 32 and one not in "\n\t") or 127 <= ord(one) < 160 or one in hidden
    )


class Trap:
    """A port that nobody may connect to; use as a context manager."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.getsockname()[1])

    def was_called(self) -> bool:
        """Whether somebody has connected since it was made."""
        try:
            self._server.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        self._server.close()
