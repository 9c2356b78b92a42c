//! The words of a webhook target: what happened, the requests that tell of it, and what an answer means.
//!
//! A target is pure. It plans requests, Forge sends them to hosts that the operator granted, fills secrets in, signs, retries, and asks
//! what each answer means. Its config never holds a secret but a placeholder, which goes where the secret belongs.
//!
//! ```
//! use forge_plugin::webhook::{Event, Request, Signing};
//! use forge_plugin::{Info, WebhookTarget};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! struct Chat;
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     token: String,
//! }
//!
//! impl WebhookTarget for Chat {
//!     fn describe() -> Info {
//!         Info::new("chat", "0.1.0", "Tells a chat room").wants_hosts(&["chat.example.com"])
//!     }
//!
//!     fn plan(event: &Event) -> Result<Vec<Request>, String> {
//!         let Config { token } = event.config()?;
//!         let text = format!("{} at {}", event.kind, event.at_ms);
//!         let request = Request::post("https://chat.example.com/rooms/ops")
//!             .header("Authorization", format!("Bearer {token}"))
//!             .json(&json!({ "text": text }))?;
//!         Ok(vec![request])
//!     }
//! }
//!
//! forge_plugin::export!(Chat as WebhookTarget);
//!
//! let event = Event::new("task.finished", &json!({})).with_config(&json!({ "token": "{{secret:token:0}}" }));
//! let planned = Chat::plan(&event).expect("it is planned");
//! assert_eq!(planned[0].header_value("authorization"), Some("Bearer {{secret:token:0}}"));
//! assert_eq!(planned[0].signing, Signing::None);
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use crate::bindings::webhook::exports::forge::plugin::webhook_target::{
    AwsCredentials, Disposition, Event, HmacHeader, HttpRequest as Request, HttpResponse as Response, Method,
    RetryAfter, Sent, Signing,
};
use crate::{Info, Pair};

/// The longest `Retry-After` that [`Response::usual`] believes, in seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 24 * 60 * 60;

/// What a webhook target does.
pub trait WebhookTarget {
    /// Says what the plugin is. It is asked before anything is granted, and says the same each time. Its `params_schema` is the schema of a
    /// target's `[config]`; its `config_schema` that of the plugin's own.
    fn describe() -> Info;

    /// Plans the requests that tell of the event; none when the event is not for this target.
    ///
    /// # Errors
    /// The event or the config makes no sense: it is never tried again, and people read why.
    fn plan(event: &Event) -> Result<Vec<Request>, String>;

    /// Says what an answer means. Unless a target says something else, it is what [`Response::usual`] says.
    fn judge(_event: &Event, _sent: &Sent, response: &Response) -> Disposition {
        response.usual()
    }
}

impl Event {
    /// An event, for tests: the first try of a delivery, without config.
    pub fn new(kind: impl Into<String>, payload: &Value) -> Self {
        Self {
            id: "1".to_owned(),
            kind: kind.into(),
            at_ms: 0,
            payload_json: payload.to_string(),
            config_json: "{}".to_owned(),
            plugin_config_json: "{}".to_owned(),
            attempt: 1,
        }
    }

    /// With the target's `[config]`, for tests. Put `{{secret:FIELD:0}}` where a secret is to stand.
    #[must_use]
    pub fn with_config(mut self, config: &Value) -> Self {
        self.config_json = config.to_string();
        self
    }

    /// With the plugin's own `[config]`, for tests.
    #[must_use]
    pub fn with_plugin_config(mut self, config: &Value) -> Self {
        self.plugin_config_json = config.to_string();
        self
    }

    /// The target's `[config]`.
    ///
    /// # Errors
    /// It is not what the plugin understands; the message says where.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("[config]", self.config_json.as_bytes())
    }

    /// The plugin's own `[config]`.
    ///
    /// # Errors
    /// As for [`Event::config`].
    pub fn plugin_config<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("the plugin's [config]", self.plugin_config_json.as_bytes())
    }

    /// What happened.
    ///
    /// # Errors
    /// As for [`Event::config`].
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("the event", self.payload_json.as_bytes())
    }
}

fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| format!("{what}: {error}"))
}

impl Request {
    /// A request without headers and body, not signed.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
            signing: Signing::None,
        }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A POST.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::Post, url)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Pair { key: name.into(), value: value.into() });
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With this value as its body, and the header that says so.
    ///
    /// # Errors
    /// It does not go into JSON, such as a map whose keys are no texts.
    pub fn json<T: Serialize>(self, body: &T) -> Result<Self, String> {
        let body = serde_json::to_vec(body).map_err(|error| format!("the body does not go into JSON: {error}"))?;
        Ok(self.header("Content-Type", "application/json").body(body))
    }

    /// That is given up after this long; the host has a limit of its own.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = Some(timeout_ms);
        self
    }

    /// Signed by the host.
    #[must_use]
    pub fn signed(mut self, signing: Signing) -> Self {
        self.signing = signing;
        self
    }

    /// The first header of this name, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

impl Response {
    /// An answer without headers, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// With one more header, for tests.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Pair { key: name.into(), value: value.into() });
        self
    }

    /// The first header of this name, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not what the plugin understands, or it was cut.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("the answer", &self.body)
    }

    /// What such a status means to most: success is done; 408, 425, 429 and all from 500 on are worth another try, after what `Retry-After`
    /// says in seconds; anything else never will arrive, a redirect included, since none is followed.
    pub fn usual(&self) -> Disposition {
        let message = format!("the answer was {}", self.status);
        match self.status {
            200..=299 => Disposition::Done,
            408 | 425 | 429 | 500.. => {
                let seconds = self.header_value("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
                let after_ms = seconds.map(|seconds| seconds.min(RETRY_AFTER_SECONDS_MAX) * 1_000);
                Disposition::Retry(RetryAfter { message, after_ms })
            }
            300..=399 => {
                Disposition::GiveUp(format!("{message}, a redirect, which is not followed: write its goal instead"))
            }
            _ => Disposition::GiveUp(message),
        }
    }
}

fn header<'a>(headers: &'a [Pair], name: &str) -> Option<&'a str> {
    headers.iter().find(|pair| pair.key.eq_ignore_ascii_case(name)).map(|pair| pair.value.as_str())
}

impl Sent {
    /// The first request of a plan, for tests.
    pub fn first(request: Request) -> Self {
        Self { round: 0, index: 0, request }
    }
}

impl Disposition {
    /// Another try, when the host thinks best.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(RetryAfter { message: message.into(), after_ms: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Plain;

    impl WebhookTarget for Plain {
        fn describe() -> Info {
            Info::new("plain", "0.1.0", "Tells someone")
        }

        fn plan(event: &Event) -> Result<Vec<Request>, String> {
            let payload: Value = event.payload()?;
            Ok(vec![Request::post("https://example.com/").json(&payload)?.signed(Signing::Forge).timeout_ms(500)])
        }
    }

    fn judged(response: &Response) -> Disposition {
        let event = Event::new("task.finished", &json!({}));
        Plain::judge(&event, &Sent::first(Request::get("https://example.com/")), response)
    }

    #[test]
    fn a_request_says_what_it_carries() {
        let planned = Plain::plan(&Event::new("task.finished", &json!({ "task": 1 }))).expect("it is JSON");
        let [request] = planned.as_slice() else { panic!("{planned:?}") };
        assert_eq!(request.header_value("content-type"), Some("application/json"));
        assert_eq!(request.body, br#"{"task":1}"#);
        assert_eq!((&request.signing, request.timeout_ms), (&Signing::Forge, Some(500)));
    }

    #[test]
    fn statuses_mean_what_they_usually_do() {
        assert_eq!(judged(&Response::new(204, "")), Disposition::Done);
        assert_eq!(judged(&Response::new(503, "")), Disposition::retry("the answer was 503"));
        let busy = Response::new(429, "").header("Retry-After", "7");
        let after = RetryAfter { message: "the answer was 429".to_owned(), after_ms: Some(7_000) };
        assert_eq!(judged(&busy), Disposition::Retry(after));
        let endless = Response::new(429, "").header("retry-after", u64::MAX.to_string());
        let Disposition::Retry(RetryAfter { after_ms, .. }) = judged(&endless) else { panic!("it is a retry") };
        assert_eq!(after_ms, Some(RETRY_AFTER_SECONDS_MAX * 1_000));
        for status in [302, 400, 404] {
            assert!(matches!(judged(&Response::new(status, "")), Disposition::GiveUp(_)), "{status}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let event = Event::new("task.finished", &json!({})).with_config(&json!({ "room": 1 }));
        let refused = event.config::<std::collections::BTreeMap<String, String>>().expect_err("1 is no text");
        assert!(refused.starts_with("[config]: invalid type"), "{refused}");
        assert_eq!(event.plugin_config::<Value>(), Ok(json!({})));
        assert!(Response::new(200, "{").json::<Value>().is_err());
    }
}
