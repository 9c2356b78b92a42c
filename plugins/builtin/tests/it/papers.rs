//! What comes with each built-in plugin besides its code: a README that leaves nothing out, and for an executor an example.

use std::path::{Path, PathBuf};

use forge_plugin_host::{Host, HostOptions, Kind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts of all plugins/NAME.toml of the examples.
fn example_plugins() -> Vec<String> {
    let examples = std::fs::read_dir(root().join("examples")).expect("the examples");
    let folders = examples.map(|example| example.expect("an entry").path().join("plugins"));
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let paths = files.map(|file| file.expect("an entry").path());
    let texts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    texts.map(|path| std::fs::read_to_string(path).expect("text")).collect()
}

#[test]
fn every_readme_names_all_that_its_plugin_takes_and_every_executor_has_an_example() {
    let host = Host::new(HostOptions::default()).expect("the engine starts");
    let examples = example_plugins();
    for builtin in forge_plugin_builtins::all() {
        let name = builtin.name;
        let plugin = host.load(builtin.wasm).expect("it is a plugin");
        let schema = plugin.describe().expect("it describes itself").params_schema.expect("it has a schema");
        let readme = root().join("plugins/builtin").join(name).join("README.md");
        let readme = std::fs::read_to_string(readme).unwrap_or_else(|error| panic!("the README of {name}: {error}"));
        let keys = schema["properties"].as_object().unwrap_or_else(|| panic!("{name}: {schema}"));
        assert!(!keys.is_empty(), "{name}");
        for key in keys.keys() {
            let rows = || readme.lines().filter(|line| line.starts_with("| `"));
            assert!(rows().any(|row| row.contains(&format!("`{key}`"))), "the README of {name} does not name {key}");
        }
        let source = format!("source = \"builtin:{name}\"");
        let shown = examples.iter().any(|plugin| plugin.lines().any(|line| line.trim_end() == source));
        assert!(shown || plugin.kind() == Kind::WebhookTarget, "no example shows {name}");
    }
}
