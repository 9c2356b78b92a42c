//! `POST /hooks/<project>/<integration>`: who proves itself and sends what the integration waits for starts a task, once a delivery.

use forge_api::{IntegrationAnswer, IntegrationOutcome, IntegrationRequest, Page};
use http::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::harness::{Place, Running, problem};

const SECRET: &str = "a secret of the sender";

/// A place with a template that asks for a version, and an integration of each way to prove oneself.
fn place() -> (Place, String) {
    let mut place = Place::new();
    let token = place.token("ann", "role = \"viewer\"\nprojects = [\"shop\"]");
    let secret = place.folder().join("sender-secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    place.extra = format!("[secrets.allow.shop]\nfiles = [{secret:?}]\n");
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put("projects/shop/project.toml", "");
    place.put(
        "projects/shop/templates/deploy.toml",
        "executor = \"shell\"\nconcurrency = \"parallel\"\n[params]\nscript = \"true\"\n[survey.version]\ntype = \"string\"\nrequired = true\npattern = '^v[0-9]+$'\n[survey.count]\ntype = \"integer\"\n",
    );
    for auth in ["github", "hmac", "token"] {
        place.put(
            &format!("projects/shop/integrations/{auth}.toml"),
            &format!(
                "template = \"deploy\"\nauth = \"{auth}\"\nsecret = {{ file = {secret:?} }}\n[[match]]\nheader = \"X-Event\"\nequals = \"push\"\n\
                 [[match]]\njson = \"$.ref\"\npattern = '^refs/tags/'\n[extract]\nversion = {{ json = \"$.ref\", pattern = '^refs/tags/(.+)$' }}\ncount = \"$.count\"\n"
            ),
        );
    }
    place.put(
        "projects/shop/integrations/open.toml",
        "template = \"deploy\"\nauth = \"none\"\n[extract]\nversion = \"$.version\"\n",
    );
    (place, token)
}

fn mac(text: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a request came to.
async fn post(daemon: &Running, integration: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let mut request = daemon.post(&format!("/hooks/shop/{integration}")).header("X-Event", "push");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

fn started(answer: (StatusCode, Value)) -> u64 {
    let (status, body) = answer;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let answer: IntegrationAnswer = serde_json::from_value(body).expect("an answer");
    assert!(answer.matched && !answer.repeated);
    answer.task.expect("a task")
}

async fn log(daemon: &Running, token: &str, integration: &str) -> Vec<IntegrationRequest> {
    let path = format!("/projects/shop/integrations/{integration}/log");
    let page: Page<IntegrationRequest> = serde_json::from_value(daemon.get_json(&path, token).await).expect("a page");
    page.items
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_prove_oneself_starts_a_task_with_the_answers_of_the_request() {
    let (place, token) = place();
    let daemon = place.start().await;
    let body = json!({ "ref": "refs/tags/v7", "count": 3 }).to_string();
    let hub = format!("sha256={}", mac(&body));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let forge = format!("t={now},v1={}", mac(&format!("{now}.{body}")));
    let plain = mac(&body);
    let bearer = format!("Bearer {SECRET}");
    for (integration, header, value) in [
        ("github", "X-Hub-Signature-256", hub.as_str()),
        ("hmac", "X-Hub-Signature-256", &hub),
        ("hmac", "X-Gitea-Signature", &plain),
        ("hmac", "Forge-Signature", &forge),
        ("token", "X-Gitlab-Token", SECRET),
        ("token", "Authorization", &bearer),
    ] {
        let number = started(post(&daemon, integration, &[(header, value)], &body).await);
        let task = daemon.get_json(&format!("/tasks/{number}"), &token).await;
        assert_eq!(task["variables"], json!({ "version": "v7", "count": 3 }), "{header}");
        assert_eq!((&task["trigger"]["kind"], &task["trigger"]["by"]), (&json!("integration"), &json!(integration)));
    }
    let number = started(post(&daemon, "open", &[], "{\"version\": \"v8\"}").await);
    assert_eq!(log(&daemon, &token, "open").await[0].task, Some(number));
    daemon.stop().await;
}

/// A body that is just too large: who still sends when the connection ends hears no answer.
fn too_large() -> String {
    "x".repeat(5 * 1024 * 1024 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_prove_itself_starts_nothing() {
    let (place, token) = place();
    let daemon = place.start().await;
    let body = json!({ "ref": "refs/tags/v7" }).to_string();
    let other = format!("sha256={}", mac("another body"));
    let old = format!("t=1000000000,v1={}", mac(&format!("1000000000.{body}")));
    for (integration, header, value) in [
        ("github", "X-Nothing", ""),
        ("github", "X-Hub-Signature-256", other.as_str()),
        ("github", "X-Gitlab-Token", SECRET),
        ("hmac", "Forge-Signature", &old),
        ("token", "X-Gitlab-Token", "another secret"),
    ] {
        let (status, body) = post(&daemon, integration, &[(header, value)], &body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{integration} {header}: {body}");
        assert!(log(&daemon, &token, integration).await.is_empty(), "a stranger fills no log");
    }
    // A secret that is being written anew is nobody's.
    std::fs::write(place.folder().join("sender-secret"), "\n").expect("written");
    for (integration, header, value) in
        [("token", "X-Forge-Token", ""), ("github", "X-Hub-Signature-256", other.as_str())]
    {
        let (status, _) = post(&daemon, integration, &[(header, value)], &body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{integration}");
    }
    let unknown = daemon.post("/hooks/shop/nothing").body(body.clone()).send().await.expect("an answer");
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(daemon.get_json("/tasks", &token).await["items"], json!([]));
    let large = daemon.post("/hooks/shop/open").body(too_large()).send().await.expect("an answer");
    assert_eq!(problem(large).await.status, 413);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_waited_for_is_said_and_a_delivery_that_comes_again_starts_nothing_more() {
    let (place, token) = place();
    place.put("projects/bank/project.toml", "");
    let other = place.token("bob", "role = \"admin\"\nprojects = [\"bank\"]");
    let daemon = place.start().await;
    let send = async |delivery: &str, body: Value| {
        let body = body.to_string();
        let headers = [("X-Gitlab-Token", SECRET), ("X-Gitlab-Event-UUID", delivery)];
        post(&daemon, "token", &headers, &body).await
    };
    let (status, body) = send("d1", json!({ "ref": "refs/heads/main" })).await;
    assert_eq!((status, &body["matched"]), (StatusCode::OK, &json!(false)));
    assert_eq!(body["reason"], "$.ref of the body does not match \"^refs/tags/\"");
    let number = started(send("d2", json!({ "ref": "refs/tags/v1" })).await);
    let (status, body) = send("d2", json!({ "ref": "refs/tags/v1" })).await;
    assert_eq!((status, body["task"].as_u64(), &body["repeated"]), (StatusCode::OK, Some(number), &json!(true)));
    // By its name: what is found in it by now may be something else.
    let (status, body) = send("d2", json!({ "ref": "refs/tags/v2" })).await;
    assert_eq!((status, body["task"].as_u64(), &body["repeated"]), (StatusCode::OK, Some(number), &json!(true)));
    let (status, body) = send("d3", json!({ "ref": "refs/tags/one" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(body.to_string().contains("version"), "{body}");
    let (_, body) = post(&daemon, "token", &[("X-Gitlab-Token", SECRET)], "no JSON").await;
    assert_eq!(body["reason"], "$.ref of the body is not there: the body is no JSON");

    let outcomes: Vec<IntegrationOutcome> = log(&daemon, &token, "token").await.iter().map(|one| one.outcome).collect();
    let expected = [
        IntegrationOutcome::NotMatched,
        IntegrationOutcome::Refused,
        IntegrationOutcome::Repeated,
        IntegrationOutcome::Repeated,
        IntegrationOutcome::Started,
        IntegrationOutcome::NotMatched,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(daemon.get_json("/tasks", &token).await["items"].as_array().map(Vec::len), Some(1));
    let log = daemon.get_json("/projects/shop/integrations/token/log", &token).await;
    assert!(!log.to_string().contains("refs/tags/one"), "nothing of a body is kept: {log}");
    // Another integration's delivery of the same name is another one.
    let other_one = post(&daemon, "open", &[("X-Gitlab-Event-UUID", "d2")], "{\"version\": \"v9\"}").await;
    assert_ne!(started(other_one), number);
    // Another's project is as if it were not there.
    let path = "/projects/shop/integrations/token/log";
    let refused = daemon.request(Method::GET, path, &other).send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    daemon.stop().await;
}

/// Has the address of these tests be wrong until it is told that this was too often.
async fn wrong_too_often(what: &str, ask: impl AsyncFn() -> StatusCode, otherwise: StatusCode) {
    for _ in 0..100 {
        let status = ask().await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        assert_eq!(status, otherwise, "{what}");
    }
    panic!("{what}: it may be wrong for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_signs_is_heard_whatever_its_neighbours_do() {
    let (place, _token) = place();
    let daemon = place.start().await;
    let body = json!({ "ref": "refs/tags/v7" }).to_string();
    let ask = async || post(&daemon, "token", &[("X-Gitlab-Token", "guessed")], &body).await.0;
    wrong_too_often("a guess", ask, StatusCode::UNAUTHORIZED).await;
    let hub = format!("sha256={}", mac(&body));
    started(post(&daemon, "github", &[("X-Hub-Signature-256", &hub)], &body).await);
    started(post(&daemon, "hmac", &[("X-Hub-Signature-256", &hub)], &body).await);
    let other = format!("sha256={}", mac("another body"));
    let (status, _) = post(&daemon, "github", &[("X-Hub-Signature-256", &other)], &body).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "who is wrong is not");
    let (status, _) = post(&daemon, "token", &[("X-Gitlab-Token", SECRET)], &body).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "a token may have been guessed at last");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_bodies_are_not_tried_for_ever() {
    let (place, _token) = place();
    let daemon = place.start().await;
    let ask = async || {
        let request = daemon.post("/hooks/shop/github").header("X-Hub-Signature-256", "sha256=00").body(too_large());
        request.send().await.expect("an answer").status()
    };
    wrong_too_often("a body that is never whole", ask, StatusCode::PAYLOAD_TOO_LARGE).await;
    daemon.stop().await;

    let daemon = place.start().await;
    let ask = async || daemon.post("/hooks/shop/guessed").send().await.expect("an answer").status();
    wrong_too_often("a name", ask, StatusCode::NOT_FOUND).await;
    daemon.stop().await;
}
