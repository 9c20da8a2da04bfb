"""Entry point of the worker bundle: ``session`` serves a coordinator, ``selftest`` prints facts.

This file alone is read by whatever python3 the device has, before its version is known, so it
keeps to syntax that every Python 3 parses.
"""

import os
import sys

OLDEST = (3, 9)
EXIT_PYTHON = 78
TELEMETRY = "ORT_DISABLE_TELEMETRY"


def main(argv):  # type: (list[str]) -> int
    """Run the worker with ``argv`` (without program name); returns the exit status.

    78: this Python is too old; 75: stale lease; 69: the coordinator is gone; 70: refused.
    """
    if sys.version_info < OLDEST:
        sys.stderr.write(
            "assay worker: Python %d.%d is too old, 3.9 or newer is needed [E-PYTHON-OLD]\n"
            % tuple(sys.version_info[:2])
        )
        return EXIT_PYTHON
    # Wheels of ONNX Runtime from 1.29 on phone home unless this is set before the import.
    os.environ[TELEMETRY] = "1"
    from device_worker import cli

    return cli.run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
