"""What ACP does not deliver in OpenCode 1.18: sub-agents' permissions, questions, and a provider that is asked again.

While a prompt runs, the HTTP API of the very same process is looked at; what it shows goes to the editor as messages
of the protocol, and the answers go back. Trouble here never disturbs the prompt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from remote_dispatch.acp import asking
from remote_dispatch.acp.peer import RpcError
from remote_dispatch.errors import HostUnreachableError, RemoteDispatchError
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.opencode.served import PermissionRequest
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Question, QuestionRequest, Request, Served, Status

Raw = dict[str, Any]
Ask = Callable[[str, Raw], Awaitable[Raw]]
"""Put a request to the editor: method and params; returns its result. May raise RpcError and PeerGoneError."""
Tell = Callable[[Raw], Awaitable[None]]
"""Send a `session/update` to the editor: its params."""

LOOK_EVERY_S = 1.0
"""Three small requests each time. OpenCode's event stream would carry every piece of the answer a second time."""
CALM_S = 1.0
"""So long after a cancelled prompt the next one waits. Measured: 0.25 s is too early (OpenCode 1.18)."""
DEEPEST = 10
"""Sub-agents of sub-agents."""

logger = logging.getLogger(__name__)


class Side:
    """The side channel of one agent. `api` is the HTTP API of the agent's own process.

    `has_forms`: the editor takes `elicitation/create` in mode `form`; questions are put as a form then, otherwise as
    permissions. Paths in what is asked and told are the host's. At most one thing is asked at a time.
    """

    def __init__(
        self,
        api: Api,
        *,
        ask: Ask,
        tell: Tell,
        has_forms: bool = False,
        every_s: float = LOOK_EVERY_S,
        calm_s: float = CALM_S,
    ) -> None:
        self._api = api
        self._person = _Person(ask, tell, has_forms=has_forms)
        self._every_s = every_s
        self._calm_s = calm_s
        self._ended: dict[str, float] = {}

    @property
    def is_asking(self) -> bool:
        """Whether somebody is being asked just now: silence means nothing then."""
        return self._person.turn.locked()

    @asynccontextmanager
    async def watching(self, session_id: str) -> AsyncIterator[None]:
        """Look after a session and its sub-agents while a prompt runs. On leaving, what is still asked is withdrawn.

        Never raises by itself: an API that does not answer is asked again, and so is everything else.
        """
        watch = _Watch(self._api, self._person, session_id, self._every_s)
        task = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            self._ended[session_id] = time.monotonic()
            await _ended([task])

    async def settled(self, session_id: str, *, timeout_s: float = 10.0) -> bool:
        """Wait until a session and its sub-agents are idle, and the cancel of its last prompt is some time ago.

        Returns whether they are idle. A prompt that is sent earlier may come back as cancelled itself, soon after a
        cancel also when all are idle by then (OpenCode 1.18).
        """
        now = time.monotonic()
        end, calm_at = now + timeout_s, self._ended.get(session_id, now - self._calm_s) + self._calm_s
        await asyncio.sleep(max(0.0, calm_at - now))
        family = _Family(self._api, session_id)
        while time.monotonic() < end:
            try:
                busy = await self._api.statuses((await family.root()).directory)
                if not [one for one in busy if await family.member(one)]:
                    return True
            except RemoteDispatchError as error:
                logger.debug("side channel: %s", error.message)
            await asyncio.sleep(self._every_s / 5)
        return False


class _Person:
    """Whoever sits at the editor: told in order, asked one thing at a time."""

    def __init__(self, ask: Ask, tell: Tell, *, has_forms: bool) -> None:
        self.tell = tell
        self.has_forms = has_forms
        self.turn = asyncio.Lock()
        self._ask = ask

    async def ask(self, method: str, params: Raw) -> Raw:
        """Ask; an error is an answer without any content."""
        try:
            return mapping(await self._ask(method, params))
        except RpcError as error:
            logger.info("the editor answered `%s` by an error: %s", method, error.message)
            return {}


class _Family:
    """A session and its sub-agents, as far as they were met."""

    def __init__(self, api: Api, root_id: str) -> None:
        self.root_id = root_id
        self._api = api
        self._known: dict[str, Served] = {}

    async def root(self) -> Served:
        """Return the session itself."""
        return await self._session(self.root_id)

    async def member(self, session_id: str) -> Served | None:
        """Return the session, or a sub-agent of it at whatever depth; None for a stranger."""
        one: str | None = session_id
        for _ in range(DEEPEST):
            if one == self.root_id:
                return await self._session(session_id)
            try:
                one = (await self._session(one)).parent_id if one else None
            except NoSuchSessionError:
                return None
        return None

    async def _session(self, session_id: str) -> Served:
        if session_id not in self._known:
            self._known[session_id] = await self._api.session(session_id)
        return self._known[session_id]


class _Watch:
    """One prompt that runs."""

    def __init__(self, api: Api, person: _Person, session_id: str, every_s: float) -> None:
        self._api = api
        self._person = person
        self._family = _Family(api, session_id)
        self._every_s = every_s
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[str, Status]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._every_s)
                try:
                    await self._look()
                except RemoteDispatchError as error:
                    logger.debug("side channel: %s", error.message)
        finally:
            await self._end()

    async def _look(self) -> None:
        directory = (await self._family.root()).directory
        statuses, permissions, questions = await asyncio.gather(
            self._api.statuses(directory), self._api.permissions(directory), self._api.questions(directory)
        )
        await self._show_retries(statuses)
        listed: list[Request] = [*permissions, *questions]
        open_ids = {one.id for one in listed}
        for request_id, task in self._asked.items():
            if request_id not in open_ids:
                task.cancel()
        for request in listed:
            if request.id not in self._asked and request.session_id in statuses:
                try:
                    await self._consider(request)
                except RemoteDispatchError as error:
                    logger.debug("side channel: a request could not be looked at: %s", error.message)

    # --- requests

    async def _consider(self, request: Request) -> None:
        """Begin to ask what ACP does not ask by itself, unless nobody waits for the answer any more."""
        is_permission = isinstance(request, PermissionRequest)
        if is_permission and request.session_id == self._family.root_id:
            return
        session = await self._family.member(request.session_id)
        if session is not None and not await _has_ended(self._api, request):
            self._asked[request.id] = asyncio.create_task(self._put(request, session))

    async def _put(self, request: Request, session: Served) -> None:
        try:
            async with self._person.turn:
                if isinstance(request, PermissionRequest):
                    await self._permission(request, session)
                else:
                    await self._question(request, session)
        except RemoteDispatchError as error:
            logger.warning("side channel: what `%s` asks could not be answered: %s", session.title, error.message)

    async def _permission(self, request: PermissionRequest, session: Served) -> None:
        agent = session.agent or "agent"
        call = asking.permission_call(request, agent)
        params = asking.permission_params(self._family.root_id, call, request, agent)
        async with self._shown(call) as outcome:
            word = asking.decision_of(await self._person.ask(asking.PERMISSION, params))
            await self._reply(lambda: self._api.reply_permission(request.id, session.directory, word))
            outcome.is_good = word != "reject"

    async def _question(self, request: QuestionRequest, session: Served) -> None:
        agent = asking.asker_of(request, self._family.root_id, session.agent)
        answers = await (self._form(request, agent) if self._person.has_forms else self._choices(request, agent))
        if answers is None:
            await self._reply(lambda: self._api.reject_question(request.id, session.directory))
        else:
            await self._reply(lambda: self._api.reply_question(request.id, session.directory, answers))

    async def _form(self, request: QuestionRequest, agent: str | None) -> Sequence[Sequence[str]] | None:
        params = asking.form_params(self._family.root_id, request, agent)
        return asking.answers_of(request, await self._person.ask(asking.FORM, params))

    async def _choices(self, request: QuestionRequest, agent: str | None) -> Sequence[Sequence[str]] | None:
        """Put each question as a permission; None as soon as one is not answered."""
        answers: list[list[str]] = []
        for place, question in enumerate(request.questions):
            call = asking.question_call(request, place, agent)
            # The editor knows the session's own call already, and OpenCode tells how it ends.
            is_known = call["toolCallId"] == request.call_id
            async with self._shown(call, is_known=is_known) as outcome:
                chosen = await self._choose(question, call, agent)
                outcome.is_good = bool(chosen)
            if not chosen:
                return None
            answers.append(chosen)
        return answers

    async def _choose(self, question: Question, call: Raw, agent: str | None) -> list[str]:
        """Return what was chosen: one answer, or, where the question takes several, all up to `done`."""
        chosen: list[str] = []
        while True:
            params = asking.question_params(self._family.root_id, call, question, chosen, agent)
            option_id = asking.chosen_of(await self._person.ask(asking.PERMISSION, params))
            if option_id == asking.DONE and chosen:
                return chosen
            label = asking.label_of(question, option_id)
            if label is None or label in chosen:
                return []
            chosen.append(label)
            if not question.is_multiple or len(chosen) == len(question.options):
                return chosen

    async def _reply(self, send: Callable[[], Awaitable[bool]]) -> None:
        """Hand an answer to OpenCode, for as long as it takes: a request that is gone takes none, and says so."""
        while True:
            try:
                if not await send():
                    logger.info("side channel: nobody waited for the answer any more")
            except HostUnreachableError as error:
                logger.debug("side channel: %s", error.message)
            else:
                return
            await asyncio.sleep(self._every_s)

    @asynccontextmanager
    async def _shown(self, call: Raw, *, is_known: bool = False) -> AsyncIterator[_Outcome]:
        """Show a tool call in the editor while something is asked, and how it ended."""
        outcome = _Outcome()
        if is_known:
            yield outcome
            return
        await self._person.tell(asking.started(self._family.root_id, call))
        try:
            yield outcome
        finally:
            status = "completed" if outcome.is_good else "failed"
            await self._person.tell(asking.changed(self._family.root_id, call["toolCallId"], status=status))

    # --- retries

    async def _show_retries(self, statuses: dict[str, Status]) -> None:
        for session_id, status in statuses.items():
            if status.type == "retry" and (session := await self._family.member(session_id)) is not None:
                await self._show_retry(session, status)
        for session_id in [one for one in self._retries if one not in statuses or statuses[one].type != "retry"]:
            await self._close_retry(session_id)

    async def _show_retry(self, session: Served, status: Status) -> None:
        call_id, last = self._retries.get(session.id, (f"retry-{uuid4().hex[:12]}", None))
        if last is not None and (last.attempt, last.message) == (status.attempt, status.message):
            return
        self._retries[session.id] = (call_id, status)
        fields = asking.retry_fields(status, None if session.id == self._family.root_id else session.agent or "agent")
        if last is None:
            call = {"toolCallId": call_id, "kind": "other", **fields}
            await self._person.tell(asking.started(self._family.root_id, call))
        else:
            await self._person.tell(asking.changed(self._family.root_id, call_id, **fields))

    async def _close_retry(self, session_id: str) -> None:
        """The waiting is over; whether it was worth it is the prompt's to tell."""
        call_id, _ = self._retries.pop(session_id)
        await self._person.tell(asking.changed(self._family.root_id, call_id, status="completed"))

    async def _end(self) -> None:
        await _ended(list(self._asked.values()))
        for session_id in list(self._retries):
            await self._close_retry(session_id)


class _Outcome:
    """How something ended that is shown as a tool call."""

    is_good = False


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for their ends. A fault of ours in one of them is for the log, not for the prompt."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            logger.error("side channel: a fault", exc_info=result)


async def _has_ended(api: Api, request: Request) -> bool:
    """Whether the call that asked is over: OpenCode 1.18 lists requests that nobody waits for any more."""
    message = await api.message(request.session_id, request.message_id) if request.message_id else None
    parts = message.get("parts") if message else None
    calls = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    states = [part.get("state") for part in calls if part.get("callID") == request.call_id]
    return any(isinstance(state, dict) and state.get("status") in ("completed", "error") for state in states)
