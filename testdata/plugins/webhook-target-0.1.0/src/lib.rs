//! A webhook target that uses all of `forge:plugin@0.1.0`: every signing, every answer, and what it is told of an event.

use forge_plugin::webhook::{
    AwsCredentials, Disposition, Event, HmacHeader, Method, Request, Response, RetryAfter, Sent, Signing,
};
use forge_plugin::{Info, JsonSchema, Level, WebhookTarget, log, schemars};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where it tells
    url: String,
    /// A placeholder for what it says to be let in
    token: String,
    /// What it does with an event
    #[serde(default)]
    doing: Doing,
}

/// What it does with an event
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Doing {
    /// Tells of it
    #[default]
    Tell,
    /// Keeps it to itself
    Nothing,
    /// Refuses it
    Refuse,
    /// Panics
    Panic,
}

/// What all targets of the plugin share.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shared {
    /// Who tells
    sender: String,
}

/// What the sender of an event says of it.
#[derive(Deserialize, Serialize)]
struct Payload {
    task: u64,
}

/// What it says.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    kind: &'a str,
    at_ms: u64,
    attempt: u32,
    task: u64,
    sender: String,
}

/// The plugin.
pub struct Kept;

forge_plugin::export!(Kept as WebhookTarget);

impl WebhookTarget for Kept {
    fn describe() -> Info {
        Info::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .params::<Config>()
            .config::<Shared>()
            .wants_hosts(&["example.com", "http://127.0.0.1:8080"])
    }

    fn plan(event: &Event) -> Result<Vec<Request>, String> {
        let Config { url, token, doing } = event.config()?;
        let Shared { sender } = event.plugin_config()?;
        let Payload { task } = event.payload()?;
        log(Level::Info, &format!("{} of {sender}", event.kind));
        match doing {
            Doing::Tell => {}
            Doing::Nothing => return Ok(Vec::new()),
            Doing::Refuse => return Err("as asked".to_owned()),
            Doing::Panic => panic!("as asked"),
        }
        let told = Told { id: &event.id, kind: &event.kind, at_ms: event.at_ms, attempt: event.attempt, task, sender };
        let hmac = HmacHeader { name: "X-Sign".to_owned(), prefix: "sha256=".to_owned(), key: Some(token.clone()) };
        let aws = AwsCredentials {
            region: "eu-central-1".to_owned(),
            service: "lambda".to_owned(),
            access_key_id: "key".to_owned(),
            secret_access_key: token.clone(),
            session_token: None,
        };
        Ok(vec![
            Request::post(url.as_str())
                .header("Authorization", format!("Bearer {token}"))
                .json(&told)?
                .timeout_ms(500)
                .signed(Signing::Forge),
            Request::new(Method::Put, url.as_str()).body("put").signed(Signing::HmacSha256(hmac)),
            Request::new(Method::Patch, url.as_str()).body("patch").signed(Signing::AwsSigv4(aws)),
            Request::new(Method::Delete, url.as_str()),
            Request::get(url),
        ])
    }

    fn judge(event: &Event, sent: &Sent, response: &Response) -> Disposition {
        match response.status {
            // What follows is made of all that a guest is told: it remembers nothing.
            202 if sent.round == 0 => {
                let place = format!("{}/{}?{}", sent.request.url, sent.index, response.text());
                let came = response.header_value("x-place").unwrap_or("none").to_owned();
                Disposition::Then(vec![Request::get(place).header("X-Came", came)])
            }
            208 => Disposition::Skip(format!("it knew of {}", event.kind)),
            423 => Disposition::Retry(RetryAfter { message: "later".to_owned(), after_ms: Some(5) }),
            500 => panic!("as asked"),
            _ => response.usual(),
        }
    }
}
