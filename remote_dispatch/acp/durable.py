"""An `opencode acp` that outlives the connection: what was missed is read from a file there, each byte once.

What is sent is appended to a file there that feeds the agent, and what it prints goes to another one. Both sides count
bytes, so nothing is lost or doubled by a link that breaks in the middle of a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from remote_dispatch.acp.agent import (
    KILLED_STATUS,
    START_TIMEOUT_S,
    Agent,
    Ending,
    ErrorLog,
    Place,
    agent_functions,
    cancelled,
    last_words,
    new_owner,
    new_password,
    pairs,
    place_of,
    preamble,
    shell_text,
    split_preamble,
    start_values,
)
from remote_dispatch.acp.wire import Inbox
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, HostNotReadyError, RemoteDispatchError
from remote_dispatch.opencode.probe import read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection, Duplex

IDLE_S = 3600.0
ROTATE_BYTES = 1_000_000
"""Less than this, either way, is not worth stopping the agent for."""
_CALL_S = 60.0
_END_S = 30.0
_PIECE_BYTES = 65536
_PIPE_BYTES = 4096
_NUMBER = re.compile(r"[0-9]{1,15}")


class Outbox:
    """What was sent and may not have arrived. The answer to a request proves that all before it did."""

    def __init__(self) -> None:
        self.bytes_sent = 0
        """Since the agent was started, whether it arrived or not."""
        self._unproved: deque[tuple[str | None, bytes]] = deque()

    def note(self, message: Message, line: bytes) -> None:
        """Keep a line that is being sent."""
        self._unproved.append((_key(message) if "method" in message and "id" in message else None, line))
        self.bytes_sent += len(line)

    def learn(self, message: Message) -> None:
        """Forget what a message of the agent proves to have arrived."""
        if "method" in message or "id" not in message:
            return
        keys = [key for key, _ in self._unproved]
        if (answered := _key(message)) in keys:
            for _ in range(keys.index(answered) + 1):
                self._unproved.popleft()

    def rest_after(self, arrived: int) -> bytes:
        """Return what follows the first `arrived` bytes. Raises ValueError where that makes no sense."""
        kept = b"".join(line for _, line in self._unproved)
        start = arrived - (self.bytes_sent - len(kept))
        if not 0 <= start <= len(kept):
            raise ValueError("more or less arrived than can be")
        return kept[start:]

    @property
    def is_quiet(self) -> bool:
        """Whether every request was answered, and what was told since is so little that a pipe holds it."""
        return all(key is None for key, _ in self._unproved) and sum(map(_length, self._unproved)) < _PIPE_BYTES

    def cut(self, arrived: int) -> None:
        """Count from there: so much arrived, and its file was emptied."""
        while self._unproved and self.bytes_sent - sum(map(_length, self._unproved)) < arrived:
            self._unproved.popleft()
        self.bytes_sent -= arrived


class Journal:
    """What one bridge or client knows of its durable agent; it outlives connections, in memory only."""

    def __init__(self) -> None:
        self.owner = new_owner()
        self.forget()

    def forget(self) -> None:
        """Start from nothing: the next agent will be a new one."""
        self.place: Place | None = None
        self.ending: Ending | None = None
        self.version: str | None = None
        self.is_met = False
        """Whether somebody has talked with it already; a link may break between its start and that."""
        self.errors_read = 0
        self.cuts = 0
        """How often the files there were emptied, as far as we know."""
        self.inbox = Inbox()
        self.outbox = Outbox()

    @property
    def where(self) -> tuple[str, str]:
        """How much of the output was read, and the cuts that this takes into account."""
        return str(self.inbox.bytes_read), str(self.cuts)

    def learn_cut(self, cuts: int, read: int, sent: int) -> None:
        """Count from the last cut: so much was read and sent before it."""
        if cuts > self.cuts:
            self.cuts = cuts
            self.inbox.bytes_read -= read
            self.outbox.cut(sent)


@asynccontextmanager
async def durable(
    connection: Connection,
    host: Host | None,
    directory: str,
    journal: Journal,
    *,
    environment: Mapping[str, str] | None = None,
    on_stderr: Callable[[bytes], None] = lambda _: None,
    idle_s: float = IDLE_S,
) -> AsyncIterator[Agent]:
    """Come back to the agent of a journal; start one where there is none, or it has ended. Takes what `agent` takes.

    One that we come back to (`is_new` is False) gets what had not arrived, and `receive` goes on where it stopped; if
    it has ended meanwhile, `receive` returns the rest, then None. `send` never raises ConnectionLostError: what is sent
    while the link breaks arrives after coming back, so it must not be sent again.

    Leaving ends the agent unless the link broke; then it goes on, and ends by itself after `idle_s` seconds without a
    client and without new output. Raises as `agent`; HostNotReadyError also where its files cannot be written.
    """
    if journal.ending is not None:
        journal.forget()
    settings = (*start_values(host, directory), str(max(1, round(idle_s))), _keep_text(), *pairs(host, environment))

    def heard(chunk: bytes) -> None:
        journal.errors_read += len(chunk)
        on_stderr(chunk)

    far = _Far(connection, journal, ErrorLog(heard))
    async with AsyncExitStack() as stack:
        # Once its channel is closed: a host may allow one session only.
        stack.push_async_callback(far.end_if_left)
        channel = await far.come_back(stack) if journal.place else None
        if channel is None:
            journal.forget()
            await far.start(directory, settings)
            channel = await far.come_back(stack)
        if channel is None:
            raise HostNotReadyError(connection.name, "the files of its agent went away as soon as they were there")
        async with _talking(far, channel) as running:
            yield running


@dataclass(frozen=True, slots=True)
class _Channel:
    duplex: Duplex
    output: AsyncIterator[bytes]
    said: dict[str, str]


class _Far:
    """The scripts there, for one connection and one journal."""

    def __init__(self, connection: Connection, journal: Journal, log: ErrorLog) -> None:
        self.connection = connection
        self.journal = journal
        self.log = log
        self.is_left = False
        """Whether the caller has left while the link was there."""

    async def start(self, directory: str, settings: tuple[str, ...]) -> None:
        """Start an agent, and end what is left of an earlier one."""
        password = new_password()
        word = password.encode() + b"\n"
        values = ("start", self.journal.owner, *settings)
        done = await self.connection.run(_script(), *values, timeout_s=START_TIMEOUT_S, input=word)
        said, _ = read_answer(done.stdout)
        self.journal.place = place_of(self.connection.name, directory, said, password)

    async def come_back(self, stack: AsyncExitStack) -> _Channel | None:
        """Open the channel of messages and send what had not arrived; None where nothing is known of an agent."""
        journal = self.journal
        script = self.connection.converse(_script(), "attach", journal.owner, *journal.where, str(journal.errors_read))
        duplex = await stack.enter_async_context(script)
        output = duplex.stdout()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said, rest = await preamble(self.connection.name, output)
        except TimeoutError:
            raise DeadlinePassedError(f"{self.connection.name}: its agent could not be reached in time") from None
        if said.get("state") == "gone":
            return None
        # Whoever asked for a cut may not have heard of it.
        journal.learn_cut(_number(said, "cuts"), _number(said, "cut_read"), _number(said, "cut_sent"))
        journal.inbox.reopen()
        if said.get("state") == "ended":
            journal.ending = _ending(said)
        else:
            await self._send_rest(duplex, said)
        return _Channel(duplex, self._everything(rest, output), said)

    async def rotate(self) -> bool:
        """See `Agent.rotate`."""
        journal = self.journal
        read, sent = journal.inbox.bytes_read, journal.outbox.bytes_sent
        if max(read, sent) < ROTATE_BYTES or not journal.outbox.is_quiet:
            return False
        is_done = (await self._call("rotate", str(read), str(sent))).get("state") == "done"
        if is_done:
            journal.learn_cut(journal.cuts + 1, read, sent)
        return is_done

    async def ending(self) -> Ending:
        """Return how the process ended, once all its output was read."""
        await self.journal.inbox.over()
        if self.journal.ending is None:
            raise self.journal.inbox.problem or ConnectionLostError(self.connection.name, "the connection was lost")
        return self.journal.ending

    async def end_if_left(self) -> None:
        """End the agent, as far as the connection allows."""
        if not self.is_left:
            return
        with contextlib.suppress(RemoteDispatchError):
            await self._call("stop", timeout_s=_END_S)
        self.journal.forget()

    async def _call(self, verb: str, *values: str, timeout_s: float = _CALL_S) -> dict[str, str]:
        done = await self.connection.run(_script(), verb, self.journal.owner, *values, timeout_s=timeout_s)
        return read_answer(done.stdout)[0]

    async def _send_rest(self, duplex: Duplex, said: Mapping[str, str]) -> None:
        arrived = said.get("sent", "")
        try:
            rest = self.journal.outbox.rest_after(int(arrived))
        except ValueError as error:
            raise HostNotReadyError(
                self.connection.name, "what is written there about its agent makes no sense"
            ) from error
        for start in range(0, len(rest), _PIECE_BYTES):
            await duplex.write(rest[start : start + _PIECE_BYTES])

    async def _everything(self, first: bytes, output: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the output. Its channel ends, while the link is there, when the agent has ended: then the rest too."""
        yield first
        async for chunk in output:
            yield chunk
        if self.journal.ending is None:
            yield await self._rest()

    async def _rest(self) -> bytes:
        values = ("rest", self.journal.owner, *self.journal.where)
        done = await self.connection.run(_script(), *values, timeout_s=_CALL_S)
        said, rest = split_preamble(done.stdout)
        if said.get("state") != "ended":
            raise ConnectionLostError(self.connection.name, "the channel to its agent was closed")
        self.journal.ending = _ending(said)
        return rest


@asynccontextmanager
async def _talking(far: _Far, channel: _Channel) -> AsyncIterator[Agent]:
    journal, duplex = far.journal, channel.duplex
    assert journal.place is not None
    tasks = [
        asyncio.create_task(far.log.drain(duplex.stderr())),
        asyncio.create_task(journal.inbox.fill(channel.output)),
    ]
    place = replace(journal.place, is_new=not journal.is_met)
    journal.is_met = True
    running = Agent(
        far.connection,
        place,
        duplex,
        journal.inbox,
        far.ending,
        on_send=journal.outbox.note,
        on_message=journal.outbox.learn,
        rotate=far.rotate,
    )
    running.version = journal.version
    is_lost = False
    try:
        yield running
    except ConnectionLostError:
        is_lost = True
        raise
    finally:
        journal.version = running.version
        await running.close()
        await cancelled(tasks)
        far.is_left = not is_lost and not isinstance(journal.inbox.problem, ConnectionLostError)


def _ending(said: Mapping[str, str]) -> Ending:
    words = said.get("words", "").replace("\t", "\n").encode(errors="replace")
    return Ending(_number(said, "ended", otherwise=KILLED_STATUS), last_words(words))


def _number(said: Mapping[str, str], key: str, *, otherwise: int = 0) -> int:
    text = said.get(key, "")
    return int(text) if _NUMBER.fullmatch(text) else otherwise


def _length(kept: tuple[str | None, bytes]) -> int:
    return len(kept[1])


def _key(message: Message) -> str:
    return json.dumps(message.get("id"))


def _keep_text() -> str:
    common = files("remote_dispatch.runner").joinpath("common.sh").read_text(encoding="utf-8")
    return "\n".join((common, shell_text("shared.sh"), shell_text("keep.sh")))


def _script() -> str:
    """Return the script of all verbs; its values stand at the head of durable.sh."""
    return f"{agent_functions()}\n{shell_text('durable.sh')}"
