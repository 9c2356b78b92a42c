//! Makes a result fit through the door: what is long belongs into the log, and a daemon takes no result that is longer than it says.
//!
//! How the attempt ended is never given up for it: an end that nobody takes would be a lost task.

use forge_api::{AttemptResult, RESULT_REASON_BYTES_MAX, RESULT_SUMMARY_BYTES_MAX};
use serde_json::{Value, json};

/// The most bytes of what is kept for people of something that is too long.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The most bytes of each part of a reason that says what was left out.
const SHORT_BYTES_MAX: usize = 1024;

/// The field of a summary that people read.
const TEXT: &str = "text";

/// The reason, cut where it is too long.
pub(crate) fn reason(text: String) -> String {
    cut(text, RESULT_REASON_BYTES_MAX)
}

/// The summary, or what is kept of one that is too long and words about the rest.
pub(crate) fn summary(summary: Value) -> (Option<Value>, Option<String>) {
    let bytes = summary.to_string().len();
    if bytes <= RESULT_SUMMARY_BYTES_MAX {
        return (Some(summary), None);
    }
    let left_out = format!("{bytes} bytes; at most {RESULT_SUMMARY_BYTES_MAX} are kept");
    let words = format!("the summary of this attempt is left out: {left_out}");
    let text = summary.get(TEXT).and_then(Value::as_str).unwrap_or_default();
    let text = cut(text.to_owned(), TEXT_BYTES_MAX);
    (Some(json!({ TEXT: text, "output_left_out": left_out })), Some(words))
}

/// The same end in as few bytes as it takes, where `why` the whole of it was not taken.
pub(crate) fn reduced(result: &AttemptResult, why: &str) -> AttemptResult {
    let why = cut(why.to_owned(), SHORT_BYTES_MAX);
    let without = format!("its result was handed in without summary and details: {why}");
    let reason = match &result.reason {
        Some(reason) => format!("{}; {without}", cut(reason.clone(), SHORT_BYTES_MAX)),
        None => without,
    };
    AttemptResult { reason: Some(reason), summary: None, ..result.clone() }
}

/// The same end, with a word about a log that does not get through.
pub(crate) fn without_its_log(result: &AttemptResult, why: &str) -> AttemptResult {
    let without = format!("the rest of its log does not get through: {}", cut(why.to_owned(), SHORT_BYTES_MAX));
    let room = RESULT_REASON_BYTES_MAX - without.len() - 2;
    let reason = match &result.reason {
        Some(reason) => format!("{}; {without}", cut(reason.clone(), room)),
        None => without,
    };
    AttemptResult { reason: Some(reason), ..result.clone() }
}

/// `text`, or as much of its beginning as leaves room to say that it was cut.
fn cut(mut text: String, bytes_max: usize) -> String {
    const CUT: &str = " [...]";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - CUT.len()));
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use forge_api::AttemptOutcome;

    use super::*;

    fn result(reason: Option<String>) -> AttemptResult {
        AttemptResult {
            outcome: AttemptOutcome::Failed,
            reason,
            exit_code: Some(3),
            summary: Some(json!({ TEXT: "all" })),
            commit: None,
            log_length: 7,
            log_sha256: "00".to_owned(),
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: false,
        }
    }

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_between_characters() {
        assert_eq!(reason("short".to_owned()), "short");
        let long = reason("é".repeat(RESULT_REASON_BYTES_MAX));
        assert!(long.len() <= RESULT_REASON_BYTES_MAX && long.ends_with("é [...]"), "{}", long.len());
        let small = json!({ TEXT: "two hosts", "hosts": 2 });
        assert_eq!(summary(small.clone()), (Some(small), None));
    }

    #[test]
    fn a_summary_that_is_too_long_keeps_its_text_and_says_so() {
        let hosts = "h".repeat(RESULT_SUMMARY_BYTES_MAX);
        let bytes = hosts.len() + r#"{"hosts":"","text":"two hosts"}"#.len();
        let (kept, words) = summary(json!({ TEXT: "two hosts", "hosts": hosts }));
        let left_out = format!("{bytes} bytes; at most {RESULT_SUMMARY_BYTES_MAX} are kept");
        assert_eq!(kept, Some(json!({ TEXT: "two hosts", "output_left_out": left_out })));
        assert!(words.is_some_and(|words| words.contains(&left_out)));
        let (kept, _) = summary(json!({ TEXT: "x".repeat(RESULT_SUMMARY_BYTES_MAX) }));
        assert!(kept.is_some_and(|kept| kept.to_string().len() <= TEXT_BYTES_MAX + 100));
    }

    #[test]
    fn a_reduced_result_ends_the_same_and_says_why_it_is_short() {
        let long = "n".repeat(RESULT_REASON_BYTES_MAX);
        let short = reduced(&result(Some(long.clone())), "a proxy takes no body of this length");
        let AttemptResult { outcome, exit_code, summary, log_length, .. } = short.clone();
        assert_eq!((outcome, exit_code, summary, log_length), (AttemptOutcome::Failed, Some(3), None, 7));
        let reason = short.reason.expect("a reason");
        assert!(reason.len() < 3 * SHORT_BYTES_MAX && reason.contains("a proxy takes no body"), "{reason}");
        let without = without_its_log(&result(Some(long)), "no").reason.expect("a reason");
        assert!(without.len() <= RESULT_REASON_BYTES_MAX && without.ends_with("does not get through: no"));
    }
}
