//! What a terminal would show of one line: text with its look, from bytes that anybody may have written. Pure.
//!
//! Colours and emphasis (SGR) become names, and go on over lines. A carriage return and a backspace overwrite, as they do in a terminal, and
//! `erase in line` erases. Everything else that steers a terminal is dropped: titles, links (their text stays), the cursor, the screen,
//! what is to be sent back. A sequence that a line does not end is dropped with it, so that it swallows no other line.

use std::borrow::Cow;

use anstyle_parse::{DefaultCharAccumulator, Params, Parser, Perform};
use forge_api::{LOG_LINE_BYTES_MAX, LogSegment};
use memchr::{memchr, memchr3};

const ESCAPE: u8 = 0x1b;
const BACKSPACE: u8 = 0x08;

const BOLD: u8 = 1;
const DIM: u8 = 1 << 1;
const ITALIC: u8 = 1 << 2;
const UNDERLINE: u8 = 1 << 3;
const INVERSE: u8 = 1 << 4;
const STRIKE: u8 = 1 << 5;

const MARKS: [(u8, &str); 6] = [
    (BOLD, "bold"),
    (DIM, "dim"),
    (ITALIC, "italic"),
    (UNDERLINE, "underline"),
    (INVERSE, "inverse"),
    (STRIKE, "strike"),
];

/// The name of the look of the note that a line was cut.
const CUT: &str = "cut";

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    /// Of the 256.
    Palette(u8),
    /// Of all.
    True(u8, u8, u8),
}

/// How text looks from here on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    text: Option<Colour>,
    behind: Option<Colour>,
    marks: u8,
}

impl Style {
    /// What a line leaves for the next one. Only what is shown of a line counts.
    pub(super) fn carry(&mut self, line: &[u8]) {
        let line = shown(line);
        if memchr(ESCAPE, line).is_some() {
            run(line, &mut Carrier(self));
        }
    }

    fn names(self) -> Vec<String> {
        let Self { text, behind, marks } = self.turned();
        let marks = MARKS.into_iter().filter(|(mark, _)| marks & mark != 0).map(|(_, name)| name.to_owned());
        let colour = |prefix: &str, colour: Colour| match colour {
            Colour::Palette(number) => format!("{prefix}-{number}"),
            Colour::True(red, green, blue) => format!("{prefix}-{red:02x}{green:02x}{blue:02x}"),
        };
        let text = text.map(|found| colour("fg", found));
        let behind = behind.map(|found| colour("bg", found));
        marks.chain(text).chain(behind).collect()
    }

    /// With text and ground in the places that they are shown in: whoever shows a colour need not know of `inverse`.
    fn turned(self) -> Self {
        if self.marks & INVERSE == 0 || (self.text.is_none() && self.behind.is_none()) {
            return self;
        }
        Self { text: self.behind, behind: self.text, marks: self.marks & !INVERSE }
    }

    /// Select Graphic Rendition.
    fn select(&mut self, params: &Params) {
        let mut groups = params.iter();
        while let Some(group) = groups.next() {
            match group {
                [] | [0] => *self = Self::default(),
                [1] => self.marks |= BOLD,
                [2] => self.marks |= DIM,
                [3] => self.marks |= ITALIC,
                [4, 0] | [24] => self.marks &= !UNDERLINE,
                [4, ..] | [21] => self.marks |= UNDERLINE,
                [7] => self.marks |= INVERSE,
                [9] => self.marks |= STRIKE,
                [22] => self.marks &= !(BOLD | DIM),
                [23] => self.marks &= !ITALIC,
                [27] => self.marks &= !INVERSE,
                [29] => self.marks &= !STRIKE,
                [number @ 30..=37] => self.text = palette(number - 30),
                [number @ 90..=97] => self.text = palette(number - 90 + 8),
                [number @ 40..=47] => self.behind = palette(number - 40),
                [number @ 100..=107] => self.behind = palette(number - 100 + 8),
                [39] => self.text = None,
                [49] => self.behind = None,
                [38, inner @ ..] => self.text = extended(inner, &mut groups).or(self.text),
                [48, inner @ ..] => self.behind = extended(inner, &mut groups).or(self.behind),
                _unknown => {}
            }
        }
    }
}

fn palette(number: u16) -> Option<Colour> {
    u8::try_from(number).ok().map(Colour::Palette)
}

fn true_colour(red: u16, green: u16, blue: u16) -> Option<Colour> {
    let part = |number| u8::try_from(number).ok();
    Some(Colour::True(part(red)?, part(green)?, part(blue)?))
}

/// The colour that follows 38 or 48: with colons in the same group, with semicolons in the next ones.
fn extended<'a>(inner: &[u16], groups: &mut impl Iterator<Item = &'a [u16]>) -> Option<Colour> {
    match inner {
        [5, number] => palette(*number),
        [2, red, green, blue] | [2, _, red, green, blue, ..] => true_colour(*red, *green, *blue),
        [] => {
            let mut next = || groups.next().and_then(|group| group.first().copied());
            match next()? {
                5 => palette(next()?),
                2 => true_colour(next()?, next()?, next()?),
                _unknown => None,
            }
        }
        _unknown => None,
    }
}

/// Only follows the look.
struct Carrier<'a>(&'a mut Style);

impl Perform for Carrier<'_> {
    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _ignore: bool, action: u8) {
        if intermediates.is_empty() && action == b'm' {
            self.0.select(params);
        }
    }
}

/// One line of a terminal that is as wide as it has to be.
struct Screen {
    cells: Vec<(char, Style)>,
    column: usize,
    style: Style,
}

impl Screen {
    fn put(&mut self, letter: char) {
        match self.cells.get_mut(self.column) {
            Some(cell) => *cell = (letter, self.style),
            None => self.cells.push((letter, self.style)),
        }
        self.column += 1;
    }

    /// Erase in Line.
    fn erase(&mut self, part: u16) {
        match part {
            0 => self.cells.truncate(self.column),
            1 => self.cells.iter_mut().take(self.column + 1).for_each(|cell| *cell = (' ', Style::default())),
            2 => {
                // The cursor stays where it is.
                self.cells.clear();
                self.cells.resize(self.column, (' ', Style::default()));
            }
            _unknown => {}
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, letter: char) {
        if !letter.is_control() {
            self.put(letter);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.put('\t'),
            b'\r' => self.column = 0,
            BACKSPACE => self.column = self.column.saturating_sub(1),
            _other => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _ignore: bool, action: u8) {
        if !intermediates.is_empty() {
            return;
        }
        match action {
            b'm' => self.style.select(params),
            b'K' => self.erase(params.iter().next().and_then(|group| group.first().copied()).unwrap_or_default()),
            _other => {}
        }
    }
}

fn run(line: &[u8], performer: &mut impl Perform) {
    let mut parser = Parser::<DefaultCharAccumulator>::new();
    for byte in String::from_utf8_lossy(line).bytes() {
        parser.advance(performer, byte);
    }
}

/// What is shown of a line at all.
fn shown(line: &[u8]) -> &[u8] {
    line.get(..LOG_LINE_BYTES_MAX).unwrap_or(line)
}

fn screen(line: &[u8], style: Style) -> Screen {
    let mut screen = Screen { cells: Vec::new(), column: 0, style };
    run(shown(line), &mut screen);
    screen
}

/// The pieces of a line (without its end) whose look begins as `style`, which is left as the next line's. `length` is how many bytes the
/// line has: more than [`LOG_LINE_BYTES_MAX`] are told of and not shown.
pub(super) fn render(line: &[u8], length: u64, style: &mut Style) -> Vec<LogSegment> {
    let Screen { cells, column: _, style: after } = screen(line, *style);
    *style = after;
    let mut segments: Vec<LogSegment> = Vec::new();
    let mut look = None;
    for (letter, style) in cells {
        match segments.last_mut().filter(|_| look == Some(style)) {
            Some(segment) => segment.text.push(letter),
            None => segments.push(LogSegment { text: letter.to_string(), style: style.names() }),
        }
        look = Some(style);
    }
    let hidden = length.saturating_sub(u64::try_from(LOG_LINE_BYTES_MAX).unwrap_or(u64::MAX));
    if hidden > 0 {
        segments.push(LogSegment { text: format!("… {hidden} more bytes"), style: vec![CUT.to_owned()] });
    }
    segments
}

/// The text of a line without its look.
pub(super) fn plain(line: &[u8]) -> Cow<'_, str> {
    let line = shown(line);
    if memchr3(ESCAPE, b'\r', BACKSPACE, line).is_none() {
        return String::from_utf8_lossy(line);
    }
    Cow::Owned(screen(line, Style::default()).cells.into_iter().map(|(letter, _)| letter).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown_as(line: &[u8]) -> String {
        let segments = render(line, line.len() as u64, &mut Style::default());
        let drawn = segments.iter().map(|segment| match segment.style.as_slice() {
            [] => segment.text.clone(),
            style => format!("<{}>{}</>", style.join(" "), segment.text),
        });
        drawn.collect()
    }

    #[test]
    fn looks_become_names() {
        for (line, expected) in [
            ("plain", "plain"),
            ("\x1b[31mred\x1b[0m and not", "<fg-1>red</> and not"),
            (
                "\x1b[1;4;32;40mmany\x1b[22;24mfewer\x1b[39;49mnone",
                "<bold underline fg-2 bg-0>many</><fg-2 bg-0>fewer</>none",
            ),
            ("\x1b[91;107mbright", "<fg-9 bg-15>bright</>"),
            ("\x1b[38;5;208mof 256\x1b[m.", "<fg-208>of 256</>."),
            ("\x1b[38;2;255;128;0mtrue\x1b[48;2;0;0;1mboth", "<fg-ff8000>true</><fg-ff8000 bg-000001>both</>"),
            ("\x1b[38:5:9mcolons\x1b[38:2::1:2:3mand true", "<fg-9>colons</><fg-010203>and true</>"),
            ("\x1b[2;3;7;9mall\x1b[23;27;29mdim", "<dim italic inverse strike>all</><dim>dim</>"),
            ("\x1b[7;38;5;208mon orange\x1b[27mnot", "<bg-208>on orange</><fg-208>not</>"),
            ("\x1b[7;31;48;2;0;0;1mboth\x1b[39mone", "<fg-000001 bg-1>both</><fg-000001>one</>"),
            ("\x1b[4:3mcurly\x1b[4:0mnone", "<underline>curly</>none"),
            ("\x1b[38;5mhalf", "half"),
            ("\x1b[38;2;300;0;0mtoo much", "too much"),
            ("\x1b[38;9;1munknown", "<bold>unknown</>"),
            ("same\x1b[0m\x1b[0m look", "same look"),
        ] {
            assert_eq!(shown_as(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_dropped() {
        for (line, expected) in [
            ("\x1b]0;a title\x07text", "text"),
            ("\x1b]8;;javascript:alert(1)\x1b\\a link\x1b]8;;\x1b\\ after", "a link after"),
            ("\x1b]8;;https://example.com\x07a link\x1b]8;;\x07", "a link"),
            ("\x1b]52;c;ZXZpbA==\x07clipboard", "clipboard"),
            ("\x1b[2J\x1b[1;1Hscreen\x1b[6n", "screen"),
            ("\x1bPq#0;2;0;0;0\x1b\\picture", "picture"),
            ("\x1b[?1049h\x1b[?25lhidden", "hidden"),
            ("\x1bcreset\x1b(0", "reset"),
            ("bell\x07\x00\x0b\x0c!", "bell!"),
            ("never ended \x1b]8;;http://x", "never ended "),
            ("never ended \x1b[31", "never ended "),
            ("\u{9b}31mno C1\u{85}", "31mno C1"),
            ("del\x7feted", "deleted"),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ] {
            assert_eq!(shown_as(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_overwritten_is_gone() {
        for (line, expected) in [
            ("10%\r20%\r100%", "100%"),
            ("long text\rshort", "shorttext"),
            ("abc\x08\x08X", "aXc"),
            ("\x08\x08back", "back"),
            ("working...\r\x1b[Kdone", "done"),
            ("working...\x1b[2K\rdone", "done      "),
            ("ends with CR\r", "ends with CR"),
            ("\ttab", "\ttab"),
            ("\x1b[31mred\rgr\x1b[0m", "<fg-1>grd</>"),
        ] {
            assert_eq!(shown_as(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_marked_and_never_swallows_more() {
        assert_eq!(shown_as(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(shown_as(b"cut \xe2\x82"), "cut \u{fffd}");
        assert_eq!(shown_as("grüße 🎉".as_bytes()), "grüße 🎉");
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark_that_says_how_much_is_missing() {
        let line = vec![b'x'; LOG_LINE_BYTES_MAX];
        let segments = render(&line, 1_000_000, &mut Style::default());
        assert_eq!(segments[0].text.len(), LOG_LINE_BYTES_MAX);
        assert_eq!(
            (segments[1].text.as_str(), segments[1].style.as_slice()),
            ("… 983616 more bytes", &["cut".to_owned()][..])
        );
    }

    #[test]
    fn a_look_goes_on_over_lines_until_it_ends() {
        let mut style = Style::default();
        style.carry(b"\x1b[1;31mbegins");
        let segments = render(b"goes on\x1b[0m", 11, &mut style);
        assert_eq!(
            segments,
            [LogSegment { text: "goes on".to_owned(), style: vec!["bold".to_owned(), "fg-1".to_owned()] }]
        );
        assert_eq!(style, Style::default());
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(line in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let (mut rendered, mut carried) = (Style::default(), Style::default());
            let segments = render(&line, line.len() as u64, &mut rendered);
            carried.carry(&line);
            prop_assert_eq!(rendered, carried);
            let text: String = segments.into_iter().map(|segment| segment.text).collect();
            prop_assert!(!text.contains(|letter: char| letter.is_control() && letter != '\t'));
            prop_assert!(text.chars().count() <= line.len());
            if line.contains(&ESCAPE) {
                prop_assert_eq!(plain(&line), text);
            }
        }
    }
}
