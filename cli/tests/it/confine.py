"""Runs a program under what a systemd unit takes away, as far as that can be done without systemd:
confine.py UNIT PROGRAM [ARGUMENT]...

Done here: the capability bounding set, no new privileges, UMask, SystemCallFilter, RestrictAddressFamilies,
RestrictNamespaces, RestrictSUIDSGID and RestrictRealtime, with the error that the unit names. Not done: everything that needs a mount
namespace or the service manager (ProtectSystem and the like, users, credentials, cgroups). The parent's file descriptors and environment
are kept.
"""

import ctypes
import os
import re
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW "
    "IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD "
    "LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
# What seccomp reads: the call's number, and the low half of each argument.
NUMBER, ARGUMENT = 0, lambda index: 16 + 8 * index
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
CLONE_NAMESPACES = 0x7E020080
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97


def unit_settings(path):
    settings = {}
    for line in open(path, encoding="utf-8"):
        found = re.fullmatch(r"([A-Za-z]+)=(.*)", line.strip())
        if found:
            settings.setdefault(found[1], []).append(found[2])
    return settings


def call_numbers():
    """The machine's system calls by name, from the compiler's own header."""
    text = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}


def members(group):
    """The system calls of one of systemd's groups."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True).stdout
    calls = set()
    for line in text.splitlines()[1:]:
        word = line.split("#")[0].strip()
        calls |= members(word) if word.startswith("@") else {word} if word else set()
    return calls


def expand(words):
    return set().union(*(members(word) if word.startswith("@") else {word} for word in words)) if words else set()


def program(settings, numbers):
    """The filter as BPF instructions: each check falls through to the next; the last word is to allow, or to refuse."""
    code = []
    statement = lambda op, value: code.append((op, 0, 0, value))
    refuse = lambda error: statement(0x06, ERRNO | error)
    load = lambda offset: statement(0x20, offset)
    # When the loaded word is not the value, the next `skip` instructions are jumped over.
    unless = lambda value, skip: code.append((0x15, 0, skip, value))

    if settings.get("RestrictNamespaces") == ["yes"]:
        for name in ("clone", "unshare"):
            load(NUMBER)
            unless(numbers[name], 4)
            load(ARGUMENT(0))
            statement(0x54, CLONE_NAMESPACES)
            code.append((0x15, 1, 0, 0))
            refuse(EPERM)
        load(NUMBER)
        unless(numbers["clone3"], 1)
        refuse(ENOSYS)
        unless(numbers["setns"], 1)
        refuse(EPERM)
    families = [word for value in settings.get("RestrictAddressFamilies", []) for word in value.split()]
    if families:
        load(NUMBER)
        unless(numbers["socket"], 2 + 2 * len(families))
        load(ARGUMENT(0))
        for family in families:
            unless(FAMILIES[family], 1)
            statement(0x06, ALLOW)
        refuse(EAFNOSUPPORT)
    if settings.get("RestrictRealtime") == ["yes"]:
        load(NUMBER)
        for name in ("sched_setscheduler", "sched_setattr"):
            unless(numbers[name], 1)
            refuse(EPERM)
    if settings.get("RestrictSUIDSGID") == ["yes"]:
        for name, index in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
            if name in numbers:
                load(NUMBER)
                unless(numbers[name], 4)
                load(ARGUMENT(index))
                statement(0x54, 0o6000)
                code.append((0x15, 1, 0, 0))
                refuse(EPERM)
    allowed, denied = None, set()
    for value in settings.get("SystemCallFilter", []):
        if value.startswith("~"):
            denied |= expand(value[1:].split())
        else:
            allowed = (allowed or set()) | expand(value.split())
    # systemd always lets through what it and every program start with.
    base = members("@default") | {"execve", "exit", "exit_group", "rt_sigreturn"}
    if allowed is None:
        listed, on_match, otherwise = denied - base, ERRNO | EPERM, ALLOW
    else:
        listed, on_match, otherwise = (allowed - denied) | base, ALLOW, ERRNO | EPERM
    load(NUMBER)
    for name in sorted(listed & numbers.keys()):
        unless(numbers[name], 1)
        statement(0x06, on_match)
    statement(0x06, otherwise)
    return code


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]


def main():
    unit, command = sys.argv[1], sys.argv[2:]
    settings = unit_settings(unit)
    code = program(settings, call_numbers())
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(*arguments):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl{arguments[:2]}: {os.strerror(ctypes.get_errno())}")

    if os.geteuid() == 0:
        kept = {word for value in settings.get("CapabilityBoundingSet", []) for word in value.split()}
        last = int(open("/proc/sys/kernel/cap_last_cap", encoding="utf-8").read())
        for number, name in enumerate(CAPABILITIES[: last + 1]):
            if f"CAP_{name}" not in kept:
                prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    os.umask(int(settings["UMask"][0], 8))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    instructions = (Instruction * len(code))(*code)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(code), instructions)), 0, 0)
    os.execvp(command[0], command)


main()
