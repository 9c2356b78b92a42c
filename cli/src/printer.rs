//! stdout is data, stderr is talk. Colour and spinners only on a terminal, never as the only carrier; `NO_COLOR` is kept.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a spinner moves.
const SPINNER_TICK: Duration = Duration::from_millis(80);

/// Whether data was lost on its way to stdout: stdout is one for the whole process, so its failure is, too.
static DATA_WAS_LOST: AtomicBool = AtomicBool::new(false);

/// What talks to the terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    colour_stderr: bool,
    stderr_is_terminal: bool,
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

impl Printer {
    /// Looks at stderr and `NO_COLOR` once.
    pub(crate) fn for_this_terminal() -> Self {
        let stderr_is_terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour_stderr: stderr_is_terminal && !no_colour, stderr_is_terminal }
    }

    /// Whether talk may be coloured.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour_stderr
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.colour_stderr {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "1;31",
            Style::Green => "1;32",
            Style::Cyan => "1;36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Writes data and a line end to stdout.
    pub(crate) fn data(&self, text: &str) {
        self.data_bytes(format!("{text}\n").as_bytes());
    }

    /// Writes data to stdout as it is. A reader that has left ends nothing here: the exit code still tells the outcome. Any
    /// other failure (a full disk, say) is told of once, and [`Self::has_lost_data`] turns it into the exit code.
    pub(crate) fn data_bytes(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => {
                if !DATA_WAS_LOST.swap(true, Ordering::Relaxed) {
                    self.error(&format!("stdout cannot be written: {error}"));
                    self.hint("what it shows is not whole: make room, or send the output elsewhere");
                }
            }
        }
    }

    /// Whether data did not reach stdout though its reader was there.
    pub(crate) fn has_lost_data(&self) -> bool {
        DATA_WAS_LOST.load(Ordering::Relaxed)
    }

    /// Writes one JSON document to stdout.
    pub(crate) fn json(&self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.data(&text),
            Err(error) => self.error(&format!("the answer cannot be written as JSON: {error}")),
        }
    }

    /// Writes a line of talk to stderr.
    pub(crate) fn talk(&self, line: &str) {
        self.talk_bytes(format!("{line}\n").as_bytes());
    }

    /// Writes bytes of talk to stderr as they are.
    pub(crate) fn talk_bytes(&self, bytes: &[u8]) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
    }

    /// A line of talk that matters less.
    pub(crate) fn aside(&self, line: &str) {
        self.talk(&self.paint(Style::Dim, line));
    }

    /// A heading among talk.
    pub(crate) fn heading(&self, line: &str) {
        self.talk(&self.paint(Style::Bold, line));
    }

    /// A step that is done.
    pub(crate) fn done(&self, line: &str) {
        self.talk(&format!("{} {line}", self.paint(Style::Green, "✓")));
    }

    /// What went wrong.
    pub(crate) fn error(&self, message: &str) {
        self.talk(&format!("{} {message}", self.paint(Style::Red, "error:")));
    }

    /// What does not stop the command, and is likely not what was meant.
    pub(crate) fn warning(&self, message: &str) {
        self.talk(&format!("{} {message}", self.paint(Style::Cyan, "warning:")));
    }

    /// What to do next.
    pub(crate) fn hint(&self, hint: &str) {
        self.talk(&format!("{} {hint}", self.paint(Style::Cyan, "hint:")));
    }

    /// A spinner with a message while something is under way; invisible where stderr is no terminal.
    pub(crate) fn spinner(&self, message: &str) -> Spinner {
        if !self.stderr_is_terminal {
            return Spinner(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(SPINNER_TICK);
        Spinner(bar)
    }
}

/// A spinner that goes away when it is dropped.
pub(crate) struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Text in columns, two spaces apart, the last one ragged.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose first row is its head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row; it has as many cells as the head.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The table as text without a last line end.
    pub(crate) fn draw(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// The text without control characters: what a name or a reason holds must not move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up() {
        let mut table = Table::new(&["NAME", "STATUS"]);
        table.row(["ny-1".to_owned(), "online".to_owned()]);
        table.row(["b\u{1b}[31m".to_owned(), "a\nb".to_owned()]);
        assert_eq!(table.draw(), "NAME    STATUS\nny-1    online\nb [31m  a b");
    }
}
