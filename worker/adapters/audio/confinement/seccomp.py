"""A filter of system calls for a decoder, in classic BPF.

Every call that `syscalls` does not list is refused with EPERM: sockets, signals to other processes, other processes'
memory, changes to files and folders, shared memory. For some listed calls the arguments or the caller are checked:

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
from collections.abc import Sequence

from worker.adapters.audio.confinement.calls import code_of, demand
from worker.adapters.audio.confinement.syscalls import FIRST_COMMON, Architecture

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
_SECCOMP = {0xC000003E: 317, 0xC00000B7: 277}

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
    return demand("syscall", _SECCOMP[architecture.audit], _SET_MODE_FILTER, flags, buffer)


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
    return [*program, (_IF_AT_LEAST, 0, 1, FIRST_COMMON), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]


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
