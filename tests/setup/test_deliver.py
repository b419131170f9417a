from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.setup import deliver, plan_delivery
from tests.setup.programs import put


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def connection(tmp_path: Path) -> LocalConnection:
    return LocalConnection(environment={"HOME": str(tmp_path), "PATH": f"{tmp_path / 'tools'}:/usr/bin:/bin"})


async def test_what_is_missing_is_put_there_for_the_user_alone(connection: LocalConnection, there: Path) -> None:
    delivery = await plan_delivery(connection, PurePosixPath(there), {"a.md": b"a", "agents/deep/b.md": b"b"})

    kept = await deliver(connection, delivery)

    assert (set(delivery.send), delivery.replace, delivery.same, kept) == ({"a.md", "agents/deep/b.md"}, (), (), ())
    assert (there / "agents/deep/b.md").read_bytes() == b"b"
    assert (there / "a.md").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in there.iterdir()) == ["a.md", "agents"]


async def test_looking_changes_nothing(connection: LocalConnection, there: Path) -> None:
    await plan_delivery(connection, PurePosixPath(there), {"a.md": b"a"})

    assert not there.exists()


async def test_what_differs_is_kept_under_a_name_that_nothing_had(connection: LocalConnection, there: Path) -> None:
    there.mkdir()
    for name, content in (("a", "old"), ("a.before-setup", "older"), ("b", "same")):
        (there / name).write_text(content)

    delivery = await plan_delivery(connection, PurePosixPath(there), {"a": b"new", "b": b"same"})
    kept = await deliver(connection, delivery)

    assert (delivery.send, delivery.replace, delivery.same) == ((), ("a",), ("b",))
    assert kept == ("a.before-setup-2",)
    contents = {path.name: path.read_text() for path in there.iterdir()}
    assert contents == {"a": "new", "a.before-setup": "older", "a.before-setup-2": "old", "b": "same"}


async def test_a_file_that_came_after_the_question_is_kept_too(connection: LocalConnection, there: Path) -> None:
    delivery = await plan_delivery(connection, PurePosixPath(there), {"a": b"new"})
    there.mkdir()
    (there / "a").write_text("meanwhile")

    assert await deliver(connection, delivery) == ("a.before-setup",)

    assert (there / "a.before-setup").read_text() == "meanwhile"


async def test_a_link_there_is_set_aside_and_never_written_through(
    connection: LocalConnection, there: Path, tmp_path: Path
) -> None:
    there.mkdir()
    (tmp_path / "dotfile").write_text("old")
    (there / "a").symlink_to(tmp_path / "dotfile")

    delivery = await plan_delivery(connection, PurePosixPath(there), {"a": b"new"})
    await deliver(connection, delivery)

    assert delivery.replace == ("a",)
    assert (tmp_path / "dotfile").read_text() == "old"
    assert (there / "a").read_text() == "new"
    assert not (there / "a").is_symlink()


async def test_an_interrupted_delivery_leaves_old_or_new_and_goes_on(
    connection: LocalConnection, there: Path, tmp_path: Path
) -> None:
    there.mkdir()
    (there / "a").write_text("old")
    delivery = await plan_delivery(connection, PurePosixPath(there), {"a": b"new", "b": b"b"})
    tool = put(tmp_path / "tools/mv", b"#!/bin/sh\nkill -9 0\n")

    with pytest.raises(HostNotReadyError, match="not all files"):
        await deliver(connection, delivery)
    assert (there / "a").read_text() == "old"

    tool.unlink()
    await deliver(connection, await plan_delivery(connection, PurePosixPath(there), delivery.files))
    assert (there / "a").read_text() == "new"
    assert (there / "a.before-setup").read_text() == "old"
    assert not list(there.glob(".remote*"))


async def test_no_name_is_taken_from_the_host_but_that_of_a_file_that_went(tmp_path: Path, there: Path) -> None:
    connection = LocalConnection(environment={"HOME": str(tmp_path), "PATH": f"{tmp_path / 'tools'}:/usr/bin:/bin"})
    there.mkdir()
    (there / "a").write_text("old")
    put(tmp_path / "tools/mkdir", b"#!/bin/sh\necho 'kept me@203.0.113.7'\nexec /bin/mkdir \"$@\"\n")

    kept = await deliver(connection, await plan_delivery(connection, PurePosixPath(there), {"a": b"new"}))

    assert kept == ("a.before-setup",)
