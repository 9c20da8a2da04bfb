"""How bundles are made: nothing but their content decides their bytes."""

from __future__ import annotations

import os
import struct
import sys
import tarfile
from pathlib import Path

import pytest

from infra.bundles.archive import pack
from infra.bundles.build import BuildError, complete, lay_out, precompile, trim
from infra.bundles.elf import missing, needed
from infra.bundles.licences import debian_part, wheel_part
from infra.bundles.recipes import MACHINES, PYTHON, RECIPES


def tree(root: Path) -> Path:
    """Some files, one of them executable, written in an order that is not theirs."""
    for name, mode in (("z.txt", 0o600), ("bin/run", 0o700), ("a/b/c.py", 0o664), ("a/x", 0o444)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    return root


def test_equal_trees_give_equal_bytes(tmp_path: Path) -> None:
    first = pack(tree(tmp_path / "one"), tmp_path / "1.tar.gz")
    other = tree(tmp_path / "two")
    os.utime(other / "z.txt", (1, 1))
    assert pack(other, tmp_path / "2.tar.gz") == first
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    (other / "z.txt").write_text("Z.txt")
    assert pack(other, tmp_path / "3.tar.gz")[0] != first[0]


def test_what_the_archive_says_of_its_files(tmp_path: Path) -> None:
    pack(tree(tmp_path / "one"), tmp_path / "1.tar.gz")
    with tarfile.open(tmp_path / "1.tar.gz") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["a", "a/b", "a/b/c.py", "a/x", "bin", "bin/run", "z.txt"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    modes = {m.name: m.mode for m in members}
    assert (modes["bin/run"], modes["z.txt"], modes["a"]) == (0o755, 0o644, 0o755)


def test_links_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "one")
    (root / "link").symlink_to("z.txt")
    with pytest.raises(ValueError, match="link is neither a file nor a folder"):
        pack(root, tmp_path / "1.tar.gz")


def test_recipes_are_pinned() -> None:
    assert {"aarch64-litert", "aarch64-onnxruntime", "armhf-tflite"} <= set(RECIPES)
    for name, recipe in RECIPES.items():
        lines = recipe.requirements.read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins, name
        assert all(line.count("==") == 1 for line in pins), name
        assert recipe.key() != RECIPES["armhf-tflite"].key() or name == "armhf-tflite"


def test_a_compiled_tree_is_the_same_wherever_it_was_compiled(tmp_path: Path) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("only Python 3.11 compiles for the bundles' Python")
    digests = []
    for name in ("one", "another-folder"):
        root = tmp_path / name
        (root / "site").mkdir(parents=True)
        (root / "lib" / PYTHON).mkdir(parents=True)
        (root / "site" / "m.py").write_text(
            "X = ('a', 'b', 1.5)\ndef f(a):\n    return a, 'text'\n"
        )
        assert precompile(root)
        assert (root / "site/__pycache__/m.cpython-311.pyc").is_file()
        digests.append(pack(root, tmp_path / f"{name}.tar.gz"))
    assert digests[0] == digests[1]


def test_libraries_lie_beside_the_loader_once_and_without_links(tmp_path: Path) -> None:
    machine = MACHINES["aarch64"]
    unpacked, root = tmp_path / "unpacked", tmp_path / "root"
    libraries = unpacked / "usr/lib" / machine.triplet
    (libraries / "blas").mkdir(parents=True)
    (libraries / "libz.so.1.2.13").write_text("z")
    (libraries / "libz.so.1").symlink_to("libz.so.1.2.13")
    (libraries / "libnss_dns.so.2").write_text("n")
    (libraries / "blas" / "libblas.so.3").write_text("b")
    (libraries / machine.loader).write_text("loader")
    (unpacked / "usr/bin").mkdir(parents=True)
    (unpacked / "usr/bin" / PYTHON).write_text("python")
    (unpacked / "usr/lib" / PYTHON / "test").mkdir(parents=True)
    (unpacked / "usr/lib" / PYTHON / "os.py").write_text("")
    lay_out(unpacked, root, RECIPES["aarch64-litert"])
    trim(root)
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert files == {
        "bin/python3.11", "lib/ld-linux-aarch64.so.1", "lib/libblas.so.3", "lib/libz.so.1",
        "lib/python3.11/os.py", "py",
    }  # fmt: skip
    assert not any(p.is_symlink() for p in root.rglob("*"))
    launcher = (root / "py").read_text()
    assert "@" not in launcher.replace('"$@"', "")
    assert machine.loader in launcher


def test_what_an_elf_file_needs() -> None:
    real = Path(sys.executable).resolve()
    assert "libc.so.6" in (needed(real) or [])
    assert needed(Path(__file__)) is None


def test_a_damaged_elf_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(b"\x7fELF\x02\x01" + bytes(20))
    with pytest.raises(ValueError, match=r"lib\.so is a damaged ELF file"):
        needed(path)


def elf32(libraries: list[str]) -> bytes:
    """A 32-bit ELF of nothing but headers, a dynamic table and its strings."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    offsets = [strings.index(name.encode() + b"\0") for name in libraries]
    table = b"".join(struct.pack("<iI", 1, at) for at in offsets)
    start = 52 + 2 * 32
    base, size = 0x10000, len(table) + 16
    table += struct.pack("<iI", 5, base + start + size) + struct.pack("<iI", 0, 0)
    whole = start + len(table) + len(strings)
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 3, 40, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack("<IIIIIIII", 1, 0, base, base, whole, whole, 5, 4096)
    dynamic = struct.pack("<IIIIIIII", 2, start, base + start, 0, len(table), len(table), 4, 4)
    return head + load + dynamic + table + strings


def test_a_bundle_that_lacks_a_library_is_not_made(tmp_path: Path) -> None:
    modules = tmp_path / "lib" / PYTHON / "lib-dynload"
    modules.mkdir(parents=True)
    (modules / "_sqlite3.so").write_bytes(elf32(["libsqlite3.so.0", "libc.so.6"]))
    (modules / "_bz2.so").write_bytes(elf32(["libc.so.6"]))
    (tmp_path / "lib" / "libc.so.6").write_bytes(elf32([]))
    assert missing(tmp_path) == {modules / "_sqlite3.so": ["libsqlite3.so.0"]}
    complete(tmp_path)
    assert {p.name for p in modules.iterdir()} == {"_bz2.so"}
    (tmp_path / "lib" / "libmore.so.1").write_bytes(elf32(["libgone.so.2"]))
    with pytest.raises(BuildError, match=r"lib/libmore\.so\.1 needs libgone\.so\.2"):
        complete(tmp_path)


def test_licences_as_the_packages_state_them(tmp_path: Path) -> None:
    doc = tmp_path / "unpacked/usr/share/doc"
    for name, text in (
        (
            "libnew",
            "Format: x\nFiles: *\nLicense: Expat\n\nFiles: x\nLicense: BSD-3-clause\n text\n",
        ),
        ("libold", "License: a sentence\nSee /usr/share/common-licenses/LGPL-2.1.\n"),
    ):
        (doc / name).mkdir(parents=True)
        (doc / name / "copyright").write_text(text)
    bundle = tmp_path / "bundle"
    new = debian_part("libnew", "1-2", tmp_path / "unpacked", bundle)
    old = debian_part("libold", "1", tmp_path / "unpacked", bundle)
    assert (new.licences, old.licences) == (("BSD-3-clause", "Expat"), ("LGPL-2.1",))
    assert (bundle / new.files[0]).is_file()
    with pytest.raises(ValueError, match="no copyright file"):
        debian_part("libnone", "1", tmp_path / "unpacked", bundle)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("License-Expression: Apache-2.0\nLicense: other\n", ("Apache-2.0",)),
        ("License: MIT\n", ("MIT",)),
        ("Classifier: License :: OSI Approved :: MIT License\n", ("MIT License",)),
        ("Summary: none\n", ()),
    ],
)
def test_licences_of_wheels(tmp_path: Path, fields: str, said: tuple[str, ...]) -> None:
    info = tmp_path / "site" / "a_b-1.dist-info"
    (info / "licenses").mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: a-b\nVersion: 1\n{fields}\n")
    (info / "licenses" / "LICENSE.txt").write_text("text")
    (tmp_path / "site" / "a_b").mkdir()
    (tmp_path / "site" / "a_b" / "ThirdPartyNotices.txt").write_text("notices")
    part = wheel_part(info, tmp_path / "bundle")
    assert (part.name, part.version, part.licences) == ("a-b", "1", said)
    assert len(part.files) == 3
    assert all((tmp_path / "bundle" / name).is_file() for name in part.files)
