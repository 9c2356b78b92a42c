//! `forge config diff`: folders, git revisions and what a daemon serves, with exit codes that a pipeline can use.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Finished, World, utf8, wait_for};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn copy_of_tree(world: &World, name: &str) {
    let status = Command::new("cp").arg("-a").arg(world.path("tree")).arg(world.path(name)).status().expect("cp runs");
    assert!(status.success());
}

/// The fields of a change, by name.
fn field<'a>(diff: &'a Value, object: &str, field: &str) -> &'a Value {
    let of = |items: &'a Value, key: &str, name: &str| {
        items.as_array().expect("a list").iter().find(|item| item[key] == name)
    };
    let object = of(&diff["objects"], "object", object).unwrap_or_else(|| panic!("{object} in {diff:#}"));
    of(&object["fields"], "field", field).unwrap_or_else(|| panic!("{field} in {object:#}"))
}

#[test]
fn two_folders_are_compared_object_by_object_and_grants_on_their_own() {
    let world = World::new();
    world.template("deploy", "timeout = \"30m\"", "echo one\necho two");
    world.write("projects/shop/keys/old.toml", "type = \"string\"\nvalue = { env = \"OLD\" }\n");
    copy_of_tree(&world, "before");
    let same = world.run(&["config", "diff", "before", "tree"]).expect_code(0);
    assert_eq!(same.text(), "no changes\n");

    world.template("deploy", "timeout = \"1h\"", "echo one\necho three");
    std::fs::remove_file(world.path("tree/projects/shop/keys/old.toml")).expect("removed");
    world.write("runners/ny-1.toml", "tags = [\"new-york\"]\n");
    world.write(
        "plugins/shell.toml",
        "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\", \"git\"]\nenv = [\"LANG\"]\n",
    );
    let text = world.run(&["config", "diff", "before", "tree"]).expect_code(3).text();
    for expected in [
        "! plugins/shell: grants programs: -sh +git",
        "~ plugins/shell",
        "~ projects/shop/templates/deploy",
        "    ~ timeout: \"30m\" -> \"1h\"",
        "        - echo two",
        "        + echo three",
        "- projects/shop/keys/old",
        "+ runners/ny-1",
        "    + tags: [\"new-york\"]",
        "1 added, 2 changed, 1 removed",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected:?} is missing:\n{text}");
    }
    assert!(!text.contains("echo one"), "what stays is not shown:\n{text}");

    let json = world.run(&["config", "diff", "before", "tree", "--output", "json"]).expect_code(3).json();
    assert_eq!(field(&json, "projects/shop/templates/deploy", "timeout")["after"], "1h");
    assert_eq!(json["plugins"][0]["removed"][0], "sh");
    assert_ne!(json["before"], json["after"]);

    // The same code under another digest, as a commit that exchanges a component: who reviews it sees that by itself.
    let component =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/plugins/executor-0.1.0.wasm"));
    let component = component.expect("it is there");
    let commit = |folder: &str, bytes: &[u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(world.path(folder).join("plugins/tool.wasm"), bytes).expect("written");
        let toml = format!("source = \"plugins/tool.wasm\"\nsha256 = \"{digest}\"\n[allow]\nprograms = [\"true\"]\n");
        std::fs::write(world.path(folder).join("plugins/tool.toml"), toml).expect("written");
        digest
    };
    let old = commit("before", &component);
    let new = commit("tree", &[&component, &b"\0\x02\x01x"[..]].concat());
    let text = world.run(&["config", "diff", "before", "tree"]).expect_code(3).text();
    let line = format!("! plugins/tool: another component: -{old} +{new}");
    assert!(text.lines().any(|found| found == line), "{line:?} is missing:\n{text}");

    world.write("projects/shop/templates/deploy.toml", "executor = \"shel\"\n");
    let broken = world.run(&["config", "diff", "before", "tree"]).expect_code(1);
    assert!(broken.stderr.contains("deploy.toml:1:12") && broken.stderr.contains("nothing can be compared"));
}

#[test]
fn a_secret_that_changes_is_told_and_never_shown() {
    let world = World::new();
    let identity = crate::secrets::identity(&world, "");
    let value = |secret: &str| crate::secrets::encrypted(&world, "shop", secret);
    let write = |secret: &str| {
        world.write("projects/shop/keys/vault.toml", &format!("type = \"string\"\nvalue = {}\n", value(secret)));
    };
    world.write("projects/shop/environments/prod.toml", "[secrets]\nTOKEN = { file = \"/etc/forge/one\" }\n");
    write("hunter2-one");
    copy_of_tree(&world, "before");
    write("hunter2-two");
    world.write("projects/shop/environments/prod.toml", "[secrets]\nTOKEN = { file = \"/etc/forge/two\" }\n");
    let told = world.run(&["config", "diff", "before", "tree"]).expect_code(3).text();
    assert!(told.contains("~ projects/shop/keys/vault") && told.contains("~ value: \"age ("), "{told}");
    assert!(told.contains("~ secrets.TOKEN.from: \"file /etc/forge/one\" -> \"file /etc/forge/two\""), "{told}");
    assert!(!told.contains("hunter2") && !told.contains("BEGIN AGE") && !told.contains("YWdl"), "{told}");
    drop(identity);
}

#[test]
fn git_revisions_are_compared_without_checking_them_out() {
    let world = World::new();
    world.template("deploy", "timeout = \"30m\"", "echo one");
    let home = world.path("");
    git(&home, &["init", "--quiet", "--initial-branch=main"]);
    // Nothing of the repository has a say in what is read, not even its attributes.
    std::fs::write(world.path("tree/.gitattributes"), "*.toml export-ignore\n").expect("written");
    git(&home, &["add", "tree"]);
    git(&home, &["commit", "--quiet", "-m", "One"]);
    let first = git(&home, &["rev-parse", "HEAD"]);
    world.template("deploy", "timeout = \"1h\"", "echo one");
    git(&home, &["commit", "--quiet", "-am", "Two"]);

    // From inside the tree a revision means the same folder of it.
    let inside = |arguments: &[&str]| {
        let mut command = world.forge(arguments);
        command.current_dir(world.path("tree"));
        Finished::of(command, b"")
    };
    let json = inside(&["config", "diff", "HEAD~1", "HEAD", "--output", "json"]).expect_code(3).json();
    assert_eq!(json["before"], first.as_str());
    assert_eq!(json["objects"].as_array().map(Vec::len), Some(1), "{json:#}");
    assert_eq!(field(&json, "projects/shop/templates/deploy", "timeout")["before"], "30m");
    inside(&["config", "diff", "main", "."]).expect_code(0);
    world.template("deploy", "timeout = \"2h\"", "echo one");
    inside(&["config", "diff", "main", "."]).expect_code(3);
    // From above it is named.
    world.run(&["config", "diff", "HEAD~1:tree", "HEAD:tree"]).expect_code(3);
    let unknown = inside(&["config", "diff", "nowhere", "."]).expect_code(1).stderr;
    assert!(unknown.contains("neither a folder nor a revision") && unknown.contains("live"), "{unknown}");
    inside(&["config", "diff", "--", "--upload-pack=x", "."]).expect_code(1);
}

#[test]
fn what_a_daemon_serves_is_compared_as_live() {
    let world = World::new();
    world.template("deploy", "", "echo one");
    let (token, hash) = world.new_token();
    world.write("access/shop.toml", &format!("hash = \"{hash}\"\nrole = \"viewer\"\nprojects = [\"shop\"]\n"));
    let daemon = world.daemon();
    assert_eq!(world.ask(&daemon, &["config", "diff", "live", "tree"]).expect_code(0).text(), "no changes\n");

    copy_of_tree(&world, "next");
    std::fs::write(world.path("next/runners.toml"), "").expect("written");
    std::fs::remove_file(world.path("next/runners.toml")).expect("removed");
    std::fs::create_dir_all(world.path("next/runners")).expect("made");
    std::fs::write(world.path("next/runners/ny-2.toml"), "enabled = false\n").expect("written");
    let json = world.ask(&daemon, &["config", "diff", "live", "next", "--output", "json"]).expect_code(3).json();
    assert_eq!(field(&json, "runners/ny-2", "enabled")["after"], false);
    let revision =
        world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json()["revision"].clone();
    assert_eq!(json["before"], revision);

    std::fs::create_dir_all(world.path("tree/runners")).expect("made");
    std::fs::copy(world.path("next/runners/ny-2.toml"), world.path("tree/runners/ny-2.toml")).expect("copied");
    wait_for("the new tree serves", || {
        (world.ask(&daemon, &["config", "diff", "live", "next"]).status.code() == Some(0)).then_some(())
    });

    let mut command = world.client(&daemon, &["config", "diff", "live", "tree"]);
    command.env("FORGE_TOKEN", token);
    let refused = Finished::of(command, b"").expect_code(1).stderr;
    assert!(refused.contains("this token reaches only some"), "{refused}");
}

/// The `run` lines of the steps of a workflow.
fn steps(workflow: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut lines = workflow.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(first) = line.trim_start().strip_prefix("run: ") else { continue };
        if first != "|" {
            steps.push(first.to_owned());
            continue;
        }
        let mut script = String::new();
        while let Some(more) = lines.next_if(|more| more.starts_with("          ")) {
            script.push_str(more.trim_start());
            script.push('\n');
        }
        steps.push(script);
    }
    steps
}

/// A repository with one commit on `main`, and the environment that a pipeline's steps get.
struct Pipeline {
    world: World,
    tree: PathBuf,
}

impl Pipeline {
    fn new() -> Self {
        let world = World::new();
        world.template("deploy", "timeout = \"30m\"", "echo one");
        let tree = world.path("tree");
        git(&tree, &["init", "--quiet", "--initial-branch=main"]);
        git(&tree, &["remote", "add", "origin", utf8(&tree)]);
        git(&tree, &["add", "."]);
        git(&tree, &["commit", "--quiet", "-m", "One"]);
        Self { world, tree }
    }

    fn step(&self, script: &str) -> Finished {
        let forge = Path::new(env!("CARGO_BIN_EXE_forge")).parent().expect("a folder").to_owned();
        let others = std::env::var_os("PATH").expect("PATH is set");
        let path = std::env::join_paths(std::iter::once(forge).chain(std::env::split_paths(&others)));
        let mut command = Command::new("bash");
        command.args(["-e", "-c", script]).current_dir(&self.tree).env_clear();
        command.env("PATH", path.expect("a PATH")).env("HOME", self.world.path("")).env("BASE", "main");
        command.env("GITHUB_STEP_SUMMARY", self.world.path("summary.md"));
        command.env("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main");
        Finished::of(command, b"")
    }
}

fn example(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
    std::fs::read_to_string(path).expect("the pipeline")
}

#[test]
fn the_pipeline_of_the_example_shows_mistakes_and_changes() {
    let steps = steps(&example("quickstart/.github/workflows/forge.yml"));
    assert_eq!(steps.len(), 2, "{steps:?}");
    let pipeline = Pipeline::new();
    pipeline.world.template("deploy", "timeout = \"1h\"", "echo one");
    pipeline.step(&steps[0]).expect_code(0);
    pipeline.step(&steps[1]).expect_code(0);
    let told = std::fs::read_to_string(pipeline.world.path("summary.md")).expect("a summary");
    assert!(told.starts_with("```diff\n") && told.contains("~ timeout: \"30m\" -> \"1h\""), "{told}");
    pipeline.world.write("projects/shop/templates/deploy.toml", "executor = \"shel\"\n");
    let annotated = pipeline.step(&steps[0]).expect_code(1);
    assert!(annotated.text().starts_with("::error file=projects/shop/templates/deploy.toml"));
    pipeline.step(&steps[1]).expect_code(1);
}

#[test]
fn the_pipeline_for_gitlab_shows_mistakes_and_changes_too() {
    let text = example("ansible-fleet/.gitlab-ci.yml");
    let script = text.lines().skip_while(|line| line.trim() != "script:").skip(1);
    let script: Vec<&str> = script.map_while(|line| line.strip_prefix("    - ")).collect();
    assert_eq!(script.len(), 5, "{script:?}");
    let pipeline = Pipeline::new();
    assert!(pipeline.step(&script.join("\n")).expect_code(0).text().ends_with("no changes\n"));
    pipeline.world.template("deploy", "timeout = \"1h\"", "echo one");
    let told = pipeline.step(&script.join("\n")).expect_code(0);
    assert!(told.text().contains("~ timeout: \"30m\" -> \"1h\""), "{}", told.text());
    pipeline.world.write("projects/shop/templates/deploy.toml", "executor = \"shel\"\n");
    let refused = pipeline.step(&script.join("\n")).expect_code(1);
    assert!(refused.stderr.contains("projects/shop/templates/deploy.toml:1:12"), "{}", refused.stderr);
}
