"""Programs made of bytes: tiny ones that run on Linux x86-64, and headers of those for other machines."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "1.18.33"
ILLEGAL_INSTRUCTION = b"\x0f\x0b"
GLIBC_X64 = "/lib64/ld-linux-x86-64.so.2"
GLIBC_ARM64 = "/lib/ld-linux-aarch64.so.1"
MUSL_X64 = "/lib/ld-musl-x86_64.so.1"
X64, ARM64 = 62, 183
_BASE = 0x400000
_HEADER, _SEGMENT = 64, 56


def tiny_program(version: str = VERSION, *, status: int = 0, code: bytes | None = None, tail: bytes = b"") -> bytes:
    """A static program that prints a version, whatever it is asked, and exits with a status; `tail` makes it larger."""
    text = f"{version}\n".encode()
    leave = b"\xb8\x3c\0\0\0\xbf" + struct.pack("<I", status) + b"\x0f\x05"
    after = b"\xba" + struct.pack("<I", len(text)) + b"\x0f\x05" + leave
    print_it = b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\x8d\x35" + struct.pack("<i", len(after)) + after
    content = (code or print_it) + text
    segment = (1, 5, 0, _BASE, _HEADER + _SEGMENT + len(content))
    return elf(X64, [segment], content) + tail


def linked_program(machine: int, loader: str, *strings: str) -> bytes:
    """A header that asks for a loader and names these strings in its dynamic section; it does not run."""
    names = b"\0" + b"\0".join(one.encode() for one in strings) + b"\0"
    start = _HEADER + 3 * _SEGMENT
    interpreter = loader.encode() + b"\0"
    dynamic_at = start + len(interpreter)
    names_at = dynamic_at + 3 * 16
    dynamic = struct.pack("<6Q", 5, _BASE + names_at, 10, len(names), 0, 0)
    content = interpreter + dynamic + names
    segments = [
        (3, 4, start, _BASE + start, len(interpreter)),
        (1, 5, 0, _BASE, start + len(content)),
        (2, 6, dynamic_at, _BASE + dynamic_at, len(dynamic)),
    ]
    return elf(machine, segments, content)


def elf(machine: int, segments: list[tuple[int, int, int, int, int]], content: bytes) -> bytes:
    """An ELF file of kind, flags, offset, address and size of each segment."""
    entry = _BASE + _HEADER + len(segments) * _SEGMENT
    rest = (2, machine, 1, entry, _HEADER, 0, 0, _HEADER, _SEGMENT, len(segments), 0, 0, 0)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *rest)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, 0x1000)
        for kind, flags, offset, address, size in segments
    )
    return head + table + content


def mach_program(machine: int) -> bytes:
    """The header of a program for macOS."""
    return b"\xcf\xfa\xed\xfe" + struct.pack("<I", machine) + bytes(56)


def put(path: Path, content: bytes) -> Path:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path
