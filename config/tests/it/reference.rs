//! The reference that is checked in is what the declarations say, and the schemas agree with the reader.
//!
//! `FORGE_TEST_REWRITE=1 cargo test -p forge-config` writes it anew; review what changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forge_config::Code;
use forge_config::reference::{
    DiagnosticSample, TREE_KINDS, diagnostic_page, diagnostics_index, kind, kinds, settings_page, tree_page,
};
use serde_json::Value;

fn root(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part)
}

/// Pages of the reference that no declaration here knows: written by hand, or made and compared by the daemon's tests.
const OF_OTHERS: [&str; 3] = ["api.md", "openapi.json", "webhooks.md"];

/// Compares a folder's files with what they should be; nothing else may lie there.
fn compare(folder: &str, expected: &BTreeMap<String, String>) {
    let folder = root(folder);
    let rewrite = std::env::var_os("FORGE_TEST_REWRITE").is_some();
    let mut stale = Vec::new();
    for (name, text) in expected {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_ref() == Some(text) {
            continue;
        }
        if rewrite {
            fs::create_dir_all(&folder).expect("the folder is made");
            fs::write(&path, text).expect("the page is written");
        } else {
            stale.push(name.clone());
        }
    }
    let present = fs::read_dir(&folder).expect("the folder is there");
    let files = present.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    stale.extend(names.filter(|name| !expected.contains_key(name) && !OF_OTHERS.contains(&name.as_str())));
    assert!(stale.is_empty(), "{} is stale: {stale:?}; FORGE_TEST_REWRITE=1 writes it anew", folder.display());
}

#[test]
fn the_pages_are_what_the_declarations_say() {
    let pages = [("tree.md", tree_page()), ("settings.md", settings_page())];
    compare("docs/reference", &pages.map(|(name, page)| (name.to_owned(), page)).into());
}

#[test]
fn the_schemas_are_what_the_declarations_say() {
    let schemas = kinds().map(|kind| {
        let text = serde_json::to_string_pretty(&kind.json_schema()).expect("JSON");
        (format!("{}.json", kind.name), format!("{text}\n"))
    });
    compare("docs/reference/schemas", &schemas.collect());
}

/// Every drawn diagnostic of the samples.
fn samples() -> Vec<DiagnosticSample> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                walk(&path, found);
            } else if name == "expected.txt" || name.ends_with(".expected.txt") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root("testdata/config"), &mut files);
    files.sort();
    files.iter().flat_map(|file| DiagnosticSample::all_in(&fs::read_to_string(file).expect("a sample"))).collect()
}

#[test]
fn every_diagnostic_has_a_page_and_a_sample() {
    let samples = samples();
    let pages = Code::ALL.iter().map(|code| (format!("{code}.md"), diagnostic_page(*code, &samples)));
    let index = [("README.md".to_owned(), diagnostics_index())];
    compare("docs/reference/diagnostics", &pages.chain(index).collect());
    let without: Vec<_> =
        Code::ALL.iter().filter(|code| !samples.iter().any(|sample| sample.code == code.as_str())).collect();
    assert!(without.is_empty(), "no sample in testdata/config shows {without:?}");
}

/// Which kind a file of a tree is, by its path.
fn kind_of(relative: &Path) -> &'static str {
    let parts: Vec<_> = relative.iter().map(|part| part.to_str().expect("UTF-8")).collect();
    let matches = |pattern: &str| {
        let pattern: Vec<_> = pattern.split('/').collect();
        pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(pattern, part)| pattern == part || pattern.starts_with('<'))
    };
    TREE_KINDS.iter().find(|kind| matches(kind.path)).expect("a kind for every file").name
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(toml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files
}

/// The mistakes that the schema of its kind finds in a file.
fn refused_by_schema(kind_name: &str, text: &str) -> Vec<String> {
    let value: toml::Value = toml::from_str(text).expect("TOML");
    let value = serde_json::to_value(times_as_text(value)).expect("JSON");
    let schema = kind(kind_name).expect("a kind").json_schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator.iter_errors(&value).map(|error| error.to_string()).collect()
}

fn times_as_text(value: toml::Value) -> toml::Value {
    match value {
        toml::Value::Datetime(time) => toml::Value::String(time.to_string()),
        toml::Value::Array(items) => toml::Value::Array(items.into_iter().map(times_as_text).collect()),
        toml::Value::Table(table) => {
            toml::Value::Table(table.into_iter().map(|(key, value)| (key, times_as_text(value))).collect())
        }
        other => other,
    }
}

#[test]
fn what_the_reader_takes_the_schemas_take() {
    let mut trees: Vec<_> = fs::read_dir(root("testdata/config/valid"))
        .expect("the samples are there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let examples = fs::read_dir(root("examples")).expect("the examples").map(|entry| entry.expect("an entry").path());
    // The others are plugins.
    trees.extend(examples.filter(|example| example.join("projects").is_dir()));
    for tree in trees {
        for file in toml_files(&tree) {
            let relative = file.strip_prefix(&tree).expect("below the root");
            let refused = refused_by_schema(kind_of(relative), &fs::read_to_string(&file).expect("a file"));
            assert_eq!(refused, Vec::<String>::new(), "{}", file.display());
        }
    }
}

#[test]
fn what_the_reader_refuses_in_a_file_alone_the_schemas_refuse() {
    for (kind, text) in [
        ("template", "executor = 5"),
        ("template", "description = \"no executor\""),
        ("template", "executor = \"a\"\ntimeot = \"30s\""),
        ("template", "executor = \"a\"\ntimeout = \"30\""),
        ("template", "executor = \"a\"\nconcurrency = \"quue\""),
        ("template", "executor = \"a\"\nretry = { attempts = 1000 }"),
        ("template", "executor = \"a\"\n[survey.a]\ntype = \"text\""),
        ("key", "type = \"ssh\"\nprivate_key = \"in clear\""),
        ("key", "type = \"ssh\"\nprivate_key = { file = \"/a\", env = \"B\" }"),
        ("environment", "[secrets]\nA = { file = \"/a\", as = \"file\" }"),
        ("integration", "template = \"a\"\nauth = \"basic\""),
        ("webhook", "plugin = \"a\"\nevents = [\"task.done\"]"),
        ("plugin", "source = \"builtin:shell\"\nlimits = { memory = \"64MB\" }"),
        ("forge.toml", "datadir = \"/var\""),
    ] {
        assert!(!refused_by_schema(kind, text).is_empty(), "{kind}: {text}");
    }
    assert!(matches!(
        kind("template").expect("a kind").json_schema()["properties"]["executor"]["description"],
        Value::String(_)
    ));
}
