//! `forge integration`: what came from elsewhere, and what it started.

use std::process::ExitCode;

use forge_api::IntegrationRequest;

use super::CLIENT_THREADS;
use crate::args::{IntegrationCommand, OutputFormat};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};

pub(crate) fn run(command: IntegrationCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        let IntegrationCommand::Log(one) = command;
        let (project, name) = one.integration.split_once('/').ok_or_else(|| {
            CliError::usage(format_args!("{:?} names no integration", one.integration))
                .hint("write PROJECT/NAME, as in shop/on-push")
        })?;
        let page = Client::connect(&one.at.connection)?.integration_log(project, name).await?;
        match one.at.output {
            OutputFormat::Json => printer.json(&page),
            OutputFormat::Text => log(&page.items, &one.integration, printer),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn log(requests: &[IntegrationRequest], integration: &str, printer: &Printer) {
    if requests.is_empty() {
        return printer.aside(&format!(
            "nothing came that proved itself: senders post to /hooks/{integration} of the daemon's URL"
        ));
    }
    let mut table = Table::new(&["AT", "OUTCOME", "TASK", "SENDER CALLS IT", "WHY"]);
    for request in requests {
        table.row([
            request.at.to_string(),
            request.outcome.as_str().to_owned(),
            request.task.map_or_else(|| "-".to_owned(), |task| task.to_string()),
            request.delivery.clone().unwrap_or_else(|| "-".to_owned()),
            request.message.clone(),
        ]);
    }
    printer.data(&table.draw());
}
