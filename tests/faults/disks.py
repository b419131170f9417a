"""What surrounds OpenCode on a machine: disks that take nothing more, and clocks that are wrong.

`point` is `PLACE:WHEN` for disks and `SECONDS:WHEN` for clocks. Each place lies on a small disk of its own meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.faults.damage import kill_at
from tests.faults.kills import is_planning, reach_following
from tests.faults.kinds import kind
from tests.faults.meanwhile import import_turn
from tests.faults.trial import SkippedError, VoidError
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.trial import Trial

DISK = "size=6m,mode=700"
FULL_S = 3.0
"""How long a disk stays full at most. The runner asks ever more rarely whether its outcome can be written."""
CALM_S = 10.0
MOUNT_S = 20.0
BLOCK_BYTES = 64 * 1024
OFFSETS_S = (-86400, -3600, 3600, 86400)
"""How wrong a clock is."""
DATE = "#!/bin/sh\nexec /bin/date -d '{offset} seconds' \"$@\"\n"

FULL_AT = {
    "host-state": (
        *("stage.begun", "launch.begun", "runner.lock.before", "runner.unpack.before", "runner.import.before"),
        *(
            "runner.started.before",
            "runner.run.running",
            "runner.export.before",
            "runner.outcome.before",
            "fetch.begun",
        ),
    ),
    "host-opencode": ("launch.begun", "runner.import.before", "runner.run.running", "runner.export.before"),
    "laptop-state": (
        *("plan.before", "plan.after", "record.after", "stage.begun", "launch.begun", "launch.done", "follow.begun"),
        *("follow.done", "fetch.begun", "merge.begun", "merge.imported", "judge.begun", "release.begun"),
    ),
    "laptop-opencode": ("plan.before", "fetch.begun", "merge.begun", "merge.imported"),
}
READ_ONLY_AT = {
    "host-state": ("stage.begun", "stage.done", "launch.begun", "fetch.begun", "release.begun"),
    "host-opencode": ("launch.begun", "fetch.begun"),
    "laptop-state": ("record.after", "launch.begun", "follow.begun", "fetch.begun", "merge.begun", "judge.begun"),
    "laptop-opencode": ("launch.begun", "merge.begun"),
}
"""Where nobody on that side has a file open to write into: only then can a disk become read-only."""


def place_of(trial: Trial) -> tuple[Path, str]:
    """Return the directory of the scenario's point, and when it fails."""
    word, _, at = trial.scenario.point.partition(":")
    machine, _, what = word.partition("-")
    home = trial.world.host.home if machine == "host" else trial.world.laptop.home
    return home / {"state": ".local/state", "opencode": ".local/share/opencode", "project": "project"}[what], at


def right_states(trial: Trial) -> frozenset[str]:
    """Only what the host cannot begin or keep may fail; nothing is recorded where the laptop cannot keep it."""
    word, _, at = trial.scenario.point.partition(":")
    if word.startswith("laptop"):
        return frozenset({"done", "none"}) if is_planning(at) else frozenset({"done"})
    is_over = at.partition(".")[0] in ("fetch", "merge", "judge", "code", "release")
    return frozenset({"done"}) if is_over else frozenset({"done", "failed"})


# --- disks


@contextlib.contextmanager
def small_disk(place: Path, aside: Path) -> Iterator[None]:
    """Have a directory lie on a small disk of its own. Raises SkippedError where nothing can be mounted."""
    if os.geteuid() != 0:
        raise SkippedError("small and read-only disks: this user cannot mount")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(place, aside, symlinks=True)
    if not _ran("mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(place)):
        raise SkippedError("small and read-only disks: this machine mounts none")
    try:
        shutil.copytree(aside, place, symlinks=True, dirs_exist_ok=True)
        yield
    finally:
        # Also while processes still use it: they end with the world, which is left afterwards.
        _ran("umount", "-l", str(place))


def _ran(*argv: str) -> bool:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=MOUNT_S, check=False)
    return done.returncode == 0


def _remount(place: Path, option: str) -> bool:
    return _ran("mount", "-o", f"remount,{option}", str(place))


def fill(place: Path) -> Path:
    """Fill a disk to its last block; returns the file that does."""
    filler = place / "filler"
    for size in (BLOCK_BYTES, 512):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while file.write(bytes(size)) == size:
                pass
    if os.statvfs(place).f_bfree:
        raise VoidError("the disk is not full")
    return filler


@kind("disk-full", "a disk full, on the host or here")
def disk_full(trial: Trial) -> None:
    """From a point on, for some seconds."""
    trial.expected = right_states(trial)
    place, at = place_of(trial)
    trial.keep(small_disk(place, trial.directory / "aside"))
    reach_following(trial, at)
    trial.until_paused(at)
    filler = fill(place)
    trial.on_heal(lambda: filler.unlink(missing_ok=True))
    trial.release(at)
    end = time.monotonic() + FULL_S
    with contextlib.suppress(VoidError):
        trial.drive_until(lambda: time.monotonic() > end, "the end of all commands")


@kind("disk-read-only", "a disk read-only, on the host or here")
def disk_read_only(trial: Trial) -> None:
    """Our command is killed at a point, and the next one finds it so."""
    trial.expected = right_states(trial)
    place, at = place_of(trial)
    trial.keep(small_disk(place, trial.directory / "aside"))
    kill_at(trial, at)
    wait_until(lambda: _remount(place, "ro"), "the disk is in use", timeout_s=CALM_S)
    trial.on_heal(lambda: _check(_remount(place, "rw")))
    trial.run(trial.scenario.ending, "kumo")


def _check(is_done: bool) -> None:
    assert is_done, "the disk stays as it is"


# --- clocks


@kind("clock", "the host's clock wrong by an hour or a day, and our command killed")
def clock(trial: Trial) -> None:
    """It stays so. The session's last message is of this moment."""
    seconds, _, at = trial.scenario.point.partition(":")
    trial.world.host.put_program("date", DATE.format(offset=int(seconds)))
    trial.world.host.set(STUB_CLOCK_OFFSET_MS=int(seconds) * 1000)
    import_turn(trial, trial.session, {}, after_ms=int(time.time() * 1000) - 5000)
    trial.before = trial.pictures()
    kill_at(trial, at)
