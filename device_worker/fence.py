"""Which store of a farm may use the device: the rule, and what the device remembers for it.

A token says which grant of one store is the newer. It cannot tell two copies of a store apart, nor
a store that was restored from a backup from one that went on. So each store has an *incarnation*, a
random name, and the device remembers the last one that drove it. Another incarnation is let in only
if it says that it goes on from what the device remembers (``Claim.follows``). Whether it may say so
is for the store to decide: the device compares. Why: decision 0019.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from device_worker import wire

LARGEST = 2**63 - 1
"""The largest token or generation: what a store can count to."""


@dataclass(frozen=True)
class Claim:
    """What a store says of itself besides its token.

    ``incarnation``: "" for whoever has no store. ``generation``: of two incarnations the later has
    the higher. ``place``: where the store lies. ``device``: the name under which it knows this
    device. ``coordinator``: the process to which the token was granted. ``follows``: incarnation ->
    the last token under it from which this store goes on.
    """

    incarnation: str = ""
    generation: int = 0
    place: str = ""
    device: str = ""
    coordinator: str = ""
    follows: Dict[str, int] = field(default_factory=dict)


NO_STORE = Claim()


@dataclass(frozen=True)
class Memory:
    """The grant that was last let in for a farm.

    ``highest``: what lease.json then held as the farm's highest token.
    """

    incarnation: str
    generation: int
    token: int
    place: str
    device: str
    coordinator: str
    highest: int

    def told(self) -> Dict[str, Any]:
        """What the coordinator is told that is not let in."""
        return {
            "incarnation": self.incarnation,
            "generation": self.generation,
            "token": self.token,
            "place": self.place,
        }

    def granted(self, claim: Claim, token: int) -> bool:
        """Whether it is this very grant."""
        given = (claim.incarnation, claim.coordinator, token)
        return given == (self.incarnation, self.coordinator, self.token)


def admits(memory: Optional[Memory], claim: Claim, token: int) -> bool:
    """Whether a store with this claim and token may follow what is remembered of its farm."""
    if memory is None or memory.granted(claim, token):
        return True
    if memory.incarnation == claim.incarnation:
        return token > memory.token
    return claim.follows.get(memory.incarnation, -1) >= memory.token


def remembering(claim: Claim, token: int, highest: int) -> Memory:
    """What is remembered once the grant is let in."""
    return Memory(
        claim.incarnation,
        claim.generation,
        token,
        claim.place,
        claim.device,
        claim.coordinator,
        highest,
    )


def of_older_worker(token: int) -> Memory:
    """What a worker remembered that knew nothing but tokens."""
    return Memory("", 0, token, "", "", "", token)


def encode(claim: Claim) -> str:
    """As one word of a command line that no shell changes."""
    text = json.dumps(wire.dump(claim), separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode(word: str) -> Claim:
    """Raises ValueError."""
    try:
        return wire.load(Claim, json.loads(base64.urlsafe_b64decode(word.encode())))
    except (binascii.Error, RecursionError) as error:
        raise ValueError(str(error)) from error
