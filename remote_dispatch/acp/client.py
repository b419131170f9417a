"""One agent over the protocol, for the command line: typed calls, updates to whom they belong, every wait with an end.

It knows no process and no connection: a `Wire` is all it needs. The agent is OpenCode 1.18, which keeps to version 1 of
the protocol; what was measured of it is in docs/acp.md.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from remote_dispatch.acp.happening import Asked, CommandsKnown, Raw, ToolChanged, read_asked, read_update
from remote_dispatch.acp.peer import INVALID_PARAMS, METHOD_NOT_FOUND, Peer, RpcError
from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError, UnknownNameError
from remote_dispatch.text import clean, mask_addresses
from remote_dispatch.transcript.shape import mapping, mappings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.acp.happening import Happening
    from remote_dispatch.acp.peer import Wire

PROTOCOL_VERSION = 1
CLIENT_NAME = "remote-dispatch"
MOST_PAGES = 100
"""Of a hundred sessions each (OpenCode 1.18)."""
_WORDS = 300
_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
_CANCELLED: Raw = {"outcome": {"outcome": "cancelled"}}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each kind of call may take, in seconds. A prompt has no limit here: see `turn.py`."""

    initialize_s: float = 30.0
    session_s: float = 60.0
    """new, load, resume: the agent starts the MCP servers of its configuration meanwhile."""
    call_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who answered `initialize`, and what it can do."""

    name: str
    version: str
    capabilities: Raw = field(repr=False)

    def can(self, what: str) -> bool:
        """Whether it has one of `session/list`, `resume`, `close`, `fork`, or `load`."""
        if what == "load":
            return self.capabilities.get("loadSession") is True
        sessions = self.capabilities.get("sessionCapabilities")
        return isinstance(sessions, dict) and sessions.get(what) is not None


@dataclass(frozen=True, slots=True)
class Listed:
    """A session as `session/list` shows it. `updated` is an ISO time, as the agent wrote it."""

    id: str
    directory: str
    title: str = ""
    updated: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """A session that this process works with."""

    id: str
    directory: str
    options: tuple[Raw, ...] = ()
    """`model`, `effort` and `mode`, with their values."""

    def option(self, option_id: str) -> Raw | None:
        """Return an option of the session."""
        return next((one for one in self.options if one.get("id") == option_id), None)


class Listener(Protocol):
    """Who hears of a session while a turn, or a replay, runs."""

    def update(self, what: Happening) -> None:
        """Something happened."""
        ...

    async def ask(self, asked: Asked) -> str | None:
        """Return the id of the choice, or None for no answer. It is cancelled when the turn ends before it."""
        ...


class Client:
    """One agent; an async context manager.

    Its calls raise RpcError for what the agent refuses, PeerGoneError when its process ended, ConnectionLostError when
    the link to it broke, DeadlinePassedError when it does not answer in time.
    """

    def __init__(self, wire: Wire, name: str, *, version: str = "0", timeouts: Timeouts | None = None) -> None:
        """`name` is the host's public name, `version` ours."""
        self.name = name
        self.introduction: Introduction | None = None
        self.commands: dict[str, frozenset[str]] = {}
        """By session: the commands that a prompt may begin with."""
        self._ours = version
        self._timeouts = timeouts or Timeouts()
        self._peer = Peer(wire, self)
        self._listeners: dict[str, Listener] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._past_calls: dict[str, set[str]] = defaultdict(set)
        self._has_commands: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def __aenter__(self) -> Self:
        await self._peer.__aenter__()
        return self

    async def __aexit__(self, *caught: object) -> None:
        await self._peer.__aexit__(*caught)

    # --- calls

    async def initialize(self) -> Introduction:
        """Introduce ourselves. Raises HostNotReadyError for another version of the protocol than ours."""
        params = {
            "protocolVersion": PROTOCOL_VERSION,
            "clientCapabilities": {},
            "clientInfo": {"name": CLIENT_NAME, "version": self._ours},
        }
        raw = await self._call("initialize", params, self._timeouts.initialize_s)
        spoken = raw.get("protocolVersion")
        if spoken != PROTOCOL_VERSION or isinstance(spoken, bool):
            raise HostNotReadyError(
                self.name,
                f"its OpenCode speaks version {clean(str(spoken), 20)} of the protocol, not {PROTOCOL_VERSION}",
                hint="update remote-dispatch, or use an OpenCode 1.18 there",
            )
        info, capabilities = mapping(raw.get("agentInfo")), mapping(raw.get("agentCapabilities"))
        named, version = (clean(str(info.get(key) or ""), 60) for key in ("name", "version"))
        self.introduction = Introduction(named, version, capabilities)
        return self.introduction

    async def new(self, directory: str) -> Attached:
        """Make a session in a directory of the host, absolute."""
        raw = await self._open("session/new", {}, directory)
        ident = raw.get("sessionId")
        if not isinstance(ident, str) or not ident:
            raise HostNotReadyError(self.name, "its OpenCode made a session without an id")
        return Attached(ident, directory, _options(raw))

    async def resume(self, session: Listed) -> Attached:
        """Take a session up where it stands; nothing is replayed. Its directory must be its own, as it was listed.

        OpenCode 1.18 takes any directory, and then never hears the answers to its permission requests. An agent that
        cannot resume loads it; what that replays nobody hears.
        """
        method = "session/load" if self.introduction and not self.introduction.can("resume") else "session/resume"
        raw = await self._open(method, {"sessionId": session.id}, session.directory)
        return Attached(session.id, session.directory, _options(raw))

    async def load(self, session: Listed, listener: Listener) -> Attached:
        """Take a session up, and hear its history first."""
        with self._hearing(session.id, listener):
            raw = await self._open("session/load", {"sessionId": session.id}, session.directory)
        return Attached(session.id, session.directory, _options(raw))

    async def sessions(self, directory: str | None = None) -> list[Listed]:
        """Return the sessions of a directory, or of the agent's project, newest first; sub-agents' are left out."""
        found: dict[str, Listed] = {}
        params: Raw = {"cwd": directory} if directory else {}
        for _ in range(MOST_PAGES):
            raw = await self._call("session/list", params, self._timeouts.call_s)
            page = [one for one in _listed(raw) if one.id not in found]
            found.update((one.id, one) for one in page)
            cursor = raw.get("nextCursor")
            if not cursor or not page:
                break
            params = {**params, "cursor": cursor}
        return sorted(found.values(), key=lambda one: one.updated, reverse=True)

    async def session(self, session_id: str, directory: str | None = None) -> Listed:
        """Return one session as it is listed. Raises UnknownNameError."""
        for one in await self.sessions(directory):
            if one.id == session_id:
                return one
        raise no_session(self.name, session_id)

    async def set_option(self, session: Attached, option_id: str, value: str) -> Attached:
        """Set `model` or `mode` of a session. Raises UnknownNameError, with what there is, for another value."""
        params = {"sessionId": session.id, "configId": option_id, "value": value}
        try:
            raw = await self._call("session/set_config_option", params, self._timeouts.call_s)
        except RpcError as error:
            if error.code != INVALID_PARAMS:
                raise
            raise _no_value(self.name, session, option_id, value) from error
        return Attached(session.id, session.directory, _options(raw) or session.options)

    async def cancel(self, session_id: str) -> None:
        """Ask the agent to end the turn of a session; how it ends is the answer to the prompt."""
        await self._peer.notify("session/cancel", {"sessionId": session_id})

    async def close(self, session_id: str) -> None:
        """Let go of a session; it stays on the host."""
        await self._call("session/close", {"sessionId": session_id}, self._timeouts.call_s)

    # --- turns

    @asynccontextmanager
    async def turn(self, session_id: str, listener: Listener) -> AsyncIterator[None]:
        """Have a session for oneself: OpenCode 1.18 would mix two prompts at once into one turn."""
        async with self._locks[session_id]:
            calls = _Calls(listener, self._past_calls[session_id])
            with self._hearing(session_id, calls):
                try:
                    yield
                finally:
                    self._past_calls[session_id] |= calls.open

    async def prompt(self, session_id: str, blocks: list[Raw]) -> Raw:
        """Send a prompt (content blocks), once, and return the agent's answer: only inside `turn`."""
        params = {"sessionId": session_id, "prompt": blocks}
        return await self._call("session/prompt", params, None)

    async def commands_of(self, session_id: str, *, timeout_s: float) -> frozenset[str]:
        """Return the commands of a session, which the agent tells some time after it was opened; none if it does not.

        It tells them 10 ms after (OpenCode 1.18).
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_commands[session_id].wait()
        except TimeoutError:
            return frozenset()
        return self.commands[session_id]

    # --- what the agent says: `Handler` of a peer

    async def on_notification(self, method: str, params: Raw) -> None:
        """Hand an update to whoever listens to its session."""
        if method != "session/update":
            return
        session_id, update = str(params.get("sessionId")), mapping(params.get("update"))
        listener = self._listeners.get(session_id)
        for what in read_update(update):
            if isinstance(what, CommandsKnown):
                self.commands[session_id] = what.names
                self._has_commands[session_id].set()
            if listener is not None:
                listener.update(what)

    async def on_request(self, method: str, params: Raw) -> Any:
        """Answer a request: permissions by the listener, written files with a nod. Raises RpcError for the rest."""
        if method == "session/request_permission":
            return await self._asked(read_asked(params))
        if method == "fs/write_text_file":
            # OpenCode 1.18 asks although we do not offer it; the file is written already, there.
            return {}
        raise RpcError(METHOD_NOT_FOUND, f"method not found: {clean(method, 60)}")

    async def _asked(self, asked: Asked) -> Raw:
        listener = self._listeners.get(asked.session_id)
        chosen = await listener.ask(asked) if listener is not None else None
        if chosen is None:
            return _CANCELLED
        return {"outcome": {"outcome": "selected", "optionId": chosen}}

    # --- how

    def _hearing(self, session_id: str, listener: Listener) -> _Hearing:
        return _Hearing(self._listeners, session_id, listener)

    async def _open(self, method: str, params: Raw, directory: str) -> Raw:
        """Open a session; MCP servers are the host's own."""
        try:
            return await self._call(method, {**params, "cwd": directory, "mcpServers": []}, self._timeouts.session_s)
        except DeadlinePassedError as error:
            error.hint = "does an MCP server of the configuration there hang? See `opencode mcp list` on the host"
            raise

    async def _call(self, method: str, params: Raw, timeout_s: float | None) -> Raw:
        return mapping(await self._peer.request(method, params, timeout_s=timeout_s))


class _Hearing:
    """While it is entered, a listener hears of a session; the one before it comes back afterwards."""

    def __init__(self, listeners: dict[str, Listener], session_id: str, listener: Listener) -> None:
        self._listeners = listeners
        self._session_id = session_id
        self._listener = listener
        self._before: Listener | None = None

    def __enter__(self) -> None:
        self._before = self._listeners.get(self._session_id)
        self._listeners[self._session_id] = self._listener

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            self._listeners.pop(self._session_id, None)
        else:
            self._listeners[self._session_id] = self._before


class _Calls:
    """Keeps what comes late of an earlier, cancelled turn from the present one (OpenCode 1.18)."""

    def __init__(self, listener: Listener, past: set[str]) -> None:
        self.open: set[str] = set()
        self._listener = listener
        self._past = past

    def update(self, what: Happening) -> None:
        if isinstance(what, ToolChanged):
            if what.status == "pending":
                self._past.discard(what.call_id)
            elif what.call_id in self._past:
                return
            (self.open.discard if what.is_over else self.open.add)(what.call_id)
        self._listener.update(what)

    async def ask(self, asked: Asked) -> str | None:
        return await self._listener.ask(asked)


def words_of(error: RpcError) -> str:
    """Return the agent's own words for people, without the prefix of its kind of error, cleaned, without addresses."""
    words = error.words
    for prefix in ("Internal error: ", "Invalid params: "):
        words = words.removeprefix(prefix)
    return clean(mask_addresses(clean(words, _WORDS * 2)), _WORDS)


def is_id(session_id: str) -> bool:
    """Whether it could be the id of a session: it becomes a part of paths of the HTTP API."""
    return _ID.fullmatch(session_id) is not None


def no_session(host: str, session_id: str) -> UnknownNameError:
    """Return the error for a session that is not there."""
    return UnknownNameError(
        f"{host}: no session `{clean(session_id, 60)}` there",
        hint=f"list them with `remote-dispatch acp sessions {host} --all`",
    )


def values_of(option: Raw) -> list[str]:
    """Return the values that an option can have; they may stand in groups."""
    found: list[str] = []
    for one in mappings(option.get("options")):
        found += [str(one["value"])] if "value" in one else values_of(one)
    return found


def _no_value(host: str, session: Attached, option_id: str, value: str) -> UnknownNameError:
    option = session.option(option_id)
    there = [clean(one, 80) for one in values_of(option)] if option else []
    named = {"mode": "agent"}.get(option_id, option_id)
    listed = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return UnknownNameError(
        f"{host}: no {named} `{clean(value, 80)}` there", hint=f"there is: {listed}" if listed else None
    )


def _listed(raw: Raw) -> list[Listed]:
    return [
        Listed(one["sessionId"], *(str(one.get(key) or "") for key in ("cwd", "title", "updatedAt")))
        for one in mappings(raw.get("sessions"))
        if isinstance(one.get("sessionId"), str)
    ]


def _options(raw: Raw) -> tuple[Raw, ...]:
    return tuple(mappings(raw.get("configOptions")))
