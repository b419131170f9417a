"""Permission rules for a run in which nobody can be asked: the session's own, and the override for OPENCODE_PERMISSION.

A rule is `{"permission", "pattern", "action"}`; the last rule that matches wins, across all permissions.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from remote_dispatch.model import PermissionAction, PermissionRules, Permissions
from remote_dispatch.transcript.shape import Transcript, with_info

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Rule = dict[str, Any]
Patterns = dict[str, PermissionAction]

NEVER = ("question", "plan_enter", "plan_exit")
"""Denied wherever nobody can be asked: `opencode run` would wait for the answer to a question for ever."""
_DENIALS = [{"permission": permission, "pattern": "*", "action": "deny"} for permission in NEVER]

_OUTSIDE = "external_directory"


def rules_from(rules: PermissionRules) -> list[Rule]:
    """Return a permission object as a list of rules."""
    return [
        {"permission": permission, "pattern": pattern, "action": action}
        for permission, value in rules.items()
        for pattern, action in _patterns(value).items()
    ]


def with_permissions(
    transcript: Transcript, rules: Sequence[Rule], policy: Permissions | None, *, can_ask: bool = False
) -> Transcript:
    """Return a copy with these rules added to the session's own, every `ask` decided, and the denials of NEVER last.

    Without a policy nothing is decided. Where somebody `can_ask` and refusing everything is not the policy, questions
    stay open too, which `opencode run` had denied. OpenCode 1.18 takes the rules at the first import of a session only.
    They win over the agent's rules.
    """
    own = transcript["info"].get("permission") or []
    if can_ask and policy is not Permissions.DENY:
        known = [*_without_denials_of_run(own), *rules]
        wanted = [{**rule, "action": _decided(rule["action"], policy)} for rule in known] if policy else known
        return transcript if wanted == own else with_info(transcript, permission=wanted)
    decided = [{**rule, "action": _decided(rule["action"], policy or Permissions.DENY)} for rule in (*own, *rules)]
    kept = [rule for rule in decided if rule["permission"] not in NEVER]
    return with_info(transcript, permission=[*kept, *_DENIALS])


def _without_denials_of_run(rules: Sequence[Rule]) -> list[Rule]:
    """OpenCode 1.18: `opencode run` denies these three in each session that it makes, as nobody was there to answer."""
    return [rule for rule in rules if rule not in _DENIALS] if all(one in rules for one in _DENIALS) else [*rules]


def permission_override(
    rules: Sequence[Rule], policy: Permissions, extra: PermissionRules | None, tool_output_pattern: str
) -> dict[str, Any]:
    """Return the JSON object for OPENCODE_PERMISSION on a host where the agent has these rules (`debug agent`).

    With `deny`, every permission that may ask is there with all its rules in order, `ask` turned into `deny`, and the
    directory of long tool outputs stays readable. With `auto` the runner passes `--auto`, which answers what is asked.
    `extra` comes on top, the denials of NEVER last. OpenCode 1.18 puts the override before an agent's own
    configuration: where that asks (`agent.NAME.permission`), only `agent_override` helps.
    """
    override: dict[str, Patterns] = _decided_asks(rules, policy) if policy is Permissions.DENY else {}
    if policy is Permissions.DENY and _OUTSIDE in override:
        override[_OUTSIDE] = _on_top(override[_OUTSIDE], {tool_output_pattern: "allow"})
    for permission, value in (extra or {}).items():
        wanted: Patterns = {pattern: _decided(action, policy) for pattern, action in _patterns(value).items()}
        override[permission] = _on_top(override.pop(permission, {}), wanted)
    kept = {name: _shortest(patterns) for name, patterns in override.items() if name not in NEVER}
    return {**kept, **dict.fromkeys(NEVER, "deny")}


def decisions(rules: Sequence[Rule], policy: Permissions) -> list[Rule]:
    """Return what has to follow these rules of an agent so that nothing of it asks any more; the rest stays as it is.

    With `deny` the questions and plan switches of NEVER are denied as well: nobody is there to answer.
    """
    never: PermissionRules = dict.fromkeys(NEVER, "deny") if policy is Permissions.DENY else {}
    kept = {name: patterns for name, patterns in _decided_asks(rules, policy).items() if name not in NEVER}
    return rules_from({**kept, **never})


def agent_override(agent: str, override: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object for OPENCODE_CONFIG_CONTENT that gives one agent the same override.

    Needed where the configuration gives this agent rules of its own: they come after OPENCODE_PERMISSION.
    """
    return {"agent": {agent: {"permission": dict(override)}}}


def _decided_asks(rules: Sequence[Rule], policy: Permissions) -> dict[str, Patterns]:
    """A wildcard that asks would, as the last rule, also deny what is allowed: then every permission is spelled out."""
    names = list(dict.fromkeys(rule["permission"] for rule in rules))
    effective = {name: _effective(name, rules) for name in names}
    wildcards = [name for name in names if "*" in name and _asks(effective[name])]
    plain = [name for name in names if "*" not in name and (wildcards or _asks(effective[name]))]
    return {name: _all_decided(effective[name], policy) for name in (*wildcards, *plain)}


def _effective(permission: str, rules: Sequence[Rule]) -> Patterns:
    patterns: Patterns = {}
    for rule in rules:
        if fnmatchcase(permission, rule["permission"].replace("[", "[[]")):
            patterns = _on_top(patterns, {rule["pattern"]: rule["action"]})
    return patterns


def _on_top(patterns: Patterns, later: Patterns) -> Patterns:
    """Return both, the later ones behind, without those that a later `*` or the same pattern makes void."""
    result = dict(patterns)
    for pattern, action in later.items():
        result = {} if pattern == "*" else result
        result.pop(pattern, None)
        result[pattern] = action
    return result


def _all_decided(patterns: Patterns, policy: Permissions) -> Patterns:
    return {pattern: _decided(action, policy) for pattern, action in patterns.items()}


def _shortest(patterns: Patterns) -> PermissionAction | Patterns:
    """OpenCode's configuration refuses patterns for some permissions, `webfetch` say, but takes one action for any."""
    return patterns["*"] if patterns.keys() == {"*"} else patterns


def _asks(patterns: Patterns) -> bool:
    return "ask" in patterns.values()


def _decided(action: PermissionAction, policy: Permissions) -> PermissionAction:
    if action != "ask":
        return action
    return "allow" if policy is Permissions.AUTO else "deny"


def _patterns(value: PermissionAction | Mapping[str, PermissionAction]) -> Patterns:
    return {"*": value} if isinstance(value, str) else dict(value)
