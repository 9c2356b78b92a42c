"""Starts what Forge's `python` executor was asked for, in an environment with its requirements.

The executor puts this file and `plan.json` into a folder of the workspace and runs it in the checkout with the interpreter that was
asked for. An environment stands in the job's cache under the SHA-256 of all that it is made of. It is made once, under a lock, and is
whole when its marker is there, which is written last. Who uses one holds its lock, shared, until the last process that inherited it
has ended: this process becomes the user's by exec, so signals and the exit code need no care.

`outcome.json` says what the exit code cannot: that the user's code was never started, and why.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig

HERE = os.path.dirname(os.path.abspath(__file__))

# Part of each key: a change of how environments are made is a new number.
FORMAT = 1

# How many environments stay in a cache; those in use do not count as old.
KEPT_MAX = 10

# The last thing that is written into an environment.
MARKER = "forge-complete.json"

# How many of pip's own last error lines stand in the task's reason.
ERRORS_MAX = 3

# How deep requirements may include others.
INCLUDES_MAX = 20

# A requirement that lies on this machine: `-e .`, `./pkg`, `pkg/`, `name @ file:///...`, `dist/pkg-1.0.tar.gz`.
EXPLICIT = re.compile(r"(-e|--editable)\b|(\S+\s*@\s*)?file:")
LOCAL = re.compile(r"\.{1,2}$|[^\s:@;]*/|\S+\.(whl|zip|tar\.\w+|tgz)(\s|;|$)")
REMOTE = re.compile(r"(\S+\s*@\s*)?[a-z][a-z+]*://")
INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?=[^\s-]))(.+)")


class Failed(Exception):
    """Why the user's code was not started."""


def main():
    with open(os.path.join(HERE, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    try:
        python, environment = sys.executable, None
        if plan["requirements"] is not None:
            python, environment = provide(plan)
        arguments = [python, "-u"]
        if plan["kind"] == "module":
            arguments += ["-m", plan["name"]]
        else:
            arguments.append(plan["name"])
        if plan["kind"] == "script":
            # Modules of the checkout, as a file in it finds them.
            path = [os.getcwd(), os.environ.get("PYTHONPATH")]
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        tell({"python": platform.python_version(), "environment": environment})
        sys.stdout.flush()
        os.execv(python, arguments + plan["arguments"])
    except Failed as failed:
        tell({"failed": str(failed)})
        sys.exit(1)
    except OSError as error:
        tell({"failed": f"the environment cannot be made: {error}"})
        sys.exit(1)


def tell(outcome):
    unfinished = os.path.join(HERE, "outcome.new")
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(outcome, file)
    os.replace(unfinished, os.path.join(HERE, "outcome.json"))


def say(text):
    print(text, file=sys.stderr, flush=True)


def provide(plan):
    """Answers the interpreter of an environment with the plan's requirements, and whether it was made or kept."""
    cache = plan["cache"]
    texts, local = read(plan["requirements"])
    if local is not None and cache is not None:
        say(f"the requirements name {local!r}, which lies on this machine: the environment is this attempt's alone")
        cache = None
    if cache is not None:
        os.environ.setdefault("PIP_CACHE_DIR", os.path.join(cache, "pip"))
    folder = os.path.join(cache or HERE, "environments")
    os.makedirs(folder, exist_ok=True)
    made_of = {
        "format": FORMAT,
        "requirements": texts,
        "pip_arguments": plan["pip_arguments"],
        "interpreter": [sys.executable, sys.version],
        "platform": sysconfig.get_platform(),
    }
    # A script's first line names its interpreter's path, which has little room.
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    environment = os.path.join(folder, key)
    state = "kept"
    while True:
        held = lock(environment + ".lock", fcntl.LOCK_SH)
        if is_whole(environment):
            break
        os.close(held)
        # Shared locks cannot be turned into one of a single process without a moment in between.
        held = lock(environment + ".lock", fcntl.LOCK_EX)
        try:
            if not is_whole(environment):
                make(environment, plan, made_of, held)
                state = "made"
        finally:
            os.close(held)
    os.utime(environment + ".lock")
    os.set_inheritable(held, True)
    remove_oldest(folder)
    return os.path.join(environment, "bin", "python"), state


def read(path, depth=0):
    """The texts of a requirements file and of those that it includes, and the first line that lies on this machine."""
    if depth > INCLUDES_MAX:
        raise Failed(f"the requirements include one another without end: {path}")
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        raise Failed(f"the requirements cannot be read: {path}: {error.strerror}") from None
    texts, local = [text], None
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        include = INCLUDE.match(line)
        if include:
            name = include.group(1).strip().strip("'\"")
            if REMOTE.match(name) is None:
                more, below = read(os.path.join(os.path.dirname(path), name), depth + 1)
                texts += more
                local = local or below
        elif lies_here(line):
            local = local or line
    return texts, local


def lies_here(line):
    """Whether a line names what lies on this machine. What an index or a folder of packages (--find-links) has is known by its version."""
    if EXPLICIT.match(line):
        return True
    return not line.startswith("-") and LOCAL.match(line) is not None and REMOTE.match(line) is None


def lock(path, kind):
    """Locks a file that others may remove, and answers its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another task, which installs the same requirements")
            fcntl.flock(file, kind)
        if is_at(file, path):
            return file
        os.close(file)


def is_at(file, path):
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def is_whole(environment):
    return os.path.exists(os.path.join(environment, MARKER))


def make(environment, plan, made_of, held):
    # What is there was left behind by a task that was ended. An environment cannot be moved, so it is made in its place.
    if os.path.lexists(environment):
        shutil.rmtree(environment)
    try:
        say("installing the requirements into a new environment")
        # Isolated, as this process is: the checkout may hold a `pip.py`.
        run([sys.executable, "-I", "-m", "venv", environment], "python -m venv", held)
        pip = [os.path.join(environment, "bin", "python"), "-I", "-m", "pip", "install"]
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        run(pip + options + plan["pip_arguments"] + ["--requirement", plan["requirements"]], "pip install", held)
        unfinished = os.path.join(environment, "forge-complete.new")
        with open(unfinished, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(made_of, file)
        outlast_power_cut(environment)
        os.replace(unfinished, os.path.join(environment, MARKER))
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise


def outlast_power_cut(folder):
    """Has a folder's files on the disk before the marker that says so."""
    try:
        import ctypes

        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ctypes.CDLL(None).syncfs(file)
        finally:
            os.close(file)
    except (ImportError, AttributeError):
        os.sync()


def run(command, name, held):
    """Runs a step; what it says goes on to the log, and the last of it into the reason of a failure.

    It holds the lock too: when this process is ended first, nobody begins in the same place while the step still writes there.
    """
    lines = []
    pipe = {"stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, pass_fds=[held], **pipe) as process:
        for line in process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            lines = (lines + [line.strip()])[-50:]
    if process.returncode == 0:
        return
    if name != "pip install":
        raise Failed(
            f"{name} ended with exit code {process.returncode}: install what makes environments for this interpreter "
            "(Debian: apt-get install python3-venv); the log says more"
        )
    # pip adds a hint to some errors, which are long enough without.
    errors = [line[len("ERROR:") :].strip() for line in lines if line.startswith("ERROR:")][-ERRORS_MAX:]
    words = ": " + " ".join(errors) if errors else ": the log says why"
    raise Failed(f"pip could not install the requirements (exit code {process.returncode}){words}")


def remove_oldest(folder):
    """Removes what was used longest ago beyond the number that stays. What is in use stays, and so does what cannot be removed."""
    locks = []
    for name in os.listdir(folder):
        if name.endswith(".lock"):
            with contextlib.suppress(OSError):
                locks.append((os.stat(os.path.join(folder, name)).st_mtime, os.path.join(folder, name)))
    for _, path in sorted(locks, reverse=True)[KEPT_MAX:]:
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(file, path):
                    environment = path[: -len(".lock")]
                    if os.path.lexists(environment):
                        # Half of one must not be taken for a whole one.
                        with contextlib.suppress(FileNotFoundError):
                            os.remove(os.path.join(environment, MARKER))
                        shutil.rmtree(environment)
                    os.remove(path)
            finally:
                os.close(file)


main()
