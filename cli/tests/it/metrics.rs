//! What monitoring sees: metrics of a daemon that works, a page that lists each, alerts that name only what is there, and runners' health.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::{World, get, wait_for};

fn guide(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides").join(name);
    std::fs::read_to_string(path).expect("the guide")
}

fn metrics(world: &World) -> String {
    let text = std::fs::read_to_string(world.path("data/addresses.json")).expect("addresses.json");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let address = found["metrics"].as_str().and_then(|url| url.strip_prefix("http://")).expect("plain HTTP");
    let (_, body) =
        get(address, "/metrics").split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a body");
    body
}

/// The names of a text that look like a metric of ours, without what histograms add.
fn named(text: &str, families: &BTreeSet<String>) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("forge_"));
    let family = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        base.filter(|base| families.contains(*base)).unwrap_or(word).to_owned()
    };
    words.map(family).collect()
}

/// Samples by their whole name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        })
        .collect()
}

#[test]
fn metrics_count_what_happens_and_the_guide_and_the_alerts_name_each() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    world.template("far", "runner_tag = \"mars\"", "true");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
    world.start_task(&daemon, "far");
    let revision =
        world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json()["revision"].clone();
    world.wait_runner(&daemon, "ny-1", "online");
    let (text, found) = wait_for("the far task waits for a while", || {
        let text = metrics(&world);
        let found = samples(&text);
        (found["forge_queue_oldest_seconds"] > 0.0).then_some((text, found))
    });
    let revision = revision.as_str().expect("a revision");
    for (name, value) in [
        (format!("forge_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
        (format!("forge_config_info{{revision=\"{revision}\"}}"), 1.0),
        ("forge_ready".to_owned(), 1.0),
        ("forge_tasks{state=\"queued\"}".to_owned(), 1.0),
        ("forge_tasks{state=\"succeeded\"}".to_owned(), 1.0),
        ("forge_assignments_total".to_owned(), 1.0),
        ("forge_lease_expiries_total".to_owned(), 0.0),
        ("forge_fenced_writes_total".to_owned(), 0.0),
        ("forge_runners{status=\"online\"}".to_owned(), 1.0),
        ("forge_config_applied_total".to_owned(), 1.0),
        ("forge_config_broken".to_owned(), 0.0),
        ("forge_store_failures_total".to_owned(), 0.0),
        ("forge_disk_reserve_bytes".to_owned(), (1_u64 << 30) as f64),
        ("forge_request_seconds_count{method=\"POST\",route=\"/api/v1/runners\"}".to_owned(), 1.0),
        ("forge_request_seconds_count{method=\"POST\",route=\"/api/v1/attempts/{id}/start\"}".to_owned(), 1.0),
    ] {
        assert_eq!(found.get(&name), Some(&value), "{name}\n{text}");
    }
    for name in [
        "forge_log_bytes_total",
        "forge_disk_free_bytes",
        "forge_config_applied_timestamp_seconds",
        "forge_store_transaction_seconds_count",
        "forge_store_batch_operations_sum",
        "forge_responses_total{class=\"2xx\"}",
    ] {
        assert!(found.get(name).is_some_and(|value| *value > 0.0), "{name}\n{text}");
    }
    assert!(found["forge_runner_clock_skew_seconds_max"] < 30.0, "one machine has one clock: {text}");
    for secret in ["shop", "hello", "ny-1", "mars"] {
        assert!(!text.contains(secret), "{secret} is named to whoever reads metrics:\n{text}");
    }

    let families: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    let listed = named(&guide("monitoring.md"), &families);
    assert_eq!(listed, families, "docs/guides/monitoring.md lists each metric, and nothing else");
    for rule in rules() {
        let unknown: Vec<String> = named(&rule["expr"], &families).difference(&families).cloned().collect();
        assert!(unknown.is_empty(), "{}: nothing is called {unknown:?}", rule["alert"]);
    }
}

/// The alerts as their keys. This reads the little YAML that the file is written in, and refuses any other.
fn rules() -> Vec<BTreeMap<String, String>> {
    let text = guide("alerts.yml");
    let mut rules: Vec<BTreeMap<String, String>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).skip_while(|line| line.trim() != "rules:").skip(1) {
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no key: {line}"));
        if let Some(key) = key.strip_prefix("- ") {
            rules.push(BTreeMap::new());
            assert_eq!(key, "alert", "{line}");
        }
        let rule = rules.last_mut().expect("a rule begins with its name");
        let again = rule.insert(key.trim_start_matches("- ").to_owned(), value.trim().to_owned());
        assert!(again.is_none(), "{line} stands twice");
    }
    rules
}

/// The labels that a metric of an expression is chosen by.
fn labels(side: &str) -> BTreeSet<&str> {
    let chosen = side.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(chosen, _)| chosen);
    chosen.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.trim()).collect()
}

/// A side of an `and` that no other matches: it has other labels, and nothing says which of them count.
fn unmatched(expression: &str) -> Option<&str> {
    let mut sides = expression.split(" and ");
    let first = labels(sides.next().unwrap_or_default());
    sides.find(|side| {
        let is_told = ["on(", "on (", "ignoring(", "ignoring ("].iter().any(|word| side.trim_start().starts_with(word));
        !is_told && labels(side) != first
    })
}

#[test]
fn a_side_with_other_labels_is_seen() {
    assert_eq!(unmatched("a{state=\"x\"} > 0 and b > 0"), Some("b > 0"));
    assert_eq!(unmatched("a{state=\"x\"} > 0 and ignoring(state) b > 0"), None);
    assert_eq!(unmatched("a{state=\"x\"} > 0 and rate(a{state=\"x\"}[5m]) > 0"), None);
}

#[test]
fn every_alert_says_what_it_is_and_what_to_do() {
    let rules = rules();
    assert!(rules.len() >= 12, "{rules:?}");
    let mut names = BTreeSet::new();
    for rule in &rules {
        assert!(names.insert(&rule["alert"]), "{} stands twice", rule["alert"]);
        assert!(rule["alert"].starts_with("Forge") && !rule["expr"].is_empty(), "{rule:?}");
        assert!(["{ severity: page }", "{ severity: ticket }"].contains(&rule["labels"].as_str()), "{rule:?}");
        assert!(!rule["summary"].is_empty() && rule["description"].len() > 20, "{rule:?}");
        assert_eq!(unmatched(&rule["expr"]), None, "{}: it never fires, the labels differ", rule["alert"]);
        let opened = rule["expr"].matches(['(', '[', '{']).count();
        assert_eq!(opened, rule["expr"].matches([')', ']', '}']).count(), "{}", rule["expr"]);
    }
}

#[test]
fn a_runners_health_version_and_clock_are_shown_with_each_contact() {
    let world = World::new();
    let go = world.path("go");
    world.template("wait", "", &format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let shown = world.wait_runner(&daemon, "ny-1", "online");
    assert_eq!(shown["version"], env!("CARGO_PKG_VERSION"));
    let health = &shown["health"];
    assert!(health["memory_bytes_free"].as_u64().is_some_and(|bytes| bytes > 0), "{shown}");
    assert!(health["disk_bytes_free"].as_u64().is_some_and(|bytes| bytes > 0), "{shown}");
    assert!(health["load1"].as_f64().is_some_and(|load| load >= 0.0), "{shown}");
    assert!(health["clock_skew_ms"].as_i64().is_some_and(|skew| skew.abs() < 30_000), "{shown}");

    // With work it beats every few seconds, and each heartbeat measures anew.
    world.start_task(&daemon, "wait");
    let skew = |shown: &serde_json::Value| (shown["last_contact_at"].clone(), shown["health"]["clock_skew_ms"].clone());
    let before = skew(&shown);
    wait_for("a heartbeat brings new health", || {
        let now = skew(&world.ask(&daemon, &["runners", "show", "ny-1", "--output", "json"]).expect_code(0).json());
        (now.0 != before.0 && !now.1.is_null()).then_some(())
    });
    std::fs::write(&go, "").expect("go");

    let listed = world.ask(&daemon, &["runners", "list"]).expect_code(0).text();
    for word in ["LOAD", "MEMORY", "DISK", "CLOCK", "VERSION", "iB", "right", env!("CARGO_PKG_VERSION")] {
        assert!(listed.contains(word), "{word} is missing:\n{listed}");
    }
    let one = world.ask(&daemon, &["runners", "show", "ny-1"]).expect_code(0).text();
    for word in ["load", "memory free", "disk free", "clock", "version"] {
        assert!(one.contains(word), "{word} is missing:\n{one}");
    }
}
