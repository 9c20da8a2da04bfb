"""Getting in, or being told in one line why not."""

from __future__ import annotations

import contextlib
import shlex
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
from tests.support.cli import until
from tests.support.clock import PATIENCE
from tests.support.sshd import Sshd, keygen, running


def refusal(settings: SshSettings) -> AssayError:
    with pytest.raises(AssayError) as caught, open_transport(settings, device="pi-1"):
        pass
    assert "\n" not in str(caught.value)
    assert "pi-1" in str(caught.value)
    return caught.value


def final(error: AssayError) -> str:
    """The id of an error that no retry can mend."""
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
    text = f"NoSuchDirective yes\nStrictHostKeyChecking no\nIdentityFile {server.folder}/client_key"
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


def test_tokens_in_known_hosts_are_refused(server: Sshd) -> None:
    settings = with_config(server, "UserKnownHostsFile ~/.ssh/known_%h", known_hosts=None)
    with pytest.raises(InputError, match="tokens") as caught, open_transport(settings, device="x"):
        pass
    assert caught.value.id == "E-SSH-CONFIG"


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


def test_proxy_command_that_fails(server: Sshd) -> None:
    for command, seconds in (
        ("false", PATIENCE),
        ("assay-no-such-program %h", PATIENCE),
        ("sleep 600", 1.5),
    ):
        settings = with_config(server, f"ProxyCommand {command}", connect_timeout=seconds)
        error = refusal(settings)
        assert error.id == "E-SSH-UNREACHABLE"
        assert shlex.split(command)[0] in str(error)


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


def test_certificate(server: Sshd) -> None:
    keygen(server.folder / "ca")
    keygen(server.folder / "signed")
    command = ["ssh-keygen", "-q", "-s", "ca", "-I", "assay", "-n", _user(), "signed.pub"]
    subprocess.run(command, check=True, cwd=server.folder, stderr=subprocess.DEVNULL)
    authority = (server.folder / "ca.pub").read_text()
    (server.folder / "authorized_keys").write_text(f"cert-authority {authority}")
    assert logs_in(server.settings(key=str(server.folder / "signed")))


def _user() -> str:
    return subprocess.run(
        [sys.executable, "-c", "import getpass; print(getpass.getuser())"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
