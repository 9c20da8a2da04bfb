"""The tokens (``%h``), variables (``${HOME}``) and tilde in values of an OpenSSH configuration.

``ssh -G`` prints some values as they stand in the file, so they are expanded here whoever read it.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

_ANY = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)
_TOKEN = re.compile(r"%(.?)", re.DOTALL)

PROXY = frozenset("hknpr")
"""What ProxyCommand and ProxyJump know; variables in them are left to the shell."""


def tokens(
    given: str, host: str, port: str, user: str, alias: str | None, digest: str | None = None
) -> dict[str, str]:
    """Values by letter. ``given`` is the name asked for, ``digest`` what ``%C`` stands for."""
    name = socket.gethostname()
    values = {
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "k": alias or given,
        "L": name.partition(".")[0],
        "l": name,
        "n": given,
        "p": port,
        "r": user,
        "u": getpass.getuser(),
    }
    return values | ({"C": digest} if digest else {})


def expanded(text: str, values: Mapping[str, str], *, variables: bool = True) -> str:
    """``text`` with its tokens and, unless they are somebody else's, its variables replaced.

    Raises ValueError for what has no value.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[0].startswith("$"):
            value = os.environ.get(match[2])
            if value is None or not match[3]:
                raise ValueError(f"{text}: {match[0]} has no value")
            return value
        if match[1] == "%":
            return "%"
        if match[1] not in values or not match[1]:
            raise ValueError(f"{text}: the token {match[0]} is not known here")
        return values[match[1]]

    return (_ANY if variables else _TOKEN).sub(replaced, text)


def path(text: str, values: Mapping[str, str]) -> Path:
    """A file's name with tilde, tokens and variables replaced. Raises ValueError."""
    try:
        return Path(expanded(str(Path(text).expanduser()), values))
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from error
