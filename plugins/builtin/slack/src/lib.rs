//! The built-in `slack` webhook target: one message for each event, through an incoming webhook or as a bot (`chat.postMessage`).
//!
//! Slack answers a bot with 200 also where it refuses: what counts is `ok` in the body.

mod message;

use forge_plugin::webhook::{Disposition, Event, Request, Response, RetryAfter, Sent};
use forge_plugin::{Info, JsonSchema, WebhookTarget, schemars};
use serde::{Deserialize, Serialize};

/// Where a bot speaks.
const POST_MESSAGE: &str = "https://slack.com/api/chat.postMessage";

/// The host of both ways.
const HOSTS: [&str; 2] = ["hooks.slack.com", "slack.com"];

/// What Slack says when it is to be tried again.
const PASSING: [&str; 6] =
    ["ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"];

/// The target.
#[derive(Debug)]
pub struct Slack;

forge_plugin::export!(Slack as WebhookTarget);

/// A target's `[config]`: `url` of an incoming webhook, or `token` and `channel` of a bot.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The incoming webhook's URL: a secret
    #[serde(default)]
    url: Option<String>,
    /// The bot's token (`xoxb-...`): a secret
    #[serde(default)]
    token: Option<String>,
    /// The channel that the bot speaks in, by its id or as `#name`
    #[serde(default)]
    channel: Option<String>,
    /// Where a bot speaks, for a Slack behind a proxy of one's own
    #[serde(default)]
    endpoint: Option<String>,
    /// Whom each message mentions, such as `<!here>` or `<@U012AB3CD>`
    #[serde(default)]
    mention: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    text: String,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
}

impl WebhookTarget for Slack {
    fn describe() -> Info {
        Info::new("slack", env!("CARGO_PKG_VERSION"), "Tells a Slack channel").params::<Config>().wants_hosts(&HOSTS)
    }

    fn plan(event: &Event) -> Result<Vec<Request>, String> {
        let Config { url, token, channel, endpoint, mention } = event.config()?;
        let mut text = message::text(&event.kind, &event.payload()?);
        if let Some(mention) = mention {
            text = format!("{mention} {text}");
        }
        let request = match (url, token, &channel) {
            (Some(url), None, None) => Request::post(url),
            (None, Some(token), Some(_)) => Request::post(endpoint.as_deref().unwrap_or(POST_MESSAGE))
                .header("Authorization", format!("Bearer {token}")),
            _ => {
                return Err("[config]: write either `url`, of an incoming webhook, or `token` and `channel`, of a bot"
                    .to_owned());
            }
        };
        // A charset is asked for by chat.postMessage, and no harm to the other.
        let body = serde_json::to_vec(&Message { channel: channel.as_deref(), text })
            .map_err(|error| format!("the message does not go into JSON: {error}"))?;
        Ok(vec![request.header("Content-Type", "application/json; charset=utf-8").body(body)])
    }

    fn judge(_event: &Event, sent: &Sent, response: &Response) -> Disposition {
        let is_bot = sent.request.header_value("authorization").is_some();
        if !is_bot || !response.is_success() {
            return match response.usual() {
                // What Slack refuses, it names in its body.
                Disposition::GiveUp(message) if !response.body.is_empty() => {
                    Disposition::GiveUp(format!("{message}: {}", message::short(&response.text())))
                }
                other => other,
            };
        }
        match response.json::<Answer>() {
            Ok(Answer { ok: true, .. }) => Disposition::Done,
            Ok(Answer { ok: false, error }) => {
                let error = error.unwrap_or_else(|| "no reason".to_owned());
                let message = format!("Slack refused: {}", message::short(&error));
                if PASSING.contains(&error.as_str()) {
                    Disposition::Retry(RetryAfter { message, after_ms: None })
                } else {
                    Disposition::GiveUp(message)
                }
            }
            Err(error) => {
                Disposition::Retry(RetryAfter { message: format!("no answer of Slack's: {error}"), after_ms: None })
            }
        }
    }
}
