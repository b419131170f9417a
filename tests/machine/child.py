"""Runs library calls in a forked process: a failpoint really kills it, and it costs no start of Python."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Action = Callable[[], Awaitable[Any]]

DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: killed, refused with an error of ours, or well."""

    status: int
    """Exit status, negative after a signal."""
    error: str | None = None
    """The kind of the error that it raised."""
    message: str = ""
    value: Any = None

    @property
    def is_killed(self) -> bool:
        """Whether a failpoint killed it."""
        return self.status == -signal.SIGKILL


class Child:
    """A command under way."""

    def __init__(self, action: Action, environment: Mapping[str, str]) -> None:
        self._read, write = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; those of the test runner hold no lock that the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _become(action, environment, write)
        os.close(write)

    def finish(self) -> Ended:
        """Wait for its end. Raises TimeoutError for one that hangs: it is aborted then, which shows where it was."""
        end = time.monotonic() + DEADLINE_S
        said = b""
        while ready := select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
            chunk = os.read(ready[0], 65536)
            if not chunk:
                break
            said += chunk
        else:
            os.kill(self.pid, signal.SIGABRT)
        os.close(self._read)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status == -signal.SIGABRT:
            raise TimeoutError(f"a command did not end in {DEADLINE_S:g} s")
        return Ended(status, **json.loads(said)) if said else Ended(status)


def _become(action: Action, environment: Mapping[str, str], write: int) -> None:
    status = 70
    try:
        os.environ.clear()
        os.environ.update(environment)
        _say(write, **_outcome(action))
        status = 0
    except BaseException:
        _say(write, error="traceback", message=traceback.format_exc())
        raise
    finally:
        os._exit(status)


def _say(write: int, **values: Any) -> None:
    with open(write, "wb") as pipe:
        pipe.write(json.dumps(values).encode())


def _outcome(action: Action) -> dict[str, Any]:
    try:
        return {"value": asyncio.run(_awaited(action))}
    except RemoteDispatchError as error:
        return {"error": error.kind, "message": error.message}


async def _awaited(action: Action) -> Any:
    return await action()
