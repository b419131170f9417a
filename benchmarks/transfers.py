"""Conversations over a real sshd, up and down: our way beside `scp`, `sftp` and `rsync -z` of the raw export.

Each includes its login. Ours includes what belongs to it on both sides besides: dump, pack, unpack, hash, parse.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import corpus
from benchmarks.copying import ALIAS, Ours, at_home, sha256_of, tools
from benchmarks.links import HOST_ADDRESS, LinkUnavailableError, PacketLink
from benchmarks.measure import Figure, Omission, Sample, at_most, elapsed_s, is_quick, rounds
from remote_dispatch import transcript as transcripts
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SIZES_MB = (1, 20, 100)
ROUNDS = {1: 3, 20: 3, 100: 2}
FAR_ROUNDS = dict.fromkeys(SIZES_MB, 2)
RATE_BITS, RTT_S = 100e6, 0.020
_TARGET_MB = 100
"""The size of which the targets speak."""


@dataclass(frozen=True, slots=True)
class Line:
    """A way to a host: what is started inside `here()` is on this side of it; `carried()` counts both directions."""

    name: str
    sshd: Sshd
    here: Callable[[], AbstractContextManager[None]]
    carried: Callable[[], int] | None
    rounds: dict[int, int]


def figures(directory: Path) -> Iterator[Figure | Omission]:
    """Measure on the loopback, where only the processor counts, and on a line of 100 Mbit/s; all take turns."""
    with ExitStack() as stack:
        near = Sshd(directory / "near")
        stack.enter_context(near)
        yield from _measured(Line("no network", near, nullcontext, None, ROUNDS), directory)
    far = f"{RATE_BITS / 1e6:.0f} Mbit/s, {RTT_S * 1000:.0f} ms"
    try:
        with PacketLink(rtt_s=RTT_S, rate_bits=RATE_BITS) as link, ExitStack() as stack:
            with link.host():
                sshd = stack.enter_context(Sshd(directory / "far", listen=HOST_ADDRESS))
            line = Line(far, sshd, link.laptop, lambda: link.bytes_up + link.bytes_down, FAR_ROUNDS)
            yield from _measured(line, directory)
    except LinkUnavailableError as error:
        yield Omission(f"transfer, {far}", str(error))


def _measured(line: Line, directory: Path) -> Iterator[Figure]:
    home = line.sshd.write_client_home(directory / f"client-{line.sshd.listen}", alias=ALIAS)
    with at_home(home):
        for size in SIZES_MB[: 1 if is_quick() else None]:
            yield from _Trial(line, home, size).figures()


class _Trial:
    """One size on one line: every way in turns, each time to a file that is not there yet."""

    def __init__(self, line: Line, here: Path, size_mb: int) -> None:
        self._line = line
        self._size_mb = size_mb
        self._here = here
        self._there = line.sshd.remote_home / f"{size_mb}"
        self._there.mkdir(exist_ok=True)
        host = line.sshd.host().model_copy(update={"host": ALIAS, "port": None})
        self._ours = Ours(host, self._there, here)
        self._tools = tools(line.sshd)
        self._raw = here / "raw.json"
        self._session = corpus.a_session(size_mb * corpus.MEGABYTE)
        self._bytes = corpus.write_export(self._session, self._raw)
        (self._there / "back.json").write_bytes(self._raw.read_bytes())
        self._shrinks = corpus.shrinks(self._raw)

    def figures(self) -> Iterator[Figure]:
        """Yield time and bytes in both directions."""
        group = f"transfer of {self._size_mb} MB, {self._line.name}"
        times, carried = self._measure()
        is_meant = self._size_mb == _TARGET_MB
        for way in ("up", "down"):
            ours = times[f"{way} ours"]
            for tool in self._tools:
                target = at_most(1, "ratio") if is_meant and tool.name == "scp" else None
                other = times[f"{way} {tool.name}"]
                yield Figure.of(group, f"{way}, beside `{tool.name}`", ours, "s", other, target=target)
        if self._line.carried:
            for way in ("up", "down"):
                target = at_most(1 / 3, "ratio") if is_meant else None
                sent, raw = (carried[f"{way} {name}"] / corpus.MEGABYTE for name in ("ours", "scp"))
                note = f"`gzip -1` makes it {self._shrinks:.1f} times smaller"
                yield Figure(
                    group, f"{way}, bytes on the wire, beside `scp`", sent, "MB", raw, target=target, note=note
                )

    def _measure(self) -> tuple[dict[str, Sample], dict[str, int]]:
        times: dict[str, list[float]] = {}
        carried: dict[str, int] = {}
        for _ in range(rounds(self._line.rounds[self._size_mb])):
            for name, work in self._works().items():
                before = self._line.carried() if self._line.carried else 0
                with self._line.here():
                    times.setdefault(name, []).append(elapsed_s(work))
                carried[name] = (self._line.carried() if self._line.carried else 0) - before
                self._check_and_remove(name)
        return {name: Sample(tuple(values)) for name, values in times.items()}, carried

    def _works(self) -> dict[str, Callable[[], object]]:
        works: dict[str, Callable[[], object]] = {
            "up ours": lambda: self._ours.up(self._session),
            "down ours": self._ours.down,
        }
        for tool in self._tools:
            works[f"up {tool.name}"] = partial(tool.up, self._raw, self._there / "copy.json")
            works[f"down {tool.name}"] = partial(tool.down, self._there / "back.json", self._here / "copy.json")
        return works

    def _check_and_remove(self, name: str) -> None:
        """What arrived must be whole, and must not be there for the next one: `rsync` would send nothing."""
        arrived = {
            "up ours": self._there / "session.json",
            "down ours": self._here / "back.json.gz",
        }.get(name, (self._there if name.startswith("up") else self._here) / "copy.json")
        if not name.endswith("ours"):
            assert sha256_of(arrived) == sha256_of(self._raw), name
        elif name == "up ours" and self._size_mb == 1:
            assert transcripts.parse(arrived.read_bytes()) == self._session
        for path in (
            arrived,
            self._there / "session.json.gz",
            self._there / "back.json.gz",
            self._here / "out.json.gz",
        ):
            path.unlink(missing_ok=True)
