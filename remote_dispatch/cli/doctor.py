"""`remote-dispatch doctor`: look at this machine and at hosts, name the cure of what is wrong, apply the safe ones."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.completion import complete_host
from remote_dispatch.cli.hosts import HostsFile, working_directory
from remote_dispatch.cli.output import WARNINGS_EXIT_CODE, Answer, JsonFlag, run_async, run_command, say, warn
from remote_dispatch.errors import (
    AnswerNeededError,
    ConfigurationError,
    HostNotReadyError,
    HostUnreachableError,
    LoginError,
    RemoteDispatchError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.cli.doctor_board import Board
    from remote_dispatch.doctor.finding import Finding, Report
    from remote_dispatch.doctor.fix import Cure
    from remote_dispatch.doctor.local import Means
    from remote_dispatch.remote.host_key import OfferedKey

_COMPARE = "compare the fingerprint with the one that its owner tells you, or that `ssh-keygen -lf` prints there"


@dataclass(frozen=True, slots=True)
class Options:
    """How far the user goes along with `--fix`."""

    is_agreed: bool
    accepted: tuple[str, ...]
    """Fingerprints of host keys that the user knows to be right."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one fix: `done`, `declined`, `failed`, or `unanswered` where nobody could be asked."""

    cure: Cure
    outcome: str
    text: str | None = None


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST", help="Hosts to look at; all without any.", autocompletion=complete_host),
    ] = None,
    *,
    is_fixing: Annotated[bool, typer.Option("--fix", help="Apply the safe cures; each is asked for.")] = False,
    is_agreed: Annotated[
        bool, typer.Option("--yes", help="With --fix: yes to every question but that of a host key.")
    ] = False,
    accepted: Annotated[
        list[str] | None,
        typer.Option("--accept-key", metavar="SHA256:…", help="With --fix: accept the host key of this fingerprint."),
    ] = None,
    is_verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show also what is as it should be.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Look at this machine and at hosts; say what is wrong, and what to type to cure it."""
    options = Options(is_agreed, tuple(accepted or ())) if is_fixing else None

    def work() -> Answer:
        if options is None and (is_agreed or accepted):
            raise UsageError("`--yes` and `--accept-key` say how far `--fix` may go", hint="add `--fix`")
        from remote_dispatch.cli.doctor_board import Board

        return _doctor(names, _means(hosts_file), Board(is_json=is_json, is_verbose=is_verbose), options)

    run_command("doctor", work, is_json=is_json, interrupted_hint="nothing is left behind; run it again")


def _means(hosts_file: Path | None) -> Means:
    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.doctor.local import Means

    desk = Desk(hosts_file)
    return Means(
        lambda: desk.registry, desk.store, lambda: desk.program, os.environ, working_directory() or Path.home()
    )


def _doctor(names: Sequence[str] | None, means: Means, board: Board, options: Options | None) -> Answer:
    asked = list(dict.fromkeys(names or ()))
    reports = _look(asked or None, means, board, asked)
    attempts = _fix(reports, means, board, options, asked) if options else []
    data: dict[str, Any] = {"reports": [_report_data(report) for report in reports.values()]}
    if options:
        data["fixes"] = [_attempt_data(attempt) for attempt in attempts]
    error = _unanswered(attempts) or failure_of(tuple(reports.values()))
    if error is None and sys.stderr.isatty():
        _encourage(reports)
    return Answer(data=data, error=error, exit_code=None if error else _mild_exit_code(reports))


def _look(names: Sequence[str] | None, means: Means, board: Board, asked: Sequence[str]) -> dict[str | None, Report]:
    from remote_dispatch.doctor.examine import examine

    reports = run_async(board.watch(examine(names, means, board, asked=asked)))
    return {report.host: report for report in reports}


def _encourage(reports: dict[str | None, Report]) -> None:
    """A person who has just set up a host wants to know what to type next."""
    if name := next((host for host in reports if host is not None), None):
        say(f"ready: try `remote-dispatch send {name} --new 'say hello'`")


def _mild_exit_code(reports: dict[str | None, Report]) -> int:
    from remote_dispatch.doctor.finding import Severity

    return WARNINGS_EXIT_CODE if Severity.WARNING in {report.severity for report in reports.values()} else 0


# --- what an error means for scripts


def failure_of(reports: Sequence[Report]) -> RemoteDispatchError | None:
    """Return the error of the worst class that was found, or None: hosts file, login, unreachable, not ready."""
    from remote_dispatch.doctor.finding import Check, Severity

    classes = (
        ({Check.HOSTS_FILE, Check.ENTRY}, _configuration),
        ({Check.HOST_KEY, Check.LOGIN}, LoginError),
        ({Check.NAME, Check.PORT}, HostUnreachableError),
        (set(Check), HostNotReadyError),
    )
    errors = [(report, one) for report in reports for one in report.findings if one.severity is Severity.ERROR]
    for checks, kind in classes:
        if found := next(((report, one) for report, one in errors if one.check in checks), None):
            report, finding = found
            return kind(report.host or "this machine", _with_more(finding, len(errors) - 1), hint=_hint(finding))
    return None


def _configuration(_: str, message: str, *, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, hint=hint)


def _with_more(finding: Finding, more: int) -> str:
    return finding.seen + (f" (and {more} more error{'s' if more > 1 else ''})" if more else "")


def _hint(finding: Finding) -> str | None:
    if finding.command is None:
        return finding.cure
    where = "on the host, " if finding.is_there else ""
    return f"{where}run `{finding.command}`"


def _unanswered(attempts: Sequence[Attempt]) -> AnswerNeededError | None:
    from remote_dispatch.doctor.finding import Fix

    open_ones = [attempt for attempt in attempts if attempt.outcome == "unanswered"]
    if not open_ones:
        return None
    is_key = all(attempt.cure.fix is Fix.ACCEPT_HOST_KEY for attempt in open_ones)
    hint = (
        "accept it on a terminal, or name the fingerprint that its owner tells you with `--accept-key SHA256:…`"
        if is_key
        else "`remote-dispatch doctor --fix --yes` answers yes to all but host keys"
    )
    count = f"{len(open_ones)} fix{'es need' if len(open_ones) > 1 else ' needs'}"
    return AnswerNeededError(f"{count} an answer, and there is no terminal to ask on", hint=hint)


# --- fixing


def _fix(
    reports: dict[str | None, Report], means: Means, board: Board, options: Options, asked: Sequence[str]
) -> list[Attempt]:
    """Offer each fix once, apply those that are agreed to, look again at what they touched; new ones may show then."""
    from remote_dispatch.doctor.fix import cures_of

    attempts: list[Attempt] = []
    while pending := [
        cure for cure in cures_of(reports.values()) if cure not in [attempt.cure for attempt in attempts]
    ]:
        latest = [_attempt(cure, means, options) for cure in pending]
        attempts += latest
        touched = {attempt.cure.host for attempt in latest if attempt.outcome == "done"}
        if not touched:
            break
        with board.showing(touched):
            again = _look([host for host in touched if host is not None], means, board, asked)
        reports.update({host: again[host] for host in touched})
    return attempts


def _attempt(cure: Cure, means: Means, options: Options) -> Attempt:
    from remote_dispatch.doctor.finding import Fix
    from remote_dispatch.doctor.fix import apply

    try:
        if cure.fix is Fix.ACCEPT_HOST_KEY:
            return _accept_keys(cure, means, options)
        if (answer := _answer(cure.question, is_agreed=options.is_agreed)) != "yes":
            return Attempt(cure, answer)
        text = run_async(apply(cure, means, say))
    except RemoteDispatchError as error:
        warn(f"{error.message}; {error.hint}" if error.hint else error.message)
        return Attempt(cure, "failed", error.message)
    say(text)
    return Attempt(cure, "done", text)


def _answer(question: str, *, is_agreed: bool = False) -> str:
    """Return `yes`, `declined`, or `unanswered` where there is no terminal."""
    from remote_dispatch.cli.screen import confirm, is_interactive

    if is_agreed:
        return "yes"
    if not is_interactive():
        return "unanswered"
    return "yes" if confirm(question) else "declined"


def _accept_keys(cure: Cure, means: Means, options: Options) -> Attempt:
    """Accept the unknown keys on the way, the nearest first; each is compared, or asked for."""
    from remote_dispatch.remote.host_key import accept_host_key, offered_key

    assert cure.host is not None
    host = means.registry()[cure.host]
    accepted = []
    while key := run_async(offered_key(host)):
        if (answer := _answer_for_key(key, options)) != "yes":
            return Attempt(cure, answer)
        run_async(accept_host_key(host, key))
        accepted.append(f"accepted the {key.kind} key of {key.name}: {key.fingerprint}")
        say(accepted[-1])
    return Attempt(cure, "done", "; ".join(accepted) or "the key is known by now")


def _answer_for_key(key: OfferedKey, options: Options) -> str:
    if key.fingerprint in options.accepted:
        return "yes"
    if options.accepted:
        warn(f"{key.name} presents another key than the one that `--accept-key` names: it was not accepted")
        return "failed"
    from remote_dispatch.cli.screen import is_interactive

    if is_interactive():
        say(f"{key.name} presents this {key.kind} key: {key.fingerprint}")
        say(_COMPARE)
    return _answer(f"Accept the host key of {key.name}?")


# --- `--json`


def _report_data(report: Report) -> dict[str, Any]:
    return {
        "host": report.host,
        "severity": report.severity,
        "findings": [_finding_data(finding) for finding in report.findings],
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "seen": finding.seen,
        "cure": finding.cure,
        "command": finding.command,
        "is_there": finding.is_there,
        "fix": finding.fix,
        "detail": finding.detail,
    }


def _attempt_data(attempt: Attempt) -> dict[str, Any]:
    cure = attempt.cure
    return {"host": cure.host, "fix": cure.fix, "outcome": attempt.outcome, "text": attempt.text}
