"""What the bridge changes in messages, rule by rule."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.acp import rewrite
from remote_dispatch.acp.peer import INVALID_PARAMS, RpcError
from remote_dispatch.acp.rewrite import SLASH_PREFIX, Pair, PathMap

HERE, THERE = "/home/me/app", "/srv/app"
PLACES = PathMap((Pair(HERE, THERE),))
NAMES = st.text("abc.-_ ", min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
LIMIT = 100


def unreadable(path: str) -> bytes:
    """A disk on which nothing may be read."""
    raise PermissionError(13, "Permission denied", path)


def sent(*blocks: Any, read: rewrite.ReadFile = unreadable) -> list[Any]:
    """The blocks of a prompt as they leave."""
    return rewrite.outward_prompt(list(blocks), PLACES, read, limit_bytes=LIMIT)[0]


# --- paths


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (HERE, THERE),
        (f"{HERE}/", THERE),
        (f"{HERE}/src/a.py", f"{THERE}/src/a.py"),
        (f"{HERE}/src/../b", f"{THERE}/b"),
        (f"{HERE}lication", None),
        (f"{HERE}/../other", None),
        ("/home/me", None),
        ("app", None),
    ],
)
def test_a_path_is_translated_by_whole_names_only(local: str, remote: str | None) -> None:
    assert PLACES.to_remote(local) == remote


def test_the_longest_pair_wins_whatever_the_order() -> None:
    places = PathMap((Pair("/", "/mnt"), Pair("/a/b", "/deep"), Pair("/a", "/flat")))
    assert [places.to_remote(one) for one in ("/a/b/c", "/a/c", "/c")] == ["/deep/c", "/flat/c", "/mnt/c"]


def test_of_two_names_for_one_directory_the_first_comes_back() -> None:
    places = PathMap((Pair("/link", THERE), Pair("/real", THERE)))
    assert places.to_local(f"{THERE}/x") == "/link/x"


def test_a_tilde_becomes_the_home_there_and_only_at_the_head() -> None:
    places = PathMap((Pair("/a", "~"), Pair("/b", "~/x"), Pair("/c", "/y/~"), Pair("/d", "~user/x"))).at("/root")
    assert [pair.remote for pair in places.pairs] == ["/root", "/root/x", "/y/~", "~user/x"]


@given(st.lists(NAMES, max_size=4))
def test_what_goes_out_comes_back(names: list[str]) -> None:
    path = "/".join((HERE, *names))
    remote = PLACES.to_remote(path)
    assert remote is not None
    assert PLACES.to_local(remote) == path


# --- from the editor


def test_directories_are_translated_and_the_rest_stays() -> None:
    params = {"cwd": HERE, "additionalDirectories": [f"{HERE}/lib"], "mcpServers": [], "_meta": {"a": 1}}
    assert rewrite.outward_directories(params, PLACES) == {
        "cwd": THERE,
        "additionalDirectories": [f"{THERE}/lib"],
        "mcpServers": [],
        "_meta": {"a": 1},
    }


@pytest.mark.parametrize("params", [{"cwd": "/elsewhere"}, {"cwd": HERE, "additionalDirectories": ["/elsewhere"]}])
def test_a_directory_that_nothing_stands_for_is_refused_with_the_option_that_helps(params: dict[str, Any]) -> None:
    with pytest.raises(RpcError, match="--map /elsewhere=DIRECTORY-THERE") as caught:
        rewrite.outward_directories(params, PLACES)
    assert caught.value.code == INVALID_PARAMS


def test_a_relative_directory_is_refused() -> None:
    with pytest.raises(RpcError, match="not absolute"):
        rewrite.outward_directories({"cwd": "app"}, PLACES)


def test_files_and_terminals_of_the_editor_are_not_offered() -> None:
    params = {"clientCapabilities": {"fs": {"readTextFile": True}, "terminal": True, "elicitation": {"form": {}}}}
    assert rewrite.outward_capabilities(params) == {"clientCapabilities": {"elicitation": {"form": {}}}}


@pytest.mark.parametrize(
    ("server", "travels"),
    [
        ({"name": "a", "command": "npx", "args": [], "env": []}, False),
        ({"name": "b", "type": "stdio", "command": "x"}, False),
        ({"name": "c", "type": "http", "url": "http://localhost:8080/mcp", "headers": []}, False),
        ({"name": "d", "type": "sse", "url": "http://127.1.2.3/"}, False),
        ({"name": "e", "type": "http", "url": "http://[::1]:1/"}, False),
        ({"name": "f", "type": "http", "url": "http://0.0.0.0:1/"}, False),
        ({"name": "g", "type": "http", "url": "not a url"}, False),
        ({"name": "h", "type": "http", "url": "https://mcp.example/"}, True),
        ({"name": "i", "type": "sse", "url": "http://192.0.2.1/"}, True),
    ],
)
def test_mcp_servers_of_this_machine_do_not_travel(server: dict[str, Any], travels: bool) -> None:
    params, dropped = rewrite.kept_servers({"mcpServers": [server]})
    assert params["mcpServers"] == ([server] if travels else [])
    assert dropped == (() if travels else (server["name"],))


# --- links


def test_a_link_inside_the_mapping_is_translated() -> None:
    link = {"type": "resource_link", "uri": f"file://{HERE}/a%20b.py#L3", "name": "a b.py"}
    assert sent(link) == [{"type": "resource_link", "uri": f"file://{THERE}/a%20b.py#L3", "name": "a b.py"}]


def test_a_file_outside_the_mapping_travels_in_the_prompt() -> None:
    link = {"type": "resource_link", "uri": "file:///etc/motd", "name": "motd", "mimeType": "text/x-motd"}
    resource = {"uri": "file:///etc/motd", "mimeType": "text/x-motd", "text": "hé"}
    assert sent(link, read=lambda _: "hé".encode()) == [{"type": "resource", "resource": resource}]


def test_a_binary_file_outside_the_mapping_travels_in_base64() -> None:
    (block,) = sent({"type": "resource_link", "uri": "file:///tmp/a.png"}, read=lambda _: b"\xff\xfe")
    assert base64.b64decode(block["resource"]["blob"]) == b"\xff\xfe"
    assert block["resource"]["mimeType"] == "image/png"


@pytest.mark.parametrize(
    ("read", "word"), [(unreadable, "permission denied"), (lambda _: b"x" * (LIMIT + 1), "larger than")]
)
def test_of_a_file_that_cannot_travel_the_user_and_the_model_are_told(read: rewrite.ReadFile, word: str) -> None:
    link = {"type": "resource_link", "uri": "file:///etc/shadow"}
    (block,), (remark,) = rewrite.outward_prompt([link], PLACES, read, limit_bytes=LIMIT)
    assert block["type"] == "text"
    assert "/etc/shadow" in block["text"]
    assert word in remark


@pytest.mark.parametrize(
    "block",
    [
        {"type": "resource_link", "uri": "https://example.org/a"},
        {"type": "resource_link", "uri": "file://server/share/a"},
        {"type": "text", "text": f"see {HERE}/a"},
        {"type": "image", "data": "aGk=", "mimeType": "image/png"},
        {"type": "hologram", "of": HERE},
        "no block at all",
    ],
)
def test_every_other_block_stays_as_it_is(block: object) -> None:
    assert sent(block) == [block]


def test_the_name_of_an_embedded_file_is_translated_and_its_text_is_not() -> None:
    resource = {"uri": f"file://{HERE}/a", "text": f"in {HERE}"}
    (block,) = sent({"type": "resource", "resource": resource})
    assert block["resource"] == {"uri": f"file://{THERE}/a", "text": f"in {HERE}"}


# --- slashes


@pytest.mark.parametrize("text", ["/etc/hosts is wrong", "  // a comment", "\n/nothing", "/"])
def test_a_prompt_that_only_looks_like_a_command_gets_text_in_front(text: str) -> None:
    prompt = [{"type": "text", "text": text}]
    assert rewrite.unslashed(prompt, ["init"]) == [{"type": "text", "text": SLASH_PREFIX}, *prompt]


@pytest.mark.parametrize("text", ["/init", " /init with words", "no slash", "a /init", ""])
def test_a_command_and_every_other_prompt_stay(text: str) -> None:
    prompt = [{"type": "text", "text": text}]
    assert rewrite.unslashed(prompt, ["init"]) == prompt


def test_a_slash_counts_when_blocks_are_joined() -> None:
    prompt = [{"type": "text", "text": " "}, {"type": "image"}, {"type": "text", "text": "/x"}]
    assert rewrite.slash_word(prompt) == "x"


# --- to the editor


def test_locations_diffs_and_links_come_home_and_texts_do_not() -> None:
    update = {
        "sessionUpdate": "tool_call_update",
        "title": f"{THERE}/a",
        "locations": [{"path": f"{THERE}/a", "line": 3}, {"path": "/etc/hosts"}],
        "rawInput": {"filePath": f"{THERE}/a"},
        "content": [
            {"type": "diff", "path": f"{THERE}/a", "oldText": THERE, "newText": ""},
            {"type": "content", "content": {"type": "text", "text": THERE}},
            {"type": "content", "content": {"type": "resource_link", "uri": f"file://{THERE}/a"}},
            {"type": "new-kind", "path": f"{THERE}/a"},
        ],
    }
    (home,) = [rewrite.homeward_update({"sessionId": "s", "update": update, "x": 1}, PLACES)]
    assert home["update"] == update | {
        "locations": [{"path": f"{HERE}/a", "line": 3}, {"path": "/etc/hosts"}],
        "content": [
            {"type": "diff", "path": f"{HERE}/a", "oldText": THERE, "newText": ""},
            {"type": "content", "content": {"type": "text", "text": THERE}},
            {"type": "content", "content": {"type": "resource_link", "uri": f"file://{HERE}/a"}},
            {"type": "new-kind", "path": f"{THERE}/a"},
        ],
    }
    assert (home["sessionId"], home["x"]) == ("s", 1)


def test_a_replayed_prompt_reads_as_it_was_typed() -> None:
    update = {"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": f"{SLASH_PREFIX}/x"}}
    home = rewrite.homeward_update({"update": update}, PLACES)
    assert home["update"]["content"]["text"] == "/x"


def test_sessions_are_listed_under_the_directories_of_this_machine() -> None:
    result = {
        "sessions": [{"sessionId": "a", "cwd": f"{THERE}/x"}, {"sessionId": "b", "cwd": "/srv/b"}],
        "nextCursor": "1",
    }
    home = rewrite.homeward_sessions(result, PLACES)
    assert [one["cwd"] for one in home["sessions"]] == [f"{HERE}/x", "/srv/b"]
    assert home["nextCursor"] == "1"


def test_a_permission_names_the_file_of_this_machine() -> None:
    params = {"toolCall": {"locations": [{"path": f"{THERE}/a"}]}, "options": []}
    assert rewrite.homeward_permission(params, PLACES)["toolCall"]["locations"] == [{"path": f"{HERE}/a"}]


def test_what_has_another_shape_than_expected_passes_unchanged() -> None:
    odd = {"update": {"sessionUpdate": "x", "locations": 5, "content": ["a", 1, None, {"type": "diff", "path": 7}]}}
    assert rewrite.homeward_update(odd, PLACES) == odd
    assert rewrite.homeward_update({"update": 5}, PLACES) == {"update": 5}
    assert rewrite.homeward_sessions({"sessions": [5, {"cwd": 6}]}, PLACES) == {"sessions": [5, {"cwd": 6}]}
    assert rewrite.outward_capabilities({"clientCapabilities": 5}) == {"clientCapabilities": 5}
    assert rewrite.kept_servers({"mcpServers": 5}) == ({"mcpServers": 5}, ())
