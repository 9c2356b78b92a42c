//! Following a task to its end: over its attempts, and over a daemon that is away for a while.

use std::time::{Duration, Instant};

use forge_api::{Task, TaskState};

use crate::client::Client;
use crate::error::CliError;
use crate::printer::Printer;

/// How often a queued task is asked why it waits.
const WHY_INTERVAL: Duration = Duration::from_secs(2);

/// How often a task that waits for a person is looked at.
const ASKED_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before asking again after nothing new came.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a daemon may be away before following gives up.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// How far a log was read.
#[derive(Debug, Default)]
struct Place {
    attempt: u32,
    offset: u64,
    /// What was said last of a task that waits for a person.
    asked: String,
    /// What was said last of a task that waits for a runner.
    told: String,
}

/// Follows a task's log until the task is final and its log is whole; every byte goes to `sink` once.
pub(crate) async fn follow(
    client: &Client,
    number: u64,
    printer: &Printer,
    mut sink: impl FnMut(&[u8]),
) -> Result<Task, CliError> {
    let mut place = Place::default();
    let mut away_since: Option<Instant> = None;
    loop {
        match step(client, number, &mut place, printer, &mut sink).await {
            Ok(Some(task)) => return Ok(task),
            Ok(None) => away_since = None,
            Err(error) if error.is_transient() => {
                let since = *away_since.get_or_insert_with(|| {
                    printer.aside(&format!("{error}; waiting for the daemon, task {number} goes on without us"));
                    Instant::now()
                });
                if since.elapsed() > AWAY_MAX {
                    return Err(error);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads what there is of the newest attempt's log until the attempt is over; answers the task once it is final and read.
async fn step(
    client: &Client,
    number: u64,
    place: &mut Place,
    printer: &Printer,
    sink: &mut impl FnMut(&[u8]),
) -> Result<Option<Task>, CliError> {
    let task = client.task(number).await?;
    if task.attempt != place.attempt {
        if place.attempt > 0 {
            printer.aside(&format!("task {number}: attempt {}", task.attempt));
        }
        *place = Place { attempt: task.attempt, ..Place::default() };
    }
    if task.state.is_final() && (task.attempt == 0 || place.offset >= task.log_bytes) {
        return Ok(Some(task));
    }
    let before = place.offset;
    let Place { attempt, offset, asked: _, told } = place;
    let reading = async {
        let stream = client.follow_log(number, *attempt, *offset).await?;
        // What was waited for is the first attempt.
        *attempt = (*attempt).max(1);
        stream
            .copy_to(|bytes| {
                *offset = offset.saturating_add(bytes.len() as u64);
                sink(bytes);
            })
            .await
    };
    if task.state == TaskState::Queued {
        tokio::select! {
            read = reading => read?,
            Err(error) = tell_why(client, number, told, printer) => return Err(error),
        }
    } else {
        reading.await?;
    }
    if place.offset > before {
        return Ok(None);
    }
    if task.state == TaskState::AwaitingApproval && place.offset >= task.log_bytes {
        ask_for_approval(client, number, place, printer).await?;
        tokio::time::sleep(ASKED_INTERVAL).await;
    } else {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}

/// Says once what a task has planned and how to decide about it.
async fn ask_for_approval(client: &Client, number: u64, place: &mut Place, printer: &Printer) -> Result<(), CliError> {
    let why = client.why(number).await?;
    if why.state == TaskState::AwaitingApproval && why.message != place.asked {
        printer.aside(&format!("task {number}: {}", why.message));
        if let Some(remedy) = &why.remedy {
            printer.aside(remedy);
        }
        place.asked = why.message;
    }
    Ok(())
}

/// Says why a queued task waits, whenever that changes; ends once the task waits no more.
async fn tell_why(client: &Client, number: u64, told: &mut String, printer: &Printer) -> Result<(), CliError> {
    loop {
        let why = client.why(number).await?;
        if why.state != TaskState::Queued {
            return Ok(());
        }
        if why.message != *told {
            printer.aside(&format!("task {number}: {}", why.message));
            *told = why.message;
        }
        tokio::time::sleep(WHY_INTERVAL).await;
    }
}
