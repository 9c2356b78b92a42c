"""Finds and keeps the roles and collections of requirements files, for Forge's `ansible` executor.

The executor may start Ansible's own programs and nothing else, and cannot see the job's cache. So it runs a playbook without tasks, and
Ansible loads this file as a callback, which does one of three steps:

- `look`: is a set of exactly these requirements in the cache? If not, a new folder beside the sets is named to install into.
- `keep`: what was installed there becomes the set, by one rename. A set is whole when it is there, and attempts that install the same
  at the same time need no lock: the first one wins.
- `drop`: what was half installed there goes.

Only requirements with fixed versions are kept: a branch, a range or nothing at all may mean something else tomorrow.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time

import yaml
from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

DOCUMENTATION = """
name: forge_galaxy
type: aggregate
short_description: Finds and keeps what requirements files bring
description:
  - Does the step that the file says which ANSIBLE_FORGE_GALAXY names.
options: {}
"""

# Part of each key: a change of how sets are made is a new number.
FORMAT = 1

# How many sets stay, and for how long one stays in any case: it may be in use.
KEPT_MAX = 10
KEPT_SECONDS = 2 * 24 * 3600

# How the folders begin that are no sets yet.
NEW = "new-"

# One version: `1.2.3`, `==1.2`, `v2.0.0-rc.1`, or a commit. `main` and `>=1.0` are none.
FIXED = re.compile(r"(==\s*)?v?\d+(\.\d+)+([-+.][0-9A-Za-z.+-]+)?$|[0-9a-f]{40}$|[0-9a-f]{64}$")

# What ansible-galaxy sees of the environment belongs to the key, but for what changes without changing what is installed.
SEEN = "ANSIBLE_GALAXY_"
UNSEEN = ("TOKEN", "PASSWORD", "USERNAME", "CACHE")


class NotKept(Exception):
    """Why these requirements are installed for one attempt alone."""


class CallbackModule(CallbackBase):
    """Does its step when the playbook without tasks begins."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "forge_galaxy"

    def v2_playbook_on_start(self, playbook):
        path = os.environ.get("ANSIBLE_FORGE_GALAXY")
        if path is None:
            return
        with open(path, encoding="utf-8") as file:
            plan = json.load(file)
        step = {"look": look, "keep": keep, "drop": drop}[plan["step"]]
        try:
            outcome = step(plan)
        except (NotKept, OSError) as error:
            outcome = {"not_kept": str(error)}
        with open(plan["outcome"], "w", encoding="utf-8") as file:
            json.dump(outcome, file)


def look(plan):
    sets = os.path.join(plan["cache"], "galaxy")
    key = key_of(plan["files"])
    folder = os.path.join(sets, key)
    os.makedirs(sets, exist_ok=True)
    is_kept = os.path.isdir(folder)
    if is_kept:
        os.utime(folder)
    else:
        folder = tempfile.mkdtemp(prefix=NEW, dir=sets)
        for kind in ("roles", "collections"):
            os.mkdir(os.path.join(folder, kind))
    remove_oldest(sets)
    return {
        "folder": folder,
        "key": key,
        "is_kept": is_kept,
        # What Ansible looks through otherwise, as its settings say.
        "roles": constants.DEFAULT_ROLES_PATH,
        "collections": constants.COLLECTIONS_PATHS,
    }


def keep(plan):
    folder = plan["folder"]
    kept = os.path.join(os.path.dirname(folder), plan["key"])
    outlast_power_cut(folder)
    try:
        os.rename(folder, kept)
    except OSError:
        # Another attempt was first, with the same.
        if not os.path.isdir(kept):
            raise
        shutil.rmtree(folder, ignore_errors=True)
    return {"folder": kept}


def drop(plan):
    shutil.rmtree(plan["folder"])
    return {}


def key_of(files):
    """The hash of all that a set is made of."""
    texts, artifacts = [], {}
    for path in files:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        texts.append([path, text])
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError:
            raise NotKept(f"{path} cannot be read") from None
        for name, place, version in requirements(path, content):
            place = place.removeprefix("file://")
            if os.path.isfile(place):
                artifacts[place] = hash_of(place)
            elif not FIXED.match(version):
                raise NotKept(f"{path} names no fixed version of {name}" + (f", but {version!r}" if version else ""))
    settings = None
    if constants.CONFIG_FILE is not None:
        with open(constants.CONFIG_FILE, encoding="utf-8", errors="surrogateescape") as file:
            settings = file.read()
    made_of = {
        "format": FORMAT,
        "texts": texts,
        "artifacts": artifacts,
        "settings": settings,
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(SEEN) and not any(word in name for word in UNSEEN)
        },
        "ansible": __version__,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def requirements(path, content):
    """Each requirement's name, where it comes from and its version, all of them texts."""
    if isinstance(content, dict):
        roles, collections = content.get("roles") or [], content.get("collections") or []
    elif os.path.basename(os.path.dirname(path)) == "collections":
        roles, collections = [], content or []
    else:
        roles, collections = content or [], []
    if not isinstance(roles, list) or not isinstance(collections, list):
        raise NotKept(f"{path} cannot be read")
    for entry in roles:
        if isinstance(entry, dict):
            if "include" in entry:
                raise NotKept(f"{path} includes another file")
            place = str(entry.get("src") or entry.get("name"))
            yield str(entry.get("name") or place), place, version_of(entry)
        else:
            place, _, version = str(entry).partition(",")
            yield place, place, version.partition(",")[0].strip()
    for entry in collections:
        if isinstance(entry, dict):
            name, place = str(entry.get("name")), str(entry.get("source"))
            is_place = entry.get("type") not in (None, "galaxy") and entry.get("source")
            yield name, place if is_place else name, version_of(entry)
        else:
            name, _, version = str(entry).partition(":")
            yield name, name, version.strip()


def version_of(entry):
    version = entry.get("version")
    return "" if version is None else str(version).strip()


def hash_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def outlast_power_cut(folder):
    """Has a folder's files on the disk before the name that says so."""
    try:
        import ctypes

        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ctypes.CDLL(None).syncfs(file)
        finally:
            os.close(file)
    except (ImportError, AttributeError):
        os.sync()


def remove_oldest(sets):
    """Removes what was used longest ago, beyond the number that stays, and what an attempt that was ended left."""
    found = []
    for entry in os.scandir(sets):
        try:
            found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
        except FileNotFoundError:
            pass
    found.sort(reverse=True)
    kept = [name for _, name in found if not name.startswith(NEW)]
    for used, name in found:
        if (name.startswith(NEW) or name in kept[KEPT_MAX:]) and used < time.time() - KEPT_SECONDS:
            shutil.rmtree(os.path.join(sets, name), ignore_errors=True)
