"""Reading and replacing one hosts file. Reading is bounded and never blocks; replacing is all or nothing."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
LOCK_TIMEOUT_S = 10.0


class UnreadableError(ValueError):
    """The file is there and cannot be a hosts file. The message repeats nothing of it."""


def read_text(path: Path) -> str | None:
    """Return the whole text without its byte order mark, or None when there is no such file.

    Raises UnreadableError as `read_bytes` and `decoded` do.
    """
    content = read_bytes(path)
    return None if content is None else decoded(content)


def read_bytes(path: Path) -> bytes | None:
    """Return the whole content, or None when there is no such file.

    Raises UnreadableError for a directory, FIFO or device, over 1 MiB, a file that everybody may write to, and whatever
    the system refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read ({_reason(error)})") from error
    try:
        _check_kind(os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise UnreadableError("is larger than 1 MiB")
    return content


def decoded(content: bytes) -> str:
    """Return the text without its byte order mark. Raises UnreadableError for what is not UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise UnreadableError("is not UTF-8 text (UTF-16, it seems); save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(f"is not UTF-8 text (line {line}); save it as UTF-8") from None


def real(path: Path) -> Path:
    """Return the path with symlinks followed; a loop of them stays as it is."""
    return Path(os.path.realpath(path))


def replace_text(path: Path, text: str, *, new_mode: int = 0o600) -> None:
    """Write beside, flush to disk, rename. A symlink stays and its target is replaced; mode and owner stay.

    Raises ConfigurationError; then the old file is untouched.
    """
    try:
        _replace(real(path), text.encode(), new_mode)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({_reason(error)})", hint="check the directory's owner and free space"
        ) from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory against other edits by this program, making it (0700) when it is missing.

    Raises ConfigurationError when another edit holds it for ten seconds. A file system without locks has none.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be used ({_reason(error)})") from error
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("is not a regular file")
    if status.st_size > MAX_BYTES:
        raise UnreadableError("is larger than 1 MiB")
    if status.st_mode & stat.S_IWOTH:
        raise UnreadableError("may be written by every user of this machine; run `chmod o-w` on it")


def _replace(target: Path, content: bytes, new_mode: int) -> None:
    import secrets  # noqa: PLC0415 - 6 ms that only a change pays

    old = target.stat() if target.exists() else None
    beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            _take_after(file.fileno(), old, new_mode)
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _flush_directory(target.parent)


def _take_after(descriptor: int, old: os.stat_result | None, new_mode: int) -> None:
    if old:
        with contextlib.suppress(PermissionError):  # only root may give a file away
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if old else new_mode)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # network file systems may refuse to lock a directory
            return None
    raise ConfigurationError(f"another program is editing {directory}", hint="wait for it to end, then try again")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or "bad name").lower()
