//! What a webhook target is told and what it plans, as Rust types; and the bounds of a plan: pure.

use crate::bindings::webhook::exports::forge::plugin::webhook_target as wit;
use crate::convert;
use crate::limits::{
    REQUEST_BODY_BYTES_MAX, REQUEST_HEADER_BYTES_MAX, REQUEST_HEADERS_MAX, REQUEST_SIGNING_BYTES_MAX,
    REQUEST_URL_BYTES_MAX, REQUESTS_MAX, TARGET_MESSAGE_BYTES_MAX,
};
use crate::log::cut;

/// What happened, as a target is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Of the delivery: the same for every try.
    pub id: String,
    /// Such as `task.finished`.
    pub kind: String,
    /// When it happened, in milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// The event, as JSON.
    pub payload_json: String,
    /// The target's `[config]`, with placeholders for its secrets.
    pub config_json: String,
    /// The plugin's own `[config]`.
    pub plugin_config_json: String,
    /// 1 for the first try.
    pub attempt: u32,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Tells.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As it stands in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A header with the hex HMAC-SHA256 of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacHeader {
    /// The header's name.
    pub name: String,
    /// What stands before the digits.
    pub prefix: String,
    /// A placeholder; `None` is the target's own `secret`.
    pub key: Option<String>,
}

/// What AWS Signature Version 4 needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsCredentials {
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `lambda`.
    pub service: String,
    /// The key's name.
    pub access_key_id: String,
    /// A placeholder for the key.
    pub secret_access_key: String,
    /// A placeholder for the session's token.
    pub session_token: Option<String>,
}

/// How a request is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// It is not.
    None,
    /// `Forge-Signature`, with the target's `secret`.
    Forge,
    /// A header of the target's choice.
    HmacSha256(HmacHeader),
    /// For Amazon's services, and those that speak like them.
    AwsSigV4(AwsCredentials),
}

/// A request that a target planned: within bounds, and not yet checked against any grant. It holds placeholders and no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// What it does.
    pub method: Method,
    /// Where it goes.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What it carries.
    pub body: Vec<u8>,
    /// When to give it up.
    pub timeout_ms: Option<u32>,
    /// How it is signed.
    pub signing: Signing,
}

/// An answer, cut by whoever received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Its status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What it carries.
    pub body: Vec<u8>,
}

/// The request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// 0 for what `plan` said, 1 for the first `then`.
    pub round: u32,
    /// Its place there.
    pub index: u32,
    /// As it was planned.
    pub request: HttpRequest,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It arrived.
    Done,
    /// Nothing to do, and why.
    Skip(String),
    /// Try again.
    Retry {
        /// Why.
        message: String,
        /// Not before this long, in milliseconds.
        after_ms: Option<u64>,
    },
    /// It never will arrive, and why.
    GiveUp(String),
    /// It arrived, and these follow.
    Then(Vec<HttpRequest>),
}

pub(crate) fn event(event: &WebhookEvent) -> wit::Event {
    let WebhookEvent { id, kind, at_ms, payload_json, config_json, plugin_config_json, attempt } = event.clone();
    wit::Event { id, kind, at_ms, payload_json, config_json, plugin_config_json, attempt }
}

pub(crate) fn response(response: &HttpResponse) -> wit::HttpResponse {
    let HttpResponse { status, headers, body } = response;
    wit::HttpResponse { status: *status, headers: convert::from_pairs(headers), body: body.clone() }
}

pub(crate) fn sent(sent: &Sent) -> wit::Sent {
    let Sent { round, index, request: HttpRequest { method, url, headers, body, timeout_ms, signing } } = sent.clone();
    let request = wit::HttpRequest {
        method: match method {
            Method::Get => wit::Method::Get,
            Method::Post => wit::Method::Post,
            Method::Put => wit::Method::Put,
            Method::Patch => wit::Method::Patch,
            Method::Delete => wit::Method::Delete,
        },
        url,
        headers: convert::from_pairs(&headers),
        body,
        timeout_ms,
        signing: match signing {
            Signing::None => wit::Signing::None,
            Signing::Forge => wit::Signing::Forge,
            Signing::HmacSha256(HmacHeader { name, prefix, key }) => {
                wit::Signing::HmacSha256(wit::HmacHeader { name, prefix, key })
            }
            Signing::AwsSigV4(credentials) => {
                let AwsCredentials { region, service, access_key_id, secret_access_key, session_token } = credentials;
                let credentials =
                    wit::AwsCredentials { region, service, access_key_id, secret_access_key, session_token };
                wit::Signing::AwsSigv4(credentials)
            }
        },
    };
    wit::Sent { round, index, request }
}

/// What a guest says to people.
pub(crate) fn message(mut message: String) -> String {
    cut(&mut message, TARGET_MESSAGE_BYTES_MAX);
    message
}

pub(crate) fn disposition(disposition: wit::Disposition) -> Result<Disposition, String> {
    Ok(match disposition {
        wit::Disposition::Done => Disposition::Done,
        wit::Disposition::Skip(why) => Disposition::Skip(message(why)),
        wit::Disposition::Retry(wit::RetryAfter { message: why, after_ms }) => {
            Disposition::Retry { message: message(why), after_ms }
        }
        wit::Disposition::GiveUp(why) => Disposition::GiveUp(message(why)),
        wit::Disposition::Then(more) => Disposition::Then(requests(more)?),
    })
}

/// A plan within its bounds, or what is too much.
pub(crate) fn requests(planned: Vec<wit::HttpRequest>) -> Result<Vec<HttpRequest>, String> {
    within("its plan", planned.len(), "requests", REQUESTS_MAX)?;
    planned.into_iter().enumerate().map(|(index, planned)| request(index, planned)).collect()
}

fn request(index: usize, planned: wit::HttpRequest) -> Result<HttpRequest, String> {
    let wit::HttpRequest { method, url, headers, body, timeout_ms, signing } = planned;
    let of = |part: &str| format!("{part} of its request {}", index + 1);
    within(&of("the URL"), url.len(), "bytes", REQUEST_URL_BYTES_MAX)?;
    within(&of("the body"), body.len(), "bytes", REQUEST_BODY_BYTES_MAX)?;
    within(&of("the head"), headers.len(), "headers", REQUEST_HEADERS_MAX)?;
    let headers = convert::pairs(headers);
    let header_bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    within(&of("the head"), header_bytes, "bytes", REQUEST_HEADER_BYTES_MAX)?;
    let method = match method {
        wit::Method::Get => Method::Get,
        wit::Method::Post => Method::Post,
        wit::Method::Put => Method::Put,
        wit::Method::Patch => Method::Patch,
        wit::Method::Delete => Method::Delete,
    };
    let (signing, signing_bytes) = self::signing(signing);
    within(&of("the signing"), signing_bytes, "bytes", REQUEST_SIGNING_BYTES_MAX)?;
    Ok(HttpRequest { method, url, headers, body, timeout_ms, signing })
}

fn signing(signing: wit::Signing) -> (Signing, usize) {
    match signing {
        wit::Signing::None => (Signing::None, 0),
        wit::Signing::Forge => (Signing::Forge, 0),
        wit::Signing::HmacSha256(wit::HmacHeader { name, prefix, key }) => {
            let bytes = name.len() + prefix.len() + key.as_ref().map_or(0, String::len);
            (Signing::HmacSha256(HmacHeader { name, prefix, key }), bytes)
        }
        wit::Signing::AwsSigv4(credentials) => {
            let wit::AwsCredentials { region, service, access_key_id, secret_access_key, session_token } = credentials;
            let bytes = [&region, &service, &access_key_id, &secret_access_key].map(String::len).iter().sum::<usize>()
                + session_token.as_ref().map_or(0, String::len);
            let credentials = AwsCredentials { region, service, access_key_id, secret_access_key, session_token };
            (Signing::AwsSigV4(credentials), bytes)
        }
    }
}

fn within(what: &str, has: usize, of: &str, max: usize) -> Result<(), String> {
    if has > max { Err(format!("{what} has {has} {of}; at most {max} are taken")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::forge::plugin::types::Pair;

    fn planned() -> wit::HttpRequest {
        wit::HttpRequest {
            method: wit::Method::Post,
            url: "https://example.com/".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
            signing: wit::Signing::Forge,
        }
    }

    fn refusal(change: impl FnOnce(&mut wit::HttpRequest)) -> String {
        let mut request = planned();
        change(&mut request);
        requests(vec![request]).expect_err("it is too much")
    }

    #[test]
    fn a_plan_is_bounded_in_every_part() {
        assert_eq!(requests(vec![planned(); REQUESTS_MAX]).map(|plan| plan.len()), Ok(REQUESTS_MAX));
        let flood = requests(vec![planned(); REQUESTS_MAX + 1]);
        assert_eq!(flood, Err("its plan has 17 requests; at most 16 are taken".to_owned()));
        let pair = |length: usize| Pair { key: "a".to_owned(), value: "x".repeat(length) };
        assert_eq!(
            refusal(|request| request.body = vec![0; REQUEST_BODY_BYTES_MAX + 1]),
            "the body of its request 1 has 1048577 bytes; at most 1048576 are taken"
        );
        assert!(refusal(|request| request.url = "x".repeat(REQUEST_URL_BYTES_MAX + 1)).starts_with("the URL of"));
        let many = refusal(|request| request.headers = vec![pair(1); REQUEST_HEADERS_MAX + 1]);
        assert!(many.contains("65 headers"), "{many}");
        let large = refusal(|request| request.headers = vec![pair(REQUEST_HEADER_BYTES_MAX)]);
        assert!(large.contains("16385 bytes"), "{large}");
        let prefix = "x".repeat(REQUEST_SIGNING_BYTES_MAX);
        let header = wit::HmacHeader { name: "X-Sign".to_owned(), prefix, key: None };
        assert!(refusal(|request| request.signing = wit::Signing::HmacSha256(header)).starts_with("the signing of"));
    }

    #[test]
    fn what_is_said_to_people_is_cut() {
        let said = disposition(wit::Disposition::GiveUp("é".repeat(TARGET_MESSAGE_BYTES_MAX)));
        let Ok(Disposition::GiveUp(said)) = said else { panic!("{said:?}") };
        assert_eq!(said.len(), TARGET_MESSAGE_BYTES_MAX + '…'.len_utf8());
        let flood = wit::Disposition::Then(vec![planned(); REQUESTS_MAX + 1]);
        assert!(disposition(flood).is_err());
    }

    #[test]
    fn what_was_planned_goes_back_to_the_guest_as_it_was() {
        let request = requests(vec![planned()]).expect("it is within bounds").remove(0);
        let back = sent(&Sent { round: 1, index: 2, request: request.clone() });
        assert_eq!((back.round, back.index), (1, 2));
        assert_eq!(requests(vec![back.request]), Ok(vec![request]));
    }
}
