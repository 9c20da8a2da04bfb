"""The worker's command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any, List, NoReturn

from device_worker import environment, fence, session, wire
from device_worker.errors import EXIT_REFUSED, WorkerError

CACHE_LIMIT = 4 << 30
EXIT_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="assay-worker")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("session", help="serve one coordinator over stdin and stdout")
    serve.add_argument("--root", required=True, help="folder on this device that may be used")
    serve.add_argument("--owner", required=True, help="name of the farm that holds the lease")
    serve.add_argument("--token", required=True, type=int, help="fencing token of the lease")
    serve.add_argument(
        "--claim", type=fence.decode, default=fence.NO_STORE, help="what the farm's store says"
    )
    serve.add_argument("--watchdog", type=float, default=60.0, help="seconds of silence allowed")
    serve.add_argument("--heartbeat", type=float, default=2.0, help="seconds between heartbeats")
    serve.add_argument("--observe", type=float, default=10.0, help="seconds to watch a holder")
    serve.add_argument("--cache-limit", type=int, default=CACHE_LIMIT, help="bytes")
    packed = commands.add_parser("offline", help="run the jobs of an unpacked archive by hand")
    packed.add_argument("--folder", required=True, help="where the archive was unpacked")
    packed.add_argument("--manifest", required=True, help="sha256 of its manifest")
    packed.add_argument("--python", help="interpreter for all jobs")
    packed.add_argument("--attempt", help="only this one; leaves its answer and no result")
    commands.add_parser("selftest", help="print facts about this device as JSON")
    return parser


def run(argv: List[str]) -> int:
    """Parse ``argv`` and do it; returns the exit status. Usage errors exit with 2."""
    args = _parser().parse_args(argv)
    if args.command == "selftest":
        try:
            facts = {
                "protocol": wire.PROTOCOL,
                "worker_sha256": session.bundle_sha256(),
                "environment": environment.describe(),
            }
        except WorkerError as error:
            sys.stderr.write("assay worker: %s\n" % error)
            return EXIT_REFUSED
        sys.stdout.write(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        return 0
    if args.command == "offline":
        return _offline(args)
    return session.serve(
        session.Settings(
            root=args.root,
            owner=args.owner,
            token=args.token,
            watchdog=args.watchdog,
            heartbeat=args.heartbeat,
            observe=args.observe,
            cache_limit=args.cache_limit,
            claim=args.claim,
        )
    )


def _offline(args: argparse.Namespace) -> int:
    from device_worker import offline  # sessions start without it

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if args.attempt:
            offline.run_one(args.folder, args.manifest, args.attempt)
        else:
            offline.run_all(args.folder, args.manifest, args.python)
    except WorkerError as error:
        fix = " (%s)" % error.fix if error.fix else ""
        sys.stderr.write("assay worker: %s%s [%s]\n" % (error.what, fix, error.code))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("assay worker: interrupted, no result was written\n")
        return EXIT_INTERRUPTED
    return 0


def _interrupt(number: int, frame: Any) -> NoReturn:
    """As Ctrl-C: the job's process is ended and the device's power mode put back."""
    raise KeyboardInterrupt
