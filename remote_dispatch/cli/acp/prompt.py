"""`acp prompt`: a prompt to the OpenCode of a host over the protocol, and its whole answer."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch import __version__
from remote_dispatch.cli.acp.app import AcpDesk, AcpHost, DirectoryOption, acp_app
from remote_dispatch.cli.acp.view import Policy, View
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, run_async, run_command
from remote_dispatch.cli.screen import is_interactive
from remote_dispatch.cli.session.send import AgentOption, ModelOption, PromptFile, PromptText, Question
from remote_dispatch.errors import (
    AnswerNeededError,
    ConnectionLostError,
    RemoteDispatchError,
    StoppedWaitingError,
    TurnFailedError,
    UnknownNameError,
    UsageError,
)
from remote_dispatch.failure import Failure
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_dispatch.acp.client import Listed
    from remote_dispatch.acp.conversation import Conversation
    from remote_dispatch.acp.turn import Ended, Manners
    from remote_dispatch.cli.session.asking import Ask
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

INACTIVITY = "5m"
MOST_LISTED = 20
_TITLE = 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, read and checked."""

    text: str
    directory: str | None
    session_id: str | None
    is_resumed: bool
    agent: str | None
    model: str | None
    policy: Policy
    inactivity_s: float | None


@acp_app.command("prompt")
def prompt(
    host: AcpHost,
    text: PromptText = None,
    *,
    file: PromptFile = None,
    is_resumed: Annotated[bool, typer.Option("--resume", help="Choose one of the sessions there.")] = False,
    session: Annotated[str | None, typer.Option("--session", metavar="ID", help="Go on with this session.")] = None,
    directory: DirectoryOption = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    permissions: Annotated[
        str | None,
        typer.Option(
            "--permissions",
            metavar="ask|auto|deny",
            help="Ask here, grant, or refuse what OpenCode asks for; by default ask on a terminal, elsewhere as the "
            "host's entry says, or deny.",
        ),
    ] = None,
    inactivity: Annotated[
        str,
        typer.Option(
            "--inactivity",
            metavar="TIME",
            help="Cancel a turn that shows no sign of life for so long, while nobody is asked; `0`: never.",
        ),
    ] = INACTIVITY,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Ask the OpenCode of a host over the Agent Client Protocol, in a new session or in one that is there.

    For example: `remote-dispatch acp prompt pi "which kernel runs there?"`. The answer is on stdout; Ctrl-C cancels the
    turn, and a second one leaves at once. Exit codes: 0 answered, 3 with warnings, 1 the turn failed, 6 it showed no
    sign of life, 7 an answer is needed, 130 cancelled.
    """

    def work() -> Answer:
        question = Question(text, file, None, agent, model, None, None, inactivity, None, None, 0)
        desk, asked = AcpDesk(hosts_file), question.prompt()
        there = desk.host(host)
        wanted = Wanted(
            text=asked.text,
            directory=directory,
            session_id=session,
            is_resumed=is_resumed,
            agent=agent,
            model=model,
            policy=chosen_policy(permissions, there.permissions),
            inactivity_s=question.manners().idle_timeout_s,
        )
        _check(wanted)
        return _prompt(desk, there, wanted, is_json=is_json)

    run_command("acp prompt", work, is_json=is_json)


def chosen_policy(word: str | None, usual: str | None = None) -> Policy:
    """Return who answers requests. `usual` is what the host's entry says for where nobody can be asked.

    Raises UsageError, and AnswerNeededError for `ask` where nobody can be asked.
    """
    if word is None:
        return Policy.ASK if is_interactive() else Policy(usual or "deny")
    try:
        policy = Policy(word)
    except ValueError:
        raise UsageError(
            f"`{clean(word, 40)}` is no way to answer permissions", hint="it is ask, auto or deny"
        ) from None
    if policy is Policy.ASK and not is_interactive():
        raise AnswerNeededError(
            "nobody can be asked: there is no terminal", hint="decide beforehand with `--permissions deny|auto`"
        )
    return policy


def _check(wanted: Wanted) -> None:
    if wanted.is_resumed and wanted.session_id is not None:
        raise UsageError("`--resume` and `--session` both name a session", hint="leave one of them out")
    if wanted.session_id is not None and wanted.directory is not None:
        raise UsageError(
            "a session has its own directory", hint="leave `--directory` out, or make a new session without `--session`"
        )


# --- the conversation


def _prompt(desk: AcpDesk, host: Host, wanted: Wanted, *, is_json: bool) -> Answer:
    view = View(host.name, wanted.policy, is_json=is_json)
    told: dict[str, Any] = {"host": host.name, "session_id": None}
    try:
        return run_async(_converse(desk, host, wanted, view, told))
    except RemoteDispatchError as error:
        view.end()
        error.hint = _hint(error, told)
        return Answer(data=told, error=error)
    except KeyboardInterrupt:
        view.end()
        if told["session_id"] is None:
            raise
        left = StoppedWaitingError(f"{host.name}: interrupted; its OpenCode was ended", hint=_go_on_hint(told))
        return Answer(data=told, error=left)


async def _converse(desk: AcpDesk, host: Host, wanted: Wanted, view: View, told: dict[str, Any]) -> Answer:
    from remote_dispatch.acp.conversation import Conversation
    from remote_dispatch.acp.turn import Manners

    async with desk.connection(host) as connection:
        start = starter(connection, host, desk.directory(host, wanted.directory), wanted.policy)
        async with Conversation(start, host.name, version=__version__) as conversation:
            await _open(conversation, host, wanted, told)
            session, introduction = conversation.session, conversation.introduction
            assert session is not None
            assert introduction is not None
            told |= {"session_id": session.id, "directory": session.directory, "opencode": introduction.version}
            view.session(session, is_new=told["is_new"], version=introduction.version)
            ended = await _turn(conversation, wanted, view, Manners(inactivity_s=wanted.inactivity_s))
    view.end()
    return _answer(host, ended, view, told)


def starter(connection: Connection, host: Host, directory: str, policy: Policy) -> Callable[[], Any]:
    """Return what starts the agent, each time anew. Only where a person can answer may the model put questions."""
    from remote_dispatch.acp.agent import agent, new_owner

    owner = new_owner()
    environment = {"OPENCODE_ENABLE_QUESTION_TOOL": "1"} if policy is Policy.ASK else {}
    return lambda: agent(connection, host, directory, owner=owner, environment=environment)


async def _open(conversation: Conversation, host: Host, wanted: Wanted, told: dict[str, Any]) -> None:
    told["is_new"] = not wanted.is_resumed and wanted.session_id is None
    if wanted.is_resumed:
        await conversation.resume(await choose_session(await conversation.sessions_here(), host.name))
    elif wanted.session_id is not None:
        await conversation.resume(wanted.session_id)
    else:
        await conversation.new()
        try:
            await conversation.choose(model=wanted.model or host.model, mode=wanted.agent or host.agent)
        except UnknownNameError:
            await conversation.discard()
            raise
        return
    await conversation.choose(model=wanted.model, mode=wanted.agent)


async def choose_session(sessions: list[Listed], host: str, ask: Ask | None = None) -> str:
    """Have the person choose a session. Raises AnswerNeededError where there is none to ask, or nothing was chosen."""
    from remote_dispatch.cli.session.asking import print_foreign, read_line

    shown = sessions[:MOST_LISTED]
    if not shown:
        raise AnswerNeededError(
            f"{host}: there is no session in that directory",
            hint=f"see what there is with `remote-dispatch acp sessions {host} --all`",
        )
    if not is_interactive() and ask is None:
        ids = ", ".join(f"{one.id} ({_title(one)})" for one in shown)
        raise AnswerNeededError(
            f"{host}: which session is not clear, and there is no terminal to choose on",
            hint=f"name one with `--session`: {ids}",
        )
    rows = (
        f"{place:>3}  {one.id}  {one.updated[:16].replace('T', ' ')}  {_title(one)}"
        for place, one in enumerate(shown, 1)
    )
    print_foreign(rows, is_talk=True)
    while (typed := await (ask or read_line)(f"1 to {len(shown)} > ")) is not None:
        if typed.strip().isdigit() and 0 < int(typed) <= len(shown):
            return shown[int(typed) - 1].id
    raise AnswerNeededError(f"{host}: no session was chosen", hint="name one with `--session ID`")


async def _turn(conversation: Conversation, wanted: Wanted, view: View, manners: Manners) -> Ended:
    stop = asyncio.Event()
    with _cancelling(stop, view):
        return await conversation.prompt(wanted.text, view, manners=manners, stop=stop)


@contextmanager
def _cancelling(stop: asyncio.Event, view: View) -> Iterator[None]:
    """Ctrl-C sets `stop`; a second one cancels the task that waits."""
    loop, waiting = asyncio.get_running_loop(), asyncio.current_task()
    assert waiting is not None
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        if stop.is_set():
            waiting.cancel()
            return
        stop.set()
        view.cancelling()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


# --- what came of it


def _answer(host: Host, ended: Ended, view: View, told: dict[str, Any]) -> Answer:
    data = told | {
        "answer": ended.answer or None,
        "stop_reason": ended.stop_reason,
        "failure": ended.failure.value if ended.failure else None,
        "detail": ended.detail or None,
        "is_settled": ended.is_settled,
        "usage": ended.usage or None,
        "refused": [clean(one, 300) for one in ended.refused],
    }
    error = _error_of(host.name, ended, _go_on_hint(told))
    warnings = (*ended.warnings, *(f"not permitted: {clean(one, 300)}" for one in ended.refused))
    if ended.failure is Failure.REJECTED:
        warnings = (*warnings, ended.detail)
    return Answer(
        data=data,
        render=None if error or not ended.answer else lambda: _print_answer(ended.answer, view),
        warnings=() if error else warnings,
        error=error,
    )


def _error_of(host: str, ended: Ended, hint: str | None) -> RemoteDispatchError | None:
    """Return why a turn has not ended well; None when it has, or when we refused what it wanted: that is a warning."""
    if ended.failure in (None, Failure.REJECTED):
        return None
    unsettled = "" if ended.is_settled else "; that was not confirmed, and the agent was ended"
    if ended.failure is Failure.ABORTED and ended.is_ours:
        return StoppedWaitingError(f"{host}: the turn was cancelled{unsettled}", hint=hint)
    assert ended.failure is not None
    return TurnFailedError(ended.failure, f"{host}: the turn failed: {ended.detail}{unsettled}", hint=hint)


def _hint(error: RemoteDispatchError, told: dict[str, Any]) -> str | None:
    go_on = _go_on_hint(told)
    if isinstance(error, ConnectionLostError) and go_on:
        return f"the turn there ends with the connection; {go_on}"
    return error.hint or go_on


def _go_on_hint(told: dict[str, Any]) -> str | None:
    if told["session_id"] is None:
        return None
    return f"the session is kept; go on with `remote-dispatch acp prompt {told['host']} --session {told['session_id']}`"


def _print_answer(answer: str, view: View) -> None:
    if not view.has_shown(answer):
        typer.echo(clean(answer, len(answer) + 1))


def _title(session: Listed) -> str:
    return clean(session.title, _TITLE).replace("\n", " ")
