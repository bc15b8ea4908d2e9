"""A seccomp filter: the kernel refuses this process the system calls that decoding has no use for.

It names what is refused and lets everything else pass, since what a libc, an allocator or a runtime calls
for differs from one version to the next, while what a decoder never does stays the same (ADR 10). Numbers are
those of the kernel's asm/unistd.h, structures those of linux/filter.h and linux/seccomp.h.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Of each machine the value by which the kernel tells calls of its kind (linux/audit.h), and its column in
what follows."""

REFUSED = {
    "sockets": "socket:41:198 socketpair:53:199 bind:49:200 connect:42:203 listen:50:201 accept:43:202 "
    "accept4:288:242 sendto:44:206 recvfrom:45:207 sendmsg:46:211 sendmmsg:307:269 recvmsg:47:212 "
    "recvmmsg:299:243",
    "programs": "execve:59:221 execveat:322:281 fork:57:- vfork:58:-",
    "other processes": "ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 "
    "process_madvise:440:440 process_mrelease:448:448 kcmp:312:272 pidfd_open:434:434 pidfd_getfd:438:438 "
    "pidfd_send_signal:424:424 tkill:200:130 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 "
    "migrate_pages:256:238 move_pages:279:239 setpriority:141:140 sched_setparam:142:118 "
    "sched_setscheduler:144:119 sched_setattr:314:274 sched_setaffinity:203:122 ioprio_set:251:30 "
    "setrlimit:160:164 shmget:29:194 shmat:30:196 shmctl:31:195 msgget:68:186 msgsnd:69:189 msgrcv:70:188 "
    "msgctl:71:187 semget:64:190 semop:65:193 semtimedop:220:192 semctl:66:191 mq_open:240:180 "
    "mq_unlink:241:181",
    "files": "creat:85:- truncate:76:45 unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38 "
    "renameat2:316:276 link:86:- linkat:265:37 symlink:88:- symlinkat:266:36 mkdir:83:- mkdirat:258:34 "
    "rmdir:84:- mknod:133:- mknodat:259:33 chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 "
    "chown:92:- fchown:93:55 lchown:94:- fchownat:260:54 utime:132:- utimes:235:- futimesat:261:- "
    "utimensat:280:88 setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7 setxattrat:463:463 removexattr:197:14 "
    "lremovexattr:198:15 fremovexattr:199:16 removexattrat:466:466 file_setattr:469:469 "
    "name_to_handle_at:303:264 open_by_handle_at:304:265 memfd_create:319:279 memfd_secret:447:447",
    "mounts and namespaces": "mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 unshare:272:97 "
    "setns:308:268 open_tree:428:428 open_tree_attr:467:467 move_mount:429:429 fsopen:430:430 "
    "fsconfig:431:431 fsmount:432:432 fspick:433:433 mount_setattr:442:442 swapon:167:224 swapoff:168:225 "
    "quotactl:179:60 quotactl_fd:443:443 sethostname:170:161 setdomainname:171:162",
    "the kernel": "add_key:248:217 request_key:249:218 keyctl:250:219 bpf:321:280 perf_event_open:298:241 "
    "userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427 "
    "io_setup:206:0 io_submit:209:2 splice:275:76 vmsplice:278:75 tee:276:77 fanotify_init:300:262 "
    "init_module:175:105 finit_module:313:273 delete_module:176:106 kexec_load:246:104 "
    "kexec_file_load:320:294 reboot:169:142 syslog:103:116 acct:163:89 settimeofday:164:170 "
    "clock_settime:227:112 adjtimex:159:171 clock_adjtime:305:266 iopl:172:- ioperm:173:- modify_ldt:154:- "
    "personality:135:92 lookup_dcookie:212:18 nfsservctl:180:42 uselib:134:-",
}
"""Calls that fail with EPERM: their names and their numbers on x86_64 and aarch64."""
UNKNOWN = "clone3:435:435 openat2:437:437"
"""Calls whose arguments lie behind a pointer, where no filter sees them. They fail with ENOSYS, so that a
libc takes `clone` and `openat` instead."""
CHECKED = (
    "open:2:- openat:257:56 clone:56:220 kill:62:129 tgkill:234:131 prlimit64:302:261 prctl:157:167 "
    "fcntl:72:25 ioctl:16:29"
)
"""Calls that fail with EPERM unless their arguments are harmless, as `_harmless` says."""
SECCOMP = "seccomp:317:277"

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
"""Instructions: a word of the call's data, and with, jump if equal, jump if not less, return."""
NUMBER, MACHINE, ARGUMENTS = 0, 4, 16
"""Where in the call's data its number stands, what machine it is for, and its arguments of 8 bytes."""
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
SET_FILTER, ALL_THREADS = 1, 1
X32 = 0x40000000
"""From here on, numbers on x86_64 are those of a second table with the same calls."""

WORD = 0xFFFFFFFF
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0o20000000
"""Bits of which none is set where a file is only read; the last is O_TMPFILE's own."""
THREAD, NAMESPACES = 0x00010000, 0x7E020000
OWN_LIMIT = 0
"""RLIMIT_CPU, which moves on with each clip."""
PRCTL = (1, 4, 35, 0x59616D61)
"""PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_MM, PR_SET_PTRACER."""
FCNTL = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX, which make the kernel send signals to others."""
IOCTL = (0x8901, 0x8902, 0x5412)
"""FIOSETOWN and SIOCSPGRP, which do so too, and TIOCSTI, which types into a terminal."""


class Instruction(NamedTuple):
    """One of a filter: what to do, how many to skip if it holds and if not, and a constant."""

    code: int
    then: int
    otherwise: int
    constant: int


@dataclass(frozen=True, slots=True)
class Where:
    """Whether some bits of a word of the call's data have a value, or, if not `equal`, another."""

    word: int
    value: int
    bits: int = WORD
    equal: bool = True


def install() -> None:
    """Put the filter over all threads of this process, for good. It needs no_new_privs.

    Raises OSError where it can not be had.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in MACHINES or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, f"there is no filter for {sys.platform} on {machine}")
    instructions = program(machine, os.getpid())
    filters = (_Filter * len(instructions))(*(_Filter(*i) for i in instructions))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    number = ctypes.c_long(_numbers(SECCOMP, machine)["seccomp"])
    given = ctypes.byref(_Program(len(instructions), filters))
    failed = call(number, ctypes.c_long(SET_FILTER), ctypes.c_long(ALL_THREADS), given)
    if failed < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    if failed > 0:
        raise OSError(errno.EBUSY, f"seccomp: thread {failed} has a filter of its own")


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for process `pid` on a machine of MACHINES."""
    audit, _ = MACHINES[machine]
    made = [
        Instruction(LOAD, 0, 0, MACHINE),
        Instruction(EQUAL, 1, 0, audit),
        Instruction(RETURN, 0, 0, KILL),
        Instruction(LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        made += [Instruction(AT_LEAST, 0, 1, X32), Instruction(RETURN, 0, 0, KILL)]
    for name, number in _numbers(CHECKED, machine).items():
        block = _unless(_harmless(pid)[name])
        made += [Instruction(EQUAL, 0, len(block), number), *block]
    for names, error in ((" ".join(REFUSED.values()), errno.EPERM), (UNKNOWN, errno.ENOSYS)):
        for number in _numbers(names, machine).values():
            made += [Instruction(EQUAL, 0, 1, number), Instruction(RETURN, 0, 0, FAIL | error)]
    return [*made, Instruction(RETURN, 0, 0, ALLOW)]


def _harmless(pid: int) -> dict[str, Sequence[Sequence[Where]]]:
    """Of each checked call the cases in which it is allowed; in each of them all has to hold."""
    own = [[Where(_low(0), pid)]]
    return {
        "open": [[Where(_low(1), 0, WRITING)]],
        "openat": [[Where(_low(2), 0, WRITING)]],
        "clone": [[Where(_low(0), THREAD, THREAD | NAMESPACES)]],
        "kill": own,
        "tgkill": own,
        "prlimit64": [
            [Where(_low(2), 0), Where(_low(2) + 4, 0)],  # nothing new is set
            [Where(_low(0), 0), Where(_low(1), OWN_LIMIT)],
        ],
        "prctl": [[Where(_low(0), option, equal=False) for option in PRCTL]],
        "fcntl": [[Where(_low(1), command, equal=False) for command in FCNTL]],
        "ioctl": [[Where(_low(1), command, equal=False) for command in IOCTL]],
    }


def _unless(cases: Sequence[Sequence[Where]]) -> list[Instruction]:
    """Allow the call if one of the cases holds, else refuse it."""
    block: list[Instruction] = []
    for case in cases:
        for left, where in zip(range(len(case) - 1, -1, -1), case, strict=True):
            to_next_case = 3 * left + 1
            jumps = (0, to_next_case) if where.equal else (to_next_case, 0)
            block += [
                Instruction(LOAD, 0, 0, where.word),
                Instruction(AND, 0, 0, where.bits),
                Instruction(EQUAL, *jumps, where.value),
            ]
        block.append(Instruction(RETURN, 0, 0, ALLOW))
    return [*block, Instruction(RETURN, 0, 0, FAIL | errno.EPERM)]


def _low(argument: int) -> int:
    """Where the lower half of an argument stands; both machines put it first."""
    return ARGUMENTS + 8 * argument


def _numbers(names: str, machine: str) -> dict[str, int]:
    """Numbers of calls, those left out that the machine does not have."""
    _, column = MACHINES[machine]
    rows = (row.split(":") for row in names.split())
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


class _Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("then", ctypes.c_uint8),
        ("otherwise", ctypes.c_uint8),
        ("constant", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter)))
