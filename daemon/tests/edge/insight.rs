//! What pages ask of the API beside the objects themselves.

use forge_api::{ConfigChangeKind, ConfigRevision, Page, PluginRole, PluginSummary, RevisionState};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Place, Running, problem, wait_for};

fn place() -> Place {
    let place = Place::new();
    place.put("projects/shop/project.toml", "description = \"The shop\"\n");
    place.put("projects/bank/project.toml", "description = \"The bank\"\n");
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put(
        "projects/shop/templates/hello.toml",
        "executor = \"shell\"\nallow_arguments = true\n[params]\nscript = \"echo hello\"\n\
         [survey.count]\ntype = \"integer\"\nmin = 1\nmax = 9\n[survey.share]\ntype = \"number\"\nmin = 0.5\n",
    );
    place.put(
        "projects/shop/schedules/nightly.toml",
        "cron = \"0 3 * * *\"\ntemplate = \"hello\"\nparams = { count = 2 }\n",
    );
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_says_what_its_form_needs() {
    let place = place();
    let token = place.token("viewer", "role = \"viewer\"");
    let daemon = place.start().await;
    let template = daemon.get_json("/projects/shop/templates", &token).await["items"][0].clone();
    assert_eq!((&template["allow_arguments"], &template["schedules"]), (&json!(true), &json!(["nightly"])));
    let (count, share) = (&template["survey"][0], &template["survey"][1]);
    assert_eq!((&count["min"], &count["max"]), (&json!(1.0), &json!(9.0)));
    assert_eq!((&share["min"], &share["max"]), (&json!(0.5), &json!(null)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_attempts_lines_and_numbers_are_there_for_who_sees_it() {
    let place = place();
    let operator = place.token("operator", "role = \"operator\"");
    let bank = place.token("bank", "role = \"admin\"\nprojects = [\"bank\"]");
    let daemon = place.start().await;
    let run = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &operator);
    let created = run.json(&json!({ "variables": { "count": 1, "share": 1 } })).send().await.expect("an answer");
    assert_eq!(created.status(), 201);
    assert_eq!(daemon.get_json("/tasks/1/attempts", &operator).await, json!({ "items": [], "next_cursor": null }));
    let lines = daemon.get_json("/tasks/1/log/lines?from=-100&count=100", &operator).await;
    assert_eq!(lines, json!({ "attempt": 0, "total": 0, "complete": false, "bytes": 0, "items": [] }));
    let found = daemon.get_json("/tasks/1/log/search?errors=true", &operator).await;
    assert_eq!(found, json!({ "attempt": 0, "items": [], "next_from": null }));
    let stats = daemon.get_json("/projects/shop/templates/hello/stats", &operator).await;
    assert_eq!(stats, json!({ "items": [], "outcomes": {} }));
    for path in [
        "/tasks/1/attempts",
        "/tasks/1/log/lines",
        "/tasks/1/log/search?text=x",
        "/projects/shop/templates/hello/stats",
    ] {
        assert_eq!(problem(daemon.get(path, &bank).await).await.status, 404, "{path}");
    }
    for path in [
        "/tasks/1/log/lines?count=1001",
        "/tasks/1/log/lines?count=0",
        "/tasks/1/log/lines?from=x",
        "/tasks/1/log/search",
        "/tasks/1/log/search?text=a&regex=b",
        "/tasks/1/log/search?regex=(",
        "/projects/shop/templates/hello/stats?limit=101",
    ] {
        assert_eq!(problem(daemon.get(path, &operator).await).await.status, 400, "{path}");
    }
    assert_eq!(problem(daemon.get("/projects/shop/templates/none/stats", &operator).await).await.status, 404);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_task_waits_tells_nothing_of_other_projects_runners() {
    let place = place();
    place.put("runners/vault-1.toml", "project = \"bank\"\n");
    place.put("runners/ny-1.toml", "project = \"shop\"\nrun_untagged = false\n");
    let all = place.token("all", "role = \"admin\"");
    let shop = place.token("shop", "role = \"operator\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    let run = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &shop);
    let created = run.json(&json!({ "variables": { "count": 1, "share": 1 } })).send().await.expect("an answer");
    assert_eq!(created.status(), 201);
    let seen = daemon.get_json("/tasks/1/why", &shop).await.to_string();
    assert!(seen.contains("ny-1 takes no task") && !seen.contains("vault"), "{seen}");
    let seen = daemon.get_json("/tasks/1/why", &all).await.to_string();
    assert!(seen.contains("ny-1 takes no task") && seen.contains("vault-1 belongs to project bank"), "{seen}");

    let body = form_urlencoded::Serializer::new(String::new()).append_pair("token", &shop).finish();
    let login = daemon.browser().post(format!("{}/login", daemon.addresses.api)).body(body);
    let login = login.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
    let cookie = login.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    for page in ["/", "/tasks/1"] {
        let page = daemon.browser().get(format!("{}{page}", daemon.addresses.api)).header("cookie", &cookie);
        let page = page.send().await.expect("an answer").text().await.expect("a page");
        assert!(page.contains("ny-1 takes no task") && !page.contains("vault"), "{page}");
    }
    daemon.stop().await;
}

/// The revisions that a token sees, once there are `count`.
async fn revisions(daemon: &Running, token: &str, count: usize) -> Vec<ConfigRevision> {
    wait_for("so many revisions", async || {
        let page: Page<ConfigRevision> =
            serde_json::from_value(daemon.get_json("/config/revisions", token).await).expect("revisions");
        (page.items.len() == count).then_some(page.items)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_revision_is_listed_with_what_it_changed_or_what_was_wrong() {
    let place = place();
    let all = place.token("all", "role = \"viewer\"");
    let bank = place.token("bank", "role = \"admin\"\nprojects = [\"bank\"]");
    let daemon = place.start().await;
    let first = revisions(&daemon, &all, 1).await.remove(0);
    assert_eq!((first.state, first.changes.len()), (RevisionState::Applied, 0), "nothing served before it");

    place.put("projects/bank/project.toml", "description = \"Another bank\"\n");
    let second = revisions(&daemon, &all, 2).await.remove(0);
    let change = &second.changes[0];
    assert_eq!((change.object.as_str(), change.change), ("projects/bank/project", ConfigChangeKind::Changed));
    let field = &change.fields[0];
    let shown = (field.field.as_str(), &field.before, &field.after);
    assert_eq!(shown, ("description", &json!("The bank"), &json!("Another bank")));

    place.put("projects/shop/project.toml", "descriptoin = \"The shop\"\n");
    let third = revisions(&daemon, &all, 3).await.remove(0);
    assert_eq!(third.state, RevisionState::Refused);
    assert_eq!(third.diagnostics[0].file, "projects/shop/project.toml");
    assert!(third.diagnostics[0].source_line.contains("descriptoin"));

    let seen = revisions(&daemon, &bank, 3).await;
    assert!(seen[0].diagnostics.is_empty() && seen[1].changes.len() == 1, "only its own projects: {seen:?}");
    let page = daemon.get_json("/config/revisions?limit=2", &all).await;
    let next = page["next_cursor"].as_str().expect("there is another page");
    let rest = daemon.get_json(&format!("/config/revisions?limit=2&cursor={next}"), &all).await;
    assert_eq!((&rest["items"][0]["revision"], &rest["next_cursor"]), (&json!(first.revision), &json!(null)));
    assert_eq!(problem(daemon.get("/config/revisions?cursor=x", &all).await).await.status, 400);
    daemon.stop().await;

    let daemon = place.start().await;
    assert_eq!(
        revisions(&daemon, &all, 3).await[1],
        second,
        "they are there after a restart, and the refusal is no news"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_listed_with_what_they_may_do_and_who_uses_them() {
    let place = place();
    place.put(
        "plugins/ansible.toml",
        "source = \"builtin:ansible\"\n[allow]\nprograms = [\"ansible-playbook\"]\n[limits]\nmemory = \"32MiB\"\n",
    );
    let all = place.token("all", "role = \"viewer\"");
    let shop = place.token("shop", "role = \"admin\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    let listed: Page<PluginSummary> = serde_json::from_value(daemon.get_json("/plugins", &all).await).expect("plugins");
    let [ansible, shell] = listed.items.as_slice() else { panic!("two plugins: {listed:?}") };
    assert_eq!(
        (ansible.source.as_str(), ansible.kind, ansible.memory_bytes),
        ("builtin:ansible", PluginRole::Executor, 32 << 20)
    );
    assert_eq!(ansible.grants.programs, ["ansible-playbook"]);
    assert!(ansible.not_granted.programs.contains(&"ansible-galaxy".to_owned()), "{ansible:?}");
    assert!(ansible.version.is_some() && ansible.sha256.len() == 64 && ansible.used_by.is_empty());
    assert_eq!(shell.used_by, ["shop/hello"]);
    assert_eq!(problem(daemon.get("/plugins", &shop).await).await.status, 403);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_busy_the_runners_were_is_for_who_sees_every_project() {
    let place = place();
    let all = place.token("all", "role = \"viewer\"");
    let shop = place.token("shop", "role = \"admin\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    assert_eq!(daemon.get_json("/stats/load", &all).await, json!({ "items": [] }));
    assert_eq!(daemon.get_json("/stats/load?hours=168", &all).await, json!({ "items": [] }));
    for hours in ["0", "169", "x"] {
        assert_eq!(problem(daemon.get(&format!("/stats/load?hours={hours}"), &all).await).await.status, 400);
    }
    assert_eq!(problem(daemon.get("/stats/load", &shop).await).await.status, 403);
    daemon.stop().await;
}
