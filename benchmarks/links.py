"""Simulated distance on one machine: a proxy that delays TCP connections, and a line of real packets.

The proxy works everywhere and shows how often one side waits for the other. The packets show besides what TCP itself
does: its handshake, slow start, Nagle and delayed acknowledgements are the kernel's own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks import namespaces
from benchmarks.board import Board
from benchmarks.namespaces import LinkUnavailableError
from tests.rig.proxy import LOOPBACK, redirect
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.rig.world import World

__all__ = [
    "HOST_ADDRESS",
    "RTTS_S",
    "DelayProxy",
    "LinkUnavailableError",
    "PacketLink",
    "reach_through",
]

RTTS_S = (0.0, 0.020, 0.100, 0.200)
LAPTOP_ADDRESS, HOST_ADDRESS = "10.77.0.1", "10.77.0.2"
QUEUE_BYTES = 262_144
_END_S = 10
_REPOSITORY = Path(__file__).resolve().parents[1]


class _Link:
    """A process that carries bytes, and what it counts. `up` is from the client to the server."""

    def __init__(self, rtt_s: float) -> None:
        self._board = Board.new()
        self._process: subprocess.Popen[bytes] | None = None
        self.rtt_s = rtt_s

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_END_S)
        self._board.close()

    @property
    def rtt_s(self) -> float:
        """The round-trip time; a new one counts for what is sent from now on."""
        return 2 * self._board.one_way_s

    @rtt_s.setter
    def rtt_s(self, seconds: float) -> None:
        self._board.one_way_s = seconds / 2

    @property
    def bytes_up(self) -> int:
        """How many bytes went to the server since the start."""
        return self._board.count("bytes_up")

    @property
    def bytes_down(self) -> int:
        """How many bytes came from the server since the start."""
        return self._board.count("bytes_down")

    def _carry(self, kind: str, *arguments: object, descriptors: tuple[int, ...]) -> None:
        board = self._board.descriptor
        argv = [sys.executable, "-m", "benchmarks.carriers", kind, str(board), *map(str, arguments)]
        # In a session of its own: Ctrl-C is for its user, who still needs it to end.
        self._process = subprocess.Popen(
            argv, cwd=_REPOSITORY, stdin=subprocess.PIPE, pass_fds=(board, *descriptors), start_new_session=True
        )
        wait_until(lambda: self._board.count("starts") == 1, "the carrier of a simulated link did not start")


class DelayProxy(_Link):
    """Forwards from `port` to a port of the loopback, half the round-trip time late in each direction.

    A context manager. There is no limit of throughput; the handshake of a connection takes a round trip, as on a line.
    """

    def __init__(self, target_port: int, *, rtt_s: float = 0.0) -> None:
        super().__init__(rtt_s)
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        with self._listener:
            descriptor = self._listener.fileno()
            self._carry("connections", descriptor, self._target_port, descriptors=(descriptor,))
        return self

    @property
    def connections(self) -> int:
        """How many connections were accepted since the start."""
        return self._board.count("connections")


class PacketLink(_Link):
    """A line of packets between two networks, `laptop` and `host`; a context manager.

    `rate_bits` a second, with a queue of `queue_bytes` in front of it, which drops what overflows; without a rate the
    line is as quick as this machine. Counted are packets with their IP headers. Entering raises LinkUnavailableError.
    """

    def __init__(self, *, rtt_s: float = 0.0, rate_bits: float | None = None, queue_bytes: int = QUEUE_BYTES) -> None:
        super().__init__(rtt_s)
        self._rate_bits = rate_bits
        self._queue_bytes = queue_bytes
        self._networks: list[namespaces.Namespace] = []

    def __enter__(self) -> Self:
        try:
            namespaces.check_possible()
            self._networks.append(namespaces.make(LAPTOP_ADDRESS, HOST_ADDRESS))
            self._networks.append(namespaces.make(HOST_ADDRESS, LAPTOP_ADDRESS))
            laptop, host = (network.device for network in self._networks)
            line = (self._rate_bits or 0, self._queue_bytes)
            self._carry("packets", laptop, host, *line, descriptors=(laptop, host))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for network in self._networks:
            network.close()

    def laptop(self) -> AbstractContextManager[None]:
        """Be in the laptop's network: what this thread starts or binds inside is there."""
        return self._networks[0].entered()

    def host(self) -> AbstractContextManager[None]:
        """Be in the host's network."""
        return self._networks[1].entered()

    @property
    def packets_up(self) -> int:
        """How many packets went to the host since the start."""
        return self._board.count("packets_up")

    @property
    def packets_down(self) -> int:
        """How many packets came from the host since the start."""
        return self._board.count("packets_down")


def reach_through(world: World, port: int) -> None:
    """Have the laptop reach the host at this port from now on; the first time, or again."""
    config = (world.laptop.home / ".ssh/config").read_text()
    now = next(line.split()[1] for line in config.splitlines() if line.split()[:1] == ["Port"])
    redirect(world.laptop.home, int(now), port)
