//! Keeps secrets out of a log while it streams. Pure: bytes in, bytes out.
//!
//! A byte is masked when it lies in any occurrence of any form of any secret; each run of masked bytes becomes [`MASK`]. That
//! does not depend on how the stream is cut, so neither does the output. What is held back between two calls is only the
//! longest end of the stream that may still grow into an occurrence: output without secrets is never late.
//!
//! The forms of a secret: itself; each line of it; its base64 at the three alignments in both alphabets, and as the
//! `base64` tool and PEM wrap it; escaped as in JSON, in URLs and as the shell's `set -x` shows it. Values shorter than
//! [`SECRET_BYTES_MIN`] are not masked: they occur everywhere by chance, and hiding them would show them. Forms that only
//! an attacker would choose (reversed, compressed, encrypted) pass: a job that may use a secret may also leak it.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in the log for a secret.
pub(crate) const MASK: &[u8] = b"[masked]";

/// The shortest value that is masked, in bytes.
pub(crate) const SECRET_BYTES_MIN: usize = 4;

/// The shortest value of which encoded forms are masked, in bytes: below it they occur by chance.
const ENCODED_SECRET_BYTES_MIN: usize = 6;

/// The shortest line of a secret of many lines that is masked by itself, in bytes.
const LINE_BYTES_MIN: usize = 6;

/// Where the `base64` tool and PEM break lines.
const WRAP_COLUMNS: [usize; 2] = [76, 64];

/// The narrowest lines that base64 is expected to be wrapped into.
const WRAP_COLUMNS_MIN: usize = 60;

/// How many characters a group of base64 has: three bytes.
const BASE64_GROUP: usize = 4;

/// How many characters of base64 are known for a part of a long secret: twelve bytes of it, which do not occur by chance.
const WINDOW_CHARS: usize = 16;

/// From how many bytes on a stream is worth an automaton that takes milliseconds to build and searches faster.
const LONG_BYTES_MIN: u64 = 256 * 1024;

/// The longest secret that is looked for by windows, in bytes: private keys are shorter, and each byte costs a form.
const WINDOWED_SECRET_BYTES_MAX: usize = 16 * 1024;

/// The masks of one attempt's output.
pub(crate) struct Masker {
    search: Option<Arc<Search>>,
    /// The end of the stream that is not yet given out.
    held: Vec<u8>,
    /// How much of `held`, from its start, is known to be masked.
    held_masked: usize,
    /// Whether the last thing given out was a mask, which a masked byte that follows at once belongs to.
    after_mask: bool,
    /// How much has been searched, in bytes.
    searched: u64,
}

struct Search {
    /// Faster than the list, and slow to build: for long streams only, see [`Masker::quicken`].
    automaton: Option<AhoCorasick>,
    /// Sorted. Each has two bytes at least.
    forms: Vec<Vec<u8>>,
    longest: usize,
    pairs: Pairs,
}

/// Which pairs of bytes begin a form, a bit for each: a look here spares nearly every search among the forms.
#[derive(Clone)]
struct Pairs(Vec<u64>);

impl Pairs {
    fn of(forms: &[Vec<u8>]) -> Self {
        let mut words = vec![0; (1 << 16) / 64];
        for form in forms {
            if let [first, second, ..] = form.as_slice() {
                let (word, bit) = Self::place(*first, *second);
                if let Some(word) = words.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        Self(words)
    }

    fn place(first: u8, second: u8) -> (usize, u64) {
        (usize::from(first) << 2 | usize::from(second >> 6), 1 << (second & 63))
    }

    fn has(&self, first: u8, second: u8) -> bool {
        let (word, bit) = Self::place(first, second);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Masker {
    /// A masker for `secrets`.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            collect_forms(secret, &mut forms);
        }
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        let search = (!forms.is_empty()).then(|| {
            let pairs = Pairs::of(&forms);
            Arc::new(Search { automaton: None, forms, longest, pairs })
        });
        Self { search, held: Vec::new(), held_masked: 0, after_mask: false, searched: 0 }
    }

    /// A masker of the same secrets for another stream.
    pub(crate) fn another(&self) -> Self {
        Self { search: self.search.clone(), held: Vec::new(), held_masked: 0, after_mask: false, searched: 0 }
    }

    /// Builds the automaton that is made for long streams.
    fn quicken(&mut self) {
        let Some(search) = self.search.as_ref().filter(|search| search.automaton.is_none()) else { return };
        let Search { forms, longest, pairs, .. } = search.as_ref();
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::Standard).kind(Some(AhoCorasickKind::DFA));
        // One that is too large to be built only keeps this stream slower.
        let Ok(automaton) = builder.build(forms) else { return };
        let (forms, pairs) = (forms.clone(), pairs.clone());
        self.search = Some(Arc::new(Search { automaton: Some(automaton), forms, longest: *longest, pairs }));
    }

    /// Takes the next bytes of the stream and appends what is certain to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let before = self.searched;
        self.searched += bytes.len() as u64;
        if before < LONG_BYTES_MIN && self.searched >= LONG_BYTES_MIN {
            self.quicken();
        }
        let Some(search) = &self.search else {
            out.extend_from_slice(bytes);
            return;
        };
        let mut buffer = std::mem::take(&mut self.held);
        let spans;
        let keep_from;
        {
            // Most chunks begin with nothing held: then they are searched where they lie.
            let view: &[u8] = if buffer.is_empty() {
                bytes
            } else {
                buffer.extend_from_slice(bytes);
                &buffer
            };
            spans = search.spans(view, self.held_masked);
            keep_from = search.open_end(view);
            emit(view, &spans, keep_from, &mut self.after_mask, out);
            // A span that begins in what is held is found again; only one that reaches into it must be remembered.
            let reaching = spans.iter().find(|span| (span.0 < keep_from || span.0 == 0) && span.1 > keep_from);
            self.held_masked = reaching.map_or(0, |span| span.1 - keep_from);
            self.held = view.get(keep_from..).unwrap_or_default().to_vec();
        }
    }

    /// Gives out what is held: nothing follows that it could grow with.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        // What is held may contain whole secrets of its own: one that is the beginning of a longer one ends here.
        let spans = self.search.as_ref().map_or_else(Vec::new, |search| search.spans(&held, self.held_masked));
        emit(&held, &spans, held.len(), &mut self.after_mask, out);
        self.held_masked = 0;
        self.after_mask = false;
    }
}

impl Search {
    /// The masked spans of `view`, in order, without overlaps; its first `masked` bytes are masked already.
    fn spans(&self, view: &[u8], masked: usize) -> Vec<(usize, usize)> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        if masked > 0 {
            spans.push((0, masked));
        }
        let Some(automaton) = &self.automaton else {
            self.add_listed(view, &mut spans);
            return spans;
        };
        // Matches come in the order of their ends, so a later one may swallow several earlier ones.
        for found in automaton.find_overlapping_iter(view) {
            let mut span = (found.start(), found.end());
            while let Some(last) = spans.last().copied() {
                if last.1 < span.0 {
                    break;
                }
                span = (span.0.min(last.0), span.1.max(last.1));
                spans.pop();
            }
            spans.push(span);
        }
        spans
    }

    /// The same as the automaton finds, by the list of forms. Nothing has to be built for it, which would take longer than most jobs' whole
    /// output to search.
    fn add_listed(&self, view: &[u8], spans: &mut Vec<(usize, usize)>) {
        for (start, pair) in view.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            if !self.pairs.has(*first, *second) {
                continue;
            }
            let Some(length) = self.longest_at(view.get(start..).unwrap_or_default()) else { continue };
            let end = start + length;
            match spans.last_mut().filter(|last| last.1 >= start) {
                Some(last) => last.1 = last.1.max(end),
                None => spans.push((start, end)),
            }
        }
    }

    /// How long the longest form is that `text` begins with.
    fn longest_at(&self, text: &[u8]) -> Option<usize> {
        let mut text = text;
        loop {
            // What `text` begins with is not after it in the sorted list.
            let upto = self.forms.partition_point(|form| form.as_slice() <= text);
            let form = self.forms.get(upto.checked_sub(1)?)?;
            let same = form.iter().zip(text).take_while(|(one, other)| one == other).count();
            if same == form.len() {
                return Some(same);
            }
            // A form between that one and `text` would begin with more of it: what is left to find is within what both share.
            text = text.get(..same)?;
        }
    }

    /// Where the longest end of `view` begins that is the beginning of a form and not a whole one.
    fn open_end(&self, view: &[u8]) -> usize {
        let first = view.len().saturating_sub(self.longest.saturating_sub(1));
        (first..view.len())
            .find(|start| {
                let end = view.get(*start..).unwrap_or_default();
                if let [first, second, ..] = end
                    && !self.pairs.has(*first, *second)
                {
                    return false;
                }
                // The forms that begin with `end` follow it in the sorted list; the first longer one decides.
                let from = self.forms.partition_point(|form| form.as_slice() <= end);
                self.forms.get(from).is_some_and(|form| form.starts_with(end))
            })
            .unwrap_or(view.len())
    }
}

/// Appends `view` up to `end` to `out`, each masked span as one mask.
fn emit(view: &[u8], spans: &[(usize, usize)], end: usize, after_mask: &mut bool, out: &mut Vec<u8>) {
    let mut at = 0;
    for (start, stop) in spans.iter().copied() {
        let start = start.min(end);
        let stop = stop.min(end);
        if at < start {
            out.extend_from_slice(view.get(at..start).unwrap_or_default());
            *after_mask = false;
        }
        if start < stop && !*after_mask {
            out.extend_from_slice(MASK);
            *after_mask = true;
        }
        at = at.max(stop);
    }
    if at < end {
        out.extend_from_slice(view.get(at..end).unwrap_or_default());
        *after_mask = false;
    }
}

/// Every form of `secret` that is worth masking.
fn collect_forms(secret: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let trimmed = secret.trim();
    for value in [secret, trimmed] {
        if value.len() >= SECRET_BYTES_MIN {
            forms.insert(value.as_bytes().to_vec());
        }
        if value.len() >= ENCODED_SECRET_BYTES_MIN {
            collect_encoded(value, forms);
        }
    }
    if trimmed.contains('\n') {
        // The armour of a PEM block is no secret and would mask other blocks.
        let lines =
            trimmed.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with("-----"));
        for line in lines {
            forms.insert(line.as_bytes().to_vec());
            collect_escaped(line, forms);
        }
    }
}

fn collect_encoded(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    collect_escaped(value, forms);
    for alignment in 0..3_usize {
        let mut bytes = vec![0; alignment];
        bytes.extend_from_slice(value.as_bytes());
        // Characters that also depend on the neighbours of the secret are left out at both ends.
        let skip = [0, 2, 3].get(alignment).copied().unwrap_or(0);
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            let until = if bytes.len() % 3 == 0 { text.len() } else { text.len() - 1 };
            if let Some(core) = text.get(skip..until).filter(|core| core.len() >= ENCODED_SECRET_BYTES_MIN) {
                forms.insert(core.as_bytes().to_vec());
                if value.len() <= WINDOWED_SECRET_BYTES_MAX {
                    collect_windows(&text, skip, until, forms);
                } else if alignment == 0 {
                    collect_wrapped(core, forms);
                }
            }
        }
    }
}

/// Base64 that is wrapped at any column, whatever stands before the secret: tools break lines between groups of four
/// characters, so each line of a form begins with a window and consists of windows that overlap.
fn collect_windows(text: &str, skip: usize, until: usize, forms: &mut BTreeSet<Vec<u8>>) {
    if until - skip <= WRAP_COLUMNS_MIN {
        return;
    }
    let mut add = |from: usize, to: usize| forms.extend(text.get(from..to).map(|part| part.as_bytes().to_vec()));
    for from in (0..until).step_by(BASE64_GROUP).filter(|from| from + WINDOW_CHARS <= until) {
        add(from.max(skip), from + WINDOW_CHARS);
    }
    // A last line may be shorter than a window.
    let last_group = until - until % BASE64_GROUP;
    for groups in 1..WINDOW_CHARS / BASE64_GROUP {
        let from = last_group - groups * BASE64_GROUP;
        if until - from >= ENCODED_SECRET_BYTES_MIN {
            add(from, until);
        }
    }
}

/// The lines of base64 that is wrapped, of a secret that is too long for windows; the tools begin at alignment 0.
fn collect_wrapped(core: &str, forms: &mut BTreeSet<Vec<u8>>) {
    for columns in WRAP_COLUMNS {
        if core.len() > columns {
            let lines = core.as_bytes().chunks(columns).filter(|line| line.len() >= ENCODED_SECRET_BYTES_MIN);
            forms.extend(lines.map(<[u8]>::to_vec));
        }
    }
}

fn collect_escaped(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    if let Ok(quoted) = serde_json::to_string(value) {
        let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
        forms.insert(inside.as_bytes().to_vec());
        forms.insert(ascii_json(inside).into_bytes());
    }
    for upper in [true, false] {
        let percent = percent_encoded(value, upper);
        forms.insert(percent.replace("%20", "+").into_bytes());
        forms.insert(percent.into_bytes());
    }
    if value.contains('\'') {
        forms.insert(value.replace('\'', r"'\''").into_bytes());
    }
}

/// JSON as Python writes it: nothing beyond ASCII.
fn ascii_json(inside: &str) -> String {
    use std::fmt::Write as _;
    inside.chars().fold(String::new(), |mut text, letter| {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        text
    })
}

fn percent_encoded(value: &str, upper: bool) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = if upper { write!(text, "%{byte:02X}") } else { write!(text, "%{byte:02x}") };
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secrets: &[&str], chunks: &[&[u8]]) -> String {
        let mut masker = Masker::new(secrets.iter().copied());
        let mut out = Vec::new();
        for chunk in chunks {
            masker.push(chunk, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn every_form_is_masked() {
        let secret = "pa$$ wörd\"'x/9";
        let forms: Vec<String> = vec![
            secret.to_owned(),
            STANDARD_NO_PAD.encode(secret),
            serde_json::to_string(secret).expect("json"),
            "pa%24%24%20w%C3%B6rd%22%27x%2F9".to_owned(),
            "pa%24%24+w%c3%b6rd%22%27x%2f9".to_owned(),
            "pa$$ w\\u00f6rd\\\"'x/9".to_owned(),
            "pa$$ wörd\"'\\''x/9".to_owned(),
        ];
        for form in forms {
            let out = mask(&[secret], &[format!("before {form} after").as_bytes()]);
            assert!(out.starts_with("before ") && out.ends_with(" after"), "{out}");
            assert!(out.contains("[masked]"), "{form}: {out}");
        }
        for around in ["", "a", "ab", "abc"] {
            let hidden = STANDARD_NO_PAD.encode(format!("{around}{secret}{around}"));
            let out = mask(&[secret], &[hidden.as_bytes()]);
            assert!(out.contains("[masked]") && out.len() < 24, "{hidden}: {out}");
        }
    }

    #[test]
    fn lines_of_a_long_secret_are_masked_and_wrapped_base64_too() {
        let key: String = (0..8).map(|line| format!("line-{line}-{}\n", "k".repeat(40))).collect();
        assert_eq!(mask(&[&key], &[b"x line-3-kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk y"]), "x [masked] y");
        let encoded = STANDARD_NO_PAD.encode(&key);
        for columns in WRAP_COLUMNS {
            let wrapped: Vec<&str> =
                encoded.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).expect("ascii")).collect();
            let out = mask(&[&key], &[wrapped.join("\n").as_bytes()]);
            let (whole, _rest) = out.rsplit_once('\n').expect("many lines");
            assert!(whole.lines().all(|line| line == "[masked]"), "{out}");
        }
    }

    #[test]
    fn only_a_true_beginning_is_held() {
        let mut masker = Masker::new(["secret-one"]);
        let mut out = Vec::new();
        masker.push(b"hello sec", &mut out);
        assert_eq!(out, b"hello ");
        masker.push(b"ond", &mut out);
        assert_eq!(out, b"hello second");
        masker.push(b" secret-", &mut out);
        masker.push(b"one!", &mut out);
        assert_eq!(out, b"hello second [masked]!");
    }

    #[test]
    fn overlapping_secrets_leave_no_rest() {
        assert_eq!(mask(&["abcdef", "defghi"], &[b"abcdefghi"]), "[masked]");
        assert_eq!(mask(&["abcdef", "defghi"], &[b"abcdef", b"ghi."]), "[masked].");
        assert_eq!(mask(&["abcd"], &[b"abcdabcd abcd"]), "[masked] [masked]");
        assert_eq!(mask(&["bcde", "abcdefgh"], &[b"xabcdefgx"]), "xa[masked]fgx");
    }

    #[test]
    fn a_secret_at_the_end_that_could_have_grown_into_another_is_masked() {
        assert_eq!(mask(&["abab", "ababa"], &[b"aabab"]), "a[masked]");
        assert_eq!(mask(&["token", "token-of-another"], &[b"the tok", b"en"]), "the [masked]");
        assert_eq!(mask(&["inner", "an inner part"], &[b"x an inner"]), "x an [masked]");
    }

    #[test]
    fn a_long_stream_is_masked_like_a_short_one() {
        let mut masker = Masker::new(["a-secret"]);
        let piece = [b"x".repeat(100_000), b" a-sec".to_vec()].concat();
        let mut out = Vec::new();
        for _ in 0..4 {
            masker.push(&piece, &mut out);
            masker.push(b"ret ", &mut out);
        }
        masker.finish(&mut out);
        assert!(masker.search.is_some_and(|search| search.automaton.is_some()));
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.replace('x', ""), " [masked]  [masked]  [masked]  [masked] ");
        assert_eq!(text.matches('x').count(), 400_000);
    }

    #[test]
    fn short_values_are_not_masked() {
        assert_eq!(mask(&["abc", ""], &[b"abc abc"]), "abc abc");
    }

    /// A text of the shape of a private key, different in each line.
    fn long_key() -> String {
        let line = |number: usize| -> String {
            (0..70_usize)
                .map(|at| char::from(b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789"[(number * 31 + at * at * 7 + at) % 32]))
                .collect()
        };
        let lines: Vec<String> = (0..5).map(line).collect();
        format!("-----BEGIN TEST PRIVATE KEY-----\n{}\n-----END TEST PRIVATE KEY-----", lines.join("\n"))
    }

    proptest! {
        #[test]
        fn the_list_finds_what_the_automaton_finds(
            secrets in prop::collection::vec("[ab]{4,9}", 1..6),
            text in "[abc]{0,80}",
            masked in 0_usize..5,
        ) {
            let by_list = Masker::new(secrets.iter().map(String::as_str));
            let mut by_automaton = by_list.another();
            by_automaton.quicken();
            let spans = |masker: &Masker| {
                masker.search.as_ref().expect("there are secrets").spans(text.as_bytes(), masked.min(text.len()))
            };
            prop_assert_eq!(spans(&by_list), spans(&by_automaton));
        }

        #[test]
        fn wrapped_base64_of_a_key_is_masked_at_every_alignment_column_and_cut(
            before in "[a-z]{0,130}",
            after in "[a-z]{0,70}",
            columns in prop::sample::select(vec![60_usize, 64, 72, 76]),
            chunk in 1_usize..90,
        ) {
            let key = long_key();
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{key}{after}"));
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(columns)
                .map(|line| std::str::from_utf8(line).expect("ascii"))
                .collect();
            let text = lines.join("\n");
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(chunk).collect();
            let out = mask(&[&key], &chunks);
            // Nothing of the key is left that is longer than what depends on its neighbours: 12 of its characters in base64.
            for alignment in 0..3 {
                let whole = STANDARD_NO_PAD.encode(format!("{}{key}", &"xx"[..alignment]));
                for start in 4..whole.len() - 20 {
                    let part = &whole[start..start + 12];
                    prop_assert!(!out.contains(part), "{} of the key in\n{}", part, out);
                }
            }
        }

        #[test]
        fn every_form_of_a_key_is_masked_however_it_is_cut(
            form in 0_usize..6,
            chunk in 1_usize..90,
            padding in "[a-z]{0,40}",
        ) {
            let key = format!("{}\nwith \"quotes\" & more: 100%", long_key());
            let text = match form {
                0 => key.clone(),
                1 => serde_json::to_string(&key).expect("json"),
                2 => percent_encoded(&key, true),
                3 => percent_encoded(&key, false).replace("%20", "+"),
                4 => STANDARD_NO_PAD.encode(format!("{padding}{key}")),
                _ => URL_SAFE_NO_PAD.encode(format!("{padding}{key}")),
            };
            let text = format!("{padding} {text} {padding}");
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(chunk).collect();
            let out = mask(&[&key], &chunks);
            prop_assert!(out.contains("[masked]"), "{}", out);
            // What is left: the padding twice, its base64, and the mask.
            prop_assert!(out.len() <= 2 * padding.len() + padding.len() * 4 / 3 + 24, "{}", out);
        }

        #[test]
        fn any_cut_gives_the_same_and_never_a_secret(
            secrets in prop::collection::vec("[ab]{4,7}", 1..4),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(0_usize..60, 0..12),
        ) {
            let names: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let whole = mask(&names, &[text.as_bytes()]);
            let mut places: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            places.sort_unstable();
            let mut chunks = Vec::new();
            let mut at = 0;
            for place in places {
                chunks.push(&text.as_bytes()[at..place]);
                at = place;
            }
            chunks.push(&text.as_bytes()[at..]);
            let cut = mask(&names, &chunks);
            prop_assert_eq!(&cut, &whole);
            for part in cut.split("[masked]") {
                for name in &names {
                    prop_assert!(!part.contains(name), "{} in {}", name, part);
                }
            }
        }
    }
}
