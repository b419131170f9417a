"""The processes of the simulated links: one delays TCP connections, one moves IP packets between two TUN devices.

Run as a program by `links`; it ends when its stdin does, so that it never outlives its user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import socket
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.board import Board
from benchmarks.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.board import Counter

LOOPBACK = "127.0.0.1"
PIECE_BYTES = 65_536
PIECES = 4096
"""That many pieces of one connection are on their way at most; then its sender has to wait."""
PACKET_BYTES = 65_536
PACKETS_AT_ONCE = 64
LIFELINE = 0


class Connections:
    """Carries connections from a listening socket to a port of the loopback, with a delay in each direction."""

    def __init__(self, board: Board, target_port: int) -> None:
        self._board = board
        self._target_port = target_port

    async def serve(self, listener: socket.socket) -> None:
        """Serve until stdin ends."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(LIFELINE, ended.set)
        accepting = asyncio.create_task(self._accept(listener))
        self._board.add("starts")
        await ended.wait()
        accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await accepting

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        async with asyncio.TaskGroup() as connections:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
                connections.create_task(self._carry(*await asyncio.open_connection(sock=client, limit=4 * PIECE_BYTES)))

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        ends = [to_near]
        try:
            await self._carried(near, ends)
        except* OSError:
            for end in ends:
                end.transport.abort()
        finally:
            for end in ends:
                end.close()

    async def _carried(self, near: asyncio.StreamReader, ends: list[asyncio.StreamWriter]) -> None:
        """Carry both ways to their ends; the far end is added to `ends`. Raises a group of OSError.

        The client was connected at once: the round trip that this takes on a real line is added to what it says first.
        """
        one_way_s = self._board.one_way_s
        connected = time.monotonic() + 2 * one_way_s
        self._board.add("connections")
        up, down = _Way(self._board, "bytes_up", connected), _Way(self._board, "bytes_down", connected)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(up.read(near))
            await _until(connected + one_way_s)
            far, to_far = await asyncio.open_connection(LOOPBACK, self._target_port, limit=4 * PIECE_BYTES)
            ends.append(to_far)
            for work in (up.write(to_far), down.read(far), down.write(ends[0])):
                tasks.create_task(work)


class _Way:
    """One direction of one connection."""

    def __init__(self, board: Board, counter: Counter, connected: float) -> None:
        self._board = board
        self._counter = counter
        self._connected = connected
        self._travelling: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)

    async def read(self, source: asyncio.StreamReader) -> None:
        while True:
            piece = await source.read(PIECE_BYTES)
            sent = max(time.monotonic(), self._connected)
            await self._travelling.put((sent + self._board.one_way_s, piece))
            self._board.add(self._counter, len(piece))
            if not piece:
                return

    async def write(self, sink: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await self._travelling.get()
            await _until(due)
            if not piece:
                sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()


async def _until(due: float) -> None:
    if (left := due - time.monotonic()) > 0:
        await asyncio.sleep(left)


class Packets:
    """Moves packets between two TUN devices: what comes from the first goes up, what comes from the second down."""

    def __init__(self, board: Board, laptop: int, host: int, make_line: Callable[[], Line[bytes]]) -> None:
        self._board = board
        self._ways: dict[int, tuple[int, Line[bytes], Counter, Counter]] = {
            laptop: (host, make_line(), "bytes_up", "packets_up"),
            host: (laptop, make_line(), "bytes_down", "packets_down"),
        }

    def serve(self) -> None:
        """Serve until stdin ends."""
        for device in self._ways:
            os.set_blocking(device, False)
        self._board.add("starts")
        while LIFELINE not in (ready := self._ready()):
            for device in ready:
                self._take_in(device)
            self._let_out()

    def _ready(self) -> list[int]:
        dues = [line.due for _, line, _, _ in self._ways.values() if line.due is not None]
        # select() waits to the microsecond; poll() and epoll round up to the next millisecond.
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
        return select.select([LIFELINE, *self._ways], [], [], wait_s)[0]

    def _take_in(self, device: int) -> None:
        _, line, sizes, counts = self._ways[device]
        one_way_s = self._board.one_way_s
        with contextlib.suppress(BlockingIOError):
            for _ in range(PACKETS_AT_ONCE):
                packet = os.read(device, PACKET_BYTES)
                if line.put(packet, len(packet), time.monotonic(), one_way_s):
                    self._board.add(sizes, len(packet))
                    self._board.add(counts)

    def _let_out(self) -> None:
        now = time.monotonic()
        for target, line, _, _ in self._ways.values():
            while (packet := line.take(now)) is not None:
                # A full or vanished device loses packets, as any network does.
                with contextlib.suppress(OSError):
                    os.write(target, packet)


def main() -> None:
    """Be the carrier that the arguments name; all numbers but the rate are open descriptors."""
    kind, board, *rest = sys.argv[1:]
    if kind == "connections":
        listener, target_port = rest
        serving = Connections(Board(int(board)), int(target_port)).serve(socket.socket(fileno=int(listener)))
        # A loop on select() is precise to the microsecond, one on epoll to the millisecond.
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
            runner.run(serving)
    else:
        laptop, host, rate_bits, queue_bytes = rest
        rate = float(rate_bits) or None

        def make_line() -> Line[bytes]:
            return Line(rate_bits=rate, queue_bytes=int(queue_bytes))

        Packets(Board(int(board)), int(laptop), int(host), make_line).serve()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
