"""Lines 1 to 6 of the main path: from a local session to a runner at work on the host."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.choose import Choice, choose
from remote_dispatch.dispatch.permissions import permit, tool_output_pattern
from remote_dispatch.dispatch.prepare import (
    Outgoing,
    Source,
    is_at_work,
    kept_ids,
    make_outgoing,
    new_source,
    origin_of,
    read_source,
)
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.stages import clean_up, launch, stage_in
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import (
    HostNotReadyError,
    HostUnreachableError,
    IntegrityError,
    RemoteDispatchError,
    UsageError,
)
from remote_dispatch.model import Dispatch, Permissions, State
from remote_dispatch.opencode.probe import Probed, probe
from remote_dispatch.runner.brief import brief
from remote_dispatch.runner.job import Job, Payload

if TYPE_CHECKING:
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.model import DispatchRequest, Host, RemoteFacts
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.remote.connection import Connection


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before something changes: what `--dry-run` shows."""

    source: Source
    probed: Probed
    choice: Choice
    outgoing: Outgoing


async def hand_over(
    request: DispatchRequest, link: Link, store: Store, program: Program | None, report: Report
) -> Dispatch:
    """Send a session to its host and return once the host has it and works on it.

    Nothing is changed on either side before agent, model and OpenCode there are known to fit. On failure after the
    record was stored, the record says how far it came. `program` may be None for a new session.
    """
    folder = store.reserve(datetime.now(UTC))
    try:
        plan = await make_plan(request, link, store, program, folder, report)
        record = store.create(folder, request, datetime.now(UTC))
    finally:
        store.discard(folder)
    return await carry_out(record, plan, link, store, report)


async def make_plan(
    request: DispatchRequest, link: Link, store: Store, program: Program | None, folder: Folder, report: Report
) -> Plan:
    """Lines 1 to 3: read the session and probe the host at the same time, then decide."""
    host = link.host
    check_host(host)
    source, probed = await together(_read(request, program, folder, report), _probe(request, link, report))
    origin = origin_of(source)
    try:
        choice = choose(request, host, origin, probed.catalogue)
    except HostNotReadyError:
        if not probed.catalogue.is_cached:
            raise
        # What is missing may have been added since the catalogue was kept.
        probed = await _probe(request, link, report, fresh=True)
        choice = choose(request, host, origin, probed.catalogue)
    kept = kept_ids(store, request.session_id) if probed.holds_session else frozenset[str]()
    at_work = is_at_work(store, request.session_id, host.name)
    permitted = permit(request, host, choice, probed.catalogue, probed.facts, folder.path.name)
    now_ms = int(time.time() * 1000)
    outgoing = await asyncio.to_thread(
        make_outgoing, source, request, probed, choice, permitted, now_ms=now_ms, kept=kept, is_at_work=at_work
    )
    _check_space(host.name, probed, outgoing)
    return Plan(source, probed, choice, outgoing)


async def carry_out(record: Dispatch, plan: Plan, link: Link, store: Store, report: Report) -> Dispatch:
    """Lines 4 to 6: the record first, then the files, then the runner."""
    facts, travel = plan.probed.facts, plan.outgoing.travel
    run_directory = facts.state_directory / record.id
    record = store.save(
        record.advance(
            State.STAGING,
            datetime.now(UTC),
            origin=origin_of(plan.source),
            travel=travel,
            run_directory=str(run_directory),
            remote_directory=str(facts.directory),
            session_id=record.request.session_id or plan.source.session["info"]["id"],
            warnings=plan.source.warnings,
        )
    )
    report(Step("stage", f"copying the session to {record.host}"))
    connection = await link.connection()
    try:
        await stage_in(connection, run_directory, _job(record, plan, link.host))
        report(Step("launch", f"{record.host} imports it"))
        status = await launch(connection, record)
    except (HostNotReadyError, IntegrityError) as error:
        store.save(record.advance(State.FAILED, datetime.now(UTC), kind=error.kind, detail=error.message))
        error.hint = await _abandon(connection, record, error.hint)
        raise
    except HostUnreachableError as error:
        error.hint = f"nothing is lost here; `remote-dispatch show {record.name}` tells whether it was launched"
        raise
    return store.save(
        record.advance(State.RUNNING, datetime.now(UTC), remote_directory=str(status.directory or facts.directory))
    )


async def _abandon(connection: Connection, record: Dispatch, hint: str | None) -> str:
    """Remove what was copied, since nothing ran; otherwise say where it is."""
    try:
        is_removed = await clean_up(connection, record)
    except RemoteDispatchError:
        is_removed = False
    left = "" if is_removed else f"; the copied files are still there, in {record.run_directory}"
    return f"{hint or 'the local session is as it was'}{left}"


def check_host(host: Host) -> None:
    """Refuse what cannot be a host of ours."""
    if host.os == "windows":
        raise HostNotReadyError(
            host.name, "Windows hosts are not supported", hint="use WSL on that machine, with its own sshd"
        )
    if host.host is None:
        raise HostNotReadyError(
            host.name,
            "the entry has a `server` but no `host`",
            hint="add an SSH address to it: a dispatch travels over SSH",
        )


async def _read(request: DispatchRequest, program: Program | None, folder: Folder, report: Report) -> Source:
    if request.session_id is None:
        return new_source(request, "1.18.33", int(time.time() * 1000))
    if program is None:
        raise UsageError("sending a session needs OpenCode on this machine")
    report(Step("export", "exporting the session"))
    return await read_source(program, request.session_id, folder)


async def _probe(request: DispatchRequest, link: Link, report: Report, *, fresh: bool = False) -> Probed:
    report(Step("connect", f"asking {link.host.name} what it has"))
    connection = await link.connection()
    connection.warm()
    directory = request.directory or link.host.directory
    return await probe(connection, link.host, directory=directory, session_id=request.session_id, fresh=fresh)


def _check_space(host: str, probed: Probed, outgoing: Outgoing) -> None:
    """The packed session, its unpacked form, the import and the way back: some fifteen times the packed size."""
    packed = sum(
        len(one.packed.content)
        for one in (outgoing.session, *outgoing.children)
        if isinstance(one.packed.content, bytes)
    )
    free = probed.facts.free_bytes
    if free is not None and free < packed * 15 + 1024 * 1024:
        raise HostNotReadyError(
            host, "too little space is left on the disk there", hint="`df -h ~` on the host shows it"
        )


def _job(record: Dispatch, plan: Plan, host: Host) -> Job:
    facts, outgoing, travel = plan.probed.facts, plan.outgoing, plan.outgoing.travel
    assert facts.opencode is not None
    return Job(
        dispatch_id=record.id,
        mode=record.mode,
        opencode=facts.opencode,
        directory=facts.directory,
        agent=travel.agent,
        model=plan.choice.model,
        variant=travel.variant,
        is_auto=outgoing.permit.policy is Permissions.AUTO,
        is_replacing=travel.replaces,
        permission=outgoing.permit.override,
        environment={**_path(facts), **outgoing.permit.environment, **(host.env or {})},
        session=outgoing.session,
        children=outgoing.children,
        tool_output={name: Payload.of(path.read_bytes()) for name, path in plan.source.tool_outputs.items()},
        record=record.model_dump(mode="json"),
        brief=_brief(record, plan),
    )


def _path(facts: RemoteFacts) -> dict[str, str]:
    """A command over SSH gets a bare PATH; the model's tools shall find what the user's own shell finds."""
    return {"PATH": facts.path} if facts.path else {}


def _brief(record: Dispatch, plan: Plan) -> str:
    facts = plan.probed.facts
    here = PurePosixPath(tool_output_pattern(plan.choice.rules, facts)).parent
    return brief(
        host=record.host,
        system=facts.system,
        machine=facts.machine,
        directory=facts.directory,
        local_directory=record.request.local_directory,
        mode=record.mode,
        prompt=record.request.prompt,
        todos=plan.source.todos,
        tool_output={str(path): str(here / name) for name, path in plan.source.tool_outputs.items()},
    )
