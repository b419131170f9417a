"""A user certificate opens the door where the key alone does not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import AuthenticationError
from remote_dispatch.model import Host
from remote_dispatch.remote.ssh import connect
from tests.rig.sshd import USER, make_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig.sshd import Sshd


@pytest.mark.parametrize("is_signed", [True, False])
async def test_a_certificate_of_a_trusted_authority_is_honoured(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, *, is_signed: bool
) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "signed")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "rig", "-n", USER, f"{key}.pub"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=20)
    server = own_server(extra=(f"TrustedUserCAKeys {authority}.pub",))
    certificate = f"CertificateFile {key}-cert.pub" if is_signed else ""
    server.write_client_home(client_home, extra=certificate)
    # The key that the server knows gives way to one that only the authority vouches for.
    (client_home / ".ssh/id_box").write_bytes(key.read_bytes())
    host = Host(name="box", host="box")
    if is_signed:
        async with connect(host) as connection:
            assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"
    else:
        with pytest.raises(AuthenticationError):
            async with connect(host):
                pass
