//! `forge config schema KIND`: the JSON Schema of a kind of file, for editors.

use std::process::ExitCode;

use forge_config::reference::{kind, kinds};

use crate::error::CliError;
use crate::printer::Printer;

pub(crate) fn run(name: &str, printer: &Printer) -> Result<ExitCode, CliError> {
    let kind = kind(name).ok_or_else(|| {
        let names: Vec<_> = kinds().map(|kind| kind.name).collect();
        CliError::usage(format_args!("no kind of file is named {name:?}"))
            .hint(format_args!("the kinds are {}", names.join(", ")))
    })?;
    printer.json(&kind.json_schema());
    Ok(ExitCode::SUCCESS)
}
