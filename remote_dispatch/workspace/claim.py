"""What the host says that it sends back: the file `back-code`. It is a claim until the parcel was looked at. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT_BYTES = 1_000_000
MOST_BRANCHES = 1000
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# The rules of `git check-ref-format`, and no leading dash.
_BAD_BRANCH = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|\.lock(?:/|$)|[/.]$|^@$|^HEAD$|[\ud800-\udfff]|^$"
)
_NAME_LIMIT = 240


@dataclass(frozen=True, slots=True)
class Claim:
    """Ids of commits, well-formed and no more."""

    result: str | None = None
    """The agent's work, with a last commit of what was not committed; None where the host has no git."""
    head: str | None = None
    """What the agent itself committed last."""
    branches: Mapping[str, str] = field(default_factory=dict)
    """Further branches that the agent made: short name to id."""
    left_out: int = 0
    """How many files stayed there."""

    @property
    def ids(self) -> frozenset[str]:
        """All ids that are named."""
        return frozenset({*self.branches.values(), *(one for one in (self.result, self.head) if one)})


def read_claim(content: bytes) -> Claim:
    """Read `key value` lines; unknown keys are passed over. Raises IntegrityError for anything malformed."""
    if len(content) > LIMIT_BYTES:
        raise IntegrityError("the host's list of results is too long")
    words = [line.split(" ") for line in content.decode("utf-8", "surrogateescape").splitlines() if line]
    single = {line[0]: line[1] for line in words if len(line) == 2}
    branches = {line[1]: line[2] for line in words if len(line) == 3 and line[0] == "branch"}
    claim = Claim(single.get("result"), single.get("head"), branches, _number(single.get("left_out", "0")))
    _check(claim)
    return claim


def write_claim(claim: Claim) -> bytes:
    """Return the lines that `read_claim` reads."""
    lines = [f"{key} {value}" for key, value in (("result", claim.result), ("head", claim.head)) if value]
    lines += [f"branch {name} {one}" for name, one in sorted(claim.branches.items())]
    return "".join(f"{line}\n" for line in (*lines, f"left_out {claim.left_out}")).encode()


def is_branch_name(name: str) -> bool:
    """Whether git takes it as the name of a branch, and no option or revision can be read into it."""
    return len(name.encode(errors="replace")) <= _NAME_LIMIT and not _BAD_BRANCH.search(name)


def _check(claim: Claim) -> None:
    if any(not _ID.fullmatch(one) for one in claim.ids):
        raise IntegrityError("the host's list of results has an id that is none")
    if any(not is_branch_name(name) for name in claim.branches):
        raise IntegrityError("the host's list of results has a branch whose name git does not allow")
    if len(claim.branches) > MOST_BRANCHES:
        raise IntegrityError(f"the host's list of results has over {MOST_BRANCHES} branches")


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise IntegrityError("the host's list of results has a count that is none")
    return int(text)
