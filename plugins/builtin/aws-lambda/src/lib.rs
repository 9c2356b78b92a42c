//! The built-in `aws-lambda` webhook target: invokes a function for each event, signed by Forge with AWS Signature Version 4.

use forge_plugin::webhook::{AwsCredentials, Disposition, Event, Request, Response, RetryAfter, Sent, Signing};
use forge_plugin::{Info, JsonSchema, WebhookTarget, schemars};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The header in which Lambda says that the function itself failed, with a status of 200.
const FUNCTION_ERROR: &str = "x-amz-function-error";

/// The most characters of a function's own words that are kept.
const WORDS_CHARS_MAX: usize = 300;

/// The target.
#[derive(Debug)]
pub struct AwsLambda;

forge_plugin::export!(AwsLambda as WebhookTarget);

/// A target's `[config]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The function's name or ARN
    #[schemars(length(min = 1))]
    function: String,
    /// The region, such as `eu-central-1`
    #[schemars(length(min = 1))]
    region: String,
    /// `Event` has Lambda queue the call and answer at once; `RequestResponse` waits for the function's end
    #[serde(default)]
    invocation: Invocation,
    /// Another endpoint than the region's own, such as one of a private network
    #[serde(default)]
    endpoint: Option<String>,
    /// The access key's id
    #[schemars(length(min = 1))]
    access_key_id: String,
    /// The access key: a secret
    #[schemars(length(min = 1))]
    secret_access_key: String,
    /// The session's token of temporary credentials: a secret
    #[serde(default)]
    session_token: Option<String>,
    /// What the function gets beside the event, as `input`
    #[serde(default)]
    input: Map<String, Value>,
}

/// How the function is invoked.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
enum Invocation {
    #[default]
    Event,
    RequestResponse,
}

impl Invocation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "Event",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

impl WebhookTarget for AwsLambda {
    fn describe() -> Info {
        Info::new("aws-lambda", env!("CARGO_PKG_VERSION"), "Invokes an AWS Lambda function for each event")
            .params::<Config>()
    }

    fn plan(event: &Event) -> Result<Vec<Request>, String> {
        let Config { function, region, invocation, endpoint, access_key_id, secret_access_key, session_token, input } =
            event.config()?;
        let endpoint = endpoint.unwrap_or_else(|| format!("https://lambda.{region}.amazonaws.com"));
        let url = format!("{}/2015-03-31/functions/{}/invocations", endpoint.trim_end_matches('/'), encoded(&function));
        let mut payload = event.payload::<Map<String, Value>>()?;
        if !input.is_empty() {
            payload.insert("input".to_owned(), Value::Object(input));
        }
        let request = Request::post(url).header("X-Amz-Invocation-Type", invocation.as_str()).json(&payload)?.signed(
            Signing::AwsSigv4(AwsCredentials {
                region,
                service: "lambda".to_owned(),
                access_key_id,
                secret_access_key,
                session_token,
            }),
        );
        Ok(vec![request])
    }

    fn judge(_event: &Event, _sent: &Sent, response: &Response) -> Disposition {
        let words: String = response.text().chars().take(WORDS_CHARS_MAX).collect();
        if let Some(kind) = response.header_value(FUNCTION_ERROR).filter(|_| response.is_success()) {
            return Disposition::Retry(RetryAfter {
                message: format!("the function failed ({kind}): {words}"),
                after_ms: None,
            });
        }
        match response.usual() {
            // AWS says in the body what is wrong with the request: a name, a right, a clock.
            Disposition::GiveUp(message) => Disposition::GiveUp(format!("{message}: {words}")),
            other => other,
        }
    }
}

/// A part of a path: an ARN has colons, and a qualifier a dollar.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut part, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            // A String takes every write.
            let _ = write!(part, "%{byte:02X}");
        }
        part
    })
}
