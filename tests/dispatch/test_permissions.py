"""Nobody can be asked on the host: every permission is decided before, for the leading agent and for sub-agents."""

from __future__ import annotations

import json
from typing import Any

from remote_dispatch.dispatch.choose import Choice
from remote_dispatch.dispatch.permissions import Permit, permit, permit_live, tool_output_pattern
from remote_dispatch.model import Model, Permissions
from remote_dispatch.opencode.catalogue import Agent
from tests.dispatch.values import ALLOW, DISPATCH_ID, TOOL_OUTPUT, a_catalogue, a_host, a_request, rule, the_facts

ASKS_OUTSIDE = rule("external_directory", "ask")
BUILD = (ALLOW, ASKS_OUTSIDE, TOOL_OUTPUT)
SCRATCH = f"/home/ada/.local/state/remote-dispatch/runs/{DISPATCH_ID}/tmp/opencode/*"


def _permit(
    *others: Agent, rules: tuple[dict[str, Any], ...] = BUILD, entry: dict[str, Any] | None = None, **asked: Any
) -> Permit:
    agents = {agent.name: agent for agent in (Agent("build", "primary", rules), *others)}
    choice = Choice("build", Model("own", "large"), None, rules)
    host = a_host(**(entry or {}))
    return permit(a_request(**asked), host, choice, a_catalogue(agents=agents), the_facts(), DISPATCH_ID)


def _sub_agents(permitted: Permit) -> dict[str, Any]:
    agents: dict[str, Any] = json.loads(permitted.environment["OPENCODE_CONFIG_CONTENT"])["agent"]
    return agents


def test_what_would_be_asked_for_is_denied_and_long_outputs_stay_readable() -> None:
    permitted = _permit()
    assert permitted.policy is Permissions.DENY
    outside = permitted.override["external_directory"]
    assert outside == {"*": "deny", TOOL_OUTPUT["pattern"]: "allow", SCRATCH: "allow"}
    assert permitted.override["question"] == "deny"
    assert permitted.environment == {}


def test_auto_grants_what_would_be_asked_for_but_never_a_question() -> None:
    permitted = _permit(permissions="auto")
    assert permitted.policy is Permissions.AUTO
    assert permitted.override.keys() == {"question", "plan_enter", "plan_exit"}


def test_the_flag_wins_over_the_hosts_entry() -> None:
    assert _permit(entry={"permissions": "auto"}).policy is Permissions.AUTO
    assert _permit(entry={"permissions": "auto"}, permissions="deny").policy is Permissions.DENY
    entry = {"permission_rules": {"bash": "deny"}}
    assert _permit(entry=entry).override["bash"] == "deny"
    assert _permit(entry=entry, permission_rules={"bash": "allow"}).override["bash"] == "allow"


def test_a_sub_agent_that_asks_gets_an_override_of_its_own() -> None:
    asking = Agent("reviewer", "subagent", (*BUILD, rule("bash", "deny"), rule("bash", "ask", "git *")))
    permitted = _permit(asking)
    assert "bash" not in permitted.override
    assert _sub_agents(permitted).keys() == {"reviewer"}
    assert _sub_agents(permitted)["reviewer"]["permission"]["bash"] == {"*": "deny", "git *": "deny"}


def test_a_sub_agent_that_asks_for_nothing_more_gets_none() -> None:
    assert _permit(Agent("general", "subagent", BUILD)).environment == {}


def test_another_leading_agent_gets_none() -> None:
    assert _permit(Agent("plan", "primary", (*BUILD, rule("edit", "ask")))).environment == {}


def test_rules_that_were_asked_for_reach_sub_agents_too() -> None:
    asking = Agent("reviewer", "subagent", (*BUILD, rule("bash", "ask")))
    permitted = _permit(asking, permission_rules={"bash": {"*": "deny", "make *": "allow"}})
    assert permitted.override["bash"] == {"*": "deny", "make *": "allow"}
    assert _sub_agents_or_none(permitted).get("reviewer", {}).get("permission", permitted.override)["bash"] == {
        "*": "deny",
        "make *": "allow",
    }


def _sub_agents_or_none(permitted: Permit) -> dict[str, Any]:
    return _sub_agents(permitted) if permitted.environment else {}


def test_the_directory_of_long_outputs_is_the_hosts_own() -> None:
    moved = {**TOOL_OUTPUT, "pattern": "/data/opencode/tool-output/*"}
    assert tool_output_pattern((ALLOW, moved), the_facts()) == "/data/opencode/tool-output/*"
    assert tool_output_pattern((ALLOW,), the_facts()) == TOOL_OUTPUT["pattern"]


# --- live dispatches, where somebody can be asked


def _live(rules: tuple[dict[str, Any], ...] = BUILD, **asked: Any) -> Permit:
    return permit_live(a_request(is_live=True, **asked), a_host(), Choice("build", Model("own", "large"), None, rules))


def test_without_a_word_of_the_user_a_live_session_asks_as_at_home() -> None:
    permitted = _live()
    assert (permitted.policy, permitted.session_rules, permitted.override) == (None, (), {})
    assert _live(permission_rules={"bash": "ask"}).session_rules == (rule("bash", "ask"),)


def test_a_live_session_is_granted_what_it_would_ask_for_and_nothing_that_it_is_denied() -> None:
    permitted = _live((ALLOW, rule("edit", "deny"), ASKS_OUTSIDE), permissions=Permissions.AUTO)
    assert rule("external_directory", "allow") in permitted.session_rules
    assert not [one for one in permitted.session_rules if one["permission"] in ("*", "edit")]


def test_a_live_session_is_denied_what_it_would_ask_for_where_the_user_wants_that() -> None:
    permitted = _live(permissions=Permissions.DENY)
    assert rule("external_directory", "deny") in permitted.session_rules
