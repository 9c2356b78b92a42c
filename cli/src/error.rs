//! Every error becomes one of a few endings: what happened on one line, what to do on the next, and an exit code. Decided here and nowhere else.

use std::fmt;
use std::process::ExitCode;

use crate::printer::Printer;

/// How a command ends when it does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The command could not do its work, or the task ended otherwise than `succeeded`: 1.
    Failed,
    /// The command line makes no sense: 2.
    Usage,
}

/// What went wrong, and what to do about it.
#[derive(Debug)]
pub(crate) struct CliError {
    ending: Ending,
    is_transient: bool,
    /// Whole, drawn text such as diagnostics; printed as it is instead of `error: ...`.
    drawn: Option<String>,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// The work could not be done.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { ending: Ending::Failed, is_transient: false, drawn: None, message: message.to_string(), hint: None }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { ending: Ending::Usage, ..Self::failed(message) }
    }

    /// Diagnostics that are drawn already, and one line that closes them.
    pub(crate) fn drawn(drawn: String, message: impl fmt::Display) -> Self {
        Self { drawn: Some(drawn), ..Self::failed(message) }
    }

    /// The daemon could not be reached: asking again later may help.
    pub(crate) fn unreachable(message: impl fmt::Display) -> Self {
        Self { is_transient: true, ..Self::failed(message) }
    }

    /// Whether asking again later may help.
    pub(crate) fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// The same error with what to do next.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same error with what to do next, after what it says itself.
    pub(crate) fn hint_too(self, hint: impl fmt::Display) -> Self {
        let hint = match &self.hint {
            Some(first) => format!("{first}; {hint}"),
            None => hint.to_string(),
        };
        self.hint(hint)
    }

    /// Prints it to stderr and says how to exit.
    pub(crate) fn report(&self, printer: &Printer) -> ExitCode {
        if let Some(drawn) = &self.drawn {
            printer.talk(drawn.trim_end());
            printer.talk("");
        }
        printer.error(&self.message);
        if let Some(hint) = &self.hint {
            printer.hint(hint);
        }
        match self.ending {
            Ending::Failed => ExitCode::from(1),
            Ending::Usage => ExitCode::from(2),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The error of a failed file operation: which file, and the system's own words.
pub(crate) fn file_error(doing: &str, path: &std::path::Path, error: &std::io::Error) -> CliError {
    CliError::failed(format_args!("cannot {doing} {}: {error}", path.display()))
}
