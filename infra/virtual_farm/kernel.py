"""The few Linux system calls that Python 3.11 does not offer: namespaces and mounts."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct

MS_NOSUID, MS_NODEV = 0x2, 0x4
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SECCOMP_ALLOW, SECCOMP_ERRNO = 0x7FFF0000, 0x00050000
# Two words of struct seccomp_data: the call's number and the lower half of its first argument.
CALL, FIRST_ARGUMENT = 0, 16
BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
SYS_SOCKET = {"x86_64": 41, "aarch64": 198}
AF_VSOCK, EAFNOSUPPORT = 40, 97
# glibc has no wrapper for pivot_root, so its number is needed.
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move this process (for PID: its children) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def mount(
    source: str, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """mount(2); raises OSError that names the target."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {fstype or 'bind'} on {target}")


def unmount(target: str) -> None:
    """Detach a mount at once; it ends when its last user does."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make new_root the root of this mount namespace and drop the old tree from sight.

    ``put_old`` is a folder below ``new_root``; it is empty again afterwards.
    """
    os.chdir(new_root)
    number = SYS_PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(number, b".", put_old.encode()), "pivot_root")
    os.chdir("/")
    unmount(f"/{put_old}")


def loopback_up() -> None:
    """Switch on the loopback interface of this process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        # struct ifreq: 16 bytes of name, then a union of 24 of which we need a short.
        answer = fcntl.ioctl(handle, SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        flags = struct.unpack("16sH22x", answer)[1] | IFF_UP
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags))


def forbid_vsock() -> None:
    """Make this process and all it starts believe that there is no AF_VSOCK.

    Such sockets reach the host of a virtual machine, past every network namespace. Only programs
    of this machine's own architecture (such as QEMU) are meant; others are not told apart.
    """
    program = b"".join(
        struct.pack("HBBI", code, skip_if, skip_else, value)
        for code, skip_if, skip_else, value in (
            (BPF_LOAD, 0, 0, CALL),
            (BPF_JUMP_IF_EQUAL, 0, 3, SYS_SOCKET[platform.machine()]),
            (BPF_LOAD, 0, 0, FIRST_ARGUMENT),
            (BPF_JUMP_IF_EQUAL, 0, 1, AF_VSOCK),
            (BPF_RETURN, 0, 0, SECCOMP_ERRNO | EAFNOSUPPORT),
            (BPF_RETURN, 0, 0, SECCOMP_ALLOW),
        )
    )
    filters = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filters))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl no_new_privs")
    _check(
        _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header)),
        "prctl seccomp",
    )
