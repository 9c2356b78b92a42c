//! What a channel reads of an event: one line, and the reason of what did not go well. Pure.

use serde_json::Value;

/// The most characters of a text that somebody else wrote.
const TEXT_CHARS_MAX: usize = 300;

/// The message of an event.
pub(crate) fn text(kind: &str, payload: &Value) -> String {
    let is_test = payload.get("test").and_then(Value::as_bool).unwrap_or_default();
    let line = match (payload.get("task"), payload.get("runner"), payload.get("config")) {
        (Some(task), _, _) => of_task(kind, task),
        (None, Some(runner), _) => format!("Runner *{}* is {}", field(runner, "name"), after_dot(kind)),
        (None, None, Some(config)) => of_config(kind, config),
        (None, None, None) => escaped(kind),
    };
    if is_test { format!("(a test) {line}") } else { line }
}

fn of_task(kind: &str, task: &Value) -> String {
    let name = format!("*{}/{}* #{}", field(task, "project"), field(task, "template"), field(task, "number"));
    match kind {
        "task.queued" => format!(":hourglass_flowing_sand: {name} is queued"),
        "task.waiting" => format!(":zzz: {name} waits, and no runner that could take it is there"),
        "task.started" => format!(":arrow_forward: {name} runs on {}", field(task, "runner")),
        "task.awaiting_approval" => format!(":raised_hand: {name} has planned, and waits for an approval"),
        _ => {
            let state = field(task, "state");
            let sign = match state.as_str() {
                "succeeded" => ":white_check_mark:",
                "canceled" | "skipped" => ":no_entry_sign:",
                _ => ":x:",
            };
            let reason = field(task, "reason");
            let tail = if reason.is_empty() { String::new() } else { format!("\n>{}", reason.replace('\n', "\n>")) };
            format!("{sign} {name} {}{tail}", state.replace('_', " "))
        }
    }
}

fn of_config(kind: &str, config: &Value) -> String {
    let revision: String = field(config, "revision").chars().take(12).collect();
    match kind {
        "config.failed" => format!(":x: The configuration {revision} was refused"),
        _ => format!("The configuration {revision} serves"),
    }
}

fn after_dot(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => short(text),
        Some(other) => other.to_string(),
    }
}

/// A text of somebody else's, not too long, and without what Slack would take for a mention or a link.
pub(crate) fn short(text: &str) -> String {
    let mut kept: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    escaped(&kept)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_event_reads_well() {
        let task = |state: &str, reason: Option<&str>| {
            json!({ "task": { "number": 42, "project": "shop", "template": "deploy",
            "state": state, "reason": reason, "runner": "ny-1" } })
        };
        assert_eq!(text("task.started", &task("running", None)), ":arrow_forward: *shop/deploy* #42 runs on ny-1");
        assert_eq!(
            text("task.awaiting_approval", &task("awaiting_approval", None)),
            ":raised_hand: *shop/deploy* #42 has planned, and waits for an approval"
        );
        assert_eq!(text("task.finished", &task("succeeded", None)), ":white_check_mark: *shop/deploy* #42 succeeded");
        assert_eq!(
            text("task.finished", &task("timed_out", Some("it took\nlonger"))),
            ":x: *shop/deploy* #42 timed out\n>it took\n>longer"
        );
        assert_eq!(text("runner.offline", &json!({ "runner": { "name": "ny-1" } })), "Runner *ny-1* is offline");
        assert_eq!(
            text("config.failed", &json!({ "test": true, "config": { "revision": "0123456789abcdef" } })),
            "(a test) :x: The configuration 0123456789ab was refused"
        );
    }

    #[test]
    fn a_stranger_s_text_mentions_nobody() {
        let payload = json!({ "task": { "number": 1, "project": "a", "template": "b", "state": "failed", "reason": "<!channel> & more" } });
        assert!(text("task.finished", &payload).ends_with(">&lt;!channel&gt; &amp; more"));
        assert_eq!(short(&"x".repeat(400)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
