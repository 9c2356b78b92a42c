//! Lines by number, whatever the log is made of and however it grows.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

/// A log in memory that counts what is read of it.
struct Memory {
    bytes: Vec<u8>,
    read: Cell<u64>,
}

impl Memory {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), read: Cell::new(0) }
    }

    fn end(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Source for Memory {
    fn read(&self, offset: u64, length_max: usize) -> Result<Vec<u8>, LogError> {
        let from = (offset as usize).min(self.bytes.len());
        let to = (from + length_max).min(self.bytes.len());
        self.read.set(self.read.get() + (to - from) as u64);
        Ok(self.bytes[from..to].to_vec())
    }
}

fn texts(window: &Window) -> Vec<(u64, String)> {
    let text = |line: &LogLine| line.segments.iter().map(|segment| segment.text.as_str()).collect();
    window.items.iter().map(|line| (line.number, text(line))).collect()
}

fn window(source: &Memory, from: i64, count: u32) -> Window {
    LineIndex::default().window(source, source.end(), Wanted::new(from, count)).expect("read")
}

fn numbers(window: &Window) -> Vec<u64> {
    window.items.iter().map(|line| line.number).collect()
}

#[test]
fn lines_are_numbered_from_one_and_from_the_end() {
    let log = Memory::new("one\n\nthree\r\nfour");
    let all = window(&log, 1, 10);
    let expected = [(1, "one"), (2, ""), (3, "three"), (4, "four")].map(|(number, text)| (number, text.to_owned()));
    assert_eq!((all.total, all.covered), (4, 16));
    assert_eq!(texts(&all), expected);
    assert_eq!(texts(&window(&log, 3, 1)), expected[2..3]);
    assert_eq!(texts(&window(&log, -2, 10)), expected[2..]);
    assert_eq!(texts(&window(&log, -9, 1)), expected[..1]);
    assert_eq!(texts(&window(&log, 0, 1)), expected[..1]);
    assert_eq!(texts(&window(&log, 5, 10)), []);
    assert_eq!(window(&Memory::new(""), 1, 10), Window::default());
    assert_eq!(window(&Memory::new("one\n"), 1, 10).total, 1, "an end of a line begins no other");
}

#[test]
fn a_log_that_grows_is_read_on_from_where_it_ended() {
    let mut log = Memory::new("one\ntw");
    let mut index = LineIndex::default();
    let first = index.window(&log, log.end(), Wanted::new(1, 10)).expect("read");
    assert_eq!((first.total, texts(&first).len()), (2, 2));
    log.bytes.extend_from_slice(b"o\nthree\n");
    let more = index.window(&log, log.end(), Wanted::new(2, 10)).expect("read");
    assert_eq!(texts(&more), [(2, "two".to_owned()), (3, "three".to_owned())]);
    let again = Memory::new("new\n");
    let fresh = index.window(&again, again.end(), Wanted::new(1, 10)).expect("read");
    assert_eq!((fresh.total, texts(&fresh)), (1, vec![(1, "new".to_owned())]), "it was emptied and sent again");
}

#[test]
fn any_window_of_a_million_lines_reads_little_of_it() {
    let text: String = (1..=1_000_000).map(|number| format!("\x1b[32mline {number}\x1b[0m of a long log\n")).collect();
    let log = Memory::new(text);
    let mut index = LineIndex::default();
    index.extend(&log, log.end()).expect("indexed");
    assert_eq!((index.total(), log.read.get()), (1_000_000, log.end()), "one scan");
    assert!(index.points.len() < 1_100);
    for from in [1, 1_024, 1_025, 499_999, 999_001, -1_000] {
        log.read.set(0);
        let window = index.window(&log, log.end(), Wanted::new(from, 1_000)).expect("read");
        let first = u64::try_from(from).unwrap_or(999_001);
        assert_eq!((window.total, window.items.len()), (1_000_000, 1_000));
        assert_eq!(window.items[0].number, first);
        assert_eq!(window.items[999].segments[0].text, format!("line {}", first + 999));
        assert!(log.read.get() < 1024 * 1024, "{} bytes were read for a window from {from}", log.read.get());
    }
}

#[test]
fn a_look_is_known_wherever_a_window_begins() {
    let lines = 5_000;
    let mut text = "\x1b[1;33mbegins\n".to_owned();
    text.push_str(&"goes on\n".repeat(lines));
    let log = Memory::new(text);
    for from in [2, 1_024, 1_025, 4_000] {
        let window = window(&log, from, 1);
        assert_eq!(window.items[0].segments[0].style, ["bold", "fg-3"], "line {from}");
    }
}

#[test]
fn long_lines_are_cut_and_many_of_them_come_in_parts() {
    let long = "x".repeat(3 * 1024 * 1024);
    let log = Memory::new(format!("{long}\nshort\n{long}"));
    let all = window(&log, 1, 10);
    assert_eq!((all.total, all.items.len()), (3, 3));
    assert_eq!(all.items[0].segments[1].style, ["cut"]);
    assert_eq!(all.items[1].segments[0].text, "short");

    let wide = format!("{}\n", "y".repeat(LOG_LINE_BYTES_MAX)).repeat(1_000);
    let log = Memory::new(wide);
    let part = window(&log, 1, 1_000);
    assert!(part.items.len() < 200 && !part.items.is_empty(), "{} lines", part.items.len());
    assert_eq!(part.total, 1_000);
    // Who asks for the end gets the end, and who goes on gets on.
    let last = numbers(&window(&log, -500, 500));
    assert!(last.len() < 200 && last.last() == Some(&1_000) && last.is_sorted(), "{last:?}");
    assert_eq!(numbers(&window(&log, -500, 2)), [501, 502]);
    let one = LineIndex::default().window(&log, log.end(), Wanted { text_bytes_max: 1, ..Wanted::new(-500, 500) });
    assert_eq!(numbers(&one.expect("read")), [1_000]);
    let next = part.items.last().expect("a line").number + 1;
    assert_eq!(window(&log, i64::try_from(next).expect("small"), 1_000).items[0].number, next);
}

#[test]
fn the_end_of_a_log_is_read_however_long_its_lines_are() {
    let long = "x".repeat(usize::try_from(READ_BYTES_MAX / 2).expect("small"));
    let log = Memory::new(format!("first\n{long}\n{long}\n{long}\nlast\n"));
    let mut index = LineIndex::default();
    index.extend(&log, log.end()).expect("indexed");
    log.read.set(0);
    let window = index.window(&log, log.end(), Wanted::new(-500, 500)).expect("read");
    assert_eq!(window.items.last().map(|line| line.number), Some(5), "{:?}", numbers(&window));
    assert!(log.read.get() <= READ_BYTES_MAX + 2 * BYTES_PER_POINT, "{} bytes were read", log.read.get());
    let whole = Memory::new(format!("{long}{long}{long}"));
    assert_eq!(numbers(&self::window(&whole, -500, 500)), [1]);
}

#[test]
fn an_index_of_very_many_points_thins_out_and_stays_right() {
    let log = Memory::new("\n".repeat(3 * POINTS_MAX));
    let mut index = LineIndex { lines_per_point: 1, ..LineIndex::default() };
    let window = index.window(&log, log.end(), Wanted::new(40_000, 2)).expect("read");
    assert_eq!(window.items.iter().map(|line| line.number).collect::<Vec<_>>(), [40_000, 40_001]);
    assert!(index.points.len() <= POINTS_MAX && index.lines_per_point > 1);
}

#[test]
fn what_is_searched_for_is_found_as_it_is_shown_and_a_long_log_in_steps() {
    let log = Memory::new("ok\n\x1b[31mFATAL\x1b[0m: no\nprogress 1\rFatal end\nok fatal\n");
    let pattern = Regex::new("(?i)fatal").expect("a pattern");
    let mut index = LineIndex::default();
    let found = index.search(&log, log.end(), &pattern, 1, 10).expect("searched");
    let expected = [(2, "FATAL: no"), (3, "Fatal end1"), (4, "ok fatal")];
    let shown = |found: &Found| found.items.iter().map(|hit| (hit.number, hit.text.clone())).collect::<Vec<_>>();
    assert_eq!(shown(&found), expected.map(|(number, text)| (number, text.to_owned())));
    assert_eq!(found.next_from, None);
    let first = index.search(&log, log.end(), &pattern, 1, 1).expect("searched");
    assert_eq!((first.items[0].number, first.next_from), (2, Some(3)));
    let rest = index.search(&log, log.end(), &pattern, 3, 10).expect("searched");
    assert_eq!((rest.items[0].number, rest.items.len()), (3, 2));

    // Far more than one search looks through.
    let line = format!("{}\n", "z".repeat(1_000));
    let mut text = line.repeat((READ_BYTES_MAX + READ_BYTES_MAX / 4) as usize / line.len());
    text.push_str("a fatal end\n");
    let log = Memory::new(text);
    let mut index = LineIndex::default();
    let begun = index.search(&log, log.end(), &pattern, 1, 10).expect("searched");
    let next = begun.next_from.expect("not done");
    assert!(begun.items.is_empty() && next > 1);
    let done = index.search(&log, log.end(), &pattern, next, 10).expect("searched");
    assert_eq!((done.items.len(), done.next_from), (1, None));
}

proptest! {
    #[test]
    fn every_line_is_the_same_from_wherever_it_is_read(
        log in "[a-c\n\r\x1b]{0,400}",
        cut in 0..400_usize,
        from in 1..60_i64,
    ) {
        let whole = Memory::new(log.clone());
        let expected: Vec<(u64, String)> = log
            .strip_suffix('\n').unwrap_or(&log)
            .split('\n')
            .enumerate()
            .map(|(number, line)| (number as u64 + 1, plain(line.as_bytes()).into_owned()))
            .filter(|_| !log.is_empty())
            .collect();
        // Grown in two steps, with points close to each other.
        let mut index = LineIndex { lines_per_point: 3, ..LineIndex::default() };
        index.extend(&whole, (cut as u64).min(whole.end())).expect("indexed");
        let window = index.window(&whole, whole.end(), Wanted::new(from, 1_000)).expect("read");
        prop_assert_eq!(window.total, expected.len() as u64);
        let skipped = (from - 1) as usize;
        prop_assert_eq!(texts(&window), expected.get(skipped..).unwrap_or_default());
    }
}
