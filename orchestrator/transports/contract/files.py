"""``push`` and ``pull``: what every transport must do."""

from __future__ import annotations

from contextlib import closing
from pathlib import PurePosixPath

from orchestrator.errors import InfraError, InputError
from orchestrator.transports.base import Transport
from orchestrator.transports.contract.kit import (
    NASTY,
    PATIENCE,
    checks,
    ensure,
    expect,
    line_of,
    local_files,
    names_in,
    raises,
    round_trip,
    sh,
)


def files_round_trip(t: Transport, scratch: PurePosixPath) -> None:
    for size in (0, 1, 32768, 32769, 5 << 20):
        round_trip(t, scratch / "new" / "folders" / f"{size}", size)


def nasty_file_names(t: Transport, scratch: PurePosixPath) -> None:
    names = [name for name in NASTY if name]
    for folder, name in zip(names[::2], names[1::2], strict=True):
        round_trip(t, scratch / f"d{folder}" / name, 100)


def long_file_name(t: Transport, scratch: PurePosixPath) -> None:
    round_trip(t, scratch / ("n" * 255), 10)


def relative_names_are_below_root(t: Transport, scratch: PurePosixPath) -> None:
    round_trip(t, PurePosixPath(scratch.name, "relative"), 10)
    expect("status", t.run(["test", "-f", str(scratch / "relative")], timeout=9).returncode, 0)


def push_replaces_in_one_step(t: Transport, scratch: PurePosixPath) -> None:
    target = scratch / "file"
    round_trip(t, target, 10)
    # A reader that has the old file open must go on seeing the old one.
    with closing(t.start(["sh", "-c", 'exec 3< "$1"; echo open; read x; cat <&3 | wc -c', "sh",
                          str(target)])) as reader:  # fmt: skip
        expect("reader", line_of(reader), b"open")
        round_trip(t, target, 20_000)
        reader.send(b"go")
        expect("bytes of the old file", (line_of(reader) or b"").strip(), b"10")
    expect("names left behind", names_in(t, scratch), ["file"])


def push_that_fails_leaves_nothing(t: Transport, scratch: PurePosixPath) -> None:
    sh(t, 'mkdir -p "$1/folder"', str(scratch))
    with local_files(1000) as (source, _), raises(InfraError, "E-TRANSFER"):
        t.push(source, scratch / "folder", timeout=PATIENCE)
    expect("names left behind", names_in(t, scratch), ["folder"])
    expect("names left behind below", names_in(t, scratch / "folder"), [])


def push_of_a_missing_file(t: Transport, scratch: PurePosixPath) -> None:
    with local_files() as (_, back), raises(InputError, "E-LOCAL-FILE"):
        t.push(back, scratch / "x", timeout=PATIENCE)


def pull_of_a_missing_file(t: Transport, scratch: PurePosixPath) -> None:
    with local_files() as (_, back):
        for name in ("missing", "no/folder/either", "Permission denied"):
            with raises(InfraError, "E-REMOTE-MISSING"):
                t.pull(scratch / name, back, timeout=PATIENCE)
        expect("local files left behind", [p.name for p in back.parent.iterdir()], ["source"])


def pull_of_a_folder(t: Transport, scratch: PurePosixPath) -> None:
    sh(t, 'mkdir -p "$1"', str(scratch))
    with local_files() as (_, back), raises(InfraError, "E-TRANSFER"):
        t.pull(scratch, back, timeout=PATIENCE)


def pull_of_what_is_no_plain_file(t: Transport, scratch: PurePosixPath) -> None:
    """Nothing of it is read: a FIFO never answers, a device never ends, a link leads elsewhere."""
    script = (
        'mkdir -p "$1" && cd "$1" && mkfifo fifo && ln -s /dev/zero endless && '
        "echo secret > there && ln -s there link && ln -s nowhere dangling"
    )
    expect("status", sh(t, script, str(scratch)).returncode, 0)
    with local_files() as (_, back):
        for name in ("fifo", "endless", "link", "dangling"):
            with raises(InfraError, "E-TRANSFER", within=PATIENCE / 2):
                t.pull(scratch / name, back, timeout=PATIENCE)
        with raises(InfraError, "E-TRANSFER", within=PATIENCE / 2):
            t.pull(PurePosixPath("/dev/zero"), back, timeout=PATIENCE)
        expect("local files left behind", [p.name for p in back.parent.iterdir()], ["source"])


def pull_takes_no_more_than_its_limit(t: Transport, scratch: PurePosixPath) -> None:
    sizes = {"small": 100, "large": 3 << 20}
    script = (
        'mkdir -p "$1" && cd "$1" && head -c 100 /dev/zero > small && '
        "head -c 3145728 /dev/zero > large && "
        "truncate -s 68719476737 sparse"
    )
    expect("status", sh(t, script, str(scratch)).returncode, 0)
    with local_files() as (_, back):
        for name, size in sizes.items():
            t.pull(scratch / name, back, timeout=PATIENCE, limit=size)
            expect("bytes at the limit", back.stat().st_size, size)
            back.unlink()
            with raises(InfraError, "E-TRANSFER"):
                t.pull(scratch / name, back, timeout=PATIENCE, limit=size - 1)
        with raises(InfraError, "E-TRANSFER", within=PATIENCE / 2):
            t.pull(scratch / "sparse", back, timeout=PATIENCE)
        expect("local files left behind", [p.name for p in back.parent.iterdir()], ["source"])
    sh(t, 'rm -f "$1"', str(scratch / "sparse"))


def pull_of_a_file_that_grows_ends(t: Transport, scratch: PurePosixPath) -> None:
    script = 'mkdir -p "$1" && cd "$1" && : > grows && echo up && exec cat /dev/zero > grows'
    with closing(t.start(["sh", "-c", script, "sh", str(scratch)])) as writer:
        expect("writer", line_of(writer), b"up")
        with local_files() as (_, back):
            try:
                t.pull(scratch / "grows", back, timeout=PATIENCE, limit=1 << 20)
            except InfraError as error:
                expect("error id", error.id, "E-TRANSFER")
            else:
                ensure(back.stat().st_size <= 1 << 20, "more bytes than the limit were taken")
        writer.close(0.0)
    sh(t, 'rm -f "$1"', str(scratch / "grows"))


CHECKS = checks(
    files_round_trip,
    nasty_file_names,
    long_file_name,
    relative_names_are_below_root,
    push_replaces_in_one_step,
    push_that_fails_leaves_nothing,
    push_of_a_missing_file,
    pull_of_a_missing_file,
    pull_of_a_folder,
    pull_of_what_is_no_plain_file,
    pull_takes_no_more_than_its_limit,
    pull_of_a_file_that_grows_ends,
)
