"""The frame of the benchmarks: figures, targets, the page, and the lines that stand for distance."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.board import Board
from benchmarks.line import Line
from benchmarks.links import HOST_ADDRESS, DelayProxy, LinkUnavailableError, PacketLink
from benchmarks.measure import Figure, Omission, Sample, Target, at_least, at_most, await_exit, samples_s
from benchmarks.page import page, summary, tables
from benchmarks.reasons import REASONS
from benchmarks.sections import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 20


# --- figures


def test_a_figure_is_the_median_of_its_runs_with_their_spread() -> None:
    figure = Figure.of("group", "name", Sample((3.0, 1.0, 9.0)), "s", Sample((2.0, 1.0, 6.0)))
    assert (figure.value, figure.spread, figure.baseline) == (3.0, (1.0, 9.0), 2.0)
    assert figure.ratio == 1.5
    assert figure.is_met is None


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        (at_most(3.0), True),
        (at_most(2.9), False),
        (at_least(3.0), True),
        (at_least(3.1), False),
        (at_most(1.5, of="ratio"), True),
        (at_most(1.4, of="ratio"), False),
        (at_most(1.0, of="excess"), True),
        (at_most(0.9, of="excess"), False),
    ],
)
def test_a_target_speaks_of_the_value_its_ratio_or_what_is_above_the_baseline(target: Target, is_met: bool) -> None:
    assert Figure("group", "name", 3.0, "s", 2.0, target=target).is_met is is_met


@pytest.mark.parametrize("baseline", [None, 0.0, -0.2])
def test_nothing_is_a_multiple_of_nothing(baseline: float | None) -> None:
    figure = Figure("group", "name", 3.0, "s", baseline, target=at_most(1.0, of="ratio"))
    assert figure.ratio is None
    assert figure.is_met is None


def test_works_take_turns() -> None:
    order: list[str] = []
    samples = samples_s({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 3
    assert all(len(sample.values) == 3 for sample in samples.values())


def test_a_process_is_killed_at_its_deadline() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
    assert await_exit(process, 0.01) == -9


# --- the page


def test_the_page_shows_ratio_target_and_reason_and_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REASONS, "trips: far", "light is slow")
    monkeypatch.setitem(REASONS, "trips: near", "never printed")
    results: list[Figure | Omission] = [
        Figure("trips", "near", 1.0, "s", 4.0, target=at_most(2.0), spread=(0.5, 1.25)),
        Figure("trips", "far", 3.0, "s", 4.0, target=at_most(2.0)),
        Figure("sizes", "one", 12_345.6, "KB"),
        Omission("packets", "it takes root"),
    ]
    text = page(results, {"cores": "4"})
    assert "| near | 1.00 s | 0.50 - 1.25 | 4.00 s | 0.25 | ≤ 2.00 s | yes |" in text
    assert "| far | 3.00 s |  | 4.00 s | 0.75 | ≤ 2.00 s | **no** |\n\n- far: light is slow.\n" in text
    assert "| | value |\n|---|---:|\n| one | 12,346 KB |" in text
    assert "packets: left out, because it takes root." in text
    assert "never printed" not in text
    assert summary(results) == "Targets: 2, met: 1. Missed: trips: far."


def test_a_missed_target_without_a_reason_says_so() -> None:
    missed = Figure("group", "name", 3.0, "s", 2.0, target=at_most(1.0, of="ratio"))
    assert "- name: no reason is known yet." in list(tables([missed]))


def test_figures_as_json_say_whether_their_target_is_met() -> None:
    figure = Figure.of("group", "name", Sample((3.0,)), "s", 2.0, target=at_most(1.0, of="ratio"))
    said = json.loads(json.dumps(figure.as_json()))
    assert said["target"] == {"limit": 1.0, "of": "ratio", "is_least": False}
    assert (said["ratio"], said["is_met"], said["spread"]) == (1.5, False, [3.0, 3.0])


# --- lines, by a clock of our own


def test_what_is_sent_arrives_after_the_delay_and_in_order() -> None:
    line: Line[str] = Line()
    line.put("a", 1, 10.0, 0.5)
    line.put("b", 1, 10.2, 0.5)
    assert line.due == 10.5
    assert line.take(10.49) is None
    assert [line.take(10.7), line.take(10.7), line.take(10.7)] == ["a", "b", None]
    assert line.due is None


def test_a_shorter_delay_lets_nothing_overtake() -> None:
    line: Line[str] = Line()
    line.put("a", 1, 0.0, 5.0)
    line.put("b", 1, 0.0, 1.0)
    assert line.take(1.0) is None
    assert [line.take(5.0), line.take(5.0)] == ["a", "b"]


def test_with_a_rate_one_packet_follows_the_other_and_a_full_queue_drops() -> None:
    line: Line[str] = Line(rate_bits=8000, queue_bytes=2000)
    assert [line.put(name, 1000, 0.0, 0.25) for name in "abc"] == [True, True, False]
    assert line.dropped == 1
    assert [line.take(1.25), line.take(1.25), line.take(2.25)] == ["a", None, "b"]
    assert line.put("d", 1000, 3.0, 0.0)
    assert line.due == 4.0


def test_two_processes_see_the_same_board() -> None:
    board = Board.new()
    script = (
        "import sys; from benchmarks.board import Board; board = Board(int(sys.argv[1]));"
        "board.add('bytes_up', 7); board.add('bytes_up', 2**40); print(board.one_way_s)"
    )
    board.one_way_s = 0.25
    argv = [sys.executable, "-c", script, str(board.descriptor)]
    said = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(board.descriptor,), timeout=WAIT_S, check=True
    )
    assert said.stdout == b"0.25\n"
    assert board.count("bytes_up") == 7 + 2**40
    assert board.count("bytes_down") == 0
    board.close()


# --- links, by counts


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    """Listens on the loopback and sends back what comes; at the end of it, says goodbye."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield from _echoing(server)


def _echoing(server: socket.socket) -> Iterator[socket.socket]:
    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)
                connection.sendall(b"goodbye")

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    server.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)


def _conversation(address: str, port: int, data: bytes) -> bytes:
    """Send everything, close that half, and return all that comes back."""
    with socket.create_connection((address, port), timeout=WAIT_S) as client:

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = b"".join(iter(lambda: client.recv(65_536), b""))
        sender.join(WAIT_S)
    return back


def test_the_proxy_passes_everything_on_and_counts_it(echo: socket.socket) -> None:
    data = bytes(range(256)) * 4096
    with DelayProxy(echo.getsockname()[1], rtt_s=0.002) as proxy:
        assert _conversation("127.0.0.1", proxy.port, data) == data + b"goodbye"
        proxy.rtt_s = 0.0
        assert _conversation("127.0.0.1", proxy.port, b"") == b"goodbye"
        assert (proxy.bytes_up, proxy.bytes_down) == (len(data), len(data) + 2 * len(b"goodbye"))
        assert proxy.connections == 2


def test_the_proxy_ends_connections_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with DelayProxy(port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S) as client:
        assert _received(client) == b""


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""


@pytest.fixture
def link() -> Iterator[PacketLink]:
    try:
        with PacketLink(rtt_s=0.002) as link:
            yield link
    except LinkUnavailableError as error:
        pytest.skip(str(error))


def test_packets_cross_between_two_networks_that_nobody_else_sees(link: PacketLink) -> None:
    data = b"hello" * 1000
    with link.host():
        server = socket.create_server((HOST_ADDRESS, 0))
    with server, contextmanager(_echoing)(server), link.laptop():
        assert _conversation(HOST_ADDRESS, server.getsockname()[1], data) == data + b"goodbye"
    assert min(link.packets_up, link.packets_down) >= 5
    assert link.bytes_up >= len(data) + 40 * link.packets_up
    with pytest.raises(OSError, match="assign"):
        socket.create_server((HOST_ADDRESS, 0))


# --- the command


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_can_be_measured_alone(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").figures)


def test_an_unknown_section_is_a_usage_error_that_names_those_there_are() -> None:
    argv = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 2
    assert "no section is called nonsense" in done.stderr
    assert all(name in done.stderr for name in ("usage", "SECTION"))
