"""A decoder that a file has taken over: tries all it can think of and says on stdout what it got. Run it with -I -S.

Its arguments: a file with another job's audio, and the ports and sockets of a listener.
"""

import ctypes
import fcntl
import json
import mmap
import os
import resource
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

other, tcp_port, udp_port, unix_path, abstract_name = sys.argv[1:]
parent = os.getppid()
tries: dict[str, tuple[str, tuple[str, ...]]] = {}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {"x86_64": 0, "aarch64": 1}
CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "io_uring_setup": (425, 425),
    "shmget": (29, 194),
    "unshare": (272, 97),
    "inotify_init1": (294, 26),
    "setpriority": (141, 140),
    "tgkill": (234, 131),
    "msgget": (68, 186),
    "clone": (56, 220),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "keyctl": (250, 219),
}


def attempt(*needs: str) -> Callable[[Callable[[], None]], None]:
    """Note how the function ends. `needs`: the mechanisms of which each closes it."""

    def note(function: Callable[[], None]) -> None:
        try:
            function()
        except OSError as exc:
            outcome = type(exc).__name__
        else:
            outcome = "done"
        tries[function.__name__] = (outcome, needs)

    return note


def call(name: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    number = CALLS[name][NUMBERS[os.uname().machine]]
    result = libc.syscall(number, *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def reach(family: int, kind: int, address: str | tuple[str, int]) -> None:
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect(address)
        one.send(b"x")


@attempt("landlock", "hidden")
def read_the_environment_of_the_worker() -> None:
    Path(f"/proc/{parent}/environ").read_bytes()


@attempt("landlock", "hidden")
def read_the_environment_of_a_thread() -> None:
    for task in Path(f"/proc/{parent}/task").iterdir():
        (task / "environ").read_bytes()


@attempt("landlock", "hidden")
def open_the_memory_of_the_worker() -> None:
    os.close(os.open(f"/proc/{parent}/mem", os.O_RDONLY))


@attempt("landlock", "hidden", "seccomp")
def read_the_memory_of_the_worker() -> None:
    local = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(local), 8)
    mine = ctypes.create_string_buffer(vector)
    here = struct.pack("PN", ctypes.cast(libc.getpid, ctypes.c_void_p).value, 8)
    call("process_vm_readv", parent, mine, 1, ctypes.create_string_buffer(here), 1, 0)


@attempt("landlock", "hidden", "seccomp")
def trace_the_worker() -> None:
    call("ptrace", 0x4206, parent, 0, 0)  # PTRACE_SEIZE


@attempt("landlock")
def read_another_jobs_audio() -> None:
    Path(other).read_bytes()


@attempt("landlock")
def list_another_jobs_folder() -> None:
    _ = list(Path(other).parent.iterdir())


@attempt("landlock")
def read_a_file_of_the_system() -> None:
    Path("/etc/passwd").read_bytes()


@attempt("landlock", "seccomp")
def write_a_file() -> None:
    Path(other).with_name("written").write_bytes(b"x")


@attempt("landlock", "seccomp")
def write_a_file_elsewhere() -> None:
    Path(f"/var/tmp/written-{os.getpid()}").write_bytes(b"x")  # noqa: S108
    Path(f"/var/tmp/written-{os.getpid()}").unlink()  # noqa: S108


@attempt("landlock", "seccomp")
def overwrite_another_jobs_audio() -> None:
    os.close(os.open(other, os.O_WRONLY))


@attempt("landlock", "seccomp")
def truncate_another_jobs_audio() -> None:
    os.truncate(other, 1)


@attempt("seccomp")
def change_the_mode_of_another_jobs_audio() -> None:
    Path(other).chmod(0o644)


@attempt("seccomp")
def change_the_times_of_another_jobs_audio() -> None:
    os.utime(other)


@attempt("landlock", "seccomp")
def make_a_folder() -> None:
    Path(other + ".folder").mkdir()


@attempt("landlock", "seccomp")
def make_a_link() -> None:
    Path(other + ".link").symlink_to("/")


@attempt("landlock", "seccomp")
def make_a_pipe_with_a_name() -> None:
    os.mkfifo(other + ".fifo")


@attempt("landlock", "seccomp")
def rename_another_jobs_audio() -> None:
    Path(other).rename(other + "2").rename(other)


@attempt("landlock", "seccomp")
def reopen_its_input_for_writing() -> None:
    os.close(os.open("/proc/self/fd/0", os.O_RDWR))


@attempt("landlock-4", "seccomp")
def reach_a_tcp_port() -> None:
    reach(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(tcp_port)))


@attempt("landlock-4", "seccomp")
def listen_on_a_tcp_port() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        pass


@attempt("seccomp")
def reach_a_udp_port() -> None:
    reach(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(udp_port)))


@attempt("seccomp")
def reach_a_socket_of_the_file_system() -> None:
    reach(socket.AF_UNIX, socket.SOCK_STREAM, unix_path)


@attempt("landlock-6", "seccomp")
def reach_an_abstract_socket() -> None:
    reach(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract_name)


@attempt("seccomp")
def make_a_pair_of_sockets() -> None:
    for one in socket.socketpair():
        one.close()


@attempt("landlock-6", "seccomp")
def signal_the_worker() -> None:
    os.kill(parent, 0)


@attempt("landlock-6", "seccomp")
def signal_a_thread_of_the_worker() -> None:
    call("tgkill", parent, parent, 0)


@attempt("seccomp")
def signal_everything() -> None:
    os.kill(-1, 0)


@attempt("seccomp")
def have_the_kernel_signal_the_worker() -> None:
    fcntl.fcntl(1, fcntl.F_SETOWN, parent)


@attempt("seccomp")
def open_a_handle_of_the_worker() -> None:
    os.close(call("pidfd_open", parent, 0))


@attempt("seccomp")
def limit_the_worker() -> None:
    resource.prlimit(parent, resource.RLIMIT_NOFILE, resource.prlimit(parent, resource.RLIMIT_NOFILE))


@attempt("seccomp")
def slow_the_worker_down() -> None:
    call("setpriority", 0, parent, 19)


@attempt("seccomp")
def bind_the_worker_to_a_processor() -> None:
    os.sched_setaffinity(parent, os.sched_getaffinity(parent))


@attempt("seccomp")
def start_a_process() -> None:
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


@attempt("seccomp")
def start_a_process_that_shares_memory() -> None:
    if not (child := call("clone", 17, 0, 0, 0, 0)):
        os._exit(0)
    os.waitpid(child, 0)


def run(*command: str) -> None:
    """In a process of its own where one can be had."""
    try:
        child = os.fork()
    except OSError:
        os.execv(command[0], command)  # noqa: S606
    if not child:
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise PermissionError


@attempt("landlock", "seccomp")
def start_another_program() -> None:
    run("/bin/true")


@attempt("seccomp")
def start_itself_again() -> None:
    run(sys.executable, "-I", "-S", "-c", "")


@attempt("limit")
def take_more_memory_than_it_may() -> None:
    mmap.mmap(-1, 385 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


@attempt("limit")
def take_addresses_for_page_tables() -> None:
    mmap.mmap(-1, 5 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ).close()


@attempt("limit")
def let_its_stack_grow() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 30, 1 << 30))
    except ValueError as exc:
        raise OSError from exc


@attempt("seccomp")
def lock_its_input() -> None:
    fcntl.lockf(0, fcntl.LOCK_SH, 1)


@attempt("seccomp")
def enlarge_its_pipe() -> None:
    fcntl.fcntl(1, 1031, 1 << 20)


@attempt("seccomp")
def share_memory_without_a_name() -> None:
    mmap.mmap(-1, 4096, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close()


@attempt("seccomp")
def grow_another_stack() -> None:
    mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100).close()


@attempt("seccomp")
def make_a_file_in_memory() -> None:
    os.close(call("memfd_create", ctypes.create_string_buffer(b"x"), 0))


@attempt("seccomp")
def share_memory_of_system_v() -> None:
    call("shmget", 0, 4096, 0o1600)


@attempt("seccomp")
def open_a_queue_of_messages() -> None:
    call("msgget", 0, 0o1600)


@attempt("seccomp")
def make_a_ring_for_requests() -> None:
    os.close(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


@attempt("seccomp")
def watch_files() -> None:
    os.close(call("inotify_init1", 0))


@attempt("seccomp")
def make_namespaces() -> None:
    call("unshare", 0x10000000)


@attempt("seccomp")
def use_the_kernels_keys() -> None:
    call("keyctl", 0, -3, 1)


threads = [threading.Thread(target=tries.__len__) for _ in range(8)]  # which a decoder may run
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

report = {
    "tries": tries,
    "input_bytes": len(sys.stdin.buffer.read()),
    "environment": dict(os.environ),
    "no_new_privileges": libc.prctl(39, 0, 0, 0, 0),
}
print(json.dumps(report), flush=True)  # noqa: T201
