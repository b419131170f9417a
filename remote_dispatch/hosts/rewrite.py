"""What an edit makes of the text of one file with hosts: one entry changes, no other byte. Does no I/O.

Raises JsoncError and ValueError for a text that is not such a file, KeyError where there is no such entry or field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_dispatch.hosts.change import changed, new_key, new_member, new_value, removal
from remote_dispatch.hosts.jsonc import JsoncError, Member, Object, Scalar, parse, plain
from remote_dispatch.hosts.opencode_files import plugin_entries

if TYPE_CHECKING:
    from collections.abc import Mapping

Keys = tuple[str, ...]
"""The keys from an entry down to a value: `("port",)`, `("env", "TOKEN")`."""


class NamesakesError(ValueError):
    """The name stands in the file more than once. `lines` are where."""

    def __init__(self, lines: tuple[int, ...]) -> None:
        super().__init__("this name is there more than once")
        self.lines = lines


def value_of(text: str, name: str, *, is_inline: bool = False) -> Any:
    """Return what stands behind a name, as plain data."""
    return plain(_member(text, name, is_inline=is_inline)[1].value)


def with_hosts(text: str, entries: Mapping[str, object]) -> str:
    """Put entries at the end of a hosts file; `hosts` itself too, where it is missing."""
    for name, entry in entries.items():
        root = _root(text)
        hosts = root.get("hosts")
        edits = (
            new_member(text, _object(hosts), name, entry) if hosts else new_member(text, root, "hosts", {name: entry})
        )
        text = changed(text, edits)
    return text


def without_host(text: str, name: str, *, is_inline: bool = False) -> str:
    """Take out every entry of this name. Braces that are left without anything between them close up."""
    found = _namesakes(text, name, is_inline=is_inline)
    while found:
        hosts, member = found[-1]
        text = changed(text, removal(text, hosts, hosts.members.index(member)))
        text = _closed_up(text, hosts.start) if len(hosts.members) == 1 else text
        found = _namesakes(text, name, is_inline=is_inline)
    return text


def with_name(text: str, name: str, new: str, *, is_inline: bool = False) -> str:
    """Give an entry another name; it keeps its place."""
    _, member = _member(text, name, is_inline=is_inline)
    return changed(text, new_key(text, member, new))


def with_field(text: str, name: str, path: Keys, value: object, *, is_inline: bool = False) -> str:
    """Set a field of an entry. A short form stays one as long as only its address changes."""
    _, member = _member(text, name, is_inline=is_inline)
    node = member.value
    if isinstance(node, Object) and _is_twice(node, path):
        return with_field(without_field(text, name, path, is_inline=is_inline), name, path, value, is_inline=is_inline)
    if isinstance(node, Object):
        return _with_member(text, node, path, value)
    if path == ("host",):
        return changed(text, new_value(node, value))
    address = {"host": node.content} if isinstance(node, Scalar) and isinstance(node.content, str) else {}
    return changed(text, new_value(node, address | _nested(path, value)))


def without_field(text: str, name: str, path: Keys, *, is_inline: bool = False) -> str:
    """Take a field out of an entry, every time that it is there; an object that it leaves empty goes with it."""
    _, member = _member(text, name, is_inline=is_inline)
    if not isinstance(member.value, Object):
        raise KeyError(path[0])
    parent = _parent(member.value, path)
    if len({one.key for one in parent.members}) == 1 and len(path) > 1 and parent.members[0].key == path[-1]:
        return without_field(text, name, path[:-1], is_inline=is_inline)
    indexes = [index for index, one in enumerate(parent.members) if one.key == path[-1]]
    if not indexes:
        raise KeyError(path[-1])
    text = changed(text, removal(text, parent, indexes[-1]))
    return without_field(text, name, path, is_inline=is_inline) if len(indexes) > 1 else text


def _with_member(text: str, target: Object, path: Keys, value: object) -> str:
    key, *rest = path
    found = [index for index, one in enumerate(target.members) if one.key == key]
    if not found:
        return changed(text, new_member(text, target, key, _nested(tuple(rest), value) if rest else value))
    node = target.members[found[0]].value
    if rest and isinstance(node, Object):
        return _with_member(text, node, tuple(rest), value)
    return changed(text, new_value(node, _nested(tuple(rest), value) if rest else value))


def _is_twice(target: Object, path: Keys) -> bool:
    try:
        return sum(one.key == path[-1] for one in _parent(target, path).members) > 1
    except KeyError:
        return False


def _nested(path: Keys, value: object) -> dict[str, object]:
    key, *rest = path
    return {key: _nested(tuple(rest), value) if rest else value}


def _parent(target: Object, path: Keys) -> Object:
    for key in path[:-1]:
        member = target.get(key)
        if member is None or not isinstance(member.value, Object):
            raise KeyError(key)
        target = member.value
    return target


def _member(text: str, name: str, *, is_inline: bool) -> tuple[Object, Member]:
    """Return the entry that counts, and the object that holds it: of several plugin entries the last."""
    found = _namesakes(text, name, is_inline=is_inline)
    if not found:
        raise KeyError(name)
    hosts, member = found[-1]
    same = [one for one in hosts.members if one.key == name]
    if len(same) > 1:
        raise NamesakesError(tuple(one.line for one in same))
    return hosts, member


def _namesakes(text: str, name: str, *, is_inline: bool) -> list[tuple[Object, Member]]:
    return [(hosts, one) for hosts in _all_hosts(text, is_inline=is_inline) for one in hosts.members if one.key == name]


def _all_hosts(text: str, *, is_inline: bool) -> list[Object]:
    if not is_inline:
        member = _root(text).get("hosts")
        return [_object(member)] if member else []
    ours = [entry.options for entry in plugin_entries(parse(text)) if entry.is_ours and entry.options]
    found = [member for options in ours if (member := options.get("hosts"))]
    return [member.value for member in found if isinstance(member.value, Object)]


def _root(text: str) -> Object:
    root = parse(text)
    if not isinstance(root, Object) or root.duplicate():
        raise ValueError('expected one object with one `hosts`: `{"hosts": {...}}`')
    return root


def _object(member: Member) -> Object:
    if not isinstance(member.value, Object):
        raise JsoncError(member.value.line, "`hosts` is not an object")
    return member.value


def _closed_up(text: str, start: int) -> str:
    end = text.index("}", start)
    return text[: start + 1] + text[end:] if not text[start + 1 : end].strip() else text
