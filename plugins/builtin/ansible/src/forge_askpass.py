"""Has ssh read the passphrase of its key from a file, for Forge's `ansible` executor.

Ansible hands a key's file to ssh, and ssh asks for the passphrase: a person on a terminal, or a program. The executor can write files
and cannot make them programs, so this callback does: when Ansible loads it, before any connection is made. The program answers one
question and no other, such as that of a host for a password.
"""

import os
import shlex
import tempfile

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: forge_askpass
type: aggregate
short_description: Has ssh read the passphrase of its key from a file
description:
  - Makes the program that SSH_ASKPASS names, which answers with the file that ANSIBLE_FORGE_PASSPHRASE names.
options: {}
"""

PROGRAM = """#!/bin/sh
case $1 in
  "Enter passphrase for "*) exec cat {path} ;;
  *) exit 1 ;;
esac
"""


class CallbackModule(CallbackBase):
    """Prepares the environment of all connections."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "forge_askpass"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        path = os.environ.get("ANSIBLE_FORGE_PASSPHRASE")
        if path is None:
            return
        # Goes with the attempt, as all of TMPDIR does.
        descriptor, program = tempfile.mkstemp(prefix="forge-askpass-")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(PROGRAM.format(path=shlex.quote(path)))
            os.fchmod(file.fileno(), 0o700)
        os.environ["SSH_ASKPASS"] = program
        os.environ["SSH_ASKPASS_REQUIRE"] = "force"
        # ssh before 8.4 asks a program only where there is a display.
        os.environ.setdefault("DISPLAY", "-")
