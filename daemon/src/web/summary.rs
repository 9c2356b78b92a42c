//! What an executor reported of a task, in the shape that people know: hosts of Ansible, changes and outputs of Terraform, an exit
//! code, and whatever else as its JSON.

use forge_api::Task;
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::parts;

/// The most hosts that are shown one by one.
const HOSTS_SHOWN: usize = 500;

/// What Ansible counts of a host, and how it is told.
const HOST_COUNTS: [(&str, &str); 7] = [
    ("ok", "OK"),
    ("changed", "Changed"),
    ("failed", "Failed"),
    ("unreachable", "Unreachable"),
    ("skipped", "Skipped"),
    ("rescued", "Rescued"),
    ("ignored", "Ignored"),
];

/// What Terraform counts.
const PLAN_COUNTS: [(&str, &str); 5] = [
    ("add", "to add"),
    ("change", "to change"),
    ("destroy", "to destroy"),
    ("import", "to import"),
    ("forget", "to forget"),
];

/// What was reported, in one line.
pub(super) fn text(task: &Task) -> Option<&str> {
    task.summary.as_ref()?.get("text")?.as_str()
}

/// The panel of what was reported; nothing where nothing was.
pub(super) fn panel(task: &Task) -> Markup {
    let Some(summary) = &task.summary else { return html! {} };
    let fields = summary.as_object();
    // Of a script that says nothing but its exit code, the page says that already.
    if fields.is_some_and(|fields| fields.keys().all(|name| name == "text" || name == "exit_code")) {
        let text = text(task).filter(|text| !text.starts_with("exit code "));
        return html! { @if let Some(text) = text { (parts::panel("Summary", html! {}, html! { div.body { p { bdi { (text) } } } })) } };
    }
    let known = fields.and_then(|fields| hosts(fields).or_else(|| plan(fields)));
    let (heading, shown) = match known {
        Some((heading, shown)) => (heading, shown),
        None => ("Summary", other(summary)),
    };
    parts::panel(
        heading,
        html! {},
        html! {
            @if let Some(text) = text(task) { div.body { p { bdi { (text) } } } }
            (shown)
        },
    )
}

/// The hosts of a run of Ansible, those in trouble first.
fn hosts(fields: &Map<String, Value>) -> Option<(&'static str, Markup)> {
    let hosts = fields.get("hosts")?.as_object()?;
    let count = |host: &Value, name: &str| host.get(name).and_then(Value::as_u64).unwrap_or_default();
    let trouble = |host: &Value| count(host, "failed") + count(host, "unreachable");
    let mut sorted: Vec<(&String, &Value)> = hosts.iter().collect();
    sorted.sort_by_key(|(name, host)| (std::cmp::Reverse(trouble(host)), name.as_str()));
    let left_out = fields.get("hosts_left_out").and_then(Value::as_u64).unwrap_or_default()
        + (sorted.len().saturating_sub(HOSTS_SHOWN) as u64);
    let shown = html! {
        (parts::table("Hosts", html! {
            thead { tr {
                th scope="col" { "Host" } th scope="col" { "Result" }
                @for (_, word) in HOST_COUNTS { th.num scope="col" { (word) } }
            } }
            tbody { @for (name, host) in sorted.iter().take(HOSTS_SHOWN) {
                tr {
                    th scope="row" { bdi { (name) } }
                    td {
                        @if count(host, "unreachable") > 0 { (parts::badge("is-bad", "unreachable")) }
                        @else if count(host, "failed") > 0 { (parts::badge("is-bad", "failed")) }
                        @else if count(host, "changed") > 0 { (parts::badge("is-warn", "changed")) }
                        @else { (parts::badge("is-good", "ok")) }
                    }
                    @for (key, _) in HOST_COUNTS { td.num { (count(host, key)) } }
                }
            } }
        }))
        @if left_out > 0 { p.empty { (parts::counted(left_out, "more host", "more hosts")) } }
    };
    Some(("Hosts", shown))
}

/// What Terraform planned or did.
fn plan(fields: &Map<String, Value>) -> Option<(&'static str, Markup)> {
    let applied = fields.get("applied")?.as_bool()?;
    let counts: Vec<(&str, u64)> =
        PLAN_COUNTS.iter().filter_map(|(key, word)| Some((*word, fields.get(*key)?.as_u64()?))).collect();
    let outputs = fields.get("outputs").and_then(Value::as_object).filter(|outputs| !outputs.is_empty());
    let hidden = fields.get("sensitive_outputs").and_then(Value::as_array);
    let shown = html! {
        @if !counts.is_empty() {
            div.body {
                ul.tiles { @for (word, count) in counts {
                    li.tile { b { (count) } span { @if applied { (word.trim_start_matches("to ")) } @else { (word) } } }
                } }
            }
        }
        @if outputs.is_some() || hidden.is_some() {
            (parts::table("Outputs", html! {
                thead { tr { th scope="col" { "Output" } th scope="col" { "Value" } } }
                tbody {
                    @for (name, value) in outputs.into_iter().flatten() {
                        tr { th scope="row" { code { (name) } } td { code { (value_text(value)) } } }
                    }
                    @for name in hidden.into_iter().flatten().filter_map(Value::as_str) {
                        tr { th scope="row" { code { (name) } } td.soft { "sensitive" } }
                    }
                }
            }))
        }
    };
    Some((if applied { "Applied" } else { "Plan" }, shown))
}

/// A value as people read it: a text without its quotes.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The fields as they are.
fn other(summary: &Value) -> Markup {
    let Some(fields) = summary.as_object() else {
        return html! { div.body { pre.code.wraps tabindex="0" role="group" aria-label="Summary" { (value_text(summary)) } } };
    };
    let rows: Vec<(&String, &Value)> = fields.iter().filter(|(name, _)| *name != "text").collect();
    html! {
        @if !rows.is_empty() {
            div.body { dl.facts { @for (name, value) in rows {
                dt { (name.replace('_', " ")) }
                dd {
                    @if value.is_object() || value.is_array() {
                        pre.code.wraps tabindex="0" role="group" aria-label=(name) { (pretty(value)) }
                    } @else { code { (value_text(value)) } }
                }
            } } }
        }
    }
}

/// A value as indented JSON.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drawn(fields: &Value) -> String {
        let fields = fields.as_object().expect("an object");
        hosts(fields)
            .or_else(|| plan(fields))
            .map(|(heading, shown)| format!("{heading}:{}", shown.into_string()))
            .unwrap_or_default()
    }

    #[test]
    fn hosts_in_trouble_come_first() {
        let shown = drawn(
            &json!({ "hosts": { "a": { "ok": 3 }, "b": { "ok": 1, "unreachable": 1 }, "<i>": { "failed": 2 } } }),
        );
        let order: Vec<usize> =
            ["&lt;i&gt;", ">b<", ">a<"].iter().map(|name| shown.find(name).expect("the host")).collect();
        assert!(order.is_sorted() && !shown.contains("<i>"), "{shown}");
    }

    #[test]
    fn a_plan_shows_its_counts_and_keeps_sensitive_outputs() {
        let planned = drawn(&json!({ "add": 2, "change": 0, "destroy": 1, "applied": false }));
        assert!(planned.starts_with("Plan:") && planned.contains("to add"), "{planned}");
        let applied =
            drawn(&json!({ "add": 2, "applied": true, "outputs": { "ip": "10.0.0.1" }, "sensitive_outputs": ["key"] }));
        assert!(
            applied.starts_with("Applied:") && applied.contains("10.0.0.1") && applied.contains("sensitive"),
            "{applied}"
        );
    }
}
