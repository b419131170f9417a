"""One OpenCode server over HTTP, whatever carries the bytes: a URL, or a channel of an SSH connection.

A thin layer: one method a request, answers checked and read as values, errors in our words, never an address or a
password among them. What the requests really do is in docs/sessions.md and was measured with OpenCode 1.18.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import ssl
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from remote_dispatch.errors import (
    AuthenticationError,
    CommandError,
    ConnectionLostError,
    HostUnreachableError,
    IntegrityError,
    UnknownNameError,
)
from remote_dispatch.opencode import served
from remote_dispatch.opencode.receive import clock_offset_ms, lines
from remote_dispatch.text import clean, mask_addresses
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    import httpx

    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import (
        Event,
        Health,
        Offer,
        PermissionRequest,
        QuestionRequest,
        Raw,
        Served,
        ServedAgent,
        ServedPaths,
        Status,
    )

Read = TypeVar("Read")

REQUEST_TIMEOUT_S = 30.0
HEALTH_TIMEOUT_S = 2.0
"""A request sent while a server starts is never answered (OpenCode 1.18): it is asked anew instead."""
SILENCE_S = 28.0
"""The event stream has a heartbeat every ten seconds."""
EVENT_LIMIT_BYTES = 64 * 1024 * 1024
"""For one event: it holds a whole part, attached files too."""
ANSWER_S = 300.0
"""For a whole answer, as long as it keeps coming: a large session over a slow line."""
ANSWER_LIMIT_BYTES = 512 * 1024 * 1024
KNOWN_VERSION = "1.18."
_WORDS = 500
_VERSION = 40
_AWAY = frozenset({502, 503, 504})
"""What a proxy answers whose server does not."""
_NOT_OPENCODE = "it is not an OpenCode server, or an old one"


class RefusedError(CommandError):
    """The server answered with an error. `status` is HTTP's, `tag` OpenCode's own word for it."""

    def __init__(self, where: str, request: str, status: int, tag: str, words: str) -> None:
        super().__init__(where, request, None, "")
        self.status = status
        self.tag = tag
        self.message = (
            f"{where}: the OpenCode server refused `{request}` (HTTP {status}){f': {words}' if words else ''}"
        )
        self.args = (self.message,)


class NoSuchSessionError(UnknownNameError):
    """The server does not have the session."""


class Api:
    """A server. `name` is the host's public name. Use as an async context manager.

    Every method raises HostUnreachableError when there is no connection, ConnectionLostError when it broke or the
    server fell silent, AuthenticationError when the login is refused, NoSuchSessionError, and RefusedError for
    anything else that the server refuses; through SSH also what opening a connection there raises (LoginError,
    HostNotReadyError when no server runs there any more). What only reads is asked once more by itself when the
    connection broke under it; any other request that raised a connection error may have been done.
    `directory` is the session's own, absolute on the server.
    """

    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        *,
        login_hint: str = "see docs/sessions.md on passwords",
        limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> None:
        """`client` has base URL, login and transport; it is closed with the context. `limit_bytes` bounds an answer."""
        self.name = name
        self.version: str | None = None
        """OpenCode's version, once `health` was asked."""
        self.clock_offset_ms = 0
        """The server's clock minus ours, by its last answer; 0 where they agree to two seconds."""
        self._client = client
        self._login_hint = login_hint
        self._limit_bytes = limit_bytes

    def __repr__(self) -> str:
        return f"Api({self.name!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    # --- the server

    async def health(self) -> Health:
        """Ask whether it answers: within two seconds. Raises RefusedError for what is no OpenCode server."""
        raw = mapping(await self._get("/global/health", timeout_s=HEALTH_TIMEOUT_S))
        version = raw.get("version")
        if not isinstance(version, str) or not version:
            raise RefusedError(self.name, "GET /global/health", 200, "", _NOT_OPENCODE)
        self.version = clean(version, _VERSION)
        return served.Health(self.version)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be told of a server that works: an open way to it, another version than the one that is known."""
        found: list[str] = []
        if self._client.base_url.scheme == "http" and not is_loopback(self._client.base_url.host):
            found.append(f"{self.name}: the password and all that is said travel unencrypted; use https, or SSH")
        if self.version is not None and not self.version.startswith(KNOWN_VERSION):
            found.append(f"{self.name} runs OpenCode {self.version}; {KNOWN_VERSION}x is what is known to work")
        return tuple(found)

    async def paths(self) -> ServedPaths:
        """Return where it works."""
        raw = mapping(await self._get("/path"))
        return served.ServedPaths(*(str(raw.get(key) or "") for key in ("home", "directory", "state")))

    async def has_directory(self, directory: str) -> bool:
        """Whether this directory is there (OpenCode 1.18: listing one that is not ends with status 500)."""
        try:
            await self._get("/file", directory, path=".")
        except RefusedError as error:
            if error.status == 500:
                return False
            raise
        return True

    async def agents(self, directory: str) -> tuple[ServedAgent, ...]:
        """Return every agent of a directory, hidden ones too."""
        return _read_all(served.read_agent, await self._get("/agent", directory))

    async def offer(self, directory: str) -> Offer:
        """Return the models that can be asked for in a directory."""
        return served.read_offer(mapping(await self._get("/config/providers", directory)))

    async def configuration(self, directory: str) -> Raw:
        """Return OpenCode's configuration of a directory: `model` and `default_agent` of it. It may hold secrets."""
        return mapping(await self._get("/config", directory))

    async def dispose(self) -> None:
        """Abort every turn of every directory cleanly; the server goes on."""
        await self._send("POST", "/global/dispose")

    # --- sessions

    async def create(
        self,
        directory: str,
        *,
        title: str | None = None,
        agent: str | None = None,
        model: Raw | None = None,
        permission: Sequence[Raw] = (),
    ) -> Served:
        """Make a session. `model` is `{id, providerID, variant?}`; neither it nor the agent are checked by OpenCode."""
        body: Raw = {"title": title, "agent": agent, "model": model, "permission": list(permission) or None}
        raw = await self._send(
            "POST", "/session", directory, {key: one for key, one in body.items() if one is not None}
        )
        return self._session(raw)

    async def session(self, session_id: str) -> Served:
        """Return one session, from whatever directory."""
        return self._session(await self._get(_of(session_id)))

    async def sessions(self, limit: int = 100) -> tuple[Served, ...]:
        """Return the newest sessions of all directories, sub-agents' included, archived ones not."""
        return _read_all(served.read_session, await self._get("/experimental/session", limit=limit))

    async def children(self, session_id: str) -> tuple[Served, ...]:
        """Return the sessions of its sub-agents, one level down."""
        return _read_all(served.read_session, await self._get(f"{_of(session_id)}/children"))

    async def rename(self, session_id: str, title: str) -> Served:
        """Give it another title."""
        return self._session(await self._send("PATCH", _of(session_id), body={"title": title}))

    async def permit(self, session_id: str, rules: Sequence[Raw]) -> Served:
        """Add rules, `{permission, pattern, action}` each, behind its own: the last one that matches wins."""
        body = {"permission": list(rules)}
        return self._session(await self._send("PATCH", _of(session_id), body=body))

    async def delete(self, session_id: str) -> None:
        """Delete it with its sub-agents' sessions. A turn that runs is not stopped by it: abort first."""
        await self._send("DELETE", _of(session_id))

    async def fork(self, session_id: str, message_id: str | None = None) -> Served:
        """Copy it under a new id; with a message, only what came before that."""
        body = {"messageID": message_id} if message_id else {}
        return self._session(await self._send("POST", f"{_of(session_id)}/fork", body=body))

    async def abort(self, session_id: str) -> None:
        """Abort its turn and those of its sub-agents; on return the last message is final. Idle: nothing happens."""
        await self._send("POST", f"{_of(session_id)}/abort")

    async def statuses(self, directory: str) -> dict[str, Status]:
        """Return the sessions of this very directory that are not idle."""
        raw = mapping(await self._get("/session/status", directory))
        found = {session_id: served.read_status(mapping(one)) for session_id, one in raw.items()}
        return {session_id: one for session_id, one in found.items() if one is not None}

    async def messages(self, session_id: str, *, limit: int | None = None) -> list[Raw]:
        """Return `{info, parts}` each, oldest first; with a limit the newest ones."""
        raw = await self._get(f"{_of(session_id)}/message", limit=limit)
        return [one for one in raw if isinstance(one, dict)] if isinstance(raw, list) else []

    async def message(self, session_id: str, message_id: str) -> Raw | None:
        """Return one message, `{info, parts}`; None when the session does not have it."""
        try:
            return mapping(await self._get(f"{_of(session_id)}/message/{quote(message_id, safe='')}")) or None
        except NoSuchSessionError:
            return None

    async def todos(self, session_id: str) -> tuple[Todo, ...]:
        """Return its todos."""
        return _read_all(served.read_todo, await self._get(f"{_of(session_id)}/todo"))

    async def diff(self, session_id: str, message_id: str) -> list[Raw]:
        """Return what the turn of a user message changed: `{file, patch, additions, deletions, status}` each."""
        raw = await self._get(f"{_of(session_id)}/diff", messageID=message_id)
        return [one for one in raw if isinstance(one, dict)] if isinstance(raw, list) else []

    async def prompt(self, session_id: str, directory: str, body: Raw) -> None:
        """Start a turn. It answers before the turn begins, and never reports a bad agent or model.

        The same body with the same `messageID` and part ids again changes nothing: it may be repeated after a
        connection error.
        """
        await self._send("POST", f"{_of(session_id)}/prompt_async", directory, body)

    # --- requests

    async def permissions(self, directory: str) -> tuple[PermissionRequest, ...]:
        """Return the open permission requests of this very directory; stale ones may be among them."""
        return _read_all(served.read_permission, await self._get("/permission", directory))

    async def questions(self, directory: str) -> tuple[QuestionRequest, ...]:
        """Return the open questions of this very directory; stale ones may be among them."""
        return _read_all(served.read_question, await self._get("/question", directory))

    async def reply_permission(self, request_id: str, directory: str, reply: str, message: str | None = None) -> bool:
        """Answer `once`, `always` or `reject`. False when nobody waits for it any more."""
        body = {"reply": reply, "message": message} if message else {"reply": reply}
        return await self._reply(f"/permission/{quote(request_id, safe='')}/reply", directory, body)

    async def reply_question(self, request_id: str, directory: str, answers: Sequence[Sequence[str]]) -> bool:
        """Answer each question with labels or words of one's own. False when nobody waits for it any more."""
        return await self._reply(
            f"/question/{quote(request_id, safe='')}/reply", directory, {"answers": [list(one) for one in answers]}
        )

    async def reject_question(self, request_id: str, directory: str) -> bool:
        """Refuse to answer: the turn ends. False when nobody waits for it any more."""
        return await self._reply(f"/question/{quote(request_id, safe='')}/reject", directory, {})

    # --- events

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what happens in all directories, heartbeats included, `server.connected` first; nothing is replayed.

        Raises ConnectionLostError when the stream ends, breaks, or is silent for SILENCE_S. Close the generator
        (`contextlib.aclosing`) when you stop early: it holds a connection.
        """
        import httpx  # noqa: PLC0415 - 100 ms that only callers of a server pay

        timeout = httpx.Timeout(REQUEST_TIMEOUT_S, read=SILENCE_S)
        try:
            async with self._client.stream("GET", "/global/event", timeout=timeout) as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status_code != 200 or "text/event-stream" not in kind:
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        self._check(answer, await self._body(answer), "GET /global/event")
                    raise self._refused(answer, "GET /global/event", _NOT_OPENCODE)
                pieces, limit = answer.aiter_bytes(), min(EVENT_LIMIT_BYTES, self._limit_bytes)
                async for line in lines(pieces, limit_bytes=limit, silence_s=2 * SILENCE_S):
                    if line.startswith(b"data:") and (event := _event(line[5:])) is not None:
                        yield event
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._lost(error) from error
        raise ConnectionLostError(self.name, "the event stream of its OpenCode server ended")

    # --- how

    async def _get(
        self, path: str, directory: str | None = None, /, *, timeout_s: float | None = None, **query: Any
    ) -> Any:
        return await self._ask("GET", path, directory, None, timeout_s, query)

    async def _send(self, method: str, path: str, directory: str | None = None, body: Raw | None = None) -> Any:
        return await self._ask(method, path, directory, body, None, {})

    async def _reply(self, path: str, directory: str, body: Raw) -> bool:
        try:
            await self._send("POST", path, directory, body)
        except RefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _ask(
        self,
        method: str,
        path: str,
        directory: str | None,
        body: Raw | None,
        timeout_s: float | None,
        query: Raw,
    ) -> Any:
        """Ask, and once more when the connection broke under a request that is safe to repeat."""
        import httpx  # noqa: PLC0415 - as above

        headers = {"x-opencode-directory": quote(directory)} if directory else {}
        request = self._client.build_request(
            method,
            path,
            headers=headers | ({"content-type": "application/json"} if body is not None else {}),
            content=None if body is None else json.dumps(body).encode(),
            params={key: one for key, one in query.items() if one is not None},
            timeout=timeout_s or REQUEST_TIMEOUT_S,
        )
        limit_s = timeout_s * 2 if timeout_s else ANSWER_S
        try:
            if method == "GET":
                with contextlib.suppress(httpx.NetworkError, httpx.RemoteProtocolError):
                    return await self._sent(request, f"{method} {path}", limit_s)
            return await self._sent(request, f"{method} {path}", limit_s)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._lost(error) from error

    async def _sent(self, request: httpx.Request, called: str, limit_s: float) -> Any:
        async with asyncio.timeout(limit_s):
            began_s = time.time()
            answer = await self._client.send(request, stream=True)
            offset_ms = clock_offset_ms(answer.headers.get("date", ""), began_s, time.time())
            self.clock_offset_ms = self.clock_offset_ms if offset_ms is None else offset_ms
            try:
                content = await self._body(answer)
            finally:
                await answer.aclose()
        return self._check(answer, content, called)

    async def _body(self, answer: httpx.Response) -> bytes:
        """Return the body, unpacked. Raises IntegrityError when it is too large to be one."""
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > self._limit_bytes:
                raise IntegrityError(
                    f"{self.name}: its OpenCode server answered with more than {self._limit_bytes} bytes"
                )
        return bytes(content)

    def _check(self, answer: httpx.Response, content: bytes, request: str) -> Any:
        if answer.status_code == 401:
            raise AuthenticationError(self.name, "its OpenCode server does not accept the login", hint=self._login_hint)
        if answer.status_code in _AWAY:
            words = f"its OpenCode server is away (HTTP {answer.status_code})"
            raise ConnectionLostError(self.name, words, hint=self._status_hint)
        if answer.status_code >= 400:
            raise self._refusal(answer, content, request)
        if answer.status_code >= 300:
            raise self._refused(answer, request, "it sends elsewhere, which is not followed: name the right URL")
        if not content:
            return None
        if "application/json" not in answer.headers.get("content-type", ""):
            raise self._refused(answer, request, _NOT_OPENCODE)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._refused(answer, request, "its answer is not JSON") from None

    def _refusal(self, answer: httpx.Response, content: bytes, request: str) -> Exception:
        try:
            raw = mapping(json.loads(content))
        except (ValueError, RecursionError):
            raw = {}
        tag = str(raw.get("name") or raw.get("_tag") or "")
        words = clean(mask_addresses(str(mapping(raw.get("data")).get("message") or raw.get("message") or tag)), _WORDS)
        if answer.status_code == 404 and tag == "NotFoundError":
            return NoSuchSessionError(
                f"{self.name}: no such session on its OpenCode server",
                hint=f"see what is there with `remote-dispatch session list --host {self.name} --all`",
            )
        return RefusedError(self.name, request, answer.status_code, clean(tag, _WORDS), words)

    def _refused(self, answer: httpx.Response, request: str, words: str) -> RefusedError:
        return RefusedError(self.name, request, answer.status_code, "", words)

    def _lost(self, error: Exception) -> HostUnreachableError:
        import httpx  # noqa: PLC0415 - as above

        hint = self._status_hint
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return HostUnreachableError(self.name, _why_unconnected(error), hint=hint)
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return ConnectionLostError(self.name, "its OpenCode server did not answer in time", hint=hint)
        if isinstance(error, httpx.RemoteProtocolError) and "status line" in str(error):
            return ConnectionLostError(self.name, "what answers there does not speak HTTP", hint=hint)
        return ConnectionLostError(self.name, "the connection to its OpenCode server broke", hint=hint)

    @property
    def _status_hint(self) -> str:
        return f"see how it is with `remote-dispatch session server status {self.name}`"

    def _session(self, raw: Any) -> Served:
        try:
            return served.read_session(mapping(raw))
        except ValueError:
            raise RefusedError(self.name, "session", 200, "", "its answer is not a session") from None


def _of(session_id: str) -> str:
    """Return the path of a session. Its id may be somebody else's words: it stays one segment."""
    return f"/session/{quote(session_id, safe='')}"


def is_loopback(name: str | None) -> bool:
    """Whether the host of a URL is the machine itself."""
    try:
        return ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return name == "localhost"


def _why_unconnected(error: BaseException | None) -> str:
    """Say why there is no connection, by the causes of httpx's error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "the certificate of its OpenCode server is not trusted"
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLWantReadError):
            return "what answers there does not speak https"
        error = error.__cause__ or error.__context__
    return "its OpenCode server does not answer"


def _read_all(read: Callable[[Raw], Read], raw: Any) -> tuple[Read, ...]:
    """Read every item; what cannot be read is left out."""
    return tuple(_readable(read, raw if isinstance(raw, list) else []))


def _readable(read: Callable[[Raw], Read], raw: list[Any]) -> Iterable[Read]:
    for one in raw:
        try:
            yield read(mapping(one))
        except ValueError:
            continue


def _event(text: bytes) -> Event | None:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return served.read_event(mapping(raw))
