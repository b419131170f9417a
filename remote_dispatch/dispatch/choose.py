"""Which agent and which model a dispatch gets, decided before anything is changed on either side.

Order: the flag, the host's entry, what the session used itself if the host has it, the host's configured default.
OpenCode would fall back in silence: to the default agent, and without a provider to a hosted free model, a third party.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.model import Model
from remote_dispatch.opencode.catalogue import HOSTED_PROVIDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.model import DispatchRequest, Host, Origin
    from remote_dispatch.opencode.catalogue import Catalogue, Rule

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What OpenCode will be told at launch."""

    agent: str
    model: Model
    variant: str | None
    rules: tuple[Rule, ...] = ()
    """The agent's permission rules there."""


def choose(request: DispatchRequest, host: Host, origin: Origin | None, catalogue: Catalogue) -> Choice:
    """Choose agent, model and variant. Raises HostNotReadyError with what the host has."""
    agent = _agent(host.name, request.agent or host.agent, origin.agent if origin else None, catalogue)
    model = _model(host.name, request.model or host.model, origin.model if origin else None, catalogue)
    is_own_model = origin is not None and str(model) == origin.model
    own_variant = origin.variant if origin and is_own_model else None
    return Choice(agent, model, request.variant or host.variant or own_variant, catalogue.agents[agent].rules)


def _agent(host: str, asked: str | None, own: str | None, catalogue: Catalogue) -> str:
    usable = catalogue.primary_agents
    if asked is not None and asked not in usable:
        what = "is a sub-agent" if asked in catalogue.agents else "is not there"
        raise HostNotReadyError(
            host, f"agent `{asked}` {what}; it has {_listed(usable, asked)}", hint="name one with `--agent`"
        )
    for candidate in (asked, own, catalogue.default_agent, "build"):
        if candidate in usable:
            return str(candidate)
    raise HostNotReadyError(host, f"no agent to use; it has {_listed(usable, '')}", hint="name one with `--agent`")


def _model(host: str, asked: str | None, own: str | None, catalogue: Catalogue) -> Model:
    if asked is not None and asked not in catalogue.models:
        raise HostNotReadyError(
            host,
            f"model `{asked}` is not there; it has {_listed(catalogue.models, asked)}",
            hint="name one with `--model`",
        )
    # A hosted model of the session's own was not asked for here: the code would leave for a third party unseen.
    own = None if own is None or Model.parse(own).provider == HOSTED_PROVIDER else own
    for candidate in (asked, own, catalogue.default_model):
        if candidate in catalogue.models:
            return Model.parse(str(candidate))
    if not catalogue.own_models:
        raise HostNotReadyError(
            host,
            "OpenCode has no provider there; it would hand the conversation to a hosted free model",
            hint="log in on the host with `opencode auth login`, or ask for a hosted model by name with `--model`",
        )
    known = _listed(catalogue.own_models, own or "")
    raise HostNotReadyError(
        host, f"no model was asked for and none is the default; it has {known}", hint="name one with `--model`"
    )


def _listed(names: Sequence[str], wanted: str) -> str:
    """The names in words, the ones most like the wanted one first."""
    if not names:
        return "none"
    alike = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    ordered = [*alike, *(name for name in names if name not in alike)]
    more = len(ordered) - _LISTED
    return ", ".join(f"`{name}`" for name in ordered[:_LISTED]) + (f" and {more} more" if more > 0 else "")
