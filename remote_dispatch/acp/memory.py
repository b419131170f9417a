"""What the bridge knows of a conversation: what a new agent process must be told again after the old one is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.acp.lines import Message

OPENING = ("session/new", "session/load", "session/resume", "session/fork")
ENDING = ("session/close", "session/delete")
REPEATABLE = frozenset(
    {"initialize", "authenticate", "session/list", "session/set_mode", "session/set_model", "session/set_config_option"}
    | {*OPENING, *ENDING}
)
"""What may be asked again of a new process when the old one is gone. Never a prompt: tools may have run."""
_NAMED_OPTIONS = {"session/set_mode": ("mode", "modeId"), "session/set_model": ("model", "modelId")}


class Memory:
    """The editor's `initialize`, the sessions that are attached with their options, and the commands of each."""

    def __init__(self) -> None:
        self.hello: Message | None = None
        """What `initialize` was asked with; None before it was answered."""
        self.commands: dict[str, frozenset[str]] = {}
        """The names of the slash commands of a session, as far as they were announced."""
        self._sessions: dict[str, Message] = {}
        self._options: dict[str, dict[str, Any]] = {}

    def learn(self, method: str, params: Message, result: object) -> None:
        """Take note of a request that was answered well."""
        answered = result if isinstance(result, dict) else {}
        session = params.get("sessionId")
        if method == "initialize":
            self.hello = params
        elif method in OPENING:
            # A fork is a session of its own, beside the one that was asked for.
            self._attach(answered.get("sessionId") or session, params)
        elif method in ENDING and isinstance(session, str):
            self.forget(session)
        elif isinstance(session, str):
            self._choose(session, method, params)

    def hear(self, params: Message) -> None:
        """Take note of a `session/update`."""
        session, update = params.get("sessionId"), params.get("update")
        if not isinstance(session, str) or not isinstance(update, dict):
            return
        commands = update.get("availableCommands")
        if update.get("sessionUpdate") == "available_commands_update" and isinstance(commands, list):
            self.commands[session] = frozenset(str(one["name"]) for one in commands if _has_name(one))

    def forget(self, session: str) -> None:
        """A session is attached no more."""
        for known in (self._sessions, self._options, self.commands):
            known.pop(session, None)

    def attached(self) -> Iterator[tuple[str, Message]]:
        """Yield each session with the parameters of the `session/resume` that attaches it again."""
        yield from list(self._sessions.items())

    def chosen(self, session: str) -> Iterator[Message]:
        """Yield the parameters of each `session/set_config_option` that makes it as it was."""
        for name, choice in list(self._options.get(session, {}).items()):
            yield {"sessionId": session, "configId": name, **choice}

    def _attach(self, session: object, params: Message) -> None:
        if isinstance(session, str):
            self._sessions[session] = params | {"sessionId": session}

    def _choose(self, session: str, method: str, params: Message) -> None:
        if method == "session/set_config_option" and isinstance(params.get("configId"), str):
            choice = {name: one for name, one in params.items() if name not in ("sessionId", "configId", "_meta")}
            self._options.setdefault(session, {})[params["configId"]] = choice
        elif method in _NAMED_OPTIONS:
            option, field = _NAMED_OPTIONS[method]
            self._options.setdefault(session, {})[option] = {"value": params.get(field)}


def _has_name(command: object) -> bool:
    return isinstance(command, dict) and isinstance(command.get("name"), str)
