"""What a server offers in a directory, and whether what was asked for is among it: OpenCode does not check."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError, UsageError
from remote_dispatch.hosts.suggest import guess
from remote_dispatch.model import Model
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Offer, ServedAgent

_LONGEST_WORD = 100
_LONGEST_PATH = 4096
_USUAL_AGENT = "build"
"""OpenCode's own default, unless `default_agent` names another one (OpenCode 1.18)."""


@dataclass(frozen=True, slots=True)
class Offers:
    """The agents and models of a directory. `agent` and `model` are what OpenCode takes when none is named."""

    agents: tuple[ServedAgent, ...]
    offer: Offer
    agent: str
    model: str | None

    @property
    def primary(self) -> list[ServedAgent]:
        """The agents that can lead a session, the default first."""
        found = [one for one in self.agents if one.is_primary]
        return sorted(found, key=lambda one: one.name != self.agent)

    def agent_named(self, name: str | None) -> ServedAgent | None:
        """Return this agent; without a name the default one, as far as it is known."""
        return next((one for one in self.agents if one.name == (name or self.agent)), None)


async def offers(api: Api, directory: str) -> Offers:
    """Ask what there is in a directory. Raises what Api raises."""
    agents, offer, settings = await asyncio.gather(
        api.agents(directory), api.offer(directory), api.configuration(directory)
    )
    primary = [one.name for one in agents if one.is_primary]
    usual = _USUAL_AGENT if _USUAL_AGENT in primary or not primary else primary[0]
    asked, model = settings.get("default_agent"), settings.get("model")
    return Offers(agents, offer, asked if asked in primary else usual, model if isinstance(model, str) else None)


def check_agent(host: str, found: Offers, agent: str | None) -> None:
    """Raise HostNotReadyError when no session can be led by this agent; the message names what was meant."""
    names = [one.name for one in found.primary]
    if agent is None or agent in names:
        return
    is_sub_agent = any(one.name == agent and one.mode == "subagent" for one in found.agents)
    shown = clean(agent, _LONGEST_WORD)
    what = f"`{shown}` is a sub-agent" if is_sub_agent else f"there is no agent `{shown}`"
    raise HostNotReadyError(
        host, what, hint=guess(shown, names) or f"see what there is with `remote-dispatch session agents {host}`"
    )


def check_model(host: str, found: Offers, model: str | None) -> None:
    """Raise HostNotReadyError when the server does not offer this model, UsageError when it is none at all."""
    if model is None or model in found.offer.models:
        return
    try:
        Model.parse(model)
    except ValueError as error:
        raise UsageError(
            str(error), hint=_meant(model, found.offer.models) or f"see `remote-dispatch session models {host}`"
        ) from error
    raise HostNotReadyError(
        host,
        f"there is no model `{clean(model, _LONGEST_WORD)}`",
        hint=_meant(model, found.offer.models) or f"see what there is with `remote-dispatch session models {host}`",
    )


async def work_directory(api: Api, host: Host, asked: str | None) -> str:
    """Return the directory to work in: the asked one, the entry's, or the home there; absolute, `~` expanded.

    Raises HostNotReadyError when it is not there: OpenCode would take it silently.
    """
    wanted = asked or host.directory or "~"
    if wanted.startswith("/"):
        directory = wanted
    else:
        home = (await api.paths()).home.rstrip("/")
        rest = wanted.removeprefix("~").lstrip("/") if wanted == "~" or wanted.startswith("~/") else wanted
        directory = f"{home}/{rest}".rstrip("/")
    if not await api.has_directory(directory):
        raise HostNotReadyError(
            host.name,
            f"there is no directory `{clean(directory, _LONGEST_PATH)}`",
            hint="make it there, or name another one with `--directory`",
        )
    return directory


def _meant(model: str, models: Sequence[str]) -> str | None:
    """A model is often typed without its provider."""
    by_name = [one for one in models if one.partition("/")[2] == model]
    return f"did you mean `{by_name[0]}`?" if len(by_name) == 1 else guess(clean(model, _LONGEST_WORD), models)
