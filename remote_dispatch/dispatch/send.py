"""Lines 1 to 4 of the main path: from a local session to a record with everything that is to leave."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.choose import Choice, choose
from remote_dispatch.dispatch.code_out import (
    Agree,
    Baggage,
    Packed,
    branch_there,
    carried,
    check_size,
    code_job,
    find_code,
    look_through,
    nobody_agrees,
    pack,
    place_there,
    weigh,
)
from remote_dispatch.dispatch.ownership import check_away, check_here, check_there
from remote_dispatch.dispatch.permissions import permit, permit_live, tool_output_pattern
from remote_dispatch.dispatch.prepare import (
    Outgoing,
    Source,
    kept_ids,
    make_outgoing,
    new_source,
    origin_of,
    read_source,
)
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.stages import warm_up
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import HostNotReadyError, UsageError
from remote_dispatch.failpoints import reach
from remote_dispatch.model import Dispatch, Moment, Permissions, State
from remote_dispatch.opencode.probe import Probed, probe
from remote_dispatch.remote.files import size_of
from remote_dispatch.runner.brief import CarriedTree, brief
from remote_dispatch.runner.job import Job, Payload, files_for
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.model import DispatchRequest, Host, RemoteFacts
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.workspace.repository import Repository
    from remote_dispatch.workspace.survey import Survey


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before something changes: what `--dry-run` shows."""

    source: Source
    probed: Probed
    choice: Choice
    outgoing: Outgoing
    baggage: Baggage | None = None
    """The code that travels along."""

    def directory(self, dispatch_id: str) -> PurePosixPath:
        """Where the session works on the host."""
        if self.baggage is None:
            return self.probed.facts.directory
        return place_there(self.probed.facts, dispatch_id, self.baggage.repository) / self.baggage.repository.prefix


async def record_dispatch(
    request: DispatchRequest,
    link: Link,
    store: Store,
    program: Program | None,
    report: Report,
    *,
    agree: Agree = nobody_agrees,
) -> Dispatch:
    """Decide everything, keep all that is to leave, and record the dispatch as `new`. Nothing has left then.

    Nothing is changed on either side before agent, model and OpenCode there are known to fit. `program` may be None
    for a new session; `agree` puts a question to the user. Raises DivergedError when the session is at work, here or
    there.
    """
    store.check_name(request.name)
    with store.reserved(datetime.now(UTC)) as folder:
        # Alone with this session until the record is there: a second hand-over must see the first.
        async with store.held(request.session_id or folder.path.name):
            await check_away(request, link, store)
            await reach("plan.before")
            plan = await make_plan(request, link, store, program, folder, report)
            await reach("plan.after")
            packed = await _packed(plan, link.host.name, folder, agree, report)

            def complete(name: str) -> Dispatch:
                record = _recorded(folder.path.name, name, request, plan, packed)
                folder.keep_outgoing(files_for(_job(record, plan, link.host, packed)))
                return record

            record = await asyncio.to_thread(store.create, request.name, complete)
        await reach("record.after")
    return record


async def _packed(plan: Plan, host: str, folder: Folder, agree: Agree, report: Report) -> Packed | None:
    if plan.baggage is None:
        return None
    check_size(plan.baggage, plan.probed, host, agree)
    report(Step("code", f"packing the code in {plan.baggage.repository.top}"))
    if plan.baggage.is_repository and not plan.baggage.is_bundle:
        report(Step("note", f"{host} has no git, or an old one: the code travels as an archive, without its history"))
    for line in plan.baggage.left_out:
        report(Step("note", f"left out: {line}"))
    await reach("pack.before")
    packed = await pack(plan.baggage, plan.probed, folder)
    await reach("pack.after")
    return packed


def _recorded(dispatch_id: str, name: str, request: DispatchRequest, plan: Plan, packed: Packed | None) -> Dispatch:
    facts = plan.probed.facts
    code = None
    if plan.baggage is not None and packed is not None:
        code = carried(plan.baggage, packed, place_there(facts, dispatch_id, plan.baggage.repository))
    return Dispatch(
        id=dispatch_id,
        name=name,
        request=request,
        history=(Moment(state=State.NEW, at=datetime.now(UTC)),),
        origin=origin_of(plan.source),
        travel=plan.outgoing.travel,
        code=code,
        run_directory=str(facts.state_directory / dispatch_id),
        remote_directory=clean(str(plan.directory(dispatch_id)), 4096),
        session_id=request.session_id or plan.source.session["info"]["id"],
        warnings=plan.source.warnings,
    )


async def make_plan(
    request: DispatchRequest, link: Link, store: Store, program: Program | None, folder: Folder, report: Report
) -> Plan:
    """Lines 1 to 3: read the session and probe the host at the same time, then decide."""
    host = link.host
    check_host(host)
    repository = await find_code(request, host, folder)
    (source, probed), survey = await together(
        _both(request, link, program, folder, report, repository), _looked_through(request, repository, store)
    )
    now_ms = int(time.time() * 1000)
    check_here(request, source, store, now_ms)
    check_there(request, host.name, probed, source, store)
    origin = origin_of(source)
    try:
        choice = choose(request, host, origin, probed.catalogue)
    except HostNotReadyError:
        if not probed.catalogue.is_cached:
            raise
        # What is missing may have been added since the catalogue was kept.
        probed = await _probe(request, link, report, repository, fresh=True)
        choice = choose(request, host, origin, probed.catalogue)
    kept = kept_ids(store, request.session_id) if probed.holds_session else frozenset[str]()
    if request.is_live:
        permitted = permit_live(request, host, choice)
    else:
        permitted = permit(request, host, choice, probed.catalogue, probed.facts, folder.path.name)
    outgoing = await asyncio.to_thread(
        make_outgoing, source, request, probed, choice, permitted, now_ms=now_ms, kept=kept, place=folder.scratch
    )
    _check_space(host.name, probed, outgoing)
    baggage = await weigh(repository, survey, probed) if repository and survey else None
    return Plan(source, probed, choice, outgoing, baggage)


async def _looked_through(request: DispatchRequest, repository: Repository | None, store: Store) -> Survey | None:
    return await look_through(request, repository, store.root.parent) if repository else None


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


async def _both(
    request: DispatchRequest,
    link: Link,
    program: Program | None,
    folder: Folder,
    report: Report,
    repository: Repository | None,
) -> tuple[Source, Probed]:
    """The session, and what the host has: asked at the same time."""
    if request.session_id is None:
        probed = await _probe(request, link, report, repository)
        return new_source(request, probed.facts.opencode_version or "", int(time.time() * 1000)), probed
    if program is None:
        raise UsageError("sending a session needs OpenCode on this machine")
    report(Step("export", "exporting the session"))
    return await together(read_source(program, request.session_id, folder), _probe(request, link, report, repository))


async def _probe(
    request: DispatchRequest, link: Link, report: Report, repository: Repository | None, *, fresh: bool = False
) -> Probed:
    report(Step("connect", f"asking {link.host.name} what it has"))
    connection = await link.connection()
    warm_up(connection)
    # Where code travels, the directory is made by the runner.
    directory = None if repository else request.directory or link.host.directory
    project = repository.project if repository else ""
    return await probe(
        connection, link.host, directory=directory, session_id=request.session_id, fresh=fresh, project=project
    )


def _check_space(host: str, probed: Probed, outgoing: Outgoing) -> None:
    """The packed session, its unpacked form, the import and the way back: some fifteen times the packed size."""
    packed = sum(size_of(one.packed.content) for one in (outgoing.session, *outgoing.children))
    free = probed.facts.free_bytes
    if free is not None and free < packed * 15 + 1024 * 1024:
        raise HostNotReadyError(
            host, "too little space is left on the disk there", hint="`df -h ~` on the host shows it"
        )


def _job(record: Dispatch, plan: Plan, host: Host, packed: Packed | None) -> Job:
    facts, outgoing, travel = plan.probed.facts, plan.outgoing, plan.outgoing.travel
    assert facts.opencode is not None
    return Job(
        dispatch_id=record.id,
        mode=record.mode,
        opencode=facts.opencode,
        directory=plan.directory(record.id),
        agent=travel.agent,
        model=plan.choice.model,
        variant=travel.variant,
        is_auto=outgoing.permit.policy is Permissions.AUTO,
        is_replacing=travel.replaces,
        is_live=record.request.is_live,
        permission=outgoing.permit.override,
        environment={**_path(facts), **outgoing.permit.environment, **(host.env or {})},
        session=outgoing.session,
        children=outgoing.children,
        tool_output={name: Payload.of(path.read_bytes()) for name, path in plan.source.tool_outputs.items()},
        record=record.model_dump(mode="json"),
        brief=_brief(record, plan),
        code=code_job(plan.baggage, packed, record) if plan.baggage and packed else None,
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
        directory=plan.directory(record.id),
        local_directory=record.request.local_directory,
        mode=record.mode,
        prompt=record.request.prompt,
        is_live=record.request.is_live,
        todos=plan.source.todos,
        tool_output={str(path): str(here / name) for name, path in plan.source.tool_outputs.items()},
        code=_carried_tree(record),
    )


def _carried_tree(record: Dispatch) -> CarriedTree | None:
    code = record.code
    if code is None:
        return None
    branch = branch_there(record) if code.is_bundle else None
    return CarriedTree(Path(code.top), PurePosixPath(code.directory), branch)
