//! What helps people to write a tree: a first one, schemas for editors, annotations of a pull request, and new recipients for its secrets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Finished, World, utf8};

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(toml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_new_tree_passes_its_check_and_each_file_names_its_schema() {
    let world = World::new();
    world.run(&["config", "init", "new"]).expect_code(0);
    let checked = world.run(&["config", "check", "new"]).expect_code(0);
    assert!(checked.stderr.contains("5 files checked, nothing to mend"), "{}", checked.stderr);
    for file in toml_files(&world.path("new")) {
        let text = std::fs::read_to_string(&file).expect("a file");
        let line = text.lines().next().and_then(|line| line.strip_prefix("#:schema ")).expect("a schema in line 1");
        let schema = std::fs::read(file.parent().expect("a folder").join(line)).expect("the schema is there");
        let schema: serde_json::Value = serde_json::from_slice(&schema).expect("JSON");
        let value: serde_json::Value = toml::from_str(&text).expect("TOML");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let refused: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(refused, Vec::<String>::new(), "{}", file.display());
    }
    let again = world.run(&["config", "init", "new"]).expect_code(1).stderr;
    assert!(again.contains("not empty") && again.contains("nothing is ever overwritten"), "{again}");
    // A repository that was just made is as good as an empty folder.
    std::fs::create_dir_all(world.path("fresh/.git")).expect("made");
    world.run(&["config", "init", "fresh"]).expect_code(0);
}

#[test]
fn a_schema_is_printed_for_each_kind() {
    let world = World::new();
    for kind in ["template", "schedule", "registration-token", "forge.toml"] {
        let schema = world.run(&["config", "schema", kind]).expect_code(0).json();
        assert_eq!(schema["title"], format!("Forge: {kind}"));
        assert!(schema["properties"].is_object(), "{schema:#}");
    }
    let unknown = world.run(&["config", "schema", "templates"]).expect_code(2).stderr;
    assert!(unknown.contains("template") && unknown.contains("webhook"), "{unknown}");
}

#[test]
fn mistakes_become_annotations_of_a_pull_request() {
    let world = World::new();
    world.write("projects/shop/templates/hello.toml", "executor = \"shel\"\n");
    let bad = world.run(&["config", "check", "tree", "--output", "github"]).expect_code(1).text();
    let line = "::error file=tree/projects/shop/templates/hello.toml,line=1,col=12,title=FORGE-C012::no plugin is named `shel`%0Ahint: did you mean `shell`?";
    assert!(bad.lines().any(|printed| printed == line), "{bad}");
    world.template("hello", "runner_tag = \"mars\"", "echo");
    let mut command = world.forge(&["config", "check", ".", "--output", "github", "--timings"]);
    command.current_dir(world.path("tree"));
    let warned = Finished::of(command, b"").expect_code(0);
    assert!(
        warned.text().starts_with("::warning file=projects/shop/templates/hello.toml,line=2,"),
        "{}",
        warned.text()
    );
    assert!(warned.stderr.contains("checked") && warned.stderr.contains("files"), "{}", warned.stderr);
}

#[test]
fn what_cannot_be_read_is_told_as_in_the_reference() {
    let world = World::new();
    std::fs::create_dir_all(world.path("odd/runners")).expect("made");
    let pipe = world.path("odd/runners/pipe.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let told = world.run(&["config", "check", "odd"]).expect_code(1).stderr;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/config/unreadable/expected.txt");
    let expected = std::fs::read_to_string(sample).expect("the sample");
    assert!(told.starts_with(&expected), "{told}");
}

/// A new identity and its recipient.
fn identity(world: &World, name: &str) -> (PathBuf, String) {
    let file = world.path(name);
    let made = world.run(&["secret", "keygen", "--output", utf8(&file)]).expect_code(0);
    (file, made.text().trim().to_owned())
}

#[test]
fn a_tree_is_encrypted_anew_for_other_recipients_whole_or_not_at_all() {
    let world = World::new();
    let (old, old_recipient) = identity(&world, "old.age");
    let (new, new_recipient) = identity(&world, "new.age");
    world.write("secrets.toml", &format!("recipients = [{old_recipient:?}]\n"));
    let value = |project: &str, secret: &str| crate::secrets::encrypted(&world, project, secret);
    let key = format!("# The vault's.\ntype  = \"string\"\nvalue = {} # keep\n", value("shop", "hunter2\nline two"));
    let environment = format!(
        "[secrets]\nA = {}\nB = {{ env = \"B\" }}\n[secrets.C]\nage = '''{}'''\nas = \"var\"\n",
        value("shop", "one"),
        value("shop", "two").trim_start_matches("{ age = \"\"\"\n").trim_end_matches("\"\"\" }")
    );
    world.write("projects/shop/keys/vault.toml", &key);
    world.write("projects/shop/environments/prod.toml", &environment);
    let path = world.path("tree/projects/shop/keys/vault.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let stands = |name: &str| std::fs::read_to_string(world.path("tree/projects/shop").join(name)).expect("a file");

    world.write("secrets.toml", &format!("recipients = [{new_recipient:?}]\n"));
    // One value that the identity does not open keeps everything as it is.
    world.write("projects/shop/keys/foreign.toml", &format!("type = \"string\"\nvalue = {}\n", value("shop", "x")));
    let refused = world.run(&["secret", "rekey", "tree", "--identity", utf8(&old)]).expect_code(1).stderr;
    assert!(refused.contains("keys/foreign.toml:2:") && refused.contains("nothing was changed"), "{refused}");
    assert!(!refused.contains("vault.toml"), "{refused}");
    assert_eq!((stands("keys/vault.toml"), stands("environments/prod.toml")), (key.clone(), environment));
    std::fs::remove_file(world.path("tree/projects/shop/keys/foreign.toml")).expect("removed");

    let done = world.run(&["secret", "rekey", "tree", "--identity", utf8(&old)]).expect_code(0).stderr;
    assert!(done.contains("3 values in 2 files") && done.contains("1 recipient of"), "{done}");
    let open = |identity: &Path, text: &str| {
        let arguments = ["secret", "decrypt", "--identity", utf8(identity), "--project", "shop"];
        Finished::of(world.forge(&arguments), text.as_bytes())
    };
    let now = stands("keys/vault.toml");
    assert_eq!(open(&new, &now).expect_code(0).text(), "hunter2\nline two");
    open(&old, &now).expect_code(1);
    assert!(
        now.starts_with("# The vault's.\ntype  = \"string\"\nvalue = { age = \"\"\"\n")
            && now.ends_with("\"\"\" } # keep\n")
    );
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    let environment = stands("environments/prod.toml");
    let (_, second) = environment.split_once("[secrets.C]").expect("the second value");
    assert_eq!(open(&new, second).expect_code(0).text(), "two");

    world.daemon_settings(&format!("[secrets]\nidentity_file = {new:?}\n[secrets.allow.shop]\nenv = [\"B\"]\n"));
    world.run(&["config", "check", "tree", "--config", "forge.toml"]).expect_code(0);
}
