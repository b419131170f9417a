"""What a dispatch costs, in counts: they are the same on every machine, however busy, where times are not.

Whoever makes one of them larger makes every dispatch over a slow line slower, and has to say so here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.proxy import Proxy
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.world import Machine
    from tests.rig.zygote import Zygote

LINE = "a line that says something, and is not quite the same as line {} before it\n"
LINES = 1300
SESSION_BYTES = LINES * len(LINE)
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server",
                 "/usr/libexec/sftp-server", "/usr/lib/sftp-server")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Costs:
    """What was spent: logins, commands on the host, SFTP's requests, bytes on the wire, starts of OpenCode."""

    logins: int
    commands: int
    requests: int
    bytes_up: int
    bytes_down: int
    starts_here: tuple[str, ...]
    starts_there: tuple[str, ...]


class Meter:
    """Reads what a world spends, from the host's own logs and from what passes a proxy."""

    def __init__(self, world: World, proxy: Proxy, sftp_log: Path) -> None:
        self.world = world
        self._proxy = proxy
        self._sftp_log = sftp_log
        for machine in (world.laptop, world.host):
            machine.set(STUB_LOG=_log(machine))
        self._before = self._read()

    def spent(self) -> Costs:
        """Return what was spent since the last call."""
        before, self._before = self._before, self._read()
        return Costs(*(_difference(self._before, before, one.name) for one in fields(Costs)))

    def _read(self) -> Costs:
        sshd, sftp = _text(self.world.sshd.log), _text(self._sftp_log)
        return Costs(
            logins=sshd.count("Accepted publickey for"),
            commands=sshd.count("Starting session: command"),
            # One `mkdir` for each directory above: how many depends on where the home is, and they are sent at once.
            requests=len(re.findall(r"request \d+: (?!sent|mkdir)", sftp)),
            bytes_up=self._proxy.bytes_up,
            bytes_down=self._proxy.bytes_down,
            starts_here=_starts(self.world.laptop),
            starts_there=_starts(self.world.host),
        )


def _difference(now: Costs, before: Costs, name: str) -> Any:
    new, old = getattr(now, name), getattr(before, name)
    return new[len(old) :] if isinstance(new, tuple) else new - old


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def _log(machine: Machine) -> Path:
    return machine.home / "starts"


def _starts(machine: Machine) -> tuple[str, ...]:
    """Return the starts of OpenCode itself; those of its bare runtime cost a hundredth of one."""
    return tuple(line for line in _text(_log(machine)).splitlines() if not line.startswith("reader"))


@pytest.fixture
def meter(tmp_path: Path, zygote: Zygote | None) -> Iterator[Meter]:
    """A world whose host counts commands and SFTP's requests, with a proxy before it, after a first dispatch."""
    server = next((one for one in map(Path, _SFTP_SERVERS) if one.exists()), None)
    if server is None:
        pytest.skip("there is no sftp-server here that tells of its requests")
    log, wrapper = tmp_path / "sftp.log", tmp_path / "sftp-server"
    wrapper.write_text(f"#!/bin/sh\nexec {server} -e -l DEBUG3 2>>{log}\n")
    wrapper.chmod(0o755)
    options = ("LogLevel VERBOSE", f"Subsystem sftp {wrapper}")
    with (
        World(tmp_path / "world", starter=zygote, sftp="off", sshd_options=options) as world,
        Proxy(world.sshd.port) as proxy,
    ):
        _lead_through(world, proxy)
        assert world.send("!say done", "--session", _session(world)).exit_code == 0
        world.await_end()
        yield Meter(world, proxy, log)


def _lead_through(world: World, proxy: Proxy) -> None:
    for name in ("config", "known_hosts"):
        file = world.laptop.home / ".ssh" / name
        file.write_text(file.read_text().replace(str(world.sshd.port), str(proxy.port)))


def _session(world: World) -> str:
    return world.local_session("hello", "".join(map(LINE.format, range(LINES))))


def test_a_hand_over_takes_one_login_two_commands_and_no_start_of_opencode_here(meter: Meter) -> None:
    """The two commands are the probe, and a launcher that waited for the files."""
    session = _session(meter.world)
    meter.spent()
    assert meter.world.send("!say done", "--session", session).exit_code == 0
    spent = meter.spent()
    assert (spent.logins, spent.commands) == (1, 2)
    assert spent.requests == 6
    assert spent.starts_here == ()
    assert spent.starts_there in (("import",), ("import", "run"))
    assert spent.bytes_up < 0.6 * SESSION_BYTES
    assert spent.bytes_down < 10_000


def test_a_round_trip_takes_two_more_commands_and_one_start_of_opencode_here(meter: Meter) -> None:
    """The two more watch the run, which brings the result, and clean up. Nothing is downloaded."""
    session = _session(meter.world)
    meter.spent()
    assert meter.world.round_trip("!say done", "--session", session).exit_code == 0
    spent = meter.spent()
    assert (spent.logins, spent.commands) == (1, 4)
    assert spent.requests == 6
    assert spent.starts_here == ("import",)
    assert spent.starts_there == ("import", "run")
    assert spent.bytes_up < 0.9 * SESSION_BYTES
    assert spent.bytes_down < 20_000


def test_a_host_without_sftp_gets_the_files_by_three_commands_more(tmp_path: Path, zygote: Zygote | None) -> None:
    """Two to make room, one for all the small files."""
    with World(tmp_path, sshd_options=("LogLevel VERBOSE",), starter=zygote, sftp="off") as world:
        assert world.send("!say done", "--session", world.local_session()).exit_code == 0
        assert world.sshd.log.read_text().count("Starting session: command") == 5
