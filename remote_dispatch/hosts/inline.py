"""Hosts that stand in OpenCode's own configuration, as an option of our plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.hosts.entries import HostsFile, Problem, entries_of
from remote_dispatch.hosts.files import UnreadableError, read_text
from remote_dispatch.hosts.jsonc import JsoncError, Object, parse
from remote_dispatch.hosts.opencode_files import PLUGIN_NAME, plugin_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.hosts.jsonc import Member


def read_inline_hosts(path: Path) -> HostsFile | None:
    """Read the hosts of a configuration, or return None when it has none. Never raises for what the file holds."""
    try:
        text = read_text(path)
        if text is None or PLUGIN_NAME not in text:
            return None
        files = [_hosts(path, member) for member in _members(text)]
    except UnreadableError as error:
        return HostsFile(problems=(Problem(path, None, str(error)),))
    except JsoncError as error:
        return HostsFile(problems=(Problem(path, error.line, error.message),))
    entries = {entry.name: entry for file in files for entry in file.entries}
    return HostsFile(tuple(entries.values()), tuple(one for file in files for one in file.problems)) if files else None


def _members(text: str) -> Iterator[Member]:
    for entry in plugin_entries(parse(text)):
        if entry.is_ours and entry.options and (member := entry.options.get("hosts")):
            yield member


def _hosts(path: Path, member: Member) -> HostsFile:
    if isinstance(member.value, Object):
        return HostsFile(entries_of(path, member.value))
    return HostsFile(
        problems=(Problem(path, member.value.line, "expected an object of names and addresses", field="hosts"),)
    )
