//! A log by its lines: where they begin, what a window of them shows, and in which of them something is found.
//!
//! A sparse index knows where each 1,024th line begins, and how text looks there. It is made by one scan that goes on where it ended as the
//! log grows, so that no request reads all of a log. All of this blocks.

use std::collections::VecDeque;

use forge_api::{LOG_LINE_BYTES_MAX, LogLine, LogMatch};
use memchr::memchr;
use regex::bytes::Regex;

use super::LogError;
use super::ansi::{Style, plain, render};
use super::file::LogFile;

/// How many lines lie between two points of an index, at most.
const LINES_PER_POINT: u64 = 1_024;

/// How many bytes lie between two points, at most, but for the length of one line.
const BYTES_PER_POINT: u64 = 1024 * 1024;

/// The most points of an index; with more every second goes, and the distances double.
const POINTS_MAX: usize = 16_384;

/// How much is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// How much of a log one request indexes at most. A longer log is indexed by several.
const INDEXED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How much of a log one window or one search looks through, but for the length of its last line.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The most bytes of text that one answer holds, but for the length of one line.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The most bytes of a found line's text.
const MATCH_BYTES_MAX: usize = 1_024;

/// Where a log's bytes are.
pub(super) trait Source {
    /// At most `length_max` bytes from `offset`; empty at the end.
    fn read(&self, offset: u64, length_max: usize) -> Result<Vec<u8>, LogError>;
}

impl Source for LogFile {
    fn read(&self, offset: u64, length_max: usize) -> Result<Vec<u8>, LogError> {
        Self::read(self, offset, length_max)
    }
}

/// One line as it is read.
#[derive(Debug, Default)]
struct Line {
    offset: u64,
    /// As many of its first bytes as are ever shown.
    head: Vec<u8>,
    /// All of its bytes so far, without its end.
    length: u64,
}

impl Line {
    fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LOG_LINE_BYTES_MAX.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend(bytes.iter().take(room));
        self.length += length_of(bytes);
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Why a line was read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It ended.
    Line,
    /// There is no more.
    End,
    /// Enough was read for now.
    Budget,
}

/// Reads a log line by line.
struct Reader<'a, S> {
    source: &'a S,
    /// The bytes at hand, and where they begin.
    piece: Vec<u8>,
    used: usize,
    at: u64,
    /// How many bytes the log has.
    end: u64,
    /// What may still be read.
    left: u64,
}

impl<'a, S: Source> Reader<'a, S> {
    fn new(source: &'a S, at: u64, end: u64, left: u64) -> Self {
        Self { source, piece: Vec::new(), used: 0, at, end, left }
    }

    /// Adds to `line` what follows of it.
    fn fill(&mut self, line: &mut Line) -> Result<Stop, LogError> {
        loop {
            if self.used == self.piece.len() {
                let wanted = self.end.saturating_sub(self.at);
                if wanted == 0 {
                    return Ok(Stop::End);
                }
                if self.left == 0 {
                    return Ok(Stop::Budget);
                }
                let length = usize::try_from(wanted).unwrap_or(usize::MAX).min(PIECE_BYTES);
                self.piece = self.source.read(self.at, length)?;
                self.used = 0;
                if self.piece.is_empty() {
                    return Ok(Stop::End);
                }
                self.at += length_of(&self.piece);
                self.left = self.left.saturating_sub(length_of(&self.piece));
            }
            let rest = self.piece.get(self.used..).unwrap_or_default();
            if let Some(length) = memchr(b'\n', rest) {
                line.add(rest.get(..length).unwrap_or_default());
                self.used += length + 1;
                return Ok(Stop::Line);
            }
            line.add(rest);
            self.used = self.piece.len();
        }
    }
}

/// Where a line begins, and how text looks there.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// How many lines stand before.
    line: u64,
    offset: u64,
    style: Style,
}

/// What is known of the lines of one log.
#[derive(Debug)]
pub(super) struct LineIndex {
    points: Vec<Point>,
    lines_per_point: u64,
    bytes_per_point: u64,
    /// Lines that ended.
    ended: u64,
    /// The line that has not.
    open: Line,
    /// How its text begins.
    style: Style,
}

/// Which lines are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The first one's number, or the last -`from` where it is negative.
    pub from: i64,
    /// How many, at most.
    pub count: u32,
    /// How many bytes of text, at most, but for the length of one line.
    pub text_bytes_max: usize,
}

impl Wanted {
    /// At most `count` lines from `from` on, as many as one answer holds.
    pub fn new(from: i64, count: u32) -> Self {
        Self { from, count, text_bytes_max: ANSWER_BYTES_MAX }
    }
}

/// Which of the lines that are asked for come where not all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The first: who asks goes on after them.
    First,
    /// The last: it is the log's end that is asked for.
    Last,
}

/// Some lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// How many there are, as far as the index goes.
    pub(crate) total: u64,
    /// How many bytes the index covers.
    pub(crate) covered: u64,
    pub(crate) items: Vec<LogLine>,
}

/// Where something was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) items: Vec<LogMatch>,
    /// The line to go on with.
    pub(crate) next_from: Option<u64>,
}

impl Default for LineIndex {
    fn default() -> Self {
        let first = Point { line: 0, offset: 0, style: Style::default() };
        Self {
            points: vec![first],
            lines_per_point: LINES_PER_POINT,
            bytes_per_point: BYTES_PER_POINT,
            ended: 0,
            open: Line::default(),
            style: Style::default(),
        }
    }
}

impl LineIndex {
    fn total(&self) -> u64 {
        self.ended + u64::from(self.open.length > 0)
    }

    fn covered(&self) -> u64 {
        self.open.offset + self.open.length
    }

    /// Goes on to the log's end, or as far as one request may.
    fn extend(&mut self, source: &impl Source, end: u64) -> Result<(), LogError> {
        if end < self.covered() {
            // It was emptied to be sent again.
            *self = Self::default();
        }
        let mut reader = Reader::new(source, self.covered(), end, INDEXED_BYTES_MAX);
        while reader.fill(&mut self.open)? == Stop::Line {
            self.style.carry(&self.open.head);
            self.ended += 1;
            self.open = Line::at(self.covered() + 1);
            let point = Point { line: self.ended, offset: self.open.offset, style: self.style };
            let is_far = self.points.last().is_none_or(|last| {
                point.line - last.line >= self.lines_per_point || point.offset - last.offset >= self.bytes_per_point
            });
            if is_far {
                self.add(point);
            }
        }
        Ok(())
    }

    fn add(&mut self, point: Point) {
        if self.points.len() >= POINTS_MAX {
            let mut number = 0_usize;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.lines_per_point = self.lines_per_point.saturating_mul(2);
            self.bytes_per_point = self.bytes_per_point.saturating_mul(2);
        }
        self.points.push(point);
    }

    /// The last point that is not after `line`.
    fn point(&self, line: u64) -> Point {
        let after = self.points.partition_point(|point| point.line <= line);
        let found = after.checked_sub(1).and_then(|number| self.points.get(number));
        found.copied().unwrap_or(Point { line: 0, offset: 0, style: Style::default() })
    }

    /// How many lines stand before those that are wanted, and which of these come where not all do.
    fn begin(&self, wanted: Wanted) -> (u64, Side) {
        let back = match u64::try_from(wanted.from) {
            Ok(from) => return (from.saturating_sub(1), Side::First),
            Err(_) => wanted.from.unsigned_abs(),
        };
        let before = self.total().saturating_sub(back);
        if back > u64::from(wanted.count) {
            return (before, Side::First);
        }
        // No further from the end than one request reads.
        let near = self.covered().saturating_sub(READ_BYTES_MAX);
        let point = self.points.get(self.points.partition_point(|point| point.offset < near));
        let last = self.total().saturating_sub(1);
        (before.max(point.map_or(last, |point| point.line).min(last)), Side::Last)
    }

    /// Some lines.
    pub(super) fn window(&mut self, source: &impl Source, end: u64, wanted: Wanted) -> Result<Window, LogError> {
        self.extend(source, end)?;
        let (total, covered) = (self.total(), self.covered());
        let (before, side) = self.begin(wanted);
        let mut window = Window { total, covered, items: Vec::new() };
        if before >= total {
            return Ok(window);
        }
        let Point { line: mut number, offset, mut style } = self.point(before);
        let mut reader = Reader::new(source, offset, covered, u64::MAX);
        let mut lines: VecDeque<(u64, Line, Style)> = VecDeque::new();
        let mut text_bytes = 0;
        let count = usize::try_from(wanted.count).unwrap_or(usize::MAX);
        loop {
            let is_far = reader.at.saturating_sub(offset) > READ_BYTES_MAX && !lines.is_empty();
            let is_full = lines.len() >= count || text_bytes >= wanted.text_bytes_max;
            if side == Side::First && (is_far || is_full) {
                break;
            }
            let mut line = Line::default();
            if reader.fill(&mut line)? != Stop::Line && line.length == 0 {
                break;
            }
            number += 1;
            let begins = style;
            style.carry(&line.head);
            if number > before {
                text_bytes += line.head.len();
                lines.push_back((number, line, begins));
            }
            while side == Side::Last && text_bytes > wanted.text_bytes_max && lines.len() > 1 {
                text_bytes -= lines.pop_front().map_or(0, |(_, line, _)| line.head.len());
            }
        }
        let drawn = lines.into_iter().map(|(number, line, mut begins)| LogLine {
            number,
            segments: render(&line.head, line.length, &mut begins),
        });
        window.items = drawn.collect();
        Ok(window)
    }

    /// Lines in which `pattern` is found, from the number `from` on.
    pub(super) fn search(
        &mut self,
        source: &impl Source,
        end: u64,
        pattern: &Regex,
        from: u64,
        limit: u32,
    ) -> Result<Found, LogError> {
        self.extend(source, end)?;
        let before = from.saturating_sub(1);
        let mut found = Found::default();
        if before >= self.total() {
            // Where not all is indexed yet, the line may still come.
            found.next_from = (self.covered() < end).then_some(from.max(1));
            return Ok(found);
        }
        let Point { line: mut number, offset, style: _ } = self.point(before);
        let mut reader = Reader::new(source, offset, end, u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        loop {
            let is_enough = reader.at.saturating_sub(offset) > READ_BYTES_MAX && number > before;
            if is_enough || found.items.len() >= limit {
                found.next_from = Some(number + 1);
                return Ok(found);
            }
            let mut line = Line::default();
            if reader.fill(&mut line)? != Stop::Line && line.length == 0 {
                return Ok(found);
            }
            if number >= before {
                let text = plain(&line.head);
                if pattern.is_match(text.as_bytes()) {
                    found.items.push(LogMatch { number: number + 1, text: cut(&text) });
                }
            }
            number += 1;
        }
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MATCH_BYTES_MAX);
    match text.get(..end).filter(|_| end < text.len()) {
        Some(beginning) => format!("{beginning}…"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
