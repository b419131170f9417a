"""`hosts import`: take hosts from ~/.ssh/config, or from another hosts file. No address is shown, on no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.hosts import HostsFile, hosts_app, load_registry
from remote_dispatch.cli.output import Answer, JsonFlag, run_async, run_command, say
from remote_dispatch.errors import AnswerNeededError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.hosts import Registry
    from remote_dispatch.hosts.imports import Candidate, Source

_REMARKS = {"TAKEN": "there already", "FORGE": "looks like a code forge: not in `all`"}
_MOST_NAMES = 8


@hosts_app.command("import")
def import_hosts(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|NAME=ALIAS", help="Aliases of ~/.ssh/config; with `NAME=` before it, under another name."
        ),
    ] = None,
    *,
    is_all: Annotated[bool, typer.Option("--all", help="Take all that can be hosts and are not there yet.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take them from this hosts file; the npm plugin's is one, too."),
    ] = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added, and change nothing.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Take hosts from ~/.ssh/config: each alias becomes an address, and nothing secret is copied.

    On a terminal, without names, you choose from a list. For example: `remote-dispatch hosts import gpu-box pi=pi.lan`
    """
    run_command(
        "hosts import",
        lambda: _import(words or [], file, hosts_file, is_all=is_all, is_dry=is_dry_run),
        is_json=is_json,
    )


def _import(words: list[str], file: Path | None, hosts_file: Path | None, *, is_all: bool, is_dry: bool) -> Answer:
    from remote_dispatch.hosts.imports import add_candidates, from_file, from_ssh_config

    if is_all and words:
        raise UsageError("choose names or `--all`", hint="see `remote-dispatch hosts import --help`")
    registry = load_registry(hosts_file)
    source = from_file(file, registry) if file else run_async(from_ssh_config(registry))
    wanted = source.pick(words) if words else source.usual if is_all else _ask(source)
    left_out = [one for one in source.candidates if one not in wanted] if is_all else []
    if wanted and not is_dry:
        add_candidates(registry, wanted)
    _tell(wanted, left_out, registry, source, is_dry=is_dry)
    return Answer(
        data={
            "file": registry.places.target,
            "is_dry_run": is_dry,
            "hosts": [one.name for one in wanted],
            "left_out": [{"name": one.name, "reason": one.obstacle} for one in left_out],
        },
        warnings=tuple(str(problem) for problem in source.problems),
    )


def _ask(source: Source) -> tuple[Candidate, ...]:
    """Let the user choose. Raises AnswerNeededError without a terminal, and UsageError when nothing is chosen."""
    from remote_dispatch.cli.screen import is_interactive

    if not any(one.name for one in source.candidates):
        raise UsageError(f"{source.title} has no entry that could be a host here", hint=_way(source))
    if not is_interactive():
        names = ", ".join(f"`{one.name}`" for one in source.usual[:_MOST_NAMES])
        raise AnswerNeededError(
            f"which hosts of {source.title} is a question, and there is no terminal to ask on",
            hint=f"name them ({names} ...), or take all with `--all`" if names else _way(source),
        )
    listed = _listed(source)
    if not listed:
        raise UsageError(f"every host of {source.title} is there already", hint="see `remote-dispatch hosts list`")
    return _chosen(listed)


def _way(source: Source) -> str:
    if any(one.name is None for one in source.candidates):
        return "give one a name: `remote-dispatch hosts import NAME=ALIAS`"
    return "add a host with `remote-dispatch hosts add NAME ADDRESS`"


def _listed(source: Source) -> list[Candidate]:
    """Show what there is, and return what got a number. An alias that is no name may be an address: it is not shown."""
    listed: list[Candidate] = []
    for one in source.candidates:
        remark = f"  ({_REMARKS[one.obstacle.name]})" if one.obstacle and one.name else ""
        if one.name and not _is_taken(one):
            listed.append(one)
            say(f"{len(listed):>3}  {one.name}{remark}")
        elif one.name:
            say(f"  -  {one.name}{remark}")
    _tell_nameless(source.candidates)
    return listed


def _tell_nameless(candidates: Sequence[Candidate]) -> None:
    nameless = sum(one.name is None and not _is_taken(one) for one in candidates)
    if nameless:
        what = "1 alias cannot be a name" if nameless == 1 else f"{nameless} aliases cannot be names"
        say(f"{what} here: give each one with `remote-dispatch hosts import NAME=ALIAS`")


def _is_taken(one: Candidate) -> bool:
    return one.obstacle is not None and one.obstacle.name == "TAKEN"


def _chosen(listed: list[Candidate]) -> tuple[Candidate, ...]:
    while True:
        text = typer.prompt(
            "Which? (numbers, 1-3, all; nothing to leave)", default="", show_default=False, err=True
        ).strip()
        if not text:
            raise UsageError("nothing was imported", hint="name hosts: `remote-dispatch hosts import NAME`")
        if text.lower() == "all":
            return tuple(one for one in listed if one.obstacle is None)
        try:
            return tuple(listed[place] for place in places_in(text, len(listed)))
        except ValueError as error:
            say(str(error))


def places_in(text: str, count: int) -> list[int]:
    """Read `1 3, 5-7` as places from 0, in order, each once. Raises ValueError for what is not from 1 to `count`."""
    places: set[int] = set()
    for word in text.replace(",", " ").split():
        first, dash, last = word.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 10 and 1 <= int(end) <= count for end in ends):
            raise ValueError(f"expected numbers from 1 to {count}, such as `1 3` or `1-3`, or `all`")
        places |= set(range(int(ends[0]) - 1, int(ends[1])))
    return sorted(places)


def _tell(
    wanted: Sequence[Candidate], left_out: Sequence[Candidate], registry: Registry, source: Source, *, is_dry: bool
) -> None:
    for one in left_out:
        if one.name and one.obstacle:
            say(f"left out `{one.name}`: {one.obstacle}")
    _tell_nameless(left_out)
    if not wanted:
        return say(f"{source.title} has nothing new: nothing to do")
    names = ", ".join(f"`{one.name}`" for one in wanted)
    say(f"{'would add' if is_dry else 'added'} {names} to {registry.places.target}")
    if not is_dry:
        say("next: `remote-dispatch doctor` says whether they can be used")
    return None
