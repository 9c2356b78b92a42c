"""An executor plugin in Python: looks how full file systems are, and fails when one is too full.

A guest has no files, no clock and no network of its own: what it learns, it learns from processes that the operator granted and from
the job's workspace. This one runs `df`, reads its output, and reports the shares as the task's summary.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.executor import Done_Finished
from wit_world.imports import host, process, types

PERCENT_MAX = 90

PARAMS = {
    "type": "object",
    "properties": {
        "paths": {
            "type": "array",
            "items": {"type": "string", "pattern": "^/"},
            "minItems": 1,
            "description": "Where to look: absolute paths on the runner",
        },
        "percent_max": {
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "default": PERCENT_MAX,
            "description": "How full a file system may be",
        },
    },
    "required": ["paths"],
    "additionalProperties": False,
}


class Executor(exports.Executor):
    """What `plugins/wit/executor.wit` asks for."""

    def describe(self) -> types.PluginInfo:
        return types.PluginInfo(
            name="disk-space",
            version="1.0.0",
            summary="Fails when a file system is too full",
            params_schema=json.dumps(PARAMS),
            config_schema=None,
            wants=[types.Capability_Process(["df"])],
        )

    def execute(self, job: types.Job) -> Done_Finished:
        params = json.loads(job.params_json)
        percent_max = params.get("percent_max", PERCENT_MAX)
        # The `--` keeps a path from being an option, and -P keeps each file system on one line.
        code, output = read(["-P", "--", *params["paths"]])
        if code != 0:
            raise Err(types.Failure_Failed(types.Failed(f"df ended with exit code {code}", code, None)))
        used = shares(output)
        summary = ", ".join(f"{place} {percent} %" for place, percent in used.items())
        result = json.dumps({"percent_used": used, "percent_max": percent_max})
        full = [place for place, percent in used.items() if percent > percent_max]
        if full:
            message = f"too full (more than {percent_max} %): {', '.join(full)} ({summary})"
            raise Err(types.Failure_Failed(types.Failed(message, None, result)))
        return Done_Finished(types.Outcome(summary, result, code))


def read(arguments: list[str]) -> tuple[int, str]:
    """Runs df to its end: its exit code, and what it printed. Its errors go to the task's log."""
    command = process.Command(program="df", args=arguments, env=[types.Pair("LC_ALL", "C")], cwd=None, stdin=None, timeout_ms=30_000)
    output, errors = b"", b""
    try:
        with process.spawn(command) as child:
            while True:
                match child.next():
                    case process.Event_Stdout(data):
                        output += data
                    case process.Event_Stderr(data):
                        # It comes in pieces, as the process wrote them: a line may be in several.
                        errors += data
                    case process.Event_Exited(ended):
                        for line in errors.decode(errors="replace").splitlines():
                            host.log(types.Level.WARN, line, [])
                        if not isinstance(ended, process.Exit_Code):
                            raise Err(types.Failure_Failed(types.Failed(f"df was ended: {ended}", None, None)))
                        return ended.value, output.decode(errors="replace")
    except Err as error:
        # What the host refuses comes as an exception of the same kind as what this plugin answers with.
        match error.value:
            case types.HostError_Canceled():
                raise Err(types.Failure_Canceled()) from None
            case types.HostError_Denied(words) | types.HostError_NotFound(words) | types.HostError_Invalid(words) | types.HostError_Io(words):
                raise Err(types.Failure_Failed(types.Failed(words, None, None))) from None
            case _:
                raise


def shares(output: str) -> dict[str, int]:
    """`/dev/vda 1 2 3 61% /var` as `{"/var": 61}`."""
    used = {}
    for line in output.splitlines()[1:]:
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and columns[4].endswith("%"):
            used[columns[5]] = int(columns[4].removesuffix("%"))
    return used
