"""Changing the user's files: add, set, unset, remove, rename. Comments and formatting stay; bad input changes none."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.hosts import rewrite
from remote_dispatch.hosts.entries import FIELDS, FieldError, faults_of, field_hint, host_from, is_word
from remote_dispatch.hosts.files import MAX_BYTES, UnreadableError, decoded, locked, read_bytes, real, replace_text
from remote_dispatch.hosts.jsonc import JsoncError, parse
from remote_dispatch.hosts.layers import LayerKind
from remote_dispatch.hosts.names import check_name, is_speakable
from remote_dispatch.hosts.registry import Registry
from remote_dispatch.hosts.suggest import guess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from remote_dispatch.hosts.layers import Places
    from remote_dispatch.hosts.registry import Origin

_OBJECTS = ("env", "permission_rules")
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_UNCHANGED = "correct that first; nothing was changed"
_OTHER_NAME = "choose another name: it is public, and stands for the address"
_PLACEHOLDER = "x"


def add(places: Places, name: str, address: str | None, **fields: object) -> Path:
    """Add a host to the user's own file, and return that file. Fields that are None are left out.

    `address` may be None when `server` is there. The file is `places.target`; it is made (0600, in a directory 0700)
    when it is missing. Raises UsageError for a bad or taken name, address or field, and ConfigurationError for a file
    that is broken or not writable.
    """
    entry = {"host": address, **fields}
    return add_many(places, {name: {key: value for key, value in entry.items() if value is not None}})


def add_many(places: Places, entries: Mapping[str, str | Mapping[str, object]]) -> Path:
    """Add hosts in one write, all or none: a text is the short form, a mapping the fields. Raises as `add`."""
    for name, entry in entries.items():
        _check(name, {"host": entry} if isinstance(entry, str) else dict(entry))
    with locked(real(places.target).parent):
        for name in entries:
            _check_is_new(places, name)
        _check_each_other(list(entries))
        _change(places.target, lambda text: rewrite.with_hosts(text, entries), _new_file)
    return places.target


def set_field(places: Places, name: str, field: str, value: object) -> Path:
    """Set a field where the entry of this name stands, and return the file.

    `field` may be dotted: `env.TOKEN`. An entry that was wrong already may stay wrong in other fields. Raises
    UsageError for a bad field or value, or an entry that is not edited here, and as `registry[name]` for an unknown
    name.
    """
    path = _path_of(field)

    def edited(text: str, *, is_inline: bool) -> str:
        before = rewrite.value_of(text, name, is_inline=is_inline)
        after = rewrite.with_field(text, name, path, value, is_inline=is_inline)
        _check_set(before, rewrite.value_of(after, name, is_inline=is_inline), path)
        return after

    return _edit(places, name, edited)


def unset_field(places: Places, name: str, field: str) -> Path:
    """Take a field out of the entry of this name, and return the file. Raises as `set_field`."""

    def edited(text: str, *, is_inline: bool) -> str:
        before = rewrite.value_of(text, name, is_inline=is_inline)
        if not isinstance(before, dict):
            _check_unset(name, before, {})
        path = _present_path(name, before, field)
        after = rewrite.without_field(text, name, path, is_inline=is_inline)
        _check_unset(name, before, rewrite.value_of(after, name, is_inline=is_inline))
        return after

    return _edit(places, name, edited)


def remove(places: Places, name: str) -> Path:
    """Take the entry of this name out of the file in which it counts, and return that file. Raises as `set_field`."""
    return _edit(places, name, lambda text, *, is_inline: rewrite.without_host(text, name, is_inline=is_inline))


def rename(places: Places, name: str, new: str) -> Path:
    """Give the entry of this name another one in its place, and return the file. Raises as `set_field` and `add`."""
    check_new_name(places, name, new)

    def edited(text: str, *, is_inline: bool) -> str:
        check_new_name(places, name, new)
        return rewrite.with_name(text, name, new, is_inline=is_inline)

    return _edit(places, name, edited)


def check_new_name(places: Places, name: str, new: str) -> None:
    """Raise UsageError when the host of this name cannot be called otherwise so: a bad name, or a taken one."""
    try:
        check_name(new)
    except ValueError as error:
        raise UsageError(str(error), hint=_OTHER_NAME) from None
    _check_is_new(places, new, but=name)


def parse_value(field: str, text: str) -> object:
    """Read a value as the command line has it: by the type of the field. Raises UsageError."""
    path = _path_of(field)
    if path[0] == "port":
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    if path[0] == "permission_rules" and (len(path) == 1 or text.lstrip().startswith("{")):
        return _json(field, text, '{"bash": {"*": "deny", "git *": "allow"}}')
    if path[0] == "server_password_command":
        return _json(field, text, '["pass", "show", "opencode"]', "a list")
    return _json(field, text, '{"TOKEN": "..."}') if path == ("env",) else text


def editable(places: Places, name: str) -> Origin:
    """Return where the entry of this name stands. Raises UsageError when that is a file of a project."""
    origin = Registry.read(places).origin(name)
    if origin.kind is LayerKind.PROJECT:
        raise UsageError(
            f"{_called(name)} stands in a file of a project ({origin}), which is not edited here",
            hint="edit it there, then look at it with `remote-dispatch hosts trust`",
        )
    return origin


# --- the file


def _edit(places: Places, name: str, edited: Callable[..., str]) -> Path:
    origin = editable(places, name)
    with locked(real(origin.file).parent):
        _change(origin.file, lambda text: edited(text, is_inline=origin.kind is LayerKind.INLINE))
    return origin.file


def _change(path: Path, edited: Callable[[str], str], new: Callable[[], str] | None = None) -> None:
    """Read, change, write. What is written can be read again, and a byte order mark stays."""
    try:
        content = read_bytes(path)
        text = new() if content is None and new else decoded(content or b"{}")
        after = edited(text)
        _check_readable(after)
        if read_bytes(path) != content:
            raise _changed_meanwhile(path)
    except KeyError:
        raise _changed_meanwhile(path) from None
    except UnreadableError as error:
        raise ConfigurationError(f"{path} {error}", hint=_UNCHANGED) from None
    except rewrite.NamesakesError as error:
        lines = " and ".join(f"{path}:{line}" for line in error.lines)
        raise ConfigurationError(f"{error} ({lines})", hint="`remote-dispatch hosts edit` opens the file") from None
    except JsoncError as error:
        raise ConfigurationError(f"{path}:{error.line}: {error.message}", hint=_UNCHANGED) from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}", hint=_UNCHANGED) from None
    if after != text or content is None:
        mark = _MARK if content and content.startswith(codecs.BOM_UTF8) else ""
        replace_text(path, mark + after)
    _keep_schema()


def _changed_meanwhile(path: Path) -> ConfigurationError:
    """Another program of ours waits for the lock; an editor does not."""
    return ConfigurationError(f"{path} was changed meanwhile", hint="try again; nothing was overwritten")


def _check_readable(text: str) -> None:
    if len(text.encode()) > MAX_BYTES:
        raise ValueError("the file would be larger than 1 MiB")
    parse(text)


def _new_file() -> str:
    reference = _keep_schema()
    schema = f'  "$schema": {json.dumps(reference)},\n' if reference else ""
    return f'{{\n{schema}  "hosts": {{}}\n}}\n'


def _keep_schema() -> str | None:
    """Bring the copy of the schema, which files refer to, up to date; return its URL, or None without one."""
    from remote_dispatch.hosts.schema import installed_reference  # noqa: PLC0415 - only a change needs it

    return installed_reference()


# --- what is refused


def _check(name: str, entry: dict[str, object]) -> None:
    try:
        host_from(name, entry)
    except FieldError as error:
        raise _usage(error) from None
    except ValueError as error:
        raise UsageError(str(error), hint=_OTHER_NAME) from None


def _usage(error: FieldError) -> UsageError:
    field = f"`{error.path[0]}`: " if error.path and error.path[0] in FIELDS else ""
    return UsageError(f"{field}{error}", hint="`docs/hosts.md` has an example of every field; nothing was changed")


def _check_is_new(places: Places, name: str, *, but: str | None = None) -> None:
    registry = Registry.read(places)
    if name in registry:
        raise UsageError(
            f"host `{name}` is there already ({registry.origin(name)})",
            hint=f"choose another name, or change that one with `remote-dispatch hosts set {name} FIELD VALUE`",
        )
    twin = registry.twin(name)
    if twin and twin != but:
        raise UsageError(f"host `{name}` would differ from `{twin}` only in case", hint="choose another name")


def _check_each_other(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if twin := next((one for one in names[:index] if one.lower() == name.lower()), None):
            raise UsageError(f"host `{name}` would differ from `{twin}` only in case", hint="choose another name")


def _check_set(before: object, after: object, path: rewrite.Keys) -> None:
    """The field itself must be right, and an entry that was right must stay so."""
    fields = _fields(after)
    field = path[0]
    alone = {"host": _PLACEHOLDER, field: fields.get(field)}
    for fault in faults_of(alone):
        raise _usage(fault)
    if not faults_of(_fields(before)):
        for fault in faults_of(fields):
            raise _usage(fault)


def _check_unset(name: str, before: object, after: object) -> None:
    had = {fault.path for fault in faults_of(_fields(before))}
    for fault in faults_of(_fields(after)):
        if fault.path not in had:
            raise UsageError(
                f"{_called(name)} would be no host without it: {fault}",
                hint=f"`remote-dispatch hosts remove {name}` takes it out as a whole" if is_speakable(name) else None,
            )


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {"host": value}


def _path_of(field: str) -> rewrite.Keys:
    head, dot, rest = field.partition(".")
    if head not in FIELDS:
        called = f"`{head}`" if is_word(head) else "that"
        raise UsageError(f"{called} is no field of a host", hint=field_hint(head))
    if dot and (head not in _OBJECTS or not rest):
        raise UsageError(f"`{head}` has no fields of its own", hint=f"leave out what stands behind `{head}`")
    return (head, rest) if dot else (head,)


def _present_path(name: str, entry: object, field: str) -> rewrite.Keys:
    """What is taken out may be no field that we know: a misspelt one is cured so."""
    present = _fields(entry)
    head, dot, rest = field.partition(".")
    path = (field,) if field in present else (head, rest) if dot else (head,)
    inner = present.get(path[0])
    if path[0] in present and (len(path) == 1 or (isinstance(inner, dict) and path[1] in inner)):
        return path
    known = [one for one in present if one in FIELDS]
    known += [f"{one}.{key}" for one in known if one in _OBJECTS for key in _keys(present[one])]
    missing = "such field" if head not in FIELDS else f"such key in `{head}`" if head in present else f"`{head}`"
    raise UsageError(
        f"{_called(name)} has no {missing}",
        hint=guess(field, known) or f"it has {', '.join(f'`{one}`' for one in known)}",
    )


def _keys(value: object) -> list[str]:
    return [key for key in value if key.isidentifier()] if isinstance(value, dict) else []


def _called(name: str) -> str:
    return f"host `{name}`" if is_speakable(name) else "the entry"


def _json(field: str, text: str, example: str, kind: str = "an object") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"`{field}` takes {kind} as JSON", hint=f"such as '{example}'") from None
