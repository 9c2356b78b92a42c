"""What schemathesis leaves out of its requests, so that no answer takes longer than the story: a claim that waits, a log that is followed."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    body, query = case.body, case.query
    if isinstance(body, dict) and isinstance(body.get("wait_ms"), int) and body["wait_ms"] > 0:
        body["wait_ms"] %= 50
    if isinstance(query, dict) and str(query.get("follow")).lower() == "true":
        query["follow"] = "false"
