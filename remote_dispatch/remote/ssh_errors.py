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
from remote_dispatch.remote.trail import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.remote.ssh_config import Target

_CHANGED = (
    "stop: somebody may be between you and the host; ask its owner whether the key changed, compare the fingerprint, "
    "and only then remove the old key with `ssh-keygen -R`"
)
_NO_KEY = "check that `ssh -o BatchMode=yes` gets in; a key with a passphrase must be in the agent (`ssh-add`)"
_FEWER = "set `IdentitiesOnly yes` for this host in ~/.ssh/config"
_HOST_KEYS = {
    Problem.KEY_UNKNOWN: "the host key is unknown",
    Problem.KEY_CHANGED: "the host key is not the one that is known",
    Problem.KEY_REVOKED: "the host key is revoked",
    Problem.KEY_UNCERTIFIED: "the authority that is trusted for its host key does not vouch for it",
}
_REASONS: tuple[tuple[type[Exception], Problem, type[LoginError | HostUnreachableError], str], ...] = (
    (asyncssh.PermissionDenied, Problem.NOT_ACCEPTED, AuthenticationError, "no key was accepted"),
    (asyncssh.KeyExchangeFailed, Problem.NOTHING_IN_COMMON, LoginError,
     "no common host key type, cipher or key exchange"),
    (asyncssh.ProtocolNotSupported, Problem.NOT_SSH, LoginError, "no usable SSH server answered"),
    (asyncssh.ChannelOpenError, Problem.UNREACHABLE, HostUnreachableError, "the jump host could not reach it"),
    (asyncssh.ProtocolError, Problem.TOO_MANY_KEYS, AuthenticationError,
     "the host ended the login, too many keys may have been offered"),
    (asyncssh.Error, Problem.HUNG_UP, HostUnreachableError, "the connection was closed before the login"),
    (ConnectionResetError, Problem.HUNG_UP, HostUnreachableError, "the connection was closed before the login"),
    (BrokenPipeError, Problem.HUNG_UP, HostUnreachableError, "the connection was closed before the login"),
    (socket.gaierror, Problem.NO_SUCH_NAME, HostUnreachableError, "its address does not resolve"),
    (ConnectionRefusedError, Problem.REFUSED, HostUnreachableError, "nothing is listening there"),
    (OSError, Problem.UNREACHABLE, HostUnreachableError, "no connection could be made"),
    (Exception, Problem.SETTINGS, LoginError, "the connection settings or keys are not usable"),
)  # fmt: skip
_FROM_JUMP_HOST = (  # what sshd says of a port behind it: strerror's and getaddrinfo's words
    (re.compile(r"refused", re.IGNORECASE), Problem.REFUSED),
    (re.compile(r"not known|name resolution|no address", re.IGNORECASE), Problem.NO_SUCH_NAME),
)

_SENT_TO_NOBODY = "socket.send() raised exception."
"""What asyncio warns of, over and over, once a connection broke while much was on its way."""


def host_key_error(name: str, problem: Problem) -> HostKeyError:
    """Return the error for a key that is unknown, changed, revoked, or without the word of its authority."""
    hints = {
        Problem.KEY_UNKNOWN: f"run `remote-dispatch doctor {_host_of(name)} --fix`: it shows the key's fingerprint, "
        "and accepts the key on your word",
        Problem.KEY_CHANGED: _CHANGED,
        Problem.KEY_REVOKED: "stop: ask the owner of the host for its new key",
        Problem.KEY_UNCERTIFIED: "stop: ask the owner of the host to renew its host certificate",
    }
    return HostKeyError(name, problem.value, _HOST_KEYS[problem], hint=hints[problem])


def connect_error(name: str, error: Exception) -> RemoteDispatchError:
    """Return why no connection could be made."""
    kind, message = next((kind, message) for type_, _, kind, message in _REASONS if isinstance(error, type_))
    if isinstance(error, OSError) and error.errno in NETWORK_ERRORS:
        message = "not reachable"
    hint = {Problem.NOT_ACCEPTED: _NO_KEY, Problem.TOO_MANY_KEYS: _FEWER}.get(problem_of(error), _check(name))
    return kind(name, message, hint=hint)


def problem_of(error: Exception) -> Problem:
    """Return the same in one word, a little finer."""
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return Problem.NOT_FORWARDED
        return next((problem for words, problem in _FROM_JUMP_HOST if words.search(error.reason)), Problem.UNREACHABLE)
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return Problem.NO_NAME_SERVER
    return next(problem for type_, problem, _, _ in _REASONS if isinstance(error, type_))


def late(name: str) -> HostUnreachableError:
    """Return the error for a host that did not answer in time."""
    return HostUnreachableError(name, "no SSH login within the time limit", hint=_check(name))


def _check(name: str) -> str:
    return f"run `remote-dispatch doctor {_host_of(name)}`: it says what is wrong on the way there"


def _host_of(name: str) -> str:
    """Return the registry's name, also of `NAME (jump host)`."""
    return name.partition(" ")[0]


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
