//! `forge webhook`.

use clap::{Args, Subcommand};
use forge_api::DeliveryState;

use super::client::Ask;

/// How many deliveries a listing shows when nothing is said.
const LISTED: u32 = 50;

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// List targets, or the deliveries of one or in one state
    List(ListDeliveries),
    /// Show one delivery: what is told, and what the last try came to
    Show(OneDelivery),
    /// Send deliveries once more, with the same ids
    Redeliver(Redeliver),
    /// Tell a target of an event that was made up, and wait for what comes of it
    Test(TestTarget),
}

#[derive(Debug, Args)]
pub(crate) struct ListDeliveries {
    /// The target whose deliveries are listed
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Only deliveries in this state: waiting, delivered, skipped or dead
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<DeliveryState>,
    /// The most deliveries to list, newest first
    #[arg(long, value_name = "COUNT", default_value_t = LISTED, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct OneDelivery {
    /// The delivery's id, as `forge webhook list --target` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Redeliver {
    /// The deliveries' ids
    #[arg(value_name = "ID", required_unless_present = "dead", conflicts_with = "dead")]
    pub(crate) ids: Vec<String>,
    /// Every dead delivery of this target
    #[arg(long, value_name = "TARGET")]
    pub(crate) dead: Option<String>,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct TestTarget {
    /// The target: webhooks/NAME.toml
    #[arg(value_name = "NAME")]
    pub(crate) target: String,
    /// The event that is made up, such as task.finished; by default the first that the target is told of
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
    #[command(flatten)]
    pub(crate) at: Ask,
}
