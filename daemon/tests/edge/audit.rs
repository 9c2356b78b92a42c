//! The audit log: what is done and what is refused stands in it, with who, from where and how it ended; and no secret does.

use forge_api::{AttemptOutcome, AuditAction, AuditActor, AuditEntry, AuditResult, Page};
use reqwest::Method;
use serde_json::{Value, json};

use crate::by_hand::{ByHand, done};
use crate::harness::{Place, REGISTRATION_TOKEN, Running, git, problem, wait_for};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_people_decide_and_send_again_is_written_down_too() {
    use AuditAction as Act;
    use AuditActor::{Access, Session};
    use AuditResult::Ok;
    let place = place();
    place.put("plugins/http.toml", "source = \"builtin:http\"\n[allow]\nhosts = [\"http://127.0.0.1:9\"]\n");
    place.put(
        "webhooks/ops.toml",
        "plugin = \"http\"\nevents = [\"task.finished\"]\n[config]\nurl = \"http://127.0.0.1:9/\"\nsign = \"none\"\n",
    );
    let ann = place.token("ann", "role = \"admin\"");
    let daemon = place.start().await;
    let post = async |path: &str, body: Value| {
        let answer = daemon.request(Method::POST, path, &ann).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json::<Value>().await.expect("JSON")
    };
    let delivery = post("/webhooks/ops/test", json!({ "event": "task.finished" })).await;
    let delivery = format!("delivery {}", delivery["id"].as_str().expect("an id"));
    // What is on its way is not sent once more: one that was made up is dead as soon as somebody says so, or after its tries.
    let path = delivery.replace("delivery ", "/webhooks/deliveries/") + "/redeliver";
    wait_for("it is sent once more", || async {
        (send(&daemon, Method::POST, &path, &ann, json!({})).await == 200).then_some(())
    })
    .await;

    for number in [1, 2] {
        post("/projects/shop/templates/hello/tasks", json!({})).await;
        let runner = ByHand::registered(&daemon, "ny-1").await;
        let attempt = runner.begin().await;
        assert_eq!(attempt.job.attempt.task, number);
        assert_eq!(done(attempt.carry("a plan")).await, 204);
        assert_eq!(done(attempt.result(AttemptOutcome::AwaitsApproval, "", Some("a plan"))).await, 200);
        let decision = if number == 1 { "reject" } else { "approve" };
        post(&format!("/tasks/{number}/{decision}"), json!({ "reason": "as discussed" })).await;
        assert_eq!(send(&daemon, Method::DELETE, "/runners/ny-1", &ann, json!({})).await, 204);
    }

    let login = login(&daemon, &ann).await;
    let cookie = login.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let (http, base) = (daemon.browser(), &daemon.addresses.api);
    let page = http.get(format!("{base}/")).header("cookie", &cookie).send().await.expect("an answer");
    let page = page.text().await.expect("a page");
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
    let csrf = rest.split('"').next().expect("a value");
    let out = http.post(format!("{base}/logout")).header("cookie", &cookie).header("forge-csrf", csrf);
    assert_eq!(done(out.header("content-type", "application/x-www-form-urlencoded").body("")).await, 303);

    let log = log(&daemon, &ann, "").await;
    let shop = Some("shop");
    for (action, expected) in [
        (Act::WebhookTest, vec![(Access, "ann", None, "webhook target ops", Ok)]),
        (Act::TaskReject, vec![(Access, "ann", shop, "task 1", Ok)]),
        (Act::TaskApprove, vec![(Access, "ann", shop, "task 2", Ok)]),
        (Act::SessionEnd, vec![(Session, "ann", None, "session", Ok)]),
    ] {
        assert_eq!(rows(&log, action), expected, "{action}");
    }
    let again: Vec<_> = log.iter().filter(|row| row.action == Act::WebhookRedeliver && row.result == Ok).collect();
    let [again] = again.as_slice() else { panic!("it was sent once more, once: {again:?}") };
    assert_eq!((again.actor_kind, &*again.actor, &*again.object), (Access, "ann", &*delivery));
    for action in [Act::WebhookTest, Act::WebhookRedeliver, Act::TaskReject, Act::TaskApprove, Act::SessionEnd] {
        let mut rows = log.iter().filter(|entry| entry.action == action);
        assert!(rows.all(|entry| entry.remote.as_deref() == Some("127.0.0.1")), "{action}");
    }
    let detail = |action: Act, field: &str| {
        let row = log.iter().find(|entry| entry.action == action && entry.result == Ok).expect("a row");
        row.detail.as_ref().and_then(|detail| detail.get(field)).cloned()
    };
    assert_eq!(detail(Act::WebhookTest, "event"), Some(json!("task.finished")));
    assert_eq!(detail(Act::TaskReject, "reason"), Some(json!("as discussed")));
    daemon.stop().await;
}

/// Who let a revision pass a guard stands in the log, with the revision.
#[tokio::test(flavor = "multi_thread")]
async fn who_let_a_revision_pass_a_guard_is_written_down() {
    let mut place = place();
    let ann = place.token("ann", "role = \"admin\"");
    let tree = place.tree();
    let commit = |subject: &str| {
        git(&tree, &["add", "--all"]);
        git(&tree, &["commit", "--quiet", "--allow-empty", "--message", subject]);
        git(&tree, &["rev-parse", "HEAD"])
    };
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    let first = commit("Begin");
    place.source = format!("git = \"file://{}\"\npoll_interval = \"24h\"", tree.display());
    let daemon = place.start().await;
    let apply = async |body: Value| send(&daemon, Method::POST, "/config/apply", &ann, body).await;

    std::fs::remove_file(tree.join("runners/ny-1.toml")).expect("removed");
    let pruned = commit("Remove the last runner");
    assert_eq!(apply(json!({})).await, 200);
    assert_eq!(daemon.config(&ann).await.revision, first, "it waits for an admin");
    assert_eq!(apply(json!({ "prune": pruned })).await, 200);
    assert_eq!(daemon.config(&ann).await.revision, pruned);

    git(&tree, &["commit", "--quiet", "--amend", "--allow-empty", "--message", "Remove it otherwise"]);
    let rewritten = git(&tree, &["rev-parse", "HEAD"]);
    assert_eq!(apply(json!({})).await, 200);
    assert_eq!(daemon.config(&ann).await.revision, pruned, "it waits for an admin");
    assert_eq!(apply(json!({ "accept_rewrite": rewritten })).await, 200);
    assert_eq!(daemon.config(&ann).await.revision, rewritten);
    // What is not the newest is refused, and says so.
    assert_eq!(apply(json!({ "prune": first })).await, 409);

    let log = log_of(&daemon, &ann, "config.apply").await;
    let rows: Vec<_> = log
        .iter()
        .map(|row| {
            let detail = row.detail.as_ref().map(|detail| (detail["prune"].clone(), detail["accept_rewrite"].clone()));
            (row.actor_kind, &*row.actor, row.remote.as_deref(), row.result, detail)
        })
        .collect();
    let of_ann = |result, detail| (AuditActor::Access, "ann", Some("127.0.0.1"), result, detail);
    let none = || Some((Value::Null, Value::Null));
    assert_eq!(
        rows,
        [
            of_ann(AuditResult::Ok, none()),
            of_ann(AuditResult::Ok, Some((json!(pruned), Value::Null))),
            of_ann(AuditResult::Ok, none()),
            of_ann(AuditResult::Ok, Some((Value::Null, json!(rewritten)))),
            of_ann(AuditResult::Refused, None),
        ]
    );
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
