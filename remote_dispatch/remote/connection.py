"""What the rest of the house knows of a machine: run a script, open one, move files. SSH and local both fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path, PurePosixPath

    from remote_dispatch.remote.stream import ByteStream


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended. Output is raw bytes; `exit_status` is negative when a signal ended it."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Channel(Protocol):
    """One running command. Its stdin is closed."""

    def stdout(self) -> AsyncIterator[bytes]:
        """Yield what it prints, in chunks as they come, to the end. Raises ConnectionLostError."""
        ...

    def stderr(self) -> AsyncIterator[bytes]:
        """Yield what it prints on stderr, in chunks as they come, to the end. Raises ConnectionLostError."""
        ...

    async def wait(self) -> int:
        """Return the exit status (negative: a signal). Raises ConnectionLostError."""
        ...


class Duplex(Channel, Protocol):
    """One running command with an open stdin."""

    async def write(self, data: bytes) -> None:
        """Send bytes to its stdin; it waits while they are not taken. Raises ConnectionLostError.

        What is written to a command that has ended, or closed its stdin, is dropped.
        """
        ...

    def write_eof(self) -> None:
        """Close its stdin, behind all that was written. Calling it again does nothing."""
        ...


class Connection(Protocol):
    """An open link to one machine. Every method raises ConnectionLostError when the link breaks.

    A `script` is fixed POSIX sh text, never built from values: those are its positional parameters and arrive
    byte for byte, whatever they hold (NUL excepted) and whatever the login shell is. A script starts with stdin at
    its `input`'s first byte, or at end of file.

    Where the host allows few sessions at once, what finds none waits for one: `run`, `upload` and `download` up to
    their `timeout_s`, `open` and `converse` for a minute; then DeadlinePassedError. With one session, nothing else
    happens while an open script is read.
    """

    @property
    def name(self) -> str:
        """The host's public name, or `this machine`."""
        ...

    def warm(self, script: str = "", *values: str) -> None:
        """Begin, in the background, what the first upload would wait for. Calling it again does nothing.

        A `script` is started as well, and waits on its stdin until `converse` is called with the same words: that saves
        the start of a command there. It is given up where the host allows few sessions at once; it must end by itself
        when its stdin ends, and have done nothing until then.
        """
        ...

    def rest(self, *, is_resting: bool) -> None:
        """While resting, ask for no sign of life: whoever reads a script that gives some notices a dead link."""
        ...

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - subprocess's own word
        """Run a script to its end.

        Raises DeadlinePassedError after `timeout_s`; the remote process may then live on. A non-zero exit status is
        not an error here: the caller judges.
        """
        ...

    def open(self, script: str, *values: str) -> AbstractAsyncContextManager[Channel]:
        """Start a script and read it while it runs; leaving the context closes the channel."""
        ...

    def converse(self, script: str, *values: str) -> AbstractAsyncContextManager[Duplex]:
        """As `open`, with a stdin that stays open: it goes from the script to what that starts."""
        ...

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
        """Put files into a directory (absolute), making it and the subdirectories that the names need.

        Names are relative and use `/`. Directories get mode 0700, files 0600, whatever the umask. Existing files are
        replaced. Raises HostNotReadyError when the disk is full or the place is not writable.

        With `is_resumed` an earlier, broken upload of the same content may be continued: over SSH a file of more than a
        megabyte that is there with its size is left alone, and a part of one is completed; locally it starts over. The
        content of what was there is not looked at: the caller compares hashes, and uploads again without the flag where
        they differ.

        `on_sent` is told of each piece that arrived, in bytes, and over SSH of what `is_resumed` found there. Where one
        way of sending fails and another one starts over, the sum is larger than the files.

        `on_gone` is told when everything is on its way and nothing of ours has to be waited for any more: what is sent
        from then on arrives later. It may not be told at all, and what was told may still fail.
        """
        ...

    async def download(
        self, source: PurePosixPath, target: Path, *, limit_bytes: int, timeout_s: float, is_resumed: bool = False
    ) -> None:
        """Bring one file; `target` appears whole, mode 0600, or not at all.

        Raises FileNotFoundError, IntegrityError when it is larger than the limit.

        With `is_resumed` a download that the network, a deadline or the user broke may leave `TARGET.part` (0600), and
        the next such call continues it unless the file on the host is now smaller; locally it starts over. The caller
        compares hashes, and downloads again without the flag where they differ. A call without it removes the part.
        """
        ...

    async def stream(self, port: int) -> ByteStream:
        """Connect to a TCP port of the machine's own loopback, 127.0.0.1; the caller closes it.

        It takes no session of the host's, and no port of this machine. Raises NothingListensError, and
        HostNotReadyError where the host forbids it.
        """
        ...

    def forward(self, port: int) -> AbstractAsyncContextManager[int]:
        """Return a port on 127.0.0.1 of this machine that leads to that port there, while the context is open.

        For other programs: whoever is on this machine can connect to it. Raises on entering, as `stream`.
        """
        ...
