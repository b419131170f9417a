"""git as a program: argv only, nothing asked, nothing run that a repository or a setting could name, no network."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import CommandError, HostNotReadyError
from remote_dispatch.remote.local import end_group
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Collection, Mapping

THIS_MACHINE = "this machine"
OLDEST = (2, 38)
"""The first git whose `merge-tree --write-tree` merges without a working tree."""
QUICK_S = 60.0
LONG_S = 3600.0
"""For what reads or writes whole repositories."""
OUTPUT_LIMIT_BYTES = 256_000_000
_DETAIL_LIMIT = 500

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.safecrlf=false",
    "core.logAllRefUpdates=true",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "color.ui=false",
)
_KEPT = frozenset(
    {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH"}
)
"""Where the user's git and its settings are. Everything else of GIT_* would turn our calls to something else."""
_ALWAYS = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    # Only this takes precedence over `protocol.<name>.allow`; git before 2.44 does not know GIT_NO_LAZY_FETCH.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
}
_NAME = "remote-dispatch"
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", _NAME), ("EMAIL", f"{_NAME}@invalid"))
}
_VERSION = re.compile(rb"git version (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Git:
    """git in one directory, with the variables that say which repository, index and objects it works on."""

    program: str
    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def at(self, directory: Path) -> Git:
        """Return git in another directory, whose repository it finds by itself."""
        return replace(self, directory=directory, variables={}, settings=())

    def on(self, store: Path) -> Git:
        """Return git on a bare repository of ours."""
        return replace(self, directory=store, variables={"GIT_DIR": str(store)}, settings=())

    def using(self, **variables: str | Path) -> Git:
        """Return git with these variables beside the others."""
        return replace(self, variables={**self.variables, **{name: str(value) for name, value in variables.items()}})

    def with_settings(self, *settings: str) -> Git:
        """Return git with settings `name=value` beside the others."""
        return replace(self, settings=(*self.settings, *settings))

    async def run(
        self,
        *arguments: str,
        input: bytes | IO[bytes] | None = None,  # noqa: A002 - subprocess's word
        output: IO[bytes] | None = None,
        accepted: Collection[int] = (0,),
        timeout_s: float = QUICK_S,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Ran:
        """Run it to its end; `output` takes stdout, which else is in the answer.

        Raises CommandError for an exit status that is not accepted, a passed deadline and output beyond the limit.
        """
        process = await self._start(arguments, input, output)
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await _talk(process, input if isinstance(input, bytes) else None, limit_bytes)
                status = await process.wait()
        except TimeoutError:
            raise CommandError(THIS_MACHINE, _named(arguments), None, "") from None
        except _TooMuchError:
            raise CommandError(THIS_MACHINE, _named(arguments), None, f"it printed over {limit_bytes} bytes") from None
        finally:
            await end_group(process)
        if status not in accepted:
            raise CommandError(THIS_MACHINE, _named(arguments), status, _last_lines(stderr))
        return Ran(status, stdout, stderr)

    async def line(self, *arguments: str, input: bytes | None = None, timeout_s: float = QUICK_S) -> str:  # noqa: A002
        """Return what it prints, without the last line end."""
        ran = await self.run(*arguments, input=input, timeout_s=timeout_s)
        return os.fsdecode(ran.stdout.removesuffix(b"\n"))

    async def find(self, *arguments: str) -> str | None:
        """Return what it prints, or None where it says by exit status 1 that there is none."""
        ran = await self.run(*arguments, accepted=(0, 1))
        return os.fsdecode(ran.stdout.removesuffix(b"\n")) if ran.status == 0 else None

    async def names(self, *arguments: str, timeout_s: float = LONG_S) -> list[str]:
        """Return the NUL-separated names that it prints; bytes that are not UTF-8 become surrogates."""
        return split((await self.run(*arguments, timeout_s=timeout_s)).stdout)

    async def _start(
        self, arguments: tuple[str, ...], source: bytes | IO[bytes] | None, output: IO[bytes] | None
    ) -> Process:
        stdin = asyncio.subprocess.PIPE if isinstance(source, bytes) else source if source is not None else DEVNULL
        settings = [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        return await asyncio.create_subprocess_exec(
            self.program,
            *settings,
            *arguments,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE if output is None else output,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env=_environment(self.directory) | dict(self.variables),
            start_new_session=True,
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """How git ended and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


async def find_git(program: str = "git") -> Git:
    """Return this machine's git. Raises HostNotReadyError when there is none, or an older one than we need."""
    path = shutil.which(program)
    if path is None:
        raise HostNotReadyError(THIS_MACHINE, "git is not installed", hint="install git, or use `--code none`")
    git = Git(path, Path("/"))
    said = (await git.run("version")).stdout
    found = _VERSION.match(said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST:
        needed = ".".join(map(str, OLDEST))
        shown = clean(said.decode(errors="replace"), 60).strip()
        raise HostNotReadyError(
            THIS_MACHINE,
            f"git {needed} or later is needed to carry code, this is `{shown}`",
            hint="update git, or use `--code none`",
        )
    return git


async def make_store(git: Git, path: Path, object_format: str, *objects: Path) -> Git:
    """Make a bare repository of ours that reads `objects` of others, or take the one that is there; return git on it.

    It has no hooks, and no settings but its own.
    """
    if not (path / "HEAD").exists():
        await git.at(path.parent).run(
            "init", "-q", "--bare", "--template=", f"--object-format={object_format}", str(path)
        )
    borrow(path / "objects", *objects)
    return git.on(path)


def borrow(directory: Path, *others: Path) -> None:
    """Make an object directory that reads the objects of others, too."""
    (directory / "info").mkdir(parents=True, exist_ok=True)
    (directory / "pack").mkdir(exist_ok=True)
    (directory / "info" / "alternates").write_bytes(b"".join(_quoted(other) + b"\n" for other in others))


def as_author() -> dict[str, str]:
    """Return the variables with which commits of ours are made: no name and no address of the user."""
    return dict(_IDENTITY)


def split(output: bytes) -> list[str]:
    """Return NUL-separated names."""
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def joined(names: Collection[str]) -> bytes:
    """Return names as git reads them with `-z`."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def _environment(directory: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return inherited | _ALWAYS | {"PWD": str(directory)}


def _quoted(path: Path) -> bytes:
    """A path as `info/alternates` has it: in C's quotes where a line end would cut it."""
    plain = os.fsencode(path)
    if b"\n" not in plain:
        return plain
    return b'"' + plain.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


class _TooMuchError(Exception):
    """More was printed than we take."""


async def _talk(process: Process, source: bytes | None, limit_bytes: int) -> tuple[bytes, bytes]:
    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(process, source))
        stderr = group.create_task(_tail(process.stderr))
        stdout = await _bounded(process.stdout, limit_bytes)
        if stdout is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if stdout is None:
        raise _TooMuchError
    return stdout, stderr.result()


async def _feed(process: Process, source: bytes | None) -> None:
    if process.stdin is None or source is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(source)
        await process.stdin.drain()
    process.stdin.close()


async def _bounded(stream: asyncio.StreamReader | None, limit_bytes: int) -> bytes | None:
    pieces: list[bytes] = []
    size = 0
    while stream is not None and (piece := await stream.read(1 << 20)):
        size += len(piece)
        if size > limit_bytes:
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def _tail(stream: asyncio.StreamReader | None) -> bytes:
    kept = b""
    while stream is not None and (piece := await stream.read(65536)):
        kept = (kept + piece)[-8192:]
    return kept


def _named(arguments: tuple[str, ...]) -> str:
    return f"git {arguments[0]}"


def _last_lines(stderr: bytes) -> str:
    text = clean(stderr.decode(errors="replace"), 8192).strip()
    return mask_addresses(clean(" / ".join(text.splitlines()[-4:]), _DETAIL_LIMIT))
