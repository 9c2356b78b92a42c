//! A tree as objects: each file is one, and no secret is in any of them.

use std::collections::BTreeSet;

use forge_config::{TreeDiff, check_tree, objects};

use crate::catalog::FakeCatalog;
use crate::samples::{options, read_tree, root};

#[test]
fn each_file_is_an_object_and_no_secret_is_in_it() {
    let files = read_tree(&root("testdata/config/valid/shop"));
    let tree = check_tree(&files, &FakeCatalog, &options()).tree.expect("a tree");
    let objects = objects(&tree);
    let declared: BTreeSet<_> = files.keys().filter_map(|path| path.strip_suffix(".toml")).collect();
    assert_eq!(objects.keys().map(String::as_str).collect::<BTreeSet<_>>(), declared);
    let text = serde_json::to_string_pretty(&objects).expect("JSON");
    for secret in ["BEGIN AGE", "YWdlLWVuY3J5cHRpb24", &"2".repeat(64), &"1".repeat(64)] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let deploy = &objects["projects/shop/templates/deploy"];
    assert_eq!((&deploy["timeout"], &deploy["retry"]["delay"]), (&"30m".into(), &"10s".into()));
    assert_eq!(objects["access/ops"]["expires"], "2030-01-30T23:00:00Z");
    assert_eq!(objects["access/root"]["projects"], "all");
    assert_eq!(objects["plugins/shell"]["limits"]["memory"], "32MiB");
    assert_eq!(objects["webhooks/ops"]["config"]["token"], "env WEBHOOK_TOKEN");
}

#[test]
fn a_change_of_any_file_shows() {
    let files = read_tree(&root("testdata/config/valid/shop"));
    let before = objects(&check_tree(&files, &FakeCatalog, &options()).tree.expect("a tree"));
    for (path, from, to) in [
        ("projects/shop/keys/vault.toml", "YWdlLWVuY3J5cHRpb24", "YWdlLWVuY3J5cHRpb25"),
        ("projects/shop/keys/hosts.toml", "id_ed25519", "id_rsa"),
        ("projects/shop/environments/production.toml", "SHOP_DB_PASSWORD", "SHOP_DB_TOKEN"),
        ("projects/shop/integrations/github.toml", "push", "release"),
        ("projects/shop/schedules/nightly.toml", "30 4", "31 4"),
        ("projects/shop/templates/deploy.toml", "max     = 0x10", "max     = 17"),
        ("access/root.toml", "333", "334"),
        ("access/ops.toml", "[\"shop\"]", "[]"),
        ("plugins/shell.toml", "\"sh\"", "\"zsh\""),
        ("webhooks/ops.toml", "WEBHOOK_TOKEN", "WEBHOOK_OTHER"),
        ("registration-tokens/east.toml", "uses    = 3", "uses    = 4"),
        ("runners/spare.toml", "false", "true"),
    ] {
        let mut changed = files.clone();
        let text = String::from_utf8(files[path].clone()).expect("UTF-8");
        let text = text.replacen(from, to, 1);
        changed.insert(path.to_owned(), text.into_bytes());
        let checked = check_tree(&changed, &FakeCatalog, &options());
        let after = objects(&checked.tree.unwrap_or_else(|| panic!("{path}: {:?}", checked.diagnostics)));
        let diff = TreeDiff::between(&before, &after);
        let told: Vec<_> = diff.objects.iter().map(|object| object.object.as_str()).collect();
        assert_eq!(told, [path.trim_end_matches(".toml")], "{path}");
    }
}
