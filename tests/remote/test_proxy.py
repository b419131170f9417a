"""The proxy that breaks connections, proved against an echo server: a fault that does not happen proves nothing."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.rig.proxy import Proxy
from tests.rig.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = False


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with Proxy(server.server_address[1]) as made:
            yield made
        server.shutdown()
        thread.join(5)


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def read(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (piece := link.recv(count - len(found))):
        found += piece
    return found


def talk(link: socket.socket, content: bytes) -> bytes:
    link.sendall(content)
    return read(link, len(content))


def test_what_passes_is_equal_and_counted(proxy: Proxy) -> None:
    content = bytes(range(256)) * 4000
    with dial(proxy) as link:
        sender = threading.Thread(target=link.sendall, args=(content,))
        sender.start()
        assert read(link, len(content)) == content
        sender.join(5)
    assert (proxy.bytes_up, proxy.bytes_down, proxy.connections) == (len(content), len(content), 1)


def test_an_end_of_file_passes_and_the_answer_still_comes(proxy: Proxy) -> None:
    with dial(proxy) as link:
        link.sendall(b"last words")
        link.shutdown(socket.SHUT_WR)
        assert read(link, 100) == b"last words"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_cut_lets_exactly_so_many_bytes_pass_and_resets_everything(proxy: Proxy, direction: str) -> None:
    with dial(proxy) as link, dial(proxy) as other:
        assert talk(link, b"before") == b"before"
        assert talk(other, b"before") == b"before"
        proxy.cut_after(1000, "up" if direction == "up" else "down")
        link.sendall(b"x" * 3000)
        for end in (link, other):
            with pytest.raises(ConnectionResetError):
                read(end, 3001)
    moved = proxy.bytes_up if direction == "up" else proxy.bytes_down
    assert (moved, proxy.cuts, proxy.live) == (12 + 1000, 1, 0)
    with dial(proxy) as link:
        assert talk(link, b"x" * 5000) == b"x" * 5000


def test_a_stalled_proxy_is_silent_and_loses_nothing(proxy: Proxy) -> None:
    with dial(proxy) as link:
        assert talk(link, b"before") == b"before"
        proxy.stall()
        link.sendall(b"held back")
        with dial(proxy) as late:
            late.settimeout(0.2)
            late.sendall(b"hello?")
            with pytest.raises(TimeoutError):
                late.recv(1)
            assert (proxy.bytes_up, proxy.connections) == (6, 1)
            proxy.flow()
            late.settimeout(5)
            assert read(late, 6) == b"hello?"
        assert read(link, 9) == b"held back"


def test_silence_can_begin_at_a_byte(proxy: Proxy) -> None:
    with dial(proxy) as link:
        proxy.stall_after(5, "down")
        link.sendall(b"0123456789")
        assert read(link, 5) == b"01234"
        link.settimeout(0.2)
        with pytest.raises(TimeoutError):
            link.recv(1)
        proxy.flow()
        link.settimeout(5)
        assert read(link, 5) == b"56789"


def test_a_plan_can_be_taken_back(proxy: Proxy) -> None:
    with dial(proxy) as link:
        proxy.cut_after(5, "down")
        proxy.forget()
        assert talk(link, b"0123456789") == b"0123456789"


def test_a_stranded_connection_stays_silent_while_new_ones_work(proxy: Proxy) -> None:
    with dial(proxy) as link:
        assert talk(link, b"before") == b"before"
        proxy.strand()
        link.settimeout(0.2)
        link.sendall(b"anybody?")
        with dial(proxy) as other:
            assert talk(other, b"works") == b"works"
        with pytest.raises(TimeoutError):
            link.recv(1)


def test_for_a_while_connections_are_refused_and_then_work_again_on_the_same_port(proxy: Proxy) -> None:
    with dial(proxy) as link:
        assert talk(link, b"before") == b"before"
        proxy.drop_for(60)
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.drop_for(0)
    with dial(proxy) as link:
        assert talk(link, b"after") == b"after"


def test_a_while_ends_by_itself(proxy: Proxy) -> None:
    proxy.drop_for(0.2)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError), dial(proxy) as link:
            assert talk(link, b"after") == b"after"
            return
        time.sleep(0.01)
    pytest.fail("it never listened again")


def test_a_target_that_is_not_there_resets_the_client() -> None:
    with Proxy(free_port()) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as link:
        link.recv(1)


def test_it_stops_at_once_and_leaves_no_thread_whatever_is_open_or_stalled(proxy: Proxy) -> None:
    with contextlib.ExitStack() as links:
        with Proxy(proxy.port) as other:
            for _ in range(3):
                assert talk(links.enter_context(dial(other)), b"open") == b"open"
            other.stall()
            began = time.monotonic()
        assert time.monotonic() - began < 1
        assert other.live == 0
    assert len([thread for thread in threading.enumerate() if thread.name == "proxy"]) == 1
