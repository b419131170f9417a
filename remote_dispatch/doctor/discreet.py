"""Findings as everybody may read them: a host's own words are short and hold no address, wherever they got in. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from remote_dispatch.doctor.finding import Finding

_LONGEST = 1000


def discreet(finding: Finding) -> Finding:
    """Return the finding with `<address>` for each address, in texts of at most 1000 characters.

    A command that would hold one cannot be typed any more, so it is left out; a fix likewise, whose detail has one.
    """
    detail = {name: _discreet(text) for name, text in finding.detail.items()}
    return replace(
        finding,
        seen=_discreet(finding.seen),
        cure=_discreet(finding.cure) if finding.cure else finding.cure,
        command=finding.command if finding.command and _discreet(finding.command) == finding.command else None,
        fix=finding.fix if detail == finding.detail else None,
        detail=detail,
    )


def _discreet(text: str) -> str:
    return mask_addresses(clean(text, _LONGEST))
