"""Linux namespaces of this process, and file systems that are seen in them alone."""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
WHOLE_OPTIONS = {"LIBMOUNT_FORCE_MOUNT2": "always"}
"""The newer way to mount takes no more than 256 bytes of options."""
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def own_mounts() -> None:
    """What is mounted from here on, this process and its children see alone. Raises OSError."""
    _unshare(CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def own_network() -> None:
    """From here on this process and its children have a loopback device and nothing else. Raises OSError."""
    _unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


@contextmanager
def layered(point: Path, layers: Sequence[Path], upper: Path | None = None) -> Iterator[Path]:
    """A tree at `point` of `layers`, the lowest first, with proc and a few devices.

    upper: empty folder that gets all changes, `<upper>.work` beside it is used on the way. Without it the
    tree is read-only and has scratch of its own at /tmp and /dev/shm.
    """
    with ExitStack() as mounts:

        def mount(*what: str, at: Path) -> None:
            subprocess.run(["mount", *what, str(at)], check=True, env={**os.environ, **WHOLE_OPTIONS})
            mounts.callback(subprocess.run, ["umount", "--lazy", str(at)], check=True)

        point.mkdir(exist_ok=True)
        options = "lowerdir=" + ":".join(str(layer) for layer in reversed(layers))
        if upper is not None:
            work = upper.with_name(upper.name + ".work")
            upper.mkdir()
            work.mkdir()
            options += f",upperdir={upper},workdir={work}"
        mount("-t", "overlay", "-o", options, "overlay", at=point)
        mount("-t", "proc", "proc", at=point / "proc")
        mount("-t", "tmpfs", "-o", "mode=755", "dev", at=point / "dev")
        for name, numbers in DEVICES.items():
            os.mknod(point / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
            (point / "dev" / name).chmod(0o666)
        for name, target in LINKS.items():
            (point / "dev" / name).symlink_to(target)
        (point / "dev" / "shm").mkdir(mode=0o1777)
        if upper is None:
            mount("-t", "tmpfs", "-o", "mode=1777", "scratch", at=point / "tmp")
            mount("-t", "tmpfs", "-o", "mode=1777", "shm", at=point / "dev" / "shm")
        yield point


def _unshare(flags: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "namespaces are Linux's alone")
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
