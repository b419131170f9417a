"""Files that are not what they were: cut, with a flipped bit, doubled, swapped with another, or emptied.

`point` is `FILE:DAMAGE`, with `+` for `/` in the file's name; where it ends so, the first file in there is meant.
"""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from remote_dispatch.runner.parcel import parcel as packed
from tests.faults.kills import reach_following
from tests.faults.kinds import kind
from tests.faults.meanwhile import go_on_at_home
from tests.faults.trial import VoidError
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.faults.trial import Trial
    from tests.rig import picture
    from tests.rig.oracle import Said

DAMAGES = ("cut", "flip", "double", "swap", "empty")
PARAMETERS = (
    "dispatch",
    "session",
    "mode",
    "opencode",
    "directory",
    "model",
    "agent",
    "permission",
    "messages",
    "parts",
)
OUTGOING = (
    *("session.json.gz", "brief.txt", "runner.sh", "manifest", "job.json"),
    *(f"param+{name}" for name in PARAMETERS),
)
"""What every dispatch sends."""
BACK = ("back.json.gz", "back-children+", "back-todos.json", "back-tool-output+", "outcome.json")
"""What a rich task leaves in its run directory, and `collect` reads."""
HERE = ("back.json.gz", "back-children+", "session.json", "children+", "copy.json")
"""What a merge reads on the laptop."""
NOT_SENT = frozenset({"record.json", "planning", "started", "journal"})
REFUSALS = frozenset({1, 12})
"""How a command ends that found out."""
CLAIMS = frozenset({0, 3})
ENDED_S = 30.0
RAW_SHARE = 0.3
"""How often the parcel in which files travel is damaged besides."""


# --- the damage


def target_of(trial: Trial, directory: Path) -> tuple[Path, str]:
    """Return the file of the scenario's point in this directory, and the damage. Raises VoidError without it."""
    name, _, damage = trial.scenario.point.partition(":")
    path = directory / name.replace("+", "/")
    found = sorted(path.iterdir()) if name.endswith("+") and path.is_dir() else [path]
    if not (found and found[0].is_file()):
        raise VoidError(f"there is no {name}")
    return found[0], damage


def harm(path: Path, damage: str, random: Random) -> Callable[[], None]:
    """Damage a file; returns what puts it right again. Raises VoidError where it is the same afterwards."""
    saved = {path: path.read_bytes()}
    if damage == "swap":
        other = _another(path, random)
        saved[other] = other.read_bytes()
        other.write_bytes(saved[path])
        path.write_bytes(saved[other])
    else:
        path.write_bytes(_harmed(saved[path], damage, random))
    if path.read_bytes() == saved[path]:
        raise VoidError(f"{path.name} is what it was")

    def repair() -> None:
        for one, content in saved.items():
            if one.parent.is_dir():
                one.write_bytes(content)

    return repair


def _harmed(data: bytes, damage: str, random: Random) -> bytes:
    if damage == "cut":
        return data[: random.randrange(len(data))]
    if damage == "flip":
        place = random.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
    return data * 2 if damage == "double" else b""


def _another(path: Path, random: Random) -> Path:
    """Another file that travels: beside it or, where it is alone there, above it."""
    for place in (path.parent, path.parent.parent):
        files = [one for one in sorted(place.iterdir()) if one.is_file() and not one.name.startswith(".")]
        if others := [one for one in files if one.name not in NOT_SENT and one.read_bytes() != path.read_bytes()]:
            return random.choice(others)
    raise VoidError(f"nothing lies beside {path.name}")


# --- on the way there


def expect_the_whole_brief(trial: Trial, directory: Path) -> None:
    """From now on only a message with every character of the brief counts as the brief."""
    brief = (directory / "brief.txt").read_text()
    trial.sent[0] = replace(trial.sent[0], token=brief)


@kind("damage-outgoing", "a file damaged on the host before the launch")
def damage_outgoing(trial: Trial) -> None:
    """Between staging and launch. What is damaged is copied anew."""
    at = trial.random.choice(("stage.after", "launch.begun"))
    trial.until_paused(at)
    parcel = trial.run_directory / "parcel"
    wait_until(parcel.exists, "nothing arrived on the host", timeout_s=ENDED_S)
    with TemporaryDirectory() as unpacked:
        contents = Path(unpacked)
        with tarfile.open(parcel) as archive:
            archive.extractall(contents, filter="data")
        expect_the_whole_brief(trial, contents)
        path, damage = target_of(trial, contents)
        harm(path, damage, trial.random)
        parcel.write_bytes(packed(names_below(contents)))
    if trial.random.random() < RAW_SHARE:
        harm(parcel, "cut", trial.random)
    trial.release(at)
    trial.drive_to_the_end()


def names_below(directory: Path) -> dict[str, bytes]:
    """Return the files in a directory by their names from there."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@kind("damage-kept", "a file that waits to be sent damaged")
def damage_kept(trial: Trial) -> None:
    """While our command is dead. It cannot be copied anew: where it still has to be sent, the dispatch fails."""
    trial.expected = frozenset({"done", "failed"})
    kill_at(trial, trial.random.choice(("record.after", "stage.begun", "stage.done", "launch.begun")))
    expect_the_whole_brief(trial, trial.folder / "outgoing")
    path, damage = target_of(trial, trial.folder / "outgoing")
    harm(path, damage, trial.random)


def kill_at(trial: Trial, point: str) -> None:
    """Have our command killed at a point of its journal."""
    reach_following(trial, point)
    order = trial.order(point, "kill")
    trial.drive_until(lambda: not order.exists() and trial.has_died(), point)
    assert trial.current is not None
    trial.note(trial.current)
    trial.current = None


# --- on the way back


@kind("damage-back", "a file of the result damaged on the host")
def damage_back(trial: Trial) -> None:
    """Once the run has ended. Nobody claims a success; with the right file in its place again it comes home."""
    if trial.scenario.mode == "round-trip":
        trial.until_paused("fetch.begun")
        trial.on_heal(_harm_there(trial))
        trial.release("fetch.begun")
        assert trial.current is not None
        check_claim(trial, trial.note(trial.current))
        trial.current = None
    else:
        send_and_wait_for_the_end(trial)
        trial.on_heal(_harm_there(trial))
    check_claim(trial, trial.run("collect", "kumo"))


def _harm_there(trial: Trial) -> Callable[[], None]:
    path, damage = target_of(trial, trial.run_directory)
    return harm(path, damage, trial.random)


def send_and_wait_for_the_end(trial: Trial) -> None:
    """Hand the session over, and wait until the run on the host has its outcome."""
    send = trial.commands()[0]
    trial.run(*send)
    wait_until((trial.run_directory / "outcome.json").exists, "the run did not end", timeout_s=ENDED_S * trial.pace)


def check_claim(trial: Trial, said: Said) -> None:
    """What says that all went well must be right, also of todos and tool outputs; else it refuses."""
    words = " ".join(said.arguments[:2])
    assert said.exit_code in REFUSALS | CLAIMS, f"`{words}` ended with {said.exit_code}: {said.stdout} {said.stderr}"
    if said.exit_code in CLAIMS:
        laptop, host = trial.pictures()
        session = str(said.data.get("copy_session_id") or trial.session)
        wanted = _todos(host.todos.get(trial.session, ()))
        assert _todos(laptop.todos.get(session, ())) == wanted, f"`{words}` claims success, but todos are not equal"
        assert _outputs(laptop.home) >= _outputs(host.home), f"`{words}` claims success, but tool outputs are not equal"


def _todos(rows: tuple[picture.Row, ...]) -> list[tuple[str, str, str]]:
    return [(row["content"], row["status"], row["priority"]) for row in rows]


def _outputs(home: Path) -> set[tuple[str, bytes]]:
    place = home / ".local/share/opencode/tool-output"
    return {(path.name, path.read_bytes()) for path in place.glob("tool_*")}


# --- at home


@kind("damage-here", "a file kept on the laptop damaged before the merge")
def damage_here(trial: Trial) -> None:
    """While our command is dead. What the host still has is brought anew; for the rest the file is put back."""
    name = trial.scenario.point.partition(":")[0]
    left = trial.before[0].messages[trial.session]
    if name == "copy.json":
        trial.until_paused("launch.after")
        go_on_at_home(trial, trial.session)
        trial.release("launch.after")
    kill_at(trial, "merge.imported" if name == "copy.json" else trial.random.choice(("fetch.done", "merge.begun")))
    path, damage = target_of(trial, trial.folder)
    trial.on_heal(harm(path, damage, trial.random))
    said = trial.run(trial.scenario.ending, "kumo")
    check_claim(trial, said)
    if said.exit_code in CLAIMS:
        way = "copy" if name == "copy.json" else "whole"
        assert said.data["collected"] == way, f"it arrived as {said.data['collected']}: {said.data['warnings']}"
        check_history(trial, left, said)


def check_history(trial: Trial, left: tuple[picture.Message, ...], said: Said) -> None:
    """What holds the result begins as the session did when it left, in every word."""
    home = str(said.data.get("copy_session_id") or trial.session)
    then = [message.content for message in left]
    now = [message.content for message in trial.pictures()[0].messages[home]]
    assert now[: len(then)] == then, "the history of the session is not what it was"
