//! `forge audit`: who did what, when, from where, and with what result.

use std::process::ExitCode;

use forge_api::AuditEntry;

use super::CLIENT_THREADS;
use crate::args::{AuditArguments, OutputFormat};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};

pub(crate) fn run(asked: AuditArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        let page = Client::connect(&asked.at.connection)?.audit(&asked).await?;
        match asked.at.output {
            OutputFormat::Json => printer.json(&page),
            OutputFormat::Text => list(&page.items, printer),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn list(entries: &[AuditEntry], printer: &Printer) {
    if entries.is_empty() {
        return printer.aside("nothing of the kind was done, or this token does not see it");
    }
    let mut table = Table::new(&["TIME (UTC)", "ACTOR", "FROM", "ACTION", "PROJECT", "OBJECT", "RESULT"]);
    for entry in entries {
        table.row([
            second(entry.at),
            format!("{} {}", entry.actor_kind.as_str(), if entry.actor.is_empty() { "-" } else { &entry.actor }),
            entry.remote.clone().unwrap_or_else(|| "-".to_owned()),
            entry.action.to_string(),
            entry.project.clone().unwrap_or_else(|| "-".to_owned()),
            entry.object.clone(),
            match &entry.problem {
                Some(problem) => format!("{}: {problem}", entry.result.as_str()),
                None => entry.result.as_str().to_owned(),
            },
        ]);
    }
    printer.data(&table.draw());
}

fn second(moment: forge_api::Timestamp) -> String {
    let text = moment.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}
