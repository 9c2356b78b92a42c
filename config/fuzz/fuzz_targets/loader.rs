//! Arbitrary bytes as one file of a tree: the first byte says which one, the rest is what it holds.
#![no_main]

use forge_config::meant::PluginKind;
use forge_config::{
    CheckOptions, Colour, Digest, Files, PluginCatalog, PluginFacts, age_texts, check_tree, daemon_settings, objects,
    runner_settings,
};
use libfuzzer_sys::fuzz_target;

/// One file of each kind, and the settings of a host.
const PATHS: &[&str] = &[
    "projects/shop/project.toml",
    "projects/shop/templates/a.toml",
    "projects/shop/inventories/a.toml",
    "projects/shop/environments/a.toml",
    "projects/shop/repositories/a.toml",
    "projects/shop/keys/a.toml",
    "projects/shop/schedules/a.toml",
    "projects/shop/integrations/a.toml",
    "runners/a.toml",
    "registration-tokens/a.toml",
    "plugins/a.toml",
    "webhooks/a.toml",
    "access/a.toml",
    "secrets.toml",
    "forge.toml",
    "runner.toml",
];

/// Knows one executor that takes any params.
#[derive(Debug)]
struct Catalog;

impl PluginCatalog for Catalog {
    fn builtin_names(&self) -> Vec<String> {
        vec!["shell".to_owned()]
    }

    fn builtin(&self, _name: &str) -> Option<Result<PluginFacts, String>> {
        let schema = || "{\"type\": \"object\"}".parse().ok();
        let facts = PluginFacts {
            sha256: Digest([1; 32]),
            kind: PluginKind::Executor,
            params_schema: schema(),
            config_schema: schema(),
            wants: forge_config::Wants::default(),
        };
        Some(Ok(facts))
    }

    fn digest(&self, _bytes: &[u8]) -> Digest {
        Digest([1; 32])
    }

    fn inspect(&self, _bytes: &[u8]) -> Result<PluginFacts, String> {
        Err("it is no component".to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let path = PATHS[usize::from(*first) % PATHS.len()];
    if let Ok(text) = std::str::from_utf8(rest) {
        let _ = age_texts(path, text);
        let nothing = std::collections::BTreeMap::new();
        let _ = (daemon_settings(path, Some(text), &nothing), runner_settings(path, Some(text), &nothing));
    }
    let template: &[u8] = b"executor = \"shell\"\n[survey.a]\ntype = \"string\"\nrequired = true\n";
    let mut files: Files = [
        ("plugins/shell.toml", &b"source = \"builtin:shell\"\n"[..]),
        ("projects/shop/project.toml", b""),
        ("projects/shop/templates/t.toml", template),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes.to_vec()))
    .into();
    files.insert(path.to_owned(), rest.to_vec());
    let checked = check_tree(&files, &Catalog, &CheckOptions::default());
    assert_eq!(checked.tree.is_none(), checked.diagnostics.iter().any(|found| found.is_error()));
    for found in &checked.diagnostics {
        let _ = found.draw(Colour::Always);
    }
    if let Some(tree) = &checked.tree {
        let _ = objects(tree);
    }
});
