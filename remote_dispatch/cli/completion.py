"""What the shell completes: hosts, dispatches, sessions, fields. Quick, and silent whatever is wrong.

Typer's scripts for zsh and fish have the shell evaluate what is printed here. So every value is a plain word, and of a
help text, which may be a title that a model wrote, letters, digits and a few harmless marks stay.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Context = typer.Context
"""Typer finds the parameter by this annotation when it completes."""
Completions = list[tuple[str, str]]
"""Words, each with a line of help, which may be empty."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OFFER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,127}")
"""Agents and models that are plain words to every shell."""
_MOST_DISPATCHES = 100
_RECORD_BYTES = 1 << 20
_HELP_LENGTH = 60
_HARMLESS = " .,-_+/"
_FIRST_TAB = '[[ "$funcstack[1]" = "_remote-dispatch" ]] && _remote_dispatch_completion "$@"\n'
_VALUES = {
    "permissions": ("deny", "auto"),
    "code": ("carry", "existing", "none"),
    "os": ("linux", "macos", "windows"),
}


def complete_host(context: Context, incomplete: str) -> list[str]:
    """Complete the name of a host, in the file that `--hosts` names where it stands before."""
    hosts_file = context.params.get("hosts_file")
    try:
        names = _host_names(Path(hosts_file) if hosts_file else None)
    except (RemoteDispatchError, OSError, RuntimeError, ValueError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_dispatch(incomplete: str) -> Completions:
    """Complete the name of a dispatch; the host is the help."""
    try:
        return _fitting(((name, f"on {host}") for name, host in _dispatches()), incomplete)
    except (OSError, RuntimeError):
        return []


def complete_named_session(incomplete: str) -> Completions:
    """Complete the name of a named session; host and title are the help."""
    try:
        return _fitting(_named_sessions(), incomplete)
    except (OSError, RuntimeError):
        return []


def complete_agent(context: Context, incomplete: str) -> list[str]:
    """Complete an agent of the host or session that stands before, as its server offered them last."""
    return _remembered(context, "agents", incomplete)


def complete_model(context: Context, incomplete: str) -> list[str]:
    """Complete a model of the host or session that stands before, as its server offered them last."""
    return _remembered(context, "models", incomplete)


def complete_session(incomplete: str) -> Completions:
    """Complete the id of a session, those of this directory first; the title is the help."""
    from remote_dispatch.opencode.glance import glance

    try:
        return _fitting(glance(os.environ, Path.cwd(), incomplete), incomplete)
    except OSError:
        return []


def complete_field(incomplete: str) -> Completions:
    """Complete the name of a field of a host."""
    from remote_dispatch.hosts.schema import described_fields

    return _fitting(described_fields().items(), incomplete)


def complete_value(context: Context, incomplete: str) -> list[str]:
    """Complete the value of a field that has only a few; `field` is the parameter that holds its name."""
    values = _VALUES.get(context.params.get("field") or "", ())
    return [value for value in values if value.startswith(incomplete)]


def mend_script_for_zsh(home: Path) -> None:
    """Let the script that was installed answer the first Tab too.

    Typer 0.29: zsh loads the file at the first Tab of a session, and it only defines a function then. Where there is no
    such file, nothing is done.
    """
    script = home / ".zfunc/_remote-dispatch"
    if not script.is_file():
        return
    text = script.read_text(encoding="utf-8")
    if _FIRST_TAB not in text:
        script.write_text(f"{text.rstrip()}\n\n{_FIRST_TAB}", encoding="utf-8")


def _host_names(hosts_file: Path | None) -> Iterable[str]:
    from remote_dispatch.hosts.quick import names_here

    names = names_here(hosts_file)
    if names is not None:
        return names
    from remote_dispatch.cli.hosts import load_registry

    return load_registry(hosts_file).names


def _dispatches() -> Iterator[tuple[str, str]]:
    """Read names and hosts of the newest records as plain JSON: the store would check each of them as a whole."""
    for folder in sorted(_records_directory().iterdir(), reverse=True)[:_MOST_DISPATCHES]:
        try:
            record = json.loads(_beginning(folder / "record.json"))
            yield str(record["name"]), str(record["request"]["host"])
        except (OSError, ValueError, LookupError, TypeError):
            continue


def _named_sessions() -> Iterator[tuple[str, str]]:
    for path in sorted((_records_directory().parent / "sessions").glob("*.json")):
        try:
            record = json.loads(_beginning(path))
            yield path.stem, f"on {record['host']} {record.get('title') or ''}"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue


def _remembered(context: Context, kind: str, incomplete: str) -> list[str]:
    """No server is asked: what was offered last stands in a file for each host.

    The parser stops at the option that has no value yet, so that the arguments before it are in `args`.
    """
    state = _records_directory().parent
    try:
        place = context.params.get("host") or context.params.get("name") or context.args[0]
        record = state / f"sessions/{place}.json"
        host = json.loads(_beginning(record))["host"] if record.exists() else place
        words = json.loads(_beginning(state / f"offers/{host}.json"))[kind]
        return [word for word in words if word.startswith(incomplete) and _OFFER.fullmatch(word)]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _beginning(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_RECORD_BYTES)


def _records_directory() -> Path:
    """Where `dispatch.default_store` keeps them: to import that room takes longer than all the rest."""
    if asked := os.environ.get("REMOTE_DISPATCH_STATE"):
        return Path(asked) / "dispatches"
    import platformdirs

    return platformdirs.user_state_path("remote-dispatch") / "dispatches"


def _fitting(found: Iterable[tuple[str, str]], incomplete: str) -> Completions:
    return [(word, _harmless(text)) for word, text in found if word.startswith(incomplete) and _WORD.fullmatch(word)]


def _harmless(text: str) -> str:
    """Keep what no shell and no markup gives a meaning to, in one line."""
    plain = "".join(letter if letter.isalnum() or letter in _HARMLESS else " " for letter in text[: 4 * _HELP_LENGTH])
    return " ".join(plain.split())[:_HELP_LENGTH]
