"""What every transport must do, as checks that run against a live device.

``assay devices check`` and the tests run the same list. A check needs a POSIX sh and its usual
tools on the device, nothing else; it leaves what it made below ``scratch``.
"""

from __future__ import annotations

import secrets

from orchestrator.transports.base import Transport
from orchestrator.transports.contract import calls, channels, files
from orchestrator.transports.contract.kit import PATIENCE, Check, ContractError

__all__ = ["CHECKS", "Check", "ContractError", "run_check"]

CHECKS: tuple[Check, ...] = (*calls.CHECKS, *files.CHECKS, *channels.CHECKS)


def run_check(item: Check, transport: Transport) -> None:
    """Run one check in a scratch folder below the device's root and remove that folder.

    Raises ContractError, or what the transport raised when it should not have.
    """
    scratch = transport.root() / f"contract-{secrets.token_hex(6)}"
    try:
        item.run(transport, scratch)
    finally:
        transport.run(["rm", "-rf", "--", str(scratch)], timeout=PATIENCE)
