//! Output for machines: `spawn` brings it here and keeps it out of the log, since it holds sensitive values in plain text.

use std::io::{self, BufReader, Read};

use forge_plugin::{Child, Command, Event, Exit, Failure, Host, HostError};
use serde::de::DeserializeOwned;

/// What is read at a time, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Why there is no answer. None of it holds a word of the output.
#[derive(Debug, PartialEq)]
pub(crate) enum NoAnswer {
    /// The task is to end.
    Canceled,
    /// In words.
    Why(String),
}

/// Runs a command and reads the JSON that it prints, piece by piece: the JSON of a plan may be larger than the guest's memory.
pub(crate) fn ask<T: DeserializeOwned>(command: Command, host: &mut dyn Host) -> Result<T, NoAnswer> {
    let child = host.spawn(command).map_err(no_answer)?;
    let mut output = Output { child, piece: Vec::new(), at: 0, exit: None, broken: None };
    // Only the place: the words of an error may quote what was read.
    let answer = serde_json::from_reader(BufReader::with_capacity(PIECE_BYTES, &mut output)).map_err(|error| {
        format!("its JSON is not what is expected (line {}, column {})", error.line(), error.column())
    });
    // What is not read would keep the process waiting.
    let drained = io::copy(&mut output, &mut io::sink());
    match (output.broken, output.exit, drained) {
        (Some(error), _, _) => Err(no_answer(error)),
        (None, Some(Exit::Code(0)), Ok(_)) => answer.map_err(NoAnswer::Why),
        (None, Some(exit), _) => Err(NoAnswer::Why(exit.to_string())),
        (None, None, _) => Err(NoAnswer::Why("it did not end".to_owned())),
    }
}

fn no_answer(error: HostError) -> NoAnswer {
    match error {
        HostError::Canceled => NoAnswer::Canceled,
        error => match Failure::from(error) {
            Failure::Failed(failed) => NoAnswer::Why(failed.message),
            Failure::Invalid(message) => NoAnswer::Why(message),
            Failure::Retry(retry) => NoAnswer::Why(retry.message),
            Failure::Canceled => NoAnswer::Canceled,
        },
    }
}

/// A process's standard output as something to read. Its errors are dropped: they are words for people about what people see
/// in the log anyway.
struct Output {
    child: Box<dyn Child>,
    piece: Vec<u8>,
    at: usize,
    exit: Option<Exit>,
    broken: Option<HostError>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.exit.is_some() || self.broken.is_some() {
                return Ok(0);
            }
            match self.child.next() {
                Ok(Event::Stdout(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Event::Stderr(_)) => {}
                Ok(Event::Exited(exit)) => self.exit = Some(exit),
                Err(error) => self.broken = Some(error),
            }
        }
        let mut rest = self.piece.get(self.at..).unwrap_or_default();
        let length = rest.read(buffer)?;
        self.at += length;
        Ok(length)
    }
}
