"""What the bridge does with each request of an editor: translate, ask the agent, translate back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from remote_dispatch.acp import rewrite
from remote_dispatch.acp.calls import PROMPT
from remote_dispatch.acp.client import is_id
from remote_dispatch.acp.memory import OPENING
from remote_dispatch.acp.peer import INVALID_PARAMS, RpcError
from remote_dispatch.errors import HostNotReadyError, RemoteDispatchError
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.text import clean
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from remote_dispatch.acp.attached import Attached
    from remote_dispatch.acp.bridge import Bridge
    from remote_dispatch.acp.calls import Call
    from remote_dispatch.acp.lines import Message
    from remote_dispatch.acp.rewrite import PathMap

Found = TypeVar("Found")

PROTOCOL = 1
COMMANDS_S = 5.0
"""The commands of a session are announced right after it was opened."""
LINK_LIMIT_BYTES = 1024 * 1024
NO_SUCH_SESSION = -32002
"""The protocol's own number for what is not there."""
_UNATTACHED = "session not found"


@dataclass(eq=False)
class Turns:
    """The prompts of one session: one after the other, as OpenCode 1.18 mixes up those that run together."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    calls: list[Call] = field(default_factory=list)
    was_cancelled: bool = False


class Errands:
    """The requests of one editor."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._turns: dict[str, Turns] = {}
        self._news = asyncio.Event()

    async def run(self, call: Call) -> Any:
        """Return the result of a request, as the editor gets it. Raises RpcError and other RemoteDispatchErrors."""
        if call.session is not None and not is_id(call.session):
            raise self._no_session(call.session)
        match call.method:
            case "initialize":
                return await self._initialize(call)
            case "session/new":
                return await self._open_new(call)
            case "session/load" | "session/resume" | "session/fork":
                await self._open_old(call)
            case "session/list":
                return await self._list(call)
            case "session/delete":
                return await self._delete(call)
            case "session/prompt":
                return await self._prompt(call)
        return await self._ask(call)

    def cancel(self, session: object) -> bool:
        """Cancel the prompts of a session. Those still here are over; returns whether the agent has to be told."""
        turns = self._turns.get(str(session), Turns())
        is_there = [self.cancel_one(call) for call in turns.calls]
        return any(is_there) or not turns.calls

    def cancel_one(self, call: Call) -> bool:
        """Cancel one request; returns whether the agent has to be told, which answers it then."""
        call.is_cancelled = True
        if call.method == PROMPT and call.is_sent:
            self._turns[call.session or ""].was_cancelled = True
            return True
        if call.task is not None:
            call.task.cancel()
        return False

    def hear(self, params: Message) -> None:
        """Take note of a `session/update`, once the bridge's memory has."""
        self._news.set()
        self._news = asyncio.Event()
        for call in self._bridge.calls.all():
            # A history of which a part was shown cannot be loaded again unseen.
            call.has_begun |= call.method == "session/load" and call.session == params.get("sessionId")

    # --- one method each

    async def _initialize(self, call: Call) -> Message:
        forms = mapping(mapping(call.params.get("clientCapabilities")).get("elicitation")).get("form")
        self._bridge.has_forms = isinstance(forms, dict)
        call.params = rewrite.outward_capabilities(call.params)
        result = mapping(await self._ask(call))
        if result.get("protocolVersion") != PROTOCOL:
            error = _not_our_version(self._bridge.host, result.get("protocolVersion"))
            self._bridge.end_with(error)
            raise error
        return rewrite.homeward_capabilities(result, has_delete=True)

    async def _open_new(self, call: Call) -> Any:
        attached = await self._bridge.attached()
        call.params = self._without_local_servers(rewrite.outward_directories(call.params, attached.places))
        directory = call.params.get("cwd")
        # OpenCode 1.18 takes a missing directory, and fails at the first prompt with an error that says nothing.
        if isinstance(directory, str) and not await self._has_directory(attached, directory):
            raise RpcError(
                INVALID_PARAMS,
                f"Invalid params: there is no directory `{directory}` on {self._bridge.host}; "
                "make it there, or map another one",
            )
        return await self._as_the_host_has_it(call, attached, await self._ask(call))

    async def _as_the_host_has_it(self, call: Call, attached: Attached, result: Any) -> Any:
        """Choose the agent and the model of the host's entry for a new session, before the editor hears of it."""
        manners, session = self._bridge.manners, mapping(result).get("sessionId")
        wanted = [(name, one) for name, one in (("model", manners.model), ("mode", manners.agent)) if one]
        if not wanted or not isinstance(session, str):
            return result
        self._bridge.held.hold(session)
        call.is_settled.set()
        for option, value in wanted:
            params: Message = {"sessionId": session, "configId": option, "value": value}
            try:
                chosen = mapping(await self._bridge.ask_for_us(attached, "session/set_config_option", params))
            except RemoteDispatchError as error:
                self._bridge.note(f"`{value}` of the entry of {self._bridge.host} could not be chosen: {error.message}")
            else:
                self._bridge.memory.learn("session/set_config_option", params, chosen)
                result = result | {name: chosen[name] for name in ("configOptions",) if name in chosen}
        return result

    async def _open_old(self, call: Call) -> None:
        attached = await self._bridge.attached()
        params = self._without_local_servers(call.params)
        cwd, others = params.get("cwd"), {name: one for name, one in params.items() if name != "cwd"}
        own = await self._directory_of(attached, call.session)
        if own is None:
            call.params = rewrite.outward_directories(params, attached.places)
        else:
            # Opened from elsewhere its permissions would go astray (OpenCode 1.18).
            call.params = rewrite.outward_directories(others, attached.places) | ({"cwd": own} if cwd else {})

    async def _list(self, call: Call) -> Message:
        places = (await self._bridge.attached()).places
        call.params = rewrite.outward_directories(call.params, places)
        return rewrite.homeward_sessions(mapping(await self._ask(call)), places)

    async def _delete(self, call: Call) -> Message:
        """OpenCode 1.18 deletes over HTTP only."""
        api = (await self._bridge.attached()).agent.side
        if call.session is None:
            raise RpcError(INVALID_PARAMS, "Invalid params: sessionId is missing")
        with contextlib.suppress(NoSuchSessionError):
            await api.abort(call.session)
            await api.delete(call.session)
        self._bridge.memory.forget(call.session)
        return {}

    async def _prompt(self, call: Call) -> Any:
        turns = self._turns.setdefault(call.session or "", Turns())
        turns.calls.append(call)
        try:
            async with turns.lock:
                attached = await self._bridge.attached()
                if turns.was_cancelled and call.session:
                    await attached.side.settled(call.session)
                turns.was_cancelled = False
                call.params = await self._outward_prompt(call, attached.places)
                result = await self._watched(call)
        finally:
            turns.calls.remove(call)
        if call.is_cancelled and mapping(result).get("stopReason") == "end_turn":
            # OpenCode 1.18 says so when it was cancelled while it waited for a provider.
            return result | {"stopReason": "cancelled"}
        return result

    # --- how

    async def _ask(self, call: Call) -> Any:
        """Ask, and once more where this process does not know a session that exists."""
        call.limit_s = None if call.method == PROMPT else self._bridge.manners.answer_s
        try:
            result = await self._bridge.ask_agent(call)
        except RpcError as error:
            if error.code != INVALID_PARAMS or _UNATTACHED not in error.words or not await self._is_opened_anew(call):
                raise
            result = await self._bridge.ask_agent(call)
        self._bridge.memory.learn(call.method, call.params, result)
        return result

    async def _is_opened_anew(self, call: Call) -> bool:
        """Attach the session of a call that was refused, for a process that has not seen it yet."""
        call.renew()
        attached = await self._bridge.attached()
        directory = await self._directory_of(attached, call.session)
        if directory is None or call.method in OPENING:
            return False
        params: Message = {"sessionId": call.session, "cwd": directory, "mcpServers": []}
        await self._bridge.ask_for_us(attached, "session/resume", params)
        self._bridge.memory.learn("session/resume", params, {})
        return True

    async def _watched(self, call: Call) -> Any:
        """Ask, and look after what only the side channel tells until the answer is there, whatever the link does."""
        asking = asyncio.ensure_future(self._ask(call))
        try:
            while not asking.done():
                attached = await _unless(asking, self._bridge.attached())
                if attached is None or call.session is None:
                    break
                async with attached.side.watching(call.session):
                    await _unless(asking, attached.is_gone.wait())
            return await asking
        finally:
            asking.cancel()

    async def _outward_prompt(self, call: Call, places: PathMap) -> Message:
        blocks = call.params.get("prompt")
        if not isinstance(blocks, list):
            return call.params
        sent, remarks = await asyncio.to_thread(
            rewrite.outward_prompt, blocks, places, _read, limit_bytes=LINK_LIMIT_BYTES
        )
        for remark in remarks:
            self._bridge.note(remark)
        return call.params | {"prompt": await self._unslashed(call.session or "", sent)}

    async def _unslashed(self, session: str, blocks: list[Any]) -> list[Any]:
        word = rewrite.slash_word(blocks)
        if word is None or not rewrite.is_like_a_command(word):
            return rewrite.unslashed(blocks, ())
        commands = self._bridge.memory.commands
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMANDS_S):
                while session not in commands:
                    await self._news.wait()
        return rewrite.unslashed(blocks, commands.get(session, (word,)))

    async def _directory_of(self, attached: Attached, session: str | None) -> str | None:
        """Return the directory of a session as OpenCode knows it; None where that cannot be learned."""
        if session is None:
            return None
        try:
            return (await attached.agent.side.session(session)).directory
        except NoSuchSessionError:
            raise self._no_session(session) from None
        except RemoteDispatchError:
            return None

    def _no_session(self, session: str) -> RpcError:
        return RpcError(NO_SUCH_SESSION, f"there is no session {clean(session, 60)} on {self._bridge.host}")

    @staticmethod
    async def _has_directory(attached: Attached, directory: str) -> bool:
        try:
            return await attached.agent.side.has_directory(directory)
        except RemoteDispatchError:
            return True

    def _without_local_servers(self, params: Message) -> Message:
        if self._bridge.manners.keeps_mcp:
            return params
        kept, dropped = rewrite.kept_servers(params)
        if dropped:
            names = ", ".join(f"`{name}`" for name in dropped)
            self._bridge.note(f"MCP servers of this machine were left out: {names} (`--keep-mcp` sends them)")
        return kept


async def _unless(asking: asyncio.Future[Any], wanted: Awaitable[Found]) -> Found | None:
    """Wait for something, but no longer than for the answer; None when that came first."""
    task = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([asking, task], return_when=asyncio.FIRST_COMPLETED)
        return None if asking.done() else await task
    finally:
        task.cancel()


def _read(path: str) -> bytes:
    """Read a local file, and no more of it than would be refused."""
    with Path(path).open("rb") as stream:
        return stream.read(LINK_LIMIT_BYTES + 1)


def _not_our_version(host: str, version: object) -> HostNotReadyError:
    return HostNotReadyError(
        host,
        f"its OpenCode speaks version {version} of the Agent Client Protocol, and {PROTOCOL} is what is known",
        hint="update remote-dispatch",
    )
