//! One text that someone wrote, the mistakes found in it, and which of its parts nobody may see.
//!
//! Checks note byte ranges; only [`Sheet::finish`] turns them into lines and columns, and blanks secrets while it does.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use crate::diagnostic::{Code, Diagnostic, Severity};

/// What stands in a drawn line in place of a secret and of everything after it.
const BLANK: &str = "***";

/// How many characters of a line are shown; a longer one is cut around the mistake.
const SOURCE_LINE_CHARS_MAX: usize = 200;

/// How many characters stay in view before the mistake when a line is cut.
const SOURCE_LINE_CHARS_BEFORE: usize = 80;

/// How many mistakes of one file are shown; the last one counts the rest.
const FINDINGS_PER_FILE_MAX: usize = 100;

/// A range of bytes in a sheet's own text (`source` 0) or in one of the environment variables that override it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) source: usize,
}

impl Span {
    /// The very beginning of the file: where a mistake stands that is about what is not there.
    pub(crate) const FILE: Self = Self { start: 0, end: 0, source: 0 };

    /// A range in the source numbered `source`.
    pub(crate) fn of(range: Range<usize>, source: usize) -> Self {
        Self { start: range.start, end: range.end, source }
    }

    /// Whether it lies in a variable of the environment and not in the file.
    pub(crate) const fn is_override(self) -> bool {
        self.source != 0
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// A mistake with its range, before it has a line and a column.
struct Finding {
    span: Span,
    code: Code,
    severity: Severity,
    message: String,
    hint: Option<String>,
}

/// A file's text with what was found in it.
pub(crate) struct Sheet {
    path: String,
    text: String,
    /// Names and texts of the environment variables that override keys; source 1 is the first.
    overrides: RefCell<Vec<(String, String)>>,
    findings: RefCell<Vec<Finding>>,
    secrets: RefCell<Vec<Span>>,
    /// Set when the text is no TOML and may hold secrets: then nobody knows where they are.
    blank_unknown: RefCell<Option<Vec<String>>>,
    /// The keys that stand at the top of such a file, before any `[table]`.
    top: Cell<&'static [&'static str]>,
}

impl Sheet {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            overrides: RefCell::default(),
            findings: RefCell::default(),
            secrets: RefCell::default(),
            blank_unknown: RefCell::default(),
            top: Cell::default(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Takes an environment variable as a further source and answers its number.
    pub(crate) fn add_override(&self, name: &str, text: &str) -> usize {
        let mut overrides = self.overrides.borrow_mut();
        overrides.push((name.to_owned(), text.to_owned()));
        overrides.len()
    }

    /// Says which keys stand at the top of such a file.
    pub(crate) fn set_top(&self, keys: &'static [&'static str]) {
        self.top.set(keys);
    }

    /// What to do with a key that a `[table]` does not have and the top of the file does: TOML takes whatever follows a header for the
    /// table's own.
    pub(crate) fn misplaced(&self, key: &str) -> Option<String> {
        let is_of_the_top = self.top.get().contains(&key);
        is_of_the_top.then(|| format!("`{key}` belongs to the top of the file: write it above the first `[table]`"))
    }

    /// Notes an error.
    pub(crate) fn error(&self, span: Span, code: Code, message: impl Into<String>, hint: Option<String>) {
        self.find(span, code, Severity::Error, message.into(), hint);
    }

    /// Notes a warning.
    pub(crate) fn warning(&self, span: Span, code: Code, message: impl Into<String>, hint: Option<String>) {
        self.find(span, code, Severity::Warning, message.into(), hint);
    }

    /// Notes what is worth knowing and no mistake.
    pub(crate) fn note(&self, span: Span, code: Code, message: impl Into<String>, hint: Option<String>) {
        self.find(span, code, Severity::Note, message.into(), hint);
    }

    fn find(&self, span: Span, code: Code, severity: Severity, message: String, hint: Option<String>) {
        self.findings.borrow_mut().push(Finding { span, code, severity, message, hint });
    }

    /// Says that this range holds a secret: it is never shown, whatever else is wrong on its lines.
    pub(crate) fn hide(&self, span: Span) {
        self.secrets.borrow_mut().push(span);
    }

    /// Whether a secret is known to stand somewhere in this range.
    pub(crate) fn is_hidden(&self, span: Span) -> bool {
        let overlaps =
            |secret: &Span| secret.source == span.source && secret.start < span.end && span.start < secret.end;
        self.secrets.borrow().iter().any(overlaps)
    }

    /// Says that the text may hold secrets anywhere: of each line only a leading key out of `known` is shown.
    pub(crate) fn hide_all_but_keys(&self, known: Vec<String>) {
        *self.blank_unknown.borrow_mut() = Some(known);
    }

    /// The findings with lines and columns, by position.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut findings = self.findings.take();
        // Errors come first where the number is limited: a warning never hides what keeps the tree from being applied.
        findings.sort_by_key(|finding| (finding.severity, finding.span.source, finding.span.start));
        let more = findings.len().saturating_sub(FINDINGS_PER_FILE_MAX);
        findings.truncate(FINDINGS_PER_FILE_MAX);
        if more > 0
            && let Some(last) = findings.last_mut()
        {
            last.message = format!("{} (and {more} more mistakes in this file)", last.message);
        }
        findings.sort_by_key(|finding| (finding.span.source, finding.span.start));
        findings.into_iter().map(|finding| self.place(finding)).collect()
    }

    fn place(&self, finding: Finding) -> Diagnostic {
        let overrides = self.overrides.borrow();
        let (file, text) = match finding.span.source.checked_sub(1).and_then(|index| overrides.get(index)) {
            Some((name, text)) => (name.as_str(), text.as_str()),
            None => (self.path.as_str(), self.text.as_str()),
        };
        let start = text.floor_char_boundary(finding.span.start);
        let end = text.floor_char_boundary(finding.span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[line_start..].find('\n').map_or(text.len(), |at| line_start + at);
        let start = start.min(line_end);
        let column = text[line_start..start].chars().count() + 1;
        let whole = text[line_start..line_end].trim_end_matches('\r');
        let visible = self.visible_bytes(whole, line_start, finding.span.source);
        let shown = match visible < whole.len() {
            true => format!("{}{BLANK}", &whole[..visible]),
            false => whole.to_owned(),
        };
        let width = text[start..end.clamp(start, line_end)].chars().count();
        let shown_chars = shown.chars().count();
        // A caret that would stand behind the blank stands under its beginning.
        let blank_column = whole[..visible].chars().count() + 1;
        let at = if visible < whole.len() { column.min(blank_column) } else { column };
        let width = width.min((shown_chars + 1).saturating_sub(at)).max(1);
        let (source_line, source_column) = cut(&shown, at);
        Diagnostic {
            file: file.to_owned(),
            line: clamped(text[..line_start].matches('\n').count() + 1),
            column: clamped(column),
            code: finding.code,
            severity: finding.severity,
            message: finding.message,
            hint: finding.hint,
            source_line,
            source_column: clamped(source_column),
            span_width: clamped(width.min(SOURCE_LINE_CHARS_MAX)),
        }
    }

    /// How many bytes of a line may be shown: up to the first secret on it.
    fn visible_bytes(&self, line: &str, line_start: usize, source: usize) -> usize {
        let line_end = line_start + line.len();
        let first_secret = self
            .secrets
            .borrow()
            .iter()
            .filter(|secret| secret.source == source && secret.start < line_end && secret.end > line_start)
            .map(|secret| secret.start.saturating_sub(line_start))
            .min()
            .unwrap_or(line.len());
        let first_secret = line.floor_char_boundary(first_secret).min(url_password(line).unwrap_or(line.len()));
        match &*self.blank_unknown.borrow() {
            Some(known) if source == 0 => first_secret.min(leading_key_bytes(line, known)),
            _ => first_secret,
        }
    }
}

/// Where on a line the user and password of a URL begin (`https://me:password@host`), whatever key they stand under.
fn url_password(line: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = line[from..].find("://") {
        let start = from + at + 3;
        let authority = line[start..].split(['/', '"', '\'', ' ']).next().unwrap_or_default();
        if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
            return Some(start);
        }
        from = start;
    }
    None
}

/// How far a line of a file that is no TOML may be shown: to the `=` behind a known key, or to the end of a known section's header.
fn leading_key_bytes(line: &str, known: &[String]) -> usize {
    let is_known = |key: &str| known.iter().any(|known| known == key.trim());
    if let Some((key, _)) = line.split_once('=')
        && is_known(key)
    {
        let value = &line[key.len() + 1..];
        return line.len() - value.trim_start().len();
    }
    match line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(section) if section.split('.').all(is_known) => line.len(),
        _ if is_known(line) => line.len(),
        _ => 0,
    }
}

/// A long line cut around `column`, and where the column stands in what is left.
fn cut(line: &str, column: usize) -> (String, usize) {
    if line.chars().count() <= SOURCE_LINE_CHARS_MAX {
        return (line.to_owned(), column);
    }
    let skipped = column.saturating_sub(SOURCE_LINE_CHARS_BEFORE);
    let mut shown: String = line.chars().skip(skipped).take(SOURCE_LINE_CHARS_MAX).collect();
    if skipped + SOURCE_LINE_CHARS_MAX < line.chars().count() {
        shown.push('…');
    }
    match skipped {
        0 => (shown, column),
        _ => (format!("…{shown}"), column - skipped + 1),
    }
}

/// No file that Forge takes has so many lines or columns; a number that large says no more than the largest.
fn clamped(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Colour;

    fn one(sheet: Sheet) -> Diagnostic {
        sheet.finish().pop().expect("one finding")
    }

    #[test]
    fn columns_count_characters_from_one() {
        let sheet = Sheet::new("a.toml", "x = 1\n\"ü\" = 2\r\n");
        sheet.error(Span { start: 13, end: 14, source: 0 }, Code::BadValue, "no", None);
        let found = one(sheet);
        assert_eq!((found.line, found.column, found.source_line.as_str()), (2, 7, "\"ü\" = 2"));
    }

    #[test]
    fn a_secret_is_blanked_with_all_that_follows_it() {
        let text = "password = \"hunter2\" # hunter2\n";
        let sheet = Sheet::new("a.toml", text);
        sheet.hide(Span { start: 11, end: 20, source: 0 });
        sheet.error(Span { start: 23, end: 30, source: 0 }, Code::Syntax, "no", None);
        let found = one(sheet);
        assert_eq!((found.source_line.as_str(), found.source_column, found.column), ("password = ***", 12, 24));
    }

    #[test]
    fn of_a_broken_file_with_secrets_only_known_keys_are_shown() {
        let known = ["password".to_owned(), "secrets".to_owned()];
        for (line, shown) in [
            ("password = \"hunter2", "password = "),
            ("[secrets]", "[secrets]"),
            ("aHVudGVyMg==", ""),
            ("  hunter2", ""),
            ("[hunter2]", ""),
        ] {
            assert_eq!(&line[..leading_key_bytes(line, &known)], shown, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_span_in_any_text_is_placed(text in "(?s).{0,400}", start in 0..500usize, length in 0..500usize, secret in 0..500usize) {
            let sheet = Sheet::new("a.toml", text);
            sheet.hide(Span { start: secret, end: secret + 3, source: 0 });
            sheet.error(Span { start, end: start + length, source: 0 }, Code::Syntax, "no", None);
            let found = one(sheet);
            prop_assert!(found.line >= 1 && found.column >= 1 && found.span_width >= 1);
            let _ = found.draw(Colour::Never);
        }
    }
}
