"""Named sessions as a library: what `remote-dispatch session` does, as functions of one object. See docs/library.md."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch import Link, Store, default_store
from remote_dispatch.errors import ConfigurationError, TurnFailedError, UnknownNameError, UsageError
from remote_dispatch.failure import Failure
from remote_dispatch.hosts import Registry
from remote_dispatch.model import Host, Model
from remote_dispatch.servers.reach import Servers, host_named
from remote_dispatch.sessions import live, manage, requests, turn, watch
from remote_dispatch.sessions.looks import look_at
from remote_dispatch.sessions.prompt import Prompt, attach
from remote_dispatch.sessions.store import SessionStore, default_session_store
from remote_dispatch.sessions.values import End, Look, NamedSession, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from remote_dispatch.model import PermissionRules
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.prompt import Sent
    from remote_dispatch.sessions.requests import Replied, Waiting
    from remote_dispatch.sessions.values import Standing
    from remote_dispatch.sessions.watch import WatchUpdate

Named = NamedSession | str
"""A session, or its name."""
_STRICTER = "Answer again, with nothing but the JSON itself: no sentence before or after it, no code fence."


@asynccontextmanager
async def open_sessions(
    *,
    hosts: Iterable[Host] | Path | None = None,
    state: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Sessions]:
    """Give access to the named sessions of this user; connections are opened when they are needed, closed at the end.

    `hosts` are hosts of one's own, or a hosts file; None reads the files that the command line reads. `state` is where
    names are kept, None where the command line keeps them. `environment` holds passwords and the like, None is that of
    this process.
    """
    surroundings = os.environ if environment is None else environment
    dispatches = Store(state / "dispatches") if state else default_store(surroundings)
    async with Servers(_link, surroundings) as servers:
        yield Sessions(_finder(hosts, surroundings), servers, dispatches, default_session_store(dispatches))


@dataclass(frozen=True, slots=True)
class Sessions:
    """The named sessions of this user, on all hosts. Made by `open_sessions`.

    Where a session is asked for, its name will do as well. Every method may raise HostUnreachableError, LoginError,
    HostNotReadyError and UnknownNameError, all of them a RemoteDispatchError with a `hint`.
    """

    _host: Callable[[str], Host]
    _servers: Servers
    _dispatches: Store
    _store: SessionStore

    def all(self) -> list[NamedSession]:
        """Return every named session, oldest first. No host is asked."""
        return self._store.all()

    def named(self, name: str) -> NamedSession:
        """Return the session of this name. No host is asked."""
        return self._store.load(name)

    async def create(
        self,
        host: str,
        *,
        title: str | None = None,
        name: str | None = None,
        directory: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        permissions: str | None = None,
        permission_rules: PermissionRules | None = None,
    ) -> NamedSession:
        """Make a session on a host; an OpenCode server is started there where none runs.

        `permissions` is `ask` (the default), `deny` or `auto`; `permission_rules` come on top of it. Raises
        HostNotReadyError for a directory, agent or model that is not there, UsageError for a name that is taken.
        """
        api, entry = await self._api(host)
        wish = manage.Wish(title, name, directory, agent, model, permissions, permission_rules)
        return (await manage.create(api, entry, self._store, wish)).named

    @asynccontextmanager
    async def fresh(self, host: str, **wish: Any) -> AsyncIterator[NamedSession]:
        """Make a session as `create` does, and delete it at the end, whatever happened."""
        made = await self.create(host, **wish)
        try:
            yield made
        finally:
            with suppress(UnknownNameError):
                await self.delete(made)

    async def adopt(self, host: str, session_id: str, *, name: str | None = None) -> NamedSession:
        """Give a name to a session that is on the host already. Raises DivergedError while a dispatch works on it."""
        api, entry = await self._api(host)
        await live.check_writable(entry, session_id, self._dispatches, _link)
        return await manage.adopt(api, entry, self._store, session_id, name=name)

    async def send(
        self,
        session: Named,
        text: str,
        *,
        agent: str | None = None,
        model: str | None = None,
        variant: str | None = None,
        system: str | None = None,
        files: Iterable[str] = (),
        abort_first: bool = False,
    ) -> Sent:
        """Start a turn and return at once. It is started exactly once, whatever breaks on the way.

        `files` are local paths, or `remote:PATH` for files of the host. Raises DivergedError while the session is busy,
        unless its turn is to be aborted first, and HostNotReadyError for an agent or a model that is not there.
        """
        named, api = await self._reached(session)
        chosen = None if model is None else Model.parse(model)
        prompt = Prompt(text, agent, chosen, variant, system, tuple(attach(one) for one in files))
        await live.check_writable(self._host(named.host), named.session_id, self._dispatches, _link)
        await turn.check(api, named.directory, prompt)
        sent = await turn.send(api, named, prompt, abort_first=abort_first)
        with suppress(UnknownNameError):  # it was renamed or forgotten meanwhile: its turn goes on all the same
            self._store.update(named.name, lambda current: current.but(message_id=sent.message_id))
        return sent

    async def wait(
        self,
        session: Named,
        sent: Sent | None = None,
        *,
        timeout_s: float | None = None,
        idle_timeout_s: float | None = turn.IDLE_TIMEOUT_S,
        tell: Callable[[Update], None] = lambda _: None,
    ) -> End:
        """Wait for the end of a turn, the last one without `sent`; `End.failure` is None when it ended well.

        `tell` hears what happens meanwhile. A turn without any sign of life for `idle_timeout_s` is aborted. Raises
        TurnFailedError (`pending_permission`, `pending_question`) when somebody has to answer: see `requests`;
        DeadlinePassedError after `timeout_s`. In both cases the turn goes on.
        """
        named, api = await self._reached(session)
        standing, _ = await turn.follow(
            api, named.session_id, named.directory, sent, idle_timeout_s=idle_timeout_s, timeout_s=timeout_s, tell=tell
        )
        return _end_of(named, standing)

    async def ask(
        self,
        session: Named,
        text: str,
        *,
        timeout_s: float | None = None,
        idle_timeout_s: float | None = 60.0,
        **how: Any,
    ) -> str:
        """Send and wait; return the whole answer. `how` is what `send` takes.

        Raises TurnFailedError when the turn did not end well, with its `failure`.
        """
        sent = await self.send(session, text, **how)
        end = await self.wait(session, sent, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s)
        if end.failure is not None:
            raise _failed(self._named(session), end)
        return end.answer

    async def ask_json(self, session: Named, text: str, **how: Any) -> Any:
        """Ask for JSON and return it decoded; what is none is asked for once more, more strictly.

        Raises TurnFailedError (`assistant_output_not_json`) when that does not help.
        """
        for words in (text, _STRICTER):
            answer = await self.ask(session, words, **how)
            try:
                return json.loads(_unfenced(answer))
            except ValueError:
                continue
        raise TurnFailedError(Failure.NOT_JSON, f"`{self._named(session).name}` did not answer with JSON")

    async def events(self, *sessions: Named) -> AsyncGenerator[WatchUpdate, None]:
        """Yield what happens in these sessions, on all their hosts, until each has ended.

        The last update of a session is `Ended`, with a look at it, or `Unwatched`. A connection that is lost is made
        anew; nothing is told twice, and what was missed is read. Use it with `contextlib.aclosing`.
        """
        queue: asyncio.Queue[WatchUpdate | None] = asyncio.Queue()
        named = [self._named(one) for one in sessions]
        watching = asyncio.create_task(watch.watch(self._servers, self._host, named, queue.put_nowait))
        watching.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (update := await queue.get()) is not None:
                yield update
            await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def look(self, session: Named) -> Look:
        """Return how a session stands at this moment: its turn, todos, requests, tokens and cost."""
        named, api = await self._reached(session)
        return await look_at(api, named)

    async def messages(self, session: Named, limit: int | None = None) -> list[Raw]:
        """Return its messages as OpenCode has them, `{info, parts}` each, oldest first; with a limit the newest."""
        named, api = await self._reached(session)
        return await api.messages(named.session_id, limit=limit)

    async def requests(self, session: Named) -> tuple[Waiting, ...]:
        """Return what a session and its sub-agents wait for: permissions and questions, the oldest first."""
        named, api = await self._reached(session)
        return await requests.open_requests(api, named.session_id, named.directory)

    async def reply(self, session: Named, waiting: Waiting, *words: str, message: str | None = None) -> Replied:
        """Answer one request: `once`, `always` or `reject` (a `message` goes to the model), a question by its options.

        Raises DivergedError when it was answered already; UsageError, which lists what fits.
        """
        named, api = await self._reached(session)
        answer = requests.understand(waiting.request, words, message)
        return await requests.reply(api, named.session_id, waiting, answer)

    async def abort(self, session: Named) -> Standing:
        """Abort the turn with those of its sub-agents, and see that it ended. Raises TurnFailedError otherwise."""
        named, api = await self._reached(session)
        return await manage.abort(api, named)

    async def delete(self, session: Named) -> None:
        """Abort what runs, delete the session on its host, and forget its name."""
        named, api = await self._reached(session)
        await manage.delete(api, named, self._store)

    def forget(self, session: Named) -> None:
        """Forget the name; the session stays on its host."""
        self._store.forget(self._named(session).name)

    async def _api(self, host: str) -> tuple[Api, Host]:
        entry = self._host(host)
        return await self._servers.api(entry, starts=True), entry

    async def _reached(self, session: Named) -> tuple[NamedSession, Api]:
        named = self._named(session)
        api, _ = await self._api(named.host)
        return named, api

    def _named(self, session: Named) -> NamedSession:
        """The record as it is now: another command may have changed it."""
        return self._store.load(session if isinstance(session, str) else session.name)


def _end_of(named: NamedSession, standing: Standing) -> End:
    if standing.phase is Phase.WAITING:
        failure = standing.failure or Failure.PENDING_PERMISSION
        raise TurnFailedError(
            failure, f"`{named.name}` on {named.host} waits for an answer", hint="see `Sessions.requests`"
        )
    if standing.end is None:
        raise UsageError(f"`{named.name}` on {named.host} was not asked anything yet")
    return standing.end


def _failed(named: NamedSession, end: End) -> TurnFailedError:
    assert end.failure is not None
    detail = f": {end.detail}" if end.detail else ""
    return TurnFailedError(end.failure, f"the turn of `{named.name}` on {named.host} failed{detail}")


def _unfenced(answer: str) -> str:
    """Models put JSON in a code fence, whatever they are told."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```"):
        return text[3:-3].removeprefix("json").strip()
    return text


def _finder(hosts: Iterable[Host] | Path | None, environment: Mapping[str, str]) -> Callable[[str], Host]:
    """Return what knows a host by its name. Hosts files are read once."""
    if hosts is None or isinstance(hosts, Path):
        registry = Registry.load(environment=environment, hosts_file=hosts)
        return lambda name: host_named(registry, environment, name)
    own = {host.name: host for host in hosts}
    if not own:
        raise ConfigurationError("no hosts were given")

    def find(name: str) -> Host:
        if name not in own:
            raise UnknownNameError(f"no host is called `{name}`", hint=f"known: {', '.join(sorted(own))}")
        return own[name]

    return find


def _link(host: Host) -> Link:
    return Link(host, _connect)


def _connect(host: Host) -> AbstractAsyncContextManager[Connection]:
    from remote_dispatch.remote.ssh import connect  # noqa: PLC0415 - asyncssh is not for servers with a URL

    return connect(host)
