"""One hosts file as entries: each either a Host or a problem. A bad entry never harms its neighbours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from remote_dispatch.hosts.files import UnreadableError, read_text
from remote_dispatch.hosts.jsonc import JsoncError, Member, Node, Object, Scalar, first_duplicate, parse, plain
from remote_dispatch.hosts.names import check_name, is_speakable
from remote_dispatch.hosts.suggest import guess
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
    "server_user": "expected a user name as text",
    "server_password_env": "expected the name of a variable, and not the password itself",
    "server_password_command": "expected a program and its arguments, as a list of texts",
    "os": "expected `linux`, `macos` or `windows`",
}
_TOP_LEVEL = ("hosts", "$schema")
_NO_NAME = "x"
_LONGEST_WORD = 40
_OTHER_WORDS = {
    "address": "host",
    "hostname": "host",
    "user": "host",
    "url": "server",
    "password": "server_password_env",
    "dir": "directory",
    "cwd": "directory",
}
"""What people write for a field that has another name."""


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
class FieldLine:
    """A field of an entry and its line. `name` is None where it may not be repeated: it could be an address."""

    name: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of one file: a host, or the first problem that disables it; `problems` are all of them."""

    name: str
    file: Path
    line: int
    value: Host | Problem
    problems: tuple[Problem, ...] = ()
    fields: tuple[FieldLine, ...] = ()


@dataclass(frozen=True, slots=True)
class HostsFile:
    """What one file says. `problems` are those of the file itself; those of entries are in the entries."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_hosts_file(path: Path) -> HostsFile | None:
    """Read a file, or return None when there is none. Never raises for what the file holds."""
    try:
        text = read_text(path)
    except UnreadableError as error:
        return HostsFile(problems=(Problem(path, None, str(error)),))
    return None if text is None else parse_hosts_file(path, text)


def parse_hosts_file(path: Path, text: str) -> HostsFile:
    """Read what a file said. Never raises for what it holds."""
    try:
        return _from_text(path, text)
    except JsoncError as error:
        return HostsFile(problems=(Problem(path, error.line, error.message),))


def entries_of(path: Path, hosts: Object) -> tuple[Entry, ...]:
    """Read the members of an object as hosts, a name each; `path` is the file that holds it."""
    namesakes: dict[str, list[Member]] = {}
    for member in hosts.members:
        namesakes.setdefault(member.key, []).append(member)
    return tuple(_entry(path, members) for members in namesakes.values())


def host_from(name: str, fields: dict[str, object]) -> Host:
    """Make a host of values. Raises FieldError for the first that is wrong, and ValueError for the name."""
    check_name(name)
    found = faults_of(fields)
    if found:
        raise found[0]
    return Host.model_validate({**fields, "name": name})


def faults_of(fields: dict[str, object]) -> list[FieldError]:
    """Return everything that is wrong with the fields of an entry, whatever its name."""
    unknown = [FieldError(f"unknown field; {field_hint(field)}", field) for field in fields if field not in FIELDS]
    odd = [FieldError(_EXPECTED[field], field) for field in FIELDS if not _is_text(fields.get(field))]
    known = {field: value for field, value in fields.items() if field in FIELDS and _is_text(value)}
    found = [*unknown, *odd, *_type_faults(known), *_address_faults(known), *_server_faults(known)]
    if unknown or odd:  # `hots` is one fault, and not that `host` is missing as well
        found = [fault for fault in found if fault.path]
    return list({fault.path: fault for fault in reversed(found)}.values())[::-1]


def field_hint(field: str) -> str:
    """Return what may have been meant by a field that there is none of."""
    close = guess(_OTHER_WORDS.get(field.lower(), field), FIELDS)
    return close or f"known are {', '.join(f'`{one}`' for one in FIELDS)}"


def is_word(text: str) -> bool:
    """Whether the name of a field may be repeated in a message: it is a word, and no address."""
    return text.replace("_", "").isalpha() and text.isascii() and len(text) <= _LONGEST_WORD


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


def _entry(path: Path, namesakes: list[Member]) -> Entry:
    member = namesakes[0]
    problems = tuple(sorted(_problems(path, namesakes), key=lambda problem: problem.line or 0))
    value = problems[0] if problems else Host.model_validate({**_fields(member), "name": member.key})
    return Entry(member.key, path, member.line, value, problems, _field_lines(member))


def _problems(path: Path, namesakes: list[Member]) -> Iterator[Problem]:
    member = namesakes[0]
    name = member.key if is_speakable(member.key) else None
    if len(namesakes) > 1:
        yield Problem(path, namesakes[1].line, f"this name is there already in line {member.line}", name)
        return
    try:
        check_name(member.key)
    except ValueError as error:
        yield Problem(path, member.line, str(error))
        name = None
    for fault in _faults(member):
        field = ".".join(takewhile(is_word, fault.path)) or None
        yield Problem(path, fault.line or _line(member, fault.path), str(fault), name, field)


def _faults(member: Member) -> list[FieldError]:
    value = member.value
    if isinstance(value, Object) and (twice := first_duplicate(value)):
        return [FieldError("this field is there twice", twice.key, line=twice.line)]
    if isinstance(value, Object) or (isinstance(value, Scalar) and isinstance(value.content, str)):
        return faults_of(_fields(member))
    return [FieldError("expected an address as text, or an object")]


def _fields(member: Member) -> dict[str, object]:
    value = plain(member.value)
    return value if isinstance(value, dict) else {"host": value}


def _field_lines(member: Member) -> tuple[FieldLine, ...]:
    if not isinstance(member.value, Object):
        return (FieldLine("host", member.value.line),)
    return tuple(FieldLine(one.key if is_word(one.key) else None, one.line) for one in member.value.members)


def _line(member: Member, path: tuple[str, ...]) -> int:
    node: Node = member.value
    line = member.line
    for key in path:
        found = [item for item in node.members if item.key == key] if isinstance(node, Object) else []
        if not found:
            return line
        line, node = found[-1].line, found[-1].value
    return line


def _is_text(value: object) -> bool:
    """Whether all text in it is text: half of a surrogate pair makes pydantic raise in its own error."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_faults(fields: dict[str, object]) -> list[FieldError]:
    try:
        Host.model_validate({**fields, "name": _NO_NAME})
    except ValidationError as error:
        return [_field_error(one["loc"]) for one in error.errors(include_input=False, include_url=False)]
    return []


def _field_error(location: tuple[int | str, ...]) -> FieldError:
    path = [str(part) for part in location]
    if not path:
        return FieldError("`host` is missing: an address, or an alias of ~/.ssh/config")
    keys = path[:2] if path[0] in ("env", "permission_rules") else path[:1]
    return FieldError(_EXPECTED[path[0]], *[key for key in keys if key != "[key]"])


def _address_faults(fields: dict[str, object]) -> Iterator[FieldError]:
    text, port = fields.get("host"), fields.get("port")
    if not isinstance(text, str):
        return
    try:
        address = parse_address(text)
    except ValueError as error:
        yield FieldError(str(error), "host")
        return
    if address.port and isinstance(port, int) and address.port != port:
        yield FieldError("the address names another port already", "port")


def _server_faults(fields: dict[str, object]) -> Iterator[FieldError]:
    server = fields.get("server")
    if not isinstance(server, str):
        return
    try:
        url = urlsplit(server)
        is_fine = url.scheme in ("http", "https") and url.hostname and url.port != 0 and "@" not in url.netloc
    except ValueError:
        is_fine = False
    if not is_fine or not server.isprintable() or " " in server:
        yield FieldError(_EXPECTED["server"], "server")


def _speakable_field(field: str, known: tuple[str, ...]) -> str | None:
    return field if field in known or is_word(field) else None
