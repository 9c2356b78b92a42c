//! What pages are put together from: states, times, tables of tasks, forms of one button, pagers. Text from anywhere goes through
//! `maud`, which escapes it; nothing here marks a text as safe.

use forge_api::{DeliveryState, RunnerStatus, Task, TaskState, Timestamp, Trigger, TriggerKind};
use maud::{Markup, html};

use super::layout::Visitor;

/// A state as a sign, a word and a colour.
pub(super) fn state(state: TaskState) -> Markup {
    let (class, word) = match state {
        TaskState::Queued => ("", "queued"),
        TaskState::Assigned => ("is-busy", "assigned"),
        TaskState::Running => ("is-busy", "running"),
        TaskState::AwaitingApproval => ("is-person", "awaits approval"),
        TaskState::Succeeded => ("is-good", "succeeded"),
        TaskState::Failed => ("is-bad", "failed"),
        TaskState::Canceled => ("is-warn", "canceled"),
        TaskState::TimedOut => ("is-bad", "timed out"),
        TaskState::Lost => ("is-bad", "lost"),
        TaskState::Expired => ("is-warn", "expired"),
        TaskState::Skipped => ("", "skipped"),
    };
    badge(class, word)
}

/// A runner's status.
pub(super) fn runner_status(status: RunnerStatus) -> Markup {
    let (class, word) = match status {
        RunnerStatus::Online => ("is-good", "online"),
        RunnerStatus::Offline => ("is-bad", "offline"),
        RunnerStatus::Draining => ("is-warn", "draining"),
        RunnerStatus::Disabled => ("", "disabled"),
        RunnerStatus::NeverConnected => ("", "never connected"),
    };
    badge(class, word)
}

/// How a delivery stands.
pub(super) fn delivery_state(state: DeliveryState) -> Markup {
    let class = match state {
        DeliveryState::Waiting => "is-busy",
        DeliveryState::Delivered => "is-good",
        DeliveryState::Skipped => "",
        DeliveryState::Dead => "is-bad",
    };
    badge(class, state.as_str())
}

/// A word with a sign and a colour: `is-good`, `is-bad`, `is-busy`, `is-warn`, `is-person` or none.
pub(super) fn badge(class: &str, word: &str) -> Markup {
    html! { span class={ "state " (class) } { (word) } }
}

/// A length of time in its two largest units.
pub(super) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 && millis % 1_000 >= 50 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// A length of time in whole seconds, as the script tells it on.
fn whole_span(millis: u64) -> String {
    span(millis / 1_000 * 1_000)
}

/// A moment to the second, as people read it.
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        (_, _) => text,
    }
}

/// How long ago a moment is, or how far ahead; the moment itself is its title.
pub(super) fn ago(now: Timestamp, at: Timestamp) -> Markup {
    let text = if at > now {
        format!("in {}", whole_span(at.millis_since(now)))
    } else {
        format!("{} ago", whole_span(now.millis_since(at)))
    };
    html! { time datetime=(at) title=(moment(at)) data-ago { (text) } }
}

/// The same where it may not have happened.
pub(super) fn ago_or(now: Timestamp, at: Option<Timestamp>, otherwise: &str) -> Markup {
    match at {
        Some(at) => ago(now, at),
        None => html! { (otherwise) },
    }
}

/// From a beginning to an end, or until now.
pub(super) fn lasted(now: Timestamp, from: Option<Timestamp>, to: Option<Timestamp>) -> Markup {
    match (from, to) {
        (None, _) => html! { span.soft { "–" } },
        (Some(from), Some(to)) => html! { (span(to.millis_since(from))) },
        (Some(from), None) => html! { span data-since=(from) { (whole_span(now.millis_since(from))) } },
    }
}

/// A number of bytes in a unit that people know.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut tenths = count.saturating_mul(10) / 1_024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if tenths >= 1_000 { format!("{} {name}", tenths / 10) } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

/// A count with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { many })
}

/// A number with commas between its thousands.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first characters of a revision or a digest; all of it is the title.
pub(super) fn short(id: &str) -> Markup {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    let shown: String = bare.chars().take(12).collect();
    html! { code title=(id) { (shown) } }
}

/// Where a template's page is.
pub(super) fn template_path(project: &str, template: &str) -> String {
    format!("/projects/{}/templates/{}", segment(project), segment(template))
}

/// A text as one part of a path or of a query.
pub(super) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `?a=b&c=d` of what is set.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let set: Vec<String> = pairs
        .iter()
        .filter_map(|(name, value)| value.filter(|value| !value.is_empty()).map(|value| (name, value)))
        .map(|(name, value)| format!("{name}={}", segment(value)))
        .collect();
    if set.is_empty() { String::new() } else { format!("?{}", set.join("&")) }
}

/// A project and a template as a link to the template.
pub(super) fn template_link(project: &str, template: &str) -> Markup {
    html! { a href=(template_path(project, template)) { (project) "/" (template) } }
}

/// Who or what made a task.
pub(super) fn trigger(trigger: &Trigger) -> Markup {
    let kind = match trigger.kind {
        TriggerKind::User => "by",
        TriggerKind::Schedule => "schedule",
        TriggerKind::Integration => "integration",
        TriggerKind::Retry => "retry by",
    };
    html! { span.soft { (kind) " " } bdi { (trigger.by) } }
}

/// Tasks, a row each.
pub(super) fn task_table(now: Timestamp, label: &str, tasks: &[Task]) -> Markup {
    table(
        label,
        html! {
            thead { tr {
                th scope="col" { "Task" }
                th scope="col" { "Template" }
                th scope="col" { "State" }
                th scope="col" { "Runner" }
                th scope="col" { "Started by" }
                th.num scope="col" { "Took" }
                th.num scope="col" { "Created" }
            } }
            tbody {
                @for task in tasks {
                    tr {
                        th scope="row" { a href={ "/tasks/" (task.number) } { "#" (task.number) } }
                        td { (template_link(&task.project, &task.template)) }
                        td { (state(task.state)) }
                        td { @if let Some(runner) = &task.runner { (runner) } @else { span.soft { "–" } } }
                        td { (trigger(&task.trigger)) }
                        td.num.nowrap { (lasted(now, task.started_at, task.finished_at)) }
                        td.num.nowrap { (ago(now, task.created_at)) }
                    }
                }
            }
        },
    )
}

/// A table that scrolls inside its own box; the keyboard reaches the box, too.
pub(super) fn table(label: &str, rows: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label=(label) {
            table { caption.hidden-text { (label) } (rows) }
        }
    }
}

/// Where a listing is empty.
pub(super) fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// A panel with a heading.
pub(super) fn panel(heading: &str, aside: Markup, content: Markup) -> Markup {
    html! {
        section.panel {
            header { h2 { (heading) } (aside) }
            (content)
        }
    }
}

/// Facts by name; those without a value are left out.
pub(super) fn facts(rows: &[(&str, Option<Markup>)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in rows {
                @if let Some(value) = value { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// A text as the markup of itself.
pub(super) fn text(text: impl AsRef<str>) -> Markup {
    html! { (text.as_ref()) }
}

/// A sentence of ours, in which what stands between backticks is code.
pub(super) fn prose(text: &str) -> Markup {
    let pieces: Vec<&str> = text.split('`').collect();
    // A backtick without its other is a backtick.
    if pieces.len().is_multiple_of(2) {
        return html! { bdi { (text) } };
    }
    html! { bdi { @for (index, piece) in pieces.iter().enumerate() {
        @if index.is_multiple_of(2) { (piece) } @else { code { (piece) } }
    } } }
}

/// Tags.
pub(super) fn tags<'a>(tags: impl IntoIterator<Item = &'a String>) -> Markup {
    let mut tags = tags.into_iter().peekable();
    html! {
        @if tags.peek().is_none() { span.soft { "none" } }
        @else { ul.tags { @for tag in tags { li { span.tag { (tag) } } } } }
    }
}

/// The proof that a form comes from a page of the visitor's session.
pub(super) fn csrf(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.access.csrf()); }
}

/// A form of one button.
pub(super) fn action(visitor: &Visitor, path: &str, class: &str, label: &str) -> Markup {
    html! {
        form method="post" action=(path) {
            (csrf(visitor))
            button type="submit" class=(class) { (label) }
        }
    }
}

/// A choice among texts, for filters; the empty one is all.
pub(super) fn choice<'a>(
    name: &str,
    label: &str,
    all: &str,
    chosen: Option<&str>,
    options: impl IntoIterator<Item = &'a str>,
) -> Markup {
    html! {
        div.field {
            label for={ "filter-" (name) } { (label) }
            select id={ "filter-" (name) } name=(name) {
                option value="" { (all) }
                @for option in options {
                    option value=(option) selected[chosen == Some(option)] { (option) }
                }
            }
        }
    }
}

/// The way to the next page, and back to the first.
pub(super) fn pager(path: &str, filters: &[(&str, Option<&str>)], cursor: Option<&str>, next: Option<&str>) -> Markup {
    if cursor.is_none() && next.is_none() {
        return html! {};
    }
    let with = |cursor: Option<&str>| {
        let mut pairs = filters.to_vec();
        pairs.push(("cursor", cursor));
        format!("{path}{}", query(&pairs))
    };
    html! {
        nav.pager aria-label="Pages" {
            span { @if cursor.is_some() { a href=(with(None)) rel="first" { "← Newest" } } }
            span { @if let Some(next) = next { a href=(with(Some(next))) rel="next" { "Older →" } } }
        }
    }
}

/// A command to copy.
pub(super) fn command(id: &str, command: &str) -> Markup {
    html! {
        div.copied {
            pre.code.wraps id=(id) tabindex="0" role="group" aria-label="Command" { (command) }
            button.slim type="button" data-copy=(id) data-script hidden { "Copy" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_show_two_units() {
        for (millis, shown) in [
            (0, "0 s"),
            (49, "0 s"),
            (1_250, "1.2 s"),
            (12_345, "12 s"),
            (61_000, "1 min 1 s"),
            (3_660_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(millis), shown);
        }
    }

    #[test]
    fn sizes_and_counts_are_short() {
        for (count, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (200 << 20, "200 MiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "task", "tasks"), "1 task");
    }

    #[test]
    fn hostile_text_stays_text() {
        let shown = short("<script>alert(1)</script>").into_string() + &template_link("a\"b", "<i>").into_string();
        assert!(!shown.contains("<script>") && !shown.contains("<i>"), "{shown}");
        assert_eq!(query(&[("a", Some("x&y=\"")), ("b", None), ("c", Some(""))]), "?a=x%26y%3D%22");
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(prose("run `a <b>` now").into_string(), "<bdi>run <code>a &lt;b&gt;</code> now</bdi>");
        assert_eq!(prose("one ` alone").into_string(), "<bdi>one ` alone</bdi>");
    }

    #[test]
    fn a_moment_is_told_from_now() {
        let at = Timestamp::from_unix_micros(1_700_000_000_000_000);
        assert_eq!(moment(at), "2023-11-14 22:13:20 UTC");
        assert!(ago(at.plus_millis(61_000), at).into_string().contains(">1 min 1 s ago<"));
        assert!(ago(at, at.plus_millis(5_000)).into_string().contains(">in 5 s<"));
    }
}
