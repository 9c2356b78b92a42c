//! Listings that come in pages: runners, schedules and webhook targets, as tasks do.

use serde_json::{Value, json};

use crate::harness::{Place, Running, problem};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put("plugins/http.toml", "source = \"builtin:http\"\n[allow]\nhosts = [\"example.com\"]\n");
    for project in ["shop", "shop-2"] {
        place.put(&format!("projects/{project}/project.toml"), "");
        let template = "executor = \"shell\"\n[params]\nscript = \"true\"\n";
        place.put(&format!("projects/{project}/templates/hello.toml"), template);
        for name in ["a", "b", "c"] {
            let schedule = "cron = \"0 3 * * *\"\ntemplate = \"hello\"\n";
            place.put(&format!("projects/{project}/schedules/{name}.toml"), schedule);
        }
    }
    for number in 1..=5 {
        let project = if number == 3 { "project = \"shop-2\"\n" } else { "" };
        place.put(&format!("runners/ny-{number}.toml"), project);
        let target = "plugin = \"http\"\nevents = [\"task.finished\"]\n[config]\nurl = \"https://example.com/\"\n";
        place.put(&format!("webhooks/ops-{number}.toml"), target);
    }
    place
}

/// What a listing holds, page by page, each item by these fields.
async fn pages(daemon: &Running, path: &str, token: &str, limit: u32, fields: &[&str]) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get_json(&format!("{path}?limit={limit}{cursor}"), token).await;
        let items = page["items"].as_array().expect("a list").iter();
        let name = |item: &Value| {
            let parts = fields.iter().map(|field| item[field].as_str().expect("a text"));
            parts.collect::<Vec<_>>().join("/")
        };
        pages.push(items.map(name).collect());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_schedules_and_targets_come_in_pages() {
    let place = place();
    let admin = place.token("admin", "role = \"admin\"");
    let shop = place.token("shop", "role = \"viewer\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    let runners = pages(&daemon, "/runners", &admin, 2, &["name"]).await;
    assert_eq!(runners, [vec!["ny-1", "ny-2"], vec!["ny-3", "ny-4"], vec!["ny-5"]]);
    // What a token does not reach is on no page, and leaves no gap.
    assert_eq!(pages(&daemon, "/runners", &shop, 2, &["name"]).await, [["ny-1", "ny-2"], ["ny-4", "ny-5"]]);
    let schedules = pages(&daemon, "/schedules", &admin, 4, &["project", "name"]).await;
    assert_eq!(schedules, [vec!["shop/a", "shop/b", "shop/c", "shop-2/a"], vec!["shop-2/b", "shop-2/c"]]);
    assert_eq!(pages(&daemon, "/schedules", &shop, 3, &["project", "name"]).await, [["shop/a", "shop/b", "shop/c"]]);
    let targets = pages(&daemon, "/webhooks", &admin, 4, &["name"]).await;
    assert_eq!(targets, [vec!["ops-1", "ops-2", "ops-3", "ops-4"], vec!["ops-5"]]);

    for path in ["/runners", "/schedules", "/webhooks"] {
        let whole = daemon.get_json(path, &admin).await;
        assert!(whole["items"].as_array().expect("a list").len() >= 5, "without a limit there is one page: {whole}");
        assert_eq!(whole["next_cursor"], json!(null));
        for query in ["limit=0", "limit=501", "limit=x", "cursor=NO", "cursor=", "sort=name"] {
            let refused = problem(daemon.get(&format!("{path}?{query}"), &admin).await).await;
            assert_eq!(refused.status, 400, "{path}?{query}");
        }
    }
    daemon.stop().await;
}
