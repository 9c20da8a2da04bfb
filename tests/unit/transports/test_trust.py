"""known_hosts: read as OpenSSH reads it, written only by `trust`."""

from __future__ import annotations

import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.transports import SshSettings, known_hosts, open_transport
from orchestrator.transports.known_hosts import Standing
from orchestrator.transports.ssh_config import resolve
from orchestrator.transports.trust import HostKey, fetch_host_key, known, standing, trust
from tests.support.sshd import Sshd, keygen

needs_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")


def key_for(folder: Path, host: str, name: str = "key", kind: str = "ed25519") -> HostKey:
    keygen(folder / name, "-t", kind)
    algorithm, blob, *_ = (folder / f"{name}.pub").read_text().split()
    (entry,) = known_hosts.parse(f"{host} {algorithm} {blob}")
    return HostKey(algorithm, known_hosts.fingerprint(entry.blob), f"{host} {algorithm} {blob}")


def settings_for(path: Path, host: str = "pi.local", port: int | None = None) -> SshSettings:
    return SshSettings(host=host, port=port, known_hosts=str(path), config=False)


def test_trust_then_connect(server: Sshd, tmp_path: Path) -> None:
    settings = server.settings(known_hosts=str(tmp_path / "new" / "known_hosts"))
    key = fetch_host_key(settings, "pi-1")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", server.folder / "host_key.pub"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert key.fingerprint in shown.split()
    assert key.algorithm == "ssh-ed25519"
    assert known(settings) == []
    assert standing(settings, key) is Standing.UNKNOWN
    trust(settings, key)
    path = tmp_path / "new" / "known_hosts"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert known(settings) == [key]
    with open_transport(settings, device="pi-1") as transport:
        assert transport.ping(timeout=20) > 0
    before = path.read_bytes()
    trust(settings, key)
    assert path.read_bytes() == before
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[127.0.0.1]:{server.port}", "-f", path],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert key.line in found


@needs_keygen
def test_changed_key_is_only_replaced_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    settings = settings_for(path)
    old, new = key_for(tmp_path, "pi.local"), key_for(tmp_path, "pi.local", kind="ecdsa")
    algorithm, blob = old.line.split()[1:]
    others = (
        f"# mine\nother.local {algorithm} {blob}\nbroken line\n*.example.org {algorithm} {blob}"
    )
    path.write_text(f"{others}\npi.local,10.0.0.7 {algorithm} {blob}  comment")
    before = path.read_text()
    with pytest.raises(InfraError) as caught:
        trust(settings, new)
    assert caught.value.id == "E-SSH-HOSTKEY"
    assert not caught.value.retryable
    assert path.read_text() == before
    trust(settings, new, replace=True)
    assert known(settings) == [new]
    assert path.read_text() == f"{others}\n10.0.0.7 {algorithm} {blob}  comment\n{new.line}\n"


@needs_keygen
def test_hashed_names(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    for host, port, name in (("pi.local", None, "pi.local"), ("pi.local", 2222, "[pi.local]:2222")):
        settings = settings_for(path, host, port)
        old, new = key_for(tmp_path, name), key_for(tmp_path, name, "new")
        path.write_text(old.line + "\n")
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
        assert "pi.local" not in path.read_text()
        assert standing(settings, old) is Standing.KNOWN
        assert standing(settings, new) is Standing.CHANGED
        assert standing(settings_for(path, "else.local"), old) is Standing.UNKNOWN
        trust(settings, new, replace=True)
        assert path.read_text() == new.line + "\n"


@needs_keygen
def test_revoked_key_is_never_trusted(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    key = key_for(tmp_path, "pi.local")
    path.write_text(f"@revoked * {key.line.split(' ', 1)[1]}\n{key.line}\n")
    for replace in (False, True):
        with pytest.raises(InfraError) as caught:
            trust(settings_for(path), key, replace=replace)
        assert caught.value.id == "E-SSH-HOSTKEY"


@needs_keygen
def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "known_hosts"
    real.parent.mkdir()
    real.write_bytes(b"# caf\xe9\n")
    (tmp_path / "known_hosts").symlink_to(real)
    key = key_for(tmp_path, "pi.local")
    trust(settings_for(tmp_path / "known_hosts"), key)
    assert (tmp_path / "known_hosts").is_symlink()
    assert real.read_bytes() == b"# caf\xe9\n" + key.line.encode() + b"\n"


@needs_keygen
def test_several_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    keys = {f"pi-{n}": key_for(tmp_path, f"pi-{n}", f"key{n}") for n in range(8)}
    threads = [
        threading.Thread(target=trust, args=(settings_for(path, host), key))
        for host, key in keys.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text().splitlines()) == sorted(k.line for k in keys.values())


BLOB = "AAAA"


@pytest.mark.parametrize(
    ("line", "host", "want"),
    [
        (f"pi ssh-x {BLOB}", "pi", Standing.KNOWN),
        (f"PI ssh-x {BLOB}", "pi", Standing.KNOWN),
        (f"pi ssh-x {BLOB}", "[pi]:2222", Standing.UNKNOWN),
        (f"[pi]:2222 ssh-x {BLOB}", "[pi]:2222", Standing.KNOWN),
        (f"*.local ssh-x {BLOB}", "pi.local", Standing.KNOWN),
        (f"*.local,!pi.local ssh-x {BLOB}", "pi.local", Standing.UNKNOWN),
        (f"pi? ssh-x {BLOB}", "pi1", Standing.KNOWN),
        (f"pi[12] ssh-x {BLOB}", "pi1", Standing.UNKNOWN),
        ("pi ssh-x BBBB", "pi", Standing.CHANGED),
        (f"@cert-authority pi ssh-x {BLOB}", "pi", Standing.UNKNOWN),
        (f"@revoked * ssh-x {BLOB}", "pi", Standing.REVOKED),
        (f"# pi ssh-x {BLOB}", "pi", Standing.UNKNOWN),
        ("pi ssh-x", "pi", Standing.UNKNOWN),
        ("pi ssh-x !!!", "pi", Standing.UNKNOWN),
        ("|1|bad|bad ssh-x AAAA", "pi", Standing.UNKNOWN),
        ("|1| ssh-x AAAA", "pi", Standing.UNKNOWN),
    ],
)
def test_lines(line: str, host: str, want: Standing) -> None:
    assert known_hosts.standing(known_hosts.parse(line), host, b"\0\0\0") is want


# --- what ~/.ssh/config makes of settings


def resolved(tmp_path: Path, text: str, **changes: object) -> dict[str, object]:
    path = tmp_path / "config"
    path.write_text(text)
    settings = SshSettings.model_validate({"host": "board", "user": "me", **changes})
    return vars(resolve(settings, path))


def test_settings_beat_config(tmp_path: Path) -> None:
    text = "Host board\n HostName 10.0.0.7\n Port 2222\n User pi\n IdentityFile ~/a\n"
    got = resolved(tmp_path, text, key="/k", port=23)
    assert (got["host"], got["port"], got["user"]) == ("10.0.0.7", 23, "me")
    assert got["keys"] == (Path("/k"), Path("~/a").expanduser())
    got = vars(resolve(SshSettings(host="board"), tmp_path / "config"))
    assert (got["port"], got["user"]) == (2222, "pi")
    got = resolved(tmp_path, text, config=False)
    assert (got["host"], got["port"]) == ("board", 22)


def test_proxies(tmp_path: Path) -> None:
    text = "Host board\n HostName 10.0.0.7\n Port 2222\n "
    assert resolved(tmp_path, text)["proxy"] is None
    assert resolved(tmp_path, text + "ProxyCommand none")["proxy"] is None
    assert resolved(tmp_path, text + "ProxyJump none")["proxy"] is None
    command = resolved(tmp_path, text + "ProxyCommand nc -X 5 '%h' %p; id")["proxy"]
    assert command == "nc -X 5 '10.0.0.7' 2222; id"
    jump = resolved(tmp_path, text + "ProxyJump a,me@b:23")["proxy"]
    config = tmp_path / "config"
    to = "-W '[10.0.0.7]:2222' -- ssh://me@b:23"
    assert jump == f"ssh -F {config} -o BatchMode=yes -J a {to}"


def test_include_keeps_the_block_around_it(tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    extra.write_text("Host other\n Port 1\n")
    text = f"Host board\n Port 2222\n Include {extra}\n HostName 10.0.0.7\n"
    got = resolved(tmp_path, text)
    assert (got["host"], got["port"]) == ("10.0.0.7", 2222)
