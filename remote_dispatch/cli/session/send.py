"""`session send` and `session run`: put a prompt to a session and wait for the whole answer."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.options import PermissionsOption
from remote_dispatch.cli.output import Answer, JsonFlag, print_lines, run_async, run_command, warn
from remote_dispatch.cli.session.app import HostName, SessionDesk, SessionName, session_app
from remote_dispatch.cli.words import duration_s
from remote_dispatch.errors import (
    DeadlinePassedError,
    RemoteDispatchError,
    StoppedWaitingError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from remote_dispatch.cli.session.view import View
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.ask import Manners, Taken
    from remote_dispatch.sessions.manage import Wish
    from remote_dispatch.sessions.prompt import Prompt
    from remote_dispatch.sessions.turn import Answer as AskUser
    from remote_dispatch.sessions.values import NamedSession

PROMPT_LIMIT_BYTES = 5 * 1024 * 1024
IDLE_TIMEOUT = "60s"
RETRIES = 2

PromptText = Annotated[
    str | None,
    typer.Argument(metavar="[PROMPT]", help="What to do; `-`, or none in a pipe, reads it from stdin."),
]
PromptFile = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Read the prompt from a file.")]
Attach = Annotated[
    list[str] | None,
    typer.Option("--attach", metavar="FILE", help="Send a file along; `remote:PATH` names one of the server."),
]
AgentOption = Annotated[str | None, typer.Option("--agent", help="The agent; otherwise the session's last one.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="The model: `provider/id`.")]
VariantOption = Annotated[str | None, typer.Option("--variant", help="The variant of the model.")]
SystemOption = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="Add this to the system prompt, for this turn.")
]
IdleTimeout = Annotated[
    str | None,
    typer.Option(
        "--idle-timeout",
        metavar="TIME",
        help="Abort a turn that shows no sign of life for so long, while no tool runs and nothing waits; "
        f"{IDLE_TIMEOUT} by default, `0`: never.",
    ),
]
Deadline = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Stop waiting after this time; the turn goes on.")
]
Expect = Annotated[
    str | None, typer.Option("--expect", metavar="json", help="The answer must be JSON; it is asked for once more.")
]
Retries = Annotated[
    int | None,
    typer.Option(
        "--retries",
        metavar="N",
        min=0,
        max=20,
        help=f"How often a failed turn is tried again, where it helps; {RETRIES} by default.",
    ),
]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked and how, as it was typed."""

    text: str | None
    file: Path | None
    attach: list[str] | None
    agent: str | None
    model: str | None
    variant: str | None
    system: str | None
    idle_timeout: str | None
    timeout: str | None
    expect: str | None
    retries: int | None
    is_abort_first: bool = False
    is_forced: bool = False

    def prompt(self) -> Prompt:
        """Read what is asked. Raises UsageError."""
        from remote_dispatch.model import Model
        from remote_dispatch.sessions.prompt import Prompt, attach

        try:
            model = Model.parse(self.model) if self.model is not None else None
        except ValueError as error:
            raise UsageError(str(error), hint="see what there is with `remote-dispatch session models HOST`") from error
        files = tuple(attach(one) for one in self.attach or ())
        return Prompt(_text(self.text, self.file), self.agent, model, self.variant, self.system, files)

    def manners(self) -> Manners:
        """Read how it is asked. Raises UsageError."""
        from remote_dispatch.sessions.ask import Manners

        if self.expect not in (None, "json"):
            raise UsageError("`--expect`: expected `json`")
        idle_timeout = self.idle_timeout or IDLE_TIMEOUT
        is_never = idle_timeout.strip().rstrip("smhd") == "0"
        return Manners(
            abort_first=self.is_abort_first,
            is_forced=self.is_forced,
            idle_timeout_s=None if is_never else duration_s(idle_timeout),
            timeout_s=duration_s(self.timeout),
            retries=RETRIES if self.retries is None else self.retries,
            expects_json=self.expect == "json",
        )

    def check_unfollowed(self, waits: str) -> None:
        """Raise UsageError for what only the one can do who follows the turn itself."""
        given = {"--expect": self.expect, "--retries": self.retries, "--idle-timeout": self.idle_timeout}
        if waits == "no":
            given["--timeout"] = self.timeout
        idle = [option for option, value in given.items() if value is not None]
        if idle and waits != "yes":
            how = "`--no-wait`" if waits == "no" else "`--watch` and `--every`"
            raise UsageError(
                f"`{idle[0]}` does nothing with {how}: nobody judges the answer, or tries again",
                hint=f"leave `{idle[0]}` out, or wait for the answer without {how}",
            )


@session_app.command("send")
def send(
    name: SessionName,
    prompt: PromptText = None,
    *,
    file: PromptFile = None,
    attach: Attach = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    variant: VariantOption = None,
    system: SystemOption = None,
    is_abort_first: Annotated[
        bool, typer.Option("--abort-first", help="Abort a turn that runs, instead of refusing.")
    ] = False,
    is_unwaited: Annotated[bool, typer.Option("--no-wait", help="Return as soon as the session has it.")] = False,
    is_watched: Annotated[bool, typer.Option("--watch", help="Wait with the screen of `session watch`.")] = False,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Wait with a report at this interval: `5m`.")
    ] = None,
    idle_timeout: IdleTimeout = None,
    timeout: Deadline = None,
    expect: Expect = None,
    retries: Retries = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Send a prompt that ended twice with the same failure.")
    ] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Put a prompt to a session, show what it does on stderr, and print its whole last answer.

    For example: `remote-dispatch session send kumo "why does it leak?"`
    """
    question = Question(
        prompt, file, attach, agent, model, variant, system, idle_timeout, timeout, expect, retries, is_abort_first,
        is_forced,
    )  # fmt: skip

    def work() -> Answer:
        if is_unwaited and (is_watched or every):
            raise UsageError("`--no-wait` goes with neither `--watch` nor `--every`")
        waits = "watch" if is_watched or every else ("no" if is_unwaited else "yes")
        question.check_unfollowed(waits)
        return _send(name, question, waits, every, SessionDesk(hosts_file), is_json=is_json)

    run_command("session send", work, is_json=is_json)


@session_app.command("run")
def run(
    host: HostName,
    prompt: PromptText = None,
    *,
    file: PromptFile = None,
    attach: Attach = None,
    title: Annotated[str | None, typer.Option(help="The title of the session.")] = None,
    directory: Annotated[str | None, typer.Option(help="The working directory there; quote a leading `~`.")] = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    variant: VariantOption = None,
    system: SystemOption = None,
    permissions: PermissionsOption = None,
    is_kept: Annotated[bool, typer.Option("--keep", help="Keep the session, under a name.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="With `--keep`: its name.")] = None,
    idle_timeout: IdleTimeout = None,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Give up after this time.")] = None,
    expect: Expect = None,
    retries: Retries = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Ask a fresh session on a host, print its answer, and delete it.

    For example: `remote-dispatch session run pi "which kernel runs there?"`
    """
    question = Question(prompt, file, attach, agent, model, variant, system, idle_timeout, timeout, expect, retries)

    def work() -> Answer:
        from remote_dispatch.cli.session.manage import checked_policy
        from remote_dispatch.sessions.manage import Wish

        if name is not None and not is_kept:
            raise UsageError("`--name` goes with `--keep`: without it the session is deleted")
        wish = Wish(title, name, directory, agent, model, checked_policy(permissions))
        return _run(host, wish, question, SessionDesk(hosts_file), is_kept=is_kept, is_json=is_json)

    run_command("session run", work, is_json=is_json)


# --- send


def _send(name: str, question: Question, waits: str, every: str | None, desk: SessionDesk, *, is_json: bool) -> Answer:
    from remote_dispatch.cli.session.view import View

    prompt, manners, every_s = question.prompt(), question.manners(), duration_s(every)
    named = desk.sessions.load(name)
    view = View(_keeper(desk), is_json=is_json)
    try:
        return run_async(_put(named, prompt, manners, waits, every_s, desk, view, is_json=is_json))
    except DeadlinePassedError as error:
        error.hint = error.hint if view.prompt is None else _goes_on(name)
        return Answer(data=_data_sent(view, named), error=error)
    except KeyboardInterrupt:
        view.end()
        if view.prompt is None:
            raise
        stopped = StoppedWaitingError(f"interrupted; the turn of `{name}` on {named.host} goes on", hint=_goes_on(name))
        return Answer(data=_data_sent(view, named), error=stopped)


async def _put(
    named: NamedSession,
    prompt: Prompt,
    manners: Manners,
    waits: str,
    every_s: float | None,
    desk: SessionDesk,
    view: View,
    *,
    is_json: bool,
) -> Answer:
    from remote_dispatch.sessions.ask import ask, deliver
    from remote_dispatch.sessions.live import check_writable

    host = desk.host(named.host)
    await check_writable(host, named.session_id, desk.store, desk.link)
    async with desk.servers() as servers:
        api = await servers.api(host)
        if waits == "yes":
            taken = await ask(api, named, prompt, manners, view, answer=_asker(api, named))
            view.end()
            return _answer(taken, view, is_gone=False)
        named, _ = await deliver(api, named, prompt, manners, view)
        if waits == "watch":
            return await _watched(desk, servers, named, every_s, manners, is_json=is_json)
    return Answer(data=_data_sent(view, named), render=lambda: _render_sent(named))


async def _watched(
    desk: SessionDesk, servers: Servers, named: NamedSession, every_s: float | None, manners: Manners, *, is_json: bool
) -> Answer:
    from remote_dispatch.cli.session.watch import WatchOptions, watch_named

    options = WatchOptions(every_s=every_s, is_json=is_json, timeout_s=manners.timeout_s)
    return await watch_named(desk, servers, [named], options)


def _keeper(desk: SessionDesk) -> Any:
    """Keep what a turn changes of a record, and nothing that somebody else changed meanwhile."""

    def keep(named: NamedSession) -> None:
        changes = {
            "message_id": named.message_id,
            "expects_json": named.expects_json,
            "troubles": named.troubles,
            "works_on": named.works_on,
        }
        with suppress(UnknownNameError):  # it was renamed or forgotten meanwhile: its turn goes on all the same
            desk.sessions.update(named.name, lambda stored: stored.but(**changes))

    return keep


def _goes_on(name: str) -> str:
    return f"`remote-dispatch session watch {name}` looks on, `remote-dispatch session abort {name}` ends the turn"


def _data_sent(view: View, named: NamedSession) -> dict[str, Any]:
    from remote_dispatch.cli.session.data import named_data

    return {**named_data(view.named or named), "prompt": view.prompt}


def _render_sent(named: NamedSession) -> None:
    print_lines(
        [
            f"{named.name} on {named.host} is at work",
            f"  remote-dispatch session watch {named.name}     look on, to the end",
            f"  remote-dispatch session show {named.name}      how it is",
            f"  remote-dispatch session abort {named.name}     end the turn",
        ]
    )


# --- run


def _run(host: str, wish: Wish, question: Question, desk: SessionDesk, *, is_kept: bool, is_json: bool) -> Answer:
    from remote_dispatch.cli.session.view import View

    prompt, manners = question.prompt(), question.manners()
    view = View(_keeper(desk), is_json=is_json)
    try:
        return run_async(_ask_fresh(desk.host(host), wish, prompt, manners, desk, view, is_kept=is_kept))
    except (DeadlinePassedError, KeyboardInterrupt) as ended:
        view.end()
        if view.named is None:
            raise
        return Answer(data=_data_sent(view, view.named), error=_left(ended, view.named, is_kept=is_kept))


def _left(ended: BaseException, named: NamedSession, *, is_kept: bool) -> RemoteDispatchError:
    """What became of a session that was not waited for."""
    is_late = isinstance(ended, DeadlinePassedError)
    kind, why = (DeadlinePassedError, "it has not ended in time") if is_late else (StoppedWaitingError, "interrupted")
    if is_kept:
        return kind(f"{why}; the turn of `{named.name}` on {named.host} goes on", hint=_goes_on(named.name))
    return kind(f"{why}; the turn was aborted and its session deleted", hint="with `--keep` it goes on")


async def _ask_fresh(
    host: Host, wish: Wish, prompt: Prompt, manners: Manners, desk: SessionDesk, view: View, *, is_kept: bool
) -> Answer:
    from remote_dispatch.sessions.run import run as ask_fresh

    async with desk.servers() as servers:
        api = await servers.api(host, starts=True)
        taken = await ask_fresh(
            api,
            host,
            desk.sessions,
            wish,
            prompt,
            manners,
            view,
            is_kept=is_kept,
            answer=lambda named: _asker(api, named),
            left=_not_deleted,
        )
    view.end()
    return _answer(taken, view, is_gone=not is_kept)


def _not_deleted(named: NamedSession, error: RemoteDispatchError) -> None:
    warn(f"its session is still on {named.host}: {error.message}; `remote-dispatch session delete {named.name}`")


# --- both


def _text(text: str | None, file: Path | None) -> str:
    """Return the prompt: argument, file or stdin. Raises UsageError for none, for two, and for what is no text."""
    if text is not None and file is not None:
        raise UsageError("the prompt is given twice: as an argument and by `--file`")
    if file is not None:
        content = _read(file)
    elif text is None and sys.stdin.isatty():
        raise UsageError("there is no prompt", hint="give it as an argument, by `--file FILE`, or on stdin")
    elif text is None or text == "-":
        content = sys.stdin.buffer.read(PROMPT_LIMIT_BYTES + 1)
    else:
        content = text.encode("utf-8", "surrogateescape")
    if len(content) > PROMPT_LIMIT_BYTES:
        raise UsageError("the prompt is too long", hint="put it into a file, and attach that")
    try:
        words = content.decode()
    except UnicodeDecodeError:
        words = "\0"
    if "\0" in words:
        raise UsageError("the prompt is not text: it holds a NUL byte, or bytes that are not UTF-8")
    if not words.strip():
        raise UsageError("the prompt is empty", hint="give it as an argument, by `--file FILE`, or on stdin")
    return words


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UsageError(f"`{path}` is a directory", hint="`--file` names a file with the prompt")
        with path.open("rb") as file:
            return file.read(PROMPT_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {(error.strerror or 'no reason given').lower()}") from error


def _asker(api: Api, named: NamedSession) -> AskUser | None:
    """Put requests to the person at the terminal, where there is one."""
    from remote_dispatch.cli.screen import is_interactive

    if not is_interactive():
        return None

    async def put(reading: Any) -> bool:
        from remote_dispatch.cli.session.asking import answer_here
        from remote_dispatch.sessions.requests import waiting_in

        for waiting in waiting_in(reading):
            if not await answer_here(api, named, waiting):
                return False
        return True

    return put


def _answer(taken: Taken, view: View, *, is_gone: bool) -> Answer:
    from remote_dispatch.cli.session.result import data_taken, error_of

    end = taken.standing.end
    warnings = (*end.warnings, *(f"not permitted: {one}" for one in end.refused)) if end else ()
    error = error_of(taken, is_gone=is_gone)
    data = {**data_taken(taken), "prompt": view.prompt, "deleted": is_gone}
    return Answer(
        data={**data, "next": None} if is_gone else data,
        render=None if error or end is None else lambda: _print_answer(end.answer, view),
        warnings=() if error else warnings,
        error=error,
    )


def _print_answer(answer: str, view: View) -> None:
    """Print the whole answer, unless it is the last thing on this very screen already."""
    from remote_dispatch.text import clean

    if not view.has_shown(answer):
        typer.echo(clean(answer, len(answer) + 1))
