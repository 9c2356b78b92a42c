//! `forge webhook`: who is told of what, what came of it, and telling once more.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use forge_api::{DeliveryState, TestWebhook, WebhookDelivery, WebhookTarget};

use super::CLIENT_THREADS;
use crate::args::{OutputFormat, WebhookCommand};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::{Printer, Table};

/// How often a test asks what came of it.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a test waits for its first try: the longest that a try may take, and a little.
const TRY_WAIT_MAX: Duration = Duration::from_secs(130);

/// The most dead deliveries that are sent once more at a time.
const REDELIVERED_MAX: u32 = 10_000;

pub(crate) fn run(command: WebhookCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    crate::runtime::run(CLIENT_THREADS, async {
        match command {
            WebhookCommand::List(asked) => {
                let client = Client::connect(&asked.at.connection)?;
                let json = asked.at.output == OutputFormat::Json;
                if asked.target.is_none() && asked.state.is_none() {
                    let page = client.webhook_targets().await?;
                    if json { printer.json(&page) } else { targets(&page.items, printer) }
                } else {
                    let state = asked.state.map(DeliveryState::as_str);
                    let page = client.deliveries(asked.target.as_deref(), state, asked.limit).await?;
                    if json { printer.json(&page) } else { deliveries(&page.items, printer) }
                }
            }
            WebhookCommand::Show(one) => {
                let delivery = Client::connect(&one.at.connection)?.delivery(&one.id).await?;
                show(&delivery, one.at.output, printer);
            }
            WebhookCommand::Redeliver(asked) => {
                let client = Client::connect(&asked.at.connection)?;
                let mut more_are_left = false;
                let ids = match &asked.dead {
                    None => asked.ids,
                    Some(target) => {
                        let dead = DeliveryState::Dead.as_str();
                        let page = client.deliveries(Some(target), Some(dead), REDELIVERED_MAX).await?;
                        more_are_left = page.next_cursor.is_some();
                        // The oldest first: what happened first is told first.
                        page.items.into_iter().rev().map(|delivery| delivery.id).collect()
                    }
                };
                for id in &ids {
                    client.redeliver(id).await?;
                }
                match ids.len() {
                    0 => printer.aside("no delivery of this target is dead"),
                    1 => printer.done("1 delivery is sent once more: `forge webhook show ID` says what came of it"),
                    many => printer.done(&format!("{many} deliveries are sent once more")),
                }
                if more_are_left {
                    printer.aside("those are the newest, and older ones are left: the same command again sends them");
                }
            }
            WebhookCommand::Test(asked) => {
                let client = Client::connect(&asked.at.connection)?;
                let made = client.test_webhook(&asked.target, &TestWebhook { event: asked.event }).await?;
                let tried = until_tried(&client, made).await?;
                show(&tried, asked.at.output, printer);
                return Ok(match tried.state {
                    DeliveryState::Delivered | DeliveryState::Skipped => ExitCode::SUCCESS,
                    DeliveryState::Waiting | DeliveryState::Dead => ExitCode::FAILURE,
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The delivery once it was tried.
async fn until_tried(client: &Client, mut delivery: WebhookDelivery) -> Result<WebhookDelivery, CliError> {
    let until = Instant::now() + TRY_WAIT_MAX;
    while delivery.tries == 0 && delivery.state == DeliveryState::Waiting {
        if Instant::now() > until {
            let hint = format!("others may go first: see `forge webhook list --target {}`", delivery.target);
            return Err(CliError::failed("the delivery was not tried in time").hint(hint));
        }
        tokio::time::sleep(ASK_INTERVAL).await;
        delivery = client.delivery(&delivery.id).await?;
    }
    Ok(delivery)
}

fn targets(targets: &[WebhookTarget], printer: &Printer) {
    if targets.is_empty() {
        return printer.aside("the tree has no webhook target; webhooks/NAME.toml declares one");
    }
    let mut table = Table::new(&["TARGET", "PLUGIN", "WAITING", "DELIVERED", "SKIPPED", "DEAD", "EVENTS"]);
    for target in targets {
        table.row([
            target.name.clone(),
            target.plugin.clone().unwrap_or_else(|| "- (not in the tree)".to_owned()),
            target.waiting.to_string(),
            target.delivered.to_string(),
            target.skipped.to_string(),
            target.dead.to_string(),
            target.events.join(","),
        ]);
    }
    printer.data(&table.draw());
    if targets.iter().any(|target| target.dead > 0) {
        printer.aside("`forge webhook list --state dead` shows what never arrived, and why");
    }
}

fn deliveries(deliveries: &[WebhookDelivery], printer: &Printer) {
    if deliveries.is_empty() {
        return printer.aside("there is no such delivery");
    }
    let mut table = Table::new(&["ID", "TARGET", "EVENT", "ABOUT", "STATE", "TRIES", "MADE", "LAST TRY CAME TO"]);
    for delivery in deliveries {
        table.row([
            delivery.id.clone(),
            delivery.target.clone(),
            delivery.event.clone(),
            delivery.subject.clone(),
            delivery.state.to_string(),
            delivery.tries.to_string(),
            delivery.created_at.to_string(),
            delivery.message.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    printer.data(&table.draw());
}

fn show(delivery: &WebhookDelivery, output: OutputFormat, printer: &Printer) {
    if output == OutputFormat::Json {
        return printer.json(delivery);
    }
    let mut table = Table::new(&["id", &delivery.id]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("target", delivery.target.clone());
    row("event", delivery.event.clone());
    row("about", delivery.subject.clone());
    row("state", delivery.state.to_string());
    row("tries", delivery.tries.to_string());
    if let Some(message) = &delivery.message {
        row("came to", message.clone());
    }
    row("made", delivery.created_at.to_string());
    for (name, moment) in
        [("last try", delivery.tried_at), ("next try", delivery.next_at), ("ended", delivery.ended_at)]
    {
        if let Some(moment) = moment {
            row(name, moment.to_string());
        }
    }
    for exchange in &delivery.exchanges {
        let outcome = match (exchange.status, &exchange.error) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) => error.clone(),
            (None, None) => "no answer".to_owned(),
        };
        row("request", format!("{} {}: {outcome} ({} ms)", exchange.method, exchange.url, exchange.took_ms));
    }
    printer.data(&table.draw());
    if let Some(payload) = delivery.payload.as_ref().and_then(|payload| serde_json::to_string_pretty(payload).ok()) {
        printer.data(&format!("\n{payload}"));
    }
}
