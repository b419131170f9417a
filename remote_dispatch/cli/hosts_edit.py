"""Changing the hosts files: add, set, unset, remove, rename, edit. No address is repeated to anyone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from remote_dispatch.cli.completion import complete_field, complete_value
from remote_dispatch.cli.hosts import HostName, HostsFile, hosts_app, load_registry, public_fields
from remote_dispatch.cli.output import Answer, JsonFlag, note, run_command, say, warn
from remote_dispatch.errors import AnswerNeededError, CommandError, ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.hosts import Registry
    from remote_dispatch.hosts.draft import Draft
    from remote_dispatch.sessions.store import SessionStore

_RULES_LIMIT_BYTES = 1 << 20
_EDITOR_VARIABLES = ("VISUAL", "EDITOR")

AgreedFlag = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
FieldName = Annotated[
    str,
    typer.Argument(
        metavar="FIELD",
        help="A field, such as `port`; a variable is `env.NAME`.",
        autocompletion=complete_field,
    ),
]
FieldValue = Annotated[
    str,
    typer.Argument(
        metavar="VALUE",
        help="Its new value; `permission_rules`, `env` and `server_password_command` take JSON.",
        autocompletion=complete_value,
    ),
]


@hosts_app.command("add")
def add_host(
    name: Annotated[str, typer.Argument(help="The name that you and models will use.")],
    address: Annotated[
        str | None,
        typer.Argument(help="`user@host`, `host:port`, or an alias of ~/.ssh/config; may be left out with `--server`."),
    ] = None,
    *,
    port: Annotated[int | None, typer.Option(help="The SSH port.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent to run there.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to run there: `provider/id`.")] = None,
    variant: Annotated[str | None, typer.Option(help="The variant of the model.")] = None,
    directory: Annotated[str | None, typer.Option(help="The working directory there; quote a leading `~`.")] = None,
    permissions: Annotated[
        Literal["deny", "auto"] | None, typer.Option(help="What becomes of a permission that is asked for there.")
    ] = None,
    permission_rules: Annotated[
        Path | None,
        typer.Option("--permission-rules", metavar="FILE", help="Permission rules as JSON, in OpenCode's own form."),
    ] = None,
    opencode: Annotated[str | None, typer.Option(help="Where OpenCode is, when it is not found by itself.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="KEY=VALUE", help="A variable for OpenCode there; may be repeated."),
    ] = None,
    code: Annotated[
        Literal["carry", "existing", "none"] | None, typer.Option(help="Which code travels with the session.")
    ] = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="An OpenCode server, for named sessions.")] = None,
    server_user: Annotated[str | None, typer.Option(metavar="NAME", help="The user name at that server.")] = None,
    server_password_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The variable here that holds that server's password.")
    ] = None,
    server_password_command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="The command here that prints that server's password; no shell reads it."),
    ] = None,
    system: Annotated[
        Literal["linux", "macos", "windows"] | None, typer.Option("--os", help="The operating system there.")
    ] = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Add a host to your hosts file; comments and formatting stay."""
    fields = {"port": port, "agent": agent, "model": model, "variant": variant, "directory": directory}
    fields |= {"permissions": permissions, "opencode": opencode, "code": code, "server": server, "os": system}
    fields |= {"server_user": server_user, "server_password_env": server_password_env}

    def work() -> Answer:
        more = {"permission_rules": _rules(permission_rules), "env": _variables(env)}
        more |= {"server_password_command": _words(server_password_command)}
        return _add(name, address, fields | more, hosts_file)

    run_command("hosts add", work, is_json=is_json)


@hosts_app.command("set")
def set_host_field(
    name: HostName,
    field: FieldName,
    value: FieldValue,
    *,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Set one field of a host, also of one that is disabled; comments and formatting stay."""
    run_command("hosts set", lambda: _set(name, field, value, hosts_file), is_json=is_json)


@hosts_app.command("unset")
def unset_host_field(
    name: HostName, field: FieldName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """Take one field out of a host's entry."""
    run_command("hosts unset", lambda: _unset(name, field, hosts_file), is_json=is_json)


@hosts_app.command("remove")
def remove_host(
    name: HostName, *, is_agreed: AgreedFlag = False, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """Take a host out of your hosts file; it asks first, and names what would lose its host."""
    run_command("hosts remove", lambda: _remove(name, hosts_file, is_agreed=is_agreed), is_json=is_json)


@hosts_app.command("rename")
def rename_host(
    name: HostName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    *,
    is_agreed: AgreedFlag = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Give a host another name; named sessions go along, and it asks first when dispatches would lose their host."""
    run_command("hosts rename", lambda: _rename(name, new, hosts_file, is_agreed=is_agreed), is_json=is_json)


@hosts_app.command("edit")
def edit_file(*, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Open a copy of your hosts file in $VISUAL or $EDITOR, and keep it only when nothing in it is wrong."""
    run_command("hosts edit", lambda: _edit(hosts_file), is_json=is_json)


# --- add, set, unset


def _add(name: str, address: str | None, fields: dict[str, Any], hosts_file: Path | None) -> Answer:
    from remote_dispatch.hosts import add

    if address is None and fields["server"] is None:
        raise UsageError(
            "a host needs an address, or a server", hint="`remote-dispatch hosts add NAME ADDRESS`, or `--server URL`"
        )
    file = add(load_registry(hosts_file).places, name, address, **fields)
    say(f"added `{name}` to {file}")
    say(f"see whether it works with `remote-dispatch doctor {name}`")
    return Answer(data={"host": public_fields(load_registry(hosts_file)[name]), "file": file})


def _set(name: str, field: str, value: str, hosts_file: Path | None) -> Answer:
    from remote_dispatch.hosts import parse_value, set_field

    file = set_field(load_registry(hosts_file).places, name, field, parse_value(field, value))
    return _changed(name, f"set {_field(field)} of", file, hosts_file)


def _unset(name: str, field: str, hosts_file: Path | None) -> Answer:
    from remote_dispatch.hosts import unset_field

    file = unset_field(load_registry(hosts_file).places, name, field)
    return _changed(name, f"took {_field(field)} out of", file, hosts_file)


def _changed(name: str, what: str, file: Path, hosts_file: Path | None) -> Answer:
    """Say what was done, and what is still wrong with the entry."""
    registry = load_registry(hosts_file)
    say(f"{what} {_called(registry, name)} in {file}")
    problems = tuple(str(problem) for problem in registry.standings(name)[-1].entry.problems)
    data = {"host": None if problems else public_fields(registry[name]), "file": file}
    return Answer(data=data, warnings=tuple(f"still wrong: {problem}" for problem in problems))


def _field(field: str) -> str:
    """Name a field; what is no word of ours may be an address in the wrong place."""
    from remote_dispatch.hosts import FIELDS

    head, _, key = field.partition(".")
    if head not in FIELDS:
        return "the field"
    return f"`{field}`" if head == "env" and key.isidentifier() else f"`{head}`"


def _rules(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        if not path.is_file():
            raise FileNotFoundError(path)  # a pipe would keep the command waiting
        with path.open("rb") as file:
            return json.loads(file.read(_RULES_LIMIT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"the permission rules in `{path.name}` cannot be read as JSON",
            hint='they look like `{"bash": {"*": "deny", "git *": "allow"}}`',
        ) from error


def _words(command: str | None) -> list[str] | None:
    if command is None:
        return None
    try:
        return shlex.split(command)
    except ValueError:
        raise UsageError("`--server-password-command` has a quote that is not closed") from None


def _variables(texts: list[str] | None) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in texts or ()]
    if not all(key and equals for key, equals, _ in pairs):
        raise UsageError("`--env` takes a name and a value", hint="such as `--env HTTPS_PROXY=http://proxy:3128`")
    return {key: value for key, _, value in pairs} or None


# --- remove, rename


def _remove(name: str, hosts_file: Path | None, *, is_agreed: bool) -> Answer:
    from remote_dispatch.hosts import remove
    from remote_dispatch.hosts.edit import editable

    registry = load_registry(hosts_file)
    origin = editable(registry.places, name)
    called = _called(registry, name)
    losses, sessions = _losses(name), _sessions_on(name)
    told = {**losses, **{one: _lost_session(one, name) for one in sessions}}
    if not is_agreed:
        command = f"remove {_typed(registry, name)}"
        _ask(f"removing {called}", f"Remove {called} from {origin.file}?", command, told)
    file = remove(registry.places, name)
    say(f"removed {called} from {file}")
    _tell_revealed(name, hosts_file)
    data = {"name": name if name in registry.all_names else None, "file": file, "dispatches": _names(losses)}
    return Answer(data={**data, "sessions": sessions}, warnings=tuple(told.values()) if is_agreed else ())


def _rename(name: str, new: str, hosts_file: Path | None, *, is_agreed: bool) -> Answer:
    from remote_dispatch.hosts import rename
    from remote_dispatch.hosts.edit import check_new_name, editable

    registry = load_registry(hosts_file)
    editable(registry.places, name)
    check_new_name(registry.places, name, new)
    called = _called(registry, name)
    losses = _losses(name)
    if losses and not is_agreed:
        command = f"rename {_typed(registry, name)} {new}"
        _ask(f"renaming {called}", f"Rename {called} to `{new}`?", command, losses)
    file = rename(registry.places, name, new)
    say(f"renamed {called} to `{new}` in {file}")
    sessions = _take_along(name, new)
    _tell_revealed(name, hosts_file)
    problem = load_registry(hosts_file).problem_of(new)
    wrong = (f"still wrong: {problem}",) if problem else ()
    data = {"name": new, "file": file, "dispatches": _names(losses), "sessions": sessions}
    return Answer(data=data, warnings=(*wrong, *(losses.values() if is_agreed else ())))


def _ask(what: str, question: str, command: str, losses: dict[str, str]) -> None:
    from remote_dispatch.cli.screen import confirm, is_interactive

    if not is_interactive():
        more = f"; {next(iter(losses.values()))}" if losses else ""
        raise AnswerNeededError(
            f"{what} needs a yes, and there is no terminal to ask on{more}",
            hint=f"`remote-dispatch hosts {command} --yes` does it",
        )
    for text in losses.values():
        warn(text)
    if not confirm(question):
        raise UsageError("nothing was changed", hint="see the hosts with `remote-dispatch hosts list`")


def _losses(name: str) -> dict[str, str]:
    """The dispatches that may still have something on this host: collecting them needs its name."""
    from remote_dispatch.dispatch import default_store
    from remote_dispatch.dispatch.remove import is_on_host

    found = [record.name for record in default_store(os.environ).all() if record.host == name and is_on_host(record)]
    return {
        one: f"dispatch `{one}` would lose its host: it can be collected only while `{name}` is there "
        f"(`remote-dispatch collect {one}`)"
        for one in found
    }


def _sessions_on(host: str) -> list[str]:
    """The named sessions that live on this host."""
    return sorted(one.name for one in _session_store().all() if one.host == host)


def _lost_session(session: str, host: str) -> str:
    return (
        f"session `{session}` would lose its host: it is reached only while `{host}` is there "
        f"(`remote-dispatch session forget {session}` forgets its name)"
    )


def _take_along(host: str, new: str) -> list[str]:
    sessions = _session_store().move(host, new) if _sessions_on(host) else []
    if sessions:
        note(f"its named sessions go along: {', '.join(sessions)}")
    return sessions


def _session_store() -> SessionStore:
    from remote_dispatch.dispatch import default_store
    from remote_dispatch.sessions.store import default_session_store

    return default_session_store(default_store(os.environ))


def _names(losses: dict[str, str]) -> list[str]:
    return sorted(losses)


def _tell_revealed(name: str, hosts_file: Path | None) -> None:
    """An entry that was hidden counts now: that may be another machine."""
    registry = load_registry(hosts_file)
    if name in registry:
        note(f"{_called(registry, name)} is now the one in {registry.origin(name)}")


def _called(registry: Registry, name: str) -> str:
    return f"`{name}`" if name in registry.all_names else "the entry"


def _typed(registry: Registry, name: str) -> str:
    return name if name in registry.all_names else "NAME"


# --- edit


def _edit(hosts_file: Path | None) -> Answer:
    from remote_dispatch.hosts.draft import draft_of

    editor = _editor()
    draft = draft_of(load_registry(hosts_file).places)
    while True:
        _open(editor, draft)
        if not draft.is_changed:
            draft.drop()
            say("nothing was changed")
            return Answer(data={"file": draft.file, "is_changed": False})
        if not draft.problems():
            draft.keep()
            say(f"changed {draft.file}")
            return Answer(data={"file": draft.file, "is_changed": True})
        _tell_problems(draft)


def _tell_problems(draft: Draft) -> None:
    """Show them, and ask whether to edit again. Raises ConfigurationError when not."""
    from remote_dispatch.cli.screen import confirm, is_interactive

    problems = draft.problems()
    for problem in problems:
        warn(str(problem))
    if not (is_interactive() and confirm("Edit it again?")):
        raise ConfigurationError(
            f"{draft.file} was not changed: the edited copy is not right", hint=f"your copy is {draft.copy}"
        )


def _editor() -> list[str]:
    from remote_dispatch.cli.screen import is_interactive

    chosen = next((text for name in _EDITOR_VARIABLES if (text := os.environ.get(name, "").strip())), None)
    if chosen is None and not is_interactive():
        raise AnswerNeededError(
            "an editor needs a terminal, and there is none",
            hint="name one that needs none with EDITOR, or use `remote-dispatch hosts set NAME FIELD VALUE`",
        )
    try:
        return shlex.split(chosen or "vi")
    except ValueError:
        raise UsageError("EDITOR cannot be read as a command", hint="check its quotation marks") from None


def _open(editor: Sequence[str], draft: Draft) -> None:
    """Run the editor on the copy. stdout is data: without a terminal there it writes to stderr."""
    stdout = None if sys.stdout.isatty() else sys.__stderr__
    try:
        status = subprocess.run([*editor, str(draft.copy)], stdout=stdout, check=False).returncode
    except OSError as error:
        draft.drop()
        raise UsageError(
            f"the editor `{editor[0]}` cannot be started", hint="name another one with VISUAL or EDITOR"
        ) from error
    if status:
        where = f"your copy is {draft.copy}" if draft.is_changed else None
        if where is None:
            draft.drop()
        raise CommandError("this machine", editor[0], max(status, 0), "nothing was changed", hint=where)
