"""Adding a host to the user's file. Comments, order and formatting stay; bad input changes nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.hosts.entries import FieldError, host_from
from remote_dispatch.hosts.files import UnreadableError, locked, read_text, real, replace_text
from remote_dispatch.hosts.jsonc import JsoncError, Member, Object, parse, plain
from remote_dispatch.hosts.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.hosts.layers import Places

_NEW_FILE = '{\n  "hosts": {}\n}\n'


def add(places: Places, name: str, address: str, **fields: object) -> Path:
    """Add a host to the user's own file, and return that file. Fields that are None are left out.

    The file is `places.target`; it is made (0600, in a directory 0700) when it is missing. Raises UsageError for a bad
    or taken name, address or field, and ConfigurationError for a file that is broken or not writable.
    """
    entry = {"host": address} | {key: value for key, value in fields.items() if value is not None}
    _check(name, entry)
    with locked(real(places.target).parent):
        _check_is_new(places, name)
        replace_text(places.target, _with_host(places.target, name, entry))
    return places.target


def insert_member(text: str, target: Object, key: str, value: object) -> str:
    """Return the text with one more member at the end of an object that `parse` found in it."""
    expected = [*((member.key, plain(member.value)) for member in target.members), (key, value)]
    for candidate in _candidates(text, target, f"{_dumped(key)}: {_shown(value)}"):
        if _members_at(candidate, target.start) == expected:
            return candidate
    raise ValueError("no place was found for the new entry")


def _check(name: str, entry: dict[str, object]) -> None:
    try:
        host_from(name, entry)
    except FieldError as error:
        field = f"`{error.path[0]}`: " if error.path else ""
        raise UsageError(f"{field}{error}", hint="see `remote-dispatch hosts add --help`") from None
    except ValueError as error:
        raise UsageError(str(error), hint="choose another name: it is public, and stands for the address") from None


def _check_is_new(places: Places, name: str) -> None:
    registry = Registry.read(places)
    if name in registry:
        origin = registry.origin(name)
        raise UsageError(
            f"host `{name}` is there already ({origin.file}:{origin.line})",
            hint="choose another name, or edit that file",
        )
    if twin := registry.twin(name):
        raise UsageError(f"host `{name}` would differ from `{twin}` only in case", hint="choose another name")


def _with_host(path: Path, name: str, entry: dict[str, object]) -> str:
    try:
        text = read_text(path)
        return _inserted(_NEW_FILE if text is None else text, name, entry)
    except UnreadableError as error:
        raise ConfigurationError(f"{path} {error}", hint="correct that first; nothing was changed") from None
    except JsoncError as error:
        raise ConfigurationError(
            f"{path}:{error.line}: {error.message}", hint="correct that first; nothing was changed"
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}", hint="correct that first; nothing was changed") from None


def _inserted(text: str, name: str, entry: dict[str, object]) -> str:
    root = parse(text)
    if not isinstance(root, Object) or root.duplicate():
        raise ValueError('expected one object with one `hosts`: `{"hosts": {...}}`')
    hosts = root.get("hosts")
    if hosts is None:
        return insert_member(text, root, "hosts", {name: entry})
    if not isinstance(hosts.value, Object):
        raise JsoncError(hosts.value.line, "`hosts` is not an object")
    return insert_member(text, hosts.value, name, entry)


def _candidates(text: str, target: Object, member: str) -> Iterator[str]:
    newline = "\r\n" if "\r\n" in text else "\n"
    if target.members:
        yield from _after_last(text, target, target.members[-1], member, newline)
    else:
        yield _as_first(text, target, member, newline)


def _after_last(text: str, target: Object, last: Member, member: str, newline: str) -> Iterator[str]:
    """Put it on a line of its own where the others have one, after a comment that ends the last line when that fits."""
    has_comma = target.comma_end is not None
    end = target.comma_end or last.value.end
    head = text[: last.value.end] + ("" if has_comma else ",")
    closing = "," if has_comma else ""
    indent = _indent_of(text, last.start)
    if indent is None:
        yield f"{head}{text[last.value.end : end]} {member}{closing}{text[end:]}"
        return
    line_end = _line_end(text, end)
    for place in (line_end, end):
        yield f"{head}{text[last.value.end : place]}{newline}{indent}{member}{closing}{text[place:]}"


def _as_first(text: str, target: Object, member: str, newline: str) -> str:
    inner = text[target.start + 1 : target.end - 1]
    outer = re.match(r"[ \t]*", text[text.rfind("\n", 0, target.start) + 1 :])
    indent = outer[0] if outer else ""
    unit = "\t" if indent.startswith("\t") else "  "
    head = text[: target.start + 1] + inner.rstrip()
    return f"{head}{newline}{indent}{unit}{member}{newline}{indent}{text[target.end - 1 :]}"


def _indent_of(text: str, start: int) -> str | None:
    """Return what stands before the key on its line when that is blank, else None."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return before if not before.strip() and "\n" in text[:start] else None


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1] == "\r" else end


def _members_at(text: str, start: int) -> list[tuple[str, object]] | None:
    try:
        root = parse(text)
    except JsoncError:
        return None
    found = next((node for node in _objects(root) if node.start == start), None)
    return [(member.key, plain(member.value)) for member in found.members] if found else None


def _objects(root: object) -> Iterator[Object]:
    """The root and its direct members: nothing deeper is ever edited."""
    if isinstance(root, Object):
        yield root
        yield from (member.value for member in root.members if isinstance(member.value, Object))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_dumped(key)}: {_shown(item)}" for key, item in value.items()) + " }"
    return _dumped(value)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
