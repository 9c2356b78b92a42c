//! From a planned request to one that is sent: granted, its secrets filled in, signed. Pure but for nothing: the time is an argument.
//!
//! What it makes holds secrets, lives as long as the sending, and can be printed nowhere.

use forge_config::HostGrant;
use forge_plugin_host::{AwsCredentials, HmacHeader, HttpRequest, Signing};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::limits::{FILLED_BODY_BYTES_MAX, FILLED_URL_BYTES_MAX};
use super::policy::{self, Destination, Refusal};
use super::secrets::TargetSecrets;
use super::sign::{forge_signature, hmac_hex};
use super::sigv4::{self, Credentials, ToSign};

/// For whom a request is sent.
#[derive(Debug)]
pub struct Context {
    /// The target: `webhooks/NAME.toml`.
    pub target: String,
    /// Its plugin: `plugins/NAME.toml`.
    pub plugin: String,
    /// `[allow].hosts` of the plugin.
    pub grants: Vec<HostGrant>,
    /// The target's secrets.
    pub secrets: TargetSecrets,
    /// The event's kind, for `Forge-Event`.
    pub event: String,
    /// The delivery's id, for `Forge-Delivery`.
    pub delivery: String,
}

/// A request with its secrets.
pub(super) struct Prepared {
    pub(super) destination: Destination,
    /// Whether the host itself comes out of a secret, so that no error names it.
    pub(super) is_hidden: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Checks, fills in and signs.
pub(super) fn prepare(request: &HttpRequest, context: &Context, now: Timestamp) -> Result<Prepared, Refusal> {
    let HttpRequest { method, url, headers: planned, body, timeout_ms: _, signing } = request;
    let secrets = &context.secrets;
    let (mut destination, is_hidden) = filled_destination(url, context)?;
    let body = secrets.fill(body)?;
    if body.len() > FILLED_BODY_BYTES_MAX {
        return Err(Refusal::TooLarge { part: "body", bytes_max: FILLED_BODY_BYTES_MAX });
    }
    let mut headers = HeaderMap::new();
    let mut to_sign = Vec::new();
    for (name, value) in planned {
        let key = policy::check_header(name)?;
        if matches!(signing, Signing::AwsSigV4(_)) && sigv4::OWN_HEADERS.contains(&key.as_str()) {
            return Err(Refusal::HostHeader { name: name.clone() });
        }
        let value = secrets.fill_text(value)?;
        to_sign.push((key.as_str().to_owned(), value.reveal().to_owned()));
        add(&mut headers, key, value.reveal())?;
    }
    add(&mut headers, HeaderName::from_static("forge-event"), &context.event)?;
    add(&mut headers, HeaderName::from_static("forge-delivery"), &context.delivery)?;
    match signing {
        Signing::None => {}
        Signing::Forge => {
            let secret = own(context)?;
            let signature = forge_signature(secret.as_bytes(), now.as_second(), &body);
            add(&mut headers, HeaderName::from_static("forge-signature"), &signature)?;
        }
        Signing::HmacSha256(HmacHeader { name, prefix, key }) => {
            let header = policy::check_header(name)?;
            let filled = key.as_ref().map(|key| secrets.fill_text(key)).transpose()?;
            let key = match &filled {
                Some(key) => key.reveal(),
                None => own(context)?,
            };
            let prefix = secrets.fill_text(prefix)?;
            headers.remove(&header);
            add(&mut headers, header, &format!("{}{}", prefix.reveal(), hmac_hex(key.as_bytes(), &body)))?;
        }
        Signing::AwsSigV4(AwsCredentials { region, service, access_key_id, secret_access_key, session_token }) => {
            let fill = |text: &String| secrets.fill_text(text);
            let (region, service, access_key_id) = (fill(region)?, fill(service)?, fill(access_key_id)?);
            let secret_access_key = fill(secret_access_key)?;
            let session_token = session_token.as_ref().map(fill).transpose()?;
            let credentials = Credentials {
                region: region.reveal(),
                service: service.reveal(),
                access_key_id: access_key_id.reveal(),
                secret_access_key: secret_access_key.reveal(),
                session_token: session_token.as_ref().map(forge_api::Secret::reveal),
            };
            sigv4::normalise(&mut destination.url);
            let signed = ToSign { method: method.as_str(), url: &destination.url, headers: &to_sign, body: &body };
            for (name, value) in sigv4::sign(signed, &credentials, now) {
                add(&mut headers, HeaderName::from_static(name), &value)?;
            }
        }
    }
    Ok(Prepared { destination, is_hidden, headers, body })
}

fn own(context: &Context) -> Result<&str, Refusal> {
    let missing = || Refusal::NoOwnSecret { target: context.target.clone() };
    context.secrets.own().map(forge_api::Secret::reveal).ok_or_else(missing)
}

fn add(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), Refusal> {
    let why = "its value holds a line break or another control character";
    let mut value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| Refusal::BadHeader { name: name.as_str().to_owned(), why })?;
    // It is not shown by what prints headers, nor remembered by what compresses them.
    value.set_sensitive(true);
    headers.append(name, value);
    Ok(())
}

/// The URL with its secrets, granted before and after; and whether its host comes out of a secret.
fn filled_destination(url: &str, context: &Context) -> Result<(Destination, bool), Refusal> {
    let check = |url: &str| policy::destination(url, &context.grants, &context.plugin);
    let Some(at) = context.secrets.find(url) else { return check(url).map(|destination| (destination, false)) };
    let before = url.get(..at).unwrap_or_default();
    let is_whole = before.is_empty();
    let planned = if is_whole {
        None
    } else {
        let behind_scheme = before.split_once("://").map_or("", |(_, rest)| rest);
        if !behind_scheme.contains(['/', '?', '#']) {
            return Err(Refusal::SecretInHost);
        }
        Some(check(&context.secrets.shown(url))?)
    };
    let filled = context.secrets.fill_text(url)?;
    if filled.reveal().len() > FILLED_URL_BYTES_MAX {
        return Err(Refusal::TooLarge { part: "URL", bytes_max: FILLED_URL_BYTES_MAX });
    }
    let destination = check(filled.reveal()).map_err(Refusal::hidden)?;
    match planned {
        Some(planned) if planned.granted_as != destination.granted_as => {
            Err(Refusal::Hidden("it leads to another host than before"))
        }
        Some(_) | None => Ok((destination, is_whole)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forge_api::Secret;
    use forge_plugin_host::Method;

    use super::*;

    fn context() -> Context {
        let fields = [
            ("token", "s3cr3t"),
            ("url", "https://chat.example.com/T0/B0"),
            ("elsewhere", "https://evil.example/s3cr3t"),
            ("host", "evil.example"),
            ("broken", "s3cr3t\r\nHost: evil"),
            ("climbs", "../../@evil.example"),
        ];
        let fields: BTreeMap<_, _> = fields.map(|(field, value)| (field.to_owned(), Secret::new(value))).into();
        Context {
            target: "ops".to_owned(),
            plugin: "chat".to_owned(),
            grants: vec!["chat.example.com".parse().expect("it is a grant")],
            secrets: TargetSecrets::new(fields, Some(Secret::new("own"))).expect("there is randomness"),
            event: "task.finished".to_owned(),
            delivery: "d-1".to_owned(),
        }
    }

    fn request(url: &str) -> HttpRequest {
        HttpRequest {
            method: Method::Post,
            url: url.to_owned(),
            headers: Vec::new(),
            body: b"{}".to_vec(),
            timeout_ms: None,
            signing: Signing::None,
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).expect("it is a moment")
    }

    fn header<'a>(prepared: &'a Prepared, name: &str) -> &'a str {
        prepared.headers.get(name).expect("it is there").to_str().expect("it is text")
    }

    fn refusal(request: &HttpRequest, context: &Context) -> String {
        prepare(request, context, now()).err().expect("it is refused").to_string()
    }

    #[test]
    fn secrets_stand_in_path_query_head_and_body_of_granted_hosts() {
        let context = context();
        let token = context.secrets.placeholder("token");
        let mut request = request(&format!("https://chat.example.com/bot{token}/send?key={token}"));
        request.headers = vec![("Authorization".to_owned(), format!("Bearer {token}"))];
        request.body = format!("{{\"token\":\"{token}\"}}").into_bytes();
        let prepared = prepare(&request, &context, now()).expect("it is granted");
        assert_eq!(prepared.destination.url.as_str(), "https://chat.example.com/bots3cr3t/send?key=s3cr3t");
        assert_eq!(header(&prepared, "authorization"), "Bearer s3cr3t");
        assert_eq!(prepared.body, br#"{"token":"s3cr3t"}"#);
        assert_eq!((header(&prepared, "forge-event"), header(&prepared, "forge-delivery")), ("task.finished", "d-1"));
        assert!(!format!("{:?}", prepared.headers).contains("s3cr3t"), "headers are not shown");
    }

    #[test]
    fn a_whole_url_may_be_a_secret_and_is_told_to_nobody() {
        let context = context();
        let whole = prepare(&request(&context.secrets.placeholder("url")), &context, now()).expect("it is granted");
        assert_eq!(whole.destination.url.as_str(), "https://chat.example.com/T0/B0");
        assert!(whole.is_hidden);
        let words = refusal(&request(&context.secrets.placeholder("elsewhere")), &context);
        assert_eq!(
            words,
            "with its secret filled in, the URL is refused: its host is not in [allow].hosts of the plugin"
        );
    }

    #[test]
    fn no_secret_decides_who_is_asked() {
        let context = context();
        let of = |field: &str| context.secrets.placeholder(field);
        for url in [
            format!("https://{}/", of("host")),
            format!("https://chat.example.com.{}/", of("host")),
            format!("https://chat.example.com:{}/", of("token")),
            format!("https://chat.example.com@{}/", of("host")),
            format!("x{}", of("url")),
        ] {
            assert_eq!(refusal(&request(&url), &context), Refusal::SecretInHost.to_string(), "{url}");
        }
        let climbs = format!("https://chat.example.com/{}", of("climbs"));
        let prepared = prepare(&request(&climbs), &context, now()).expect("the host stays");
        assert_eq!(prepared.destination.url.host_str(), Some("chat.example.com"));
        let broken = format!("https://chat.example.com/{}", of("broken"));
        let words = refusal(&request(&broken), &context);
        assert!(words.starts_with("with its secret filled in") && !words.contains("s3cr3t"), "{words}");
        let evil = refusal(&request(&format!("https://evil.example/{}", of("token"))), &context);
        assert_eq!(evil, "denied: evil.example is not in [allow].hosts of plugins/chat.toml", "before it is filled in");
    }

    #[test]
    fn headers_are_checked_with_their_secrets() {
        let context = context();
        let with = |name: &str, value: String| HttpRequest {
            headers: vec![(name.to_owned(), value)],
            ..request("https://chat.example.com/")
        };
        let words = refusal(&with("X-Token", context.secrets.placeholder("broken")), &context);
        assert_eq!(words, "the header \"x-token\" is none: its value holds a line break or another control character");
        assert_eq!(refusal(&with("Host", "evil".to_owned()), &context), "the header `Host` is set by Forge alone");
        let missing = refusal(&with("X-Token", context.secrets.placeholder("other")), &context);
        assert_eq!(missing, "there is no secret `other` in [config] of the target");
    }

    #[test]
    fn signatures_take_keys_that_the_guest_never_sees() {
        let mut context = context();
        let signed = |context: &Context, signing: Signing| {
            prepare(&HttpRequest { signing, ..request("https://chat.example.com/") }, context, now())
        };
        let forge = signed(&context, Signing::Forge).expect("there is a secret");
        assert_eq!(header(&forge, "forge-signature"), forge_signature(b"own", 1_700_000_000, b"{}"));
        let hmac = |key: Option<String>| {
            Signing::HmacSha256(HmacHeader {
                name: "X-Hub-Signature-256".to_owned(),
                prefix: "sha256=".to_owned(),
                key,
            })
        };
        let with_field = signed(&context, hmac(Some(context.secrets.placeholder("token")))).expect("there is one");
        let expected = format!("sha256={}", hmac_hex(b"s3cr3t", b"{}"));
        assert_eq!(header(&with_field, "x-hub-signature-256"), expected);
        let with_own = signed(&context, hmac(None)).expect("there is one");
        assert_eq!(header(&with_own, "x-hub-signature-256"), format!("sha256={}", hmac_hex(b"own", b"{}")));
        let aws = |token: String| {
            Signing::AwsSigV4(AwsCredentials {
                region: "eu-central-1".to_owned(),
                service: "lambda".to_owned(),
                access_key_id: "AKID".to_owned(),
                secret_access_key: token,
                session_token: None,
            })
        };
        let one = signed(&context, aws(context.secrets.placeholder("token"))).expect("it is signed");
        let plain = signed(&context, aws("s3cr3t".to_owned())).expect("it is signed");
        assert_eq!(header(&one, "authorization"), header(&plain, "authorization"));
        assert!(
            header(&one, "authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKID/20231114/eu-central-1/lambda/")
        );

        context.secrets = TargetSecrets::new(BTreeMap::new(), None).expect("there is randomness");
        let words = signed(&context, Signing::Forge).err().expect("there is none").to_string();
        assert_eq!(words, "the request is to be signed with the target's `secret`, and webhooks/ops.toml has none");
    }
}
