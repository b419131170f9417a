"""What a command works with: hosts, store, local OpenCode and links, made from the environment of this process."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.cli.hosts import load_registry
from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.dispatch import Link, Store
    from remote_dispatch.hosts import Registry
    from remote_dispatch.model import Dispatch, Host
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.remote.connection import Connection


REMOTE = "remote_dispatch.remote.ssh"
"""The module that imports asyncssh."""


class Desk:
    """The things that commands share; each is made when it is first needed."""

    def __init__(self, hosts_file: Path | None) -> None:
        self._hosts_file = hosts_file

    @property
    def registry(self) -> Registry:
        """The hosts, read anew."""
        return load_registry(self._hosts_file)

    @property
    def store(self) -> Store:
        """The dispatches of this user; none is called as a named session is."""
        from remote_dispatch.dispatch.store import Store, default_store

        store = default_store(os.environ)
        return Store(store.root, also_taken=lambda: _session_names(store.root.parent))

    @property
    def program(self) -> Program:
        """OpenCode on this machine. Raises HostNotReadyError when there is none.

        It gets a state directory of its own: called with `--pure` it can leave a lock there that would hold up the
        user's next start for a minute (OpenCode 1.18, where plugin files still lack their packages).
        """
        from remote_dispatch.opencode.program import Program, find_binary
        from remote_dispatch.remote.local import LocalConnection

        apart = {"XDG_STATE_HOME": str(self.store.root.parent / "opencode"), "npm_config_offline": "true"}
        return Program(LocalConnection(environment={**os.environ, **apart}), find_binary(os.environ))

    def link(self, host: Host) -> Link:
        """A link to this host; nothing is opened yet."""
        from remote_dispatch.dispatch import Link

        return Link(host, _connect)

    def link_of(self, record: Dispatch) -> Link:
        """A link to the host of a dispatch, as the registry knows it now."""
        return self.link(self.registry[record.host])


def _session_names(state: Path) -> set[str]:
    from remote_dispatch.sessions.store import session_names

    return session_names(state)


@asynccontextmanager
async def importing(module: str) -> AsyncIterator[None]:
    """Import a module in a thread meanwhile. What fails is met again by whoever needs it."""
    import asyncio

    task = asyncio.create_task(asyncio.to_thread(import_module, module))
    try:
        yield
    finally:
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _connect(host: Host) -> AsyncIterator[Connection]:
    """Import asyncssh in a thread: half of that time it waits for a compiler, which it asks for libraries.

    So what was begun before this goes on meanwhile.
    """
    import asyncio

    await asyncio.to_thread(import_module, REMOTE)
    from remote_dispatch.remote.ssh import connect

    async with connect(host) as connection:
        yield connection


def data_of(record: Dispatch) -> dict[str, Any]:
    """The `data` of the envelope for one dispatch. Fields are only ever added; no address is among them."""
    from remote_dispatch.cli.code import code_data

    travel = record.travel
    return {
        "name": record.name,
        "id": record.id,
        "host": record.host,
        "mode": record.mode,
        "live": record.request.is_live,
        "state": record.state,
        "session_id": record.session_id,
        "new_messages": record.new_messages,
        "warnings": list(record.warnings),
        "copy_session_id": record.copy_session_id,
        "collected": record.collected,
        "kind": record.kind,
        "detail": record.detail,
        "answer": record.answer,
        "agent": travel.agent if travel else None,
        "model": travel.model if travel else None,
        "remote_directory": record.remote_directory,
        "local_directory": str(record.request.local_directory),
        "code": code_data(record.code),
        "unreachable_since": record.unreachable_since,
        "history": [{"state": moment.state, "at": moment.at} for moment in record.history],
    }


async def tell(record: Dispatch, url: str | None) -> tuple[str, ...]:
    """Tell the local OpenCode server, if one is named, what came home. What it does not hear is a warning."""
    from remote_dispatch.model import Origin
    from remote_dispatch.opencode.server import prompt, server_from

    server = server_from(os.environ, url)
    session_id = record.copy_session_id or record.session_id
    if server is None or session_id is None:
        return ()
    origin = record.origin or Origin(directory=str(record.request.local_directory))
    text = (
        f"The conversation is home from `{record.host}` ({record.state}); its messages above were made there, and that "
        "machine's files are out of reach now. You are in the local directory again: review what came home and go on."
    )
    try:
        await prompt(server, session_id, Path(origin.directory), text, origin)
    except RemoteDispatchError as error:
        return (f"the result is home, but the local server could not be told: {error.message}",)
    return ()
