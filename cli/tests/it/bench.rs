//! `forge bench`: small numbers, real parts. What it measures is the machine's affair; that it measured is looked at here.

use serde_json::Value;

use crate::harness::{Finished, Process, World, is_alive, wait_for};

/// How many tasks and runners each measurement has here.
const TASKS: &str = "3";
const RUNNERS: &str = "2";

fn value(report: &Value, measurement: &str, key: &str) -> f64 {
    let measurements = report["measurements"].as_array().expect("measurements");
    let found = measurements.iter().find(|found| found["name"] == measurement);
    let values = found.unwrap_or_else(|| panic!("{measurement} was measured: {report}"))["values"].as_array();
    let found = values.expect("values").iter().find(|value| value["key"] == key);
    found.unwrap_or_else(|| panic!("{measurement} has {key}: {report}"))["value"].as_f64().expect("a number")
}

#[test]
fn every_measurement_is_made_over_the_real_protocol() {
    let world = World::new();
    let mut command = world.forge(&["bench", "--tasks", TASKS, "--runners", RUNNERS]);
    command.args(["--history", "500", "--log-mib", "2", "--output", "json"]).env("TMPDIR", world.path(""));
    let done = Finished::of(command, b"").expect_code(0);
    let report = done.json();
    assert!(report["machine"]["cpus"].as_u64().expect("a number") > 0);
    let names: Vec<&str> = report["measurements"]
        .as_array()
        .expect("measurements")
        .iter()
        .map(|measured| measured["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["idle", "start", "throughput", "claims", "parked", "logs", "history", "config", "webhooks"]);
    for (measurement, key) in [
        ("idle", "daemon_rss"),
        ("idle", "runner_all_pss"),
        ("start", "start_p50"),
        ("start", "process_p50"),
        ("start", "followed_p99"),
        ("throughput", "tasks_per_s_2x8"),
        ("throughput", "tasks_per_s_2x0"),
        ("claims", "claims_per_s_2"),
        ("claims", "creates_per_s_2"),
        ("parked", "request_2_p99"),
        ("parked", "dispatch_2_p50"),
        ("parked", "daemon_pss_2"),
        ("logs", "ingest"),
        ("history", "request_p50"),
        ("history", "claims_per_s_2"),
        ("history", "start_p99"),
        ("config", "write_10_p50"),
        ("config", "burst_10_p50"),
        ("webhooks", "deliveries_per_s"),
    ] {
        assert!(value(&report, measurement, key) > 0.0, "{measurement} {key}: {report}");
    }
    for (measurement, key, count) in [
        ("start", "start_tasks", 3.0),
        ("parked", "runners_2", 2.0),
        ("logs", "sent_mib", 4.0),
        ("history", "tasks", 500.0),
        ("config", "reloads_10", 1.0),
    ] {
        assert_eq!(value(&report, measurement, key), count, "{measurement} {key}");
    }
    for percentiles in ["start", "followed"] {
        let at = |percent: u32| value(&report, "start", &format!("{percentiles}_p{percent}"));
        assert!(at(50) <= at(95) && at(95) <= at(99));
        assert!(value(&report, "start", "start_p50") <= value(&report, "start", "followed_p50"));
    }
    assert_eq!(left(&world), [""; 0], "nothing of it stays");
}

#[test]
fn an_interrupted_bench_leaves_nothing() {
    let world = World::new();
    let mut command = world.forge(&["bench", "start", "--tasks", "1000000"]);
    command.env("TMPDIR", world.path(""));
    let mut bench = Process::start(command, &world.path("out"), "bench");
    let daemon = wait_for("the bench's daemon serves", || {
        let folder = left(&world).into_iter().find(|name| world.path(name).join("data/addresses.json").exists())?;
        let addresses = std::fs::read(world.path(&folder).join("data/addresses.json")).ok()?;
        serde_json::from_slice::<Value>(&addresses).ok()?["pid"].as_u64()
    });
    bench.signal("INT");
    assert_eq!(bench.wait("the bench stops").code(), Some(1), "{}", bench.stderr());
    assert!(bench.stderr().contains("interrupted"), "{}", bench.stderr());
    assert!(!is_alive(u32::try_from(daemon).expect("a pid")), "its daemon is gone");
    assert_eq!(left(&world), [""; 0], "and its folder");
}

/// Folders of the bench that are there.
fn left(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("")).expect("the world's home");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.filter(|name| name.starts_with("forge-bench-")).collect()
}
