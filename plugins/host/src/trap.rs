//! Why a call ended before the guest answered, in words for the person who reads the task's log.

use std::fmt;

use wasmtime::PoolConcurrencyLimitError;

use crate::Limits;
use crate::limits::{
    FRAMES_MAX, LOG_BYTES_MAX, LOG_LINES_MAX, MEMORY_BYTES_WRITTEN_MAX, POOL_MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX,
    TIME_MS_WRITTEN_MAX,
};

/// What the host's own checks end a call with, on its way through the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("out of memory")]
    Memory,
    #[error("out of a pool's memory")]
    PoolMemory,
    #[error("out of table elements")]
    TableElements,
    #[error("out of time")]
    Time,
    #[error("too much log")]
    Log,
    #[error("canceled")]
    Canceled,
}

/// A call that ended before the guest answered. Its store is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub cause: TrapCause,
    /// The guest's own functions, innermost first.
    pub frames: Vec<String>,
}

/// Why a call ended before the guest answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrapCause {
    /// `[limits].memory` is used up.
    Memory {
        /// The plugin's name in the tree, when the call is for one.
        plugin_name: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// `[limits].time` is used up.
    Time {
        /// The plugin's name in the tree, when the call is for one.
        plugin_name: String,
        /// The limit.
        limit_ms: u64,
    },
    /// One of its memories grew beyond what a pool's slot holds ([`crate::Memory::Pool`]), whatever `[limits].memory` says.
    PoolMemory,
    /// It logged more than a call may.
    Log,
    /// Its tables grew beyond what a call may hold.
    TableElements,
    /// It panicked; the message is what its panic hook logged.
    Panic(String),
    /// As many calls run as there is room for ([`crate::Memory::Pool`]): it never began.
    Busy,
    /// Its stack is used up: a recursion without an end.
    StackOverflow,
    /// Something else that the engine refuses, such as an access outside of its memory.
    Other(String),
}

impl fmt::Display for TrapCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { plugin_name, limit_bytes } => {
                let default = Limits::default().memory_bytes;
                used_up(formatter, plugin_name, "memory", [*limit_bytes, default, MEMORY_BYTES_WRITTEN_MAX], bytes_text)
            }
            Self::Time { plugin_name, limit_ms } => {
                let default = Limits::default().time_ms;
                used_up(formatter, plugin_name, "time", [*limit_ms, default, TIME_MS_WRITTEN_MAX], duration_text)
            }
            Self::PoolMemory => write!(
                formatter,
                "one memory of the plugin grew beyond {}, which is the most that this host gives one, whatever [limits].memory says",
                bytes_text(POOL_MEMORY_BYTES_MAX as u64)
            ),
            Self::Log => write!(
                formatter,
                "the plugin logged more than {LOG_LINES_MAX} lines or {} itself, which no key changes: let it log less, or a process \
                 print, whose output does not count",
                bytes_text(LOG_BYTES_MAX)
            ),
            Self::TableElements => {
                write!(
                    formatter,
                    "the plugin's tables hold more than {TABLE_ELEMENTS_MAX} elements, which no key changes"
                )
            }
            Self::Panic(message) => write!(formatter, "the plugin {message}"),
            Self::Busy => write!(formatter, "as many plugins run as there is room for: try again in a moment"),
            Self::StackOverflow => write!(formatter, "the plugin's stack is used up: a recursion without an end?"),
            Self::Other(message) => write!(formatter, "the plugin broke off: {message}"),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(formatter)?;
        match self.frames.as_slice() {
            [] => Ok(()),
            frames => write!(formatter, " (in {})", frames.join(" < ")),
        }
    }
}

impl std::error::Error for Trap {}

/// Which limit holds, where it stands or that nobody wrote it, and what to write.
fn used_up(
    formatter: &mut fmt::Formatter<'_>,
    plugin_name: &str,
    key: &str,
    [limit, default, most]: [u64; 3],
    text: impl Fn(u64) -> String,
) -> fmt::Result {
    let (now, more) = (text(limit), text(limit.saturating_mul(2).min(most)));
    if plugin_name.is_empty() {
        return write!(formatter, "[limits].{key} = {now:?} used up, which every plugin has to describe itself");
    }
    if limit >= most {
        return write!(
            formatter,
            "plugins/{plugin_name}.toml [limits].{key} = {now:?} used up, the most that it may say"
        );
    }
    let default = if limit == default { ", the default" } else { "" };
    write!(
        formatter,
        "plugins/{plugin_name}.toml [limits].{key} = {now:?} used up{default}: if it needs more, write `{key} = {more:?}` there"
    )
}

/// As an operator writes it.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// As an operator writes it.
fn duration_text(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    UNITS
        .into_iter()
        .find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit))
        .map_or_else(|| format!("{milliseconds}ms"), |(unit, name)| format!("{}{name}", milliseconds / unit))
}

/// How the engine's error reads, given what the call was allowed and what the guest's panic hook said.
pub(crate) enum Ended {
    Canceled,
    Trapped(Trap),
}

pub(crate) fn read(error: &wasmtime::Error, plugin_name: &str, limits: Limits, panic: Option<String>) -> Ended {
    let cause = match error.downcast_ref::<Stop>() {
        Some(Stop::Canceled) => return Ended::Canceled,
        Some(Stop::Memory) => {
            TrapCause::Memory { plugin_name: plugin_name.to_owned(), limit_bytes: limits.memory_bytes }
        }
        Some(Stop::Time) => TrapCause::Time { plugin_name: plugin_name.to_owned(), limit_ms: limits.time_ms },
        Some(Stop::PoolMemory) => TrapCause::PoolMemory,
        Some(Stop::Log) => TrapCause::Log,
        Some(Stop::TableElements) => TrapCause::TableElements,
        None if error.is::<PoolConcurrencyLimitError>() => TrapCause::Busy,
        None => match (error.downcast_ref::<wasmtime::Trap>(), panic) {
            (Some(wasmtime::Trap::UnreachableCodeReached), Some(message)) => TrapCause::Panic(message),
            (Some(wasmtime::Trap::StackOverflow), _) => TrapCause::StackOverflow,
            (Some(trap), _) => TrapCause::Other(trap.to_string()),
            (None, _) => TrapCause::Other(error.root_cause().to_string()),
        },
    };
    Ended::Trapped(Trap { cause, frames: frames(error) })
}

/// What wasmtime calls a function by that has no name.
const UNNAMED: &str = "<wasm function ";

/// wasmtime writes `   0:   0x1a2 - module!name`, the name as its author wrote it. A function that calls itself stands there once.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else { return Vec::new() };
    let mut frames: Vec<String> = backtrace
        .to_string()
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .map(|(_, place)| place.split_once('!').map_or(place, |(_, name)| name).to_owned())
        .collect();
    // What has no name beside what has one is how a component is wired, and no function of its author's.
    let has_name = |name: &String| !name.starts_with(UNNAMED);
    if frames.iter().any(has_name) {
        frames.retain(has_name);
    }
    frames.dedup();
    frames.truncate(FRAMES_MAX);
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_as_they_are_written() {
        let cause = TrapCause::Time { plugin_name: "x".to_owned(), limit_ms: 5_000 };
        assert_eq!(
            cause.to_string(),
            "plugins/x.toml [limits].time = \"5s\" used up, the default: if it needs more, write `time = \"10s\"` there"
        );
        let cause = TrapCause::Time { plugin_name: "x".to_owned(), limit_ms: 1_500 };
        assert_eq!(
            cause.to_string(),
            "plugins/x.toml [limits].time = \"1500ms\" used up: if it needs more, write `time = \"3s\"` there"
        );
        for (limit_ms, expected) in [
            (400_000, "used up: if it needs more, write `time = \"10m\"` there"),
            (600_000, "= \"10m\" used up, the most that it may say"),
        ] {
            let said = TrapCause::Time { plugin_name: "x".to_owned(), limit_ms }.to_string();
            assert!(said.ends_with(expected), "{said}");
        }
        let cause = TrapCause::Memory { plugin_name: String::new(), limit_bytes: 64 << 20 };
        assert_eq!(cause.to_string(), "[limits].memory = \"64MiB\" used up, which every plugin has to describe itself");
        assert_eq!(duration_text(1_500), "1500ms");
        assert_eq!(bytes_text(1_000), "1000B");
    }
}
