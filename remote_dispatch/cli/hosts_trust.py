"""`hosts trust` and `hosts untrust`: let a project's hosts files count, after saying what they would add or redefine.

An address is shown on a terminal alone, and only with `--reveal`.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import hosts_app
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_table, run_command, say, warn
from remote_dispatch.errors import AnswerNeededError, UnknownNameError, UsageError
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from remote_dispatch.hosts import Problem
    from remote_dispatch.hosts.trust import Change, Review, Trusted
    from remote_dispatch.model import Host

_ADDRESS_FIELDS = ("host", "port", "server", "server_user", "server_password_command")
_PRIVATE_WORDS = {
    "host": "address",
    "port": "port",
    "server": "server",
    "server_user": "user name",
    "server_password_command": "command that runs here for the server's password",
    "env": "variables",
}
_LONGEST_VALUE = 80
_MOST_NAMES = 8


@hosts_app.command("trust")
def trust_hosts(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="A project's hosts file or directory; without: those of this project."),
    ] = None,
    *,
    is_list: Annotated[bool, typer.Option("--list", help="Show what is trusted, and change nothing.")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Trust without asking.")] = False,
    is_revealed: Annotated[bool, typer.Option("--reveal", help="Show the addresses too; on a terminal only.")] = False,
    is_json: JsonFlag = False,
) -> None:
    """Show what a project's own hosts files would add or redefine, and let them count once you agree.

    Files that change afterwards are ignored again. For example: `remote-dispatch hosts trust`
    """

    def work() -> Answer:
        if is_list:
            return _list()
        return _trust(paths or [], is_sure=is_sure, is_revealed=is_revealed, is_json=is_json)

    run_command("hosts trust", work, is_json=is_json)


@hosts_app.command("untrust")
def untrust_hosts(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A trusted file, or a project's directory; without: this project."),
    ] = None,
    *,
    is_all: Annotated[bool, typer.Option("--all", help="Take back the trust in every file of every project.")] = False,
    is_json: JsonFlag = False,
) -> None:
    """Ignore a project's hosts files again."""
    run_command("hosts untrust", lambda: _untrust(path, is_all=is_all), is_json=is_json)


def _trust(paths: list[Path], *, is_sure: bool, is_revealed: bool, is_json: bool) -> Answer:
    from remote_dispatch.cli.screen import is_interactive
    from remote_dispatch.hosts.pins import Trust
    from remote_dispatch.hosts.trust import trust

    if is_revealed and (is_json or not is_interactive()):
        raise UsageError(
            "`--reveal` shows addresses on a terminal only", hint="run `remote-dispatch hosts trust` alone"
        )
    reviews = _reviews(paths)
    new = [review for review in reviews if review.trust is not Trust.TRUSTED]
    for review in new:
        _tell(review, is_revealed=is_revealed)
    if not new:
        say(_nothing_new(reviews))
        return Answer(data={"files": [_data(review, is_trusted=True) for review in reviews]})
    if not any(review.refusal for review in new) and not is_sure:
        try:
            _ask(new)
        except AnswerNeededError as error:
            return Answer(data={"files": [_data(review, is_trusted=False) for review in new]}, error=error)
    trust(new)
    return _trusted(new)


def _reviews(paths: list[Path]) -> list[Review]:
    from remote_dispatch.hosts.trust import review

    found = {one.path: one for path in paths or [_here()] for one in review(os.environ, path)}
    return list(found.values())


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current directory is not there any more", hint="name the project's directory") from None


def _nothing_new(reviews: list[Review]) -> str:
    if reviews:
        return "every hosts file of this project is trusted already: nothing to do"
    return "this project has no hosts file of its own: nothing to do"


def _ask(reviews: list[Review]) -> None:
    """Ask, with the names that would change at the end: a long file must not scroll them out of sight."""
    from remote_dispatch.cli.screen import confirm, is_interactive

    what = "this file" if len(reviews) == 1 else f"these {len(reviews)} files"
    changed = _changed_names(reviews)
    harm = f", and let it change your {changed}" if changed else ""
    if not is_interactive():
        raise AnswerNeededError(
            f"trusting {what} needs a yes, and there is no terminal to ask on",
            hint="`remote-dispatch hosts trust --yes` trusts what is shown",
        )
    if not confirm(f"Trust {what} as shown{harm}?"):
        raise UsageError("nothing was trusted", hint="`remote-dispatch hosts path` shows which files count")


def _changed_names(reviews: list[Review]) -> str:
    from remote_dispatch.hosts.trust import Effect

    changes = (change for review in reviews for change in review.changes)
    names = sorted({change.name for change in changes if change.effect in (Effect.REDEFINES, Effect.DISABLES)})
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:_MOST_NAMES]) + more


def _trusted(reviews: list[Review]) -> Answer:
    for review in reviews:
        say(f"trusted {review.path}")
    if os.environ.get("REMOTE_DISPATCH_HOSTS"):
        note("REMOTE_DISPATCH_HOSTS is set, so that no project's file counts now")
    problems = tuple(str(problem) for review in reviews for problem in review.problems)
    return Answer(data={"files": [_data(review, is_trusted=True) for review in reviews]}, warnings=problems)


def _list() -> Answer:
    from remote_dispatch.hosts.trust import list_trusted

    found = list_trusted()
    rows = [(str(one.pin.path), one.state, ", ".join(one.names) or None) for one in found]
    return Answer(
        data={"trusted": [_trusted_data(one) for one in found]},
        render=lambda: print_table(("PATH", "STATE", "HOSTS"), rows) if rows else say("no project's file is trusted"),
    )


def _untrust(path: Path | None, *, is_all: bool) -> Answer:
    from remote_dispatch.hosts.trust import untrust, untrust_all

    if is_all and path:
        raise UsageError("choose a path or `--all`", hint="see `remote-dispatch hosts untrust --help`")
    if is_all:
        gone = untrust_all()
    elif path:
        gone = untrust(path)
    else:
        gone = _untrust_here()
    for one in gone:
        say(f"no longer trusted: {one}")
    if not gone:
        say("nothing is trusted here: nothing to do")
    return Answer(data={"files": gone})


def _untrust_here() -> tuple[Path, ...]:
    from remote_dispatch.hosts.trust import untrust

    try:
        return untrust(_here())
    except UnknownNameError:
        return ()


def _tell(review: Review, *, is_revealed: bool) -> None:
    state = {"changed": " (changed since you trusted it)", "untrusted": " (not trusted)"}.get(review.trust, "")
    say(f"{review.path}{state}")
    if review.refusal:
        return warn(f"it {review.refusal}")
    for change in review.changes:
        say(f"  {_sentence(change)}")
        for line in _addresses(change) if is_revealed else ():
            say(f"    {line}")
    for problem in review.problems:
        say(f"  wrong: {problem}")
    return None


def _sentence(change: Change) -> str:
    from remote_dispatch.hosts.trust import Effect

    place = f"{change.origin.file}:{change.origin.line}" if change.origin else ""
    match change.effect:
        case Effect.ADDS:
            return f"adds `{change.name}`: {', '.join(_set(change))}"
        case Effect.REDEFINES:
            return f"redefines `{change.name}` of {place}: {', '.join(_differences(change))}"
        case Effect.REPEATS:
            return f"repeats `{change.name}` of {place}"
        case Effect.DISABLES:
            return f"disables `{change.name}` of {place}: the entry here is wrong"
        case Effect.IS_HIDDEN:
            return f"has `{change.name}`, which does nothing: {place} goes before it"


def _set(change: Change) -> list[str]:
    return [_named(field, change.new) for field in change.fields]


def _differences(change: Change) -> list[str]:
    if change.old is None:
        return ["the entry there is wrong, this one works with", *_set(change)]
    return [_difference(field, change.new) for field in change.fields]


def _difference(field: str, new: Host | None) -> str:
    if getattr(new, field) is None:
        return f"no {_PRIVATE_WORDS.get(field, field)}"
    return f"other {_named(field, new)}"


def _named(field: str, host: Host | None) -> str:
    """`model provider/id`, but `address` alone; of the variables their names."""
    value = getattr(host, field)
    if field == "env":
        return f"variables {' '.join(sorted(value))}"
    if field in _PRIVATE_WORDS:
        return _PRIVATE_WORDS[field]
    text = mask_addresses(value if isinstance(value, str) else json.dumps(value))
    return f"{field} {clean(text, _LONGEST_VALUE)}"


def _addresses(change: Change) -> list[str]:
    sides = (("there", change.old), ("here", change.new))
    return [f"{side}: {_address(host)}" for side, host in sides if host]


def _address(host: Host) -> str:
    values = ((field, getattr(host, field)) for field in _ADDRESS_FIELDS)
    return ", ".join(f"{_PRIVATE_WORDS[field]} {_private_text(value)}" for field, value in values if value is not None)


def _private_text(value: str | int | list[str]) -> str:
    return shlex.join(value) if isinstance(value, list) else str(value)


def _data(review: Review, *, is_trusted: bool) -> dict[str, Any]:
    return {
        "file": review.path,
        "is_trusted": is_trusted and not review.refusal,
        "sha256": review.sha256,
        "hosts": [_change_data(change) for change in review.changes],
        "problems": [_problem_data(problem) for problem in review.problems],
    }


def _change_data(change: Change) -> dict[str, Any]:
    return {
        "name": change.name,
        "effect": change.effect,
        "fields": change.fields,
        "file": change.origin.file if change.origin else None,
        "line": change.origin.line if change.origin else None,
    }


def _problem_data(problem: Problem) -> dict[str, Any]:
    return {"line": problem.line, "host": problem.host, "field": problem.field, "message": problem.message}


def _trusted_data(one: Trusted) -> dict[str, Any]:
    return {
        "file": one.pin.path,
        "state": one.state,
        "hosts": one.names,
        "sha256": one.pin.sha256,
        "trusted_at": one.pin.trusted_at,
    }
