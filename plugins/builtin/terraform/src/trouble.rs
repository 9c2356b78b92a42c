//! What went wrong, from the program's last words: they are drawn for a terminal, and wrapped.

use forge_plugin::{Exit, Failed, Failure, Retry};

/// How the program draws the edge of an error.
const EDGE: [char; 4] = ['│', '╷', '╵', ' '];

/// What the failure of a step means.
pub(crate) fn explain(program: &str, step: &str, exit: Exit, tail: &[u8]) -> Failure {
    let lines = plain(tail);
    let text = lines.join(" ");
    let failed = |message: String| Failure::Failed(Failed { message, exit_code: exit.code(), output_json: None });
    match exit {
        Exit::Code(_) => {}
        Exit::Signal(_) => return failed(format!("{program} {step} was {exit}")),
        Exit::TimedOut => return failed(format!("the time of {program} {step} ran out")),
    }
    if text.contains("Error acquiring the state lock") {
        return locked(program, &lines, exit);
    }
    if text.contains("Saved plan is stale") || text.contains("Saved plan does not match the given state") {
        return failed(
            "the plan is out of date: the state was changed by another run after the plan was made, and nothing was applied; \
             run the template again for a new plan"
                .to_owned(),
        );
    }
    if text.contains("cannot be transferred between different") {
        return failed(format!(
            "the plan was made with another version of {program} than the one of this runner, and nothing was applied; give the \
             template a runner_tag of runners with one version, and run it again"
        ));
    }
    let words = lines.iter().find_map(|line| line.strip_prefix("Error: "));
    failed(match words {
        Some(words) => format!("{program} {step} failed with {exit}: {words}; the log says where"),
        None => format!("{program} {step} failed with {exit}; the log says why"),
    })
}

/// Who holds the lock. That passes, so it is worth another try; a backend that cannot lock at all is not.
fn locked(program: &str, lines: &[String], exit: Exit) -> Failure {
    let field = |name: &str| {
        lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim).filter(|value| !value.is_empty())
    };
    let Some(id) = field("ID:") else {
        let why = field("Error message:").unwrap_or("the log says why");
        let message = format!("the state could not be locked, and nothing was changed: {why}");
        return Failure::Failed(Failed { message, exit_code: exit.code(), output_json: None });
    };
    let who = field("Who:").unwrap_or("another run");
    let since = field("Created:").map(|created| format!(" since {}", seconds(created))).unwrap_or_default();
    let operation = field("Operation:").map(|operation| format!("{operation}, ")).unwrap_or_default();
    Failure::Retry(Retry {
        message: format!(
            "the state is locked by {who}{since} ({operation}lock {id}), and nothing was changed: wait until that run has ended, \
             or let this one wait for it with `lock_timeout = \"10m\"` in [params]; when that run is dead, \
             `{program} force-unlock {id}` takes the lock away"
        ),
        after_ms: None,
    })
}

/// `2026-11-21 23:41:21.310104992 +0000 UTC` without what nobody reads.
fn seconds(created: &str) -> String {
    match created.split_once('.') {
        Some((seconds, _)) if created.ends_with(" UTC") => format!("{seconds} UTC"),
        Some(_) | None => created.to_owned(),
    }
}

/// Whether an init failed at the plugin cache, or at a provider's package, which the cache may be to blame for.
pub(crate) fn is_about_packages(tail: &[u8]) -> bool {
    let text = plain(tail).join(" ");
    [
        "Failed to install provider",
        "Required plugins are not installed",
        "text file busy",
        "doesn't match any of the checksums",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// The lines without colors, edges and emptiness.
fn plain(tail: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(tail);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character == '\u{1b}' {
            // A color ends with a letter.
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
        .lines()
        .map(|line| line.trim_start_matches(EDGE).trim_end())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKED: &str = "\u{1b}[31m╷\u{1b}[0m\n\u{1b}[31m│\u{1b}[0m \u{1b}[1mError: \u{1b}[0mError acquiring the state lock\n\
        │ \n│ Error message: resource temporarily unavailable\n│ Lock Info:\n│   ID:        5cc0\n│   Path:      s\n\
        │   Operation: OperationTypeApply\n│   Who:       jane@desk\n│   Version:   1.11.4\n\
        │   Created:   2026-11-21 23:41:21.310104992 +0000 UTC\n│   Info:      \n╵\n";

    fn message(exit: Exit, tail: &str) -> String {
        match explain("terraform", "apply", exit, tail.as_bytes()) {
            Failure::Failed(failed) => failed.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lock_names_its_holder_and_is_worth_another_try() {
        let Failure::Retry(retry) = explain("tofu", "plan", Exit::Code(1), LOCKED.as_bytes()) else {
            panic!("it is transient");
        };
        let start = "the state is locked by jane@desk since 2026-11-21 23:41:21 UTC (OperationTypeApply, lock 5cc0), and nothing";
        assert!(retry.message.starts_with(start), "{}", retry.message);
        assert!(retry.message.contains("`tofu force-unlock 5cc0`"), "{}", retry.message);
    }

    #[test]
    fn a_backend_that_cannot_lock_is_no_lock() {
        let said =
            "Error: Error acquiring the state lock\n\nError message: AccessDenied: no\nTerraform acquires a state lock";
        assert_eq!(
            message(Exit::Code(1), said),
            "the state could not be locked, and nothing was changed: AccessDenied: no"
        );
    }

    #[test]
    fn a_plan_that_does_not_fit_says_what_to_do() {
        assert!(message(Exit::Code(1), "│ Error: Saved plan is stale\n").contains("run the template again"));
        let version = "│ Error: Failed to read plan\n│ plan files cannot be transferred between\n│ different Terraform versions\n";
        assert!(message(Exit::Code(1), version).contains("another version of terraform"));
    }

    #[test]
    fn other_failures_keep_the_program_s_words() {
        let said = "│ Warning: x\n│ \u{1b}[31mError: \u{1b}[0mInvalid reference\n│ Error: another\n";
        assert_eq!(
            message(Exit::Code(1), said),
            "terraform apply failed with exit code 1: Invalid reference; the log says where"
        );
        assert_eq!(message(Exit::Code(3), ""), "terraform apply failed with exit code 3; the log says why");
        assert_eq!(message(Exit::Signal(9), LOCKED), "terraform apply was ended by SIGKILL (signal 9)");
        assert_eq!(message(Exit::TimedOut, ""), "the time of terraform apply ran out");
    }
}
