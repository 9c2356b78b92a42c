//! The SDK as a new plugin's crate holds it: `plugins/sdk` and `plugins/wit` of this very Forge, and the versions of their dependencies.
//!
//! It is on no registry, and need not be: a plugin is built against the contract of the Forge that runs it, and this way it cannot be
//! another one. The manifest of the workspace is resolved here, so that no number stands twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forge_config::Name;
use toml::{Table, Value};

use crate::error::CliError;

/// The SDK's package.
pub(super) const PACKAGE: &str = "forge-plugin";

macro_rules! sources {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../plugins/", $path)))),*]
    };
}

/// Every file of the SDK and of the contract, by its path below `plugins/`. A test compares this with the folders.
pub(super) const SOURCES: &[(&str, &str)] = sources![
    "sdk/src/bindings.rs",
    "sdk/src/checks.rs",
    "sdk/src/fake.rs",
    "sdk/src/guest.rs",
    "sdk/src/host.rs",
    "sdk/src/lib.rs",
    "sdk/src/schema.rs",
    "sdk/src/values.rs",
    "sdk/src/webhook.rs",
    "wit/executor.wit",
    "wit/host.wit",
    "wit/process.wit",
    "wit/types.wit",
    "wit/webhook-target.wit",
    "wit/workspace.wit",
    "wit/worlds.wit",
];

const MANIFEST: &str = include_str!("../../../../plugins/sdk/Cargo.toml");
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
const LOCK: &str = include_str!("../../../../Cargo.lock");

fn parse(what: &str, text: &str) -> Result<Table, CliError> {
    // Both are embedded, and cargo has read them: this is told of rather than believed.
    text.parse().map_err(|error| CliError::failed(format_args!("the embedded {what} does not parse: {error}")))
}

/// The SDK's manifest without its workspace.
pub(super) fn manifest() -> Result<String, CliError> {
    let (sdk, workspace) = (parse("manifest of the SDK", MANIFEST)?, parse("workspace", WORKSPACE)?);
    let mut package = Table::new();
    let of_workspace = |table: &str, key: &str| workspace.get("workspace")?.get(table)?.get(key).cloned();
    for (key, value) in table(&sdk, "package") {
        let inherited = is_inherited(value).then(|| of_workspace("package", key)).flatten();
        package.insert(key.clone(), inherited.unwrap_or_else(|| value.clone()));
    }
    let mut dependencies = Table::new();
    for (name, value) in table(&sdk, "dependencies") {
        let inherited = is_inherited(value).then(|| of_workspace("dependencies", name)).flatten();
        dependencies.insert(name.clone(), inherited.unwrap_or_else(|| value.clone()));
    }
    let whole = Table::from_iter([
        ("package".to_owned(), Value::Table(package)),
        ("dependencies".to_owned(), Value::Table(dependencies)),
    ]);
    let text = toml::to_string(&whole).map_err(CliError::failed)?;
    Ok(format!("# Written by `forge plugin new`: the SDK of Forge {}.\n{text}", env!("CARGO_PKG_VERSION")))
}

fn table<'a>(manifest: &'a Table, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    manifest.get(name).and_then(Value::as_table).into_iter().flatten()
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// A Cargo.lock for the new crate: the versions that Forge's own plugins are built with.
///
/// `None` where the crate's name is that of a package it depends on.
pub(super) fn lock(name: &Name) -> Result<Option<String>, CliError> {
    let (sdk, lock) = (parse("manifest of the SDK", MANIFEST)?, parse("Cargo.lock", LOCK)?);
    let packages: Vec<&Table> =
        lock.get("package").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect();
    let names: BTreeSet<&str> = table(&sdk, "dependencies").map(|(name, _)| name.as_str()).collect();
    // As the lock spells them: with a version where there are several. It lists those of tests, too.
    let locked = table_of(&packages, PACKAGE).into_iter().flat_map(dependencies);
    let direct: Vec<&str> = locked.filter(|dependency| names.contains(name_of(dependency))).collect();
    let needed = closure(&packages, &direct);
    let mut taken = needed.iter().map(|package| text(package, "name")).chain([PACKAGE]);
    if taken.any(|taken| taken == name.as_str()) {
        return Ok(None);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for package in &needed {
        *counts.entry(text(package, "name")).or_default() += 1;
    }
    let mut written: Vec<Value> = needed.iter().map(|package| one(package, &counts)).collect();
    written.push(own(PACKAGE, text(table_of(&packages, PACKAGE).unwrap_or(&sdk), "version"), names.iter().copied()));
    written.push(own(name.as_str(), "0.1.0", [PACKAGE, "serde"]));
    written.sort_by_key(|package| package.get("name").and_then(Value::as_str).unwrap_or_default().to_owned());
    let version = lock.get("version").cloned().unwrap_or(Value::Integer(4));
    let whole = Table::from_iter([("version".to_owned(), version), ("package".to_owned(), Value::Array(written))]);
    toml::to_string(&whole).map(Some).map_err(CliError::failed)
}

fn text<'a>(package: &'a Table, key: &str) -> &'a str {
    package.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn table_of<'a>(packages: &[&'a Table], name: &str) -> Option<&'a Table> {
    packages.iter().copied().find(|package| text(package, "name") == name)
}

/// `name`, of `name` or `name version`.
fn name_of(dependency: &str) -> &str {
    dependency.split(' ').next().unwrap_or(dependency)
}

fn dependencies(package: &Table) -> impl Iterator<Item = &str> {
    package.get("dependencies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The packages that these lead to. A dependency is `name`, or `name version` where there are several.
fn closure<'a>(packages: &[&'a Table], direct: &[&'a str]) -> Vec<&'a Table> {
    let mut open: VecDeque<&str> = direct.iter().copied().collect();
    let mut found: BTreeMap<(&str, &str), &Table> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(dependency) = open.pop_front() {
        if !seen.insert(dependency) {
            continue;
        }
        let mut words = dependency.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        let fits = |package: &&&'a Table| {
            text(package, "name") == name && version.is_none_or(|version| text(package, "version") == version)
        };
        if let Some(&package) = packages.iter().find(fits) {
            found.insert((text(package, "name"), text(package, "version")), package);
            open.extend(dependencies(package));
        }
    }
    found.into_values().collect()
}

/// A package whose dependencies are spelled as this smaller lock needs it.
fn one(package: &Table, counts: &BTreeMap<&str, usize>) -> Value {
    let mut package = package.clone();
    if let Some(Value::Array(dependencies)) = package.get_mut("dependencies") {
        for dependency in dependencies {
            let short = dependency.as_str().map(|text| name_of(text).to_owned());
            if let Some(short) = short
                && counts.get(short.as_str()).is_none_or(|count| *count == 1)
            {
                *dependency = Value::String(short);
            }
        }
    }
    Value::Table(package)
}

fn own<'a>(name: &str, version: &str, dependencies: impl IntoIterator<Item = &'a str>) -> Value {
    let dependencies: Vec<Value> = dependencies.into_iter().map(Value::from).collect();
    Value::Table(Table::from_iter([
        ("name".to_owned(), Value::from(name)),
        ("version".to_owned(), Value::from(version)),
        ("dependencies".to_owned(), Value::Array(dependencies)),
    ]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_sdk_and_the_contract_is_embedded() {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let mut there = Vec::new();
        for folder in ["sdk/src", "wit"] {
            for entry in std::fs::read_dir(plugins.join(folder)).expect("the folder") {
                let entry = entry.expect("an entry");
                assert!(entry.file_type().expect("a type").is_file(), "folders are not embedded: {:?}", entry.path());
                there.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
            }
        }
        there.sort();
        let embedded: Vec<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(embedded, there, "SOURCES in {} lists them, sorted", file!());
    }

    #[test]
    fn the_manifest_stands_alone() {
        let manifest = manifest().expect("it resolves");
        assert!(!manifest.contains("workspace"), "{manifest}");
        let manifest: Table = manifest.parse().expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some(PACKAGE));
        assert!(manifest["dependencies"]["wit-bindgen"]["version"].is_str(), "{manifest}");
    }

    #[test]
    fn the_lock_holds_what_is_needed_and_no_more() {
        let lock = lock(&"hello".parse().expect("a name")).expect("it resolves").expect("nothing has that name");
        let lock: Table = lock.parse().expect("TOML");
        let names: BTreeSet<&str> =
            lock["package"].as_array().expect("packages").iter().filter_map(|one| one["name"].as_str()).collect();
        for name in ["hello", PACKAGE, "serde", "schemars", "wit-bindgen", "syn"] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        let bindgen = lock["package"]
            .as_array()
            .expect("packages")
            .iter()
            .find(|one| one["name"].as_str() == Some("wit-bindgen"));
        let version = bindgen.and_then(|one| one["version"].as_str());
        assert!(
            WORKSPACE.contains(&format!("wit-bindgen = {{ version = \"={}\"", version.expect("it is locked"))),
            "{version:?}"
        );
        for name in ["wasmtime", "jsonschema", "tokio", "forge"] {
            assert!(!names.contains(name), "{name}: {names:?}");
        }
        for taken in ["serde", "forge-plugin"] {
            assert!(super::lock(&taken.parse().expect("a name")).expect("it resolves").is_none(), "{taken}");
        }
    }
}
