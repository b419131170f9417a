"""The names of the hosts, quickly: for `hosts list --names` and for the shell's completion.

It imports neither pydantic nor the command-line library, and answers only where every file and every entry is plainly
right and nothing is to be told besides. In any doubt it declines, and the registry answers: whatever is taken here the
registry takes too, never the other way round.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.hosts.files import UnreadableError, read_text
from remote_dispatch.hosts.layers import LayerKind, locate
from remote_dispatch.hosts.names import check_name
from remote_dispatch.hosts.nodes import JsoncError, Object, Scalar, first_duplicate, plain
from remote_dispatch.hosts.opencode_files import PLUGIN_NAME, plugin_entries
from remote_dispatch.hosts.reader import read
from remote_dispatch.remote.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from remote_dispatch.hosts.layers import Layer
    from remote_dispatch.hosts.nodes import Node

_LONGEST_TEXT = 4096


def names(
    *,
    environment: Mapping[str, str],
    project: Path | None,
    hosts_file: Path | None = None,
    platform: str = sys.platform,
) -> tuple[str, ...] | None:
    """Return what `Registry.load(...)` with the same values has as `names`, when it has nothing else to tell.

    None means: ask the registry. Raises nothing for what files hold.
    """
    try:
        places = locate(environment=environment, project=project, hosts_file=hosts_file, platform=platform)
        return tuple(sorted({name for layer in places.layers for name in _names_of(layer)}))
    except (JsoncError, OSError, RuntimeError, UnreadableError, _DoubtError):
        return None


def names_here(hosts_file: Path | None = None) -> tuple[str, ...] | None:
    """Return the names as this process sees them, or None: ask the registry."""
    try:
        project = Path.cwd()
    except FileNotFoundError:
        project = None
    return names(environment=os.environ, project=project, hosts_file=hosts_file)


class _DoubtError(Exception):
    """Something is not plainly right, or is to be told."""


def _names_of(layer: Layer) -> Iterator[str]:
    if layer.kind is LayerKind.PROJECT:
        # There is something to tell of it, trusted or not.
        _expect(not layer.exists)
    if layer.ignored is not None:
        return
    text = read_text(layer.path)
    if text is None:
        _expect(layer.kind is not LayerKind.GIVEN)
    elif layer.kind is LayerKind.INLINE:
        yield from _inline_names(text)
    else:
        yield from _file_names(text)


def _file_names(text: str) -> Iterator[str]:
    root = _parsed(text)
    _expect(root.duplicate() is None and all(member.key in ("hosts", "$schema") for member in root.members))
    if member := root.get("hosts"):
        yield from _checked_names(member.value)


def _inline_names(text: str) -> Iterator[str]:
    if PLUGIN_NAME not in text:
        return
    for entry in plugin_entries(_parsed(text)):
        if entry.is_ours and entry.options and (member := entry.options.get("hosts")):
            yield from _checked_names(member.value)


def _parsed(text: str) -> Object:
    root = read(text)
    if not isinstance(root, Object):
        raise _DoubtError
    return root


def _checked_names(hosts: Node) -> Iterator[str]:
    if not isinstance(hosts, Object) or hosts.duplicate():
        raise _DoubtError
    for member in hosts.members:
        _check_entry(member.key, member.value)
        yield member.key


def _check_entry(name: str, value: Node) -> None:
    try:
        check_name(name)
        if isinstance(value, Scalar):
            parse_address(_text(value.content))
        else:
            _expect(first_duplicate(value) is None)
            _check_fields(plain(value))
    except ValueError:
        raise _DoubtError from None


def _check_fields(fields: Any) -> None:
    _expect(isinstance(fields, dict) and ("host" in fields or "server" in fields))
    for field, value in fields.items():
        check = _CHECKS.get(field)
        _expect(check is not None and check(value))
    if "host" in fields and parse_address(fields["host"]).port is not None:
        _expect("port" not in fields)


def _expect(condition: bool) -> None:  # noqa: FBT001 - it stands for an `if` and a `raise`
    if not condition:
        raise _DoubtError


def _text(value: Any) -> str:
    if not _is_text(value):
        raise _DoubtError
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_matched_by(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern)
    return lambda value: _is_text(value) and compiled.fullmatch(value) is not None


def _is_one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


def _is_port(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 65535


def _are_variables(value: Any) -> bool:
    is_name = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
    return isinstance(value, dict) and all(is_name(name) and _is_text(text) for name, text in value.items())


def _is_command(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _are_rules(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_action(rule) or _are_actions(rule) for rule in value.values())


def _are_actions(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_action, value.values()))


_is_action = _is_one_of("allow", "ask", "deny")
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "host": _is_text,
    "port": _is_port,
    "agent": _is_matched_by(r"[^-].*"),
    "model": _is_matched_by(r"[A-Za-z0-9][^\s/]*/[^\s]+"),
    "variant": _is_text,
    "directory": _is_text,
    "permissions": _is_one_of("deny", "auto"),
    "permission_rules": _are_rules,
    "opencode": _is_text,
    "env": _are_variables,
    "code": _is_one_of("carry", "existing", "none"),
    "server": _is_matched_by(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._/-]*)?"),
    "server_user": _is_text,
    "server_password_env": _is_matched_by(r"[A-Za-z_][A-Za-z0-9_]*"),
    "server_password_command": _is_command,
    "os": _is_one_of("linux", "macos", "windows"),
}
"""Stricter than the model, and never wider: a test compares them. A field that is not here is a doubt."""
