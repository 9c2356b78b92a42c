//! A task's log by its lines, for pages: what terminals would show, and where something is found.

use forge_api::{AttemptId, LOG_LINES_MAX, LogLines, LogMatches};
use regex::bytes::{Regex, RegexBuilder};

use super::{Core, CoreError, log_error};
pub use crate::logs::LinesWanted;
use crate::logs::{Attempts as _, Expectation};

/// The most bytes of what is searched for.
const PATTERN_BYTES_MAX: usize = 1_024;

/// The most memory that a compiled pattern takes, in bytes.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// What lines look like in which something went wrong: what Ansible, Terraform, Python, Rust, Go, npm, shells and compilers print, and
/// Forge's own lines that tell of a failure. `docs/reference/api.md` lists them.
const ERRORS: &str = r"(?:^|[^A-Za-z_])(?:fatal:|[Ee]rror:|ERROR|FAILED!|UNREACHABLE!|FATAL|panicked at|panic:|Traceback \(most|npm ERR!)|^\[forge\] .*(?:fail|cannot|could not|refused|timed out|killed)|[A-Za-z]+(?:Error|Exception): ";

/// What a search looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSearch {
    /// A text, in whatever case.
    Text(String),
    /// A regular expression.
    Pattern(String),
    /// Whatever looks like an error.
    Errors,
}

impl LogSearch {
    fn compile(&self) -> Result<Regex, CoreError> {
        let (pattern, any_case) = match self {
            Self::Text(text) => (regex::escape(text), true),
            Self::Pattern(pattern) => (pattern.clone(), false),
            Self::Errors => (ERRORS.to_owned(), false),
        };
        if let Self::Text(asked) | Self::Pattern(asked) = self
            && (asked.is_empty() || asked.len() > PATTERN_BYTES_MAX)
        {
            return Err(CoreError::Invalid {
                detail: format!("what is searched for has 1 to {PATTERN_BYTES_MAX} bytes"),
                hint: Some("send `text=`, `regex=` or `errors=true`".to_owned()),
            });
        }
        let compiled = RegexBuilder::new(&pattern).case_insensitive(any_case).size_limit(PATTERN_SIZE_MAX).build();
        compiled.map_err(|error| CoreError::Invalid {
            detail: format!("the regular expression is wrong: {error}"),
            hint: Some("it is read as Rust's `regex` does; `(?i)` at its beginning takes any case".to_owned()),
        })
    }
}

impl Core {
    /// Some lines of the log of a task's newest attempt, or of the one asked for.
    pub async fn log_lines(
        &self,
        number: u64,
        attempt: Option<u32>,
        wanted: LinesWanted,
    ) -> Result<LogLines, CoreError> {
        let (attempt, expectation) = self.look(number, attempt).await?;
        if attempt == 0 {
            return Ok(LogLines { complete: expectation == Expectation::Nothing, ..LogLines::default() });
        }
        let id = AttemptId { task: number, attempt };
        let window = self.inner.logs.lines(id, wanted).await;
        let window = window.map_err(|error| log_error(error, id))?;
        let bytes = self.inner.logs.length(id);
        Ok(LogLines {
            attempt,
            total: window.total,
            complete: expectation == Expectation::Nothing && window.covered == bytes,
            bytes,
            items: window.items,
        })
    }

    /// Lines of that log in which something is found, at most `limit`, from the number `from` on.
    pub async fn search_log(
        &self,
        number: u64,
        attempt: Option<u32>,
        search: &LogSearch,
        from: u64,
        limit: u32,
    ) -> Result<LogMatches, CoreError> {
        let pattern = search.compile()?;
        let (attempt, _expectation) = self.look(number, attempt).await?;
        if attempt == 0 {
            return Ok(LogMatches::default());
        }
        let id = AttemptId { task: number, attempt };
        let found = self.inner.logs.search(id, pattern, from, limit.clamp(1, LOG_LINES_MAX)).await;
        let found = found.map_err(|error| log_error(error, id))?;
        Ok(LogMatches { attempt, items: found.items, next_from: found.next_from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_tell_of_errors_are_known() {
        let errors = LogSearch::Errors.compile().expect("a pattern");
        for line in [
            "fatal: [web-1]: FAILED! => {\"changed\": false}",
            "fatal: repository 'x' does not exist",
            "│ Error: Invalid count argument",
            "main.c:3:1: error: expected ';'",
            "bash: line 3: error: nope",
            "thread 'main' panicked at src/main.rs:1:1",
            "panic: runtime error",
            "Traceback (most recent call last):",
            "ValueError: no such thing",
            "java.lang.IllegalStateException: no",
            "ERROR! the playbook could not be found",
            "npm ERR! code ENOENT",
            "[forge] the repository could not be fetched",
        ] {
            assert!(errors.is_match(line.as_bytes()), "{line}");
        }
        for line in [
            "ok: [web-1]",
            "0 errors",
            "terror: a film",
            "[forge] repository shop at 0123",
            "failed=0",
            "no error here",
        ] {
            assert!(!errors.is_match(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_text_is_no_pattern_and_a_wrong_pattern_is_told() {
        let text = LogSearch::Text("a.b(".to_owned()).compile().expect("a text");
        assert!(text.is_match(b"xA.B(") && !text.is_match(b"axb("));
        for wrong in ["(", "", &"x".repeat(2_000), "(?:a{1000}){1000}"] {
            assert!(
                matches!(LogSearch::Pattern(wrong.to_owned()).compile(), Err(CoreError::Invalid { .. })),
                "{wrong}"
            );
        }
    }
}
