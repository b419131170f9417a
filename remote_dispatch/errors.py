"""Every error that a user can meet, with its exit code.

    RemoteDispatchError                 70  our bug, when it is raised as itself
    ├── UsageError                       2  the call makes no sense as it stands
    ├── TaskFailedError                  1  the task failed on the host, was lost or cancelled
    ├── TurnFailedError            1 3 6 7  a session's turn has not ended well: see `Failure`
    ├── LoginError                       4  the host did not let us in
    │   ├── AuthenticationError          4  no key was accepted
    │   └── HostKeyError                 4  the host key is unknown, changed or revoked
    ├── HostUnreachableError             5  no connection (retryable)
    │   └── ConnectionLostError          5  it was open and broke (retryable)
    ├── DeadlinePassedError              6  our waiting ended, the work goes on (retryable)
    ├── AnswerNeededError                7  a question cannot be put: there is no terminal
    ├── DivergedError                    8  the session moved on, or is held elsewhere
    ├── HostNotReadyError                9  OpenCode missing, model unknown, no space ...
    ├── UnknownNameError                10  no such host, session or dispatch
    ├── ConfigurationError              11  a hosts file or another setting is wrong
    ├── IntegrityError                  12  a copy is not equal to its source; both are kept
    ├── CommandError                     9  a foreign command failed
    └── StoppedWaitingError            130  the user stopped waiting, the work goes on

Errors carry facts. Only `cli` turns them into words on a screen. A message names hosts, never addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from remote_dispatch.failure import Failure


class RemoteDispatchError(Exception):
    """Base of all errors of this package.

    `message` is one lower-case sentence without a full stop; `hint` is what to do next, or None; `dispatch` is the id
    of the dispatch that it is about, where one is recorded.
    """

    exit_code: int = 70
    kind: str = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.dispatch: str | None = None


class UsageError(RemoteDispatchError):
    """The call makes no sense as it stands; nothing was changed."""

    exit_code = 2
    kind = "usage"


class TaskFailedError(RemoteDispatchError):
    """The task failed on the host, was lost or cancelled."""

    exit_code = 1
    kind = "task-failed"


class TurnFailedError(RemoteDispatchError):
    """A session's turn has not ended well, or waits for somebody. The failure says why, and is the `kind`."""

    def __init__(self, failure: Failure, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failure = failure
        self.kind = failure.value
        self.exit_code = failure.exit_code


class LoginError(RemoteDispatchError):
    """The host did not let us in."""

    exit_code = 4
    kind = "login"

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host


class AuthenticationError(LoginError):
    """No key was accepted."""

    kind = "authentication"


class HostKeyError(LoginError):
    """The host key cannot be trusted. `reason` is `unknown`, `changed`, `revoked` or `certificate` (not valid)."""

    kind = "host-key"

    def __init__(self, host: str, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(host, message, hint=hint)
        self.reason = reason


class HostUnreachableError(RemoteDispatchError):
    """No connection could be made. Trying again may help."""

    exit_code = 5
    kind = "unreachable"
    retryable = True

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host


class ConnectionLostError(HostUnreachableError):
    """The connection was open and broke. What runs on the host goes on."""

    kind = "connection-lost"


class DeadlinePassedError(RemoteDispatchError):
    """Our waiting ended; the work on the host goes on."""

    exit_code = 6
    kind = "deadline"
    retryable = True


class AnswerNeededError(RemoteDispatchError):
    """A question cannot be put: there is no terminal. Nothing was changed; the hint has the flag that answers."""

    exit_code = 7
    kind = "answer-needed"


class DivergedError(RemoteDispatchError):
    """The session moved on at both ends, or another dispatch holds it."""

    exit_code = 8
    kind = "diverged"


class HostNotReadyError(RemoteDispatchError):
    """The host cannot take the work: OpenCode missing, agent or model unknown, no space left."""

    exit_code = 9
    kind = "host-not-ready"

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host


class UnknownNameError(RemoteDispatchError):
    """No such host, session or dispatch. The message lists names only."""

    exit_code = 10
    kind = "unknown-name"


class ConfigurationError(RemoteDispatchError):
    """A hosts file or another setting is wrong. The message has file, line and field where they are known."""

    exit_code = 11
    kind = "configuration"


class IntegrityError(RemoteDispatchError):
    """A copy is not equal to its source. Both are kept, and the message says where."""

    exit_code = 12
    kind = "integrity"


class CommandError(RemoteDispatchError):
    """A foreign command failed.

    `where` is a host name or "this machine", `command` the public name of what ran, `exit_status` None when it was
    ended by a signal or a deadline, `output` its last lines, cleaned of control characters.
    """

    exit_code = 9
    kind = "command"

    def __init__(
        self, where: str, command: str, exit_status: int | None, output: str, *, hint: str | None = None
    ) -> None:
        status = "did not end in time" if exit_status is None else f"failed with exit status {exit_status}"
        detail = f": {output}" if output else ""
        super().__init__(f"{where}: `{command}` {status}{detail}", hint=hint)
        self.where = where
        self.command = command
        self.exit_status = exit_status
        self.output = output


class StoppedWaitingError(RemoteDispatchError):
    """The user stopped waiting; what was launched goes on."""

    exit_code = 130
    kind = "interrupted"
