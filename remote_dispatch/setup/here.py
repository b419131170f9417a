"""The OpenCode programs on this machine: not what starts one, but the files that can be sent."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError, UsageError
from remote_dispatch.opencode.program import THIS_MACHINE, find_binary
from remote_dispatch.setup.build import Build, read_build

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = re.compile(r"\.?opencode(?:[._-].*)?")
"""A shim of a version manager is a link to the manager's own program, whose name is another."""
_SCRIPT_LIMIT_BYTES = 100_000
_NAMED_PROGRAM = re.compile(r"""(/[^\s"'$`;|&<>()]*/\.?opencode[^\s/"'$`;|&<>()]*)""")
_ABOVE = 4
_SCRIPTS = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that could be sent."""

    path: Path
    build: Build
    size: int


def candidates(environment: Mapping[str, str]) -> tuple[Candidate, ...]:
    """Return OpenCode's program files on this machine, what the user runs first; launchers are followed, never meant.

    Raises HostNotReadyError when there is none.
    """
    started = find_binary(environment)
    home = Path(environment.get("HOME", "/"))
    found: dict[Path, Candidate] = {}
    for path in (*_behind(started), home / ".opencode/bin/opencode"):
        candidate = None
        with contextlib.suppress(OSError):
            candidate = _candidate(path)
        if candidate and _NAME.fullmatch(candidate.path.name):
            found.setdefault(candidate.path, candidate)
    if not found:
        raise HostNotReadyError(
            THIS_MACHINE,
            "what starts OpenCode here is a script, and the program behind it was not found",
            hint="name the program itself with `--binary FILE`",
        )
    return tuple(found.values())


def given(path: Path) -> Candidate:
    """Return the program that the user names. Raises UsageError when it is none."""
    try:
        candidate = _candidate(path.expanduser())
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read", hint="name the program file of OpenCode") from error
    if candidate is None:
        raise UsageError(
            f"`{path}` is not a program of Linux or macOS",
            hint="name the program itself, not an archive that holds it, and not a script that starts it",
        )
    return candidate


def _behind(started: Path) -> Iterator[Path]:
    """Where the program may be: the thing itself, what scripts name, and where npm puts its builds."""
    chain = [started.resolve()]
    for script in chain:
        chain += [one for one in map(Path.resolve, _named_in(script)) if one not in chain][: _SCRIPTS - len(chain)]
    yield from chain
    for place in chain:
        for folder in list(place.parents)[:_ABOVE]:
            yield from (folder / "bin/opencode.exe", folder / "bin/.opencode")
            yield from sorted(folder.glob("opencode-*/bin/opencode"))
            yield from sorted(folder.glob("node_modules/opencode-*/bin/opencode"))


def _named_in(script: Path) -> Iterator[Path]:
    """The programs of OpenCode that a small script names by their whole path; such a one may be a script too."""
    with contextlib.suppress(OSError):
        if script.is_file() and script.stat().st_size <= _SCRIPT_LIMIT_BYTES:
            text = script.read_bytes().decode(errors="replace")
            yield from map(Path, _NAMED_PROGRAM.findall(text) if text.startswith("#!") else ())


def _candidate(path: Path) -> Candidate | None:
    resolved = path.resolve()
    if not resolved.is_file():
        return None
    build = read_build(resolved)
    return Candidate(resolved, build, resolved.stat().st_size) if build else None
