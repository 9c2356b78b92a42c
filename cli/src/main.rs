//! `forge`: the only binary of Forge, and the only room that knows a terminal. Parse, dispatch, exit code.

mod args;
mod client;
mod commands;
mod credentials;
mod error;
mod local;
mod logging;
mod printer;
mod runtime;
mod service;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    // An HTTP client that is built without settings for TLS (the operator socket's) takes the process's own provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let printer = printer::Printer::for_this_terminal();
    match commands::dispatch(arguments, &printer) {
        // Half an answer in a file must not look like a whole one.
        Ok(code) if code == ExitCode::SUCCESS && printer.has_lost_data() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(error) => error.report(&printer),
    }
}
