//! The log of an attempt: a window of lines for whoever has no script, and the frame in which the script shows all of them.

use forge_api::{LogLine, LogLines, LogSegment, Task};
use maud::{Markup, html};

use super::parts;
use crate::core::LinesWanted;
use crate::http::problem::Refusal;
use crate::http::routes::Api;

/// How many lines a page holds itself, and how many bytes of their text.
const LINES: u32 = 500;
const TEXT_BYTES_MAX: usize = 96 * 1024;

/// The panel of a log. Without `from` it shows the last lines.
pub(super) async fn panel(
    api: &Api,
    task: &Task,
    attempt: u32,
    attempts: usize,
    from: Option<u64>,
) -> Result<Markup, Refusal> {
    if attempt == 0 {
        // The frame stands there from the beginning: the script fills it when a runner begins.
        let lines = LogLines { complete: task.state.is_final(), ..LogLines::default() };
        return Ok(drawn(task, attempt, attempts, &lines));
    }
    let from = from.map_or(-i64::from(LINES), |from| i64::try_from(from.max(1)).unwrap_or(i64::MAX));
    let wanted = LinesWanted { from, count: LINES, text_bytes_max: TEXT_BYTES_MAX };
    let lines = api.core.log_lines(task.number, Some(attempt), wanted).await?;
    Ok(drawn(task, attempt, attempts, &lines))
}

fn drawn(task: &Task, attempt: u32, attempts: usize, lines: &LogLines) -> Markup {
    let open = if lines.complete { "no" } else { "yes" };
    html! {
        section.log id="log" aria-labelledby="log-title" data-task=(task.number) data-attempt=(attempt) data-total=(lines.total) data-open=(open) {
            header {
                h2 id="log-title" { "Log" @if attempts > 1 { " of attempt " (attempt) } }
                form.buttons role="search" aria-label="Search the log" data-script hidden {
                    label.hidden-text for="log-find" { "Search the log" }
                    input id="log-find" type="search" placeholder="Search the log" autocomplete="off" data-find;
                    button.slim type="button" data-do="previous" hidden { "↑" span.hidden-text { "Previous hit" } }
                    button.slim type="button" data-do="next" hidden { "↓" span.hidden-text { "Next hit" } }
                    span.small role="status" data-log-hits {}
                }
                div.buttons {
                    button.slim type="button" data-do="error" data-script hidden { "Next error" }
                    button.slim type="button" data-do="follow" aria-pressed="false" data-script hidden { "Follow" }
                    button.slim type="button" data-do="wrap" aria-pressed="false" data-script hidden { "Wrap" }
                    a.button.slim href={ "/api/v1/tasks/" (task.number) "/log?attempt=" (attempt) } download={ "task-" (task.number) "-" (attempt) ".log" } hidden[attempt == 0] { "Download" }
                }
            }
            noscript { @if !lines.items.is_empty() { a.skip-lines href="#log-end" { "Skip the lines" } } }
            div.log-view tabindex="0" role="region" aria-label="Lines of the log" aria-describedby="log-keys" {
                p.empty.soft data-log-none hidden[lines.total > 0] { (nothing(task, attempt)) }
                ol.log-still { @for line in &lines.items { (row(attempt, lines, line)) } }
            }
            p.hidden-text id="log-keys" data-script hidden { "Up and down choose a line, Enter has the address lead to it, with Shift to all from the one before." }
            (foot(task, attempt, lines))
        }
    }
}

/// Why there is no line.
fn nothing(task: &Task, attempt: u32) -> &'static str {
    match (attempt, task.state.is_final()) {
        (0, true) => "No runner began.",
        (0, false) => "There is no log before a runner begins.",
        (_, true) => "Nothing was written.",
        (_, false) => "Nothing is written yet.",
    }
}

fn foot(task: &Task, attempt: u32, lines: &LogLines) -> Markup {
    let here = format!("/tasks/{}?attempt={attempt}", task.number);
    let from = first_of(lines);
    html! {
        footer id="log-end" {
            span data-log-count { (parts::counted(lines.total, "line", "lines")) }
            span data-log-bytes { (parts::bytes(lines.bytes)) }
            span role="status" data-log-status { @if lines.complete { "complete" } @else if attempt > 0 { "not complete yet" } }
            @if task.log_damaged { span { "some of it was lost on its way" } }
            noscript {
                @if from > 1 {
                    a href={ (here) "&from=" (from.saturating_sub(u64::from(LINES)).max(1)) "#log" } { "Earlier lines" } " "
                }
                @if let Some(last) = lines.items.last().filter(|last| last.number < lines.total) {
                    a href={ (here) "&from=" (last.number + 1) "#log" } { "Later lines" } " "
                }
                a href={ (here) "#log" } { "Last lines" }
            }
        }
    }
}

/// The number of the first line that is there.
fn first_of(lines: &LogLines) -> u64 {
    lines.items.first().map_or(1, |line| line.number)
}

/// A line. Its link leads to the same lines: without a script a page shows some of them only.
fn row(attempt: u32, lines: &LogLines, line: &LogLine) -> Markup {
    html! {
        li.row id={ "L" (line.number) } {
            a.no href={ "?attempt=" (attempt) "&from=" (first_of(lines)) "#L" (line.number) } { (line.number) }
            span.say { @for segment in &line.segments {
                @match class_of(segment) {
                    Some(class) => span class=(class) { (segment.text) },
                    None => (segment.text),
                }
            } }
        }
    }
}

/// The classes of a piece of a line. A page writes no style of its own, so that of the colours only the first sixteen are here; the
/// script sets the others.
fn class_of(segment: &LogSegment) -> Option<String> {
    let classes: Vec<String> = segment.style.iter().filter_map(|name| class(name)).collect();
    if classes.is_empty() { None } else { Some(classes.join(" ")) }
}

fn class(name: &str) -> Option<String> {
    let known = match name {
        "bold" => "sb",
        "dim" => "sd",
        "italic" => "si",
        "underline" => "su",
        "strike" => "ss",
        "inverse" => "inv",
        "cut" => "cut",
        colour => {
            let (kind, number) = colour.split_once("g-").filter(|(kind, _)| matches!(*kind, "f" | "b"))?;
            let is_number = number.len() < 6;
            return number
                .parse::<u8>()
                .ok()
                .filter(|number| is_number && *number < 16)
                .map(|number| format!("{kind}{number}"));
        }
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_whatever_it_says() {
        let style = vec!["bold".to_owned(), "fg-1".to_owned(), "bg-200".to_owned(), "\" onclick=x".to_owned()];
        let line = LogLine {
            number: 7,
            segments: vec![LogSegment { text: "<img src=x onerror=alert(1)>".to_owned(), style }],
        };
        let lines = LogLines { items: vec![line.clone()], ..LogLines::default() };
        let shown = row(1, &lines, &line).into_string();
        assert!(shown.contains(r##"href="?attempt=1&amp;from=7#L7""##), "{shown}");
        assert!(shown.contains(r#"<span class="sb f1">&lt;img src=x onerror=alert(1)&gt;</span>"#), "{shown}");
        assert!(shown.contains(r##"id="L7""##) && !shown.contains("onclick"), "{shown}");
    }

    #[test]
    fn only_colours_that_the_stylesheet_knows_become_classes() {
        for (name, class_is) in [
            ("fg-15", Some("f15")),
            ("bg-0", Some("b0")),
            ("fg-16", None),
            ("fg-000001", None),
            ("x", None),
            ("dim", Some("sd")),
        ] {
            assert_eq!(class(name).as_deref(), class_is, "{name}");
        }
    }
}
