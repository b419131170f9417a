"""The scripted agent as a program: `acp --port N`, with ACP on stdio and its API on that port, and `--version`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from pathlib import Path

from tests.rig.scripted_agent import ScriptedAgent
from tests.rig.scripted_api import answer
from tests.rig.scripted_words import VERSION, Raw


async def _serve(agent: ScriptedAgent, port: int, password: str) -> None:
    expected = f"Basic {base64.b64encode(f'opencode:{password}'.encode()).decode()}"

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(await _exchange(agent, reader, expected if password else None))
                await writer.drain()
        writer.close()

    await asyncio.start_server(connected, "127.0.0.1", port)


async def _exchange(agent: ScriptedAgent, reader: asyncio.StreamReader, expected: str | None) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    if expected is not None and headers.get("authorization") != expected:
        status, content = 401, b"{}"
    else:
        status, value = answer(
            agent,
            method,
            target.partition("?")[0],
            json.loads(body or b"{}"),
            headers.get("x-opencode-directory", ""),
        )
        content = json.dumps(value).encode()
    kind = f"content-type: application/json\r\ncontent-length: {len(content)}"
    return f"HTTP/1.1 {status} X\r\n{kind}\r\n\r\n".encode() + content


def _exit(status: int) -> None:
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _agent(store: Path) -> ScriptedAgent:
    def keep(sessions: Raw) -> None:
        fresh = store.with_name(f"{store.name}.{os.getpid()}")
        fresh.write_text(json.dumps(sessions))
        fresh.rename(store)

    return ScriptedAgent(
        send=lambda line: _write_all(1, line),
        complain=lambda line: _write_all(2, line),
        end=_exit,
        keep=keep,
        version=os.environ.get("SCRIPTED_VERSION", VERSION),
        protocol=int(os.environ.get("SCRIPTED_PROTOCOL", "1")),
        sessions=json.loads(store.read_text()) if store.exists() else {},
    )


async def _main(port: int) -> int:
    agent = _agent(Path(os.environ["HOME"]) / ".scripted-agent.json")
    try:
        await _serve(agent, port, os.environ.get("OPENCODE_SERVER_PASSWORD", ""))
    except OSError:
        _write_all(2, b"ServeError: the port is in use\n")
        return 1
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    rest = b""
    while chunk := await reader.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            agent.take_line(line)
            await asyncio.sleep(0)
    agent.close()
    return 0


def main(arguments: list[str]) -> int:
    """Run as OpenCode would."""
    if arguments[:1] == ["--version"]:
        _write_all(1, f"{os.environ.get('SCRIPTED_VERSION', VERSION)}\n".encode())
        return 0
    if arguments[:1] != ["acp"]:
        _write_all(2, b"unknown command\n")
        return 1
    port = int(arguments[arguments.index("--port") + 1]) if "--port" in arguments else 0
    return asyncio.run(_main(port))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
