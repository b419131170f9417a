"""OpenCode's own listings, as OpenCode 1.18.33 prints them, read as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_dispatch.opencode.catalogue import Catalogue, parse_agents, parse_defaults, parse_models

SAMPLES = Path(__file__).parent / "samples"


def _sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def test_models_are_read_in_order() -> None:
    models = parse_models(_sample("models"))
    assert models[0] == "opencode/big-pickle"
    assert models[-2:] == ("scripted/large", "scripted/small")
    assert len(models) == 10


def test_lines_that_are_no_models_are_skipped() -> None:
    text = "\x1b[2mRefreshing\x1b[0m\n\n"
    text += "openrouter/a/b:free \r\n/home/ada/file\n--help/x\nnot a/model\nplain\nempty/\na/b\x1b[2J\n"
    assert parse_models(text) == ("openrouter/a/b:free",)


def test_agents_are_read_with_their_rules_in_order() -> None:
    agents = parse_agents(_sample("agent-list"))
    assert {name: agent.mode for name, agent in agents.items()} == {
        "build": "primary",
        "general": "subagent",
        "plan": "primary",
        "reviewer": "subagent",
        "title": "primary",
    }
    rules = agents["build"].rules
    assert rules[0] == {"permission": "*", "action": "allow", "pattern": "*"}
    own = {"permission": "bash", "pattern": "git *", "action": "ask"}
    assert own in agents["reviewer"].rules
    assert agents["reviewer"].rules.index(own) > agents["reviewer"].rules.index(
        {"permission": "bash", "pattern": "*", "action": "deny"}
    )


def test_the_probes_own_temporary_directory_is_no_rule_of_the_host() -> None:
    sample = _sample("agent-list")
    assert "probe.4711" in sample
    agents = parse_agents(sample)
    assert all("probe.4711" not in rule["pattern"] for agent in agents.values() for rule in agent.rules)
    assert "/home/ada/.local/share/opencode/tool-output/*" in {rule["pattern"] for rule in agents["build"].rules}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("nothing of the kind\n", []),
        ("build (primary)\n", ["build"]),
        ("build (primary)\n  [ cut", ["build"]),
        ('build (primary)\n  {"a": 1}\nplan (all)\n  [1, {"permission": "x"}]\n', ["build", "plan"]),
        ("my agent (v2) (primary)\n  []\n", ["my agent (v2)"]),
    ],
)
def test_odd_agents_have_no_rules(text: str, names: list[str]) -> None:
    agents = parse_agents(text)
    assert list(agents) == names
    assert all(agent.rules == () for agent in agents.values())


def test_rules_of_unexpected_types_are_left_out() -> None:
    agents = parse_agents('build (primary)\n  [{"permission": 1, "pattern": "*", "action": "ask"}]\n')
    assert agents["build"].rules == ()


def test_the_defaults_are_those_of_the_configuration_not_of_an_agent_in_it() -> None:
    assert parse_defaults(_sample("debug-config")) == {"model": "scripted/large", "default_agent": "plan"}
    assert parse_defaults('{\n  "agent": {\n    "x": {\n      "model": "a/b"\n    }\n  }\n}') == {}


def test_a_default_may_hold_anything_that_json_can() -> None:
    assert parse_defaults('  "model": "a/\\"b\\u00e9",\n') == {"model": 'a/"bé'}


def test_hosted_models_are_nobodys_own_and_hidden_agents_lead_nothing() -> None:
    catalogue = Catalogue(models=parse_models(_sample("models")), agents=parse_agents(_sample("agent-list")))
    assert catalogue.own_models == ("scripted/large", "scripted/small")
    assert catalogue.primary_agents == ("build", "plan")
