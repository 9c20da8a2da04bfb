"""Ray on one network interface: it has no option for that, so its `bind` is replaced.

Given an address that other machines reach, every process of Ray listens on all interfaces. A
library of a few lines, compiled here and preloaded into Ray, makes that the one address.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path

from orchestrator.errors import InfraError, InputError

VARIABLE = "ASSAY_HUB_INTERFACE"

_SOURCE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*bind_function)(int, const struct sockaddr *, socklen_t);

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    bind_function real = (bind_function)dlsym(RTLD_NEXT, "bind");
    const char *text = getenv("ASSAY_HUB_INTERFACE");
    struct in_addr only;
    if (!address || !text || inet_pton(AF_INET, text, &only) != 1)
        return real(fd, address, length);
    if (address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        if (v4.sin_addr.s_addr == htonl(INADDR_ANY))
            v4.sin_addr = only;
        return real(fd, (const struct sockaddr *)&v4, sizeof v4);
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        if (IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr)) {
            /* ::ffff:a.b.c.d, so that an IPv6 socket is reached by IPv4 as before. */
            memset(v6.sin6_addr.s6_addr + 10, 0xff, 2);
            memcpy(v6.sin6_addr.s6_addr + 12, &only, 4);
        }
        return real(fd, (const struct sockaddr *)&v6, sizeof v6);
    }
    return real(fd, address, length);
}
"""


def check_interface(address: str) -> None:
    """Raises InputError E-HUB-INTERFACE unless this is an IPv4 address of this machine's own."""
    try:
        socket.inet_pton(socket.AF_INET, address)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        address_is_ours = False
    else:
        address_is_ours = not address.startswith(("0.", "127."))
    if not address_is_ours:
        raise InputError(
            "E-HUB-INTERFACE",
            f"{address!r} is not an address under which other hosts reach this one",
            fix="give the IPv4 address of the cluster's network interface: see `ip address`",
        )


def bound_to(address: str, folder: Path) -> dict[str, str]:
    """Variables under which a program and all that it starts listen on ``address`` at most.

    ``folder``: where the compiled library is kept. Raises InfraError E-HUB-COMPILER.
    """
    library = folder / f"bind-{hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]}.so"
    if not library.exists():
        _compile(library)
    return {"LD_PRELOAD": str(library), VARIABLE: address}


def _compile(library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    part = library.with_suffix(f".{os.getpid()}.part")
    try:
        done = subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", part, "-ldl"],
            input=_SOURCE,
            capture_output=True,
            text=True,
        )
        why = (done.stderr.strip() or f"cc ended with {done.returncode}").splitlines()[-1]
    except OSError as error:
        why = f"cc: {error.strerror}"
    else:
        if done.returncode == 0:
            part.replace(library)
            return
    raise InfraError(
        "E-HUB-COMPILER",
        f"cannot keep Ray on one interface: {why}",
        fix="apt install gcc libc6-dev",
        retryable=False,
    )
