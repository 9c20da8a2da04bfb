from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_worker.cache import Cache
from device_worker.errors import WorkerError
from device_worker.wire import Blob


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def push(root: Path, data: bytes) -> str:
    path = root / "incoming" / "pushed"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def adopt(cache: Cache, root: Path, data: bytes) -> str:
    cache.adopt(sha(data), push(root, data))
    return sha(data)


def test_adopted_files_are_found_again_by_hash(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 1000)
    key = adopt(cache, tmp_path, b"model")
    assert cache.have([key, sha(b"other")]) == [key]
    assert Path(cache.path(key)).read_bytes() == b"model"
    assert not (tmp_path / "incoming" / "pushed").exists()


def test_a_corrupted_push_is_deleted_and_never_kept(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 1000)
    with pytest.raises(WorkerError) as caught:
        cache.adopt(sha(b"good"), push(tmp_path, b"bad!"))
    assert (caught.value.kind, caught.value.code) == ("infra_error", "E-CACHE-HASH")
    assert not (tmp_path / "incoming" / "pushed").exists()
    assert cache.have([sha(b"good"), sha(b"bad!")]) == []


def test_damage_on_the_device_is_found_by_hashing_again(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 1000)
    key = adopt(cache, tmp_path, b"model")
    Path(cache.path(key)).write_bytes(b"mOdel")
    assert cache.have([key]) == []
    assert not Path(cache.path(key)).exists()


def test_opening_a_damaged_file_names_the_given_code(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 1000)
    key = adopt(cache, tmp_path, b"model")
    Path(cache.path(key)).write_bytes(b"mOdel")
    with pytest.raises(WorkerError, match="E-MODEL-HASH"):
        cache.open(Blob(key, 5), "E-MODEL-HASH")
    with pytest.raises(WorkerError, match="E-CACHE-MISS"):
        cache.open(Blob(key, 5), "E-MODEL-HASH")


@pytest.mark.parametrize("escape", ["../secret", "../../etc/passwd", "/etc/passwd", "missing"])
def test_only_files_under_incoming_are_adopted(tmp_path: Path, escape: str) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    push(tmp_path, b"x")
    with pytest.raises(WorkerError, match="E-CACHE-PATH"):
        Cache(str(tmp_path), 1000).adopt(sha(b"s"), str(tmp_path / "incoming" / escape))
    assert (tmp_path / "secret").exists()


def test_a_link_out_of_incoming_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(WorkerError, match="E-CACHE-PATH"):
        Cache(str(tmp_path), 1000).adopt(sha(b"s"), str(tmp_path / "incoming" / "link"))


@pytest.mark.parametrize("bad", ["", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_malformed_hash_never_becomes_a_path(tmp_path: Path, bad: str) -> None:
    with pytest.raises(WorkerError, match="E-WIRE"):
        Cache(str(tmp_path), 1000).have([bad])


def test_the_least_recently_used_file_goes_first(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 30)
    keys = [adopt(cache, tmp_path, bytes([n]) * 10) for n in range(3)]
    for age, key in enumerate(keys):
        os.utime(cache.path(key), (age, age))
    os.utime(cache.path(keys[0]), (99, 99))
    cache.unpin()
    new = adopt(cache, tmp_path, b"n" * 10)
    assert cache.have([*keys, new]) == [keys[0], keys[2], new]


def test_files_of_the_current_job_are_never_evicted(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 25)
    kept = [adopt(cache, tmp_path, bytes([n]) * 10) for n in range(2)]
    with pytest.raises(WorkerError, match="E-CACHE-LIMIT"):
        adopt(cache, tmp_path, b"n" * 10)
    assert cache.have(kept) == kept
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True
    )
    if done.returncode:
        pytest.skip("cannot mount a small tmpfs: needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_an_infra_error_with_nothing_half_written(small_disk: Path) -> None:
    root = small_disk.parent / "root"
    (root / "incoming").mkdir(parents=True)
    (root / "cache").symlink_to(small_disk)
    (root / "incoming" / "big").write_bytes(b"x" * 100_000)
    with pytest.raises(WorkerError) as caught:
        Cache(str(root), 1 << 20).adopt(sha(b"x" * 100_000), str(root / "incoming" / "big"))
    assert caught.value.kind == "infra_error"
    assert [name for _, _, names in os.walk(small_disk) for name in names] == []
