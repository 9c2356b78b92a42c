"""Writes the recap of a run by host as JSON, for Forge's `ansible` executor.

The executor puts this file into the workspace and names its folder in ANSIBLE_CALLBACK_PLUGINS. It prints nothing, so the
output stays the user's own, and it needs no entry in `callbacks_enabled`, so a project's own list stays in force.
"""

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: forge_recap
type: aggregate
short_description: Writes the recap by host as JSON
description:
  - Writes the counts of each host into the file that ANSIBLE_FORGE_RECAP names, when the run ends.
options: {}
"""


class CallbackModule(CallbackBase):
    """Waits for the end of the run and writes its counts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "forge_recap"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        path = os.environ.get("ANSIBLE_FORGE_RECAP")
        # Made absolute now: the working directory is the one that the executor chose.
        self.path = os.path.abspath(path) if path else None

    def v2_playbook_on_stats(self, stats):
        if self.path is None:
            return
        hosts = {}
        for host in sorted(stats.processed):
            counts = stats.summarize(host)
            hosts[str(host)] = {
                "ok": counts["ok"],
                "changed": counts["changed"],
                "unreachable": counts["unreachable"],
                "failed": counts["failures"],
                "skipped": counts["skipped"],
                "rescued": counts["rescued"],
                "ignored": counts["ignored"],
            }
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        unfinished = self.path + ".unfinished"
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump({"hosts": hosts}, file)
        # The executor sees the whole recap or none.
        os.replace(unfinished, self.path)
