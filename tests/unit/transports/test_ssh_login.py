"""Getting in, or being told in one line why not."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AssayError, InfraError, InputError
from orchestrator.transports import SshSettings, open_transport
from orchestrator.transports.trust import fetch_host_key, trust
from tests.support.cli import processes_with, until
from tests.support.clock import PATIENCE
from tests.support.fake_agent import FakeAgent
from tests.support.sshd import Sshd, keygen, running


def refusal(settings: SshSettings) -> AssayError:
    with pytest.raises(AssayError) as caught, open_transport(settings, device="pi-1"):
        pass
    assert "\n" not in str(caught.value)
    assert "pi-1" in str(caught.value)
    return caught.value


def final(error: AssayError) -> str:
    """The id of an error that no retry can fix."""
    assert isinstance(error, InfraError)
    assert not error.retryable
    return error.id


def logs_in(settings: SshSettings) -> bool:
    with open_transport(settings, device="pi-1") as transport:
        return transport.ping(timeout=PATIENCE) > 0


def test_login(server: Sshd) -> None:
    assert logs_in(server.settings())


def test_unknown_host_key(server: Sshd, tmp_path: Path) -> None:
    for known_hosts in (tmp_path / "none", tmp_path / "empty"):
        error = refusal(server.settings(known_hosts=str(known_hosts)))
        assert final(error) == "E-SSH-HOSTKEY-UNKNOWN"
        assert "assay devices trust pi-1" in str(error)
        assert "SHA256:" in str(error)
        (tmp_path / "empty").touch()
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "empty").read_bytes() == b""


def test_changed_host_key(server: Sshd) -> None:
    before = (server.folder / "known_hosts").read_text()
    keygen(server.folder / "other")
    public = (server.folder / "other.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")
    assert final(refusal(server.settings())) == "E-SSH-HOSTKEY"
    # Another kind of key on file than the one shown is a change too, not a stranger.
    keygen(server.folder / "other", "-t", "ecdsa")
    public = (server.folder / "other.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")
    assert final(refusal(server.settings())) == "E-SSH-HOSTKEY"
    (server.folder / "known_hosts").write_text(before + "@revoked * " + before.split(" ", 1)[1])
    assert final(refusal(server.settings())) == "E-SSH-HOSTKEY"


def test_no_credential_is_shown_to_an_unverified_host(server: Sshd, tmp_path: Path) -> None:
    refusal(server.settings(known_hosts=str(tmp_path / "none")))
    log = (server.folder / "sshd.log").read_text()
    assert "Accepted" not in log
    assert "Failed" not in log


def test_the_kind_of_key_on_file_is_asked_for(tmp_path: Path) -> None:
    """A server with several keys must show the one that is known."""
    for kind in ("rsa", "ecdsa", "ed25519"):
        folder = tmp_path / kind
        folder.mkdir()
        lines = []
        for extra in ("rsa", "ecdsa"):
            keygen(folder / f"{extra}_key", "-t", extra)
            lines.append(f"HostKey {folder}/{extra}_key")
        with running(folder, "\n".join(lines)) as server:
            name = "host_key" if kind == "ed25519" else f"{kind}_key"
            public = (folder / f"{name}.pub").read_text()
            (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")
            assert logs_in(server.settings())


def test_login_refused(server: Sshd) -> None:
    keygen(server.folder / "stranger")
    error = refusal(server.settings(key=str(server.folder / "stranger")))
    assert final(error) == "E-SSH-AUTH"
    assert "stranger refused" in str(error)


def test_key_missing_or_encrypted_or_rubbish(server: Sshd) -> None:
    error = refusal(server.settings(key=str(server.folder / "none")))
    assert final(error) == "E-SSH-AUTH"
    assert "does not exist" in str(error)
    keygen(server.folder / "locked", "-N", "secret")
    error = refusal(server.settings(key=str(server.folder / "locked")))
    assert final(error) == "E-SSH-AUTH"
    assert "encrypted" in str(error)
    (server.folder / "rubbish").write_text("rubbish")
    assert final(refusal(server.settings(key=str(server.folder / "rubbish")))) == "E-SSH-AUTH"


def test_too_many_keys(tmp_path: Path) -> None:
    with running(tmp_path / "sshd", "MaxAuthTries 1") as server:
        keygen(server.folder / "stranger")
        config = f"IdentityFile {server.folder}/client_key\n"
        settings = with_config(server, config, key=str(server.folder / "stranger"))
        assert final(refusal(settings)) == "E-SSH-AUTH"


def test_password_only_server(tmp_path: Path) -> None:
    extra = "PubkeyAuthentication no\nPasswordAuthentication yes"
    with running(tmp_path / "sshd", extra) as server:
        error = refusal(server.settings())
    assert final(error) == "E-SSH-AUTH"
    assert "password" in str(error)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings = SshSettings(host="127.0.0.1", port=probe.getsockname()[1], config=False)
        error = refusal(settings)
    assert error.id == "E-SSH-UNREACHABLE"
    assert isinstance(error, InfraError)
    assert error.retryable
    assert "Connection refused" in str(error)


def test_name_that_does_not_exist() -> None:
    settings = SshSettings(host="pi.invalid", config=False, connect_timeout=PATIENCE)
    assert refusal(settings).id == "E-SSH-UNREACHABLE"


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_something_else_listens(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(greeting)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        settings = SshSettings(host="127.0.0.1", port=port, config=False, connect_timeout=1.0)
        assert refusal(settings).id == "E-SSH-UNREACHABLE"
        thread.join()


# --- ~/.ssh/config


def with_config(server: Sshd, text: str, **changes: object) -> SshSettings:
    """Settings that know no more than a name, and a home folder whose ssh config has ``text``."""
    ssh = Path.home() / ".ssh"
    ssh.mkdir(parents=True, exist_ok=True)
    (ssh / "config").write_text(f"{text}\nHost board\n HostName 127.0.0.1\n Port {server.port}\n")
    plain: dict[str, object] = {
        "host": "board",
        "known_hosts": str(server.folder / "known_hosts"),
        "agent": False,
        "root": str(server.folder / "root"),
        "connect_timeout": PATIENCE,
    }
    return SshSettings.model_validate(plain | changes)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


def test_config_names_host_port_and_key(server: Sshd) -> None:
    text = (
        f"ServerAliveInterval 5\nStrictHostKeyChecking no\nIdentityFile {server.folder}/client_key"
    )
    assert logs_in(with_config(server, text))


def test_config_can_be_switched_off(server: Sshd) -> None:
    settings = with_config(server, f"IdentityFile {server.folder}/client_key", config=False)
    assert refusal(settings).id == "E-SSH-UNREACHABLE"


def test_default_keys_and_include(server: Sshd, home: Path) -> None:
    settings = with_config(server, "Include extra/*.conf")
    (home / ".ssh" / "extra").mkdir()
    (home / ".ssh" / "extra" / "a.conf").write_text("Host elsewhere\n Port 1\n")
    shutil.copy(server.folder / "client_key", home / ".ssh" / "id_ed25519")
    assert logs_in(settings)


def test_checking_cannot_be_weakened_by_config(server: Sshd, tmp_path: Path) -> None:
    text = f"StrictHostKeyChecking no\nIdentityFile {server.folder}/client_key"
    error = refusal(with_config(server, text, known_hosts=str(tmp_path / "none")))
    assert error.id == "E-SSH-HOSTKEY-UNKNOWN"


def test_config_names_known_hosts_and_an_alias(server: Sshd, tmp_path: Path, home: Path) -> None:
    """The address is nobody's in any file: the key is vouched for under the alias alone."""
    kept = (server.folder / "known_hosts").read_text().split(" ", 1)[1]
    files = [tmp_path / "mine", tmp_path / "with space"]
    files[1].write_text(f"the-board {kept}")
    named = f'{files[0]} "{files[1]}"'
    text = f"IdentityFile {server.folder}/client_key\nUserKnownHostsFile {named}"
    alias = f"{text}\nHostKeyAlias the-board"
    assert logs_in(with_config(server, alias, known_hosts=None))
    assert "mine or " in str(refusal(with_config(server, text, known_hosts=None)))
    files[1].unlink()
    settings = with_config(server, alias, known_hosts=None)
    assert refusal(settings).id == "E-SSH-HOSTKEY-UNKNOWN"
    trust(settings, fetch_host_key(settings, "pi-1"))
    assert files[0].read_text() == f"the-board {kept.strip()}\n"
    assert logs_in(settings)
    # The inventory's own file comes first.
    assert logs_in(with_config(server, text))
    assert not (home / ".ssh" / "known_hosts").exists()


@pytest.mark.parametrize("name", ["none", "/dev/null"])
def test_no_file_at_all_is_no_way_around_checking(server: Sshd, home: Path, name: str) -> None:
    text = f"IdentityFile {server.folder}/client_key\nUserKnownHostsFile {name}"
    settings = with_config(server, text, known_hosts=None)
    assert refusal(settings).id == "E-SSH-HOSTKEY-UNKNOWN"
    shutil.copy(server.folder / "known_hosts", home / ".ssh" / "known_hosts")
    assert logs_in(settings)


def test_tokens_in_known_hosts(server: Sshd, home: Path) -> None:
    shutil.copy(server.folder / "known_hosts", home / ".ssh-known_board_127.0.0.1")
    text = f"IdentityFile {server.folder}/client_key\nUserKnownHostsFile ~/.ssh-known_%n_%h"
    assert logs_in(with_config(server, text, known_hosts=None))


def test_a_key_of_another_file_is_a_changed_key(server: Sshd, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text().rsplit(" ", 1)[0]
    files = tmp_path / "mine", tmp_path / "theirs"
    files[1].write_text(f"[127.0.0.1]:{server.port} {other}\n")
    text = f"IdentityFile {server.folder}/client_key\nUserKnownHostsFile {files[0]} {files[1]}"
    settings = with_config(server, text, known_hosts=None)
    assert refusal(settings).id == "E-SSH-HOSTKEY"
    key = fetch_host_key(settings, "pi-1")
    with pytest.raises(InfraError, match="another key"):
        trust(settings, key)
    assert not files[0].exists()
    trust(settings, key, replace=True)
    assert logs_in(settings)


def test_config_that_cannot_be_read(server: Sshd) -> None:
    for text in ("nonsense", "Host board\nPort many"):
        with (
            pytest.raises(InputError) as caught,
            open_transport(with_config(server, text), device="pi-1"),
        ):
            pass
        assert caught.value.id == "E-SSH-CONFIG"


def test_proxy_command(server: Sshd, tmp_path: Path) -> None:
    """Through another ssh, as ProxyJump does."""
    client = tmp_path / "client_config"
    client.write_text(
        f"IdentityFile {server.folder}/client_key\nUserKnownHostsFile {server.folder}/known_hosts\n"
    )
    jump = f"ssh -F {client} -p {server.port} -W %h:%p 127.0.0.1"
    text = f"IdentityFile {server.folder}/client_key\nProxyCommand {jump}"
    assert logs_in(with_config(server, text))
    assert len(server.sessions()) <= 4


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("false", "hung up|the other side closed the connection"),
        ("assay-no-such-program %h", "not found"),
        ("sh -c 'echo no route to %h >&2; exit 3'", "it said: no route to 127.0.0.1"),
        ("sh -c 'echo HTTP/1.1 502 Bad Gateway; sleep 0.2'", "it said: HTTP/1.1 502 Bad Gateway"),
        ("sh -c 'printf \"a\\033[31mb\" >&2'", "it said: a\\x1b[31mb"),
        ("sh -c 'yes gone | head -c 100000 >&2'", "gone / gone"),
    ],
)
def test_proxy_command_that_fails(
    server: Sshd, command: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error carries what the proxy said, escaped and bounded."""
    monkeypatch.setenv("SHELL", "/bin/sh")
    error = refusal(with_config(server, f"ProxyCommand {command}"))
    assert error.id == "E-SSH-UNREACHABLE"
    assert command.split()[0] in str(error)
    assert any(word in str(error) for word in says.split("|"))
    assert len(str(error)) < 800


def test_proxy_command_that_hangs_is_ended(server: Sshd, tmp_path: Path) -> None:
    mark = tmp_path / "hanging"
    command = f"sh -c 'sleep 600; echo {mark}'"
    error = refusal(with_config(server, f"ProxyCommand {command}", connect_timeout=1.5))
    assert error.id == "E-SSH-UNREACHABLE"
    until(lambda: not processes_with(str(mark)), "it is ended")


@pytest.mark.parametrize(
    "command",
    [
        "exec {nc} %h %p",
        "{nc} '%h' %p 2>/dev/null # %%",
        "{nc} $ASSAY_HOST $((%p + 0)); exit 1",
    ],
)
def test_proxy_command_is_read_by_a_shell(
    server: Sshd, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_HOST", "127.0.0.1")
    monkeypatch.setenv("SHELL", "/bin/sh")
    nc = tmp_path / "nc"
    nc.write_text(f"#!{sys.executable}\n{_NC}")
    nc.chmod(0o755)
    text = f"IdentityFile {server.folder}/client_key\nProxyCommand {command.format(nc=nc)}"
    assert logs_in(with_config(server, text))


_NC = """\
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pump(read, write):
    while data := read():
        write(data)
threading.Thread(target=pump, args=(lambda: os.read(0, 65536), link.sendall), daemon=True).start()
pump(lambda: link.recv(65536), lambda data: os.write(1, data))
"""


def test_the_port_of_the_inventory_is_the_one_that_is_dialled_and_trusted(
    server: Sshd, tmp_path: Path
) -> None:
    """Another board answers behind the port in the configuration."""
    with running(tmp_path / "other") as other:
        nc = tmp_path / "nc"
        nc.write_text(f"#!{sys.executable}\n{_NC}")
        nc.chmod(0o755)
        text = f"Port {other.port}\nIdentityFile {server.folder}/client_key\n"
        text += f"ProxyCommand {nc} %h %p"
        hosts = tmp_path / "trusted"
        settings = with_config(server, text, port=server.port, known_hosts=str(hosts))
        key = fetch_host_key(settings, "pi-1")
        ours = (server.folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        assert key.line == f"[127.0.0.1]:{server.port} {ours}"
        assert key.address.endswith(f"@127.0.0.1:{server.port}")
        trust(settings, key)
        with open_transport(settings, device="pi-1") as transport:
            assert f"@127.0.0.1:{server.port} through `{nc}" in transport.address
        other_board = refusal(with_config(server, text, known_hosts=str(hosts)))
        assert other_board.id == "E-SSH-HOSTKEY-UNKNOWN"


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        (b"Exceeded MaxStartups\r\n", "Exceeded MaxStartups"),
        (b"\x1b[2JNot allowed at this time\n" + b"y" * 4000, "yyyy"),
        ("Ger\u00e4t gesperrt\n".encode("latin-1"), "Ger\ufffdt gesperrt"),
    ],
)
def test_what_came_instead_of_a_greeting_is_told(greeting: bytes, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(255)
                peer.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        settings = SshSettings(host="127.0.0.1", port=listener.getsockname()[1], config=False)
        error = refusal(settings)
        thread.join()
    assert error.id == "E-SSH-UNREACHABLE"
    assert says in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 600


# --- agent


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if not shutil.which("ssh-agent"):
        pytest.skip("no ssh-agent here")
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    until(path.exists, "the agent listens", PATIENCE)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    process.terminate()
    process.wait()


def add(key: Path) -> None:
    subprocess.run(["ssh-add", "-q", key], check=True, stderr=subprocess.DEVNULL)


def test_agent(server: Sshd, agent: Path) -> None:
    settings = with_config(server, "", agent=True)
    assert refusal(settings).id == "E-SSH-AUTH"
    add(server.folder / "client_key")
    assert logs_in(settings)
    assert refusal(with_config(server, "", agent=False)).id == "E-SSH-AUTH"


def test_identities_only_takes_no_other_key_from_the_agent(server: Sshd, agent: Path) -> None:
    add(server.folder / "client_key")
    keygen(server.folder / "stranger")
    only = f"IdentitiesOnly yes\nIdentityFile {server.folder}/"
    assert refusal(with_config(server, only + "stranger", agent=True)).id == "E-SSH-AUTH"
    (server.folder / "client_key").rename(server.folder / "moved")
    assert logs_in(with_config(server, only + "client_key", agent=True))


def test_agent_that_hangs(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        listener.settimeout(0)
        for seconds in (1.5, 6.0, 24.0, 96.0):  # until the login gets as far as the agent
            settings = with_config(server, "", agent=True, connect_timeout=seconds)
            assert refusal(settings).id == "E-SSH-UNREACHABLE"
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                break
        else:
            pytest.fail("the agent was never asked")


@pytest.mark.parametrize("strangers", [["sk"], ["skec"], ["dss", "weird"], ["badutf", "empty"]])
def test_keys_of_the_agent_that_cannot_be_used_are_passed_over(
    server: Sshd, agent: Path, tmp_path: Path, strangers: list[str]
) -> None:
    """A FIDO key that nobody touches, an old kind, an unknown one, a name that is not UTF-8."""
    add(server.folder / "client_key")
    with FakeAgent(tmp_path / "front.sock", agent, strangers) as front:
        text = f"IdentityAgent {front.path}"
        assert logs_in(with_config(server, text, agent=True))
        subprocess.run(["ssh-add", "-q", "-D"], check=True, stderr=subprocess.DEVNULL)
        error = refusal(with_config(server, text, agent=True))
    assert final(error) == "E-SSH-AUTH"
    assert str(error).count("agent key SHA256:") == len(strangers)


def test_a_key_that_the_server_takes_and_the_agent_does_not_sign_with(
    server: Sshd, agent: Path, tmp_path: Path
) -> None:
    add(server.folder / "client_key")
    with FakeAgent(tmp_path / "front.sock", agent, ["sk"]) as front:
        (server.folder / "authorized_keys").write_text(front.authorized + "\n")
        error = refusal(with_config(server, f"IdentityAgent {front.path}", agent=True))
        assert "the agent does not sign with it (refused)" in str(error)
        with (server.folder / "authorized_keys").open("a") as keys:
            keys.write((server.folder / "client_key.pub").read_text())
        assert logs_in(with_config(server, f"IdentityAgent {front.path}", agent=True))


def test_the_agent_that_is_named(
    server: Sshd, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(server.folder / "client_key")
    monkeypatch.setenv("ASSAY_AGENT", str(agent))
    monkeypatch.delenv("SSH_AUTH_SOCK")
    for named in (str(agent), "$ASSAY_AGENT", "${ASSAY_AGENT}"):
        assert logs_in(with_config(server, f"IdentityAgent {named}", agent=True))
    gone = f"IdentityAgent {tmp_path}/gone.sock"
    assert f"{gone}: No such file" in str(refusal(with_config(server, gone, agent=True)))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    for named, says in (
        ("none", "no agent was asked (IdentityAgent none)"),
        ("$ASSAY_NO_AGENT", "IdentityAgent $ASSAY_NO_AGENT is not set"),
    ):
        assert says in str(refusal(with_config(server, f"IdentityAgent {named}", agent=True)))
    off = refusal(with_config(server, f"IdentityAgent {agent}", agent=False))
    assert f"IdentityAgent {agent} was not asked" in str(off)


def test_key_files_that_cannot_be_used_are_passed_over(server: Sshd, tmp_path: Path) -> None:
    """Each is named, and the next one is tried."""
    bad = tmp_path / "bad"
    bad.mkdir()
    good = (server.folder / "client_key").read_text()
    (bad / "cut").write_text(good[:150])
    (bad / "public").write_text((server.folder / "client_key.pub").read_text())
    (bad / "pkcs").write_text(
        "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----"
    )
    (bad / "folder").mkdir()
    (bad / "sk").write_text(sk_private_key())
    keygen(bad / "locked", "-N", "secret")
    names = ["cut", "public", "pkcs", "folder", "sk", "locked", "gone"]
    text = "".join(f"IdentityFile {bad / name}\n" for name in names)
    error = refusal(with_config(server, text))
    assert final(error) == "E-SSH-AUTH"
    for name in names:
        assert str(bad / name) in str(error)
    assert "sk-ssh-ed25519@openssh.com, with which only an agent signs" in str(error)
    assert logs_in(with_config(server, f"{text}IdentityFile {server.folder}/client_key"))


def sk_private_key() -> str:
    """As ssh-keygen -t ed25519-sk writes it, without the hardware: only the public half counts."""

    def string(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    public = string(b"sk-ssh-ed25519@openssh.com") + string(b"\1" * 32) + string(b"ssh:")
    body = b"openssh-key-v1\0" + string(b"none") * 2 + string(b"") + (1).to_bytes(4, "big")
    text = base64.encodebytes(body + string(public) + string(b"\0" * 64)).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n"


def test_an_rsa_key_that_the_server_takes_no_signature_of(tmp_path: Path) -> None:
    """Newer servers do not list the algorithm, with which paramiko would end the connection."""
    with running(tmp_path / "sshd", "PubkeyAcceptedAlgorithms ssh-ed25519") as server:
        keygen(tmp_path / "rsa", "-t", "rsa", "-b", "1024")
        text = f"IdentityFile {tmp_path}/rsa\nIdentityFile {server.folder}/"
        assert logs_in(with_config(server, text + "client_key"))
        assert f"{tmp_path}/rsa" in str(refusal(with_config(server, text + "none")))


def test_what_the_server_says_at_the_login_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "sshd"
    folder.mkdir()
    (folder / "banner").write_bytes(b"Maintenance\n\x1b[31muntil noon\n")
    with running(folder, f"Banner {folder}/banner") as server:
        keygen(server.folder / "stranger")
        error = refusal(server.settings(key=str(server.folder / "stranger")))
    assert "it said: Maintenance / \\x1b[31muntil noon" in str(error)


def signed(server: Sshd, name: str, *options: str) -> Path:
    """``name`` and a certificate beside it by an authority that alone is let in."""
    if not (server.folder / "ca").exists():
        keygen(server.folder / "ca")
    keygen(server.folder / name, *options)
    command = ["ssh-keygen", "-q", "-s", "ca", "-I", "assay", "-n", _user(), f"{name}.pub"]
    subprocess.run(command, check=True, cwd=server.folder, stderr=subprocess.DEVNULL)
    authority = (server.folder / "ca.pub").read_text()
    (server.folder / "authorized_keys").write_text(f"cert-authority {authority}")
    return server.folder / name


def test_certificate(server: Sshd, agent: Path) -> None:
    for kind in ("ed25519", "rsa", "ecdsa"):
        key = signed(server, kind, "-t", kind, *(["-b", "1024"] if kind == "rsa" else []))
        assert logs_in(server.settings(key=str(key)))
        elsewhere = server.folder / f"elsewhere-{kind}"
        (server.folder / f"{kind}-cert.pub").rename(elsewhere)
        text = f"IdentityFile {key}\nCertificateFile {elsewhere}"
        assert refusal(with_config(server, f"IdentityFile {key}")).id == "E-SSH-AUTH"
        assert logs_in(with_config(server, text))
        add(key)
        key.unlink()
        assert logs_in(with_config(server, text, agent=True)), "the agent's half"


def test_certificates_that_do_not_fit_are_passed_over(server: Sshd) -> None:
    other, beside = signed(server, "other"), server.folder / "client_key-cert.pub"
    shutil.copy(server.folder / "client_key.pub", server.folder / "authorized_keys")
    key = server.folder / "client_key"
    for text in (f"{other}-cert.pub", None):
        beside.write_text(Path(text).read_text() if text else "rubbish")
        assert logs_in(server.settings(key=str(key)))
        (server.folder / "authorized_keys").rename(server.folder / "kept")
        assert "client_key-cert.pub" in str(refusal(server.settings(key=str(key))))
        (server.folder / "kept").rename(server.folder / "authorized_keys")


def _user() -> str:
    return subprocess.run(
        [sys.executable, "-c", "import getpass; print(getpass.getuser())"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
