"""What a check found, as values. Everything in a finding may be read by a model: names, never an address."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How much it matters; the order is that of growing harm."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing to do."""
    WARNING = "warning"
    """Works, but something will surprise."""
    ERROR = "error"
    """A `send` would fail, or lose something."""
    SKIPPED = "skipped"
    """Not looked at, because an earlier check failed."""


class Check(StrEnum):
    """What was looked at: stable words for scripts, in the order in which they are shown."""

    HOSTS_FILE = "hosts-file"
    OPENCODE_HERE = "opencode-here"
    DATABASE_HERE = "database-here"
    PLUGIN = "plugin"
    ENTRY = "entry"
    NAME = "name-resolves"
    PORT = "port"
    HOST_KEY = "host-key"
    LOGIN = "login"
    SHELL_NOISE = "shell-noise"
    SHELL = "shell"
    SFTP = "sftp"
    SERVER = "server"
    SERVER_LOGIN = "server-login"
    SERVER_MODELS = "server-models"
    SERVER_AGENTS = "server-agents"
    RUN_DIRECTORY = "run-directory"
    DISK_SPACE = "disk-space"
    OPENCODE = "opencode"
    VERSION = "version"
    CREDENTIALS = "credentials"
    MODEL = "model"
    AGENT = "agent"
    PERMISSIONS = "permissions"
    DIRECTORY = "directory"
    GIT = "git"
    CLOCK = "clock"
    LOGOUT = "logout"
    LEFTOVERS = "leftovers"
    SAME_MACHINE = "same-machine"


class Fix(StrEnum):
    """A safe cure that `doctor --fix` applies after asking."""

    ACCEPT_HOST_KEY = "accept-host-key"
    """Shows the fingerprint, and adds the key to known_hosts on the user's word."""
    FILE_MODE = "file-mode"
    """Takes the hosts file from everybody but its owner."""
    OPENCODE_FIELD = "opencode-field"
    """Writes the place where OpenCode was found into the host's entry."""
    SETUP = "setup"
    """Puts OpenCode on the host (`hosts setup`)."""
    PLUGIN = "plugin"
    """Brings the plugin up to date."""
    START_SERVER = "start-server"
    """Starts an OpenCode server for named sessions on the host (`session server start`)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    `seen` is one lower-case sentence; `cure` says what to do, `command` is the exact command to type for it (on the
    host when `is_there`). A finding that needs nothing has neither.
    """

    check: Check
    severity: Severity
    seen: str
    cure: str | None = None
    command: str | None = None
    is_there: bool = False
    """Whether the command is to be typed on the host."""
    fix: Fix | None = None
    detail: dict[str, str] = field(default_factory=dict)
    """What a fix needs, and what scripts may want besides; no addresses."""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one host, or, with `host` None, about this machine."""

    host: str | None
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """The worst of the findings; `ok` without any."""
        order = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in order if severity in found), Severity.OK)
