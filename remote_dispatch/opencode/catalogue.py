"""What an OpenCode offers: models, agents with their permission rules, defaults. Parsed from its own listings."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from remote_dispatch.model import Model

Rule = dict[str, Any]
"""One permission rule as OpenCode lists it: `{"permission": "bash", "pattern": "*", "action": "ask"}`."""

_PROBE_SCRATCH = re.compile(r"/remote-dispatch/probe\.\d+/opencode/")
_AGENT = re.compile(r"^(?P<name>\S.*) \((?P<mode>primary|subagent|all)\)\s*$", re.MULTILINE)
HIDDEN_AGENTS = frozenset({"compaction", "summary", "title"})
"""OpenCode's own, for its own purposes: listed as primary, offered to nobody (OpenCode 1.18)."""
HOSTED_PROVIDER = "opencode"
"""OpenCode's own hosted models. Without any other provider it falls back to a free one: a third party."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, and its permission rules in order (the last match wins)."""

    name: str
    mode: str
    rules: tuple[Rule, ...] = ()

    @property
    def is_primary(self) -> bool:
        """Whether a session can be led by it."""
        return self.mode != "subagent" and self.name not in HIDDEN_AGENTS


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The answer of one probe. `is_cached` tells that it may be up to a day old."""

    models: tuple[str, ...] = ()
    agents: dict[str, Agent] = field(default_factory=dict)
    default_model: str | None = None
    default_agent: str | None = None
    is_cached: bool = False

    @property
    def own_models(self) -> tuple[str, ...]:
        """The models of providers that the host's user configured."""
        return tuple(model for model in self.models if Model.parse(model).provider != HOSTED_PROVIDER)

    @property
    def primary_agents(self) -> tuple[str, ...]:
        """The names of the agents that can lead a session."""
        return tuple(agent.name for agent in self.agents.values() if agent.is_primary)


def parse_models(text: str) -> tuple[str, ...]:
    """Read `opencode models`: one `provider/id` a line; other lines are skipped."""
    return tuple(line for line in (one.strip() for one in text.splitlines()) if _is_model(line))


def parse_agents(text: str) -> dict[str, Agent]:
    """Read `opencode agent list`: a line `name (mode)`, then its rules as indented JSON."""
    heads = list(_AGENT.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    agents = (
        Agent(head["name"], head["mode"], _rules(text[head.end() : end]))
        for head, end in zip(heads, ends, strict=False)
    )
    return {agent.name: agent for agent in agents}


def parse_defaults(text: str) -> dict[str, str]:
    """Read `model` and `default_agent` of `opencode debug config`; an agent's own model stands deeper in it."""
    pairs = re.findall(r'^ {2}"(model|default_agent)":\s*("(?:[^"\\]|\\.)*")', text, re.MULTILINE)
    return {key: json.loads(value) for key, value in pairs}


def _is_model(line: str) -> bool:
    try:
        Model.parse(line)
    except ValueError:
        return False
    return True


def _rules(text: str) -> tuple[Rule, ...]:
    try:
        rules = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(rules, list):
        return ()
    return tuple(rule for rule in rules if isinstance(rule, dict) and _is_rule(rule))


def _is_rule(rule: Rule) -> bool:
    """The temporary directory of the probe itself stands among the rules, too: it is gone by then."""
    is_whole = all(isinstance(rule.get(key), str) for key in ("permission", "pattern", "action"))
    return is_whole and not _PROBE_SCRATCH.search(rule["pattern"])
