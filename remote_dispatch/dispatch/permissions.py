"""What OpenCode may do on the host, where nobody is there to be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch import transcript as transcripts
from remote_dispatch.model import Permissions

if TYPE_CHECKING:
    from remote_dispatch.dispatch.choose import Choice
    from remote_dispatch.model import DispatchRequest, Host, RemoteFacts
    from remote_dispatch.opencode.catalogue import Catalogue, Rule

CONFIGURATION = "OPENCODE_CONFIG_CONTENT"


@dataclass(frozen=True, slots=True)
class Permit:
    """`override` is the object for OPENCODE_PERMISSION; `environment` has what some agents need besides."""

    policy: Permissions | None
    """None leaves what would be asked for to whoever answers: for live dispatches only."""
    override: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] | None = None
    """The session's own rules, where they are not those of `override`."""

    @property
    def session_rules(self) -> tuple[Rule, ...]:
        """What is added to the rules that the session has."""
        return tuple(transcripts.rules_from(self.override)) if self.rules is None else self.rules


def permit(
    request: DispatchRequest, host: Host, choice: Choice, catalogue: Catalogue, facts: RemoteFacts, dispatch_id: str
) -> Permit:
    """Decide every permission that would be asked for.

    An agent's own configuration comes after OPENCODE_PERMISSION (OpenCode 1.18). For the leading agent the session's
    rules win over it; a sub-agent that would decide otherwise is named in OPENCODE_CONFIG_CONTENT.
    """
    policy = request.permissions or Permissions(host.permissions or Permissions.DENY)
    extra = request.permission_rules or host.permission_rules

    def override(rules: tuple[Rule, ...]) -> dict[str, Any]:
        own = (*rules, _scratch_rule(facts, dispatch_id))
        return transcripts.permission_override(own, policy, extra, tool_output_pattern(rules, facts))

    leading = override(choice.rules)
    others = {name: override(agent.rules) for name, agent in catalogue.agents.items() if agent.mode != "primary"}
    stubborn = {name: {"permission": one} for name, one in others.items() if not one.items() <= leading.items()}
    environment = {CONFIGURATION: json.dumps({"agent": stubborn})} if stubborn else {}
    return Permit(policy, leading, environment)


def permit_live(request: DispatchRequest, host: Host, choice: Choice) -> Permit:
    """Decide what a session on a server may do, by rules of its own: the server's environment is not ours.

    Without a word of the user, OpenCode asks as it does at home, and whoever looks after the session answers. What the
    agent is denied stays denied; sub-agents keep their own rules.
    """
    policy = request.permissions or (Permissions(host.permissions) if host.permissions else None)
    extra = transcripts.rules_from(request.permission_rules or host.permission_rules or {})
    decided = transcripts.decisions(choice.rules, policy) if policy else []
    return Permit(policy, {}, rules=(*decided, *extra))


def tool_output_pattern(rules: tuple[Rule, ...], facts: RemoteFacts) -> str:
    """Return the host's own rule for reading cut tool outputs, as OpenCode lists it among the agent's rules."""
    patterns = (rule["pattern"] for rule in rules if rule["permission"] == "external_directory")
    usual = str(facts.home / ".local/share/opencode/tool-output/*")
    return next((pattern for pattern in patterns if pattern.endswith("/tool-output/*")), usual)


def _scratch_rule(facts: RemoteFacts, dispatch_id: str) -> Rule:
    """OpenCode may read its own temporary directory, which the runner keeps apart for each dispatch."""
    pattern = str(facts.state_directory / dispatch_id / "tmp/opencode/*")
    return {"permission": "external_directory", "pattern": pattern, "action": "allow"}
