//! Webhook targets and what was delivered to them, as people see them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is sent, or sent again, when its time comes.
    Waiting,
    /// It arrived.
    Delivered,
    /// Its target's plugin has nothing to say about the event.
    Skipped,
    /// It never will arrive by itself: `forge webhook redeliver` tries again.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Delivered, Self::Skipped, Self::Dead];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery is waiting, delivered, skipped or dead")]
pub struct DeliveryStateError;

impl FromStr for DeliveryState {
    type Err = DeliveryStateError;

    fn from_str(text: &str) -> Result<Self, DeliveryStateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(DeliveryStateError)
    }
}

/// A webhook target and how its deliveries stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookTarget {
    /// `webhooks/NAME.toml`.
    pub name: String,
    /// Its plugin; null where the tree has no such target any more.
    pub plugin: Option<String>,
    /// What it is told of.
    pub events: Vec<String>,
    /// Deliveries that wait.
    pub waiting: u64,
    /// Deliveries that arrived, as far as they are remembered.
    pub delivered: u64,
    /// Deliveries that its plugin had nothing to say about.
    pub skipped: u64,
    /// Deliveries that never will arrive by themselves.
    pub dead: u64,
}

/// One delivery: an event for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookDelivery {
    /// The same for every try: `Forge-Delivery`.
    pub id: String,
    /// The target.
    pub target: String,
    /// What happened, such as `task.finished`.
    pub event: String,
    /// What it is about, such as `task 42`: those about one subject go out in their order.
    pub subject: String,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next; null at its end, and while an earlier one about the same subject goes first.
    pub next_at: Option<Timestamp>,
    /// What the last try came to, where it did not arrive.
    pub message: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was tried last.
    pub tried_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The last try's requests.
    pub exchanges: Vec<WebhookExchange>,
    /// What is told; in a listing it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// One request of a try: no secret, and no body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookExchange {
    /// Such as `POST`.
    pub method: String,
    /// With `{{secret:FIELD}}` in the place of each secret.
    pub url: String,
    /// The answer's status; null where there was none.
    pub status: Option<u16>,
    /// Why there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Asks for a test of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestWebhook {
    /// The event that is played, such as `task.finished`; by default the first that the target is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}
