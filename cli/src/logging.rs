//! The program's own log: tracing to stderr, as text for people or one JSON document a line.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::error::CliError;

/// The variable that sets how much is logged, as in `info` or `forge_daemon=debug`.
pub(crate) const LOG_VARIABLE: &str = "FORGE_LOG";

/// Sets the process's log up, once.
pub(crate) fn start(format: LogFormat) -> Result<(), CliError> {
    let level = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&level).map_err(|error| {
        CliError::usage(format_args!("{LOG_VARIABLE}={level} is no log filter: {error}"))
            .hint("write a level such as info or debug, or a list such as warn,forge_daemon=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            builder.with_ansi(std::io::stderr().is_terminal() && !no_colour).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::failed(format_args!("the log cannot be set up: {error}")))
}
