"""Adding a host to the user's file. Comments, order and formatting stay; bad input changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.hosts.change import changed, new_member
from remote_dispatch.hosts.entries import FieldError, host_from
from remote_dispatch.hosts.files import UnreadableError, locked, read_text, real, replace_text
from remote_dispatch.hosts.jsonc import JsoncError, Object, parse
from remote_dispatch.hosts.registry import Registry

if TYPE_CHECKING:
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
        return changed(text, new_member(text, root, "hosts", {name: entry}))
    if not isinstance(hosts.value, Object):
        raise JsoncError(hosts.value.line, "`hosts` is not an object")
    return changed(text, new_member(text, hosts.value, name, entry))
