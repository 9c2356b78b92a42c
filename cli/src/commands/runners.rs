//! `forge runners`: who is there, what they do, and who may go on.

use std::process::ExitCode;

use forge_api::{Health, Runner};

use super::CLIENT_THREADS;
use crate::args::{OutputFormat, RunnersCommand};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};

pub(crate) fn run(command: RunnersCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        match command {
            RunnersCommand::List(at) => {
                let page = Client::connect(&at.connection)?.runners().await?;
                match at.output {
                    OutputFormat::Json => printer.json(&page),
                    OutputFormat::Text => list(&page.items, printer),
                }
            }
            RunnersCommand::Show(one) => {
                let runner = Client::connect(&one.at.connection)?.runner(&one.name).await?;
                show(&runner, one.at.output, printer);
            }
            RunnersCommand::Drain(one) => {
                let runner = Client::connect(&one.at.connection)?.drain_runner(&one.name).await?;
                show(&runner, one.at.output, printer);
            }
            RunnersCommand::Resume(one) => {
                let runner = Client::connect(&one.at.connection)?.resume_runner(&one.name).await?;
                show(&runner, one.at.output, printer);
            }
            RunnersCommand::Remove(one) => {
                Client::connect(&one.at.connection)?.remove_runner(&one.name).await?;
                printer.done(&format!("removed {}: its token is refused from now on", one.name));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn list(runners: &[Runner], printer: &Printer) {
    if runners.is_empty() {
        printer
            .aside("no runner is declared or registered; `forge runner register --stdin-registration-token` adds one");
        return;
    }
    let mut table = Table::new(&[
        "NAME",
        "STATUS",
        "PROJECT",
        "TAGS",
        "RUNNING",
        "LIMIT",
        "LOAD",
        "MEMORY",
        "DISK",
        "CLOCK",
        "VERSION",
        "LAST CONTACT",
    ]);
    let measured =
        |runner: &Runner, show: fn(&Health) -> String| runner.health.as_ref().map_or_else(|| "-".to_owned(), show);
    for runner in runners {
        table.row([
            runner.name.clone(),
            runner.status.as_str().to_owned(),
            runner.project.clone().unwrap_or_else(|| "-".to_owned()),
            tags(runner),
            runner.running.to_string(),
            limit(runner),
            measured(runner, |health| format!("{:.2}", health.load1)),
            measured(runner, |health| bytes(health.memory_bytes_free)),
            measured(runner, |health| bytes(health.disk_bytes_free)),
            measured(runner, |health| health.clock_skew_ms.map_or_else(|| "-".to_owned(), clock)),
            runner.version.clone(),
            runner.last_contact_at.map_or_else(|| "-".to_owned(), |moment| moment.to_string()),
        ]);
    }
    printer.data(&table.draw());
}

fn show(runner: &Runner, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(runner);
    }
    let mut table = Table::new(&["name", &runner.name]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("status", runner.status.as_str().to_owned());
    row("project", runner.project.clone().unwrap_or_else(|| "- (global)".to_owned()));
    row("tags", tags(runner));
    row("running", runner.running.to_string());
    row("limit", limit(runner));
    row("version", runner.version.clone());
    row("last contact", runner.last_contact_at.map_or_else(|| "never".to_owned(), |moment| moment.to_string()));
    if let Some(health) = runner.health {
        row("load", format!("{:.2}", health.load1));
        row("memory free", bytes(health.memory_bytes_free));
        row("disk free", bytes(health.disk_bytes_free));
        if let Some(skew) = health.clock_skew_ms {
            row("clock", clock(skew));
        }
    }
    row("public key", runner.public_key.clone().unwrap_or_else(|| "- (not registered)".to_owned()));
    printer.data(&table.draw());
}

fn tags(runner: &Runner) -> String {
    if runner.tags.is_empty() { "-".to_owned() } else { runner.tags.join(",") }
}

fn limit(runner: &Runner) -> String {
    match runner.max_parallel_tasks {
        0 => "unlimited".to_owned(),
        limit => limit.to_string(),
    }
}

/// How a runner's clock stands to the daemon's. Less than a second is the way of a request.
fn clock(skew_ms: i64) -> String {
    let seconds = skew_ms.unsigned_abs() / 1_000;
    match (seconds, skew_ms > 0) {
        (0, _) => "right".to_owned(),
        (seconds, true) => format!("{seconds}s ahead"),
        (seconds, false) => format!("{seconds}s behind"),
    }
}

/// A number of bytes in the largest binary unit that keeps it at 1 or more.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::{bytes, clock};

    #[test]
    fn a_clock_is_right_ahead_or_behind() {
        assert_eq!([clock(0), clock(999), clock(-999)], ["right", "right", "right"]);
        assert_eq!([clock(75_400), clock(-2_000)], ["75s ahead", "2s behind"]);
    }

    #[test]
    fn bytes_are_shown_in_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
