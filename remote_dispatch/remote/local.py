"""The local machine as a connection: scripts are processes of ours, files are plain files."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError, IntegrityError
from remote_dispatch.remote.bootstrap import encoded
from remote_dispatch.remote.connection import Completed
from remote_dispatch.remote.files import CHUNK_BYTES, appearing, checked_name, chunks_of, parents_of, told
from remote_dispatch.remote.stream import open_here

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import PurePosixPath

    from remote_dispatch.remote.stream import ByteStream

NAME = "this machine"
_LET_GO_S = 5


class LocalConnection:
    """The local machine.

    `environment` replaces the inherited one; `directory` is where scripts start, and what PWD says.
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._directory = directory
        if directory is not None:
            self._environment["PWD"] = str(directory)

    @property
    def name(self) -> str:
        """Always `this machine`."""
        return NAME

    def warm(self, script: str = "", *values: str) -> None:
        """Nothing needs to be opened here. See `Connection.warm`."""

    def rest(self, *, is_resting: bool) -> None:
        """Nothing is asked for here."""

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
        """Run a script to its end; its process group is killed when the deadline passes. See `Connection.run`."""
        process = await self._start(script, values, has_input=bool(input))
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate(input or None)
        except TimeoutError:
            raise DeadlinePassedError(f"{NAME}: a command did not end in {timeout_s:g} s and was stopped") from None
        finally:
            await end_group(process)
        return Completed(_status(process), stdout, stderr)

    @asynccontextmanager
    async def open(self, script: str, *values: str) -> AsyncIterator[LocalChannel]:
        """Start a script and read it while it runs; leaving kills its process group. See `Connection.open`."""
        process = await self._start(script, values, has_input=False)
        try:
            yield LocalChannel(process)
        finally:
            await end_group(process)

    @asynccontextmanager
    async def converse(self, script: str, *values: str) -> AsyncIterator[LocalDuplex]:
        """Start a script and talk with it; leaving kills its process group. See `Connection.converse`."""
        process = await self._start(script, values, has_input=True)
        try:
            yield LocalDuplex(process)
        finally:
            await end_group(process)

    async def upload(
        self,
        directory: PurePosixPath,
        files: Mapping[str, bytes | Path],
        *,
        timeout_s: float,
        is_resumed: bool = False,  # noqa: ARG002 - the contract's word; a copy within one machine starts over
        on_sent: Callable[[int], None] | None = None,
        on_gone: Callable[[], None] | None = None,  # noqa: ARG002 - the contract's word; here nothing is on its way
    ) -> None:
        """Copy files into a directory. See `Connection.upload`."""
        names = {name: checked_name(name) for name in files}
        with _reporting(f"{NAME}: could not write files"):
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(_copy_all, directory, {names[name]: files[name] for name in files}, on_sent)

    async def download(
        self,
        source: PurePosixPath,
        target: Path,
        *,
        limit_bytes: int,
        timeout_s: float,
        is_resumed: bool = False,  # noqa: ARG002 - the contract's word; a copy within one machine starts over
    ) -> None:
        """Copy one file. See `Connection.download`."""
        with _reporting(f"{NAME}: could not read a file"):
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(_copy_bounded, source, target, limit_bytes)

    async def stream(self, port: int) -> ByteStream:
        """Connect to a port of the loopback. See `Connection.stream`."""
        return await open_here(NAME, port)

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncIterator[int]:
        """Return the very same port. See `Connection.forward`."""
        (await self.stream(port)).close()
        yield port

    async def _start(self, script: str, values: tuple[str, ...], *, has_input: bool) -> Process:
        for value in values:
            encoded(value)
        return await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            script,
            "sh",
            *values,
            stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self._directory,
            start_new_session=True,
        )


class LocalChannel:
    """A running local process. A stream that nobody reads holds the process up once its pipe is full."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unread = {"stdout": process.stdout, "stderr": process.stderr}

    def stdout(self) -> AsyncIterator[bytes]:
        """Yield what it prints. See `Channel.stdout`."""
        return _chunks(self._unread.pop("stdout"))

    def stderr(self) -> AsyncIterator[bytes]:
        """Yield what it prints on stderr. See `Channel.stderr`."""
        return _chunks(self._unread.pop("stderr"))

    async def wait(self) -> int:
        """Return the exit status; streams that nobody asked for are read and dropped."""
        async with asyncio.TaskGroup() as group:
            while self._unread:
                group.create_task(_drop(_chunks(self._unread.popitem()[1])))
        await self._process.wait()
        return _status(self._process)


class LocalDuplex(LocalChannel):
    """A running local process with an open stdin."""

    async def write(self, data: bytes) -> None:
        """Send bytes. See `Duplex.write`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def write_eof(self) -> None:
        """Close its stdin. See `Duplex.write_eof`."""
        assert self._process.stdin is not None
        self._process.stdin.close()


async def _chunks(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    while stream is not None and (chunk := await stream.read(65536)):
        yield chunk


async def _drop(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


def _status(process: Process) -> int:
    assert process.returncode is not None
    return process.returncode


async def end_group(process: Process) -> None:
    """Kill the process group of a process that still runs; what it left behind detached is not ours to end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LET_GO_S):
                await process.wait()
    # What it left behind may hold its pipes open; asyncio has no other way to let go of them.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


@contextmanager
def _reporting(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise DeadlinePassedError(f"{what} in time") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = (
            "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else os.strerror(error.errno or 0).lower()
        )
        raise HostNotReadyError(NAME, reason, hint="make room, or correct the directory's permissions") from error


def _copy_all(
    directory: PurePosixPath, files: Mapping[PurePosixPath, bytes | Path], on_sent: Callable[[int], None] | None
) -> None:
    root = Path(directory)
    for place in (*reversed(root.parents), root, *(root / parent for parent in parents_of(files))):
        # mkdir(parents=True) gives the outer ones the umask's mode.
        place.mkdir(mode=0o700, exist_ok=True)
    for name, source in files.items():
        with appearing(root / name) as stream:
            for chunk in told(chunks_of(source), on_sent):
                stream.write(chunk)


def _copy_bounded(source: PurePosixPath, target: Path, limit_bytes: int) -> None:
    with _regular(Path(source)) as stream, appearing(target) as copy:
        left = limit_bytes
        while chunk := stream.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise IntegrityError(f"{NAME}: `{source.name}` is larger than {limit_bytes} bytes")
            copy.write(chunk)


def _regular(path: Path) -> IO[bytes]:
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
    return path.open("rb")
