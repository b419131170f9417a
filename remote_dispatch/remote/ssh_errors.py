"""From asyncssh's and the system's errors to ours, by type and number. Their texts hold addresses and go nowhere."""

from __future__ import annotations

import logging
import re
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncssh

from remote_dispatch.errors import (
    AuthenticationError,
    ConnectionLostError,
    HostKeyError,
    HostNotReadyError,
    HostUnreachableError,
    LoginError,
    RemoteDispatchError,
)
from remote_dispatch.remote.files import NETWORK_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.remote.ssh_config import Target

CHECK = "check the host with `ssh`, then try again"
_ACCEPT = "connect once with `ssh` to accept the key, then try again"
_CHANGED = (
    "stop: somebody may be between you and the host; ask its owner whether the key changed, compare the fingerprint, "
    "and only then remove the old key with `ssh-keygen -R`"
)
_NO_KEY = "check that `ssh -o BatchMode=yes` gets in; a key with a passphrase must be in the agent (`ssh-add`)"
_REASONS: tuple[tuple[tuple[type[Exception], ...], type[LoginError | HostUnreachableError], str, str], ...] = (
    ((asyncssh.PermissionDenied,), AuthenticationError, "no key was accepted", _NO_KEY),
    ((asyncssh.KeyExchangeFailed,), LoginError, "no common host key type, cipher or key exchange", CHECK),
    ((asyncssh.ProtocolNotSupported,), LoginError, "no usable SSH server answered", CHECK),
    ((asyncssh.ChannelOpenError,), HostUnreachableError, "the jump host could not reach it", CHECK),
    (
        (asyncssh.ProtocolError,),
        AuthenticationError,
        "the host ended the login, too many keys may have been offered",
        "set `IdentitiesOnly yes` for this host in ~/.ssh/config",
    ),
    (
        (asyncssh.Error, ConnectionResetError, BrokenPipeError),
        HostUnreachableError,
        "the connection was closed before the login",
        CHECK,
    ),
)

_SENT_TO_NOBODY = "socket.send() raised exception."
"""What asyncio warns of, over and over, once a connection broke while much was on its way."""


def host_key_error(name: str, reason: str) -> HostKeyError:
    """Return the error for a key that is `unknown`, `changed` or `revoked`."""
    texts = {
        "unknown": ("the host key is unknown", _ACCEPT),
        "changed": ("the host key is not the one that is known", _CHANGED),
        "revoked": ("the host key is revoked", "stop: ask the owner of the host for its new key"),
    }
    message, hint = texts[reason]
    return HostKeyError(name, reason, message, hint=hint)


def connect_error(name: str, error: Exception) -> RemoteDispatchError:
    """Return why no connection could be made."""
    for types, kind, message, hint in _REASONS:
        if isinstance(error, types):
            return kind(name, message, hint=hint)
    if isinstance(error, OSError):
        return HostUnreachableError(name, _reason(error), hint=CHECK)
    return LoginError(name, "the connection settings or keys are not usable", hint=CHECK)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its address does not resolve"
    if isinstance(error, ConnectionRefusedError):
        return "nothing is listening there"
    if error.errno in NETWORK_ERRORS:
        return "not reachable"
    return "no connection could be made"


def late(name: str) -> HostUnreachableError:
    """Return the error for a host that did not answer in time."""
    return HostUnreachableError(name, "no SSH login within the time limit", hint=CHECK)


def lost(name: str) -> ConnectionLostError:
    """Return the error for a connection that broke."""
    return ConnectionLostError(name, "the connection was lost", hint="what runs there goes on; try again")


@contextmanager
def translated(name: str, connection: asyncssh.SSHClientConnection) -> Iterator[None]:
    """Turn what an open connection raises into our errors; a file's own errors pass (see `ssh_files`)."""
    try:
        yield
    except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost) as error:
        raise lost(name) from error
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():
            raise lost(name) from error
        raise HostNotReadyError(name, "it refuses another session", hint="end other sessions to it") from error
    except asyncssh.SFTPError:
        raise
    except (asyncssh.Error, ConnectionError) as error:
        raise lost(name) from error
    except OSError as error:
        # What ends the transport is raised as it is; a local file's errors have other numbers.
        if error.errno in NETWORK_ERRORS:
            raise lost(name) from error
        raise


class Redaction(logging.Filter):
    """Takes addresses out of what asyncssh logs, and drops asyncio's tracebacks of asyncssh errors: we report those."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, str] = {}

    def hide(self, target: Target) -> None:
        """From now on, show this target's name where its host, user or key files stood."""
        self._names.update(dict.fromkeys(target.secrets(), target.name))

    def clean(self, text: str) -> str:
        """Return text without the hidden words."""
        if not self._names:
            return text
        words = sorted(self._names, key=len, reverse=True)
        pattern = r"(?<![\w.-])(?:" + "|".join(map(re.escape, words)) + r")(?![\w-])"
        return re.sub(pattern, lambda match: self._names[match[0]], text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record in place; False for a traceback that is not for people."""
        if record.exc_info and isinstance(record.exc_info[1], asyncssh.Error | ConnectionError):
            return False
        if record.name == "asyncio" and record.msg == _SENT_TO_NOBODY:
            return False
        record.msg, record.args = self.clean(record.getMessage()), None
        return True


REDACTION = Redaction()


def quieten() -> None:
    """Pin asyncssh's loggers to warnings and clean them: at INFO it logs addresses, users and whole command lines."""
    for name in ("asyncssh", "asyncssh.sftp", "asyncio"):
        logger = logging.getLogger(name)
        logger.addFilter(REDACTION)
        if name != "asyncio":
            logger.setLevel(logging.WARNING)
