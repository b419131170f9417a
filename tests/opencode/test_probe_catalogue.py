"""The catalogue is kept on the host: asked for again only when something it depends on has changed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.opencode.conftest import Box

LISTINGS = ["--version", "agent list", "debug config", "models"]
SECRET = "sk-very-secret-0123456789"


def _listings(box: Box) -> list[str]:
    return sorted(call for call in box.calls() if call in LISTINGS)


async def test_a_second_probe_starts_no_opencode(box: Box) -> None:
    box.install()
    first = await box.probe()
    assert _listings(box) == LISTINGS
    second = await box.probe()
    assert _listings(box) == LISTINGS
    assert (first.catalogue.is_cached, second.catalogue.is_cached) == (False, True)
    assert second.catalogue.models == first.catalogue.models
    assert second.catalogue.agents == first.catalogue.agents
    assert second.facts.opencode_version == first.facts.opencode_version
    assert second.facts.path == first.facts.path


def _change_configuration(box: Box) -> None:
    box.configuration.parent.mkdir(parents=True, exist_ok=True)
    box.configuration.write_text('{"model": "test/other"}')


def _change_project(box: Box) -> None:
    (box.home / "project" / "opencode.jsonc").write_text("{}")


def _change_project_agent(box: Box) -> None:
    agent = box.home / "project/.opencode/agent/reviewer.md"
    agent.parent.mkdir(parents=True)
    agent.write_text("---\nmode: primary\n---\n")


def _log_in(box: Box) -> None:
    credentials = box.home / ".local/share/opencode/auth.json"
    credentials.parent.mkdir(parents=True)
    credentials.write_text('{"provider": {"type": "api", "key": "k"}}')


def _change_binary(box: Box) -> None:
    binary = box.install_quick()
    binary.write_text(binary.read_text() + "# another version\n")


def _set_key(box: Box) -> None:
    box.environment["SOME_API_KEY"] = "x"


def _grow_old(box: Box) -> None:
    [kept] = box.cache.glob("catalogue-*")
    _, _, rest = kept.read_text().partition("\n")
    kept.write_text(f"listed {int(time.time()) - 90_000}\n{rest}")


@pytest.mark.parametrize(
    "change",
    [_change_configuration, _change_project, _change_project_agent, _log_in, _change_binary, _set_key, _grow_old],
)
async def test_what_the_catalogue_depends_on_makes_it_void(one_box: Box, change: Callable[[Box], None]) -> None:
    (one_box.home / "project").mkdir()
    one_box.install_quick()
    await one_box.probe("~/project")
    change(one_box)
    assert not (await one_box.probe("~/project")).catalogue.is_cached
    assert len(_listings(one_box)) == 2 * len(LISTINGS)


async def test_a_fresh_catalogue_can_be_asked_for(box: Box) -> None:
    box.install()
    await box.probe()
    box.set(STUB_MODELS="brand/new")
    assert "brand/new" not in (await box.probe()).catalogue.models
    assert (await box.probe(fresh=True)).catalogue.models == ("brand/new",)
    assert (await box.probe()).catalogue.models == ("brand/new",)


async def test_a_failing_listing_is_an_error_and_is_not_kept(box: Box) -> None:
    binary = box.install_quick()
    working = binary.read_text()
    box.put_program(binary, working.replace("#!/bin/sh\n", '#!/bin/sh\n[ "$1" = models ] && exit 1\n'))
    with pytest.raises(HostNotReadyError, match="could not list its models") as caught:
        await box.probe()
    assert caught.value.hint == "run `opencode models` on the host"
    assert list(box.cache.iterdir()) == []
    box.put_program(binary, working)
    assert (await box.probe()).catalogue.models


async def test_agents_that_cannot_be_listed_are_an_error(one_box: Box) -> None:
    binary = one_box.install_quick()
    text = binary.read_text().replace("#!/bin/sh\n", '#!/bin/sh\n[ "$1" = agent ] && exit 1\n')
    one_box.put_program(binary, text)
    with pytest.raises(HostNotReadyError, match="could not list its agents") as caught:
        await one_box.probe()
    assert caught.value.hint == "run `opencode agent list` on the host"


async def test_the_defaults_come_from_the_configuration(one_box: Box) -> None:
    _debug_config(one_box, {"model": "test/other", "default_agent": "plan", "agent": {"x": {"model": "not/this"}}})
    catalogue = (await one_box.probe()).catalogue
    assert (catalogue.default_model, catalogue.default_agent) == ("test/other", "plan")


async def test_no_secret_of_the_configuration_is_kept_or_sent(box: Box) -> None:
    box.configuration.parent.mkdir(parents=True)
    box.configuration.write_text(json.dumps({"provider": {"p": {"options": {"apiKey": SECRET}}}}))
    _debug_config(box, {"model": "test/model", "provider": {"p": {"options": {"apiKey": SECRET}}}})
    box.environment["SOME_API_KEY"] = SECRET
    box.environment["OPENCODE_SERVER_PASSWORD"] = SECRET
    answer = await box.answer("", "", "", "")
    assert b"own/model" in answer
    assert SECRET.encode() not in answer
    kept = [path for path in box.cache.rglob("*") if path.is_file()]
    assert kept
    assert all(SECRET.encode() not in path.read_bytes() for path in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (box.cache, *box.cache.rglob("*")))


async def test_probes_at_the_same_time_all_answer(one_box: Box) -> None:
    one_box.install_quick()
    many = await asyncio.gather(*(one_box.probe(fresh=number % 2 == 0) for number in range(4)))
    assert [probed.catalogue.models[0] for probed in many] == ["own/model"] * 4
    assert one_box.kept() == []


async def test_a_home_that_cannot_be_written_is_an_error(one_box: Box) -> None:
    one_box.install_quick()
    (one_box.home / ".cache").write_text("a file")
    with pytest.raises(HostNotReadyError, match="the probe did not end well"):
        await one_box.probe()


def _debug_config(box: Box, configuration: dict[str, object]) -> None:
    """Make `debug config` print this, as OpenCode does."""
    printed = box.root / "configuration.json"
    printed.write_text(json.dumps(configuration, indent=2))
    binary = box.install_quick()
    text = binary.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\n[ "$1" = debug ] && exec cat {printed}\n')
    box.put_program(binary, text)
