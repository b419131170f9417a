"""`hosts setup`: put OpenCode on a host that lacks it, and on request what belongs to it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import HostName, HostsFile, hosts_app, load_registry
from remote_dispatch.cli.output import Answer, JsonFlag, note, run_async, run_command, say, stream, warn
from remote_dispatch.errors import AnswerNeededError, UsageError
from remote_dispatch.text import mask_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress
    from rich.status import Status

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.setup import Belongings, Credentials, Delivery, Phase, Plan, Report

_TENTH = 10
CREDENTIALS_FILE = "auth.json"
_WORDS: dict[Phase, str] = {
    "pack": "packing",
    "send": "sending",
    "check": "checking it there",
    "config": "sending files",
}


@hosts_app.command("setup")
def setup_host(
    name: HostName,
    *,
    binary: Annotated[
        Path | None, typer.Option("--binary", metavar="FILE", help="Send this program file of OpenCode.")
    ] = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Replace an OpenCode that is there.")] = False,
    is_with_config: Annotated[
        bool, typer.Option("--with-config", help="Send your OpenCode configuration too; no secrets.")
    ] = False,
    is_with_credentials: Annotated[
        bool, typer.Option("--with-credentials", help="Send your providers' credentials too; it asks.")
    ] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would happen.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Put the OpenCode of this machine on a host that lacks it; the host needs no internet."""

    def work() -> Answer:
        task = _Task(
            load_registry(hosts_file)[name],
            binary,
            is_forced=is_forced,
            is_with_config=is_with_config,
            is_with_credentials=is_with_credentials,
            is_agreed=is_agreed,
            is_dry_run=is_dry_run,
            is_json=is_json,
        )
        return run_async(task.run())

    hint = f"nothing half is in place; `remote-dispatch hosts setup {name}` goes on where it stopped"
    run_command("hosts setup", work, is_json=is_json, interrupted_hint=hint)


class _Task:
    """One call of the command, from the local files to the last question and the work."""

    def __init__(
        self,
        host: Host,
        binary: Path | None,
        *,
        is_forced: bool,
        is_with_config: bool,
        is_with_credentials: bool,
        is_agreed: bool,
        is_dry_run: bool,
        is_json: bool,
    ) -> None:
        from remote_dispatch.dispatch.send import check_host
        from remote_dispatch.setup import Wishes, collect_config, given

        check_host(host)
        self.host = host
        self.wishes = Wishes(given(binary) if binary else None, is_forced=is_forced)
        self.config: Belongings | None = None
        self.credentials: Credentials | None = None
        if is_with_config:
            self.config = collect_config(os.environ, may_hold_secrets=is_with_credentials)
        if is_with_credentials:
            self.credentials = _credentials(self.config)
        self.is_agreed = is_agreed
        self.is_dry_run = is_dry_run
        self.is_json = is_json

    async def run(self) -> Answer:
        """Look, say, ask, do."""
        from remote_dispatch.remote.ssh import connect
        from remote_dispatch.setup import make_plan

        async with connect(self.host) as connection:
            plan = await make_plan(connection, self.host, os.environ, self.wishes)
            deliveries = await self._deliveries(connection, plan)
            data = self._data(plan, deliveries)
            _tell(plan, self.config, deliveries)
            if self.is_dry_run:
                return Answer(data=data)
            try:
                self._ask(deliveries)
            except AnswerNeededError as error:
                return Answer(data=data, error=error)
            return await self._carry_out(connection, plan, deliveries, data)

    async def _deliveries(self, connection: Connection, plan: Plan) -> dict[str, Delivery]:
        from remote_dispatch.setup import plan_delivery

        deliveries: dict[str, Delivery] = {}
        if self.config:
            deliveries["config"] = await plan_delivery(connection, plan.survey.config, self.config.files)
        if self.credentials:
            files = {CREDENTIALS_FILE: self.credentials.content}
            deliveries["credentials"] = await plan_delivery(connection, plan.survey.data, files)
        return deliveries

    def _ask(self, deliveries: dict[str, Delivery]) -> None:
        """Put every question before anything is done. Raises UsageError for a no."""
        replaced = [name for delivery in deliveries.values() for name in _shown(delivery.replace)]
        if replaced:
            say(f"there already, and different; each is kept as NAME.before-setup: {', '.join(replaced)}")
            self._question("Replace them?", "replacing files there")
        if whose := ", ".join(self._secrets(deliveries)):
            warn(f"this sends credentials to {self.host.name}, where its administrators can read them: {whose}")
            self._question("Send them?", "sending credentials")

    def _secrets(self, deliveries: dict[str, Delivery]) -> list[str]:
        """Whose credentials are going to leave this machine."""
        going = {name for delivery in deliveries.values() for name in (*delivery.send, *delivery.replace)}
        providers = self.credentials.providers if self.credentials and CREDENTIALS_FILE in going else ()
        files = self.config.with_secrets if self.config else ()
        return [*providers, *(f"those in {name}" for name in _shown([one for one in files if one in going]))]

    def _question(self, question: str, what: str) -> None:
        from remote_dispatch.cli.screen import confirm, is_interactive

        if self.is_agreed:
            return
        name = self.host.name
        if not is_interactive():
            raise AnswerNeededError(
                f"{name}: {what} needs a yes, and there is no terminal to ask on",
                hint="the same command with `--yes` does it; `--dry-run` says what it would do",
            )
        if not confirm(question):
            raise UsageError("nothing was done", hint=f"`remote-dispatch hosts setup {name}` sends OpenCode alone")

    async def _carry_out(
        self, connection: Connection, plan: Plan, deliveries: dict[str, Delivery], data: dict[str, Any]
    ) -> Answer:
        from remote_dispatch.setup import cache_directory, carry_out, deliver

        with _progress(is_json=self.is_json) as report:
            installed = await carry_out(connection, plan, cache_directory(), report)
            data["opencode"]["version"] = installed.version
            for kind, delivery in deliveries.items():
                if delivery.send or delivery.replace:
                    report("config", 0, 0)
                data[kind]["kept"] = _shown(await deliver(connection, delivery))
        data["is_done"] = True
        if plan.candidate:
            say(f"OpenCode {installed.version} is on {self.host.name}: {data['opencode']['path']}")
        _tell_sent(deliveries)
        return Answer(data=data, warnings=installed.warnings)

    def _data(self, plan: Plan, deliveries: dict[str, Delivery]) -> dict[str, Any]:
        left_out = [asdict(one) for one in self.config.left_out] if self.config else []
        parts: dict[str, Any] = {"config": None, "credentials": None}
        for kind, delivery in deliveries.items():
            parts[kind] = {word: _shown(getattr(delivery, word)) for word in ("send", "replace", "same")}
        if parts["config"]:
            parts["config"]["left_out"] = left_out
        if self.credentials:
            parts["credentials"]["providers"] = list(self.credentials.providers)
        return {
            "host": self.host.name,
            "opencode": _opencode_data(plan),
            **parts,
            "is_dry_run": self.is_dry_run,
            "is_done": False,
        }


def _credentials(config: Belongings | None) -> Credentials | None:
    """What `opencode auth login` keeps; None where all credentials stand in the configuration that goes."""
    from remote_dispatch.setup import collect_credentials

    try:
        return collect_credentials(os.environ)
    except UsageError as error:
        if config is None:
            error.hint = (
                "log in with `opencode auth login`, or add `--with-config` where keys stand in the configuration"
            )
        elif config.with_secrets:
            return None
        raise


def _opencode_data(plan: Plan) -> dict[str, Any]:
    return {
        "action": plan.action,
        "path": plan.survey.shown if plan.candidate is None else "~/.opencode/bin/opencode",
        "version": plan.version,
        "size_bytes": plan.candidate.size if plan.candidate else None,
        "earlier": plan.survey.opencode_version,
    }


def _tell(plan: Plan, config: Belongings | None, deliveries: dict[str, Delivery]) -> None:
    """Say what is going to be done."""
    name = plan.host.name
    if plan.candidate is None:
        say(f"OpenCode {plan.version} is on {name} already: {plan.survey.shown}")
        note(f"`remote-dispatch hosts setup {name} --force` puts this machine's into `~/.opencode/bin`")
    else:
        size = f"{plan.candidate.size / 2**20:.0f} MiB"
        version = f"OpenCode {plan.version}" if plan.version else "the given OpenCode"
        say(f"{version} ({size}) suits {name}: {plan.candidate.build}")
        if plan.survey.opencode_version:
            say(f"OpenCode {plan.survey.opencode_version} is there: {plan.survey.shown}")
    for one in config.left_out if config else ():
        note(f"not sent: {one.name}: {one.why}")
    for delivery in deliveries.values():
        for word, names in (("to send", delivery.send), ("to replace", delivery.replace)):
            if names:
                say(f"{word}: {', '.join(_shown(names))}")


def _shown(names: Sequence[str]) -> list[str]:
    """Names of files as they may be read by everybody."""
    return [mask_addresses(name) for name in names]


def _tell_sent(deliveries: dict[str, Delivery]) -> None:
    for kind, delivery in deliveries.items():
        count = len(delivery.send) + len(delivery.replace)
        same = f", {len(delivery.same)} the same there already" if delivery.same else ""
        what = "credentials" if kind == "credentials" else "configuration"
        say(f"{what}: {count} {'file' if count == 1 else 'files'} sent{same}")


@contextmanager
def _progress(*, is_json: bool) -> Iterator[Report]:
    """Show progress: JSON lines, a bar on a terminal, or else a line for each tenth."""
    if is_json or not sys.stderr.isatty():
        yield _Lines(is_json=is_json)
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.stop()


class _Bar:
    """A bar while something is sent, a spinner meanwhile."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._spinner: Status | None = None
        self._bar: Progress | None = None

    def __call__(self, phase: Phase, sent_bytes: int, total_bytes: int) -> None:
        if phase != "send":
            self.stop()
            self._spinner = self._console.status(_WORDS[phase])
            self._spinner.start()
            return
        bar = self._bar or self._new_bar(total_bytes)
        bar.update(bar.task_ids[0], completed=sent_bytes)

    def stop(self) -> None:
        """Take everything off the screen."""
        for shown in (self._spinner, self._bar):
            if shown:
                shown.stop()
        self._spinner = self._bar = None

    def _new_bar(self, total_bytes: int) -> Progress:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self.stop()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bar = self._bar = Progress(*columns, console=self._console, transient=True)
        bar.add_task(_WORDS["send"], total=total_bytes)
        bar.start()
        return bar


class _Lines:
    """A line for each step, and for each tenth of what is sent."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._tenths = -1

    def __call__(self, phase: Phase, sent_bytes: int, total_bytes: int) -> None:
        if phase != "send":
            self._step(phase)
            return
        tenths = sent_bytes * _TENTH // max(1, total_bytes)
        if tenths == self._tenths:
            return
        self._tenths = tenths
        if self._is_json:
            stream({"type": "progress", "sent_bytes": sent_bytes, "total_bytes": total_bytes})
        elif tenths:
            say(f"sent {tenths * _TENTH} % ({sent_bytes / 2**20:.0f} of {total_bytes / 2**20:.0f} MiB)")

    def _step(self, phase: Phase) -> None:
        if self._is_json:
            stream({"type": "step", "phase": phase, "text": _WORDS[phase]})
        else:
            say(_WORDS[phase])
