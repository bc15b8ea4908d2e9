"""A Landlock domain: the kernel lets this process open no file but those it still needs to read.

seccomp sees the number of a call and its registers, not the path behind a pointer. Structures and constants
are those of linux/landlock.h, of the first version of its interface.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls, of the same number on all machines."""
PATH_BENEATH = 1
READ_FILE, READ_DIR, EVERYTHING = 1 << 2, 1 << 3, (1 << 13) - 1
"""Rights; the last are all of the first version, and what of them no rule gives is denied."""


def install(trees: Iterable[Path], files: Iterable[Path]) -> None:
    """Leave this process, for good, the reading of all below `trees`, and of what lies in `files` for those
    who know its name. It needs no_new_privs.

    Raises OSError where it can not be had. Threads that run already would stay free, so there must be none.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "Landlock is Linux's alone")
    if (threads := len(os.listdir("/proc/self/task"))) > 1:  # noqa: PTH208 - names are enough
        raise OSError(errno.EBUSY, f"Landlock: {threads} threads run already")
    ruleset = _call(CREATE_RULESET, struct.pack("<Q", EVERYTHING), 8, 0)
    try:
        for paths, rights in ((trees, READ_FILE | READ_DIR), (files, READ_FILE)):
            for path in paths:
                _allow(ruleset, path, rights)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("<Qi", rights, directory), 0)
    finally:
        os.close(directory)


def _call(number: int, *arguments: int | bytes) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    given = (ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments)
    result: int = call(ctypes.c_long(number), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
