"""The result becomes one branch, and never takes the place of one that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import UsageError
from remote_dispatch.workspace.arrival import read_arrived
from remote_dispatch.workspace.landing import Landed, land, make_branch
from tests.workspace.places import Far, Home, commit, everything, sh

if TYPE_CHECKING:
    from remote_dispatch.workspace.arrival import Arrived


async def worked(home: Home, far: Far, text: str = "done") -> Arrived:
    """A dispatch whose host committed one file."""
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": text})
    return await home.receive(far, snapshot)


async def test_landing_twice_makes_one_branch(home: Home, far: Far) -> None:
    arrived = await worked(home, far)
    landed = await home.land(arrived)
    before = everything(home.top)
    assert await home.land(arrived) == landed == await home.land(arrived, previous=landed)
    assert everything(home.top) == before


async def test_a_branch_called_dispatch_stands_in_the_way(home: Home, far: Far) -> None:
    sh(home.top, "branch", "dispatch")
    assert (await home.land(await worked(home, far))).branch == "dispatch-kumo"


async def test_a_name_that_is_taken_by_something_else_gets_a_number(home: Home, far: Far) -> None:
    sh(home.top, "branch", "dispatch/kumo")
    theirs = sh(home.top, "rev-parse", "dispatch/kumo")
    assert (await home.land(await worked(home, far))).branch == "dispatch/kumo-2"
    assert sh(home.top, "rev-parse", "dispatch/kumo") == theirs


async def test_a_branch_below_that_name_is_in_its_way_too(home: Home, far: Far) -> None:
    sh(home.top, "branch", "dispatch/kumo/mine")
    assert (await home.land(await worked(home, far))).branch == "dispatch/kumo-2"


async def test_a_later_result_moves_the_branch_while_it_stands_where_we_put_it(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": "half"})
    first = await home.land(await home.receive(far, snapshot))
    sh(far.top, "commit", "-q", "--amend", "-m", "another story")
    second = await home.land(await home.receive(far, snapshot), previous=first)
    assert second == Landed(first.branch, sh(far.top, "rev-parse", "HEAD"))
    assert sh(home.top, "rev-parse", first.branch) == second.commit


@pytest.mark.parametrize("is_moved", [True, False], ids=["moved", "checked out"])
async def test_a_branch_that_the_user_works_on_is_never_moved(home: Home, far: Far, is_moved: bool) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": "half"})
    first = await home.land(await home.receive(far, snapshot))
    sh(home.top, "checkout", "-q", first.branch)
    if is_moved:
        commit(home.top, {"mine.txt": "m"})
        sh(home.top, "checkout", "-q", "main")
    commit(far.top, {"work.txt": "whole"})
    before = sh(home.top, "rev-parse", first.branch)
    second = await home.land(await home.receive(far, snapshot), previous=first)
    assert (second.branch, sh(home.top, "rev-parse", first.branch)) == ("dispatch/kumo-2", before)
    assert sh(home.top, "status", "--porcelain") == ""


async def test_nothing_lands_when_nothing_was_changed(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    arrived = await home.receive(far, snapshot)
    before = everything(home.top)
    assert not arrived.is_changed
    assert await land(home.repository, arrived, "kumo") is None
    assert everything(home.top) == before


async def test_further_branches_of_the_agent_are_kept_beside(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    sh(far.top, "checkout", "-q", "-b", "experiment")
    tried = commit(far.top, {"tried.txt": "t"})
    sh(far.top, "checkout", "-q", "dispatch/kumo")
    commit(far.top, {"work.txt": "w"})
    arrived = await home.receive(far, snapshot)
    assert arrived.branches == {"experiment": tried}
    await home.land(arrived)
    assert sh(home.top, "branch", "--list", "--format=%(refname:short)").splitlines() == ["dispatch/kumo", "main"]
    assert sh(arrived.store, "show", "refs/dispatch/branches/experiment:tried.txt") == "t"


async def test_what_arrived_is_found_again_in_a_later_process(home: Home, far: Far) -> None:
    assert await read_arrived(home.repository, home.folder) is None
    arrived = await worked(home, far)
    assert await read_arrived((await home.again()).repository, home.folder) == arrived


async def test_what_arrived_is_readable_after_the_repository_was_moved(home: Home, far: Far) -> None:
    await worked(home, far)
    moved = home.top.rename(home.top.with_name("elsewhere"))
    home = await Home.at(moved, home.folder)
    arrived = await read_arrived(home.repository, home.folder)
    assert arrived is not None
    assert sh(moved, "show", f"{(await home.land(arrived)).branch}:work.txt") == "done"


async def test_a_branch_of_the_users_choice_is_made_once(home: Home, far: Far) -> None:
    arrived = await worked(home, far)
    assert await make_branch(home.repository, arrived, "feature/login") == "feature/login"
    assert await make_branch(home.repository, arrived, "feature/login") == "feature/login"
    assert sh(home.top, "show", "feature/login:work.txt") == "done"
    with pytest.raises(UsageError, match="a branch `main` already"):
        await make_branch(home.repository, arrived, "main")


async def test_a_bad_name_of_a_branch_is_refused(home: Home, far: Far) -> None:
    arrived = await worked(home, far)
    for name in ("-x", "a..b", "a b", "HEAD", "", "a.lock", "refs/../x", "a\n"):
        with pytest.raises(UsageError, match="no name for a branch"):
            await make_branch(home.repository, arrived, name)
