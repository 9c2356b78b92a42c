//! Questions at a terminal or down a pipe: one line an answer, an empty line for the default.
//!
//! At a terminal a bad answer is asked for again. Down a pipe it ends the setup: the lines that follow would answer other questions.

use std::io::{BufRead as _, IsTerminal as _};

use forge_api::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CliError;
use crate::printer::Printer;

/// The most characters of an answer.
const ANSWER_CHARS_MAX: usize = 4_096;

/// One question.
pub(super) struct Question {
    /// The setting's name.
    pub(super) key: &'static str,
    /// The flag that answers it.
    pub(super) flag: &'static str,
    /// The question.
    pub(super) text: &'static str,
    /// What an empty answer means; `None` where an answer is needed.
    pub(super) default: Option<String>,
}

/// Where answers come from.
enum Source {
    /// Nowhere: defaults only.
    Nobody,
    /// A person at a terminal.
    Terminal,
    /// Lines of a pipe or a file.
    Lines,
}

/// Who asks.
pub(super) struct Asker<'a> {
    source: Source,
    printer: &'a Printer,
}

impl<'a> Asker<'a> {
    /// Asks nothing.
    pub(super) fn silent(printer: &'a Printer) -> Self {
        Self { source: Source::Nobody, printer }
    }

    /// Asks whoever is at the other end of stdin.
    pub(super) fn of_stdin(printer: &'a Printer) -> Self {
        let source = if std::io::stdin().is_terminal() { Source::Terminal } else { Source::Lines };
        Self { source, printer }
    }

    /// The answer: the one that is given, else the one that comes, else the default; always one that `check` takes.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        given: Option<String>,
        check: impl Fn(&str) -> Result<(), CliError>,
    ) -> Result<String, CliError> {
        if let Some(given) = given {
            return check(&given).map(|()| given);
        }
        loop {
            let answer = match self.source {
                Source::Nobody => String::new(),
                Source::Terminal | Source::Lines => {
                    let shown = question.default.as_deref().filter(|default| !default.is_empty());
                    let shown = shown.map(|default| format!(" [{default}]")).unwrap_or_default();
                    self.printer.talk_bytes(format!("{}{shown}: ", question.text).as_bytes());
                    self.line()?.ok_or_else(|| missing(question))?
                }
            };
            let answer = match (answer.is_empty(), &question.default) {
                (false, _) => answer,
                (true, Some(default)) => default.clone(),
                (true, None) => String::new(),
            };
            let checked =
                if answer.is_empty() && question.default.is_none() { Err(missing(question)) } else { check(&answer) };
            match (checked, &self.source) {
                (Ok(()), _) => return Ok(answer),
                (Err(error), Source::Terminal) => {
                    error.report(self.printer);
                }
                (Err(error), Source::Nobody | Source::Lines) => return Err(error),
            }
        }
    }

    /// An answer that is not shown while it is typed; `None` when it is empty or when nothing is asked.
    pub(super) fn secret(&mut self, text: &str) -> Result<Option<Secret>, CliError> {
        let line = match self.source {
            Source::Nobody => None,
            Source::Lines => {
                self.printer.talk(&format!("{text}:"));
                self.line()?
            }
            Source::Terminal => {
                self.printer.talk_bytes(format!("{text}: ").as_bytes());
                let hidden = HiddenInput::start()?;
                let line = self.line();
                drop(hidden);
                // The line end was not shown either.
                self.printer.talk("");
                line?
            }
        };
        Ok(line.filter(|line| !line.is_empty()).map(Secret::new))
    }

    /// The next line without the space around it; `None` at the end.
    fn line(&self) -> Result<Option<String>, CliError> {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let count = read.map_err(|error| CliError::failed(format_args!("stdin cannot be read: {error}")))?;
        if let Source::Lines = self.source {
            // Nobody sees the line end that a terminal would have echoed.
            self.printer.talk("");
        }
        let line = line.trim();
        if line.chars().count() > ANSWER_CHARS_MAX {
            return Err(CliError::failed(format_args!("an answer has more than {ANSWER_CHARS_MAX} characters")));
        }
        Ok((count > 0).then(|| line.to_owned()))
    }
}

fn missing(question: &Question) -> CliError {
    CliError::usage(format_args!("{} has no answer", question.key))
        .hint(format_args!("give it with {}, or run `forge runner setup` at a terminal", question.flag))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct HiddenInput(Termios);

impl HiddenInput {
    fn start() -> Result<Self, CliError> {
        let failed = |error| {
            CliError::failed(format_args!("the terminal cannot hide the token: {error}"))
                .hint("name a file with --registration-token-file")
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing brought back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
