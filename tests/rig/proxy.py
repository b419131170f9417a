"""A TCP proxy on the loopback that breaks connections on command: after a count of bytes, silently, or for a while.

One thread moves everything; each command has taken effect when it returns. What is counted has been given to the
kernel, whose buffers are kept small, so that a cut at the same count breaks the same transfer at the same place.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Direction = Literal["up", "down"]

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 16_384
_KERNEL_BUFFER_BYTES = 65_536
_COMMAND_S = 5
_CALM, _RESET = struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends RST and forgets what was not sent."""


class Proxy:
    """Forwards to a port of the loopback; use as a context manager. `port` is there from the start.

    `up` is from the client to the target, `down` the way back. `bytes_up`, `bytes_down`, `connections` (accepted) and
    `cuts` (that have happened) count from the start; `live` is how many connections are open.
    """

    def __init__(self, target_port: int) -> None:
        self._target = (LOOPBACK, target_port)
        # Bound and never listening: while nobody listens, the port stays ours and connections are refused.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self.connections = 0
        self.cuts = 0
        self._moved: dict[Direction, int] = {"up": 0, "down": 0}
        self._marks: dict[Direction, tuple[int, Callable[[], None]]] = {}
        self._pairs: list[_Pair] = []
        self._listener: socket.socket | None = None
        self._closed_until = 0.0
        self._is_stalled = False
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._wake, self._waker = socket.socketpair()
        self._is_stopping = False
        # Whoever read a byte finds it counted.
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._open()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop)
        self._thread.join(_COMMAND_S)
        assert not self._thread.is_alive()

    @property
    def bytes_up(self) -> int:
        """How many bytes went to the target."""
        return self._count("up")

    @property
    def bytes_down(self) -> int:
        """How many bytes came from the target."""
        return self._count("down")

    @property
    def live(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing moves."""
        return self._is_stalled

    def cut_after(self, n_bytes: int, direction: Direction) -> None:
        """Reset every connection, once, when so many more bytes have passed in this direction."""
        self._do(lambda: self._mark(n_bytes, direction, self._cut))

    def stall_after(self, n_bytes: int, direction: Direction) -> None:
        """Do as `stall` when so many more bytes have passed in this direction. A direction has one such plan."""
        self._do(lambda: self._mark(n_bytes, direction, self._stall))

    def forget(self) -> None:
        """Take back what `cut_after` and `stall_after` announced."""
        self._do(self._marks.clear)

    def reset(self) -> None:
        """Reset every connection now; new ones work."""
        self._do(self._reset_all)

    def drop_for(self, seconds: float) -> None:
        """Reset every connection now, and refuse new ones for a while. Zero ends an earlier while."""

        def drop() -> None:
            self._reset_all()
            self._close()
            self._closed_until = time.monotonic() + seconds
            self._reopen()

        self._do(drop)

    def stall(self) -> None:
        """Be a black hole: nothing is forwarded or ended, new connections meet silence, until `flow`."""
        self._do(self._stall)

    def flow(self) -> None:
        """End `stall`; what was held back goes on its way."""

        def flow() -> None:
            self._is_stalled = False

        self._do(flow)

    def strand(self) -> None:
        """Leave the connections that are open now in silence for ever, as after a change of network; new ones work."""

        def strand() -> None:
            for pair in self._pairs:
                pair.is_stranded = True

        self._do(strand)

    def _count(self, direction: Direction) -> int:
        with self._counting:
            return self._moved[direction]

    def _do(self, command: Callable[[], None]) -> None:
        """Have the thread do it, between two pieces, and wait until it is done."""
        done: Future[None] = Future()
        self._commands.append((command, done))
        self._waker.send(b"!")
        done.result(_COMMAND_S)

    def _serve(self) -> None:
        while not self._is_stopping:
            self._reopen()
            for descriptor in self._ready():
                if descriptor == self._wake.fileno():
                    self._obey()
                elif self._listener is not None and descriptor == self._listener.fileno():
                    self._accept(self._listener)
            for pair in list(self._pairs):
                self._move(pair)

    def _ready(self) -> list[int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._is_stalled:
            if self._listener is not None:
                poll.register(self._listener, select.POLLIN)
            for pair in self._pairs:
                for end, events in pair.wants():
                    poll.register(end, events)
        wait_s = None if self._listener else max(0.0, self._closed_until - time.monotonic())
        return [descriptor for descriptor, _ in poll.poll(None if wait_s is None else wait_s * 1000 + 1)]

    def _obey(self) -> None:
        self._wake.recv(1)
        command, done = self._commands.popleft()
        command()
        done.set_result(None)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            target = socket.socket()
            for end in (client, target):
                _prepare(end)
            target.connect_ex(self._target)
            self.connections += 1
            self._pairs.append(_Pair(client, target))

    def _move(self, pair: _Pair) -> None:
        try:
            for way in pair.ways:
                if not self._is_stalled and not pair.is_stranded:
                    way.read()
                    self._write(way)
        except OSError:
            self._remove(pair)
        else:
            if all(way.is_over for way in pair.ways):
                self._remove(pair, is_clean=True)

    def _write(self, way: _Way) -> None:
        place, act = self._marks.get(way.direction, (None, None))
        if way.held:
            with self._counting:
                left = None if place is None else place - self._moved[way.direction]
                self._moved[way.direction] += way.write(left)
        if act is not None and place == self._moved[way.direction]:
            del self._marks[way.direction]
            act()
        else:
            way.pass_on_the_end()

    def _mark(self, n_bytes: int, direction: Direction, act: Callable[[], None]) -> None:
        self._marks[direction] = (self._moved[direction] + n_bytes, act)

    def _cut(self) -> None:
        self.cuts += 1
        self._reset_all()

    def _stall(self) -> None:
        self._is_stalled = True

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            self._remove(pair)

    def _remove(self, pair: _Pair, *, is_clean: bool = False) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        pair.close(is_clean=is_clean)

    def _reopen(self) -> None:
        if self._listener is None and not self._is_stopping and time.monotonic() >= self._closed_until:
            self._open()

    def _open(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen(128)
        self._listener.setblocking(False)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _stop(self) -> None:
        self._is_stopping = True
        self._reset_all()
        self._close()
        for end in (self._holder, self._wake, self._waker):
            end.close()


@dataclass(eq=False)
class _Way:
    """One direction of one connection. `held` was read and is not written yet."""

    direction: Direction
    source: socket.socket
    sink: socket.socket
    held: bytes = b""
    is_ended: bool = False
    is_over: bool = False

    def read(self) -> None:
        if self.held or self.is_ended:
            return
        with contextlib.suppress(BlockingIOError):
            self.held = self.source.recv(_PIECE_BYTES)
            self.is_ended = not self.held

    def write(self, most: int | None) -> int:
        """Write what is held, `most` bytes of it, and return how many; raises OSError."""
        try:
            count = self.sink.send(self.held[:most])
        except BlockingIOError:
            return 0
        self.held = self.held[count:]
        return count

    def pass_on_the_end(self) -> None:
        if self.is_ended and not self.held and not self.is_over:
            self.is_over = True
            self.sink.shutdown(socket.SHUT_WR)


@dataclass(eq=False)
class _Pair:
    """A client's connection and ours to the target."""

    client: socket.socket
    target: socket.socket
    is_stranded: bool = False
    ways: tuple[_Way, _Way] = field(init=False)

    def __post_init__(self) -> None:
        self.ways = (_Way("up", self.client, self.target), _Way("down", self.target, self.client))

    def wants(self) -> list[tuple[socket.socket, int]]:
        """Return what to wait for at each end."""
        if self.is_stranded:
            return []
        masks = {self.client: 0, self.target: 0}
        for way in self.ways:
            if way.held:
                masks[way.sink] |= select.POLLOUT
            elif not way.is_ended:
                masks[way.source] |= select.POLLIN
        return [(end, mask) for end, mask in masks.items() if mask]

    def close(self, *, is_clean: bool) -> None:
        for end in (self.client, self.target):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CALM if is_clean else _RESET)
            end.close()


def redirect(home: Path, server_port: int, proxy_port: int) -> None:
    """Have the ~/.ssh that `Sshd.write_client_home` wrote reach the server through a proxy."""
    for name in ("config", "known_hosts"):
        file = home / ".ssh" / name
        text = file.read_text()
        for form in ("Port {}\n", f"[{LOOPBACK}]:{{}} "):
            text = text.replace(form.format(server_port), form.format(proxy_port))
        file.write_text(text)


def _bound(port: int) -> socket.socket:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.bind((LOOPBACK, port))
    return end


def _prepare(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        end.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER_BYTES)
