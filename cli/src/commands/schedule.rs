//! `forge schedule`: when what is started.

use std::process::ExitCode;

use forge_api::{Firing, Schedule};

use super::CLIENT_THREADS;
use crate::args::{OutputFormat, ScheduleCommand};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};

pub(crate) fn run(command: ScheduleCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        let ScheduleCommand::List(at) = command;
        let page = Client::connect(&at.connection)?.schedules().await?;
        match at.output {
            OutputFormat::Json => printer.json(&page),
            OutputFormat::Text => list(&page.items, printer),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn list(schedules: &[Schedule], printer: &Printer) {
    if schedules.is_empty() {
        return printer.aside("there is no schedule; projects/PROJECT/schedules/NAME.toml declares one");
    }
    let mut table = Table::new(&["SCHEDULE", "STARTS", "CRON", "ZONE", "NEXT (UTC)", "LAST (UTC)", "CAME TO"]);
    for schedule in schedules {
        let next: Vec<String> = schedule.next.iter().map(|moment| minute(*moment)).collect();
        let next = match (schedule.enabled, next.is_empty()) {
            (false, _) => "- (enabled = false)".to_owned(),
            (true, true) => "- (never)".to_owned(),
            (true, false) => next.join(", "),
        };
        table.row([
            format!("{}/{}", schedule.project, schedule.name),
            schedule.template.clone(),
            schedule.cron.clone(),
            schedule.timezone.clone(),
            next,
            schedule.last.as_ref().map_or_else(|| "-".to_owned(), |last| minute(last.nominal_at)),
            schedule.last.as_ref().map_or_else(|| "-".to_owned(), came_to),
        ]);
    }
    printer.data(&table.draw());
}

/// A firing is meant for a minute.
fn minute(moment: forge_api::Timestamp) -> String {
    let text = moment.to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

fn came_to(last: &Firing) -> String {
    match (last.task, &last.message) {
        (Some(task), _) => format!("task {task}"),
        (None, Some(message)) => message.clone(),
        (None, None) => "-".to_owned(),
    }
}
