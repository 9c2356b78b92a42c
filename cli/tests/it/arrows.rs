//! The rooms' arrows, read from `cargo metadata`: a dependency that the design does not draw fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. A guest (`forge-plugin-*` below plugins/builtin) may depend on the sdk alone.
const ALLOWED: &[(&str, &[&str])] = &[
    ("forge", &["forge-api", "forge-config", "forge-daemon", "forge-runner"]),
    ("forge-daemon", &["forge-api", "forge-config", "forge-plugin-builtins", "forge-plugin-host"]),
    ("forge-runner", &["forge-api", "forge-plugin-host"]),
    ("forge-config", &[]),
    ("forge-api", &[]),
    ("forge-plugin-host", &[]),
    ("forge-plugin", &[]),
    ("forge-plugin-builtins", &[]),
];

/// What only tests may reach besides: the built-ins are tried on the real host.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[("forge-plugin-builtins", &["forge-plugin-host"])];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn allowed_for(package: &str, manifest: &str) -> BTreeSet<String> {
    let is_guest = manifest.contains("/plugins/builtin/") && !manifest.ends_with("/plugins/builtin/Cargo.toml");
    let named: &[&str] = match ALLOWED.iter().find(|(name, _)| *name == package) {
        Some((_, targets)) => targets,
        None if is_guest => &["forge-plugin"],
        None => panic!("{package} has no room in docs/architecture.md"),
    };
    named.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn arrows_point_as_the_design_draws_them() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeMap<&str, &Value> =
        packages.iter().map(|package| (package["name"].as_str().expect("name"), package)).collect();
    assert!(ours.len() >= ALLOWED.len(), "every room stands: {:?}", ours.keys());
    let mut wrong = Vec::new();
    for (name, package) in &ours {
        let allowed = allowed_for(name, package["manifest_path"].as_str().expect("path"));
        let in_tests = ALLOWED_IN_TESTS.iter().find(|(from, _)| from == name).map_or(&[][..], |(_, targets)| targets);
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let target = dependency["name"].as_str().expect("name");
            let is_test_only = dependency["kind"].as_str() == Some("dev");
            let is_allowed = allowed.contains(target) || (is_test_only && in_tests.contains(&target));
            if ours.contains_key(target) && !is_allowed {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the design does not draw: {wrong:?}");
}

#[test]
fn there_is_one_binary() {
    let metadata = metadata();
    let binaries: Vec<&str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .flat_map(|package| package["targets"].as_array().expect("targets"))
        .filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin")))
        .map(|target| target["name"].as_str().expect("name"))
        .collect();
    assert_eq!(binaries, ["forge"]);
}
