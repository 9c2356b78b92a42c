//! The API from the operator's side: one connection, answers as `forge_api` shapes, problems as errors that say what to do.

use std::time::Duration;

use bytes::Bytes;
use forge_api::{
    API_PREFIX, ApplyConfig, AuditAction, AuditEntry, ConfigStatus, CreateTask, Decision, IDEMPOTENCY_KEY_HEADER,
    IntegrationRequest, Page, Problem, RATE_LIMITED, RetryTask, RevokeToken, RevokedToken, Runner, Schedule,
    ServedConfig, Task, TestWebhook, WebhookDelivery, WebhookTarget, Why,
};
use forge_runner::trust::{self, Trust};
use futures_util::TryStreamExt as _;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::args::{AuditArguments, Connection};
use crate::error::CliError;

/// How many items one page of a listing asks for.
const PAGE_ITEMS: u32 = 200;

/// How long a request waits in all for its turn, when the token has asked too much.
const RATE_WAIT_MAX: Duration = Duration::from_secs(60);

/// A daemon, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    token: String,
}

/// What a listing of tasks keeps.
#[derive(Debug, Default)]
pub(crate) struct TaskQuery<'a> {
    pub(crate) project: Option<&'a str>,
    pub(crate) template: Option<&'a str>,
    pub(crate) state: Option<&'a str>,
    pub(crate) limit: u32,
}

impl Client {
    /// A client for what the flags or the environment name.
    pub(crate) fn connect(connection: &Connection) -> Result<Self, CliError> {
        let url = connection.url.clone().filter(|url| !url.is_empty()).ok_or_else(|| {
            CliError::usage("no daemon was named")
                .hint("set FORGE_URL (and FORGE_TOKEN), or give --url https://HOST:PORT")
        })?;
        let token = connection.token.clone().filter(|token| !token.is_empty()).ok_or_else(|| {
            CliError::usage("no access token was given").hint(
                "set FORGE_TOKEN to a token whose hash stands in access/NAME.toml of the tree; `forge token new` makes one",
            )
        })?;
        let trust = match connection.ca_file.clone().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Trust::CaFile(path),
            None => Trust::SystemRoots,
        };
        Self::new(&url, token.trim(), &trust)
    }

    /// A client for a daemon at `url`.
    pub(crate) fn new(url: &str, token: &str, trust: &Trust) -> Result<Self, CliError> {
        let url = daemon_url(url)?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CliError::usage("the access token holds a character that no token has")
                .hint("set FORGE_TOKEN to the one line that `forge token new` printed after `token:`"));
        }
        let http = trust::http_client(trust).map_err(CliError::failed)?;
        Ok(Self { http, url, token: token.to_owned() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{API_PREFIX}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let mut request = request;
        let mut waited = Duration::ZERO;
        loop {
            let again = request.try_clone();
            let response = request.send().await.map_err(|error| self.transport_error(&error))?;
            if response.status().is_success() {
                return Ok(response);
            }
            let pause = retry_after(&response);
            let (slug, error) = problem_of(response).await;
            // What was answered so was not done, whatever the method.
            match (again, pause) {
                (Some(again), Some(pause)) if slug == RATE_LIMITED && waited + pause <= RATE_WAIT_MAX => {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    request = again;
                }
                _ => return Err(error),
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.transport_error(&error))?;
        serde_json::from_slice(&body).map_err(|error| {
            CliError::failed(format_args!("{} answered what this version does not understand: {error}", self.url))
                .hint("is the daemon older or newer than this `forge`? compare `forge --version` on both")
        })
    }

    fn transport_error(&self, error: &reqwest::Error) -> CliError {
        let words = trust::explain(error, &self.url);
        let shown = CliError::unreachable(&words);
        // The words are a runner's, whose settings name these two; a client's has the one.
        if words.contains("ca_file") {
            shown.hint("a client takes the CA's certificate from FORGE_CA_FILE or --ca-file")
        } else {
            shown
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.request(Method::GET, path)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.request(Method::POST, path)).await
    }

    /// Creates a task.
    pub(crate) async fn create_task(&self, project: &str, template: &str, task: &CreateTask) -> Result<Task, CliError> {
        let path = format!("/projects/{}/templates/{}/tasks", segment(project), segment(template));
        let key = idempotency_key()?;
        let request = || self.request(Method::POST, &path).header(IDEMPOTENCY_KEY_HEADER, &key).json(task);
        match self.json(request()).await {
            // The answer may have been lost after the task was made: asked once more under the same key, it is found.
            Err(error) if error.is_transient() => self.json(request()).await,
            answered => answered,
        }
    }

    /// The first items of a listing that the parameters keep, over as many pages as it takes.
    async fn listing<T: DeserializeOwned>(
        &self,
        path: &str,
        keep: &[(&'static str, Option<&str>)],
        limit: u32,
    ) -> Result<Page<T>, CliError> {
        let mut found = Page { items: Vec::new(), next_cursor: None };
        loop {
            let missing = limit.saturating_sub(u32::try_from(found.items.len()).unwrap_or(u32::MAX));
            let mut parameters = vec![("limit", missing.min(PAGE_ITEMS).to_string())];
            for (name, value) in keep.iter().copied().chain([("cursor", found.next_cursor.as_deref())]) {
                parameters.extend(value.map(|value| (name, value.to_owned())));
            }
            let page: Page<T> = self.get(&format!("{path}?{}", query_string(&parameters))).await?;
            let is_empty = page.items.is_empty();
            found.items.extend(page.items);
            found.next_cursor = page.next_cursor;
            if is_empty || found.next_cursor.is_none() || found.items.len() >= limit as usize {
                return Ok(found);
            }
        }
    }

    /// The newest tasks that the query keeps.
    pub(crate) async fn tasks(&self, query: &TaskQuery<'_>) -> Result<Page<Task>, CliError> {
        let keep = [("project", query.project), ("template", query.template), ("state", query.state)];
        self.listing("/tasks", &keep, query.limit).await
    }

    /// Every schedule that the token reaches.
    pub(crate) async fn schedules(&self) -> Result<Page<Schedule>, CliError> {
        self.listing("/schedules", &[], u32::MAX).await
    }

    /// The newest requests to an integration.
    pub(crate) async fn integration_log(
        &self,
        project: &str,
        integration: &str,
    ) -> Result<Page<IntegrationRequest>, CliError> {
        self.get(&format!("/projects/{}/integrations/{}/log", segment(project), segment(integration))).await
    }

    /// Every webhook target.
    pub(crate) async fn webhook_targets(&self) -> Result<Page<WebhookTarget>, CliError> {
        self.listing("/webhooks", &[], u32::MAX).await
    }

    /// The newest deliveries of a target, in a state, where one is named.
    pub(crate) async fn deliveries(
        &self,
        target: Option<&str>,
        state: Option<&str>,
        limit: u32,
    ) -> Result<Page<WebhookDelivery>, CliError> {
        self.listing("/webhooks/deliveries", &[("target", target), ("state", state)], limit).await
    }

    /// The newest rows of the audit log that the arguments keep.
    pub(crate) async fn audit(&self, asked: &AuditArguments) -> Result<Page<AuditEntry>, CliError> {
        let (since, until) = (asked.since.map(|since| since.to_string()), asked.until.map(|until| until.to_string()));
        let keep = [
            ("project", asked.project.as_deref()),
            ("actor", asked.actor.as_deref()),
            ("action", asked.action.map(AuditAction::as_str)),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
        ];
        self.listing("/audit", &keep, asked.limit).await
    }

    /// One delivery, with what it says.
    pub(crate) async fn delivery(&self, id: &str) -> Result<WebhookDelivery, CliError> {
        self.get(&format!("/webhooks/deliveries/{}", segment(id))).await
    }

    /// Has a delivery sent once more.
    pub(crate) async fn redeliver(&self, id: &str) -> Result<WebhookDelivery, CliError> {
        self.post(&format!("/webhooks/deliveries/{}/redeliver", segment(id))).await
    }

    /// Has a target told of an event that was made up.
    pub(crate) async fn test_webhook(&self, target: &str, request: &TestWebhook) -> Result<WebhookDelivery, CliError> {
        let path = format!("/webhooks/{}/test", segment(target));
        self.json(self.request(Method::POST, &path).json(request)).await
    }

    /// One task.
    pub(crate) async fn task(&self, number: u64) -> Result<Task, CliError> {
        self.get(&format!("/tasks/{number}")).await
    }

    /// Why a task is where it is.
    pub(crate) async fn why(&self, number: u64) -> Result<Why, CliError> {
        self.get(&format!("/tasks/{number}/why")).await
    }

    /// Cancels a task.
    pub(crate) async fn cancel(&self, number: u64) -> Result<Task, CliError> {
        self.post(&format!("/tasks/{number}/cancel")).await
    }

    /// Runs a finished task again.
    pub(crate) async fn retry(&self, number: u64, request: &RetryTask) -> Result<Task, CliError> {
        self.json(self.request(Method::POST, &format!("/tasks/{number}/retry")).json(request)).await
    }

    /// Has a task go on with what it has planned.
    pub(crate) async fn approve(&self, number: u64, decision: &Decision) -> Result<Task, CliError> {
        self.json(self.request(Method::POST, &format!("/tasks/{number}/approve")).json(decision)).await
    }

    /// Ends a task without doing what it has planned.
    pub(crate) async fn reject(&self, number: u64, decision: &Decision) -> Result<Task, CliError> {
        self.json(self.request(Method::POST, &format!("/tasks/{number}/reject")).json(decision)).await
    }

    /// The log of a task's newest attempt, as far as it is there.
    pub(crate) async fn log(&self, number: u64) -> Result<LogStream, CliError> {
        let response = self.send(self.request(Method::GET, &format!("/tasks/{number}/log"))).await?;
        Ok(LogStream { client: self.clone(), response })
    }

    /// The log of an attempt from `offset` on, as it comes, until the attempt is over. Attempt 0 is the first one, waited for.
    pub(crate) async fn follow_log(&self, number: u64, attempt: u32, offset: u64) -> Result<LogStream, CliError> {
        let which = if attempt == 0 { String::new() } else { format!("&attempt={attempt}") };
        let mut request = self.request(Method::GET, &format!("/tasks/{number}/log?follow=true{which}"));
        if offset > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={offset}-"));
        }
        Ok(LogStream { client: self.clone(), response: self.send(request).await? })
    }

    /// Every runner that this token may see.
    pub(crate) async fn runners(&self) -> Result<Page<Runner>, CliError> {
        self.listing("/runners", &[], u32::MAX).await
    }

    /// One runner.
    pub(crate) async fn runner(&self, name: &str) -> Result<Runner, CliError> {
        self.get(&format!("/runners/{}", segment(name))).await
    }

    /// Gives a runner nothing new.
    pub(crate) async fn drain_runner(&self, name: &str) -> Result<Runner, CliError> {
        self.post(&format!("/runners/{}/drain", segment(name))).await
    }

    /// Gives a drained runner work again.
    pub(crate) async fn resume_runner(&self, name: &str) -> Result<Runner, CliError> {
        self.post(&format!("/runners/{}/resume", segment(name))).await
    }

    /// Forgets a runner's registration.
    pub(crate) async fn remove_runner(&self, name: &str) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, &format!("/runners/{}", segment(name)))).await.map(drop)
    }

    /// Refuses a token from now on.
    pub(crate) async fn revoke_token(&self, hash: String) -> Result<RevokedToken, CliError> {
        self.json(self.request(Method::POST, "/tokens/revoke").json(&RevokeToken { hash })).await
    }

    /// Has the source looked at now, letting pass what the request names.
    pub(crate) async fn apply_config(&self, request: &ApplyConfig) -> Result<ConfigStatus, CliError> {
        self.json(self.request(Method::POST, "/config/apply").json(request)).await
    }

    /// What the revision that serves holds.
    pub(crate) async fn served_config(&self) -> Result<ServedConfig, CliError> {
        self.get("/config/objects").await
    }

    /// What the daemon serves.
    pub(crate) async fn config(&self) -> Result<ConfigStatus, CliError> {
        self.get("/config").await
    }
}

/// A log as it comes.
#[derive(Debug)]
pub(crate) struct LogStream {
    client: Client,
    response: Response,
}

impl LogStream {
    /// Hands every piece to `sink` until the stream ends.
    pub(crate) async fn copy_to(self, mut sink: impl FnMut(&[u8])) -> Result<(), CliError> {
        let client = self.client;
        let mut stream = self.response.bytes_stream();
        while let Some(bytes) = stream.try_next().await.map_err(|error| client.transport_error(&error))? {
            let bytes: Bytes = bytes;
            sink(&bytes);
        }
        Ok(())
    }
}

/// When to come back, where the daemon says so.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The kind of a problem, and what is said about it.
async fn problem_of(response: Response) -> (String, CliError) {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        let error = CliError::failed(format_args!("the daemon answered {status} without saying why"))
            .hint("does FORGE_URL point to a Forge daemon, and not to another server?");
        return (String::new(), error);
    };
    let error = CliError::failed(&problem.detail);
    let slug = problem.slug().to_owned();
    match problem.hint {
        Some(hint) => (slug, error.hint(hint)),
        None => (slug, error),
    }
}

/// The daemon's URL as people write it, without a slash or the API's own path at its end.
fn daemon_url(written: &str) -> Result<String, CliError> {
    let url = written.trim().trim_end_matches('/');
    let url = url.strip_suffix(API_PREFIX).unwrap_or(url);
    let host = url.strip_prefix("https://").filter(|host| !host.is_empty() && !host.starts_with([':', '/']));
    match host {
        Some(_) => Ok(url.to_owned()),
        None => Err(CliError::usage(format_args!("{written:?} is no URL of a daemon: its API is HTTPS only"))
            .hint("write https://HOST:PORT, as `addresses.json` in the daemon's data folder shows it")),
    }
}

/// A key that no other request has.
fn idempotency_key() -> Result<String, CliError> {
    let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new());
    let bytes = random.map_err(|_| CliError::failed("the system gives no random bytes"))?.expose();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name as one segment of a path: what is no letter, digit, `-`, `_`, `.` or `~` is escaped.
fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn query_string(parameters: &[(&str, String)]) -> String {
    parameters.iter().map(|(name, value)| format!("{name}={}", segment(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_named_by_its_url_however_it_ends() {
        for written in ["https://forge:8443", "https://forge:8443/", " https://forge:8443/api/v1/\n"] {
            assert_eq!(daemon_url(written).ok().as_deref(), Some("https://forge:8443"), "{written:?}");
        }
        for wrong in ["", "forge:8443", "http://forge", "https://", "https:///", "https://:8443"] {
            assert!(daemon_url(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Answers the requests of two connections: the first is read and dropped. Answers with the keys that they carried.
    fn answer_the_second(listener: &std::net::TcpListener, answer: &str) -> Vec<String> {
        use std::io::{BufRead as _, BufReader, Write as _};
        (0..2)
            .map(|turn| {
                let (stream, _) = listener.accept().expect("a connection");
                let lines = BufReader::new(&stream).lines().map(|line| line.expect("text"));
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                if turn == 1 {
                    let length = answer.len();
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                    write!(&stream, "{head}\r\nContent-Length: {length}\r\n\r\n{answer}").expect("sent");
                }
                let key = head.iter().find_map(|line| line.strip_prefix("idempotency-key: "));
                key.expect("a key").to_owned()
            })
            .collect()
    }

    #[tokio::test]
    async fn a_creation_whose_answer_was_lost_is_asked_for_once_more_under_the_same_key() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let task = serde_json::json!({
            "number": 7, "project": "shop", "template": "hello", "state": "queued", "reason": null, "attempt": 0, "runner": null,
            "required_tag": null, "revision": "r", "commit": null, "exit_code": null, "trigger": { "kind": "user", "by": "ann" },
            "variables": {}, "created_at": "2026-01-01T00:00:00Z", "assigned_at": null, "started_at": null, "finished_at": null,
            "log_bytes": 0, "summary": null
        });
        let answering = tokio::task::spawn_blocking(move || answer_the_second(&listener, &task.to_string()));
        let http = trust::http_client(&Trust::SystemRoots).expect("a client");
        let client = Client { http, url, token: "token".to_owned() };
        let created = client.create_task("shop", "hello", &CreateTask::default()).await.expect("created");
        assert_eq!(created.number, 7);
        let keys = answering.await.expect("answered");
        assert_eq!((keys[0].len(), &keys[0]), (32, &keys[1]));
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("a/../b?c#d e"), "a%2F..%2Fb%3Fc%23d%20e");
        assert_eq!(query_string(&[("state", "a&b=c".to_owned())]), "state=a%26b%3Dc");
    }
}
