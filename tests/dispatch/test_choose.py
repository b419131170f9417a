"""Agent and model: the flag, the host's entry, the session's own, the host's default; never a silent fallback."""

from __future__ import annotations

from typing import Any

import pytest

from remote_dispatch.dispatch.choose import Choice, choose
from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.model import Origin
from remote_dispatch.opencode.catalogue import Agent
from tests.dispatch.values import a_catalogue, a_host, a_request, rule


def _choice(
    *,
    flag: dict[str, Any] | None = None,
    entry: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
) -> Choice:
    origin = None if own is None else Origin.model_validate({"directory": "/x", **own})
    return choose(a_request(**(flag or {})), a_host(**(entry or {})), origin, a_catalogue(**(host or {})))


MODELS = {"flag": "own/large", "entry": "own/small", "own": "other/large", "host": "opencode/free"}
AGENTS = {"flag": "plan", "entry": "helper", "own": "mine", "host": "default"}


@pytest.mark.parametrize("first", list(MODELS))
def test_the_order_is_flag_entry_session_default(first: str) -> None:
    known = list(MODELS)[list(MODELS).index(first) :]
    agents = {name: Agent(name, "primary", (rule(name, "allow"),)) for name in AGENTS.values()}
    given: dict[str, dict[str, Any]] = {
        level: {"model": MODELS[level], "agent": AGENTS[level]} for level in known if level != "host"
    }
    host = {"agents": agents, "default_model": MODELS["host"], "default_agent": AGENTS["host"]}
    choice = _choice(**given, host=host)
    assert (str(choice.model), choice.agent) == (MODELS[first], AGENTS[first])
    assert choice.rules == (rule(AGENTS[first], "allow"),)


def test_what_the_session_used_is_left_behind_when_the_host_does_not_have_it() -> None:
    own = {"agent": "gone", "model": "gone/model", "variant": "high"}
    choice = _choice(own=own, host={"default_model": "own/small"})
    assert (choice.agent, str(choice.model), choice.variant) == ("build", "own/small", None)


def test_a_default_that_is_not_there_is_no_choice() -> None:
    with pytest.raises(HostNotReadyError, match="no model was asked for and none is the default") as caught:
        _choice(host={"default_model": "gone/model"})
    assert "`own/large`, `own/small`, `other/large`" in caught.value.message
    assert "opencode/free" not in caught.value.message


@pytest.mark.parametrize("where", ["flag", "entry"])
def test_what_was_asked_for_is_never_replaced(where: str) -> None:
    with pytest.raises(HostNotReadyError, match="model `own/larger` is not there; it has `own/large`"):
        _choice(**{where: {"model": "own/larger"}}, own={"model": "own/small"})
    with pytest.raises(HostNotReadyError, match="agent `biuld` is not there; it has `build`"):
        _choice(**{where: {"agent": "biuld", "model": "own/small"}})


def test_a_sub_agent_cannot_lead() -> None:
    with pytest.raises(HostNotReadyError, match="agent `general` is a sub-agent; it has `helper`, `build`, `plan`"):
        _choice(flag={"agent": "general", "model": "own/small"})


def test_a_sub_agent_of_the_session_is_no_candidate() -> None:
    assert _choice(flag={"model": "own/small"}, own={"agent": "general"}).agent == "build"


def test_the_sessions_own_hosted_model_was_not_asked_for_there() -> None:
    with pytest.raises(HostNotReadyError, match="no provider there"):
        _choice(own={"model": "opencode/free"}, host={"models": ("opencode/free",)})


@pytest.mark.parametrize("where", ["flag", "entry"])
def test_a_hosted_model_is_used_when_it_is_asked_for(where: str) -> None:
    only = {"models": ("opencode/free",)}
    assert str(_choice(**{where: {"model": "opencode/free"}}, host=only).model) == "opencode/free"


def test_a_host_without_a_provider_never_gets_the_conversation_by_itself() -> None:
    with pytest.raises(HostNotReadyError, match="no provider there") as caught:
        _choice(own={"model": "own/large"}, host={"models": ("opencode/free",)})
    assert "`opencode auth login`" in str(caught.value.hint)


def test_a_host_without_any_agent_is_an_error() -> None:
    with pytest.raises(HostNotReadyError, match="no agent to use; it has none"):
        _choice(flag={"model": "own/small"}, host={"agents": {}})


def test_long_lists_are_cut_and_the_likely_names_come_first() -> None:
    models = tuple(f"own/model-{number}" for number in range(50))
    with pytest.raises(HostNotReadyError, match=r"it has `own/model-4[0-9]?`") as caught:
        _choice(flag={"model": "own/model-4x"}, host={"models": models})
    assert caught.value.message.endswith("and 30 more")


def test_the_variant_of_the_session_stays_with_its_model() -> None:
    own = {"model": "own/large", "variant": "high"}
    assert _choice(own=own).variant == "high"
    assert _choice(own=own, flag={"model": "own/small"}).variant is None
    assert _choice(own=own, entry={"variant": "low"}).variant == "low"
    assert _choice(own=own, entry={"variant": "low"}, flag={"variant": "max"}).variant == "max"
