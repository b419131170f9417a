"""What the bridge changes in messages: paths of this machine become the host's and back. Pure functions, no I/O.

Every function returns a copy with the named places changed; unknown fields and kinds stay as they are.
"""

from __future__ import annotations

import base64
import ipaddress
import mimetypes
import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from remote_dispatch.acp.peer import INVALID_PARAMS, RpcError
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from remote_dispatch.acp.lines import Message

    ReadFile = Callable[[str], bytes]
    """Return the content of a local file. Raises OSError."""

SLASH_PREFIX = "My message: "
"""Stands before a prompt that begins with `/` and is no command: OpenCode 1.18 answers it with nothing at all."""
_SLASH = re.compile(r"/(\S*)")
_COMMAND = re.compile(r"[\w:.-]+")
_TILDE = re.compile(r"^~(?=/|$)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A directory of this machine and the one on the host that stands for it; `remote` may begin with `~`."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True)
class PathMap:
    """Which directories correspond. The longest prefix wins; of two pairs that fit alike, the first."""

    pairs: tuple[Pair, ...]

    def at(self, home: str) -> PathMap:
        """Return it with `~` of the host's side replaced by the home there."""
        return PathMap(tuple(replace(pair, remote=_TILDE.sub(lambda _: home, pair.remote, 1)) for pair in self.pairs))

    def also(self, pair: Pair) -> PathMap:
        """Return it with one more pair, behind the others."""
        return PathMap((*self.pairs, pair))

    def to_remote(self, path: str) -> str | None:
        """Return the host's name of a local path; None where no pair holds it."""
        return _translated(path, [(pair.local, pair.remote) for pair in self.pairs])

    def to_local(self, path: str) -> str | None:
        """Return this machine's name of a path of the host; None where no pair holds it."""
        return _translated(path, [(pair.remote, pair.local) for pair in self.pairs])


# --- from the editor to the host


def outward_capabilities(params: Message) -> Message:
    """Take the editor's files and terminals from `initialize`: they are on another machine than the agent's."""
    offered = params.get("clientCapabilities")
    if not isinstance(offered, dict):
        return params
    kept = {name: one for name, one in offered.items() if name not in ("fs", "terminal")}
    return params | {"clientCapabilities": kept}


def outward_directories(params: Message, places: PathMap) -> Message:
    """Translate `cwd` and `additionalDirectories`. Raises RpcError for one that no pair holds, or that is relative."""
    changed = dict(params)
    if isinstance(cwd := params.get("cwd"), str):
        changed["cwd"] = mapped(cwd, places)
    if isinstance(others := params.get("additionalDirectories"), list):
        changed["additionalDirectories"] = [mapped(one, places) if isinstance(one, str) else one for one in others]
    return changed


def mapped(path: str, places: PathMap) -> str:
    """Return the host's name of a local directory. Raises RpcError, which names the option that helps."""
    if not path.startswith("/"):
        raise RpcError(INVALID_PARAMS, f"Invalid params: the directory `{path}` is not absolute")
    found = places.to_remote(path)
    if found is None:
        known = ", ".join(dict.fromkeys(f"`{pair.local}`" for pair in places.pairs)) or "none"
        raise RpcError(
            INVALID_PARAMS,
            f"Invalid params: no directory of the host stands for `{path}` (mapped: {known}); "
            f"start the bridge with `--map {path}=DIRECTORY-THERE`",
        )
    return found


def kept_servers(params: Message) -> tuple[Message, tuple[str, ...]]:
    """Drop MCP servers that make sense here only, and return the names of those.

    A command would start on the host, a URL of this machine's loopback would lead to the host's own.
    """
    servers = params.get("mcpServers")
    if not isinstance(servers, list):
        return params, ()
    kept = [one for one in servers if _travels(one)]
    dropped = tuple(_server_name(one) for one in servers if not _travels(one))
    return params | {"mcpServers": kept}, dropped


def outward_prompt(
    blocks: list[Any], places: PathMap, read: ReadFile, *, limit_bytes: int
) -> tuple[list[Any], tuple[str, ...]]:
    """Translate the `file://` links of a prompt; a file that no pair holds travels in the prompt itself.

    Returns the blocks, and what the user is to be told: of a file that cannot be read, or that is larger than
    `limit_bytes`, only the name travels.
    """
    remarks: list[str] = []
    changed = [_outward_block(block, places, read, limit_bytes, remarks) for block in blocks]
    return changed, tuple(remarks)


def slash_word(blocks: Iterable[Any]) -> str | None:
    """Return the word after the slash where OpenCode takes a prompt for a command; None for any other prompt."""
    texts = [block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    found = _SLASH.match("".join(text for text in texts if isinstance(text, str)).strip())
    return found[1] if found else None


def is_like_a_command(word: str) -> bool:
    """Whether the word after a slash could name a command: a path or a comment could not."""
    return _COMMAND.fullmatch(word) is not None


def unslashed(blocks: list[Any], commands: Collection[str]) -> list[Any]:
    """Return a prompt that OpenCode does not swallow: text in front of a slash that begins no command of these."""
    word = slash_word(blocks)
    if word is None or word in commands:
        return blocks
    return [{"type": "text", "text": SLASH_PREFIX}, *blocks]


# --- from the host to the editor


def homeward_update(params: Message, places: PathMap) -> Message:
    """Translate the paths of a `session/update`: locations, diffs and `file://` links. Titles and texts stay."""
    update = params.get("update")
    if not isinstance(update, dict):
        return params
    return params | {"update": _homeward_call(_without_prefix(update), places)}


def homeward_permission(params: Message, places: PathMap) -> Message:
    """Translate the paths of the tool call that a `session/request_permission` is about."""
    call = params.get("toolCall")
    return params | {"toolCall": _homeward_call(call, places)} if isinstance(call, dict) else params


def homeward_sessions(result: Message, places: PathMap) -> Message:
    """Translate the directories of a `session/list`; one that no pair holds stays the host's."""
    sessions = result.get("sessions")
    if not isinstance(sessions, list):
        return result
    return result | {"sessions": [_homeward_session(one, places) for one in sessions]}


def homeward_capabilities(result: Message, *, has_delete: bool) -> Message:
    """Add to the answer to `initialize` what the bridge itself can do: delete sessions."""
    offered = mapping(result.get("agentCapabilities"))
    if not has_delete or not offered:
        return result
    sessions = {"delete": {}} | mapping(offered.get("sessionCapabilities"))
    return result | {"agentCapabilities": offered | {"sessionCapabilities": sessions}}


# --- helpers


def _translated(path: str, pairs: list[tuple[str, str]]) -> str | None:
    if not path.startswith("/"):
        return None
    wanted = _plain(path)
    fitting = [(_plain(source), target) for source, target in pairs if _holds(_plain(source), wanted)]
    if not fitting:
        return None
    source, target = max(fitting, key=lambda pair: len(pair[0]))
    return _plain(posixpath.join(target, posixpath.relpath(wanted, source)))


def _plain(path: str) -> str:
    """Normalised by its text alone: two slashes at the head are one, as Linux and macOS see them."""
    return re.sub(r"^//", "/", posixpath.normpath(path))


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _travels(server: object) -> bool:
    if not isinstance(server, dict) or server.get("type", "stdio") == "stdio":
        return False
    url = server.get("url")
    return isinstance(url, str) and not _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not host
    return address.is_loopback or address.is_unspecified


def _server_name(server: object) -> str:
    return str(mapping(server).get("name") or "without a name")


def _outward_block(block: Any, places: PathMap, read: ReadFile, limit_bytes: int, remarks: list[str]) -> Any:
    raw = mapping(block)
    if raw.get("type") == "resource_link":
        return _outward_link(raw, places, read, limit_bytes, remarks)
    if raw.get("type") == "resource":
        # Its content travels with it: only the name is translated.
        resource = mapping(raw.get("resource"))
        return block | {"resource": resource | _uri_of(resource, places.to_remote)}
    return raw | _uri_of(raw, places.to_remote) if raw else block


def _outward_link(link: Message, places: PathMap, read: ReadFile, limit_bytes: int, remarks: list[str]) -> Message:
    path = path_of(link.get("uri"))
    if path is None:
        return link
    if inside := _uri_of(link, places.to_remote):
        return link | inside
    try:
        content = read(path)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        remarks.append(f"`{path}` was not sent: {reason.lower()}")
        return _named_only(path, "could not be read")
    if len(content) > limit_bytes:
        remarks.append(f"`{path}` was not sent: it is larger than {limit_bytes} bytes")
        return _named_only(path, "is too large to be sent")
    return {"type": "resource", "resource": _embedded(link, content)}


def _embedded(link: Message, content: bytes) -> Message:
    uri = str(link["uri"])
    kind = link.get("mimeType") or mimetypes.guess_type(path_of(uri) or "")[0]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        kind = kind or "application/octet-stream"
        return {"uri": uri, "mimeType": kind, "blob": base64.b64encode(content).decode()}
    return {"uri": uri, "mimeType": kind or "text/plain", "text": text}


def _named_only(path: str, why: str) -> Message:
    return {"type": "text", "text": f"[The attached file {path} is on another machine and {why}.]"}


def path_of(uri: object) -> str | None:
    """Return the path of a `file://` URI of this machine, or of a bare absolute path; None for anything else."""
    if not isinstance(uri, str):
        return None
    if uri.startswith("/"):
        return uri
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        return None
    return unquote(parts.path)


def _uri_of(holder: Message, translate: Callable[[str], str | None]) -> Message:
    """Return the translated `uri` of a block, its fragment kept; nothing where there is none to translate."""
    uri = holder.get("uri")
    path = path_of(uri)
    found = translate(path) if path is not None else None
    if found is None or not isinstance(uri, str):
        return {}
    if uri.startswith("/"):
        return {"uri": found}
    fragment = urlsplit(uri).fragment
    return {"uri": f"file://{quote(found)}" + (f"#{fragment}" if fragment else "")}


def _homeward_call(call: Message, places: PathMap) -> Message:
    changed = dict(call)
    if isinstance(locations := call.get("locations"), list):
        changed["locations"] = [_homeward_path(one, places) for one in locations]
    match call.get("content"):
        case list() as contents:
            changed["content"] = [_homeward_content(one, places) for one in contents]
        case dict() as content:
            changed["content"] = _homeward_block(content, places)
    return changed


def _homeward_content(content: Any, places: PathMap) -> Any:
    match content:
        case {"type": "diff"}:
            return _homeward_path(content, places)
        case {"type": "content", "content": dict() as block}:
            return content | {"content": _homeward_block(block, places)}
    return content


def _homeward_block(block: Message, places: PathMap) -> Message:
    if block.get("type") == "resource":
        resource = mapping(block.get("resource"))
        return block | {"resource": resource | _uri_of(resource, places.to_local)}
    return block | _uri_of(block, places.to_local)


def _homeward_path(holder: Any, places: PathMap) -> Any:
    path = mapping(holder).get("path")
    found = places.to_local(path) if isinstance(path, str) else None
    return holder | {"path": found} if found is not None else holder


def _homeward_session(session: Any, places: PathMap) -> Any:
    raw = mapping(session)
    changed = dict(raw)
    if isinstance(cwd := raw.get("cwd"), str):
        changed["cwd"] = places.to_local(cwd) or cwd
    if isinstance(others := raw.get("additionalDirectories"), list):
        changed["additionalDirectories"] = [
            (places.to_local(one) or one) if isinstance(one, str) else one for one in others
        ]
    return changed if raw else session


def _without_prefix(update: Message) -> Message:
    """A replayed prompt reads as it was typed."""
    content = mapping(update.get("content"))
    text = content.get("text")
    is_ours = update.get("sessionUpdate") == "user_message_chunk" and isinstance(text, str)
    if not is_ours or not str(text).startswith(SLASH_PREFIX):
        return update
    return update | {"content": content | {"text": str(text).removeprefix(SLASH_PREFIX)}}
