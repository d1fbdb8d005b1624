"""Becomes adbd inside fresh namespaces: `enter_phone.py ADBD NEW_ROOT DATA_ROOT`, run by `unshare`.

The root folder is this machine's, except that /data and /sdcard are those of DATA_ROOT; the network is a loopback
alone. The daemon offers a root shell to whoever connects, so vsock, which namespaces don't confine, is denied.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

_OWN = ("data", "sdcard")
_SOCKET_SYSCALL = {"x86_64": 41, "aarch64": 198}
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Instruction(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def deny_vsock() -> None:
    """From now on, socket(AF_VSOCK) fails with EAFNOSUPPORT in this process and its children."""
    instructions = (
        _Instruction(_LOAD, 0, 0, 0),  # seccomp_data.nr
        _Instruction(_JUMP_IF_EQUAL, 0, 3, _SOCKET_SYSCALL[platform.machine()]),
        _Instruction(_LOAD, 0, 0, 16),  # the low half of seccomp_data.args[0]
        _Instruction(_JUMP_IF_EQUAL, 0, 1, socket.AF_VSOCK),
        _Instruction(_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def lay_out(new_root: Path, data_root: Path) -> None:
    """Mounts everything into `new_root`; only this mount namespace sees it."""
    _run("mount", "-t", "tmpfs", "phone", str(new_root))
    sources = {entry.name: entry for entry in Path("/").iterdir() if entry.name not in _OWN}
    for name, source in {**sources, **{name: data_root / name for name in _OWN}}.items():
        target = new_root / name
        if source.is_symlink():
            shutil.copy(source, target, follow_symlinks=False)
            continue
        if source.is_dir():
            target.mkdir()
        else:
            target.touch()
        _run("mount", "--rbind", str(source), str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(adbd: str, new_root: str, data_root: str) -> None:
    _run("ip", "link", "set", "lo", "up")
    lay_out(Path(new_root), Path(data_root))
    deny_vsock()
    os.chroot(new_root)
    os.chdir("/")
    os.execv(adbd, [adbd])


if __name__ == "__main__":
    main(*sys.argv[1:])
