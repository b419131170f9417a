"""The code that travelled: what would go, what came back, `diff` and `apply`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.dispatches import Name
from remote_dispatch.cli.output import Answer, JsonFlag, print_lines, print_table, run_async, run_command, say
from remote_dispatch.errors import TaskFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.dispatch.code_out import Baggage
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Carried, Dispatch
    from remote_dispatch.workspace.arrival import Arrived
    from remote_dispatch.workspace.repository import Repository

LISTED_FILES = 200
_UNITS = ("B", "KB", "MB", "GB", "TB")


def diff(
    name: Name,
    *,
    is_stat: Annotated[bool, typer.Option("--stat", help="Print how much changed in which files instead.")] = False,
    is_json: JsonFlag = False,
) -> None:
    """Print what a dispatch changed in the code that went along, as `git apply` takes it."""
    run_command("diff", lambda: run_async(_diff(name, is_stat=is_stat)), is_json=is_json)


def apply(
    name: Name,
    *,
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="BRANCH", help="Make this branch of the result, and no more.")
    ] = None,
    is_commit: Annotated[
        bool, typer.Option("--commit", help="Put the commits on top of HEAD; for a clean working tree.")
    ] = False,
    is_json: JsonFlag = False,
) -> None:
    """Merge what a dispatch changed into the working tree as it is now; all of it, or nothing."""
    run_command("apply", lambda: run_async(_apply(name, branch, is_commit=is_commit)), is_json=is_json)


def planned_code(baggage: Baggage | None) -> dict[str, Any] | None:
    """Return what `send --dry-run` says of the code; None where none travels."""
    if baggage is None:
        return None
    return {
        "top": str(baggage.repository.top),
        "transport": "bundle" if baggage.is_bundle else "archive",
        "history_bytes": baggage.history_bytes,
        "bytes": baggage.survey.total_bytes,
        "files": [{"path": one.path, "kind": one.kind, "bytes": one.bytes} for one in baggage.survey.entries],
        "left_out": list(baggage.left_out),
    }


def render_planned_code(code: Mapping[str, Any] | None) -> None:
    """Print the same for people."""
    if code is None:
        typer.echo("no code travels")
        return
    history = f", with {sized(code['history_bytes'])} of history that the host lacks" if code["history_bytes"] else ""
    files = code["files"]
    beside = "and beside it:" if files else "and nothing beside it"
    typer.echo(f"\nthe code in {code['top']} travels as {code['transport']}{history}, {beside}")
    if files:
        rows = [(one["path"], one["kind"], sized(one["bytes"])) for one in files[:LISTED_FILES]]
        print_table(("FILE", "KIND", "SIZE"), rows)
    if len(files) > LISTED_FILES:
        typer.echo(f"and {len(files) - LISTED_FILES} more")
    print_lines(f"left out: {line}" for line in code["left_out"])


def code_data(code: Carried | None) -> dict[str, Any] | None:
    """Return what `--json` says of the code of a dispatch."""
    if code is None:
        return None
    return {
        "home": code.home,
        "branch": code.branch,
        "result": code.result,
        "base": code.base,
        "snapshot": code.snapshot,
        "top": code.top,
        "directory": code.directory,
        "transport": "bundle" if code.is_bundle else "archive",
        "sent_bytes": code.sent_bytes,
        "left_out": list(code.left_out),
        "stat": code.stat.splitlines(),
        "further_branches": list(code.further),
        "not_taken": list(code.not_taken),
    }


def code_lines(record: Dispatch) -> list[str]:
    """Say what came of the code, and what to type next; nothing where none went along or none is here."""
    code = record.code
    if code is None or code.home == "away":
        return []
    if code.home == "unchanged":
        return ["code: nothing was changed"]
    if code.home == "lost":
        return [f"code: only on {record.host}, in {code.directory}"]
    so_far = " so far" if code.home == "partial" else ""
    total = code.stat.splitlines()[-1:] or ["no files changed"]
    where = f" as branch {code.branch}" if code.branch else ""
    commands = (("diff", "look at it"), ("apply", "bring it into the working tree"))
    return [
        f"code{so_far}: {total[0]}{where}",
        *(f"  {f'remote-dispatch {command} {record.name}':<34} {what}" for command, what in commands),
        *(f"  {_fetch(record, branch):<34} further branch" for branch in code.further),
        *(f"  not here: {line}" for line in code.not_taken),
    ]


def _fetch(record: Dispatch, branch: str) -> str:
    """The command that brings one further branch into the repository, under a name that none of the user's has."""
    store = shlex.quote(str(_store().folder(record.id).code / "arrived.git"))
    return f"git fetch {store} {shlex.quote(f'refs/dispatch/branches/{branch}:refs/heads/{record.name}-{branch}')}"


def sized(count: int) -> str:
    """Return a number of bytes as people say it."""
    size = float(count)
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


async def _diff(name: str, *, is_stat: bool) -> Answer:
    from remote_dispatch.workspace.changes import diff as patch_of
    from remote_dispatch.workspace.changes import diffstat

    record, repository, arrived = await _arrived(name)
    stat = await diffstat(repository.git, arrived)
    rows = [{"path": one.path, "origin": one.origin, "added": one.added, "removed": one.removed} for one in stat.files]
    data: dict[str, Any] = {"name": record.name, "branch": record.code and record.code.branch, "files": rows}
    if is_stat:
        table = [(one.path, str(one.added or 0), str(one.removed or 0)) for one in stat.files]
        return Answer(data=data, render=lambda: print_table(("FILE", "ADDED", "REMOVED"), table))
    patch = await patch_of(repository.git, arrived)
    return Answer(data={**data, "diff": patch.decode(errors="replace")}, render=lambda: print_patch(patch))


def print_patch(patch: bytes) -> None:
    """A pipe gets it byte for byte; a terminal must not obey what a host wrote."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(patch)
        return
    # Only at real line ends: what is within a line must not look like another one.
    print_lines(patch.decode(errors="replace").split("\n")[:-1])


async def _apply(name: str, branch: str | None, *, is_commit: bool) -> Answer:
    from remote_dispatch.workspace.apply import apply as merge
    from remote_dispatch.workspace.apply import apply_as_commit
    from remote_dispatch.workspace.landing import make_branch

    if branch and is_commit:
        raise UsageError("choose one of `--branch` and `--commit`")
    record, repository, arrived = await _arrived(name)
    if branch:
        made = await make_branch(repository, arrived, branch)
        say(f"the result of {record.name} is branch {made}")
        return Answer(data={"name": record.name, "branch": made, "paths": [], "commits": 0})
    folder = _store().folder(record.id).code
    applied = await (apply_as_commit(repository, arrived) if is_commit else merge(repository, arrived, folder))
    data = {"name": record.name, "branch": None, "paths": list(applied.paths), "commits": applied.commits}
    if not applied.paths:
        say("all of it is here already: nothing was changed")
    return Answer(data=data, render=lambda: print_lines(applied.paths))


async def _arrived(name: str) -> tuple[Dispatch, Repository, Arrived]:
    """Return what came back of a dispatch. Raises UsageError and TaskFailedError where there is nothing of it here."""
    from remote_dispatch.dispatch.code_home import opened
    from remote_dispatch.workspace.arrival import read_arrived

    store = _store()
    record = store.load(name)
    if record.code is None:
        raise UsageError(f"no code went along with `{record.name}`", hint="`send --dry-run` says what would travel")
    repository, _ = await opened(record, store.folder(record.id))
    arrived = await read_arrived(repository, store.folder(record.id).code)
    if arrived is None:
        raise TaskFailedError(
            f"the code of `{record.name}` is not here yet",
            hint=f"bring it with `remote-dispatch collect {record.name}`; `--partial` brings it while it runs",
        )
    return record, repository, arrived


def _store() -> Store:
    from remote_dispatch.dispatch import default_store

    return default_store(os.environ)
