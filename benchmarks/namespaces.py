"""Two network namespaces with a TUN device in each. Linux, root. They have no names and vanish with their last user."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TUN = Path("/dev/net/tun")
DEVICE = "rd0"
QUEUE_PACKETS = 20_000
"""Of the device, in packets: the line's own queue is what overflows, never this one."""
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_OWN = Path("/proc/thread-self/ns/net")


class LinkUnavailableError(Exception):
    """This machine has no namespaces or no TUN for us; the text says which."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network with one TUN device; both live as long as their descriptors are open, or somebody is inside."""

    descriptor: int
    device: int

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Be inside: what this thread starts or binds in here is there, for good."""
        return _entered(self.descriptor)

    def close(self) -> None:
        """Let it go."""
        os.close(self.device)
        os.close(self.descriptor)


def check_possible() -> None:
    """Raise LinkUnavailableError where there is no chance."""
    if os.geteuid() != 0:
        raise LinkUnavailableError("it takes root to make network namespaces")
    if not TUN.exists() or not _OWN.exists():
        raise LinkUnavailableError("this system has no TUN device or no network namespaces")
    if shutil.which("ip") is None:
        raise LinkUnavailableError("`ip` (iproute2) is missing")


def make(own: str, other: str) -> Namespace:
    """Make a namespace with this address, from which the other one is reached. Raises LinkUnavailableError."""
    try:
        descriptor = _in_a_thread(_unshared)
    except OSError as error:
        raise LinkUnavailableError(f"no network namespace can be made: {error.strerror}") from error
    try:
        with _entered(descriptor):
            device = _tun()
            _configure(own, other)
    except (OSError, subprocess.SubprocessError) as error:
        os.close(descriptor)
        raise LinkUnavailableError(f"no TUN device can be made: {error}") from error
    return Namespace(descriptor, device)


@contextlib.contextmanager
def _entered(descriptor: int) -> Iterator[None]:
    with _open(_OWN) as before:
        _set(descriptor)
        try:
            yield
        finally:
            _set(before)


def _unshared() -> int:
    if _libc().unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return os.open(_OWN, os.O_RDONLY)


def _in_a_thread(work: Callable[[], int]) -> int:
    """Do it in a thread that ends: a namespace that a thread has left behind can be entered, and left, by others."""
    results: list[int | OSError] = []

    def do() -> None:
        try:
            results.append(work())
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    if isinstance(results[0], OSError):
        raise results[0]
    return results[0]


def _tun() -> int:
    device = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN_NO_PI))
    return device


def _configure(own: str, other: str) -> None:
    """Cubic by the route, whatever this machine's default is; nothing is remembered from one connection to the next."""
    for command in (
        "link set lo up",
        f"addr add {own}/32 dev {DEVICE}",
        f"link set {DEVICE} txqueuelen {QUEUE_PACKETS} up",
        f"route add {other}/32 dev {DEVICE} src {own} congctl cubic",
    ):
        subprocess.run(
            ["ip", *command.split()], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")


def _set(descriptor: int) -> None:
    if _libc().setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
