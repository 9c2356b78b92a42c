//! Sample trees are files: a bug report becomes a test by copying. Each invalid one has its drawn diagnostics beside it.
//!
//! `FORGE_TEST_REWRITE=1 cargo test -p forge-config` writes the expectations anew; review what changed.

use std::fs;
use std::path::{Path, PathBuf};

use forge_config::meant::{
    Concurrency, Event, IntegrationAuth, InventorySource, Key, MatchTest, OnRunnerLost, Overlap, PluginSource,
    QuestionKind, RequestPart, Retention, Role, SecretDestination,
};
use forge_config::{
    AgeCause, AgeRefusal, AgeValues, CheckOptions, Checked, Colour, Diagnostic, Files, Name, PLUGIN_SECRETS,
    SecretValue, SecretsAllow, Severity, WEBHOOK_SECRETS, check_tree,
};
use proptest::prelude::*;
use serde_json::json;

use crate::catalog::FakeCatalog;

pub(crate) fn root(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(path)
        .expect("the samples are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The files of a tree, but for the expectation beside it.
pub(crate) fn read_tree(root: &Path) -> Files {
    fn walk(folder: &Path, root: &Path, files: &mut Files) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, root, files);
            } else if path != root.join("expected.txt") {
                let relative = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
                files.insert(relative, fs::read(&path).expect("a file"));
            }
        }
    }
    let mut files = Files::new();
    walk(root, root, &mut files);
    files
}

/// Secrets of `shop` below /etc/forge/shop, of webhook targets below /etc/forge/webhooks, of plugins in PLUGIN_*, and nothing else.
pub(crate) fn options() -> CheckOptions {
    let shop = SecretsAllow {
        files: vec!["/etc/forge/shop/*".into()],
        env: vec!["SHOP_*".into(), "TOKEN".into(), "TEXT".into()],
        credentials: vec!["shop-*".into()],
    };
    let webhooks = SecretsAllow {
        files: vec!["/etc/forge/webhooks/*".into()],
        env: vec!["WEBHOOK_*".into()],
        ..SecretsAllow::default()
    };
    let plugins = SecretsAllow { env: vec!["PLUGIN_*".into()], ..SecretsAllow::default() };
    let allow = [("shop", shop), (WEBHOOK_SECRETS, webhooks), (PLUGIN_SECRETS, plugins)];
    let allow = allow.map(|(project, allow)| (project.parse().expect("a name"), allow));
    CheckOptions { secrets_allow: Some(allow.into()), age_values: None }
}

/// Checks a sample. The names of two say what their age values meet.
fn check(path: &Path) -> Checked {
    let cause = match path.file_name().and_then(|name| name.to_str()) {
        Some("locked") => Some(AgeCause::Value),
        Some("no-identity") => Some(AgeCause::Identity),
        Some(_) | None => None,
    };
    let age_values = cause.map(|cause| std::sync::Arc::new(VaultOnly(cause)) as std::sync::Arc<dyn AgeValues>);
    check_tree(&read_tree(path), &FakeCatalog, &CheckOptions { age_values, ..options() })
}

fn draw(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.draw(Colour::Never) + "\n\n").collect()
}

/// Compares what was drawn with the file, or writes the file anew. What differs is handed back.
fn compare(file: &Path, drawn: &str) -> Option<String> {
    assert!(!drawn.contains("hunter2"), "{} shows a secret:\n{drawn}", file.display());
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == drawn {
        return None;
    }
    if std::env::var_os("FORGE_TEST_REWRITE").is_some() {
        fs::write(file, drawn).expect("the expectation is written");
        return None;
    }
    Some(format!("{}\n{drawn}", file.display()))
}

fn all_as_expected(differing: Vec<String>) {
    assert!(differing.is_empty(), "FORGE_TEST_REWRITE=1 accepts this:\n{}", differing.join("\n"));
}

#[test]
fn every_invalid_tree_is_drawn_as_expected() {
    let mut differing = Vec::new();
    for sample in folders(&root("testdata/config/invalid")) {
        let checked = check(&sample);
        assert!(checked.tree.is_none(), "{} is invalid", sample.display());
        assert!(checked.diagnostics.iter().any(Diagnostic::is_error));
        differing.extend(compare(&sample.join("expected.txt"), &draw(&checked.diagnostics)));
    }
    all_as_expected(differing);
}

#[test]
fn every_valid_tree_is_taken_and_says_what_is_expected() {
    let mut differing = Vec::new();
    for sample in folders(&root("testdata/config/valid")) {
        let checked = check(&sample);
        assert!(checked.tree.is_some(), "{}\n{}", sample.display(), draw(&checked.diagnostics));
        differing.extend(compare(&sample.join("expected.txt"), &draw(&checked.diagnostics)));
    }
    all_as_expected(differing);
}

#[test]
fn the_quickstart_has_nothing_to_say() {
    let checked = check(&root("examples/quickstart"));
    assert_eq!(draw(&checked.diagnostics), "");
    assert!(checked.tree.is_some());
}

#[test]
fn settings_are_drawn_as_expected() {
    let mut differing = Vec::new();
    let mut samples: Vec<_> = fs::read_dir(root("testdata/config/settings"))
        .expect("the samples are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    samples.sort();
    for sample in samples {
        let text = fs::read_to_string(&sample).expect("a file");
        let found = match forge_config::daemon_settings("forge.toml", Some(&text), &Default::default()) {
            Ok((_, warnings)) => warnings,
            Err(mistakes) => mistakes,
        };
        differing.extend(compare(&sample.with_extension("expected.txt"), &draw(&found)));
    }
    all_as_expected(differing);
}

#[test]
fn a_tree_means_what_it_says() {
    let tree = check(&root("testdata/config/valid/shop")).tree.expect("a tree");
    let shop = &tree.projects["shop"];
    assert_eq!(shop.name.as_str(), "shop");
    assert_eq!((shop.global_runners, shop.max_parallel_tasks), (true, 3));
    assert_eq!(shop.retention, Retention { tasks: 50, age_ms: 30 * 24 * 3_600_000 });
    let deploy = &shop.templates["deploy"];
    assert_eq!((deploy.name.as_str(), deploy.executor.as_str()), ("deploy", "shell"));
    assert_eq!(deploy.branch.as_deref(), Some("release/1.0"));
    assert_eq!(deploy.required_tag.as_deref(), Some("new-york"));
    assert_eq!((deploy.timeout_ms, deploy.queue_timeout_ms, deploy.runner_grace_ms), (1_800_000, 7_200_000, 60_000));
    assert_eq!((deploy.concurrency, deploy.on_runner_lost), (Concurrency::Replace, OnRunnerLost::Retry));
    assert_eq!((deploy.retry_attempts, deploy.retry_delay_ms, deploy.priority), (2, 10_000, -5));
    assert_eq!(deploy.params["arguments"], json!(["--verbose"]));
    assert!(matches!(deploy.survey["count"].kind, QuestionKind::Integer { min: Some(1), max: Some(16) }));
    assert_eq!(deploy.survey["share"].default, Some(json!(0.5)));
    let environment = &shop.environments["production"];
    assert_eq!(environment.variables["nested"], json!({ "a": 1.5, "b": true, "since": "2026-01-31" }));
    assert_eq!(environment.secrets["db_password"].destination, SecretDestination::Variable);
    assert_eq!(environment.secrets["API_TOKEN"].value, SecretValue::File("/etc/forge/shop/api-token".into()));
    assert_eq!(
        shop.inventories["new-york"].source,
        InventorySource::File { repository: None, path: "hosts/new-york.ini".into() }
    );
    assert!(matches!(&shop.keys["hosts"], Key::Ssh { login: Some(login), .. } if login == "deploy"));
    assert_eq!(shop.repositories["shop"].depth, Some(1));
    let runner = &tree.runners["ny-1"];
    assert_eq!((runner.run_untagged, runner.enabled, runner.max_parallel_tasks), (false, true, 5));
    let token = &tree.registration_tokens["east"];
    assert_eq!((token.uses, token.expires_unix_micros), (Some(3), Some(1_896_048_000_000_000)));
    assert_eq!(tree.access["root"].role, Role::Admin);
    assert_eq!(tree.access["ops"].expires_unix_micros, Some(1_896_044_400_000_000));
    assert_eq!(tree.plugins["custom"].source, PluginSource::File("plugins/custom.wasm".into()));
    assert_eq!((tree.plugins["shell"].memory_bytes, tree.plugins["shell"].time_ms), (32 << 20, 500));
    let workspace = InventorySource::TerraformWorkspace("production".into());
    assert_eq!(shop.inventories["workspace"].source, workspace);
}

/// Complaint 12 (no routing by tag): the template's tag counts before its inventory's, and that before its project's.
#[test]
fn the_nearest_tag_counts() {
    let template = "projects/shop/templates/deploy.toml";
    let inventory = "projects/shop/inventories/new-york.toml";
    let mut files = read_tree(&root("testdata/config/valid/shop"));
    let mut change = |path: &str, from: &str, to: &str| {
        let text = String::from_utf8(files[path].clone()).expect("text");
        let changed: String = text
            .lines()
            .map(|line| if line.starts_with(from) { to } else { line })
            .map(|line| format!("{line}\n"))
            .collect();
        assert_ne!(changed, text, "{path} has no {from}");
        files.insert(path.to_owned(), changed.into_bytes());
        let tree = check_tree(&files, &FakeCatalog, &options()).tree.expect("a tree");
        tree.projects["shop"].templates["deploy"].required_tag.clone()
    };
    assert_eq!(change(inventory, "runner_tag", "runner_tag = \"cellar\"").as_deref(), Some("new-york"));
    assert_eq!(change(template, "runner_tag", "").as_deref(), Some("cellar"));
    assert_eq!(change(inventory, "runner_tag", "").as_deref(), Some("linux"));
}

#[test]
fn triggers_and_webhooks_mean_what_they_say() {
    let tree = check(&root("testdata/config/valid/shop")).tree.expect("a tree");
    let shop = &tree.projects["shop"];
    let nightly = &shop.schedules["nightly"];
    assert_eq!((nightly.cron.as_str(), nightly.timezone.as_str()), ("30 4 * * MON-FRI", "Europe/Berlin"));
    assert_eq!((nightly.template.as_str(), nightly.enabled, nightly.overlap), ("deploy", true, Overlap::Queue));
    assert_eq!(serde_json::Value::Object(nightly.answers.clone()), json!({ "version": "v42", "dry_run": true }));
    let paused = &shop.schedules["paused"];
    assert_eq!((paused.timezone.as_str(), paused.enabled, paused.overlap), ("UTC", false, Overlap::Skip));

    let github = &shop.integrations["github"];
    assert_eq!(github.auth, IntegrationAuth::Github(SecretValue::File("/etc/forge/shop/hook".into())));
    assert_eq!(github.matches[0].part, RequestPart::Header("x-github-event".into()));
    assert!(matches!(&github.matches[0].test, MatchTest::Equals(text) if text == "push"));
    assert!(matches!(&github.matches[1].test, MatchTest::Pattern(pattern) if pattern.is_match("refs/tags/v1")));
    assert_eq!(github.extract["region"].part, RequestPart::Json("repository.region".parse().expect("a path")));
    assert!(github.extract["version"].pattern.is_some());

    let ops = &tree.webhooks["ops"];
    assert_eq!((ops.plugin.as_str(), ops.retry_attempts, ops.retry_delay_ms), ("notify", 3, 5_000));
    assert_eq!(ops.events, [Event::TaskFinished, Event::ConfigFailed]);
    assert_eq!(ops.config["token"], json!("{{secret:token}}"), "the plugin never sees a secret");
    assert_eq!(ops.config_secrets["token"], SecretValue::Env("WEBHOOK_TOKEN".into()));
    for (plugin, field) in [("notify", "sender"), ("levels", "endpoint")] {
        let plugin = &tree.plugins[plugin];
        assert_eq!(plugin.config[field], json!(format!("{{{{secret:{field}}}}}")), "nor one of its own");
        let from = format!("PLUGIN_{}", field.to_uppercase());
        assert_eq!(plugin.config_secrets[field], SecretValue::Env(from));
    }
    for named in [&shop.webhooks, &shop.templates["minimal"].webhooks, &tree.runners["spare"].webhooks] {
        assert_eq!(named.iter().map(Name::as_str).collect::<Vec<_>>(), ["ops"]);
    }
    assert!(shop.templates["deploy"].webhooks.is_empty());
}

#[test]
fn what_is_not_written_has_its_default() {
    let tree = check(&root("testdata/config/valid/shop")).tree.expect("a tree");
    let minimal = &tree.projects["shop"].templates["minimal"];
    let day = 24 * 3_600_000;
    assert_eq!((minimal.timeout_ms, minimal.queue_timeout_ms, minimal.runner_grace_ms), (day, day, 120_000));
    assert_eq!((minimal.concurrency, minimal.on_runner_lost), (Concurrency::Queue, OnRunnerLost::Fail));
    assert_eq!((minimal.retry_attempts, minimal.retry_delay_ms, minimal.priority), (0, 30_000, 0));
    assert_eq!((minimal.branch.as_deref(), minimal.required_tag.as_deref()), (None, Some("linux")));
    assert!(!minimal.allow_arguments && minimal.survey.is_empty());
    let empty = check(&root("testdata/config/valid/empty-files")).tree.expect("a tree");
    let bare = &empty.projects["bare"];
    assert_eq!((bare.global_runners, bare.max_parallel_tasks, bare.description.as_str()), (true, 0, ""));
    assert_eq!(bare.retention, Retention { tasks: 1_000, age_ms: 90 * day });
    let any = &empty.runners["any"];
    assert!(any.enabled && any.run_untagged && any.tags.is_empty() && any.project.is_none());
    let plugin = &tree.plugins["custom"];
    assert_eq!((plugin.memory_bytes, plugin.time_ms), (64 << 20, 5_000));
    assert!(plugin.programs.is_empty());
}

#[test]
fn host_secrets_pass_where_no_daemon_is_known() {
    let files = read_tree(&root("testdata/config/valid/shop"));
    assert!(check_tree(&files, &FakeCatalog, &CheckOptions::default()).tree.is_some());
    let nothing_allowed = CheckOptions { secrets_allow: Some(Default::default()), age_values: None };
    let checked = check_tree(&files, &FakeCatalog, &nothing_allowed);
    assert!(checked.tree.is_none());
    let codes: Vec<_> = checked.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
    assert_eq!(codes, ["FORGE-C019"; 11], "every host secret and no age value");
}

/// Opens every age value in the project `vault` alone.
#[derive(Debug)]
struct VaultOnly(AgeCause);

impl AgeValues for VaultOnly {
    fn check(&self, project: &Name, _armored: &str) -> Result<(), AgeRefusal> {
        if project.as_str() == "vault" {
            return Ok(());
        }
        Err(AgeRefusal { cause: self.0, message: "it is of vault".to_owned(), hint: "encrypt it anew".to_owned() })
    }
}

#[test]
fn an_age_value_that_does_not_open_is_a_mistake_where_it_stands() {
    let files = read_tree(&root("testdata/config/valid/shop"));
    for (cause, code) in [(AgeCause::Value, "FORGE-C031"), (AgeCause::Identity, "FORGE-C032")] {
        let options = CheckOptions { age_values: Some(std::sync::Arc::new(VaultOnly(cause))), ..options() };
        let checked = check_tree(&files, &FakeCatalog, &options);
        assert!(checked.tree.is_none());
        let found = checked.diagnostics.first().expect("a mistake");
        assert_eq!((found.file.as_str(), found.line, found.column), ("projects/shop/keys/vault.toml", 2, 9));
        assert_eq!((found.code.as_str(), found.hint.as_deref()), (code, Some("encrypt it anew")));
        assert_eq!(found.message, "`value` cannot be opened: it is of vault");
    }
    let moved = Files::from([
        ("secrets.toml".to_owned(), files["secrets.toml"].clone()),
        ("projects/vault/project.toml".to_owned(), Vec::new()),
        ("projects/vault/keys/vault.toml".to_owned(), files["projects/shop/keys/vault.toml"].clone()),
    ]);
    let options = CheckOptions { age_values: Some(std::sync::Arc::new(VaultOnly(AgeCause::Value))), ..options() };
    let tree = check_tree(&moved, &FakeCatalog, &options).tree.expect("it opens in its own project");
    assert_eq!(tree.recipients, ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]);
}

#[test]
fn mistakes_are_sorted_and_say_where_they_are() {
    let checked = check(&root("testdata/config/invalid/references"));
    let places: Vec<_> = checked.diagnostics.iter().map(|found| (&found.file, found.line, found.column)).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(checked.diagnostics.iter().any(|found| found.severity == Severity::Warning));
    let first = checked.diagnostics.iter().find(|found| found.message.contains("`shel`")).expect("the executor");
    assert_eq!((first.line, first.column, first.span_width), (1, 15, 6));
    assert_eq!(first.hint.as_deref(), Some("did you mean `shell`?"));
}

#[test]
fn an_empty_tree_is_a_tree() {
    let checked = check_tree(&Files::new(), &FakeCatalog, &CheckOptions::default());
    assert!(checked.diagnostics.is_empty() && checked.tree.is_some());
}

#[test]
fn a_huge_file_and_endless_mistakes_are_bounded() {
    let file = "projects/shop/project.toml".to_owned();
    let huge = Files::from([(file.clone(), vec![b'#'; forge_config::TOML_FILE_BYTES_MAX + 1])]);
    let checked = check_tree(&huge, &FakeCatalog, &CheckOptions::default());
    assert_eq!(checked.diagnostics[0].code.as_str(), "FORGE-C003");
    let many: String = (0..5_000).map(|index| format!("key_{index} = 1\n")).collect();
    let checked = check_tree(&Files::from([(file, many.into_bytes())]), &FakeCatalog, &CheckOptions::default());
    assert_eq!(checked.diagnostics.len(), 100);
    assert!(checked.diagnostics.iter().any(|found| found.message.contains("4900 more")));
}

/// Where any bytes may stand in a tree: one file of each kind.
const PATHS: &[&str] = &[
    "projects/shop/project.toml",
    "projects/shop/templates/a.toml",
    "projects/shop/inventories/a.toml",
    "projects/shop/environments/a.toml",
    "projects/shop/repositories/a.toml",
    "projects/shop/keys/a.toml",
    "projects/shop/schedules/a.toml",
    "projects/shop/integrations/a.toml",
    "webhooks/a.toml",
    "runners/a.toml",
    "registration-tokens/a.toml",
    "plugins/shell.toml",
    "access/a.toml",
    "secrets.toml",
];

fn one_file(path: &str, bytes: Vec<u8>) -> Files {
    let mut files = read_tree(&root("testdata/config/valid/shop"));
    files.insert(path.to_owned(), bytes);
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(index in 0..PATHS.len(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let checked = check_tree(&one_file(PATHS[index], bytes), &FakeCatalog, &options());
        let _ = draw(&checked.diagnostics);
    }

    #[test]
    fn no_almost_toml_panics(index in 0..PATHS.len(), lines in proptest::collection::vec(
        "(\\[)?(type|executor|params|cron|timezone|auth|match|extract|events|survey\\.a|secrets|hash|tags|url|source|private_key|[a-z]{1,4})(\\])?( = (\"[^\"]{0,9}\"|[0-9]{1,22}|\\{ (file|a) = \"x\" \\}|\\[1, \"é\"\\]|nan|true))?", 0..8)) {
        let text = lines.join("\n");
        let checked = check_tree(&one_file(PATHS[index], text.into_bytes()), &FakeCatalog, &options());
        let _ = draw(&checked.diagnostics);
        prop_assert_eq!(checked.tree.is_none(), checked.diagnostics.iter().any(Diagnostic::is_error));
    }

    #[test]
    fn no_mutation_of_a_key_shows_its_secret(cut in 0..60usize, insert in "[\"'={}\\[\\]\n a-z]{0,3}") {
        let mut text = "type = \"ssh\"\nprivate_key = \"hunter2-secret\"\n".to_owned();
        let at = cut.min(28);
        text.insert_str(at, &insert);
        let checked = check_tree(&one_file("projects/shop/keys/a.toml", text.into_bytes()), &FakeCatalog, &options());
        prop_assert!(!draw(&checked.diagnostics).contains("hunter2-secret"));
    }
}
