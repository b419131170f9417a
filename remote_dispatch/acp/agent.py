"""`opencode acp` on the machine behind a connection: found, started in a directory, talked with and ended.

Its HTTP server listens on that machine's loopback, with a password that is made here, sent as the first line of stdin
and shown nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from remote_dispatch.acp.wire import AgentWire, Inbox
from remote_dispatch.errors import CommandError, DeadlinePassedError, HostNotReadyError, RemoteDispatchError
from remote_dispatch.opencode.probe import probe_functions, read_answer
from remote_dispatch.remote.local import NAME
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.remote.connection import Connection, Duplex

START_TIMEOUT_S = 60.0
"""For finding OpenCode and a login shell's start-up files; OpenCode itself answers `initialize` later."""
END_S = 10.0
"""OpenCode 1.18 ends 0.2 s after the end of its stdin, in a prompt too."""
_FORGET_S = 10.0
_ANSWER_BYTES = 64_000
KILLED_STATUS = 137
"""What a shell says of SIGKILL; for a process whose end nobody saw."""
_STATE = re.compile(rb"^state [a-z_]+\n", re.MULTILINE)
_OWNER = re.compile(r"[0-9a-f]{16}")
_LOG_LINES = 5
_LOG_LENGTH = 600
_LOG_KEPT_BYTES = 16_000
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AgentEndedError(CommandError):
    """The agent's process ended. `exit_status` is negative for a signal."""

    kind = "agent-ended"

    def __init__(self, where: str, ending: Ending) -> None:
        super().__init__(where, "opencode acp", ending.exit_status, ending.words)
        how = "was killed" if ending.is_killed else f"ended with exit status {ending.exit_status}"
        self.message = f"{where}: `opencode acp` {how}{f': {ending.words}' if ending.words else ''}"
        self.hint = "the session is kept: open it again, and send again what was not answered"
        self.args = (self.message,)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the agent's process ended. `words` are the last lines of its stderr, cleaned; they may be empty."""

    exit_status: int
    words: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether it ended by itself and well."""
        return self.exit_status == 0

    @property
    def is_killed(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_status < 0 or self.exit_status > 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent runs: `directory` and `home` are real paths there."""

    port: int = field(repr=False)
    password: str = field(repr=False)
    directory: str
    home: str
    is_new: bool = True


class ErrorLog:
    """Passes stderr on, and keeps its end."""

    def __init__(self, on_stderr: Callable[[bytes], None]) -> None:
        self._on_stderr = on_stderr
        self._kept = bytearray()

    async def drain(self, chunks: AsyncIterator[bytes]) -> None:
        """Read to the end; a link that breaks is an end, which the reader of stdout tells."""
        with contextlib.suppress(RemoteDispatchError):
            async for chunk in chunks:
                self._kept += chunk
                del self._kept[:-_LOG_KEPT_BYTES]
                self._on_stderr(chunk)

    @property
    def words(self) -> str:
        """The last lines; see `last_words`."""
        return last_words(bytes(self._kept))


class Agent:
    """A running `opencode acp`."""

    def __init__(
        self,
        connection: Connection,
        place: Place,
        duplex: Duplex,
        inbox: Inbox,
        ending: Callable[[], Awaitable[Ending]],
        *,
        on_send: Callable[[Message, bytes], None] | None = None,
        on_message: Callable[[Message], None] = lambda _: None,
        rotate: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.wire = AgentWire(duplex, inbox, on_message=self._see, on_send=on_send)
        self.version: str | None = None
        """OpenCode's version, once its answer to `initialize` has passed."""
        self._connection = connection
        self._place = place
        self._inbox = inbox
        self._ending = ending
        self._on_message = on_message
        self._rotate = rotate
        self._side: Api | None = None

    @property
    def directory(self) -> str:
        """The real path of the working directory there."""
        return self._place.directory

    @property
    def home(self) -> str:
        """The home directory there."""
        return self._place.home

    @property
    def is_new(self) -> bool:
        """Whether it was started for this context; False: it was initialized long ago, and went on meanwhile."""
        return self._place.is_new

    @property
    def skipped(self) -> int:
        """How many lines of its output were no messages."""
        return self._inbox.reader.skipped

    @property
    def side(self) -> Api:
        """The HTTP API of this very process, through the connection. It answers once `initialize` was answered."""
        if self._side is None:
            from remote_dispatch.opencode.wire import api_through  # noqa: PLC0415 - httpx takes 100 ms to import

            self._side = api_through(self._connection, self._connection.name, self._place.port, self._place.password)
        return self._side

    async def ending(self, *, timeout_s: float = END_S) -> Ending:
        """Return how the process ended, after `wire.receive` returned None.

        Raises DeadlinePassedError when it has not ended yet, ConnectionLostError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ending()
        except TimeoutError:
            raise DeadlinePassedError(f"{self._connection.name}: `opencode acp` has not ended yet") from None

    async def rotate(self) -> bool:
        """Between turns: remove from the host's disk what both sides have read. False where nothing was to do.

        What is sent waits meanwhile, a quarter of a second. Raises what `Connection.run` raises.
        """
        if self._rotate is None:
            return False
        with self.wire.held():
            return await self._rotate()

    async def close(self) -> None:
        """Close the client of its API; the process is not touched."""
        if self._side is not None:
            await self._side.__aexit__(None, None, None)

    def _see(self, message: Message) -> None:
        self._on_message(message)
        if self.version is None and isinstance(result := message.get("result"), dict):
            information = result.get("agentInfo")
            version = information.get("version") if isinstance(information, dict) else None
            self.version = clean(version, 40) if isinstance(version, str) else None


def new_owner() -> str:
    """Return the id of whoever will start agents: one after the other, the next ends what is left of the one before."""
    return secrets.token_hex(8)


@asynccontextmanager
async def agent(
    connection: Connection,
    host: Host | None,
    directory: str,
    *,
    owner: str,
    environment: Mapping[str, str] | None = None,
    on_stderr: Callable[[bytes], None] = lambda _: None,
) -> AsyncIterator[Agent]:
    """Start `opencode acp` in a directory there and talk with it; leaving closes its stdin and waits for its end.

    `host` is the entry of the hosts file with OpenCode's place and variables, None for the local OpenCode; a
    `directory` may start with `~/`; `environment` comes on top of the host's. A process of this owner that a broken
    link left behind is ended first. `on_stderr` gets what it prints on stderr.
    Raises HostNotReadyError: no OpenCode there, or no such directory.
    """
    password = new_password()
    values = (*start_values(host, directory), checked_owner(owner), *pairs(host, environment))
    ended = asyncio.Event()
    async with AsyncExitStack() as stack:
        # Once its channel is closed: a host may allow one session only.
        stack.push_async_callback(_forget, connection, owner, ended)
        duplex = await stack.enter_async_context(connection.converse(agent_script(), *values))
        chunks = duplex.stdout()
        said, rest = await _opened(connection.name, duplex, chunks, password)
        place = place_of(connection.name, directory, said, password)
        running, tasks = await _running(connection, duplex, chunks, rest, place, on_stderr)
        try:
            yield running
        finally:
            await running.close()
            await _leave(duplex, running, ended)
            await cancelled(tasks)


async def _running(
    connection: Connection,
    duplex: Duplex,
    chunks: AsyncIterator[bytes],
    rest: bytes,
    place: Place,
    on_stderr: Callable[[bytes], None],
) -> tuple[Agent, list[asyncio.Task[None]]]:
    inbox, log = Inbox(), ErrorLog(on_stderr)
    await inbox.feed(rest)
    drained = asyncio.create_task(log.drain(duplex.stderr()))

    async def ending() -> Ending:
        status = await duplex.wait()
        await asyncio.wait([drained])
        return Ending(status, log.words)

    return Agent(connection, place, duplex, inbox, ending), [drained, asyncio.create_task(inbox.fill(chunks))]


async def _leave(duplex: Duplex, running: Agent, ended: asyncio.Event) -> None:
    """Let it end by itself; what does not is ended by the channel's end, or by the owner's next start."""
    duplex.write_eof()
    with contextlib.suppress(RemoteDispatchError):
        await _drained(running)
        await running.ending()
        ended.set()


async def _forget(connection: Connection, owner: str, ended: asyncio.Event) -> None:
    if ended.is_set():
        with contextlib.suppress(RemoteDispatchError):
            await connection.run(shell_text("forget.sh"), owner, timeout_s=_FORGET_S)


async def _drained(running: Agent) -> None:
    """Read what it still says: it could not end otherwise."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            while await running.wire.receive() is not None:
                pass


async def _opened(
    name: str, duplex: Duplex, chunks: AsyncIterator[bytes], password: str
) -> tuple[dict[str, str], bytes]:
    """Send the password; return what the script said before the protocol began, and what came with it."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await duplex.write(password.encode() + b"\n")
            return await preamble(name, chunks)
    except TimeoutError:
        raise DeadlinePassedError(
            f"{name}: `opencode acp` was not started within {START_TIMEOUT_S:g} s",
            hint="do the start-up files of the login shell there wait for something?",
        ) from None


async def preamble(name: str, chunks: AsyncIterator[bytes]) -> tuple[dict[str, str], bytes]:
    """Return what a script says before the protocol begins, and what came with it. Raises HostNotReadyError."""
    said = b""
    async for chunk in chunks:
        said += chunk
        if _STATE.search(said):
            return split_preamble(said)
        if len(said) > _ANSWER_BYTES:
            break
    host = "" if name == NAME else f" {name}"
    raise HostNotReadyError(
        name, "the script that starts its agent did not end well", hint=f"try `remote-dispatch doctor{host}`"
    )


def split_preamble(said: bytes) -> tuple[dict[str, str], bytes]:
    """Return the values that a script said, up to its state, and what follows."""
    found = _STATE.search(said)
    end = found.end() if found else len(said)
    return read_answer(said[:end])[0], said[end:]


def place_of(name: str, directory: str, said: Mapping[str, str], password: str, *, is_new: bool = True) -> Place:
    """Return where an agent runs from what its script said. Raises HostNotReadyError when it could not start."""
    match said.get("state"):
        case "ready":
            pass
        case "missing":
            raise _not_installed(name)
        case "no_directory":
            raise HostNotReadyError(
                name,
                f"there is no directory `{clean(directory, 200)}` there",
                hint="make it there, or name another one with `--directory`",
            )
        case _:
            raise HostNotReadyError(
                name, "the directory for its agent's files cannot be written there", hint="is its disk full?"
            )
    port = said.get("port", "")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise HostNotReadyError(name, "what is said there about its agent makes no sense")
    return Place(int(port), password, said.get("directory", ""), said.get("home", ""), is_new)


def new_password() -> str:
    """Return a password for the HTTP server of one process."""
    return secrets.token_hex(24)


def checked_owner(owner: str) -> str:
    """Return an owner's id, which becomes the name of a directory. Raises ValueError for what is none."""
    if not _OWNER.fullmatch(owner):
        raise ValueError("no id of an owner")
    return owner


def start_values(host: Host | None, directory: str) -> tuple[str, str]:
    """Return the first values of every script that starts an agent."""
    return ((host.opencode if host else None) or "", directory)


def pairs(host: Host | None, environment: Mapping[str, str] | None) -> list[str]:
    """Return the variables as scripts take them. Raises ValueError for a name that no shell can export."""
    variables = {**((host.env if host else None) or {}), **(environment or {})}
    if odd := [name for name in variables if not _ENVIRONMENT_NAME.fullmatch(name)]:
        raise ValueError(f"no name of a variable: {odd[0]!r}")
    return [f"{name}={value}" for name, value in variables.items()]


def agent_script() -> str:
    """Return the script that becomes the agent, as one POSIX sh text; its values stand at the head of agent.sh."""
    return f'{agent_functions()}main "$@"\n'


def agent_functions() -> str:
    """Return it without the call that starts it."""
    place = files("remote_dispatch.servers").joinpath("place.sh").read_text(encoding="utf-8")
    own = shell_text("agent.sh").rpartition('main "$@"')[0]
    return "\n".join(("usual_mask=$(umask); exec 9>&2", probe_functions(), place, shell_text("shared.sh"), own))


def last_words(log: bytes) -> str:
    """Return the last lines of what a program printed, cleaned of control characters and addresses."""
    lines = clean(log[-_LOG_KEPT_BYTES:].decode(errors="replace"), _LOG_KEPT_BYTES).splitlines()
    shown = [line.strip() for line in lines if line.strip()][-_LOG_LINES:]
    return clean(mask_addresses(" / ".join(shown)), _LOG_LENGTH)


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _not_installed(name: str) -> HostNotReadyError:
    if name == NAME:
        return HostNotReadyError(
            name, "OpenCode was not found", hint="install OpenCode, or put its directory into PATH"
        )
    return HostNotReadyError(
        name,
        "OpenCode was not found there",
        hint=f"put it there with `remote-dispatch hosts setup {name}`, or say where it is with "
        f"`remote-dispatch hosts set {name} opencode PATH`",
    )


def shell_text(name: str) -> str:
    """Return a file of shell functions, or a script, of this room."""
    return files("remote_dispatch.acp").joinpath(name).read_text(encoding="utf-8")
