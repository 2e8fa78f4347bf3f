"""The system calls that a decoder may make, and their numbers on the two architectures that have a filter.

Allowed is what a C library needs to start a program, to run threads, to allocate memory, and to read and write open
files. Source of the numbers: Linux 6.1, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One way to number system calls. `audit` is the kernel's name of it, of linux/audit.h."""

    audit: int
    allowed: Mapping[str, int] = field(repr=False)


def _column(index: int) -> Mapping[str, int]:
    rows = (row.split() for row in _TABLE.split(","))
    return {row[0]: int(row[index]) for row in rows if row[index] != "-"}


ARCHITECTURES: Mapping[str, Architecture] = {
    "x86_64": Architecture(audit=0xC000003E, allowed=_column(1)),
    "aarch64": Architecture(audit=0xC00000B7, allowed=_column(2)),
}
"""By the machine's name as `os.uname` has it."""

FIRST_COMMON = 424
"""From here on all architectures number alike, and C libraries fall back to older calls where one is missing."""
