"""One hosts file as entries: each either a Host or a problem. A bad entry never harms its neighbours."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from remote_dispatch.hosts.files import UnreadableError, read_text
from remote_dispatch.hosts.jsonc import JsoncError, Member, Node, Object, Scalar, first_duplicate, parse, plain
from remote_dispatch.hosts.names import check_name, is_speakable
from remote_dispatch.model import Host
from remote_dispatch.remote.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS = tuple(field for field in Host.model_fields if field != "name")
PRIVATE_FIELDS = frozenset(name for name, field in Host.model_fields.items() if not field.repr)
"""The fields that are never shown: they are addresses, or may hold secrets."""

_EXPECTED = {
    "host": "expected an address as text: `user@host`, or an alias of ~/.ssh/config",
    "port": "expected a whole number from 1 to 65535",
    "agent": "expected the name of an agent as text",
    "model": "expected text of the form `provider/id`",
    "variant": "expected the name of a model's variant as text",
    "directory": "expected a path as text, without control characters",
    "permissions": "expected `deny` or `auto`",
    "permission_rules": "expected an object that holds `allow`, `ask` or `deny`, as OpenCode's `permission` does",
    "opencode": "expected a path as text, without control characters",
    "env": "expected an object of variable names and texts",
    "code": "expected `carry`, `existing` or `none`",
    "server": "expected a URL as text: `http://` or `https://`, a host, no user and no password",
    "os": "expected `linux`, `macos` or `windows`",
}
_TOP_LEVEL = ("hosts", "$schema")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a hosts file. `line` counts from 1.

    `host` is None where a file is meant, or the name may not be repeated: it could be an address.

    The message repeats nothing of the file but speakable names and known fields.
    """

    file: Path
    line: int | None
    message: str
    host: str | None = None
    field: str | None = None

    @property
    def text(self) -> str:
        """`host `lab`: `port`: expected ...`, as far as host and field are known."""
        parts = [f"host `{self.host}`" if self.host else "", f"`{self.field}`" if self.field else "", self.message]
        return ": ".join(part for part in parts if part)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of one file: a host, or the problem that disables it."""

    name: str
    file: Path
    line: int
    value: Host | Problem


@dataclass(frozen=True, slots=True)
class HostsFile:
    """What one file says. `problems` are those of the file itself; those of entries are in the entries."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_hosts_file(path: Path) -> HostsFile | None:
    """Read a file, or return None when there is none. Never raises for what the file holds."""
    try:
        text = read_text(path)
        return None if text is None else _from_text(path, text)
    except UnreadableError as error:
        return HostsFile(problems=(Problem(path, None, str(error)),))
    except JsoncError as error:
        return HostsFile(problems=(Problem(path, error.line, error.message),))


def entries_of(path: Path, hosts: Object) -> tuple[Entry, ...]:
    """Read the members of an object as hosts, a name each; `path` is the file that holds it."""
    namesakes: dict[str, list[Member]] = {}
    for member in hosts.members:
        namesakes.setdefault(member.key, []).append(member)
    return tuple(Entry(name, path, members[0].line, _value(path, members)) for name, members in namesakes.items())


def host_from(name: str, fields: dict[str, object]) -> Host:
    """Make a host of values. Raises FieldError for the first that is wrong, and ValueError for the name."""
    check_name(name)
    if unknown := next((field for field in fields if field not in FIELDS), None):
        raise FieldError(_unknown_field(unknown), unknown)
    try:
        host = Host.model_validate({**fields, "name": name})
    except ValidationError as error:
        raise _field_error(error) from None
    _check_address(host)
    _check_server(host)
    return host


class FieldError(ValueError):
    """A value of an entry is wrong. `path` are the keys down to it, empty when a field is missing."""

    def __init__(self, message: str, *path: str, line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


def _from_text(path: Path, text: str) -> HostsFile:
    root = parse(text)
    if not isinstance(root, Object):
        return HostsFile(problems=(Problem(path, root.line, 'expected an object: `{"hosts": {...}}`'),))
    problems = tuple(_top_level_problems(path, root))
    member = root.get("hosts")
    if member is None or not isinstance(member.value, Object) or root.duplicate():
        return HostsFile(problems=problems)
    return HostsFile(entries_of(path, member.value), problems)


def _top_level_problems(path: Path, root: Object) -> Iterator[Problem]:
    for member in root.members:
        if member.key not in _TOP_LEVEL:
            yield Problem(
                path, member.line, "unknown field beside `hosts`", field=_speakable_field(member.key, _TOP_LEVEL)
            )
        elif member.key == "hosts" and not isinstance(member.value, Object):
            yield Problem(path, member.value.line, "expected an object of names and addresses", field="hosts")
    if twice := root.duplicate():
        yield Problem(path, twice.line, "there twice", field=_speakable_field(twice.key, _TOP_LEVEL))


def _value(path: Path, namesakes: list[Member]) -> Host | Problem:
    member = namesakes[0]
    name = member.key if is_speakable(member.key) else None
    if len(namesakes) > 1:
        return Problem(path, namesakes[1].line, f"this name is there already in line {member.line}", name)
    try:
        return _host(member)
    except FieldError as error:
        field = ".".join(takewhile(_is_word, error.path)) or None
        return Problem(path, error.line or _line(member, error.path), str(error), name, field)
    except ValueError as error:
        return Problem(path, member.line, str(error))


def _host(member: Member) -> Host:
    value = member.value
    if isinstance(value, Scalar) and isinstance(value.content, str):
        return host_from(member.key, {"host": value.content})
    check_name(member.key)
    if not isinstance(value, Object):
        raise FieldError("expected an address as text, or an object")
    if twice := first_duplicate(value):
        raise FieldError("this field is there twice", twice.key, line=twice.line)
    return host_from(member.key, plain(value))


def _line(member: Member, path: tuple[str, ...]) -> int:
    node: Node = member.value
    line = member.line
    for key in path:
        found = [item for item in node.members if item.key == key] if isinstance(node, Object) else []
        if not found:
            return line
        line, node = found[-1].line, found[-1].value
    return line


def _field_error(error: ValidationError) -> FieldError:
    path = [str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"]]
    if not path:
        return FieldError("`host` is missing: an address, or an alias of ~/.ssh/config")
    keys = path[:2] if path[0] in ("env", "permission_rules") else path[:1]
    return FieldError(_EXPECTED[path[0]], *[key for key in keys if key != "[key]"])


def _check_address(host: Host) -> None:
    if host.host is None:
        return
    try:
        address = parse_address(host.host)
    except ValueError as error:
        raise FieldError(str(error), "host") from None
    if address.port and host.port and address.port != host.port:
        raise FieldError("the address names another port already", "port")


def _check_server(host: Host) -> None:
    if host.server is None:
        return
    try:
        url = urlsplit(host.server)
        is_fine = url.scheme in ("http", "https") and url.hostname and url.port != 0 and "@" not in url.netloc
    except ValueError:
        is_fine = False
    if not is_fine or not host.server.isprintable() or " " in host.server:
        raise FieldError(_EXPECTED["server"], "server")


def _unknown_field(field: str) -> str:
    close = difflib.get_close_matches(field[:40], FIELDS, n=1)
    return f"unknown field; did you mean `{close[0]}`?" if close else f"unknown field; known are {_listed(FIELDS)}"


def _speakable_field(field: str, known: tuple[str, ...]) -> str | None:
    return field if field in known or _is_word(field) else None


def _is_word(text: str) -> bool:
    return text.replace("_", "").isalpha() and text.isascii() and len(text) <= 40


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)
