"""Boards behind gateways: real sshds, one of which is talked to through the others."""

from __future__ import annotations

import getpass
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.errors import AssayError, InfraError, InputError
from orchestrator.transports import SshSettings, open_transport
from orchestrator.transports.ssh_config import hops, resolve
from tests.support.cli import until
from tests.support.sshd import MISSING, Sshd, introduced, running

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Sshd]:
    with running(tmp_path / "gateway") as made:
        yield made


@pytest.fixture
def board(tmp_path: Path, gateway: Sshd) -> Iterator[Sshd]:
    with running(tmp_path / "board") as made:
        introduced(made, gateway)
        yield made


def through(*gateways: Sshd) -> str:
    return ",".join(f"{getpass.getuser()}@127.0.0.1:{g.port}" for g in gateways)


def refusal(settings: SshSettings) -> AssayError:
    with pytest.raises(AssayError) as caught, open_transport(settings, device="pi-1"):
        pass
    assert "\n" not in str(caught.value)
    assert "pi-1" in str(caught.value)
    return caught.value


def test_every_byte_goes_through_the_gateway(gateway: Sshd, board: Sshd) -> None:
    with open_transport(board.settings(jump=through(gateway)), device="pi-1") as transport:
        assert transport.ping(timeout=20) > 0
        assert gateway.sessions()
        gateway.signal_sessions(signal.SIGKILL)
        with pytest.raises(InfraError, match="E-LINK"):
            transport.ping(timeout=20)


def test_the_link_to_the_gateway_ends_with_the_devices(gateway: Sshd, board: Sshd) -> None:
    with open_transport(board.settings(jump=through(gateway)), device="pi-1") as transport:
        transport.ping(timeout=20)
    until(lambda: not gateway.sessions(), "its session has ended")


def test_several_gateways(tmp_path: Path, gateway: Sshd, board: Sshd) -> None:
    with running(tmp_path / "nearer") as nearer:
        introduced(board, nearer)
        settings = board.settings(jump=through(nearer, gateway))
        with open_transport(settings, device="pi-1") as transport:
            assert transport.ping(timeout=20) > 0
            assert nearer.sessions()
            assert gateway.sessions()


def test_each_hop_shows_a_key_that_is_vouched_for(gateway: Sshd, board: Sshd) -> None:
    settings = board.settings(jump=through(gateway))
    known = board.folder / "known_hosts"
    lines = known.read_text().splitlines(keepends=True)
    for server in (gateway, board):
        known.write_text("".join(x for x in lines if f":{server.port} " not in x))
        error = refusal(settings)
        assert error.id == "E-SSH-HOSTKEY-UNKNOWN"
        assert f"[127.0.0.1]:{server.port} shows SHA256:" in str(error)


def test_a_gateway_that_does_not_forward(tmp_path: Path, board: Sshd) -> None:
    with running(tmp_path / "closed", "AllowTcpForwarding no") as closed:
        introduced(board, closed)
        error = refusal(board.settings(jump=through(closed)))
        assert error.id == "E-SSH-JUMP"
        assert f"gateway 127.0.0.1 port {closed.port} opens no connection" in str(error)


def test_a_device_that_the_gateway_does_not_reach(gateway: Sshd, board: Sshd) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = board.settings(jump=through(gateway), port=nobody.getsockname()[1])
        error = refusal(settings)
    assert isinstance(error, InfraError)
    assert (error.id, error.retryable) == ("E-SSH-JUMP", True)


def test_a_gateway_that_is_off(gateway: Sshd, board: Sshd) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        error = refusal(board.settings(jump=f"127.0.0.1:{port}"))
    assert error.id == "E-SSH-UNREACHABLE"
    assert f"to 127.0.0.1 port {port}:" in str(error)


def test_a_gateway_that_says_nothing(gateway: Sshd, board: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        jump = f"127.0.0.1:{mute.getsockname()[1]}"
        error = refusal(board.settings(jump=jump, connect_timeout=1.5))
    assert error.id == "E-SSH-UNREACHABLE"


def test_gateways_are_read_nearest_first() -> None:
    settings = SshSettings(host="pi", user="me", jump="op@outer:2200,[fe80::1]:23,inner")
    found = [(s.host, s.port, s.user, s.jump) for s in hops(settings)]
    assert found == [
        ("outer", 2200, "op", None),
        ("fe80::1", 23, None, "op@outer:2200"),
        ("inner", None, None, "op@outer:2200,[fe80::1]:23"),
        ("pi", None, "me", "op@outer:2200,[fe80::1]:23,inner"),
    ]


def test_the_inventory_says_more_than_the_users_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host pi\n  ProxyJump elsewhere\n")
    assert resolve(SshSettings(host="pi"), config).proxy is not None
    found = resolve(SshSettings(host="pi", jump="gate"), config)
    assert found.proxy is None
    assert found.gateway is not None


@pytest.mark.parametrize("jump", ["", "a,", "-oProxyCommand=x", "a b", "me@-x", "a:", "a@b@c"])
def test_what_names_no_gateway(jump: str) -> None:
    with pytest.raises(ValidationError):
        SshSettings(host="pi", jump=jump)


def test_a_gateways_port_that_there_cannot_be() -> None:
    with pytest.raises(InputError, match="E-SSH-CONFIG"):
        resolve(SshSettings(host="pi", jump="gate:70000"))
