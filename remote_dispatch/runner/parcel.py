"""Many small files of a run directory as one: what an upload asks of the network is paid once."""

from __future__ import annotations

import gzip
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PARCEL_BYTES = 1_000_000
"""More than this is not put into one: large files are worth continuing where an upload broke."""
_NAME_BYTES = 100
"""As long as a name may be in every `tar`."""


def fitting(sizes: Mapping[str, int]) -> frozenset[str]:
    """Return the names of the files that travel in a parcel, the smallest first: all of them together are small."""
    names, room = set[str](), PARCEL_BYTES
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        room -= sizes[name]
        if room < 0:
            break
        if len(name.encode()) <= _NAME_BYTES:
            names.add(name)
    return frozenset(names)


def parcel(files: Mapping[str, bytes]) -> bytes:
    """Return a gzipped tar with these files, mode 0600; the same ones make the same bytes."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, BytesIO(content))
    return gzip.compress(packed.getvalue(), 6, mtime=0)
