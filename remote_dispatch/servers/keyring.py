"""The login of a server that somebody else keeps: from variables, or printed by a command of the hosts file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remote_dispatch.errors import CommandError, ConfigurationError, DeadlinePassedError
from remote_dispatch.remote.local import NAME as THIS_MACHINE
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.wire import Login

USER_VARIABLE = "OPENCODE_SERVER_USERNAME"
PASSWORD_VARIABLE = "OPENCODE_SERVER_PASSWORD"  # noqa: S105 - the name of a variable
PASSWORD_S = 15.0
_WORDS = 200


class Keyring:
    """The login of a server that is not ours, asked for once."""

    def __init__(self, host: Host, environment: Mapping[str, str]) -> None:
        self._host = host
        self._environment = environment
        self._asked: asyncio.Task[str | None] | None = None

    async def login(self) -> Login | None:
        """Return it; None where no password is set. Raises ConfigurationError and CommandError."""
        from remote_dispatch.opencode.wire import DEFAULT_USER, Login  # noqa: PLC0415 - httpx is not for who only lists names

        user = self._host.server_user or self._environment.get(USER_VARIABLE) or DEFAULT_USER
        password = await self._password()
        return None if password is None else Login(user, password)

    @property
    def hint(self) -> str:
        """Where the password is looked for."""
        if self._host.server_password_env:
            return f"its password is taken from the variable {self._host.server_password_env}"
        if self._host.server_password_command:
            return "its password is what `server_password_command` of its entry prints"
        return f"set {PASSWORD_VARIABLE}, or `server_password_env` or `server_password_command` of its entry"

    async def _password(self) -> str | None:
        host = self._host
        if host.server_password_env:
            if found := self._environment.get(host.server_password_env):
                return found
            raise ConfigurationError(
                f"{host.name}: the variable {host.server_password_env}, which has its server's password, is not set"
            )
        if not host.server_password_command:
            return self._environment.get(PASSWORD_VARIABLE) or None
        if self._asked is None or (self._asked.done() and (self._asked.cancelled() or self._asked.exception())):
            self._asked = asyncio.create_task(_printed(host.server_password_command, self._environment))
        return await asyncio.shield(self._asked)


async def _printed(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command of the hosts file, without a shell's reading of it, and return the first line that it prints."""
    try:
        done = await LocalConnection(environment=environment).run('exec "$@"', *command, timeout_s=PASSWORD_S)
    except DeadlinePassedError:
        raise CommandError(THIS_MACHINE, "server_password_command", None, "") from None
    if done.exit_status:
        words = clean(mask_addresses(done.stderr.decode(errors="replace").strip()), _WORDS)
        raise CommandError(THIS_MACHINE, "server_password_command", done.exit_status, words)
    line = done.stdout.decode(errors="replace").partition("\n")[0].rstrip("\r")
    if not line:
        raise CommandError(THIS_MACHINE, "server_password_command", 0, "it printed no password")
    return line
