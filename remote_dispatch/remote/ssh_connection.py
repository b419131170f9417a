"""An open SSH connection: scripts through any login shell, files by SFTP, or by the shell where there is no SFTP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import asyncssh

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError, IntegrityError
from remote_dispatch.remote import ssh_errors, ssh_files, ssh_streams
from remote_dispatch.remote.bootstrap import NoiseFilter, command_line, opening
from remote_dispatch.remote.connection import Completed
from remote_dispatch.remote.ssh_sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from remote_dispatch.remote.stream import ByteStream

OUTPUT_LIMIT_BYTES = 64_000_000
_PIECE_BYTES = 65536
_SFTP_START_S = 10
_OPEN_S = 60
_KEEPALIVE_COUNT = 3


@dataclass(frozen=True, slots=True)
class _Spare:
    """A script that was started before it is needed."""

    words: tuple[str, ...]
    marker: str
    starting: asyncio.Task[asyncssh.SSHClientProcess[bytes]]


class SshConnection:
    """One open connection. `link` is asyncssh's; entering and leaving the context opens nothing and closes SFTP."""

    def __init__(self, name: str, link: asyncssh.SSHClientConnection, keepalive_s: float = 0.0) -> None:
        """Without an answer to three questions, `keepalive_s` apart, the link counts as lost; 0 asks none."""
        self._name = name
        self._link = link
        self._keepalive_s = keepalive_s
        self.rest(is_resting=False)
        self._sessions = Sessions(link, self._give_away)
        self._sftp: asyncio.Task[asyncssh.SFTPClient] | None = None
        self._sftp_users = 0
        self._is_sftp_idle = asyncio.Event()
        self._is_sftp_idle.set()
        self._is_without_sftp = False
        self._spare: _Spare | None = None

    def __repr__(self) -> str:
        return f"SshConnection({self._name!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._spare is not None:
            # What has started ends with the connection.
            self._spare.starting.cancel()
        if self._sftp is None:
            return
        self._sftp.cancel()
        with contextlib.suppress(asyncio.CancelledError, asyncssh.Error, OSError):
            (await self._sftp).exit()

    @property
    def name(self) -> str:
        """The host's public name."""
        return self._name

    def rest(self, *, is_resting: bool) -> None:
        """Switch the keepalive off and on. See `Connection.rest`."""
        # The timer of a link that is lost would go on for ever (asyncssh 2.24).
        if not self._link.is_closed():
            self._link.set_keepalive(0.0 if is_resting else self._keepalive_s, _KEEPALIVE_COUNT)

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
        """Run a script to its end. See `Connection.run`.

        Raises HostNotReadyError when the login shell starts nothing.
        """
        async with self._deadline("a command", timeout_s), self._started(script, values, _pieces(input)) as channel:
            return await channel.completed()

    @contextlib.asynccontextmanager
    async def open(self, script: str, *values: str) -> AsyncIterator[SshChannel]:
        """Start a script and read it while it runs. See `Connection.open`.

        Raises DeadlinePassedError when no session gets free for a minute.
        """
        async with contextlib.AsyncExitStack() as stack:
            async with self._deadline("the start of a command", _OPEN_S):
                channel = await stack.enter_async_context(self._started(script, values, ()))
            yield channel

    @contextlib.asynccontextmanager
    async def converse(self, script: str, *values: str) -> AsyncIterator[SshDuplex]:
        """Start a script and talk with it. See `Connection.converse`; raises as `open`."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._deadline("the start of a command", _OPEN_S):
                duplex = await self._kept_ready(stack, (script, *values))
                if duplex is None:
                    duplex = await stack.enter_async_context(self._conversing(script, values))
            yield duplex

    async def upload(
        self,
        directory: PurePosixPath,
        files: Mapping[str, bytes | Path],
        *,
        timeout_s: float,
        is_resumed: bool = False,
        on_sent: Callable[[int], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        """Put files into a directory, by SFTP or else through the shell. See `Connection.upload`."""
        names = ssh_files.checked(files)
        async with self._deadline("an upload", timeout_s):
            try:
                with self._translated():
                    async with self._files() as sftp:
                        news = ssh_files.News(on_sent or ssh_files.tell_nobody, on_gone)
                        await ssh_files.put(sftp, directory, names, news, is_resumed=is_resumed)
            except ssh_files.SFTP_FAILED:
                await self._upload_by_shell(directory, names, is_resumed=is_resumed, on_sent=on_sent)

    async def download(
        self, source: PurePosixPath, target: Path, *, limit_bytes: int, timeout_s: float, is_resumed: bool = False
    ) -> None:
        """Bring one file, by SFTP or else through the shell. See `Connection.download`."""
        bounds = ssh_files.Bounds(limit_bytes, is_resumed=is_resumed)
        async with self._deadline("a download", timeout_s):
            try:
                with self._translated():
                    async with self._files() as sftp:
                        await ssh_files.get(sftp, self._name, source, target, bounds)
            except ssh_files.SFTP_FAILED:
                await self._download_by_shell(source, target, bounds)

    async def stream(self, port: int) -> ByteStream:
        """Connect to a port there through a channel. See `Connection.stream`."""
        return await ssh_streams.open_stream(self._name, self._link, port)

    def forward(self, port: int) -> contextlib.AbstractAsyncContextManager[int]:
        """Let a port here lead to one there. See `Connection.forward`."""
        return ssh_streams.forwarded(self._name, self._link, port)

    def warm(self, script: str = "", *values: str) -> None:
        """Open SFTP in the background: four round trips that need not be waited for later. See `Connection.warm`."""
        if self._sftp is None and not self._is_without_sftp:
            self._sftp = asyncio.create_task(_start_sftp(self._link))
            self._sftp.add_done_callback(_look_at)
        if script and self._spare is None:
            marker = secrets.token_hex(12)
            command, first = command_line(marker, script, values), opening(marker, script, values)
            starting = asyncio.create_task(self._sessions.try_once(command, first))
            starting.add_done_callback(_look_at)
            self._spare = _Spare((script, *values), marker, starting)

    async def _kept_ready(self, stack: contextlib.AsyncExitStack, words: tuple[str, ...]) -> SshDuplex | None:
        """Take over the script that was started with these words; None where it was not, or has ended."""
        spare = self._spare
        if spare is None or spare.words != words:
            return None
        self._spare = None
        try:
            process = await spare.starting
        except (asyncssh.Error, OSError):
            return None
        if process.channel.is_closing():
            return None
        stack.enter_context(self._sessions.adopted())
        stack.callback(process.close)
        return SshDuplex(self._name, self._link, process, spare.marker)

    async def _give_away(self) -> bool:
        """Close what is kept ready, else SFTP, and say whether that freed a session."""
        return await self._drop_spare() or await self._give_sftp_away()

    async def _drop_spare(self) -> bool:
        spare, self._spare = self._spare, None
        if spare is None:
            return False
        try:
            async with asyncio.timeout(_SFTP_START_S):
                process = await spare.starting
                process.close()
                await process.wait_closed()
        except (asyncssh.Error, OSError):
            return False
        return True

    @contextlib.asynccontextmanager
    async def _files(self) -> AsyncIterator[asyncssh.SFTPClient]:
        self.warm()
        if self._sftp is None:
            raise asyncssh.SFTPFailure("there is no session for it")
        self._sftp_users += 1
        self._is_sftp_idle.clear()
        try:
            yield await asyncio.shield(self._sftp)
        finally:
            self._sftp_users -= 1
            if not self._sftp_users:
                self._is_sftp_idle.set()

    async def _give_sftp_away(self) -> bool:
        """Close SFTP for good, once what uses it has ended, and say whether that freed a session."""
        self._is_without_sftp = True
        await self._is_sftp_idle.wait()
        task, self._sftp = self._sftp, None
        if task is None:
            return False
        try:
            sftp = await task
        except (asyncssh.Error, OSError):
            return False
        sftp.exit()
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncio.timeout(_SFTP_START_S):
                await sftp.wait_closed()
        return True

    async def _upload_by_shell(
        self,
        directory: PurePosixPath,
        files: Mapping[PurePosixPath, bytes | Path],
        *,
        is_resumed: bool,
        on_sent: Callable[[int], None] | None,
    ) -> None:
        async def put(name: PurePosixPath, source: bytes | Path, start: int) -> None:
            size = str(ssh_files.size_of(source))
            values = (str(directory), str(name.parent), name.name, size, str(start // ssh_files.BLOCK_BYTES))
            pieces = ssh_files.told(ssh_files.chunks_of(source, start), on_sent)
            await self._at_place(ssh_files.PUT, values, pieces)

        starts = await self._starts(directory, files) if is_resumed else dict.fromkeys(files, 0)
        if on_sent and is_resumed:
            left = sum(ssh_files.size_of(files[name]) - start for name, start in starts.items())
            on_sent(sum(map(ssh_files.size_of, files.values())) - left)
        parts = [str(name) for name in files if not starts.get(name)]
        await self._at_place(ssh_files.CLEAN, (str(directory), *parts))
        await self._at_place(ssh_files.MAKE, (str(directory),))
        try:
            await ssh_files.all_of([put(name, files[name], start) for name, start in starts.items()])
        except HostNotReadyError:
            await self._at_place(ssh_files.CLEAN, (str(directory), *map(str, files)))
            raise

    async def _starts(
        self, directory: PurePosixPath, files: Mapping[PurePosixPath, bytes | Path]
    ) -> dict[PurePosixPath, int]:
        """Return where each file has to go on; one that is there is left out."""
        large = {name: ssh_files.size_of(source) for name, source in files.items() if ssh_files.is_large(source)}
        starts = dict.fromkeys(files, 0)
        for name, (whole, part) in (await self._sizes(directory, list(large))).items():
            if whole == large[name]:
                del starts[name]
            else:
                starts[name] = ssh_files.proved_bytes(part, large[name])
        return starts

    async def _sizes(
        self, directory: PurePosixPath, names: list[PurePosixPath]
    ) -> dict[PurePosixPath, tuple[int, int]]:
        """Return the sizes of files and of their parts, -1 for none; nothing for a directory that is not there."""
        if not names:
            return {}
        said = (await self._at_place(ssh_files.SIZES, (str(directory), *map(str, names)))).split()
        return {name: (int(whole), int(part)) for name, whole, part in zip(names, said[::2], said[1::2], strict=False)}

    async def _at_place(self, script: str, values: tuple[str, ...], pieces: Iterable[bytes] = ()) -> bytes:
        async with self._started(script, values, pieces) as channel:
            done = await channel.completed()
        if done.exit_status:
            raise ssh_files.place_error(self._name, done.stderr)
        return done.stdout

    async def _download_by_shell(self, source: PurePosixPath, target: Path, bounds: ssh_files.Bounds) -> None:
        start = await self._download_start(source, target) if bounds.is_resumed else 0
        values = (str(source), str(bounds.limit_bytes), str(start))
        async with self._started(ssh_files.GET, values, ()) as channel:
            await ssh_files.save(channel, self._name, source, target, bounds, start=start)

    async def _download_start(self, source: PurePosixPath, target: Path) -> int:
        here = ssh_files.part_size(target)
        name = PurePosixPath(source.name)
        there = (await self._sizes(source.parent, [name])).get(name, (-1, -1))[0] if here else -1
        return here if here <= there else 0

    @contextlib.asynccontextmanager
    async def _started(
        self, script: str, values: tuple[str, ...], pieces: Iterable[bytes]
    ) -> AsyncIterator[SshChannel]:
        marker = secrets.token_hex(12)
        command, first = command_line(marker, script, values), opening(marker, script, values)
        async with contextlib.AsyncExitStack() as stack:
            with self._translated():
                process = await stack.enter_async_context(self._sessions.start(command, first))
            feeding = asyncio.create_task(_feed(process, pieces))
            try:
                yield SshChannel(self._name, self._link, process, marker)
            finally:
                feeding.cancel()
                (problem,) = await asyncio.gather(feeding, return_exceptions=True)
                process.close()
                if isinstance(problem, OSError):
                    raise problem

    @contextlib.asynccontextmanager
    async def _conversing(self, script: str, values: tuple[str, ...]) -> AsyncIterator[SshDuplex]:
        marker = secrets.token_hex(12)
        async with contextlib.AsyncExitStack() as stack:
            command, first = command_line(marker, script, values), opening(marker, script, values)
            with self._translated():
                process = await stack.enter_async_context(self._sessions.start(command, first))
            try:
                yield SshDuplex(self._name, self._link, process, marker)
            finally:
                process.close()

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return ssh_errors.translated(self._name, self._link)

    @contextlib.asynccontextmanager
    async def _deadline(self, what: str, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            message = f"{self._name}: {what} did not end in {timeout_s:g} s and may still run there"
            if self._sessions.is_full:
                message = f"{self._name}: {what} found no place in {timeout_s:g} s: {self._sessions.limit}"
            raise DeadlinePassedError(message) from None


class SshChannel:
    """One script that runs on the host. A stream that nobody reads holds it up after two megabytes."""

    def __init__(
        self, name: str, link: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes], marker: str
    ) -> None:
        self._name = name
        self._link = link
        self._process = process
        self._out = NoiseFilter(marker)
        self._error = NoiseFilter(marker)
        self._unread = {"stdout": (process.stdout, self._out), "stderr": (process.stderr, self._error)}

    def stdout(self) -> AsyncIterator[bytes]:
        """Yield what it prints. See `Channel.stdout`."""
        return self._chunks(*self._unread.pop("stdout"))

    def stderr(self) -> AsyncIterator[bytes]:
        """Yield what it prints on stderr. See `Channel.stderr`."""
        return self._chunks(*self._unread.pop("stderr"))

    async def wait(self) -> int:
        """Return the exit status; streams that nobody asked for are read and dropped.

        Raises ConnectionLostError, and HostNotReadyError when the script never started.
        """
        await ssh_files.all_of([self._drop(*self._unread.popitem()[1]) for _ in list(self._unread)])
        with ssh_errors.translated(self._name, self._link):
            await self._process.wait_closed()
        # asyncssh reports a broken connection as a command that ended without any status.
        if self._process.returncode is None:
            raise ssh_errors.lost(self._name)
        if not self._out.has_started and not self._error.has_started:
            raise self._not_started()
        return self._process.returncode

    async def completed(self) -> Completed:
        """Read everything and wait. Raises IntegrityError when it prints more than `OUTPUT_LIMIT_BYTES`."""
        out, error = bytearray(), bytearray()
        await ssh_files.all_of([self._collect(self.stdout(), out), self._collect(self.stderr(), error)])
        return Completed(await self.wait(), bytes(out), bytes(error))

    async def _collect(self, chunks: AsyncIterator[bytes], into: bytearray) -> None:
        async for chunk in chunks:
            into += chunk
            if len(into) > OUTPUT_LIMIT_BYTES:
                raise IntegrityError(f"{self._name}: a command printed more than {OUTPUT_LIMIT_BYTES} bytes")

    async def _drop(self, stream: asyncssh.SSHReader[bytes], noise: NoiseFilter) -> None:
        async for _ in self._chunks(stream, noise):
            pass

    async def _chunks(self, stream: asyncssh.SSHReader[bytes], noise: NoiseFilter) -> AsyncIterator[bytes]:
        with ssh_errors.translated(self._name, self._link):
            while chunk := await stream.read(_PIECE_BYTES):
                if piece := noise.feed(chunk):
                    yield piece
                if noise.is_too_loud:
                    raise self._not_started()

    def _not_started(self) -> HostNotReadyError:
        words = _last_words(self._out.noise or self._error.noise)
        return HostNotReadyError(
            self._name,
            f"its login shell did not start a command{f': {words}' if words else ''}",
            hint="check the account's login shell and its start-up files there",
        )


class SshDuplex(SshChannel):
    """One script that runs on the host with an open stdin."""

    async def write(self, data: bytes) -> None:
        """Send bytes. See `Duplex.write`."""
        with ssh_errors.translated(self._name, self._link):
            if not await _write(self._process, data) and self._link.is_closed():
                raise ssh_errors.lost(self._name)

    def write_eof(self) -> None:
        """Close its stdin. See `Duplex.write_eof`."""
        with contextlib.suppress(asyncssh.Error, OSError):
            self._process.stdin.write_eof()


async def _feed(process: asyncssh.SSHClientProcess[bytes], pieces: Iterable[bytes]) -> None:
    """Write everything and close. A script that ends without reading it all is no error; an unreadable source is."""
    try:
        for piece in pieces:
            if not await _write(process, piece):
                return
    except OSError:
        process.close()
        raise
    with contextlib.suppress(asyncssh.Error, OSError):
        process.stdin.write_eof()


async def _write(process: asyncssh.SSHClientProcess[bytes], piece: bytes) -> bool:
    try:
        process.stdin.write(piece)
        await process.stdin.drain()
    except (asyncssh.Error, OSError):
        return False
    return True


async def _start_sftp(link: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    """Start it. What a missing subsystem, a silent one or one session too many raise becomes SFTP's own failure."""
    try:
        async with asyncio.timeout(_SFTP_START_S):
            return await link.start_sftp_client()
    except (asyncssh.ChannelOpenError, TimeoutError) as error:
        if link.is_closed():
            raise
        raise asyncssh.SFTPFailure("the subsystem did not start") from error


def _look_at(task: asyncio.Task[Any]) -> None:
    """Retrieve an exception: whoever waits for the result meets it again."""
    if not task.cancelled():
        task.exception()


def _last_words(noise: bytes) -> str:
    lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
    text = re.sub(r"[^ -~\xa0-\uffff]", "", lines[-1])[:200] if lines else ""
    return ssh_errors.REDACTION.clean(text)


def _pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES))
