"""What emulated phones share: Debian's adbd, mksh and toybox laid out the way Android does.

Neither bionic nor SELinux is there: the programs are Android's, the C library is Debian's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .command import extract, run
from .config import HERE, Paths, QemuPackage
from .debian import UNNEEDED, Apt
from .rootfs import WRAPPER, build_atomically, content_key, install_wrapper, qemu_path

PACKAGES = ("adbd", "mksh", "toybox")
SCRIPTS = HERE / "phone"
ADBD = "apex/com.android.adbd/bin/adbd"
LIBRARIES = "usr/lib/aarch64-linux-gnu"
# Android's own users, as far as anything here shows them.
USERS = {"root": 0, "system": 1000, "shell": 2000}
GROUPS = {**USERS, "log": 1007, "adb": 1011, "inet": 3003, "readproc": 3009}


def phone_base_path(paths: Paths, arch: str, suite: str) -> Path:
    """Return where the phones' shared system belongs."""
    sources = (WRAPPER, *(HERE / f"{name}.py" for name in ("phonebase", "rootfs", "debian")))
    parts = [suite.encode(), arch.encode()]
    parts += [path.read_bytes() for path in (*sources, *sorted(SCRIPTS.iterdir()))]
    return paths.root / f"base-phone-{arch}-{content_key(parts)}"


def lay_out(unpacked: Path, root: Path) -> None:
    """Move what a phone needs out of unpacked Debian packages."""
    for folder in (
        "system/bin", "system/etc", Path(ADBD).parent, "usr/lib", "data", "proc", "sys", "dev",
        ".qemu", ".farm", ".old",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
    # As on Android (adbd starts /bin/sh), but relative: whoever furnishes it stands outside.
    for name, target in (("lib", "usr/lib"), ("bin", "system/bin"), ("etc", "system/etc")):
        (root / name).symlink_to(target)
    shutil.move(unpacked / LIBRARIES, root / LIBRARIES)
    # The loader stands in both places, as a link in one of them.
    loader = unpacked / "usr/lib/ld-linux-aarch64.so.1"
    shutil.move(loader, root / "usr/lib" / loader.name)
    shutil.move(unpacked / "usr/lib/android-sdk/platform-tools/adbd", root / ADBD)
    shutil.move(unpacked / "usr/bin/mksh", root / "system/bin/sh")
    shutil.move(unpacked / "usr/bin/toybox", root / "system/bin/toybox")
    for script in SCRIPTS.iterdir():
        shutil.copyfile(script, root / "system/bin" / script.name)
        (root / "system/bin" / script.name).chmod(0o755)
    passwd = [f"{name}:*:{uid}:{uid}::/:/system/bin/sh\n" for name, uid in USERS.items()]
    (root / "etc/passwd").write_text("".join(passwd), encoding="ascii")
    groups = [f"{name}:*:{gid}:\n" for name, gid in GROUPS.items()]
    (root / "etc/group").write_text("".join(groups), encoding="ascii")


def link_applets(root: Path, emulator: Path) -> None:
    """Give toybox the names of everything that it says it can do."""
    toybox = root / "system/bin/toybox"
    for name in run([emulator, "-L", root, toybox], "asking toybox for its applets").split():
        path = root / "system/bin" / name
        if not path.exists():
            path.symlink_to("toybox")


def ensure_phone_base(paths: Paths, arch: str, suite: str, qemu: QemuPackage) -> bool:
    """Make sure that the phones' shared system exists; True when it was built.

    The QEMU must be there already.
    """

    def build(result: Path) -> None:
        apt = Apt(result.parent / "apt", arch, suite)
        unpacked = result.parent / "unpacked"
        unpacked.mkdir()
        for package in apt.fetch(PACKAGES):
            extract(package, unpacked, "unpacking Debian packages", UNNEEDED)
        lay_out(unpacked, result)
        (result / ".qemu/qemu").touch()
        link_applets(result, qemu_path(paths, qemu, arch))
        install_wrapper(result, arch)

    return build_atomically(phone_base_path(paths, arch, suite), build)
