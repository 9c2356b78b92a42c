//! Secrets that stand in a file in clear, wherever it is: private keys and tokens that say by their own form what they are.
//!
//! Only forms that nothing else has count, in full length: a false alarm would keep a good tree from being applied.

use std::sync::LazyLock;

use regex::Regex;

use crate::diagnostic::Code;
use crate::written::sheet::{Sheet, Span};

/// Each form and what it is.
const FORMS: &[(&str, &str)] = &[
    (r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\n)*[A-Za-z0-9+/=]{32,}", "a private key"),
    (r"AGE-SECRET-KEY-1[0-9A-Z]{58}", "an age identity"),
    (r"\bforge_(?:access|registration|runner|attempt)_[A-Za-z0-9_-]{43}", "a token of Forge"),
    (r"\bgh[pousr]_[A-Za-z0-9]{36}\b", "a token of GitHub"),
    (r"\bgithub_pat_[A-Za-z0-9_]{60,}", "a token of GitHub"),
    (r"\bglpat-[A-Za-z0-9_-]{20,}", "a token of GitLab"),
    (r"\bxox[abprs]-[A-Za-z0-9-]{24,}", "a token of Slack"),
];

/// The forms as expressions. One that is none finds nothing; a test tries each.
static FOUND_BY: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    FORMS.iter().filter_map(|(form, what)| Regex::new(form).ok().map(|expression| (expression, *what))).collect()
});

/// Notes each of them, and hides it. One under a key that takes a secret is noted by that key.
pub(crate) fn note_clear_secrets(sheet: &Sheet) {
    for (expression, what) in FOUND_BY.iter() {
        for found in expression.find_iter(sheet.text()) {
            let span = Span::of(found.range(), 0);
            if sheet.is_hidden(span) {
                continue;
            }
            sheet.hide(span);
            let hint = "take it out and replace it, since it is in git's history now; a job gets secrets from an environment's [secrets]";
            sheet.error(span, Code::PlainSecret, format!("{what} stands here in clear"), Some(hint.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let sheet = Sheet::new("a.toml", text);
        note_clear_secrets(&sheet);
        let found = sheet.finish();
        assert!(found.iter().all(|found| !found.source_line.contains("MIIE") && !found.source_line.contains("aaaa")));
        found.into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn every_form_is_found_in_full_length_only() {
        let key = "MIIE".repeat(10);
        for (text, what) in [
            (format!("k = \"\"\"\n-----BEGIN RSA PRIVATE KEY-----\n{key}\n\"\"\""), "a private key"),
            (format!("k = \"-----BEGIN PRIVATE KEY-----\\n{key}\""), "a private key"),
            (format!("# AGE-SECRET-KEY-1{}", "Q".repeat(58)), "an age identity"),
            (format!("a = \"forge_access_{}\"", "a".repeat(43)), "a token of Forge"),
            (format!("a = \"ghp_{}\"", "a".repeat(36)), "a token of GitHub"),
            (format!("a = \"github_pat_{}\"", "a".repeat(60)), "a token of GitHub"),
            (format!("a = \"glpat-{}\"", "a".repeat(20)), "a token of GitLab"),
            (format!("a = \"xoxb-{}\"", "a".repeat(24)), "a token of Slack"),
        ] {
            assert_eq!(messages(&text), [format!("{what} stands here in clear")], "{text}");
        }
        for harmless in [
            "script = \"grep -q -- '-----BEGIN PRIVATE KEY-----' key.pem\"",
            "a = \"forge_access_token\"",
            "a = \"ghp_short\"",
            "# AGE-SECRET-KEY-1... is what keygen prints",
        ] {
            assert_eq!(messages(harmless), Vec::<String>::new(), "{harmless}");
        }
        assert_eq!(FOUND_BY.len(), FORMS.len());
    }
}
