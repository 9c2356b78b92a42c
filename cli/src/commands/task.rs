//! `forge task`: list, show, log, cancel, retry, why, approve, reject.

use std::process::ExitCode;

use forge_api::{Decision, Task, TaskState, Why};

use super::{CLIENT_THREADS, follow::follow};
use crate::args::{DecideTask, ListTasks, OneTask, OutputFormat, RetryTask, TaskCommand};
use crate::client::{Client, TaskQuery};
use crate::error::CliError;
use crate::printer::{Printer, Table};

pub(crate) fn run(command: TaskCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        match command {
            TaskCommand::List(arguments) => list(&arguments, printer).await?,
            TaskCommand::Show(one) => {
                let task = Client::connect(&one.at.connection)?.task(one.number).await?;
                show(&task, one.at.output, printer);
            }
            TaskCommand::Log { number, follow: goes_on, connection } => {
                let client = Client::connect(&connection)?;
                if goes_on {
                    follow(&client, number, printer, |bytes| printer.data_bytes(bytes)).await?;
                } else {
                    client.log(number).await?.copy_to(|bytes| printer.data_bytes(bytes)).await?;
                }
            }
            TaskCommand::Cancel(one) => {
                let task = Client::connect(&one.at.connection)?.cancel(one.number).await?;
                changed(&task, "cancel", one.at.output, printer);
            }
            TaskCommand::Retry(arguments) => retry(arguments, printer).await?,
            TaskCommand::Why(one) => {
                let why = Client::connect(&one.at.connection)?.why(one.number).await?;
                explain(&why, one.at.output, printer);
            }
            TaskCommand::Approve(arguments) => decide(arguments, Word::Approve, printer).await?,
            TaskCommand::Reject(arguments) => decide(arguments, Word::Reject, printer).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn retry(RetryTask { one: OneTask { number, at }, now }: RetryTask, printer: &Printer) -> Result<(), CliError> {
    let client = Client::connect(&at.connection)?;
    let task = client.retry(number, &forge_api::RetryTask { now }).await?;
    changed(&task, "retry", at.output, printer);
    if at.output == OutputFormat::Text && task.state == TaskState::Queued {
        let why = client.why(number).await?;
        for held in why.unmet.iter().filter(|unmet| unmet.code == "may_still_run") {
            printer.aside(&held.message);
            printer.aside(&format!("to change it: {}", held.remedy));
        }
    }
    Ok(())
}

/// What a person says about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Approve,
    Reject,
}

async fn decide(arguments: DecideTask, word: Word, printer: &Printer) -> Result<(), CliError> {
    let DecideTask { one: OneTask { number, at }, reason, attempt } = arguments;
    let client = Client::connect(&at.connection)?;
    let planned = client.task(number).await?;
    if word == Word::Approve && attempt.is_none() && planned.attempt > 1 && planned.state == TaskState::AwaitingApproval
    {
        return Err(CliError::failed(format_args!(
            "task {number} has planned more than once, last in attempt {}",
            planned.attempt
        ))
        .hint(format_args!(
            "look at that plan with `forge task log {number}`, then `forge task approve {number} --attempt {}`",
            planned.attempt
        )));
    }
    // What is decided about is what is shown here, whatever happens meanwhile.
    let decision = Decision { attempt: attempt.or(Some(planned.attempt)), reason };
    let task = match word {
        Word::Approve => client.approve(number, &decision).await?,
        Word::Reject => client.reject(number, &decision).await?,
    };
    if at.output == OutputFormat::Json {
        printer.json(&task);
        return Ok(());
    }
    let plan = planned.summary.as_ref().and_then(|summary| summary.get("text")?.as_str());
    let plan = plan.map_or_else(String::new, |plan| format!(": {plan}"));
    match word {
        Word::Approve => {
            printer.done(&format!("task {number} goes on with what attempt {} has planned{plan}", planned.attempt));
            printer.aside(&format!("`forge task log {number} --follow` follows it"));
        }
        Word::Reject => printer.done(&format!("task {number} is {}: nothing of its plan was done{plan}", task.state)),
    }
    Ok(())
}

async fn list(arguments: &ListTasks, printer: &Printer) -> Result<(), CliError> {
    if let Some(state) = &arguments.state {
        state.parse::<TaskState>().map_err(CliError::usage)?;
    }
    let query = TaskQuery {
        project: arguments.project.as_deref(),
        template: arguments.template.as_deref(),
        state: arguments.state.as_deref(),
        limit: arguments.limit,
    };
    let page = Client::connect(&arguments.at.connection)?.tasks(&query).await?;
    match arguments.at.output {
        OutputFormat::Json => printer.json(&page),
        OutputFormat::Text if page.items.is_empty() => printer.aside("no tasks"),
        OutputFormat::Text => {
            printer.data(&table(&page.items));
            if page.next_cursor.is_some() {
                printer.aside(&format!("more follow; --limit {} shows them", arguments.limit.saturating_mul(5)));
            }
        }
    }
    Ok(())
}

/// Tasks as a table, one a line.
pub(crate) fn table(tasks: &[Task]) -> String {
    let mut table = Table::new(&["TASK", "PROJECT/TEMPLATE", "STATE", "RUNNER", "TOOK", "CREATED", "REASON"]);
    for task in tasks {
        table.row([
            task.number.to_string(),
            template(task),
            task.state.to_string(),
            task.runner.clone().unwrap_or_else(|| "-".to_owned()),
            took(task),
            task.created_at.to_string(),
            task.reason.clone().unwrap_or_default(),
        ]);
    }
    table.draw()
}

/// Which template a task is of, and whether that is gone.
fn template(task: &Task) -> String {
    let removed = if task.template_removed { " (removed)" } else { "" };
    format!("{}/{}{removed}", task.project, task.template)
}

/// How long the newest attempt ran, or `-` before its end.
pub(crate) fn took(task: &Task) -> String {
    match (task.started_at, task.finished_at) {
        (Some(started), Some(finished)) => {
            let millis = finished.millis_since(started);
            if millis < 1_000 { format!("{millis} ms") } else { format!("{:.1} s", millis as f64 / 1_000.0) }
        }
        (Some(_) | None, _) => "-".to_owned(),
    }
}

/// One task in full.
pub(crate) fn show(task: &Task, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(task);
    }
    let mut table = Table::new(&["task", &task.number.to_string()]);
    let mut row =
        |name: &str, value: Option<String>| table.row([name.to_owned(), value.unwrap_or_else(|| "-".to_owned())]);
    row("template", Some(template(task)));
    row("state", Some(task.state.to_string()));
    row("reason", task.reason.clone());
    row("attempt", Some(task.attempt.to_string()));
    row("runner", task.runner.clone());
    row("required tag", task.required_tag.clone());
    row("revision", Some(task.revision.clone()));
    if let (Some(author), Some(subject)) = (&task.revision_author, &task.revision_subject) {
        row("revision by", Some(author.clone()));
        row("revision says", Some(subject.clone()));
    }
    row("commit", task.commit.clone());
    if let Some(approved) = &task.approved {
        row("approved", Some(format!("by {} at {}", approved.by, approved.at)));
    }
    row("exit code", task.exit_code.map(|code| code.to_string()));
    let trigger = serde_json::to_value(task.trigger.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    row("trigger", trigger.map(|kind| format!("{kind} by {}", task.trigger.by)));
    row("created", Some(task.created_at.to_string()));
    row("assigned", task.assigned_at.map(|moment| moment.to_string()));
    row("started", task.started_at.map(|moment| moment.to_string()));
    row("finished", task.finished_at.map(|moment| moment.to_string()));
    let damaged = if task.log_damaged { ", damaged: not all that its process wrote is there" } else { "" };
    row("log", Some(format!("{} bytes{damaged}", task.log_bytes)));
    for (name, value) in &task.variables {
        row(&format!("variable {name}"), Some(value.to_string()));
    }
    row("summary", task.summary.as_ref().map(ToString::to_string));
    printer.data(&table.draw());
}

fn changed(task: &Task, asked: &str, output: OutputFormat, printer: &Printer) {
    match output {
        OutputFormat::Json => printer.json(task),
        OutputFormat::Text if task.state.is_final() || task.state == TaskState::Queued => {
            printer.done(&format!("task {} is {}", task.number, task.state));
            if !task.state.is_final() {
                printer.aside(&format!("`forge task log {} --follow` follows it", task.number));
            }
        }
        OutputFormat::Text => {
            printer.done(&format!("asked to {asked} task {}, which is {}", task.number, task.state));
            printer.aside(&format!("`forge task log {} --follow` shows its end", task.number));
        }
    }
}

fn explain(why: &Why, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(why);
    }
    printer.data(&format!("task {} is {}: {}", why.number, why.state, why.message));
    for unmet in &why.unmet {
        printer.data(&format!("  - {}", unmet.message));
        // An older daemon does not say it.
        if !unmet.remedy.is_empty() {
            printer.data(&format!("    to change it: {}", unmet.remedy));
        }
    }
    if let Some(remedy) = &why.remedy {
        printer.data(&format!("to change it: {remedy}"));
    }
    if let (Some(deadline), Some(then)) = (why.deadline, &why.at_deadline) {
        printer.data(&format!("at {deadline}: {then}"));
    }
}
