"""What `opencode acp` says in 1.18.33, as shapes for its stand-in. The standard library alone."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]

VERSION = "1.18.33"
COMMANDS = ("init", "review")
OPTIONS = [
    {"optionId": "once", "kind": "allow_once", "name": "Allow once"},
    {"optionId": "always", "kind": "allow_always", "name": "Always allow"},
    {"optionId": "reject", "kind": "reject_once", "name": "Reject"},
]
CHOICES = {"model": ("scripted/small", "scripted/large"), "mode": ("build", "plan")}
CONFIGURATION: list[Raw] = [
    {
        "id": "model",
        "name": "Model",
        "category": "model",
        "type": "select",
        "currentValue": "scripted/large",
        "options": [{"value": one, "name": one} for one in CHOICES["model"]],
    },
    {
        "id": "mode",
        "name": "Mode",
        "category": "mode",
        "type": "select",
        "currentValue": "build",
        "options": [{"value": one, "name": one} for one in CHOICES["mode"]],
    },
]
CAPABILITIES = {
    "loadSession": True,
    "mcpCapabilities": {"http": True, "sse": True},
    "promptCapabilities": {"embeddedContext": True, "image": True},
    "sessionCapabilities": {"close": {}, "fork": {}, "list": {}, "resume": {}},
}


class RpcError(Exception):
    """The answer to a request is this error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


def ended(reason: str, tokens: int) -> Raw:
    """Return the result of a prompt."""
    usage = {"inputTokens": tokens - tokens // 3, "outputTokens": tokens // 3, "totalTokens": tokens}
    return {"stopReason": reason, "usage": usage, "_meta": {}}


def chunk(kind: str, text: str) -> Raw:
    """Return the update for a piece of text."""
    return {"sessionUpdate": kind, "messageId": "msg_1", "content": {"type": "text", "text": text}}
