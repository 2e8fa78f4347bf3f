"""A filter of system calls for a decoder, in classic BPF.

Allowed is what a C library needs to start a program, to run threads, to allocate memory, and to read and write open
files. Every other call is refused with EPERM: sockets, signals to other processes, other processes' memory, changes to
files and folders, shared memory. For some allowed calls the arguments or the caller are checked:

- only the C library of this process may create processes and start programs: its code is at addresses that the started
  program does not have, so that a decoder cannot start anything;
- files may be opened for reading only;
- memory may be allocated only in the kinds that RLIMIT_DATA counts;
- limits may be set for the caller only, signals may not be sent to other processes, and files may not be locked.

The first two rules do not apply to a script, whose purpose is to start other programs.
"""

import ctypes
import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.adapters.audio.confinement.calls import code_of, demand

# linux/bpf_common.h
_LOAD, _RETURN = 0x20, 0x06
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45
# struct seccomp_data
_NUMBER, _ARCHITECTURE, _POINTER, _ARGUMENTS = 0, 4, 8, 16
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000

_X32 = 0x40000000  # x86-64's second set of numbers
_CLONE_THREAD = 0x10000
_WRITES = 0o3 | 0o100 | 0o1000  # O_WRONLY, O_RDWR; O_CREAT; O_TRUNC
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_GROWSDOWN = 0x01, 0x20, 0x100
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ: no signals, no locks, no larger pipes
_HARMLESS_COMMANDS = (0, 1, 2, 3, 4, 1030, 1032)
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3

_TABLE = """
read 0 63, readv 19 65, pread64 17 67, preadv 295 69, preadv2 327 286, write 1 64, writev 20 66, pwrite64 18 68,
pwritev 296 70, pwritev2 328 287, lseek 8 62, fstat 5 80, close 3 57, close_range 436 436, dup 32 23, dup2 33 -,
dup3 292 24, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -,
eventfd2 290 19, fadvise64 221 223, readahead 187 213, fcntl 72 25, ioctl 16 29, open 2 -, openat 257 56,
access 21 -, faccessat 269 48, faccessat2 439 439, stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291,
statfs 137 43, fstatfs 138 44, readlink 89 -, readlinkat 267 78, getdents64 217 61, getcwd 79 17, chdir 80 49,
umask 95 166, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214,
get_mempolicy 239 236, clone 56 220, fork 57 -, vfork 58 -, execve 59 221,
exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95, futex 202 98, futex_waitv 449 449,
set_robust_list 273 99, get_robust_list 274 100, set_tid_address 218 96, rseq 334 293, restart_syscall 219 128,
gettid 186 178, getpid 39 172, getppid 110 173, getpgid 121 155, getpgrp 111 -, getsid 124 156, setpgid 109 154,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148,
getresgid 120 150, capget 125 90, sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126, getpriority 140 141,
getcpu 309 168, arch_prctl 158 -, prctl 157 167, uname 63 160, sysinfo 99 179, getrlimit 97 163,
prlimit64 302 261, getrusage 98 165, times 100 153, getrandom 318 278, rt_sigaction 13 134, rt_sigprocmask 14 135,
rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132,
pause 34 -, alarm 37 -, getitimer 36 102, setitimer 38 103, nanosleep 35 101, clock_nanosleep 230 115,
clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -
"""
"""Their numbers on x86-64 and on arm64: Linux 6.1, arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One way to number system calls. `audit` is the kernel's name of it, of linux/audit.h."""

    audit: int
    seccomp: int
    """The number of the call that installs a filter."""
    allowed: Mapping[str, int] = field(repr=False)


def _column(index: int) -> Mapping[str, int]:
    rows = (row.split() for row in _TABLE.split(","))
    return {row[0]: int(row[index]) for row in rows if row[index] != "-"}


ARCHITECTURES: Mapping[str, Architecture] = {
    "x86_64": Architecture(audit=0xC000003E, seccomp=317, allowed=_column(1)),
    "aarch64": Architecture(audit=0xC00000B7, seccomp=277, allowed=_column(2)),
}
"""By the machine's name as `os.uname` has it."""

_FIRST_COMMON = 424
"""From here on all architectures number alike, and C libraries fall back to older calls where one is missing."""

Instruction = tuple[int, int, int, int]

# C libraries make this call before the program begins. It waits for the listener, which never answers: once that is
# closed the call fails with ENOSYS, now and ever after, and they do without.
_GATE = {"set_robust_list": [(_RETURN, 0, 0, 0x7FC00000)]}


def install(architecture: Architecture, *, is_script: bool) -> int | None:
    """Put the calling thread, and all that it starts, under the filter. Needs no-new-privs. Raises OSError.

    Returns a descriptor: until it is closed, a program that was started waits in the first steps of its C library. None
    where the kernel (before 5.0), or another filter of this kind, leaves no such gate.
    """
    try:
        return _install(architecture, build(architecture, is_script=is_script, gated=True), _NEW_LISTENER)
    except OSError:
        _install(architecture, build(architecture, is_script=is_script, gated=False), 0)
        return None


def _install(architecture: Architecture, program: Sequence[Instruction], flags: int) -> int:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header, len(header))
    return demand("syscall", architecture.seccomp, _SET_MODE_FILTER, flags, buffer)


def build(architecture: Architecture, *, is_script: bool, gated: bool) -> list[Instruction]:
    """Return the filter: of each instruction its operation, how many to skip if true, and if false, and its operand."""
    checks = {**_for_all(), **({} if is_script else _for_programs()), **(_GATE if gated else {})}
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        *_unless_equal(architecture.audit, _refuse(errno.ENOSYS)),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        _refuse(errno.ENOSYS),
    ]
    for name, number in architecture.allowed.items():
        block = checks.get(name, [(_RETURN, 0, 0, _ALLOW)])
        program += [(_IF_EQUAL, 0, len(block), number), *block]
    return [*program, (_IF_AT_LEAST, 0, 1, _FIRST_COMMON), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]


def _for_all() -> dict[str, list[Instruction]]:
    allow, refuse = (_RETURN, 0, 0, _ALLOW), _refuse(errno.EPERM)
    return {
        "fcntl": _one_of(1, _HARMLESS_COMMANDS, _refuse(errno.EPERM)),
        "ioctl": _one_of(1, _HARMLESS_IOCTLS, _refuse(errno.ENOTTY)),
        "prlimit64": [_argument(0), (_IF_EQUAL, 0, 1, 0), allow, refuse],
        "mmap": [
            _argument(3),
            (_IF_ANY_BIT, 2, 0, _MAP_GROWSDOWN),
            (_IF_ANY_BIT, 0, 2, _MAP_ANONYMOUS),
            (_IF_ANY_BIT, 0, 1, _MAP_SHARED),
            refuse,
            allow,
        ],
    }


def _for_programs() -> dict[str, list[Instruction]]:
    forks, starts = _only_from(code_of("vfork")), _only_from(code_of("execve"))
    return {
        "clone": [_argument(0), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), *forks],
        "fork": forks,
        "vfork": forks,
        "execve": starts,
        "open": _reading(1),
        "openat": _reading(2),
    }


def _one_of(argument: int, values: Sequence[int], otherwise: Instruction) -> list[Instruction]:
    last = len(values)
    compare = [(_IF_EQUAL, last - place, 0, value) for place, value in enumerate(values)]
    return [_argument(argument), *compare, otherwise, (_RETURN, 0, 0, _ALLOW)]


def _reading(flags: int) -> list[Instruction]:
    return [_argument(flags), (_IF_ANY_BIT, 0, 1, _WRITES), _refuse(errno.EACCES), (_RETURN, 0, 0, _ALLOW)]


def _only_from(code: range) -> list[Instruction]:
    refuse = _refuse(errno.EPERM)
    return [
        (_LOAD, 0, 0, _POINTER + 4),
        *_unless_equal(code.start >> 32, refuse),
        (_LOAD, 0, 0, _POINTER),
        (_IF_AT_LEAST, 0, 1, code.start & 0xFFFFFFFF),
        (_IF_GREATER, 0, 1, code.stop & 0xFFFFFFFF),
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]


def _argument(index: int) -> Instruction:
    """Load the lower half of an argument, which holds all that is checked."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _unless_equal(number: int, otherwise: Instruction) -> list[Instruction]:
    return [(_IF_EQUAL, 1, 0, number), otherwise]


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | number)
