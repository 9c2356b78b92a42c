//! AWS Signature Version 4: pure. Checked against the signatures that Amazon publishes for its own test suite.
//!
//! The path and the query are first brought into the one spelling that is signed, and are sent like that: what the service reads on the
//! wire is what was signed, whatever the guest wrote.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Url;

use super::sign::{hmac_hex, hmac_sha256};
use crate::hex;

/// The algorithm's name, and what ends every scope.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// The one service whose paths are encoded once, and which wants the body's digest in a header.
const S3: &str = "s3";

/// Headers that the signature sets: a guest may not.
pub(super) const OWN_HEADERS: [&str; 4] =
    ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];

/// What proves who asks, secrets filled in.
pub(super) struct Credentials<'a> {
    /// Such as `eu-central-1`.
    pub region: &'a str,
    /// Such as `lambda`.
    pub service: &'a str,
    /// The key's name.
    pub access_key_id: &'a str,
    /// The key.
    pub secret_access_key: &'a str,
    /// The session's token.
    pub session_token: Option<&'a str>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToSign<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// Where it goes, as [`normalise`] left it.
    pub url: &'a Url,
    /// Names in lower case, and values.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// Writes path and query of a URL as they are signed.
pub(super) fn normalise(url: &mut Url) {
    let path = encode(&decode(url.path()), Slash::Kept);
    url.set_path(&path);
    if let Some(query) = url.query() {
        let query = canonical_query(query);
        url.set_query(Some(&query));
    }
}

/// The headers that sign the request, to be sent with it.
pub(super) fn sign(request: ToSign<'_>, credentials: &Credentials<'_>, now: Timestamp) -> Vec<(&'static str, String)> {
    let Credentials { region, service, access_key_id, secret_access_key, session_token } = credentials;
    let (day, moment) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
    let body_digest = hex::sha256(request.body);
    let mut added = vec![("x-amz-date", moment.clone())];
    added.extend(session_token.map(|token| ("x-amz-security-token", token.to_owned())));
    if *service == S3 {
        added.push(("x-amz-content-sha256", body_digest.clone()));
    }

    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let given = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // Proxies rewrite it.
    let given = given.filter(|(name, _)| *name != "user-agent");
    for (name, value) in given.chain(added.iter().map(|(name, value)| (*name, value.as_str()))) {
        headers.entry(name).or_default().push(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    }
    headers.insert("host", vec![host_header(request.url)]);
    let signed_headers = headers.keys().copied().collect::<Vec<_>>().join(";");
    let canonical_headers: String =
        headers.iter().map(|(name, values)| format!("{name}:{}\n", values.join(","))).collect();

    let path = request.url.path();
    let path = if *service == S3 { path.to_owned() } else { encode(path.as_bytes(), Slash::Kept) };
    let query = request.url.query().unwrap_or_default();
    let canonical =
        format!("{}\n{path}\n{query}\n{canonical_headers}\n{signed_headers}\n{body_digest}", request.method);

    let scope = format!("{day}/{region}/{service}/{TERMINATOR}");
    let to_sign = format!("{ALGORITHM}\n{moment}\n{scope}\n{}", hex::sha256(canonical.as_bytes()));
    let mut key = hmac_sha256(format!("AWS4{secret_access_key}").as_bytes(), day.as_bytes());
    for part in [region, service, TERMINATOR] {
        key = hmac_sha256(key.as_ref(), part.as_bytes());
    }
    let signature = hmac_hex(key.as_ref(), to_sign.as_bytes());
    let authorization = format!(
        "{ALGORITHM} Credential={access_key_id}/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
    );
    added.push(("authorization", authorization));
    added
}

/// As the HTTP client sends it: without the scheme's own port.
fn host_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name), Slash::Encoded), encode(&decode(value), Slash::Encoded))
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

/// Everything but RFC 3986's unreserved characters, in upper-case hex.
fn encode(bytes: &[u8], slash: Slash) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte == b'/' && slash == Slash::Kept) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            Some(value) => {
                decoded.push(value);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair of Amazon's examples.
    const EXAMPLE: Credentials<'_> = Credentials {
        region: "us-east-1",
        service: "service",
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session_token: None,
    };

    fn signed(
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        credentials: &Credentials<'_>,
    ) -> Vec<(&'static str, String)> {
        let mut url = Url::parse(url).expect("it is a URL");
        normalise(&mut url);
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let now: Timestamp = "2015-08-30T12:36:00Z".parse().expect("it is a moment");
        sign(ToSign { method, url: &url, headers: &headers, body: body.as_bytes() }, credentials, now)
    }

    fn authorization(
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        credentials: &Credentials<'_>,
    ) -> String {
        signed(method, url, headers, body, credentials).pop().expect("it is the last").1
    }

    fn check(method: &str, target: &str, headers: &[(&str, &str)], body: &str, names: &str, signature: &str) {
        let url = format!("https://example.amazonaws.com{target}");
        assert_eq!(
            authorization(method, &url, headers, body, &EXAMPLE),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, \
                 Signature={signature}"
            ),
            "{method} {target}"
        );
    }

    #[test]
    fn signatures_are_those_that_amazon_publishes() {
        let plain = "host;x-amz-date";
        check("GET", "/", &[], "", plain, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        check("POST", "/", &[], "", plain, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
        check(
            "GET",
            "/?Param2=value2&Param1=value1",
            &[],
            "",
            plain,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        check(
            "POST",
            "/",
            &[("content-type", "application/x-www-form-urlencoded")],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        );
        check(
            "POST",
            "/",
            &[("my-header1", "value1")],
            "",
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        );
    }

    #[test]
    fn the_signature_of_the_documentation_is_made() {
        let iam = Credentials { service: "iam", ..EXAMPLE };
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let made =
            authorization("GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", &headers, "", &iam);
        assert!(made.ends_with("Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"), "{made}");
    }

    #[test]
    fn what_is_sent_is_spelled_as_it_is_signed() {
        let mut url =
            Url::parse("https://a/2015-03-31/functions/arn:aws:lambda/invocations?b=+&a=x/y&c").expect("a URL");
        normalise(&mut url);
        assert_eq!(url.as_str(), "https://a/2015-03-31/functions/arn%3Aaws%3Alambda/invocations?a=x%2Fy&b=%2B&c=");
        let before = url.clone();
        normalise(&mut url);
        assert_eq!(url, before, "it is its own spelling");
    }

    #[test]
    fn a_session_and_s3_sign_more_headers() {
        let session = Credentials { session_token: Some("token"), service: S3, ..EXAMPLE };
        let headers = signed("PUT", "https://example.amazonaws.com:8443/a", &[("user-agent", "x")], "", &session);
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "authorization"]);
        let made = &headers[3].1;
        assert!(made.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"), "{made}");
        assert!(names.iter().all(|name| OWN_HEADERS.contains(name)));
    }
}
