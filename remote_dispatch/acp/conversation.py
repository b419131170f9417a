"""A conversation with the agent of one host, process after process: one that died is started anew, within limits.

The session is taken up again where it stands. A prompt is never sent again by itself: its tools may have run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from remote_dispatch.acp.client import Attached, Client, Listed, is_id, no_session
from remote_dispatch.acp.peer import PeerGoneError
from remote_dispatch.acp.side import Side
from remote_dispatch.acp.turn import Ended, nothing_beside, take_turn
from remote_dispatch.errors import ConnectionLostError, HostNotReadyError, RemoteDispatchError, UnknownNameError
from remote_dispatch.failure import Failure
from remote_dispatch.transcript.shape import mapping
from remote_dispatch.transcript.verdict import CUT, ends_at_limit, failure_detail, failure_kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.acp.agent import Ending
    from remote_dispatch.acp.client import Introduction, Listener, Timeouts
    from remote_dispatch.acp.happening import Raw
    from remote_dispatch.acp.peer import Wire
    from remote_dispatch.acp.turn import Manners
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.transcript.shape import Message

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Process(Protocol):
    """An agent's process as a conversation needs it; `Agent` is one."""

    @property
    def wire(self) -> Wire:
        """What carries the protocol."""
        ...

    @property
    def side(self) -> Api | None:
        """The HTTP API of this very process, where it has one."""
        ...

    @property
    def directory(self) -> str:
        """Where it works: a real path there."""
        ...

    async def ending(self) -> Ending:
        """Return how the process ended."""
        ...


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a process that died is started anew, and after how many seconds."""

    most: int = 3
    within_s: float = 300.0
    delays_s: tuple[float, ...] = (1.0, 2.0, 4.0)


class Conversation:
    """One agent, its session and its side channel. An async context manager that ends the agent.

    Its calls raise what starting the process raises, HostNotReadyError when it dies again and again, and what `Client`
    raises, but PeerGoneError.
    """

    def __init__(
        self,
        start: Callable[[], AbstractAsyncContextManager[Process]],
        name: str,
        *,
        version: str = "0",
        restarts: Restarts | None = None,
        timeouts: Timeouts | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`start` starts a process, each time anew; `name` is the host's public name, `version` ours."""
        self.session: Attached | None = None
        self.introduction: Introduction | None = None
        self._start = start
        self._name = name
        self._version = version
        self._restarts = restarts or Restarts()
        self._timeouts = timeouts
        self._sleep = sleep
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        self._api: Api | None = None
        self._side: Side | None = None
        self._process: Process | None = None
        self._directory = ""
        self._deaths: deque[float] = deque()
        self._chosen: dict[str, str] = {}
        self._must_settle = False
        self._must_wait = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    @property
    def api(self) -> Api | None:
        """The HTTP API of the agent's process, once it runs."""
        return self._api

    async def new(self) -> Attached:
        """Make a session in the directory of the agent."""

        async def make(client: Client) -> Attached:
            return await client.new(self._directory)

        self.session = await self._surviving(make)
        return self.session

    async def resume(self, session_id: str) -> Attached:
        """Take a session up, in its own directory. Raises UnknownNameError when it is not there."""

        async def take_up(client: Client) -> Attached:
            return await client.resume(await self._found(client, session_id))

        self.session = await self._surviving(take_up)
        return self.session

    async def sessions_here(self) -> list[Listed]:
        """Return the sessions of the agent's directory, newest first."""

        async def ask(client: Client) -> list[Listed]:
            return await client.sessions(self._directory)

        return await self._surviving(ask)

    async def all_sessions(self) -> list[Listed]:
        """Return the sessions of all directories of the host, newest first: the protocol knows one directory only."""

        async def ask(client: Client) -> list[Listed]:
            return await _everywhere(self._api) if self._api else await client.sessions()

        return await self._surviving(ask)

    async def choose(self, **options: str | None) -> None:
        """Set `model` or `mode` of the session. Raises UnknownNameError for what is not there."""
        wanted = {key: value for key, value in options.items() if value is not None}

        async def choose(client: Client) -> None:
            assert self.session is not None
            for key, value in wanted.items():
                self.session = await client.set_option(self.session, key, value)

        await self._surviving(choose)
        self._chosen |= wanted

    async def discard(self) -> None:
        """Delete the session that was just made: the protocol has no way to, so without a side channel it stays."""
        session, self.session = self.session, None
        if session is None or self._api is None:
            return
        try:
            await self._api.delete(session.id)
        except RemoteDispatchError as error:
            logger.debug("an empty session stays on %s: %s", self._name, error.message)

    async def prompt(
        self, text: str, listener: Listener, *, manners: Manners | None = None, stop: asyncio.Event | None = None
    ) -> Ended:
        """Send a prompt to the session and wait for the end of its turn: see `take_turn`.

        When the process dies meanwhile, the result says so; the next call starts it anew and takes the session up.
        """
        ended = await self._put(await self._ready(), text, listener, manners, stop)
        if ended.is_unattached:
            # It was refused, not taken: this process does not know the session (any more).
            await self._surviving(self._again)
            ended = await self._put(await self._ready(), text, listener, manners, stop)
        if ended.failure is Failure.INTERRUPTED:
            ended = replace(ended, detail=f"{ended.detail}{_told(await self._died())}")
        self._must_settle = ended.failure in (Failure.ABORTED, Failure.TIMEOUT)
        return await self._checked(ended) if ended.failure is None or ended.is_error else ended

    # --- how

    async def _put(
        self, client: Client, text: str, listener: Listener, manners: Manners | None, stop: asyncio.Event | None
    ) -> Ended:
        assert self.session is not None, "a session comes first"
        if self._side is not None and self._must_settle:
            # A prompt sent while a cancelled turn still ends comes back `cancelled` itself (OpenCode 1.18).
            await self._side.settled(self.session.id)
        beside = self._side.watching if self._side is not None else nothing_beside
        try:
            return await take_turn(client, self.session.id, text, listener, manners=manners, stop=stop, beside=beside)
        except ConnectionLostError:
            await self._drop()
            raise

    async def _surviving(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do what may be done again in another process when this one dies under it."""
        while True:
            try:
                return await work(await self._ready())
            except PeerGoneError:
                await self._died()

    async def _ready(self) -> Client:
        """Return a client whose agent lives, and has the session."""
        while self._client is None:
            if self._must_wait:
                self._must_wait = False
                await self._sleep(self._restarts.delays_s[min(len(self._deaths), len(self._restarts.delays_s)) - 1])
            try:
                self._client = await self._begin()
            except PeerGoneError:
                await self._died()
        return self._client

    async def _begin(self) -> Client:
        try:
            return await self._begun()
        except PeerGoneError:
            raise
        except BaseException:
            await self._drop()
            raise

    async def _begun(self) -> Client:
        process = self._process = await self._stack.enter_async_context(self._start())
        self._directory = process.directory
        client = await self._stack.enter_async_context(
            Client(process.wire, self._name, version=self._version, timeouts=self._timeouts)
        )
        self.introduction = await client.initialize()
        self._api = process.side
        self._side = Side(process.side, ask=client.on_request, tell=_teller(client)) if process.side else None
        if self.session is not None:
            await self._again(client)
        return client

    async def _again(self, client: Client) -> None:
        """Take the session up in another process, with what was chosen for it."""
        assert self.session is not None
        self.session = await client.resume(Listed(self.session.id, self.session.directory))
        for key, value in self._chosen.items():
            self.session = await client.set_option(self.session, key, value)

    async def _died(self) -> str:
        """Clear up after a process that ended by itself, and say in its words why. Raises when it dies too often.

        The next start waits a little longer each time.
        """
        words = await self._last_words()
        await self._drop()
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - self._restarts.within_s:
            self._deaths.popleft()
        if len(self._deaths) > self._restarts.most:
            raise HostNotReadyError(
                self._name,
                f"its OpenCode ended {len(self._deaths)} times in a row{_told(words)}",
                hint=f"see why with `remote-dispatch doctor {self._name}`",
            )
        self._must_wait = True
        return words

    async def _last_words(self) -> str:
        if self._process is None:
            return ""
        try:
            ending = await self._process.ending()
        except RemoteDispatchError:
            return ""
        return ending.words or ("a signal killed it" if ending.is_killed else "")

    async def _drop(self) -> None:
        self._client = self._api = self._side = self._process = None
        try:
            await self._stack.aclose()
        except RemoteDispatchError as error:
            logger.debug("ending the agent on %s: %s", self._name, error.message)

    async def _found(self, client: Client, session_id: str) -> Listed:
        """Find a session and its directory. The list has those of one project; the side channel knows all."""
        if not is_id(session_id):
            raise no_session(self._name, session_id)
        try:
            return await client.session(session_id)
        except UnknownNameError:
            if self._api is None:
                raise
        try:
            served = await self._api.session(session_id)
        except UnknownNameError as error:
            raise no_session(self._name, session_id) from error
        return Listed(served.id, served.directory, served.title)

    async def _checked(self, ended: Ended) -> Ended:
        """Learn from the last message what the protocol does not say (OpenCode 1.18).

        An answer that is cut ends with `end_turn`, too, and an error of the provider comes without its status.
        """
        message = await self._last_message()
        if message is None:
            return ended
        error = mapping(message["info"].get("error"))
        if ended.failure is None:
            is_cut = ends_at_limit(message) and CUT not in ended.warnings
            return replace(ended, warnings=(*ended.warnings, CUT)) if is_cut else ended
        return replace(ended, failure=failure_kind(error), detail=failure_detail(error)) if error else ended

    async def _last_message(self) -> Message | None:
        """Return the last message of the session; None where that cannot be asked."""
        if self._api is None or self.session is None:
            return None
        try:
            messages = await self._api.messages(self.session.id, limit=1)
        except RemoteDispatchError as error:
            logger.debug("the end of the turn could not be looked at: %s", error.message)
            return None
        return messages[-1] if messages and isinstance(messages[-1].get("info"), dict) else None


def _told(words: str) -> str:
    return f" ({words})" if words else ""


def _teller(client: Client) -> Callable[[Raw], Awaitable[None]]:
    async def tell(params: Raw) -> None:
        await client.on_notification("session/update", params)

    return tell


async def _everywhere(api: Api) -> list[Listed]:
    found = [one for one in await api.sessions() if one.parent_id is None]
    return [
        Listed(one.id, one.directory, one.title, datetime.fromtimestamp(one.updated_ms / 1000, UTC).isoformat())
        for one in sorted(found, key=lambda one: one.updated_ms, reverse=True)
    ]
