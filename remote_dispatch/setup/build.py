"""What a program file is built for, read from its ELF or Mach-O header. Runs nothing."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

System = Literal["Linux", "Darwin"]
Libc = Literal["glibc", "musl"]

_ELF_MACHINES = {62: "x64", 183: "arm64", 40: "arm", 3: "x86", 243: "riscv64"}
_MACH_MACHINES = {0x01000007: "x64", 0x0100000C: "arm64"}
_MACH_64 = b"\xcf\xfa\xed\xfe"
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_STRTAB, _DT_STRSZ = 5, 10
_TABLE_LIMIT_BYTES = 16_000_000
_SEGMENTS_LIMIT = 200
_OFFSET_LIMIT = 2**40
_GLIBC_VERSION = re.compile(rb"GLIBC_(\d{1,3})\.(\d{1,3})")
_BASELINE = re.compile(rb"bun-[a-z]+-x64(?:-musl)?-baseline\.zip")
"""Bun 1.3 names its own build in the address from which it would update itself."""


@dataclass(frozen=True, slots=True)
class Build:
    """A program and what it needs. `machine` is OpenCode's word: `x64`, `arm64`."""

    system: System
    machine: str
    loader: str | None = None
    """The ELF interpreter; None for a static program, and on macOS."""
    glibc: tuple[int, int] | None = None
    """The newest version of glibc of which it asks something."""

    @property
    def libc(self) -> Libc | None:
        """The C library that it is linked with; None where it needs none of the host's, or it is macOS's."""
        if self.loader is None:
            return None
        return "musl" if "musl" in self.loader else "glibc"

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"{self.system_name} {self.machine}", self.libc)))

    @property
    def system_name(self) -> str:
        """The system as people call it."""
        return "macOS" if self.system == "Darwin" else self.system

    @property
    def package(self) -> str:
        """The name under which OpenCode publishes this kind of build."""
        return f"opencode-{self.system.lower()}-{self.machine}{'-musl' if self.libc == 'musl' else ''}"

    @property
    def baseline_package(self) -> str:
        """The name under which it is published for processors without AVX2."""
        return f"opencode-{self.system.lower()}-{self.machine}-baseline{'-musl' if self.libc == 'musl' else ''}"


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read_build(path: Path) -> Build | None:
    """Read what a file is built for; None when it is no 64-bit program of Linux or macOS, such as a script.

    Raises OSError when it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _build_of(file)
        except (struct.error, ValueError):
            return None


def runs_without_avx2(path: Path) -> bool:
    """Whether it says of itself that it is a baseline build (Bun 1.3), for processors without AVX2."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _BASELINE.search(content) is not None


def _build_of(file: BinaryIO) -> Build | None:
    head = file.read(64)
    if head.startswith(_MACH_64):
        machine = _MACH_MACHINES.get(struct.unpack_from("<I", head, 4)[0])
        return Build("Darwin", machine) if machine else None
    if not head.startswith(_ELF_64_LITTLE):
        return None
    machine = _ELF_MACHINES.get(struct.unpack_from("<H", head, 18)[0])
    if machine is None:
        return None
    segments = _segments(file, head)
    return Build("Linux", machine, _loader(file, segments), _glibc(file, segments))


def _segments(file: BinaryIO, head: bytes) -> list[_Segment]:
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    found = []
    for number in range(min(count, _SEGMENTS_LIMIT)):
        kind, _, place, address, _, length = struct.unpack("<IIQQQQ", _at(file, offset + number * size, 40))
        found.append(_Segment(kind, place, address, length))
    return found


def _loader(file: BinaryIO, segments: list[_Segment]) -> str | None:
    segment = next((one for one in segments if one.kind == _PT_INTERP), None)
    if segment is None:
        return None
    return _at(file, segment.offset, min(segment.size, 4096)).rstrip(b"\0").decode(errors="replace")


def _glibc(file: BinaryIO, segments: list[_Segment]) -> tuple[int, int] | None:
    """The names of needed versions stand among the strings of the dynamic section."""
    segment = next((one for one in segments if one.kind == _PT_DYNAMIC), None)
    if segment is None:
        return None
    size = min(segment.size, _TABLE_LIMIT_BYTES) // 16 * 16
    entries: dict[int, int] = dict(struct.iter_unpack("<QQ", _at(file, segment.offset, size)))
    start = next(
        (
            one.offset + entries.get(_DT_STRTAB, 0) - one.address
            for one in segments
            if one.kind == _PT_LOAD and one.address <= entries.get(_DT_STRTAB, 0) < one.address + one.size
        ),
        None,
    )
    if start is None:
        return None
    strings = _at(file, start, min(entries.get(_DT_STRSZ, 0), _TABLE_LIMIT_BYTES))
    return max(((int(major), int(minor)) for major, minor in _GLIBC_VERSION.findall(strings)), default=None)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset > _OFFSET_LIMIT:
        raise ValueError("the header points far outside the file")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("the file ends inside its header")
    return data
