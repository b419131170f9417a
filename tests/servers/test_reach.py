"""Reaching the servers of hosts: by URL against a tiny server, and through a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import urllib.request
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.dispatch.link import Link
from remote_dispatch.errors import (
    AuthenticationError,
    CommandError,
    ConfigurationError,
    ConnectionLostError,
    DeadlinePassedError,
    HostNotReadyError,
    HostUnreachableError,
    RemoteDispatchError,
    UnknownNameError,
)
from remote_dispatch.hosts.registry import Registry
from remote_dispatch.model import Host
from remote_dispatch.opencode.api import RefusedError
from remote_dispatch.remote.connection import Completed
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.remote.ssh import connect
from remote_dispatch.servers.on_host import find, start, stop
from remote_dispatch.servers.reach import Servers, host_named, url_host
from tests.rig.sshd import Sshd, free_port
from tests.rig.tiny import HEALTH, Heard, Reply, TinyServer, of_json
from tests.servers.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.rig.served import Bench

PASSWORD = "very-secret-word"
HEALTHY = json.dumps(HEALTH).encode()
PATHS = {"home": "/h", "directory": "/d", "state": "/s"}
PRINTS = [sys.executable, "-c", f"print('{PASSWORD}'); print('and more')"]


def link(host: Host) -> Link:
    return Link(host, connect)


def servers(**environment: str) -> Servers:
    return Servers(link, {"PATH": "/usr/bin:/bin", **environment})


def guarded(heard: Heard) -> Reply:
    """What a server with a password answers."""
    scheme, _, words = heard.headers.get("authorization", "").partition(" ")
    if scheme != "Basic" or b64decode(words).decode() not in (f"opencode:{PASSWORD}", f"ada:{PASSWORD}"):
        return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="Secure Area"'})
    return of_json(HEALTH if heard.target == "/global/health" else PATHS)


def assert_no_secret(error: RemoteDispatchError, *secrets: object) -> None:
    shown = f"{error} {error!r} {error.hint}"
    for secret in (PASSWORD, "127.0.0.1", *secrets):
        assert str(secret) not in shown


# --- by URL


@pytest.mark.parametrize(
    ("fields", "environment"),
    [
        ({}, {"OPENCODE_SERVER_PASSWORD": PASSWORD}),
        ({}, {"OPENCODE_SERVER_PASSWORD": PASSWORD, "OPENCODE_SERVER_USERNAME": "ada"}),
        ({"server_user": "ada"}, {"OPENCODE_SERVER_PASSWORD": PASSWORD, "OPENCODE_SERVER_USERNAME": "bob"}),
        ({"server_password_env": "MINE"}, {"OPENCODE_SERVER_PASSWORD": "another", "MINE": PASSWORD}),
        ({"server_password_command": PRINTS}, {"OPENCODE_SERVER_PASSWORD": "another"}),
    ],
)
async def test_user_and_password_come_from_the_entry_or_the_environment(
    fields: dict[str, Any], environment: dict[str, str]
) -> None:
    async with TinyServer(guarded) as server, servers(**environment) as reach:
        host = Host(name="box", server=f"{server.url}/", **fields)
        api = await reach.api(host)
        assert (await api.paths()).home == "/h"
        assert await reach.api(host) is api
        assert api.remarks == ()


async def test_a_wrong_password_is_a_login_error_that_says_where_it_is_taken_from() -> None:
    async with TinyServer(guarded) as server, servers(MINE="wrong-word") as reach:
        with pytest.raises(AuthenticationError) as caught:
            await reach.api(Host(name="box", server=server.url, server_password_env="MINE"))
        assert "variable MINE" in str(caught.value.hint)
        assert_no_secret(caught.value, "wrong-word", server.port)
        with pytest.raises(AuthenticationError) as caught:
            await reach.api(Host(name="none", server=server.url))
        assert "OPENCODE_SERVER_PASSWORD" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"server_password_env": "MINE"}, ConfigurationError, "MINE.* is not set"),
        ({"server_password_command": ["false"]}, CommandError, "exit status 1"),
        ({"server_password_command": ["true"]}, CommandError, "printed no password"),
        ({"server_password_command": ["/nowhere/pass"]}, CommandError, "exit status 127"),
        ({"server_password_command": ["sh", "-c", "echo at 10.0.0.5 >&2; exit 2"]}, CommandError, "at <address>"),
    ],
)
async def test_no_password_is_an_error_before_anything_is_sent(
    fields: dict[str, Any], kind: type[RemoteDispatchError], words: str
) -> None:
    async with TinyServer(guarded) as server, servers() as reach:
        with pytest.raises(kind, match=words) as caught:
            await reach.api(Host(name="box", server=server.url, **fields))
        assert_no_secret(caught.value, "10.0.0.5")
        assert server.connections == 0


async def test_the_password_command_is_read_by_no_shell_and_has_no_input(tmp_path: Path) -> None:
    program = "import sys; sys.stdin.read(); print(sys.argv[1])"
    host = Host(name="box", server="x", server_password_command=[sys.executable, "-c", program, f"{PASSWORD}"])
    odd = host.model_copy(update={"server_password_command": ["echo", f"$HOME`touch {tmp_path}/made`; {PASSWORD}"]})
    async with TinyServer(guarded) as server, servers() as reach:
        await reach.api(host.model_copy(update={"server": server.url}))
        with pytest.raises(AuthenticationError):
            await reach.api(odd.model_copy(update={"name": "odd", "server": server.url}))
    assert not (tmp_path / "made").exists()


async def test_a_url_where_nobody_or_something_else_answers_is_an_error() -> None:
    async with servers() as reach:
        with pytest.raises(HostUnreachableError) as caught:
            await reach.api(Host(name="box", server=f"http://127.0.0.1:{free_port()}"))
        assert_no_secret(caught.value)
        async with TinyServer(lambda _: Reply(b"<html>", kind="text/html")) as server:
            with pytest.raises(RefusedError, match="not an OpenCode server"):
                await reach.api(Host(name="web", server=server.url))
        with pytest.raises(HostUnreachableError, match="does not speak https"):
            async with no_tls() as port:
                await reach.api(Host(name="tls", server=f"https://127.0.0.1:{port}"))


async def test_a_certificate_must_be_trusted(tmp_path: Path) -> None:
    certificate, tls = self_signed(tmp_path)
    async with TinyServer(lambda _: of_json(HEALTH), tls=tls) as server:
        host = Host(name="box", server=server.url)
        async with servers() as reach:
            with pytest.raises(HostUnreachableError, match="not trusted"):
                await reach.api(host)
        async with servers(SSL_CERT_FILE=str(certificate)) as reach:
            assert (await reach.api(host)).version == "1.18.33"
        async with servers(SSL_CERT_FILE=str(tmp_path / "missing")) as reach:
            with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
                await reach.api(host)
        async with servers() as reach:
            with pytest.raises(ConnectionLostError):
                await reach.api(Host(name="plain", server=server.url.replace("https", "http")))


async def test_a_request_without_an_answer_while_the_server_starts_is_asked_again() -> None:
    async with TinyServer(lambda _: of_json(HEALTH) if len(server.heard) > 1 else None) as server, servers() as reach:
        assert (await reach.api(Host(name="box", server=server.url))).version == "1.18.33"
        assert server.connections == 2


def test_the_variable_of_a_url_stands_for_a_host_named_server() -> None:
    assert url_host({}) is None
    host = url_host({"OPENCODE_API_URL": "http://127.0.0.1:4096"})
    assert host is not None
    assert (host.name, host.server) == ("server", "http://127.0.0.1:4096")
    for wrong in ("ftp://box.lan", f"http://ada:{PASSWORD}@box.lan", "box.lan"):
        with pytest.raises(ConfigurationError) as caught:
            url_host({"OPENCODE_API_URL": wrong})
        assert_no_secret(caught.value, "box.lan")


def test_that_host_is_the_registrys_own_where_it_has_one(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text('{"hosts": {"pi": "pi-lan"}}')
    variables = {"HOME": str(tmp_path), "OPENCODE_API_URL": "http://127.0.0.1:4096"}
    registry = Registry.load(environment=variables, hosts_file=file)
    assert host_named(registry, variables, "server").server == "http://127.0.0.1:4096"
    assert host_named(registry, variables, "pi").host == "pi-lan"
    with pytest.raises(UnknownNameError) as caught:
        host_named(registry, {}, "server")
    assert "OPENCODE_API_URL" in str(caught.value.hint)
    file.write_text('{"hosts": {"server": "mine"}}')
    assert host_named(Registry.load(environment=variables, hosts_file=file), variables, "server").host == "mine"


async def test_a_host_by_url_has_no_ssh_connection_and_its_door_is_the_url() -> None:
    async with TinyServer(guarded) as server, servers(OPENCODE_SERVER_PASSWORD=PASSWORD) as reach:
        host = Host(name="box", server=server.url)
        with pytest.raises(ConfigurationError, match="not by SSH"):
            await reach.connection(host)
        async with reach.tunnel(host) as door:
            assert (door.url, door.user, door.password) == (server.url, "opencode", PASSWORD)
            assert repr(door) == "Door()"


# --- through SSH


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def box(sshd: Sshd, private_home: Path) -> Host:
    """A host that the client of this test gets into."""
    sshd.write_client_home(private_home)
    return Host(name="box", host="box")


def at(host: Host, port: int) -> Host:
    return host.model_copy(update={"server": f"http://127.0.0.1:{port}"})


async def test_a_server_on_the_hosts_loopback_is_reached_and_a_broken_connection_made_anew(
    box: Host, sshd: Sshd
) -> None:
    async with TinyServer(guarded) as server, servers(OPENCODE_SERVER_PASSWORD=PASSWORD) as reach:
        api = await reach.api(at(box, server.port))
        before = await reach.connection(at(box, server.port))
        assert sshd.drop_connections()
        answers = await asyncio.gather(*(api.paths() for _ in range(10)))
        assert {one.home for one in answers} == {"/h"}
        assert await reach.connection(at(box, server.port)) is not before
        assert sshd.drop_connections() > 0
        await server.until(lambda: server.is_open == 0)
        await api.prompt("ses_07f1b2c3d4e5AbCdEfGhIjKlMn", "/x", {})


async def test_a_request_that_was_sent_before_the_connection_broke_is_not_sent_again_when_it_changes_something(
    box: Host, sshd: Sshd
) -> None:
    def answer(heard: Heard) -> Reply | None:
        return None if heard.method == "POST" else guarded(heard)

    async with TinyServer(answer) as server, servers(OPENCODE_SERVER_PASSWORD=PASSWORD) as reach:
        api = await reach.api(at(box, server.port))
        asking = asyncio.create_task(api.prompt("ses_07f1b2c3d4e5AbCdEfGhIjKlMn", "/x", {}))
        await server.until(lambda: server.heard[-1].method == "POST")
        assert sshd.drop_connections()
        with pytest.raises(ConnectionLostError):
            await asking
        assert (await api.paths()).home == "/h"
        assert [one.method for one in server.heard].count("POST") == 1


async def test_a_host_that_is_out_of_reach_is_unreachable_and_works_again_later(box: Host, sshd: Sshd) -> None:
    async with TinyServer(guarded) as server, servers(OPENCODE_SERVER_PASSWORD=PASSWORD) as reach:
        api = await reach.api(at(box, server.port))
        sshd.stop()
        try:
            with pytest.raises(HostUnreachableError):
                await api.paths()
        finally:
            sshd.start()
        assert (await api.paths()).home == "/h"


async def test_a_door_through_ssh_lets_other_programs_in_while_it_is_open(box: Host) -> None:
    async with TinyServer(guarded) as server, servers(OPENCODE_SERVER_PASSWORD=PASSWORD) as reach:
        async with reach.tunnel(at(box, server.port)) as door:
            manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            manager.add_password(None, door.url, str(door.user), str(door.password))
            opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
            answer = await asyncio.to_thread(lambda: opener.open(f"{door.url}/path", timeout=10).read())
        assert json.loads(answer) == PATHS
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(lambda: urllib.request.urlopen(door.url, timeout=10))


async def test_a_host_without_a_server_says_how_to_start_one(box: Host) -> None:
    async with servers() as reach:
        with pytest.raises(HostNotReadyError) as caught:
            await reach.api(box)
        assert caught.value.hint == "start one with `remote-dispatch session server start box`"
        assert (await reach.connection(box)).name == "box"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[StandIn]:
    """A home with a stand-in OpenCode whose health is as the real one's."""
    stand_in = StandIn(tmp_path / "home")
    answer = f"self.send_header('Content-Type', 'application/json'); self.end_headers(); self.wfile.write({HEALTHY!r})"
    program = stand_in.home / "programs/opencode"
    program.write_text(program.read_text().replace("self.end_headers()", answer))
    yield stand_in
    end_processes_of(stand_in.home)


async def test_our_server_is_started_when_asked_and_found_again_after_it_was_started_anew(there: StandIn) -> None:
    connection = LocalConnection(environment=there.variables, directory=there.home)

    def local(host: Host) -> Link:
        return Link(host, lambda _: contextlib.nullcontext(connection))

    host = Host(name="pi", host="pi-lan")
    async with Servers(local, {}) as reach:
        with pytest.raises(HostNotReadyError):
            await reach.api(host)
        api = await reach.api(host, starts=True)
        first = await find(connection)
        assert await reach.api(host, starts=True) is api
        await stop(connection, first, None)
        with pytest.raises(HostNotReadyError):
            await api.health()
        second = await start(connection, host)
        assert first is not None
        assert second.password != first.password
        assert (await api.health()).version == "1.18.33"
        assert len(there.calls()) == 2


async def test_https_to_the_hosts_own_loopback_is_refused(box: Host) -> None:
    async with servers() as reach:
        with pytest.raises(ConfigurationError, match="through SSH"):
            await reach.api(box.model_copy(update={"server": "https://localhost:4096"}))


@pytest.mark.real
async def test_the_real_server_through_ssh_is_read_watched_and_found_again_after_a_break(
    box: Host, sshd: Sshd, served: Bench
) -> None:
    async with servers(OPENCODE_SERVER_PASSWORD=served.server.password) as reach:
        api = await reach.api(at(box, served.server.port))
        async with contextlib.aclosing(api.events()) as events:
            assert (await anext(events)).type == "server.connected"
            made = await api.create(served.directory, title="through a channel")
            await api.prompt(made.id, served.directory, {"parts": [{"type": "text", "text": "!say hello"}]})
            async for event in events:
                if event.type == "session.idle" and event.session_id == made.id:
                    break
            shown = await asyncio.gather(*(api.session(made.id) for _ in range(40)))
            assert {one.title for one in shown} == {"through a channel"}
            assert sshd.drop_connections()
            with pytest.raises(ConnectionLostError):
                async for _ in events:
                    pass
        assert [one["info"]["role"] for one in await api.messages(made.id)] == ["user", "assistant"]
        await api.delete(made.id)


@contextlib.asynccontextmanager
async def no_tls() -> AsyncIterator[int]:
    """What answers every greeting with words of plain HTTP."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def self_signed(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate of 127.0.0.1 for an hour."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, secret = directory / "certificate.pem", directory / "key.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    no_secret = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_secret))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path, secret)
    return path, tls


class Held(LocalConnection):
    """A machine whose answers are held back, and that may not answer in time at all."""

    def __init__(self, *, is_late: bool = False) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.asked: list[str] = []
        self._is_late = is_late

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - as in Connection
        self.asked.append("start" if values else "find")
        await self.go.wait()
        if self._is_late:
            raise DeadlinePassedError("it did not end in time")
        return Completed(0, b"state missing\n" if values else b"state none\n", b"")


def held(machine: Held) -> Servers:
    @contextlib.asynccontextmanager
    async def entered(host: Host) -> AsyncIterator[Held]:
        assert host.name == "box"
        yield machine

    return Servers(lambda host: Link(host, entered), {})


async def test_who_wants_a_server_started_is_not_told_that_none_runs() -> None:
    machine = Held()
    async with held(machine) as reach:
        looks = asyncio.create_task(reach.api(Host(name="box", host="box")))
        await asyncio.sleep(0)
        starts = asyncio.create_task(reach.api(Host(name="box", host="box"), starts=True))
        asyncio.get_running_loop().call_later(0.05, machine.go.set)
        told = await asyncio.gather(looks, starts, return_exceptions=True)
    assert machine.asked == ["find", "start"]
    assert ["none" if "no OpenCode server" in str(one) else "not found" for one in told] == ["none", "not found"]


async def test_a_host_that_does_not_say_in_time_where_its_server_is_may_be_asked_again() -> None:
    machine = Held(is_late=True)
    machine.go.set()
    async with held(machine) as reach:
        with pytest.raises(HostUnreachableError):
            await reach.api(Host(name="box", host="box"))
