"""Where OpenCode 1.18 keeps the user's configuration, and what its list of plugins says of ours. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from remote_dispatch.hosts.jsonc import Array, Object, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from remote_dispatch.hosts.jsonc import Node

PLUGIN_NAME = "remote-dispatch"
PLUGIN_FILE = "remote-dispatch.js"
GLOBAL_FILES = ("config.json", "opencode.json", "opencode.jsonc")
"""Read in this order from the global directory; of two lists of plugins there the later one alone counts."""
FURTHER_FILES = ("opencode.json", "opencode.jsonc")
"""Read from every other directory of configuration; their lists of plugins are added."""


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One item of `plugin`. `spec` is what it names, `options` the object behind it, where there is one."""

    spec: str
    node: Node
    index: int
    options: Object | None = None

    @property
    def package(self) -> str | None:
        """The npm package that it names, without its version; None for a file."""
        if "/" in self.spec.removeprefix("@").partition("/")[2] or self.spec.startswith((".", "/", "~", "file:")):
            return None
        return self.spec[:1] + self.spec[1:].partition("@")[0]

    @property
    def file(self) -> Path | None:
        """The file that it names, where it names one absolutely."""
        text = unquote(urlsplit(self.spec).path) if self.spec.startswith("file:") else self.spec
        return Path(text) if text.startswith("/") else None

    @property
    def is_ours(self) -> bool:
        """Whether it names this program's plugin: the file by its name, or a package of our name."""
        return self.package == PLUGIN_NAME or self.spec.rpartition("/")[2] == PLUGIN_FILE


def global_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Return OpenCode's own directory, which it reads whatever OPENCODE_CONFIG_DIR says."""
    base = Path(environment.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else home / ".config") / "opencode"


def home_folder(home: Path) -> Path:
    """Return where OpenCode's own installer puts it; OpenCode reads its configuration from there wherever it starts."""
    return home / ".opencode"


def user_files(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Name every file that may hold the user's configuration, the later over the earlier."""
    folder = global_directory(environment, home)
    files = [folder / name for name in GLOBAL_FILES]
    if named := environment.get("OPENCODE_CONFIG"):
        files.append(expanded(named, home))
    files += [home_folder(home) / name for name in FURTHER_FILES]
    if own := environment.get("OPENCODE_CONFIG_DIR"):
        files += [expanded(own, home) / name for name in FURTHER_FILES]
    return tuple(dict.fromkeys(files))


def project_files(project: Path) -> tuple[Path, ...]:
    """Name every file that may hold a project's configuration."""
    return tuple(folder / name for folder in (project, project / ".opencode") for name in FURTHER_FILES)


def plugin_entries(root: Node) -> Iterator[PluginEntry]:
    """Read the items of `plugin` in a configuration; what is none of OpenCode's two forms is left out."""
    plugin = root.get("plugin") if isinstance(root, Object) else None
    items = plugin.value.items if plugin and isinstance(plugin.value, Array) else ()
    for index, item in enumerate(items):
        parts = item.items if isinstance(item, Array) else (item,)
        if parts and isinstance(parts[0], Scalar) and isinstance(parts[0].content, str):
            options = parts[1] if len(parts) > 1 and isinstance(parts[1], Object) else None
            yield PluginEntry(parts[0].content, item, index, options)


def expanded(text: str, home: Path) -> Path:
    """Return an absolute path; a leading `~` is the home."""
    path = Path(text)
    return home.joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else path.absolute()
