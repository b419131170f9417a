"""Our entry in the text of OpenCode's configuration: put in, brought up to date, taken out. Does no I/O."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from remote_dispatch.hosts.change import Edit, changed, new_item, new_member, removal, way_back
from remote_dispatch.hosts.jsonc import Array, JsoncError, Object, parse, plain
from remote_dispatch.hosts.opencode_files import PLUGIN_NAME, plugin_entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.hosts.opencode_files import PluginEntry

NEW_TEXT = '{\n  "$schema": "https://opencode.ai/config.json"\n}'
"""What OpenCode 1.18 itself writes where there is no configuration."""


class EntryReceipt(BaseModel):
    """What was changed in a configuration, so that it can be as before."""

    after: str
    """The digest of the text when it was written; while it is the same, `undo` leads back exactly."""
    undo: list[tuple[int, int, str]]
    pieces: list[str]
    """The texts that were put in."""
    made_key: bool = False
    """Whether `plugin` itself was put in."""
    converted: str | None = None
    """What stood in place of the entry: an npm-like one, in its own spelling."""


@dataclass(frozen=True, slots=True)
class Written:
    """A text with our entry."""

    text: str
    receipt: EntryReceipt


@dataclass(frozen=True, slots=True)
class Removed:
    """A text without our entry; `options` are those of the entry that we did not write."""

    text: str
    options: dict[str, Any] = field(default_factory=dict)


def with_entry(text: str, spec: str, command: Sequence[str], earlier: EntryReceipt | None = None) -> Written | None:
    """Put the entry in, or bring it up to date; None when it stands there as it should.

    An npm-like entry of our name becomes the file's, with its options: OpenCode would look for a package of that name.
    Raises JsoncError, and ValueError for a configuration whose `plugin` is no list.
    """
    if earlier and earlier.after == _digest(text):
        before = _undone(text, earlier)
        written = with_entry(before, spec, command)
        return None if written and written.text == text else written
    root, plugins = _parsed(text)
    entry = _find(root, spec)
    edits = _update(text, root, plugins, entry, spec, list(command))
    if not edits:
        return None
    after = changed(text, edits)
    receipt = EntryReceipt(
        after=_digest(after) if earlier is None else "",
        undo=[(edit.start, edit.end, edit.new) for edit in way_back(text, edits)],
        pieces=[edit.new for edit in edits],
        made_key=plugins is None,
        converted=text[entry.node.start : entry.node.end] if entry and entry.package else None,
    )
    return Written(after, receipt if earlier is None else earlier.model_copy(update={"after": ""}))


def without_entry(text: str, spec: str, receipt: EntryReceipt | None) -> Removed | None:
    """Take the entry out, or return None when there is none. Raises as `with_entry`."""
    root, plugins = _parsed(text)
    entry = next((one for one in plugin_entries(root) if one.spec == spec), None)
    if entry is None or plugins is None:
        return None
    options = plain(entry.options) if entry.options else {}
    if receipt and receipt.after == _digest(text):
        return Removed(_undone(text, receipt))
    if receipt and receipt.converted:
        return Removed(changed(text, _converted_back(text, entry, receipt.converted)))
    rest = {key: value for key, value in options.items() if key != "command"}
    return Removed(changed(text, _taken_out(text, root, plugins, entry, receipt)), rest)


def entry_of(text: str, spec: str) -> tuple[PluginEntry, tuple[str, ...]] | None:
    """Return our entry and the command that it names, or None."""
    entry = _find(_parsed(text)[0], spec)
    if entry is None:
        return None
    command = plain(entry.options).get("command") if entry.options else None
    return entry, tuple(command) if isinstance(command, list) else ()


def has_plugins(text: str) -> bool:
    """Whether the configuration has a list of plugins."""
    return _parsed(text)[1] is not None


def _parsed(text: str) -> tuple[Object, Array | None]:
    root = parse(text)
    if not isinstance(root, Object):
        raise JsoncError(root.line, "expected an object")
    found = [member for member in root.members if member.key == "plugin"]
    if len(found) > 1:
        raise JsoncError(found[1].line, "`plugin` is there twice")
    if found and not isinstance(found[0].value, Array):
        raise JsoncError(found[0].line, "`plugin` is not a list")
    return root, found[0].value if found and isinstance(found[0].value, Array) else None


def _find(root: Object, spec: str) -> PluginEntry | None:
    entries = tuple(plugin_entries(root))
    same = next((entry for entry in entries if entry.spec == spec), None)
    return same or next((entry for entry in entries if entry.package == PLUGIN_NAME), None)


def _update(
    text: str, root: Object, plugins: Array | None, entry: PluginEntry | None, spec: str, command: list[str]
) -> tuple[Edit, ...]:
    item = [spec, {"command": command}]
    if plugins is None:
        return new_member(text, root, "plugin", [item])
    if entry is None:
        return new_item(text, plugins, item)
    if entry.options is None:
        return (Edit(entry.node.start, entry.node.end, _dumped(item)),)
    return (*_spec_edits(entry, spec), *_command_edits(text, entry.options, command))


def _spec_edits(entry: PluginEntry, spec: str) -> tuple[Edit, ...]:
    node = entry.node.items[0] if isinstance(entry.node, Array) else entry.node
    return () if entry.spec == spec else (Edit(node.start, node.end, _dumped(spec)),)


def _command_edits(text: str, options: Object, command: list[str]) -> tuple[Edit, ...]:
    member = options.get("command")
    if member is None:
        return new_member(text, options, "command", command)
    if plain(member.value) == command:
        return ()
    return (Edit(member.value.start, member.value.end, _dumped(command)),)


def _converted_back(text: str, entry: PluginEntry, before: str) -> tuple[Edit, ...]:
    """Give the entry its old name again; options that came since stay."""
    options = entry.options
    if options is None or [member.key for member in options.members] == ["command"]:
        return (Edit(entry.node.start, entry.node.end, before),)
    old = parse(before)
    name = before[old.items[0].start : old.items[0].end] if isinstance(old, Array) else before
    node = entry.node.items[0] if isinstance(entry.node, Array) else entry.node
    index = next((number for number, member in enumerate(options.members) if member.key == "command"), None)
    command = () if index is None else removal(text, options, index)
    return (Edit(node.start, node.end, name), *command)


def _taken_out(
    text: str, root: Object, plugins: Array, entry: PluginEntry, receipt: EntryReceipt | None
) -> tuple[Edit, ...]:
    pieces = receipt.pieces if receipt else []
    around = text[plugins.start + 1 : entry.node.start] + text[entry.node.end : plugins.end - 1]
    if receipt and receipt.made_key and not around.strip(" \t\r\n,"):
        index = next(number for number, member in enumerate(root.members) if member.value is plugins)
        return removal(text, root, index, pieces)
    return removal(text, plugins, entry.index, pieces)


def _undone(text: str, receipt: EntryReceipt) -> str:
    return changed(text, [Edit(start, end, old) for start, end, old in receipt.undo])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
