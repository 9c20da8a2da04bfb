"""Debian packages for boards: fetched with apt from wherever this host gets its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .command import extract, run
from .config import FarmError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# What a board needs to be logged into and to run Python; dependencies come by themselves.
BOARD_PACKAGES = (
    "base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "findutils",
    "grep", "gzip", "hostname", "libc-bin", "libgomp1", "libstdc++6", "openssh-server",
    "openssh-sftp-server", "procps", "python3", "sed", "tar", "util-linux",
)  # fmt: skip
# NumPy publishes no wheel for 32-bit ARM.
MORE_PACKAGES = {"armhf": ("python3-numpy",)}
UNNEEDED = ("./usr/share/doc", "./usr/share/locale", "./usr/share/man", "./usr/share/info")


def mirror() -> str:
    """Return the Debian mirror that this host's own apt configuration uses."""
    fields = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    listed = run(["apt-get", "indextargets", "--format", fields], "asking apt for its mirror")
    for line in listed.splitlines():
        origin, _, rest = line.partition("|")
        label, _, uri = rest.partition("|")
        if origin == "Debian" and label == "Debian":
            return uri
    raise FarmError(
        "this host's apt knows no Debian archive (run apt-get update; other systems need one)"
    )


class Apt:
    """An apt of its own: own lists, own cache, nothing installed, the host's left alone."""

    def __init__(self, folder: Path, arch: str, suite: str) -> None:
        """Prepare the folders in ``folder``, which must not exist yet."""
        self.archives = folder / "cache" / "archives"
        for sub in ("lists/partial", "cache/archives/partial", "dpkg"):
            (folder / sub).mkdir(parents=True)
        # With no package installed, apt resolves and fetches the whole closure.
        (folder / "dpkg" / "status").touch()
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n", encoding="utf-8")
        settings = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": folder,
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "dpkg" / "status",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "Debug::NoLocking": "1",
        }
        if os.geteuid() == 0:
            # apt's own user cannot read a cache below root's home.
            settings["APT::Sandbox::User"] = "root"
        self._argv = ["apt-get", "-q"]
        for name, value in settings.items():
            self._argv += ["-o", f"{name}={value}"]
        # Without this, apt-get update succeeds when it could fetch nothing.
        run([*self._argv, "--error-on=any", "update"], "fetching Debian's package list")

    def fetch(self, packages: Sequence[str]) -> list[Path]:
        """Download packages with all they depend on."""
        run(
            [*self._argv, "-y", "--no-install-recommends", "--download-only", "install", *packages],
            "fetching Debian packages",
        )
        return sorted(self.archives.glob("*.deb"))

    def fetch_alone(self, package: str) -> Path:
        """Download one package without what it depends on."""
        run([*self._argv, "download", package], f"fetching {package}", cwd=self.archives)
        return next(self.archives.glob(f"{package}_*.deb"))


def unpack_system(packages: Sequence[Path], root: Path) -> None:
    """Unpack a Debian system, and do by hand what the maintainer scripts would have done."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        extract(package, root, "unpacking Debian packages", UNNEEDED)
    for name in ("blas", "lapack"):
        for library in root.glob(f"usr/lib/*/{name}/lib{name}.so.3"):
            (library.parents[1] / library.name).symlink_to(f"{name}/{library.name}")
    etc = root / "etc"
    for name in ("passwd", "group"):
        master = root / "usr/share/base-passwd" / f"{name}.master"
        (etc / name).write_text(master.read_text(encoding="utf-8"), encoding="utf-8")
    users = (etc / "passwd").read_text(encoding="utf-8")
    users += "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    (etc / "passwd").write_text(users, encoding="utf-8")
    # "*" is no password and yet not a locked account: only the key opens the door.
    shadow = [f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in users.splitlines()]
    (etc / "shadow").write_text("".join(shadow), encoding="utf-8")
    (etc / "shadow").chmod(0o640)
    for name in ("run/sshd", "proc", "sys", "dev", "tmp", "root/.ssh", ".qemu", ".farm", ".old"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)
