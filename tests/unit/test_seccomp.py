"""The filter's decisions for both machines, by running its program as the kernel does."""

import errno
import re
import signal
import struct
from pathlib import Path

import pytest

from service import seccomp
from service.seccomp import ALLOW, CHECKED, FAIL, KILL, MACHINES, REFUSED, SECCOMP, UNKNOWN, program

REFUSE, ABSENT = FAIL | errno.EPERM, FAIL | errno.ENOSYS
PID, PARENT = 4000, 3999
EVERYTHING = " ".join([*REFUSED.values(), UNKNOWN, CHECKED, SECCOMP])
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}

CASES = [
    ("open", (0, 0o0), ALLOW),
    ("open", (0, 0o1), REFUSE),
    ("openat", (-100, 0, 0o2000000), ALLOW),  # O_CLOEXEC
    ("openat", (-100, 0, 0o200000), ALLOW),  # O_DIRECTORY on x86_64
    ("openat", (-100, 0, 0o40000), ALLOW),  # O_DIRECTORY on aarch64
    ("openat", (-100, 0, 0o1), REFUSE),
    ("openat", (-100, 0, 0o2), REFUSE),
    ("openat", (-100, 0, 0o3), REFUSE),
    ("openat", (-100, 0, 0o100), REFUSE),
    ("openat", (-100, 0, 0o1000), REFUSE),  # truncates even where it is opened for reading
    ("openat", (-100, 0, 0o20200000), REFUSE),  # O_TMPFILE
    ("clone", (0x3D0F00,), ALLOW),  # as glibc starts a thread
    ("clone", (signal.SIGCHLD,), REFUSE),
    ("clone", (0x4111,), REFUSE),  # as posix_spawn starts a process
    ("clone", (0x3D0F00 | 0x40000000,), REFUSE),
    ("kill", (PID, 9), ALLOW),
    ("kill", (PARENT, 9), REFUSE),
    ("kill", (-1, 9), REFUSE),
    ("kill", (0, 9), REFUSE),
    ("tgkill", (PID, PID + 1, 6), ALLOW),
    ("tgkill", (PARENT, PARENT, 6), REFUSE),
    ("prlimit64", (0, 3, 0, 0x7FFF00000000), ALLOW),
    ("prlimit64", (0, 0, 0x7FFF00000000, 0), ALLOW),
    ("prlimit64", (0, 9, 0x7FFF00000000, 0), REFUSE),
    ("prlimit64", (0, 9, 0x10, 0), REFUSE),
    ("prlimit64", (PARENT, 0, 0x7FFF00000000, 0), REFUSE),
    ("prctl", (15, 0), ALLOW),  # PR_SET_NAME
    *(("prctl", (option, 0), REFUSE) for option in (1, 4, 35, 0x59616D61)),
    ("fcntl", (3, 3), ALLOW),
    *(("fcntl", (3, command), REFUSE) for command in (8, 10, 15)),
    ("ioctl", (1, 0x5401), ALLOW),  # TCGETS
    *(("ioctl", (0, command), REFUSE) for command in (0x5412, 0x8901, 0x8902)),
    ("socket", (2, 1, 0), REFUSE),
    ("execve", (0, 0, 0), REFUSE),
    ("clone3", (0, 88), ABSENT),
    ("openat2", (0, 0, 0), ABSENT),
    ("seccomp", (1, 0, 0), ALLOW),
]


def decided(machine, number, arguments=(), kind=None):
    """What the program returns for a call (linux/filter.h)."""
    made = program(machine, PID)
    words = [a & (2**64 - 1) for a in (*arguments, *(0,) * 6)][:6]
    data = struct.pack("<IIQ6Q", number, MACHINES[kind or machine][0], 0, *words)
    held, at = 0, 0
    while True:
        code, then, otherwise, constant = made[at]
        at += 1
        if code == seccomp.RETURN:
            return constant
        if code == seccomp.LOAD:
            (held,) = struct.unpack_from("<I", data, constant)
        elif code == seccomp.AND:
            held &= constant
        else:
            holds = {seccomp.EQUAL: held == constant, seccomp.AT_LEAST: held >= constant}[code]
            at += then if holds else otherwise


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_calls_are_judged_by_their_arguments(machine, name, arguments, expected):
    number = seccomp._numbers(EVERYTHING, machine).get(name)
    if number is None:
        assert (machine, name) == ("aarch64", "open")
        return
    assert decided(machine, number, arguments) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_all_that_is_listed_is_refused_and_nothing_else(machine):
    refused = set(seccomp._numbers(" ".join(REFUSED.values()), machine).values())
    absent = set(seccomp._numbers(UNKNOWN, machine).values())
    checked = set(seccomp._numbers(CHECKED, machine).values())
    assert not refused & (absent | checked)
    for number in set(range(600)) - checked:
        expected = REFUSE if number in refused else ABSENT if number in absent else ALLOW
        assert decided(machine, number) == expected, number


def test_calls_of_other_kinds_end_the_process():
    assert decided("x86_64", 0, kind="aarch64") == KILL
    assert decided("aarch64", 0, kind="x86_64") == KILL
    assert decided("x86_64", 0x40000000) == KILL  # read() of x32


@pytest.mark.parametrize("machine", MACHINES)
def test_program_fits_the_kernel(machine):
    made = program(machine, 2**22)
    assert len(made) <= 4096
    for at, (_, then, otherwise, _) in enumerate(made):
        assert max(then, otherwise) < min(256, len(made) - at - 1 or 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text(encoding="utf-8")
    theirs = {n: int(k) for n, k in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    ours = seccomp._numbers(EVERYTHING, machine)
    known = ours.keys() & theirs.keys()
    assert len(known) > 100
    assert {name: ours[name] for name in known} == {name: theirs[name] for name in known}
