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
    for name in NASTY:
        if name.strip("."):
            round_trip(t, scratch / f"d{name}" / name, 100)


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
)
