"""Hosts that are hard to enter: few sessions, no SFTP, noise, other shells, a changed key, a refused key, nobody there.

A point is `kill:POINT` or `drop:POINT`: what breaks when the dispatch stands there, our command or its connection.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.kills import reach_following
from tests.faults.kinds import kind
from tests.faults.network import connections_of, kill_all
from tests.faults.trial import SkippedError, VoidError
from tests.rig import picture
from tests.rig.sshd import make_key, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.scenario import Scenario
    from tests.faults.trial import Trial
    from tests.rig.oracle import Said

LOGIN_FAILED, UNREACHABLE = 4, 5
FELT_S = 20.0
GREETED = "tmp/greeted"
"""Below the host's home: a start-up file leaves it as the proof that it ran."""
NOISE_BYTES = 100_000
NOISY = (
    f'head -c {NOISE_BYTES} /dev/zero | tr "\\0" x; echo\n'
    f'head -c {NOISE_BYTES} /dev/zero | tr "\\0" y >&2; echo >&2\n'
    f': >"$HOME/{GREETED}"\n'
)
START_UP_FILES = {
    "bash": ".bashrc",
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
}
HEAVY = f"echo a word of welcome\nsleep 0.3\ntouch $HOME/{GREETED}\n"
"""The same in every shell."""


# --- doors that stay as they are


def _without_sftp(_: Scenario) -> Mapping[str, Any]:
    return {"options": {"sftp": "off"}}


@kind("no-sftp", "a host without SFTP", _without_sftp)
def no_sftp(trial: Trial) -> None:
    """The subsystem is missing."""
    _break(trial, trial.scenario.point)
    _check_log(trial, "subsystem not found")


def _with_one_session(_: Scenario) -> Mapping[str, Any]:
    return {"options": {"sshd_options": ("MaxSessions 1", "LogLevel DEBUG")}}


@kind("max-sessions", "a host that allows one session (MaxSessions 1)", _with_one_session)
def max_sessions(trial: Trial) -> None:
    """Everything has to happen one after the other."""
    _break(trial, trial.scenario.point)
    _check_log(trial, "no more sessions")


@kind("noisy-rc", "a start-up file that prints 100 kB on both outputs")
def noisy_rc(trial: Trial) -> None:
    """Before each command, and before SFTP."""
    if not pwd.getpwuid(os.getuid()).pw_shell.endswith("/bash"):
        raise SkippedError("the login shell is not bash, which reads a start-up file for each command")
    _greet(trial, ".bashrc", NOISY)
    _break(trial, trial.scenario.point)
    _check_greeted(trial)


def _with_login_shell(scenario: Scenario) -> Mapping[str, Any]:
    """What sshd does for a user who has this login shell."""
    shell = scenario.point.partition(":")[0]
    path = shutil.which(shell) or shell
    command = f'ForceCommand SHELL={path} exec {path} -c "$SSH_ORIGINAL_COMMAND"'
    return {"options": {"sshd_options": (command,)}}


@kind("login-shell", "another login shell, with a heavy start-up file", _with_login_shell)
def login_shell(trial: Trial) -> None:
    """The shell stands before the rest of the point: `fish:kill:stage.begun`."""
    shell, _, rest = trial.scenario.point.partition(":")
    path = shutil.which(shell)
    if path is None:
        raise SkippedError(f"{shell} is not installed")
    # What a shell writes for itself at its first start is not ours.
    subprocess.run(
        [path, "-c", "true"],
        env=trial.world.host.opencode.environment,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=True,
    )
    _greet(trial, START_UP_FILES[shell], HEAVY)
    _break(trial, rest)
    _check_greeted(trial)


def _greet(trial: Trial, name: str, text: str) -> None:
    path = trial.world.host.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    trial.before = trial.pictures()


def _check_greeted(trial: Trial) -> None:
    if not (trial.world.host.home / GREETED).exists():
        raise VoidError("no start-up file was read")


def _check_log(trial: Trial, words: str) -> None:
    if words not in trial.world.sshd.log.read_text():
        raise VoidError(f"the host never said `{words}`")


def _break(trial: Trial, point: str) -> None:
    """Kill our command or its connection when the dispatch stands at this point."""
    how, _, place = point.partition(":")
    trial.until_paused(place)
    if how == "kill":
        _kill_ours(trial)
    elif not trial.world.sshd.drop_connections():
        raise VoidError("no connection was open")
    trial.release(place)


def _kill_ours(trial: Trial) -> None:
    running, trial.current = trial.current, None
    if running is None:
        raise VoidError("no command was running")
    running.kill()
    trial.note(running)


# --- doors that are shut for a while


def _with_one_login(_: Scenario) -> Mapping[str, Any]:
    return {"options": {"sshd_options": ("MaxStartups 1:100:2",)}}


@kind("max-startups", "a host that is busy with another login (MaxStartups 1:100:2)", _with_one_login)
def max_startups(trial: Trial) -> None:
    """Somebody else holds the only place for a login until we have been turned away once."""
    sshd = trial.world.sshd
    how, _, point = trial.scenario.point.partition(":")
    trial.until_paused(point)
    connections = connections_of(trial)
    other = socket.create_connection((sshd.listen, sshd.port), timeout=FELT_S)
    trial.on_heal(other.close)
    other.recv(4)
    if how == "kill":
        _kill_ours(trial)
        trial.release(point)
        trial.start(trial.scenario.ending, "kumo")
    else:
        kill_all(connections)
        trial.release(point)
    try:
        wait_until(lambda: "MaxStartups throttling" in sshd.log.read_text(), "", timeout_s=FELT_S)
    except TimeoutError as error:
        raise VoidError("nobody was turned away") from error


@kind("host-key-changed", "the host's key replaced while we are away")
def host_key_changed(trial: Trial) -> None:
    """As when another machine answers at its address."""
    sshd = trial.world.sshd
    ours = [sshd.host_key, sshd.host_key.with_name("host_key.pub")]
    kept = {path: path.read_bytes() for path in ours}

    def replace() -> None:
        sshd.stop()
        for path in ours:
            path.unlink()
        make_key(sshd.host_key)
        sshd.start()

    def restore() -> None:
        sshd.stop()
        for path, content in kept.items():
            path.write_bytes(content)
        sshd.start()

    _shut(trial, Door(replace, restore, LOGIN_FAILED, is_waited_for=False))


@kind("key-refused", "our key refused while we are away")
def key_refused(trial: Trial) -> None:
    """As when an administrator removed it."""
    sshd = trial.world.sshd
    file = sshd.directory / "authorized_keys"
    content = file.read_text()

    def refuse() -> None:
        file.write_text("")
        sshd.drop_connections()

    def accept() -> None:
        file.write_text(content)

    _shut(trial, Door(refuse, accept, LOGIN_FAILED, is_waited_for=False))


@kind("unreachable", "nobody answers while the dispatch runs")
def unreachable(trial: Trial) -> None:
    """sshd is stopped; what runs on the host goes on."""
    sshd = trial.world.sshd
    _shut(trial, Door(sshd.stop, sshd.start, UNREACHABLE, is_waited_for=True))


@dataclass(frozen=True, slots=True)
class Door:
    """A way to shut it, and to open it again; what a command ends with meanwhile; whether a running one waits."""

    shut: Callable[[], None]
    open: Callable[[], None]
    exit_code: int
    is_waited_for: bool


def _shut(trial: Trial, door: Door) -> None:
    """Shut the door at a point, and see that every command says so and changes nothing."""
    how, _, point = trial.scenario.point.partition(":")
    if point == "runner.export.written":
        # Somebody follows by then: a command that loses its very first question ends with 5, whatever the door is like.
        reach_following(trial, "follow.done")
    trial.until_paused(point)
    if how == "kill":
        _kill_ours(trial)
    trial.on_heal(door.open)
    door.shut()
    trial.release(point)
    if how == "drop" and not door.is_waited_for:
        assert trial.current is not None
        running, trial.current = trial.current, None
        _expect(trial.note(running), door.exit_code)
    laptop = trial.world.laptop
    before = picture.look(laptop.home, laptop.project)
    _expect(trial.run(trial.scenario.ending, "kumo"), door.exit_code)
    after = picture.look(laptop.home, laptop.project)
    assert (after.rows, after.project) == (before.rows, before.project), "something changed before the shut door"


def _expect(said: Said, exit_code: int) -> None:
    words = " ".join(said.arguments)
    assert said.exit_code == exit_code, f"`{words}` ended with {said.exit_code}: {said.stdout[-300:]} {said.stderr}"
