"""What of this user's OpenCode can go to a host: configuration, and apart from it credentials. Reads, sends nothing."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.hosts.change import changed, removal
from remote_dispatch.hosts.jsonc import Array, JsoncError, Object, parse, plain
from remote_dispatch.hosts.layers import home_of
from remote_dispatch.hosts.opencode_files import global_directory, plugin_entries
from remote_dispatch.setup.secrets import looks_secret, secret_in
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from remote_dispatch.hosts.jsonc import Node
    from remote_dispatch.hosts.opencode_files import PluginEntry

JSON_FILES = ("config.json", "opencode.json", "opencode.jsonc", "tui.json", "tui.jsonc")
TEXT_FILES = ("AGENTS.md",)
FOLDERS = ("agent", "agents", "command", "commands", "mode", "modes", "skill", "skills", "themes", "prompt", "prompts")
"""As OpenCode 1.18 reads them; of prompts its documentation says that agents refer to them."""
CODE_FOLDERS = ("plugin", "plugins", "tool", "tools")
FILE_LIMIT_BYTES = 1_000_000
TOTAL_LIMIT_BYTES = 10_000_000
FILES_LIMIT = 1000
CREDENTIALS_FILE = "auth.json"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that does not go, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Belongings:
    """Files by their names below OpenCode's directory of configuration; names use `/`."""

    files: dict[str, bytes] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    with_secrets: tuple[str, ...] = ()
    """The names of those files that hold a secret; they are there only when credentials may go."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """`auth.json`, and whose credentials it has."""

    content: bytes
    providers: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Credentials(providers={self.providers!r})"


class _Basket:
    """Collects files up to their limits, and what is left out."""

    def __init__(self, root: Path, *, may_hold_secrets: bool) -> None:
        self.files: dict[str, bytes] = {}
        self.left_out: list[LeftOut] = []
        self.with_secrets: list[str] = []
        self._root = root.resolve()
        self._may_hold_secrets = may_hold_secrets

    def leave(self, name: str, why: str) -> None:
        self.left_out.append(LeftOut(mask_addresses(clean(name, 200)), mask_addresses(why)))

    def read(self, path: Path, name: str) -> bytes | None:
        """Read a file that may go, else say why not."""
        why = self._objection(path, name)
        if why is None:
            try:
                return path.read_bytes()
            except OSError:
                why = "it cannot be read"
        self.leave(name, why)
        return None

    def _objection(self, path: Path, name: str) -> str | None:
        if not path.resolve().is_relative_to(self._root):
            return "it is a link that leads out of the directory"
        if not path.is_file():
            return "it is no regular file"
        if path.stat().st_size > FILE_LIMIT_BYTES:
            return f"it is larger than {FILE_LIMIT_BYTES // 1_000_000} MB"
        return None if name.isprintable() else "its name is odd"

    def put(self, name: str, content: bytes, secret: str | None) -> None:
        if secret and not self._may_hold_secrets:
            self.leave(name, f"it holds a secret (`{clean(secret, 100)}`): `--with-credentials` lets it go")
        elif sum(map(len, self.files.values())) + len(content) > TOTAL_LIMIT_BYTES or len(self.files) >= FILES_LIMIT:
            self.leave(name, "all files together are too large")
        else:
            self.files[name] = content
            self.with_secrets += [name] if secret else []


def collect_config(environment: Mapping[str, str], *, may_hold_secrets: bool) -> Belongings:
    """Read what of OpenCode's global directory may go to another machine.

    Plugins and tools that are files stay, and so does whatever is not known to be OpenCode's configuration: the hosts
    file above all.
    """
    root = global_directory(environment, home_of(environment))
    basket = _Basket(root, may_hold_secrets=may_hold_secrets)
    for name in JSON_FILES:
        _put_json(basket, root / name)
    for name in TEXT_FILES:
        _put_text(basket, root / name, name)
    for name in FOLDERS:
        for path in _files_below(basket, root / name, root):
            _put_text(basket, path, path.relative_to(root).as_posix())
    for name in CODE_FOLDERS:
        if (root / name).is_dir() and any((root / name).iterdir()):
            basket.leave(f"{name}/", "it is code that OpenCode would run there: copy it yourself")
    return Belongings(basket.files, tuple(basket.left_out), tuple(basket.with_secrets))


def collect_credentials(environment: Mapping[str, str]) -> Credentials:
    """Read OpenCode's credentials. Raises UsageError when there are none, ConfigurationError for what is no JSON."""
    data = environment.get("XDG_DATA_HOME") or home_of(environment) / ".local/share"
    path = Path(data) / "opencode" / CREDENTIALS_FILE
    try:
        if path.stat().st_size > FILE_LIMIT_BYTES:
            raise ConfigurationError(f"`{CREDENTIALS_FILE}` of OpenCode is absurdly large")
        content = path.read_bytes()
        providers = json.loads(content)
    except FileNotFoundError:
        raise UsageError(
            "OpenCode has no credentials on this machine to be sent", hint="log in with `opencode auth login`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"`{CREDENTIALS_FILE}` of OpenCode cannot be read", hint="see `opencode auth list`"
        ) from error
    if not isinstance(providers, dict) or not providers:
        raise UsageError(
            "OpenCode has no credentials on this machine to be sent", hint="log in with `opencode auth login`"
        )
    return Credentials(content, tuple(mask_addresses(clean(str(name), 80)) for name in providers))


def _files_below(basket: _Basket, folder: Path, root: Path) -> Iterator[Path]:
    """Every file below a folder in a fixed order; hidden ones are nobody's configuration."""
    for place, folders, names in () if folder.is_symlink() else os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place) / name for name in folders):
            if path.is_symlink():
                basket.leave(f"{path.relative_to(root).as_posix()}/", "it is a link")
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))
    if folder.is_symlink():
        basket.leave(f"{folder.name}/", "it is a link")


def _put_text(basket: _Basket, path: Path, name: str) -> None:
    content = basket.read(path, name) if os.path.lexists(path) else None
    if content is not None:
        basket.put(name, content, "a key" if looks_secret(content.decode(errors="replace")) else None)


def _put_json(basket: _Basket, path: Path) -> None:
    content = basket.read(path, path.name) if os.path.lexists(path) else None
    if content is None:
        return
    try:
        text, stay = _without_local_plugins(content.decode())
        root = parse(text)
    except (JsoncError, ValueError):
        basket.leave(path.name, "it is not valid JSON")
        return
    for spec in stay:
        basket.leave(f"{path.name}: plugin `{spec}`", "it belongs to this machine")
    secret = secret_in(plain(root)) or ("a comment" if looks_secret(text) else None)
    basket.put(path.name, text.encode(), secret)


def _without_local_plugins(text: str) -> tuple[str, list[str]]:
    """Take out plugins that are files, and this program's own; return their names too."""
    taken: list[str] = []
    while found := _local_plugin(parse(text)):
        entry, plugins = found
        taken.append(clean(PurePosixPath(entry.spec).name if entry.package is None else entry.spec, 100))
        text = changed(text, removal(text, plugins, entry.index))
    return text, taken


def _local_plugin(root: Node) -> tuple[PluginEntry, Array] | None:
    member = root.get("plugin") if isinstance(root, Object) else None
    if member is None or not isinstance(member.value, Array):
        return None
    entry = next((one for one in plugin_entries(root) if one.package is None or one.is_ours), None)
    return (entry, member.value) if entry else None
