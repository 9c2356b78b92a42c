//! The audit log: what is done and what is refused stands in it, with who, from where and how it ended; and no secret does.

use forge_api::{AuditAction, AuditActor, AuditEntry, AuditResult, Page};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Place, REGISTRATION_TOKEN, Running, problem, wait_for};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    for project in ["shop", "bank"] {
        place.put(&format!("projects/{project}/project.toml"), "");
        place.put(
            &format!("projects/{project}/templates/hello.toml"),
            "executor = \"shell\"\nconcurrency = \"parallel\"\n[params]\nscript = \"true\"\n[survey.password]\ntype = \"secret\"\n",
        );
        place.put(&format!("projects/{project}/integrations/push.toml"), "template = \"hello\"\nauth = \"none\"\n");
    }
    place.put("runners/ny-1.toml", "project = \"shop\"\n");
    place
}

/// What the log holds for a token, the oldest first.
async fn log(daemon: &Running, token: &str, query: &str) -> Vec<AuditEntry> {
    let page: Page<AuditEntry> =
        serde_json::from_value(daemon.get_json(&format!("/audit?limit=500{query}"), token).await).expect("a page");
    page.items.into_iter().rev().collect()
}

/// The rows of an action, as far as tests compare them.
fn rows(log: &[AuditEntry], action: AuditAction) -> Vec<(AuditActor, &str, Option<&str>, &str, AuditResult)> {
    let of_action = log.iter().filter(|entry| entry.action == action);
    of_action
        .map(|entry| (entry.actor_kind, &*entry.actor, entry.project.as_deref(), &*entry.object, entry.result))
        .collect()
}

async fn send(daemon: &Running, method: Method, path: &str, token: &str, body: Value) -> u16 {
    let sent = daemon.request(method, path, token).json(&body).send().await;
    sent.expect("an answer").status().as_u16()
}

async fn login(daemon: &Running, token: &str) -> reqwest::Response {
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
    let login = daemon.browser().post(format!("{}/login", daemon.addresses.api)).body(body);
    login.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_written_down_with_who_and_from_where() {
    use AuditAction as Act;
    use AuditActor::{Access, Forge, Integration, Registration, Runner, Session};
    use AuditResult::{Failed, Ok};
    let place = place();
    let ann = place.token("ann", "role = \"admin\"");
    let daemon = place.start().await;
    let post = async |path: &str, body: Value| {
        let status = send(&daemon, Method::POST, path, &ann, body).await;
        assert!((200..300).contains(&status), "{path}: {status}");
    };
    post("/projects/shop/templates/hello/tasks", json!({})).await;
    post("/tasks/1/cancel", json!({})).await;
    post("/tasks/1/retry", json!({})).await;
    let hook = daemon.post("/hooks/bank/push").body("{}").send().await.expect("an answer");
    assert_eq!(hook.status(), 201);
    let key = age::x25519::Identity::generate();
    let register = async || {
        let body = json!({"name": "ny-1", "public_key": key.to_public().to_string(), "version": "0.1.0"});
        let answer = daemon.request(Method::POST, "/runners", REGISTRATION_TOKEN).json(&body).send().await;
        let registered: forge_api::RegisterResponse = answer.expect("an answer").json().await.expect("registered");
        let sealed = registered.sealed_token_bytes().expect("base64");
        String::from_utf8(age::decrypt(&key, &sealed).expect("sealed to us")).expect("text")
    };
    register().await;
    post("/runners/ny-1/drain", json!({})).await;
    post("/runners/ny-1/resume", json!({})).await;
    assert_eq!(send(&daemon, Method::DELETE, "/runners/ny-1", &ann, json!({})).await, 204);
    let runner = register().await;
    assert_eq!(send(&daemon, Method::DELETE, "/runner", &runner, json!({})).await, 204);
    let hash = format!("sha256:{}", "1".repeat(64));
    post("/tokens/revoke", json!({ "hash": hash })).await;
    post("/config/apply", json!({})).await;
    assert_eq!(login(&daemon, &ann).await.status(), 303);
    place.put("projects/shop/project.toml", "descripton = 7\n");
    wait_for("the failure", || async { daemon.config(&ann).await.last_error }).await;
    wait_for("its row", || async {
        let log = log(&daemon, &ann, "&action=config.failed").await;
        (!log.is_empty()).then_some(())
    })
    .await;

    let log = log(&daemon, &ann, "").await;
    let shop = Some("shop");
    for (action, expected) in [
        (Act::TaskCreate, vec![(Access, "ann", shop, "task 1", Ok), (Integration, "push", Some("bank"), "task 2", Ok)]),
        (Act::TaskCancel, vec![(Access, "ann", shop, "task 1", Ok)]),
        (Act::TaskRetry, vec![(Access, "ann", shop, "task 1", Ok)]),
        (
            Act::RunnerRegister,
            vec![
                (Registration, "forge.toml", shop, "runner ny-1", Ok),
                (Registration, "forge.toml", shop, "runner ny-1", Ok),
            ],
        ),
        (Act::RunnerDrain, vec![(Access, "ann", shop, "runner ny-1", Ok)]),
        (Act::RunnerResume, vec![(Access, "ann", shop, "runner ny-1", Ok)]),
        (Act::RunnerRemove, vec![(Access, "ann", shop, "runner ny-1", Ok)]),
        (Act::RunnerUnregister, vec![(Runner, "ny-1", shop, "runner ny-1", Ok)]),
        (Act::TokenRevoke, vec![(Access, "ann", None, &*format!("token {hash}"), Ok)]),
        (Act::ConfigApply, vec![(Access, "ann", None, "configuration", Ok)]),
        (Act::SessionBegin, vec![(Session, "ann", None, "session", Ok)]),
    ] {
        assert_eq!(rows(&log, action), expected, "{action}");
    }
    let applied = rows(&log, Act::ConfigApplied);
    assert!(matches!(applied.as_slice(), [(Forge, "gitops", None, _, Ok)]), "{applied:?}");
    assert!(rows(&log, Act::ConfigFailed).iter().all(|row| row.4 == Failed));
    for entry in log.iter().filter(|entry| !matches!(entry.actor_kind, Forge | Integration)) {
        assert_eq!(entry.remote.as_deref(), Some("127.0.0.1"), "{entry:?}");
    }
    daemon.stop().await;
}

/// Complaint 9 (a registered runner is answered 400 and nobody knows why): a refusal says why, to the runner and to whoever looks later.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_written_down_once_however_often_it_is_tried() {
    let place = place();
    let admin = place.token("root", "role = \"admin\"");
    let viewer = place.token("eve", "role = \"viewer\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    for project in ["shop", "bank", "bank"] {
        let path = format!("/projects/{project}/templates/hello/tasks");
        assert_eq!(send(&daemon, Method::POST, &path, &admin, json!({})).await, 201);
    }
    for _ in 0..20 {
        assert_eq!(send(&daemon, Method::POST, "/tasks/1/cancel", &viewer, json!({})).await, 403);
    }
    assert_eq!(send(&daemon, Method::POST, "/tasks/2/cancel", &viewer, json!({})).await, 404);
    for _ in 0..2 {
        assert_eq!(send(&daemon, Method::POST, "/tasks/3/cancel", &viewer, json!({})).await, 404);
    }
    assert_eq!(send(&daemon, Method::POST, "/tasks/1/approve", &admin, json!({})).await, 409);
    assert_eq!(send(&daemon, Method::POST, "/runners/ny-1/drain", &viewer, json!({})).await, 403);
    let register = async |token: &str, key: &str| {
        let body = json!({"name": "ny-1", "public_key": key, "version": "0.1.0"});
        daemon.request(Method::POST, "/runners", token).json(&body).send().await.expect("an answer")
    };
    let keys = [(); 2].map(|()| age::x25519::Identity::generate().to_public().to_string());
    assert_eq!(register(REGISTRATION_TOKEN, &keys[0]).await.status(), 201);
    let taken = problem(register(REGISTRATION_TOKEN, &keys[1]).await).await;
    assert_eq!((taken.status, taken.slug()), (409, "name-taken"));
    assert_eq!(register("a-wrong-one", &keys[0]).await.status(), 401);
    assert_eq!(login(&daemon, "wrong").await.status(), 401);

    let log = log(&daemon, &admin, "").await;
    let refused: Vec<_> = log
        .iter()
        .filter(|entry| entry.result == AuditResult::Refused)
        .map(|entry| {
            let problem = entry.problem.as_deref().unwrap_or_default();
            (entry.action.as_str(), &*entry.actor, entry.project.as_deref(), &*entry.object, problem)
        })
        .collect();
    assert_eq!(
        refused,
        [
            ("task.cancel", "eve", Some("shop"), "task 1", "forbidden"),
            ("task.cancel", "eve", Some("bank"), "task 2", "not-found"),
            ("task.approve", "root", Some("shop"), "task 1", "conflict"),
            ("runner.drain", "eve", Some("shop"), "runner ny-1", "forbidden"),
            ("runner.register", "forge.toml", Some("shop"), "runner ny-1", "name-taken"),
            ("runner.register", "", Some("shop"), "runner ny-1", "unauthorized"),
            ("session.begin", "", None, "session", "unauthorized"),
        ]
    );
    daemon.stop().await;

    // What followed the first is one row more, which says how often: at the latest when the daemon stops.
    let daemon = place.start().await;
    let folded = log_of(&daemon, &admin, "task.cancel").await;
    let mut folded: Vec<_> = folded
        .iter()
        .filter_map(|entry| Some((entry.project.as_deref()?, entry.detail.as_ref()?.clone())))
        .filter(|(_, detail)| detail.get("repeated").is_some())
        .collect();
    folded.sort_by_key(|(project, _)| *project);
    // Each project's owners find what was tried at theirs.
    let of_bank = json!({ "repeated": 2, "first_object": "task 2", "other_objects": ["task 3"] });
    let of_shop = json!({ "repeated": 19, "first_object": "task 1" });
    assert_eq!(folded, [("bank", of_bank), ("shop", of_shop)]);
    daemon.stop().await;
}

async fn log_of(daemon: &Running, token: &str, action: &str) -> Vec<AuditEntry> {
    log(daemon, token, &format!("&action={action}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_what_is_theirs_to_see() {
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let shop_admin = place.token("shop-admin", "role = \"admin\"\nprojects = [\"shop\"]");
    let shop_owner = place.token("shop-owner", "role = \"owner\"\nprojects = [\"shop\"]");
    let owner = place.token("owner", "role = \"owner\"");
    let operator = place.token("operator", "role = \"operator\"");
    let daemon = place.start().await;
    for project in ["shop", "bank", "shop"] {
        let path = format!("/projects/{project}/templates/hello/tasks");
        assert_eq!(send(&daemon, Method::POST, &path, &root, json!({})).await, 201);
    }
    let hash = format!("sha256:{}", "1".repeat(64));
    assert_eq!(send(&daemon, Method::POST, "/tokens/revoke", &root, json!({ "hash": hash })).await, 200);
    let seen = async |token: &str, query: &str| {
        let log = log(&daemon, token, query).await;
        let objects = log.into_iter().filter(|entry| entry.actor == "root").map(|entry| entry.object);
        objects.map(|object| object.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&root, "").await, ["task 1", "task 2", "task 3", "token sha256"]);
    assert_eq!(seen(&owner, "").await, ["task 1", "task 2", "task 3"], "what is of no project is an admin's");
    for token in [&shop_admin, &shop_owner] {
        assert_eq!(seen(token, "").await, ["task 1", "task 3"]);
        assert!(seen(token, "&project=bank").await.is_empty());
    }
    assert_eq!(seen(&root, "&project=bank").await, ["task 2"]);
    assert_eq!(seen(&root, "&action=token.revoke").await, ["token sha256"]);
    assert!(seen(&root, "&since=2100-01-01T00:00:00Z").await.is_empty());
    assert!(seen(&root, "&until=2000-01-01T00:00:00Z").await.is_empty());
    let first = daemon.get_json("/audit?limit=1&actor=root", &root).await;
    let cursor = first["next_cursor"].as_str().expect("there is more").to_owned();
    let second = daemon.get_json(&format!("/audit?limit=1&actor=root&cursor={cursor}"), &root).await;
    assert_eq!(second["items"][0]["object"], "task 3");
    for (query, word) in [("action=task.made", "task.create"), ("since=yesterday", "yesterday"), ("cursor=x", "cursor")]
    {
        let refused = problem(daemon.get(&format!("/audit?{query}"), &root).await).await;
        assert_eq!(refused.status, 400, "{query}");
        assert!(refused.detail.contains(word), "{refused:?}");
    }
    assert_eq!(problem(daemon.get("/audit", &operator).await).await.status, 403);
    daemon.stop().await;
}

/// Complaint 19 (survey secrets empty, or in history): no secret answer and no token stands in the log, nor anywhere else in the database.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_it() {
    const ANSWER: &str = "an-answer-that-nobody-may-read";
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let path = "/projects/shop/templates/hello/tasks";
    let body = json!({"variables": {"password": ANSWER}});
    assert_eq!(send(&daemon, Method::POST, path, &root, body).await, 201);
    let login = login(&daemon, &root).await;
    let cookie = login.headers()["set-cookie"].to_str().expect("text").to_owned();
    let session = cookie.split(['=', ';']).nth(1).expect("a value").to_owned();
    assert_eq!(log(&daemon, &root, "").await.iter().filter(|entry| entry.actor == "root").count(), 2);
    daemon.stop().await;
    let database = std::fs::read(place.data().join("forge.db")).expect("readable");
    for secret in [ANSWER, &root, &session, REGISTRATION_TOKEN] {
        assert!(!database.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in the database");
    }
}
