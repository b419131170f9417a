"""The way of a result: in one answer where it is small, whole file by file otherwise, and checked the same either way.

The host is a directory with a run that has ended; what is counted are questions, not seconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch import Goal, Link, silent
from remote_dispatch.dispatch.carry_on import carry_on
from remote_dispatch.dispatch.delivery import PUSHED_BYTES
from remote_dispatch.errors import ConnectionLostError, IntegrityError
from remote_dispatch.model import Collected, Origin, State
from remote_dispatch.remote.connection import Completed
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.runner.scripts import script
from tests.dispatch.machines import Pair
from tests.dispatch.values import a_host
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path, PurePosixPath

    from remote_dispatch.model import Dispatch, Host
    from remote_dispatch.remote.connection import Connection

    Change = Callable[[bytes], bytes]

NAMES = {script(name): name for name in ("follow", "glance", "list", "status", "clean")}
PUSH_MARK = b"\nstatus end\n"


@dataclass
class Asked:
    """What was asked of the host, in order: scripts by their names, and downloads by those of the files."""

    all: list[str] = field(default_factory=list)


class Counting(LocalConnection):
    """A host that counts what it is asked; `change` changes what it says behind the status of a run."""

    def __init__(self, asked: Asked, change: Change, **options: Any) -> None:
        super().__init__(**options)
        self.asked = asked
        self.change = change

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
        self.asked.all.append(NAMES.get(script, "?"))
        done = await super().run(script, *values, timeout_s=timeout_s, input=input)
        if NAMES.get(script) != "glance":
            return done
        return Completed(done.exit_status, changed(done.stdout, self.change), done.stderr)

    @asynccontextmanager
    async def open(self, script: str, *values: str) -> AsyncIterator[Any]:
        self.asked.all.append(NAMES.get(script, "?"))
        async with super().open(script, *values) as channel:
            yield Changing(channel, self.change)

    async def download(self, source: PurePosixPath, target: Path, **options: Any) -> None:
        self.asked.all.append(source.name)
        await super().download(source, target, **options)


@dataclass
class Changing:
    """A channel whose signs are changed."""

    channel: Any
    change: Change

    def stdout(self) -> AsyncIterator[bytes]:
        chunks: AsyncIterator[bytes] = self.channel.stdout()
        return chunks

    async def stderr(self) -> AsyncIterator[bytes]:
        yield changed(b"".join([chunk async for chunk in self.channel.stderr()]), self.change)


def changed(said: bytes, change: Change) -> bytes:
    """Change what comes behind the status."""
    status, mark, rest = said.partition(PUSH_MARK)
    return status + mark + change(rest)


def unchanged(rest: bytes) -> bytes:
    return rest


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


async def sent(pair: Pair) -> tuple[Dispatch, dict[str, Any]]:
    """Have a session here, and a dispatch of it that runs; return that, and the session as it will come back."""
    back = a_transcript("hello", "hi there", "go on", "done")
    left = {**back, "messages": back["messages"][:2]}
    session_id = await pair.here.bring_in(left)
    origin = Origin(agent="build", model="test/model", directory=str(pair.here.home))
    record = pair.record(State.STAGING, State.RUNNING, session_id=session_id, origin=origin)
    pair.store.folder(record.id).session.write_bytes(transcripts.dump(left))
    return record, back


def end(pair: Pair, record: Dispatch, back: dict[str, Any]) -> Path:
    """End its run on the host, with a result, an empty list of todos, and events."""
    run = pair.put_run(record, back=back)
    (run / "events.jsonl").write_text('{"type": "text"}\n')
    (run / "back-todos.json").write_text("[]")
    (run / "back-children.txt").touch()
    (run / "back-sums").write_text(f"{hashlib.sha256(b'[]').hexdigest()}  back-todos.json\n")
    return run


async def collected(
    pair: Pair,
    record: Dispatch,
    change: Change = unchanged,
    *,
    is_waiting: bool = True,
    kind: type[Counting] = Counting,
) -> tuple[Dispatch, list[str]]:
    """Bring it home; return its record, and what was asked."""
    asked, environment = Asked(), pair.there.connection._environment

    @asynccontextmanager
    async def connect(host: Host) -> AsyncIterator[Connection]:
        yield kind(asked, change, environment=environment)

    async with Link(a_host(), connect) as link:
        home = await carry_on(
            record, link, pair.store, pair.here.program, silent, goal=Goal.HOME, is_waiting=is_waiting
        )
    return home, asked.all


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_small_result_comes_in_one_answer(pair: Pair, *, is_waiting: bool) -> None:
    record, back = await sent(pair)
    run = end(pair, record, back)
    home, asked = await collected(pair, record, is_waiting=is_waiting)
    assert (home.collected, home.new_messages, home.is_cleaned_up) == (Collected.WHOLE, 2, True)
    assert asked == ["follow" if is_waiting else "glance", "clean"]
    assert not run.exists()
    assert pair.store.folder(record.id).events.read_text() == '{"type": "text"}\n'


async def test_a_result_that_is_too_large_to_be_pushed_is_downloaded(pair: Pair) -> None:
    record, back = await sent(pair)
    run = end(pair, record, back)
    with (run / "back.json.gz").open("ab") as file:
        # An empty member of a gzip file is no content.
        file.write(b"".join([_EMPTY_MEMBER] * (PUSHED_BYTES // len(_EMPTY_MEMBER) + 1)))
    home, asked = await collected(pair, record)
    assert home.collected is Collected.WHOLE
    assert asked == ["follow", "back.json.gz", "clean"]


_EMPTY_MEMBER = bytes.fromhex("1f8b08000000000000ff") + b"\x03\x00" + bytes(8)


async def test_a_host_that_pushes_nothing_is_asked_for_each_thing(pair: Pair) -> None:
    record, back = await sent(pair)
    end(pair, record, back)
    home, asked = await collected(pair, record, lambda _: b"")
    assert (home.collected, home.is_cleaned_up) == (Collected.WHOLE, True)
    assert asked == ["follow", "list", "back.json.gz", "back-todos.json", "clean"]


async def test_pushed_bytes_that_differ_from_what_was_written_are_fetched_anew(pair: Pair) -> None:
    record, back = await sent(pair)
    end(pair, record, back)

    def damage(rest: bytes) -> bytes:
        place = rest.index(b" back.json.gz\n") + 40
        damaged = rest[:place] + bytes([rest[place] ^ 0xFF]) + rest[place + 1 :]
        return damaged.replace(b"\n[]", b"\n{}")

    home, asked = await collected(pair, record, damage)
    assert home.collected is Collected.WHOLE
    assert asked == ["follow", "back.json.gz", "back-todos.json", "clean"]


async def test_a_list_that_makes_no_sense_is_an_error_and_the_host_keeps_all(pair: Pair) -> None:
    record, back = await sent(pair)
    run = end(pair, record, back)
    with pytest.raises(IntegrityError, match="list of what came of it"):
        await collected(pair, record, lambda rest: b"x\n" * 5000 + rest)
    assert (run / "back.json.gz").exists()


@pytest.mark.parametrize("kept", [0, 30, 150, 400, -1])
async def test_a_push_that_is_cut_costs_nothing(pair: Pair, kept: int) -> None:
    record, back = await sent(pair)
    end(pair, record, back)
    home, asked = await collected(pair, record, lambda rest: rest[:kept])
    assert (home.collected, home.new_messages, home.is_cleaned_up) == (Collected.WHOLE, 2, True)
    assert (asked[0], asked[-1], asked.count("clean")) == ("follow", "clean", 1)


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_after_a_loss_the_result_is_downloaded_so_that_the_next_loss_costs_little(
    pair: Pair, *, is_waiting: bool
) -> None:
    record, back = await sent(pair)
    end(pair, record, back)
    cuts = 0

    def cut(rest: bytes) -> bytes:
        nonlocal cuts
        cuts += 1
        if cuts == 1:
            raise ConnectionLostError("box", "cut")
        return rest

    home, asked = await collected(pair, record, cut, is_waiting=is_waiting)
    assert (home.collected, home.new_messages, home.is_cleaned_up) == (Collected.WHOLE, 2, True)
    first = "follow" if is_waiting else "glance"
    assert asked[:5] == [first, first, "list", "back.json.gz", "back-todos.json"]


async def test_a_slow_link_has_time_for_all_that_may_be_pushed(pair: Pair) -> None:
    record, back = await sent(pair)
    end(pair, record, back)
    limits_s: list[float] = []

    class Slow(Counting):
        async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
            limits_s.append(timeout_s if NAMES.get(script) == "glance" else 0.0)
            return await super().run(script, *values, timeout_s=timeout_s, input=input)

    await collected(pair, record, is_waiting=False, kind=Slow)
    assert PUSHED_BYTES / max(limits_s) < 10_000


async def test_more_than_was_asked_for_is_left_and_the_rest_goes_on(pair: Pair) -> None:
    record, back = await sent(pair)
    end(pair, record, back)
    home, asked = await collected(pair, record, lambda rest: rest + bytes(PUSHED_BYTES * 2))
    assert home.collected is Collected.WHOLE
    assert asked[:2] == ["follow", "glance"]


async def test_what_was_streamed_travels_once(pair: Pair) -> None:
    record, back = await sent(pair)
    run = end(pair, record, back)
    events = b"".join(json.dumps({"type": "text", "n": number}).encode() + b"\n" for number in range(2000))
    (run / "events.jsonl").write_bytes(events)
    _, asked = await collected(pair, record)
    assert "events.jsonl" not in asked
    folder = pair.store.folder(record.id)
    assert folder.events.read_bytes() == events
    assert not list(folder.path.glob("scratch-*"))


class WithoutSpaceHere(Counting):
    """A host whose events this disk does not take, as the SSH connection says it."""

    async def download(self, source: PurePosixPath, target: Path, **options: Any) -> None:
        if source.name == "events.jsonl":
            raise OSError(errno.ENOSPC, "no space left")
        await super().download(source, target, **options)


async def test_a_log_that_this_disk_does_not_take_costs_space_on_the_host_and_nothing_else(pair: Pair) -> None:
    record, back = await sent(pair)
    run = end(pair, record, back)
    home, _ = await collected(pair, record, lambda _: b"", is_waiting=False, kind=WithoutSpaceHere)
    assert (home.collected, home.is_cleaned_up) == (Collected.WHOLE, False)
    assert any("is still there" in warning for warning in home.warnings)
    assert run.exists()
