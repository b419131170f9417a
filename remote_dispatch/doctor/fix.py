"""The safe cures of `doctor --fix`: each is asked for, applied on its own, and looked at again afterwards."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from remote_dispatch.doctor.finding import Finding, Fix, Report
from remote_dispatch.errors import ConfigurationError, HostNotReadyError
from remote_dispatch.hosts.edit import set_field, unset_field
from remote_dispatch.plugin import install, this_command, user_place
from remote_dispatch.servers.on_host import start
from remote_dispatch.setup import Wishes, carry_out, make_plan
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from remote_dispatch.doctor.local import Means
    from remote_dispatch.setup import Phase


@dataclass(frozen=True, slots=True)
class Cure:
    """One fix that is offered; `host` is None for this machine."""

    host: str | None
    finding: Finding

    @property
    def fix(self) -> Fix:
        """What would be done."""
        assert self.finding.fix is not None
        return self.finding.fix

    @property
    def question(self) -> str:
        """What the user is asked."""
        detail = {name: clean(text, 200) for name, text in self.finding.detail.items()}
        if self.fix is Fix.OPENCODE_FIELD and not detail.get("opencode"):
            return f"Take the field `opencode` out of the entry of {self.host}?"
        return _QUESTIONS[self.fix].format(host=self.host, **{"file": "", **detail})


_QUESTIONS = {
    Fix.ACCEPT_HOST_KEY: "Accept the host key of {host}?",
    Fix.FILE_MODE: "Take {file} from everybody but you?",
    Fix.OPENCODE_FIELD: "Write `{opencode}` into the field `opencode` of {host}?",
    Fix.SETUP: "Put the OpenCode of this machine on {host}?",
    Fix.PLUGIN: "Bring the plugin up to date?",
    Fix.START_SERVER: "Start an OpenCode server for named sessions on {host}?",
}


def cures_of(reports: Iterable[Report]) -> tuple[Cure, ...]:
    """Return the fixes that can be applied, in the order of the reports."""
    return tuple(Cure(report.host, finding) for report in reports for finding in report.findings if finding.fix)


async def apply(cure: Cure, means: Means, tell: Callable[[str], None]) -> str:
    """Apply any fix but a host key, and say what was done; `tell` hears what takes long.

    Raises RemoteDispatchError; then nothing was changed, and what was half sent is continued by the next call.
    """
    match cure.fix:
        case Fix.SETUP:
            return await _set_up(cure, means, tell)
        case Fix.START_SERVER:
            return await _start_server(cure, means)
        case Fix.FILE_MODE:
            return await asyncio.to_thread(take_from_others, Path(cure.finding.detail["file"]))
        case Fix.OPENCODE_FIELD:
            return await asyncio.to_thread(_correct_opencode, cure, means)
        case Fix.PLUGIN:
            done = await asyncio.to_thread(install, user_place(means.environment), this_command(), means.environment)
            return f"wrote {', '.join(map(str, done.changed))}" if done.changed else "the plugin was current already"
        case _:
            raise AssertionError(f"{cure.fix} is not applied here")


def take_from_others(path: Path) -> str:
    """Make a file the user's alone; a symlink stays, and the file that it leads to is changed.

    Raises ConfigurationError for anything but a regular file of the user.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be opened", hint="see `remote-dispatch hosts path`") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigurationError(f"{path} is not a file of yours", hint="ask its owner")
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~(stat.S_IRWXG | stat.S_IRWXO))
    finally:
        os.close(descriptor)
    return f"{path} is yours alone now"


async def _set_up(cure: Cure, means: Means, tell: Callable[[str], None]) -> str:
    """As `hosts setup` without `--force`: what is there is never replaced."""
    from remote_dispatch.remote.ssh import connect  # noqa: PLC0415 - asyncssh takes 300 ms to import

    assert cure.host is not None
    host = means.registry()[cure.host]
    async with connect(host) as connection:
        plan = await make_plan(connection, host, means.environment, Wishes())
        if plan.candidate is None:
            raise HostNotReadyError(
                host.name,
                f"OpenCode {plan.version} is there already, and was left alone",
                hint=f"`remote-dispatch hosts setup {host.name} --force` replaces it",
            )
        tell(f"sending OpenCode {plan.version or ''} to {host.name}")
        installed = await carry_out(
            connection, plan, platformdirs.user_cache_path("remote-dispatch") / "setup", _Tenths(tell)
        )
    return "; ".join((f"OpenCode {installed.version} is on {host.name}", *installed.warnings))


async def _start_server(cure: Cure, means: Means) -> str:
    from remote_dispatch.remote.ssh import connect  # noqa: PLC0415 - as above

    assert cure.host is not None
    host = means.registry()[cure.host]
    async with connect(host) as connection:
        running = await start(connection, host)
    return f"OpenCode {running.version} serves named sessions on {host.name}"


class _Tenths:
    """Tells how far the sending is, ten times in all."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = 0

    def __call__(self, phase: Phase, sent_bytes: int, total_bytes: int) -> None:
        tenths = sent_bytes * 10 // total_bytes if phase == "send" and total_bytes else 0
        if tenths > self._told:
            self._told = tenths
            self._tell(f"sent {tenths}0 %")


def _correct_opencode(cure: Cure, means: Means) -> str:
    assert cure.host is not None
    places, place = means.registry().places, cure.finding.detail.get("opencode")
    if place:
        return f"corrected `{cure.host}` in {set_field(places, cure.host, 'opencode', place)}"
    return f"took `opencode` out of `{cure.host}` in {unset_field(places, cure.host, 'opencode')}"
