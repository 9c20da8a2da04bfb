"""Command line of the virtual farm: up, down, status, set, kick, doctor."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from . import binfmt, control, doctor
from . import board as boards
from .config import Board, Definitions, FarmError, Paths, UsageError, load_definitions
from .prepare import prepare, remove_leftovers, remove_outdated

EXIT_USAGE, EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED = 2, 3, 130
# Bring-up is work for the CPU; more at once only makes each slower.
PARALLEL = 3


@contextlib.contextmanager
def farm_lock(paths: Paths) -> Iterator[None]:
    """Let one command at a time change the farm."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another farm command to finish", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def each(chosen: list[str], action: Callable[[str], str], parallel: int) -> int:
    """Apply an action to boards in parallel, print a line for each, return the exit code."""

    def attempt(name: str) -> tuple[bool, str]:
        try:
            return True, action(name)
        except (FarmError, OSError) as error:
            return False, f"error: {error}"

    failed = False
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        for name, (good, line) in zip(chosen, pool.map(attempt, chosen), strict=True):
            failed = failed or not good
            print(f"{name:<14} {line}", file=sys.stdout if good else sys.stderr, flush=True)
    return EXIT_INFRASTRUCTURE if failed else 0


def up(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Bring units up; one that cannot be had does not keep the others from it."""
    wanted = definitions.select(args.names)
    with farm_lock(paths):
        impossible = prepare(paths, wanted, definitions)
        if not any(boards.running(paths, name) for name in definitions.boards):
            remove_outdated(paths, definitions)
        own_users = binfmt.per_namespace()
        if not own_users:
            binfmt.register_on_host(paths)
        everyone = list(definitions.boards.values())
        boards.ensure_keys(paths, [board.name for board in everyone if not board.phone])
        boards.write_known_hosts(paths, everyone)

        def start(name: str) -> str:
            board = definitions.boards[name]
            where = f"{board.address}:{board.port}"
            if name in impossible:
                raise FarmError(impossible[name])
            if boards.running(paths, name) and boards.answers(board):
                return f"already up  {where}"
            boards.stop(paths, name)
            begun = time.monotonic()
            boards.start(paths, board, own_users=own_users)
            return f"up  {where}  ({time.monotonic() - begun:.1f} s)"

        return each([board.name for board in wanted], start, PARALLEL)


def down(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Take boards down; without names also those that are no longer defined."""
    if args.names and args.purge:
        raise UsageError("--purge removes what all boards share: leave out the names")
    names = [board.name for board in definitions.select(args.names)]
    if not paths.root.is_dir():
        return 0
    with farm_lock(paths):
        if not args.names and paths.run.is_dir():
            names += [p.name for p in paths.run.iterdir() if p.name not in definitions.boards]

        def stop(name: str) -> str:
            return "down" if boards.stop(paths, name) else "was not up"

        code = each(names, stop, len(names))  # mere waiting: all at once
        if not any(boards.running(paths, name) for name in definitions.boards):
            binfmt.unregister_on_host(paths)
        if not args.names and code == 0:
            shutil.rmtree(paths.run, ignore_errors=True)
            remove_leftovers(paths)
            if args.purge:
                shutil.rmtree(paths.root)
                print(f"removed {paths.root}")
        return code


def status(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Print which boards are up."""
    rows = []
    for board in definitions.boards.values():
        state = boards.running(paths, board.name)
        rows.append(
            {
                "name": board.name,
                "class": board.name,
                "kind": "phone" if board.phone else "board",
                "address": board.address,
                "port": board.port,
                "pid": state.process.pid if state else None,
                "up": bool(state) and boards.answers(board),
            }
        )
    if args.json:
        print(json.dumps({"version": 1, "boards": rows}, indent=1))
        return 0
    for row in rows:
        word = "up" if row["up"] else "no answer" if row["pid"] else "down"
        print(f"{row['name']:<14} {word:<10} {row['address']}:{row['port']}")
    return 0


def running_board(name: str, paths: Paths, definitions: Definitions) -> Board:
    """Return the one unit of a name, which must be up."""
    if name not in definitions.boards:
        raise UsageError(f"no such board: {name} (known: {', '.join(definitions.boards)})")
    if not boards.running(paths, name):
        raise FarmError(f"{name} is not up")
    return definitions.boards[name]


def read_asked(paths: Paths, name: str) -> dict[str, float]:
    """Return what a unit was asked for up to now."""
    return control.read_control(boards.shared_folder(paths, name) / control.CONTROL_FILE.name)


def set_control(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Change what a unit is told, for tests: its sensors, a phone's battery, cable and adbd."""
    board = running_board(args.name, paths, definitions)
    known = control.settings(board)
    asked = read_asked(paths, board.name)
    for setting in args.settings:
        key, _, value = setting.partition("=")
        if key not in known:
            raise UsageError(f"unknown setting {key!r} (known: {', '.join(known)})")
        if value == "auto":
            asked.pop(key, None)
            if key in control.AWAITED:
                asked[key] = 1.0  # a cable that nobody pulls is in
            continue
        low, high = known[key]
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise UsageError(f"{key} must be a number from {low:g} to {high:g}, or auto")
        asked[key] = number
    boards.ask(paths, board.name, asked)
    return 0


def kick(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Kill a unit's server (sshd or adbd), as a crash would; its init starts it again."""
    board = running_board(args.name, paths, definitions)
    asked = read_asked(paths, board.name)
    asked[control.KICKS] = asked.get(control.KICKS, 0) + 1
    boards.ask(paths, board.name, asked)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m infra.virtual_farm", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("up", help="bring units up (all of them without names)")
    command.add_argument("names", nargs="*", metavar="NAME", help="or 'boards', 'phones'")
    command.set_defaults(action=up)
    command = commands.add_parser("down", help="take units down: no process, mount or rule stays")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--purge", action="store_true", help="remove cached systems and keys too")
    command.set_defaults(action=down)
    command = commands.add_parser("status", help="say which units are up")
    command.add_argument("--json", action="store_true")
    command.set_defaults(action=status)
    command = commands.add_parser("set", help="drive a unit: set qemu-a53 ambient_c=70")
    command.add_argument("name", metavar="NAME")
    everything = control.COMMON | control.BOARD | control.PHONE
    command.add_argument("settings", nargs="+", metavar="KEY=VALUE",
                         help=f"{', '.join(everything)}; 'auto' lets go")  # fmt: skip
    command.set_defaults(action=set_control)
    command = commands.add_parser("kick", help="kill a unit's sshd or adbd; it starts again")
    command.add_argument("name", metavar="NAME")
    command.set_defaults(action=kick)
    command = commands.add_parser("doctor", help="say whether this machine can run the farm")
    command.add_argument("names", nargs="*", metavar="NAME", help="or 'boards', 'phones'")
    command.add_argument("--boards", action="store_true", help="also test the running units")
    command.set_defaults(action=doctor.main)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a command; every failure is one line and an exit code."""
    args = parse(argv)
    try:
        code: int = args.action(args, Paths.from_environment(), load_definitions())
        return code
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (FarmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INFRASTRUCTURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
