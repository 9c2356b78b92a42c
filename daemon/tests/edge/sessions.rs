//! Signing in to the dashboard, what a session may, what ends it, and what proves that a page of ours asks.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

use crate::harness::{Place, Running, problem, trusting, wait_for};

/// A browser of one person: it keeps the cookie that it was given.
struct Browser {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

impl Browser {
    fn new(daemon: &Running) -> Self {
        Self { http: daemon.browser(), base: daemon.addresses.api.clone(), cookie: String::new() }
    }

    /// One that has signed in.
    async fn signed_in(daemon: &Running, token: &str) -> Self {
        let mut browser = Self::new(daemon);
        let answer = browser.login(token, "").await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/".parse().expect("a path")));
        let cookie = answer.headers()["set-cookie"].to_str().expect("text");
        browser.cookie = cookie.split(';').next().expect("a pair").to_owned();
        browser
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).header("accept", "text/html");
        if self.cookie.is_empty() { request } else { request.header("cookie", &self.cookie) }
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.request(Method::POST, path);
        request.header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    async fn login(&self, token: &str, next: &str) -> Response {
        self.form("/login", &[("token", token), ("next", next)]).send().await.expect("an answer")
    }

    /// What the forms of its pages prove themselves with.
    async fn csrf(&self) -> String {
        let page = self.get("/").await.text().await.expect("a page");
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("no form in {page}"));
        rest.split('"').next().expect("a value").to_owned()
    }

    /// Whether its session stands, by the API.
    async fn is_signed_in(&self) -> bool {
        let answer = self.get("/api/v1/projects").await;
        match answer.status().as_u16() {
            200 => true,
            401 => false,
            other => panic!("status {other}"),
        }
    }
}

fn location(answer: &Response) -> &str {
    answer.headers()["location"].to_str().expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_a_cookie_that_no_script_reads() {
    let place = Place::new();
    let token = place.token("ann", "role = \"operator\"");
    let daemon = place.start().await;
    let browser = Browser::new(&daemon);
    let sent = browser.get("/").await;
    assert_eq!((sent.status().as_u16(), location(&sent)), (303, "/login"));
    let form = browser.get("/login").await;
    assert_eq!(form.status(), 200);
    assert!(form.text().await.expect("a page").contains("name=\"token\""));

    let answer = browser.login(&token, "").await;
    let cookie = answer.headers()["set-cookie"].to_str().expect("text").to_owned();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert!(cookie.starts_with("__Host-forge-session="), "{cookie}");
    assert_eq!(attributes, ["Path=/", "Max-Age=604800", "Secure", "HttpOnly", "SameSite=Lax"]);
    assert!(!cookie.contains(&token));

    let browser = Browser::signed_in(&daemon, &token).await;
    let page = browser.get("/").await;
    for (name, said) in [
        ("content-security-policy", "default-src 'none'; script-src 'self'"),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        let value = page.headers()[name].to_str().expect("text");
        assert!(value.starts_with(said) && !value.contains("unsafe"), "{name}: {value}");
    }
    assert!(!page.headers().contains_key("strict-transport-security"), "the CA is the daemon's own");
    let page = page.text().await.expect("a page");
    assert!(page.contains("<bdi>ann</bdi></b> · operator"), "{page}");
    let scripts = page.matches("<script").count();
    assert_eq!(page.matches("<script src=\"/assets/").count(), scripts, "no script stands in a page: {page}");
    assert!(scripts > 0 && !page.contains("style=") && !page.contains("<style"), "{page}");
    assert!(browser.is_signed_in().await, "the session stands for the token at the API, too");
    let plain = daemon.get("/projects", &token).await;
    assert!(!plain.headers().contains_key("content-security-policy"), "an answer to a program is no page");
    daemon.stop().await;
}

/// A browser that came by an operator's own certificate is told to insist on TLS. One that may have been let past a warning is not, nor one
/// that came by plain HTTP, nor a program.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_insists_on_tls_where_the_certificate_is_the_operators() {
    const INSIST: &str = "strict-transport-security";
    let mut place = Place::new();
    let (certificate, key) = (place.folder().join("cert.pem"), place.folder().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost", "127.0.0.1"].map(str::to_owned)).expect("made");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    place.extra = format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}");
    let daemon = place.start().await;
    let http = trusting(Some(&certificate)).redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let get = async |path: &str| http.get(format!("{}{path}", daemon.addresses.api)).send().await.expect("an answer");
    for (path, status) in [("/login", 200), ("/", 303), ("/nowhere-asset", 404)] {
        let request = http.get(format!("{}{path}", daemon.addresses.api)).header("accept", "text/html");
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
        let said = answer.headers().get(INSIST).map(|value| value.to_str().expect("text"));
        assert_eq!(said, Some("max-age=31536000"), "{path}");
    }
    let api = get("/api/v1/openapi.json").await;
    assert!(!api.headers().contains_key(INSIST), "a program is told nothing");
    daemon.stop().await;

    // The daemon's own CA, and plain HTTP behind whatever stands there.
    for listen in ["", "insecure_http = true\n"] {
        let mut place = Place::new();
        place.listen = format!("api = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n{listen}");
        let daemon = place.start().await;
        let answer = daemon.browser().get(format!("{}/login", daemon.addresses.api)).send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key(INSIST)), (200, false), "{listen:?}");
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session_for_good() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    let browser = Browser::signed_in(&daemon, &token).await;
    let refused = browser.form("/logout", &[]).send().await.expect("an answer");
    assert_eq!(refused.status(), 403, "another site could send that");
    let refused = refused.text().await.expect("a page");
    assert!(refused.contains("<main ") && refused.contains("csrf"), "{refused}");
    let out = browser.form("/logout", &[("csrf", &browser.csrf().await)]).send().await.expect("an answer");
    assert_eq!((out.status().as_u16(), location(&out)), (303, "/login"));
    assert!(
        out.headers()["set-cookie"].to_str().expect("text").starts_with("__Host-forge-session=; Path=/; Max-Age=0")
    );
    assert!(!browser.is_signed_in().await, "the cookie itself is worth nothing any more");
    assert_eq!(location(&browser.get("/").await), "/login");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let place = Place::new();
    let admin = place.token("root", "role = \"admin\"");
    let (revoked, removed) = (place.token("ann", "role = \"viewer\""), place.token("bob", "role = \"viewer\""));
    let daemon = place.start().await;
    let ann = Browser::signed_in(&daemon, &revoked).await;
    let bob = Browser::signed_in(&daemon, &removed).await;
    let hash = format!("sha256:{}", {
        let digest = ring::digest::digest(&ring::digest::SHA256, revoked.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    assert!(ann.is_signed_in().await && bob.is_signed_in().await);
    let revoke = daemon.request(Method::POST, "/tokens/revoke", &admin).json(&json!({"hash": hash}));
    assert_eq!(revoke.send().await.expect("an answer").status(), 200);
    assert!(!ann.is_signed_in().await, "at once");
    assert!(bob.is_signed_in().await);
    assert_eq!(ann.login(&revoked, "").await.status(), 401, "nor does it begin another");

    let file = place.tree().join("access/bob.toml");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::remove_file(&file).expect("removed");
    wait_for("the end of the session", || async { (!bob.is_signed_in().await).then_some(()) }).await;
    // A file that comes back brings the token back, and not the session.
    std::fs::write(&file, text).expect("written");
    wait_for("the token", || async { (daemon.get("/projects", &removed).await.status() == 200).then_some(()) }).await;
    assert!(!bob.is_signed_in().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_a_restart_and_never_may_more_than_its_tokens_file_says() {
    let place = Place::new();
    let token = place.token("ann", "role = \"admin\"");
    let daemon = place.start().await;
    let mut browser = Browser::signed_in(&daemon, &token).await;
    daemon.stop().await;
    let daemon = place.start().await;
    (browser.http, browser.base) = (daemon.browser(), daemon.addresses.api.clone());
    assert_eq!(browser.get("/api/v1/webhooks").await.status(), 200);
    let file = place.tree().join("access/ann.toml");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, text.replace("admin", "viewer")).expect("written");
    wait_for("the lesser role", || async { (browser.get("/api/v1/webhooks").await.status() == 403).then_some(()) })
        .await;
    assert!(browser.is_signed_in().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_alone_changes_nothing() {
    let place = Place::new();
    let admin = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let browser = Browser::signed_in(&daemon, &admin).await;
    let csrf = browser.csrf().await;
    let other = Browser::signed_in(&daemon, &admin).await.csrf().await;
    let own = daemon.addresses.api.clone();
    let hash = format!("sha256:{}", "0".repeat(64));
    let revoke = |headers: &[(&'static str, &str)]| {
        let request = browser.request(Method::POST, "/api/v1/tokens/revoke").json(&json!({"hash": hash}));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send()
    };
    let foreign = "https://evil.example.com";
    for (headers, slug) in [
        (&[][..], "csrf"),
        (&[("forge-csrf", "")], "csrf"),
        (&[("forge-csrf", &*other)], "csrf"),
        (&[("origin", &*own)], "csrf"),
        (&[("forge-csrf", &*csrf), ("origin", foreign)], "foreign-origin"),
        (&[("forge-csrf", &*csrf), ("origin", "null")], "foreign-origin"),
        (&[("forge-csrf", &*csrf), ("sec-fetch-site", "cross-site")], "foreign-origin"),
    ] {
        let refused = problem(revoke(headers).await.expect("an answer")).await;
        assert_eq!((refused.status, refused.slug()), (403, slug), "{headers:?}");
    }
    for headers in [
        &[("forge-csrf", &*csrf)][..],
        &[("forge-csrf", &*csrf), ("origin", &*own), ("sec-fetch-site", "same-origin")],
        &[("forge-csrf", &*csrf), ("origin", "https://forge.example.com")],
    ] {
        assert_eq!(revoke(headers).await.expect("an answer").status(), 200, "{headers:?}");
    }
    // A form of ours proves itself by its field, and one of another site does not.
    for (fields, headers, expected) in [
        (&[("csrf", &*other)][..], &[][..], 403),
        (&[("csrf", &*csrf)], &[("origin", foreign)], 403),
        (&[("csrf", &*csrf)], &[("forge-csrf", "wrong")], 403),
        (&[], &[("forge-csrf", &*csrf)], 303),
    ] {
        let form = browser.form("/logout", fields);
        let form = headers.iter().fold(form, |form, (name, value)| form.header(*name, *value));
        assert_eq!(form.send().await.expect("an answer").status().as_u16(), expected, "{fields:?} {headers:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_by_another_site_nor_sent_to_one() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    let browser = Browser::new(&daemon);
    for (name, value) in [("origin", "https://evil.example.com"), ("sec-fetch-site", "cross-site")] {
        let refused = browser.form("/login", &[("token", &token)]).header(name, value).send().await.expect("an answer");
        assert_eq!(refused.status(), 403, "{name}");
        assert!(!refused.headers().contains_key("set-cookie"));
    }
    for (next, to) in [
        ("/tasks?state=failed", "/tasks?state=failed"),
        ("//evil.example.com", "/"),
        ("https://evil.example.com", "/"),
        ("/\\evil.example.com", "/"),
        ("/\t/evil.example.com", "/"),
    ] {
        let answer = browser.login(&token, next).await;
        assert_eq!((answer.status().as_u16(), location(&answer)), (303, to), "{next:?}");
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let page = browser.get(&format!("/login?{query}")).await.text().await.expect("a page");
        assert!(page.contains(&format!("name=\"next\" value=\"{to}\"")), "{page}");
    }
    let strange = browser.get("/nothing/of/ours").await;
    assert_eq!(strange.status(), 404);
    assert!(strange.text().await.expect("a page").contains("<main "), "a browser is shown a page");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_counted_and_a_visit_is_not() {
    let place = Place::new();
    let token = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    let mut browser = Browser::new(&daemon);
    browser.cookie = "__Host-forge-session=0123".to_owned();
    for _ in 0..40 {
        assert_eq!(browser.get("/").await.status(), 303);
        assert_eq!(browser.get("/api/v1/projects").await.status(), 401);
    }
    let mut statuses = Vec::new();
    for _ in 0..31 {
        statuses.push(browser.login("forge_access_wrong", "").await.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 30, "{statuses:?}");
    let blocked = browser.login("forge_access_wrong", "").await;
    assert_eq!(blocked.status(), 429);
    assert!(blocked.headers().contains_key("retry-after"));
    assert!(blocked.text().await.expect("a page").contains("<main "));
    let _right = Browser::signed_in(&daemon, &token).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_drops_the_session_over_plain_http_is_told_so() {
    let mut place = Place::new();
    place.listen = "api = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\ninsecure_http = true".to_owned();
    let token = place.token("ann", "role = \"operator\"");
    let daemon = place.start().await;
    let mut browser = Browser::new(&daemon);
    let signed = browser.login(&token, "/tasks").await;
    let looked_at = location(&signed).to_owned();
    assert_eq!((signed.status().as_u16(), looked_at.as_str()), (303, "/login?kept=asked&next=%2Ftasks"));
    // A browser that reached the daemon itself has no cookie now.
    let told = browser.get(&looked_at).await;
    assert_eq!(told.status(), 401);
    let page = told.text().await.expect("a page");
    assert!(page.contains("did not keep the session") && page.contains("value=\"/tasks\""), "{page}");
    // One that came over a proxy that speaks TLS has it, and goes on.
    let cookie = signed.headers()["set-cookie"].to_str().expect("text");
    browser.cookie = cookie.split(';').next().expect("a pair").to_owned();
    let kept = browser.get(&looked_at).await;
    assert_eq!((kept.status().as_u16(), location(&kept)), (303, "/tasks"));
    assert!(browser.is_signed_in().await);
    daemon.stop().await;
}

/// A form that comes back with what was wrong is a page like others to the browser; who tried stands in the log as for a program.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_in_its_form_is_written_down() {
    let place = Place::new();
    place.put("projects/shop/project.toml", "");
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put(
        "projects/shop/templates/hello.toml",
        "executor = \"shell\"\n[params]\nscript = \"true\"\n[survey.count]\ntype = \"integer\"\nmin = 1\n",
    );
    let operator = place.token("ann", "role = \"operator\"");
    let admin = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let browser = Browser::signed_in(&daemon, &operator).await;
    let csrf = browser.csrf().await;
    let fields = [("csrf", &*csrf), ("answer.count", "0")];
    let refused = browser.form("/projects/shop/templates/hello/run", &fields).send().await.expect("an answer");
    assert_eq!(refused.status(), 422);
    assert!(refused.text().await.expect("a page").contains("1 answer does not fit"));

    let log = daemon.get_json("/audit?action=task.create", &admin).await;
    let [entry] = log["items"].as_array().expect("a list").as_slice() else { panic!("one entry: {log}") };
    let said =
        ["actor", "project", "object", "result", "problem"].map(|field| entry[field].as_str().unwrap_or_default());
    assert_eq!(said, ["ann", "shop", "template hello", "refused", "invalid-answers"], "{entry}");
    daemon.stop().await;
}
