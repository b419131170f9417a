"""Rules for a run in which nobody can be asked."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.model import Permissions
from remote_dispatch.transcript import agent_override, permission_override, rules_from, with_permissions
from tests.transcript.samples import exported, session

OUTPUTS = "/home/ada/.local/share/opencode/tool-output/*"
NEVER = {"question": "deny", "plan_enter": "deny", "plan_exit": "deny"}


def _rule(permission: str, pattern: str, action: str) -> dict[str, Any]:
    return {"permission": permission, "pattern": pattern, "action": action}


BUILD = [
    _rule("*", "*", "allow"),
    _rule("doom_loop", "*", "ask"),
    _rule("external_directory", "*", "ask"),
    _rule("external_directory", "/tmp/opencode/*", "allow"),
    _rule("question", "*", "deny"),
    _rule("read", "*", "allow"),
    _rule("read", "*.env", "ask"),
    _rule("read", "*.env.example", "allow"),
    _rule("question", "*", "allow"),
]
"""The rules of the agent `build` of OpenCode 1.18 as `debug agent` prints them, shortened."""


def _override(rules: list[dict[str, Any]], policy: Permissions = Permissions.DENY, extra: Any = None) -> dict[str, Any]:
    return permission_override(rules, policy, extra, OUTPUTS)


def _decision(rules: list[dict[str, Any]], permission: str, target: str) -> str:
    """OpenCode's rule: the last match wins."""
    matching = [
        one for one in rules if fnmatchcase(permission, one["permission"]) and fnmatchcase(target, one["pattern"])
    ]
    return str(matching[-1]["action"]) if matching else "ask"


def test_what_would_be_asked_is_denied_and_what_is_allowed_stays_allowed() -> None:
    assert _override(BUILD) == {
        "doom_loop": "deny",
        "external_directory": {"*": "deny", "/tmp/opencode/*": "allow", OUTPUTS: "allow"},
        "read": {"*": "allow", "*.env": "deny", "*.env.example": "allow"},
        **NEVER,
    }


def test_the_order_of_patterns_is_kept() -> None:
    override = _override(
        [_rule("bash", "g*", "allow"), _rule("bash", "git *", "ask"), _rule("bash", "git log", "allow")]
    )
    assert list(override["bash"].items()) == [("g*", "allow"), ("git *", "deny"), ("git log", "allow")]


def test_rules_that_a_later_star_makes_void_are_gone() -> None:
    """OpenCode merges the override into the configured object, whose order stays: a void rule would count again."""
    override = _override([_rule("bash", "*", "ask"), _rule("bash", "git *", "allow")], extra={"bash": "deny"})
    assert override["bash"] == "deny"


def test_an_ask_that_a_later_rule_lifts_is_no_ask() -> None:
    assert _override([_rule("bash", "*", "ask"), _rule("*", "*", "allow")]) == NEVER


def test_a_wildcard_that_asks_denies_only_what_nothing_else_allows() -> None:
    override = _override([_rule("*", "*", "ask"), _rule("read", "*", "allow")])
    assert next(iter(override)) == "*"
    assert _decision(rules_from(override), "read", "a.py") == "allow"
    assert _decision(rules_from(override), "bash", "ls") == "deny"


def test_auto_leaves_the_asks_to_opencode() -> None:
    assert _override(BUILD, Permissions.AUTO) == NEVER


def test_extra_rules_come_on_top() -> None:
    override = _override(BUILD, extra={"read": {"secret": "deny", "*.env": "allow"}, "bash": "deny", "edit": "ask"})
    assert list(override["read"].items()) == [
        ("*", "allow"),
        ("*.env.example", "allow"),
        ("secret", "deny"),
        ("*.env", "allow"),
    ]
    assert override["bash"] == "deny"
    assert override["edit"] == "deny"


def test_no_extra_rule_brings_back_the_question_tool() -> None:
    for policy in Permissions:
        assert _override(BUILD, policy, {"question": "allow"})["question"] == "deny"


def test_an_agents_own_rules_need_the_override_under_its_name() -> None:
    assert agent_override("build", {"bash": "deny"}) == {"agent": {"build": {"permission": {"bash": "deny"}}}}


_RULES = st.lists(
    st.builds(
        _rule,
        st.sampled_from(["*", "bash", "read", "edit", "external_directory"]),
        st.sampled_from(["*", "a*", "*b", "ab"]),
        st.sampled_from(["allow", "ask", "deny"]),
    ),
    max_size=8,
)


@given(_RULES)
def test_with_the_override_every_decision_is_the_old_one_and_an_ask_becomes_a_denial(
    rules: list[dict[str, Any]],
) -> None:
    base = [_rule("*", "*", "allow"), *rules]
    together = [*base, *rules_from(_override(base))]
    for permission in ("bash", "read", "edit", "external_directory", "webfetch"):
        for target in ("a", "b", "ab", "ba", "c"):
            expected = _decision(base, permission, target).replace("ask", "deny")
            assert _decision(together, permission, target) == expected


def test_the_session_itself_carries_the_rules_and_the_denials_last() -> None:
    transcript = session(permission=[_rule("bash", "*", "ask"), _rule("question", "*", "allow")])
    rules = with_permissions(transcript, [_rule("edit", "*", "ask")], Permissions.DENY)["info"]["permission"]
    denials = [_rule(permission, "*", "deny") for permission in NEVER]
    assert rules == [_rule("bash", "*", "deny"), _rule("edit", "*", "deny"), *denials]


def test_auto_turns_the_sessions_asks_into_leave() -> None:
    transcript = session(permission=[_rule("bash", "*", "ask"), _rule("edit", "*", "deny")])
    rules = with_permissions(transcript, [], Permissions.AUTO)["info"]["permission"]
    assert rules[:2] == [_rule("bash", "*", "allow"), _rule("edit", "*", "deny")]


def test_sending_a_session_again_adds_no_rule_twice() -> None:
    once = with_permissions(exported("open-call"), [], Permissions.DENY)
    assert with_permissions(once, [], Permissions.DENY) == once == exported("open-call")


def test_where_somebody_can_be_asked_the_denials_of_opencode_run_are_left_out() -> None:
    of_run, mine = [_rule(name, "*", "deny") for name in NEVER], _rule("bash", "rm *", "deny")
    assert with_permissions(session(permission=[mine, *of_run]), [], None, can_ask=True)["info"]["permission"] == [mine]
    own = session(permission=[mine, of_run[0]])
    assert with_permissions(own, [], None, can_ask=True) is own
    asked = session(permission=[_rule("bash", "*", "ask"), *of_run])
    granted = with_permissions(asked, [], Permissions.AUTO, can_ask=True)["info"]["permission"]
    assert granted == [_rule("bash", "*", "allow")]
    refused = with_permissions(asked, [], Permissions.DENY, can_ask=True)["info"]["permission"]
    assert refused == [_rule("bash", "*", "deny"), *of_run]
