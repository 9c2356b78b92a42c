//! The capability `host`: what every guest may do. A guest's log is bounded; a guest that floods it ends its own call.

use crate::bindings::forge::plugin::{host, types};
use crate::limits::{LOG_BYTES_MAX, LOG_FIELDS_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
use crate::state::State;
use crate::trap::Stop;
use crate::{Level, convert};

/// How the sdk's panic hook begins.
const PANIC_PREFIX: &str = "panicked at ";

/// What a call has logged.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    lines: u64,
    bytes: u64,
    /// The last thing that a panic hook said.
    pub(crate) panic: Option<String>,
}

impl LogBudget {
    fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.lines > LOG_LINES_MAX || self.bytes > LOG_BYTES_MAX { Err(Stop::Log) } else { Ok(()) }
    }
}

/// At most `bytes_max` bytes, whole characters, and a mark where something is cut.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

impl host::Host for State {
    fn log(&mut self, level: types::Level, mut message: String, fields: Vec<types::Pair>) -> wasmtime::Result<()> {
        cut(&mut message, LOG_LINE_BYTES_MAX);
        let mut fields = convert::pairs(fields);
        fields.truncate(LOG_FIELDS_MAX);
        for (key, value) in &mut fields {
            cut(key, LOG_LINE_BYTES_MAX);
            cut(value, LOG_LINE_BYTES_MAX);
        }
        let bytes = fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() + message.len();
        self.log.spend(bytes).map_err(wasmtime::Error::new)?;
        let level = convert::level(level);
        if level == Level::Error && message.starts_with(PANIC_PREFIX) {
            self.log.panic = Some(message.clone());
        }
        self.services.log(level, &message, &fields);
        Ok(())
    }

    fn progress(&mut self, current: u64, total: Option<u64>, mut message: Option<String>) -> wasmtime::Result<()> {
        if let Some(message) = &mut message {
            cut(message, LOG_LINE_BYTES_MAX);
        }
        self.log.spend(message.as_ref().map_or(0, String::len)).map_err(wasmtime::Error::new)?;
        self.services.progress(current, total, message.as_deref());
        Ok(())
    }

    fn elapsed_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn canceled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.services.canceled())
    }
}
