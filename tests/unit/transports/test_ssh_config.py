"""OpenSSH's configuration, read by OpenSSH and without it: the same table for both.

The values on the right are what ``ssh -G`` of OpenSSH 9.2 printed, or where it prints a value
unexpanded, what ``ssh -v`` then used.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.errors import AssayError, InputError
from orchestrator.transports import SshSettings, ssh_config_file, ssh_config_program
from orchestrator.transports.ssh_config import Endpoint, Reader, reader, resolve
from tests.support.cli import processes_with, until

needs_ssh = pytest.mark.skipif(not ssh_config_program.usable(), reason="no ssh: openssh-client")

READERS = [
    pytest.param(ssh_config_program.read, id="ssh-G", marks=needs_ssh),
    pytest.param(ssh_config_file.read, id="own"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("ASSAY_LAB", "lab7")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.delenv("ASSAY_NOT_SET", raising=False)
    return folder


def told(found: Endpoint, home: Path) -> dict[str, object]:
    """An endpoint in plain words, ``~`` for home."""
    short = {p: str(p).replace(str(home), "~") for p in (*found.keys, *found.known_hosts)}
    return {
        "host": found.host,
        "port": found.port,
        "user": found.user,
        "alias": found.alias,
        "keys": [short[p] for p in found.keys],
        "certificates": [str(p).replace(str(home), "~") for p in found.certificates],
        "only": found.only_keys,
        "agent": str(found.agent).replace(str(home), "~") if found.agent else None,
        "proxy": found.proxy,
        "known": [short[p] for p in found.known_hosts],
        "name": found.host_name,
    }


TABLE: list[tuple[str, dict[str, object]]] = [
    # Comments, quotes, blanks, encodings.
    ("Host board1 # mine\n  Port 2222 # odd port\n", {"port": 2222}),
    ("Host=board1\n\tPort = 2222\r\n\tUser\tpi\r\n", {"port": 2222, "user": "pi"}),
    ("# Ger\xe4te\nHost board1\n  User right\n", {"user": "right"}),
    ("IdentityFile a#b\nIdentityFile \"c #d\" # e\n", {"keys": ["a#b", "c #d"]}),
    ("IdentityFile 'a b'\nIdentityFile c\\ d\n", {"keys": ["a b", "c d"]}),
    ("User a\nUser b\n", {"user": "a"}),
    ("IgnoreUnknown Foo*,bar\nFooBar x\nBar y\nPort 7\n", {"port": 7}),
    # Tokens and variables.
    ("HostName fe80::1%%eth0\n", {"host": "fe80::1%eth0"}),
    ("HostName %h.example.org\n", {"host": "board1.example.org"}),
    ("HostName Board.Example\n", {"host": "board.example"}),
    ("IdentityFile ${HOME}/.ssh/lab\n", {"keys": ["~/.ssh/lab"]}),
    ("IdentityFile ~/${ASSAY_LAB}/%r@%n:%p%%\n", {"keys": ["~/lab7/me@board1:22%"]}),
    ("HostName 10.0.0.7\nHostKeyAlias Lab\nIdentityFile %h/%k\n",
     {"host": "10.0.0.7", "alias": "lab", "keys": ["10.0.0.7/lab"], "name": "lab"}),
    ("HostKeyAlias %h\n", {"alias": "%h", "name": "%h"}),
    ("IdentityFile %d/k\nCertificateFile ~/%r-cert.pub\n",
     {"keys": ["~/k"], "certificates": ["~/me-cert.pub"]}),
    ("IdentityFile none\n", {"keys": []}),
    ("IdentitiesOnly true\n", {"only": True}),
    # Agents and known_hosts.
    ("IdentityAgent ~/%n.sock\n", {"agent": "~/board1.sock"}),
    ("IdentityAgent ${ASSAY_LAB}/s\n", {"agent": "lab7/s"}),
    ("IdentityAgent $ASSAY_LAB\n", {"agent": "lab7"}),
    ("IdentityAgent SSH_AUTH_SOCK\n", {"agent": "/run/agent"}),
    ("IdentityAgent none\n", {"agent": None}),
    ("IdentityAgent $ASSAY_NOT_SET\n", {"agent": None}),
    ("UserKnownHostsFile ~/.ssh/known_%h /x/${ASSAY_LAB} \"/a b\"\n",
     {"known": ["~/.ssh/known_board1", "/x/lab7", "/a b"]}),
    ("UserKnownHostsFile none\n", {"known": ["~/.ssh/known_hosts"]}),
    # Proxies.
    ("ProxyCommand exec nc -u %r %h %p %n %% 2>/dev/null # x\n",
     {"proxy": "exec nc -u me board1 22 board1 % 2>/dev/null # x"}),
    ("ProxyCommand sh -c 'nc \"%h\" $PORT'\n", {"proxy": "sh -c 'nc \"board1\" $PORT'"}),
    ("ProxyCommand none\nProxyJump gate\n", {"proxy": None}),
    ("ProxyJump none\nProxyCommand nc\n", {"proxy": "nc"}),
    ("ProxyCommand nc\nProxyJump gate\n", {"proxy": "nc"}),
    # Blocks.
    ("Host BOARD1\nPort 3\nHost board?,x\nPort 4\nHost board? !board1\nPort 5\nHost \"board1\"\n"
     "Port 6\n", {"port": 6}),
    ("Host other\nPort 3\nHost *\nPort 4\n", {"port": 4}),
    ("Match host=board1\nPort 3\n", {"port": 3}),
    ("Match host \"x,board*\" user me\nPort 4\n", {"port": 4}),
    ("Match !host x originalhost board1\nPort 5\n", {"port": 5}),
    ("Match host x,!board1\nPort 5\nMatch user root,you\nPort 6\n", {"port": 22}),
    ("Match !all\nPort 5\n", {"port": 22}),
    ("HostName real\nMatch host real originalhost board1\nPort 5\n", {"host": "real", "port": 5}),
    ("Match final host real\nPort 5\nHost *\nHostName real\n", {"host": "real", "port": 5}),
    ("Match canonical\nPort 5\n", {"port": 22}),
    # What comes after a criterion that failed need not be understood.
    ("Match host other exec \"exit 0\"\nPort 5\n", {"port": 22}),
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("text", "want"), TABLE)
def test_table(
    text: str, want: dict[str, object], read: Reader, tmp_path: Path, home: Path
) -> None:
    config = tmp_path / "config"
    config.write_bytes(text.encode("latin-1"))
    found = told(resolve(SshSettings(host="board1", user="me"), config, read), home)
    plain = {"host": "board1", "port": 22, "user": "me", "proxy": None, "alias": None}
    plain |= {"only": False, "certificates": [], "agent": "/run/agent"}
    if "user" in want:
        found = told(resolve(SshSettings(host="board1"), config, read), home)
    assert {key: found[key] for key in {**plain, **want}} == {**plain, **want}


@pytest.mark.parametrize("read", READERS)
def test_the_inventorys_port_and_user_go_into_the_reading(
    read: Reader, tmp_path: Path, home: Path
) -> None:
    """Every token and every Match sees them, not what the file or this account would have."""
    config = tmp_path / "config"
    config.write_text(
        "Match user pi\n  HostKeyAlias lab\nHost *\n  Port 9\n  User other\n"
        "  IdentityFile ~/.ssh/k_%r\n  ProxyCommand nc -u %r %h %p\n"
        "  UserKnownHostsFile ~/known_%p\n"
    )
    found = told(resolve(SshSettings(host="board1", port=2222, user="pi"), config, read), home)
    assert found["proxy"] == "nc -u pi board1 2222"
    assert found["keys"] == ["~/.ssh/k_pi"]
    assert (found["alias"], found["known"]) == ("lab", ["~/known_2222"])
    found = told(resolve(SshSettings(host="board1", key="/k"), config, read), home)
    assert (found["port"], found["user"], found["alias"]) == (9, "other", None)
    assert found["keys"] == ["/k", "~/.ssh/k_other"]
    assert found["name"] == "[board1]:9"


@pytest.mark.parametrize("read", READERS)
def test_a_jump_keeps_host_and_port(read: Reader, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("ProxyJump a,me@%h-gate:23\n")
    found = resolve(SshSettings(host="board1", port=2222), config, read)
    ssh = f"ssh -F {config} -o BatchMode=yes -J a -W '[board1]:2222' -- ssh://me@board1-gate:23"
    assert found.proxy == ssh


@pytest.mark.parametrize("read", READERS)
def test_includes(read: Reader, tmp_path: Path, home: Path) -> None:
    """A block goes on after one; a file included in a block of others matches nothing."""
    extra = tmp_path / "extra"
    extra.write_text("Host other\n Port 1\nHost *\n User included\n")
    config = home / ".ssh" / "config"
    config.write_text(f"Host board1\n Port 2222\n Include {extra}\n HostName 10.0.0.7\n")
    found = resolve(SshSettings(host="board1"), None, read)
    assert (found.host, found.port, found.user) == ("10.0.0.7", 2222, "included")
    config.write_text(f"Host else\n Include {extra}\nHost *\n User outside\n")
    assert resolve(SshSettings(host="board1"), None, read).user == "outside"
    config.write_text('Include lab/*.conf "~/.ssh/with space" nothing/*\n')
    (home / ".ssh" / "lab").mkdir()
    (home / ".ssh" / "lab" / "a.conf").write_text("Port 5\n")
    (home / ".ssh" / "with space").write_text("User deep\n")
    found = resolve(SshSettings(host="board1"), None, read)
    assert (found.port, found.user) == (5, "deep")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("Port many\n", 1, "port 'many'"),
        ("\nHost board1\n  Port 70000\n", 3, "port '70000'"),
        ("Host *\nnonsense\n", 2, "nonsense"),
        ("Hostnam 10.0.0.7\n", 1, "hostnam"),
        ('IdentityFile "a\n', 1, "quotes"),
        ("HostName a b\n", 1, "extra arguments"),
        ("IdentitiesOnly maybe\n", 1, "maybe"),
        ("Match\n", 1, "match"),
        ("Match all user me\n", 1, "'all' cannot be combined"),
        ("Match frob x\nPort 1\n", 1, "frob"),
        ("HostName %z\n", None, "%z"),
        ("IdentityFile ~/%z\n", None, "%z"),
        ("IdentityFile ${ASSAY_NOT_SET}/x\n", None, "ASSAY_NOT_SET"),
        ("ProxyCommand nc %u\n", None, "%u"),
        ("IdentityFile 100%\n", None, "%"),
        ("ProxyUseFdpass yes\nProxyCommand x\n", None, "ProxyUseFdpass"),
    ],
)
def test_what_cannot_be_understood_is_named_with_its_line(
    text: str, line: int | None, says: str, read: Reader, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve(SshSettings(host="board1", user="me"), config, read)
    assert caught.value.id == "E-SSH-CONFIG"
    assert caught.value.where == (f"{config}:{line}" if line else str(config))
    assert says in str(caught.value)


@pytest.mark.parametrize("read", READERS)
def test_a_bad_line_of_ones_own_file_or_of_an_included_one(
    read: Reader, tmp_path: Path, home: Path
) -> None:
    extra, config = tmp_path / "extra", home / ".ssh" / "config"
    extra.write_text("User x\nPort none\n")
    config.write_text(f"# one\nInclude {extra}\n")
    for where, text in ((f"{extra}:2", ""), (f"{config}:2", "# one\nHost\n")):
        if text:
            config.write_text(text)
        with pytest.raises(InputError) as caught:
            resolve(SshSettings(host="board1"), None, read)
        assert caught.value.where == where


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "criterion",
    [
        "localnetwork 203.0.113.0/24",
        "tagged lab",
        "sessiontype subsystem",
        "command none-such",
        "host board1 localnetwork 203.0.113.0/24",
        "exec false",
    ],
)
def test_a_block_is_never_applied_unmatched(criterion: str, read: Reader, tmp_path: Path) -> None:
    """Whether this ssh, or no ssh, knows the word or not."""
    config = tmp_path / "config"
    block = "ProxyJump bastion.example\n  HostName 192.0.2.9\n  User wrong"
    config.write_text(f"Match {criterion}\n  {block}\nHost *\n  User right\n")
    try:
        found = resolve(SshSettings(host="board1"), config, read)
    except InputError as error:
        assert error.id == "E-SSH-CONFIG"  # noqa: PT017 - either is right
        assert criterion.split()[-2] in str(error)  # noqa: PT017
        assert error.where == f"{config}:1"  # noqa: PT017
    else:
        assert (found.user, found.host, found.proxy) == ("right", "board1", None)


def test_what_is_not_evaluated_without_ssh_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config"
    for text, word in (
        ("Match exec true\nPort 1\n", "exec"),
        ("Match tagged !x\n", "tagged"),
        ("CanonicalizeHostname always\n", "canonicalizehostname"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=word) as caught:
            resolve(SshSettings(host="board1"), config, ssh_config_file.read)
        assert caught.value.id == "E-SSH-CONFIG"
    config.write_text("CanonicalizeHostname no\nHost other\nCanonicalizeHostname yes\n")
    assert resolve(SshSettings(host="board1"), config, ssh_config_file.read).host == "board1"


def test_files_that_include_each_other(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Include {config}\n")
    for read in (ssh_config_file.read, reader()):
        with pytest.raises(InputError, match="recursive"):
            resolve(SshSettings(host="board1"), config, read)


@needs_ssh
def test_match_exec_is_run_with_the_inventorys_values(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('Match exec "test %h-%r-%p = board1-pi-2222"\n  HostKeyAlias yes\n')
    assert resolve(SshSettings(host="board1", port=2222, user="pi"), config).alias == "yes"
    assert resolve(SshSettings(host="board1", port=23, user="pi"), config).alias is None


@needs_ssh
def test_ssh_that_does_not_come_back_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_config_program, "PATIENCE", 0.5)
    config, mark = tmp_path / "config", f"{tmp_path}/stopped"
    config.write_text(f'Match exec "sleep 600; touch {mark}"\n  Port 1\n')
    with pytest.raises(InputError, match="no answer") as caught:
        resolve(SshSettings(host="board1"), config)
    assert caught.value.id == "E-SSH-CONFIG"
    until(lambda: not processes_with(mark), "what it started is ended")


@needs_ssh
def test_reading_never_connects(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        config = tmp_path / "config"
        config.write_text(f"HostName 127.0.0.1\nPort {listener.getsockname()[1]}\n")
        assert resolve(SshSettings(host="board1"), config).host == "127.0.0.1"
        with pytest.raises(TimeoutError):
            listener.accept()


def test_no_file_is_no_trouble(home: Path) -> None:
    for read in (ssh_config_file.read, reader()):
        found = resolve(SshSettings(host="board1", port=5, user="me"), None, read)
        assert (found.host, found.port, found.user) == ("board1", 5, "me")
        assert found.known_hosts[0] == home / ".ssh" / "known_hosts"


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    for read in (ssh_config_file.read, reader()):
        with pytest.raises(AssayError, match="No such file"):
            resolve(SshSettings(host="board1"), tmp_path / "none", read)


def test_without_ssh_the_own_reader_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert reader() is ssh_config_file.read
