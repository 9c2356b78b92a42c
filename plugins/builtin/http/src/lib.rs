//! The built-in `http` webhook target: one request for each event, signed, with the event as its body or a text of one's own.

mod template;

use std::collections::BTreeMap;

use forge_plugin::webhook::{Event, HmacHeader, Method, Request, Signing};
use forge_plugin::{Info, JsonSchema, WebhookTarget, schemars};
use serde::Deserialize;
use serde_json::Value;

/// The target.
#[derive(Debug)]
pub struct Http;

forge_plugin::export!(Http as WebhookTarget);

/// A target's `[config]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the request goes; it may be a secret. Its host must stand in `[allow].hosts` of the plugin
    #[schemars(length(min = 1))]
    url: String,
    /// The request's method
    #[serde(default)]
    method: Verb,
    /// The body, with `{{task.number}}` and the like in the place of what the event says; the event itself as JSON when absent
    #[serde(default)]
    body: Option<String>,
    /// What kind of text the body is; in one of JSON what is put in is escaped
    #[serde(default = "json_type")]
    content_type: String,
    /// Further headers by name
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The header `Authorization`, such as `Bearer ...`: a secret
    #[serde(default)]
    authorization: Option<String>,
    /// How the request is signed with the target's `secret`: `Forge-Signature`, as GitHub does (`X-Hub-Signature-256`), or not at all
    #[serde(default)]
    sign: Sign,
}

/// A method.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
enum Verb {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "PATCH")]
    Patch,
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "DELETE")]
    Delete,
}

/// How a request is signed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Sign {
    #[default]
    Forge,
    Github,
    None,
}

fn json_type() -> String {
    "application/json".to_owned()
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Post => Self::Post,
            Verb::Put => Self::Put,
            Verb::Patch => Self::Patch,
            Verb::Get => Self::Get,
            Verb::Delete => Self::Delete,
        }
    }
}

impl WebhookTarget for Http {
    fn describe() -> Info {
        Info::new("http", env!("CARGO_PKG_VERSION"), "Sends an HTTP request for each event").params::<Config>()
    }

    fn plan(event: &Event) -> Result<Vec<Request>, String> {
        let Config { url, method, body, content_type, headers, authorization, sign } = event.config()?;
        let mut request = Request::new(method.into(), url);
        if matches!(method, Verb::Post | Verb::Put | Verb::Patch) {
            let body = match body {
                None => event.payload_json.clone(),
                Some(text) => {
                    let payload = event.payload::<Value>()?;
                    let escape =
                        if content_type.contains("json") { template::Escape::Json } else { template::Escape::No };
                    template::fill(&text, &payload, escape)?
                }
            };
            request = request.header("Content-Type", content_type).body(body);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        Ok(vec![request.signed(match sign {
            Sign::Forge => Signing::Forge,
            Sign::Github => Signing::HmacSha256(HmacHeader {
                name: "X-Hub-Signature-256".to_owned(),
                prefix: "sha256=".to_owned(),
                key: None,
            }),
            Sign::None => Signing::None,
        })])
    }
}
