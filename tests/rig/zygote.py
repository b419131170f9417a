"""Starts the command line by forking a process that has imported it: the same program, a quarter of a second sooner.

Run as a program, this module is that process. It has no threads, keeps no state, and forks once per request; each child
gets an environment, a directory, files and a session of its own, as a new process would.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import remote_dispatch
from remote_dispatch.hosts import jsonc
from remote_dispatch.opencode.probe import probe_script
from remote_dispatch.runner.scripts import ScriptName, script

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
IS_POSSIBLE = hasattr(os, "pidfd_open")
_START_S = 30.0
_LINE_BYTES = 1 << 16


class Forked:
    """A process that the zygote forked: as much of `subprocess.Popen` as the rig uses."""

    def __init__(self, zygote: Zygote, number: int, pid: int) -> None:
        self._zygote = zygote
        self._number = number
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative after a signal; None while it runs."""
        return self._zygote.endings.get(self._number)

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""
        self._zygote.listen(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + (timeout if timeout is not None else 3600)
        while (code := self.returncode) is None:
            if (left_s := end - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired("remote-dispatch", timeout or 0)
            self._zygote.listen(left_s)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class Zygote:
    """The process to fork; use as a context manager. One thread uses it."""

    def __init__(self) -> None:
        self.endings: dict[int, int] = {}
        """By the number of the start: process ids come again."""
        self._pending = b""
        self._started: list[int] = []

    def __enter__(self) -> Self:
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.rig.zygote", str(other.fileno())],
                cwd=REPOSITORY,
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"},
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(timeout=_START_S)

    def start(self, argv: list[str], cwd: Path, environment: Mapping[str, str], output: Path) -> Forked:
        """Fork, and run the command line there; its files are OUTPUT.in, .out and .err."""
        request = {"argv": argv, "cwd": str(cwd), "environment": dict(environment), "output": str(output)}
        number = len(self._started)
        for suffix in (".out", ".err"):
            # There from the start, as a shell's redirection is.
            Path(f"{output}{suffix}").touch()
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        end = time.monotonic() + _START_S
        while len(self._started) == number:
            if time.monotonic() > end:
                raise TimeoutError("the zygote did not fork")
            self.listen(1)
        return Forked(self, number, self._started[number])

    def listen(self, timeout_s: float) -> None:
        """Take note of what the zygote says within so many seconds."""
        self._socket.settimeout(timeout_s or 0.0)
        try:
            data = self._socket.recv(_LINE_BYTES)
        except (TimeoutError, BlockingIOError):
            return
        if not data:
            raise RuntimeError("the zygote has ended")
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            word, *numbers = line.split()
            if word == b"started":
                self._started.append(int(numbers[0]))
            else:
                self.endings[int(numbers[0])] = int(numbers[1])


def _serve(control: socket.socket) -> None:
    """Fork for each request, and report each end, until the other side closes."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    pending, number = b"", 0
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                _report_end(control, selector, key)
                continue
            data = control.recv(_LINE_BYTES)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line), control)
                control.sendall(f"started {pid}\n".encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (number, pid))
                number += 1


def _report_end(control: socket.socket, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    number, pid = key.data
    selector.unregister(key.fileobj)
    os.close(key.fd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    control.sendall(f"ended {number} {status}\n".encode())


def _fork(request: dict[str, Any], control: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        control.close()
        _become(request)
        code = _run(request["argv"])
    finally:
        os._exit(code)


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    os.umask(0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    modes = {".in": os.O_RDONLY, ".out": os.O_WRONLY | os.O_CREAT, ".err": os.O_WRONLY | os.O_CREAT}
    for target, (suffix, mode) in enumerate(modes.items()):
        os.dup2(os.open(request["output"] + suffix, mode, 0o600), target)
    os.closerange(3, 64)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(argv: list[str]) -> int:
    from remote_dispatch.cli.app import main  # noqa: PLC0415 - imported before the fork

    sys.argv = ["remote-dispatch", *argv]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _warm_up() -> None:
    """All of the product is imported, so that nothing of it is looked at after the fork, and its parser is built.

    So are the texts of all scripts, and what the libraries import when they are first used: a call that is refused
    goes through the parser of the command line.
    """
    for module in pkgutil.walk_packages(remote_dispatch.__path__, "remote_dispatch."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    jsonc.parse("{}")
    probe_script()
    for name in get_args(ScriptName):
        script(name)
    "localhost".encode("idna")
    with contextlib.redirect_stderr(io.StringIO()):
        _run(["send", "--mode", "sideways"])


if __name__ == "__main__":
    asking = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    gc.freeze()
    with contextlib.suppress(ConnectionError):
        _serve(asking)
