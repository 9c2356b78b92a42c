//! The tree: checked with every mistake at once, applied whole or not at all, the last good revision serving.

use std::path::Path;

use crate::harness::{World, wait_for};

#[test]
fn a_good_tree_passes_and_a_bad_one_shows_every_mistake_with_its_line() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    world.run(&["config", "check", "tree"]).expect_code(0);

    world.write("projects/shop/templates/hello.toml", "executor = \"shel\"\ninventry = \"x\"\n[params]\nscript = 5\n");
    world.write(
        "projects/shop/templates/other.toml",
        "executor = \"shell\"\nrepository = \"nowhere\"\n[params]\nscrpt = \"x\"\n",
    );
    world.write("projects/shop/environments/prod.toml", "[env\n");
    let bad = world.run(&["config", "check", "tree"]).expect_code(1);
    for expected in [
        "projects/shop/templates/hello.toml:1:12",
        "projects/shop/templates/hello.toml:2:1",
        "projects/shop/templates/other.toml:2:14",
        "projects/shop/templates/other.toml:4:1",
        "projects/shop/environments/prod.toml:1:",
        "executor = \"shel\"",
        "inventry",
        "did you mean",
    ] {
        assert!(bad.stderr.contains(expected), "{expected:?} is missing:\n{}", bad.stderr);
    }
    assert_eq!(bad.text(), "", "mistakes are talk");

    let bad = world.run(&["config", "check", "tree", "--output", "json"]).expect_code(1).json();
    let items = bad.as_array().expect("a list");
    assert!(items.len() >= 5, "{bad:#?}");
    for item in items {
        for key in ["file", "line", "column", "code", "message", "hint"] {
            assert!(item.get(key).is_some(), "{key} is missing in {item}");
        }
    }
}

#[test]
fn params_are_checked_against_the_executor_s_schema() {
    let world = World::new();
    world.write("projects/shop/templates/a.toml", "executor = \"shell\"\n[params]\nscript = 5\n");
    let bad = world.run(&["config", "check", "tree"]).expect_code(1).stderr;
    assert!(bad.contains("a.toml:3:10") && bad.contains("script = 5") && bad.contains("string"), "{bad}");
}

/// Complaint 17 (no configuration as code): what is written into the tree serves, and a mistake in it changes nothing.
#[test]
fn a_commit_is_served_within_a_moment_and_a_broken_one_changes_nothing() {
    let world = World::new();
    world.template("hello", "", "echo one");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "one\n");
    let revision = || world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json();
    let first = revision();

    world.template("hello", "", "echo two");
    wait_for("the new revision serves", || (revision()["revision"] != first["revision"]).then_some(()));
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "two\n");

    let second = revision();
    world.write("projects/shop/templates/hello.toml", "executor = \"shell\"\n[params\n");
    let failed = wait_for("the broken revision is shown", || {
        let status = revision();
        (!status["last_error"].is_null()).then_some(status)
    });
    assert_eq!(failed["revision"], second["revision"]);
    let diagnostic = &failed["last_error"]["diagnostics"][0];
    assert_eq!(diagnostic["file"], "projects/shop/templates/hello.toml");
    assert_eq!(diagnostic["line"], 2);
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "two\n", "the last good one serves");
    let shown = world.ask(&daemon, &["config", "status"]);
    assert!(format!("{}{}", shown.text(), shown.stderr).contains("[params"), "the user's own line: {}", shown.stderr);

    // Over a restart too.
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = world.daemon();
    let status = world.ask(&daemon, &["config", "status", "--output", "json"]).expect_code(0).json();
    assert_eq!(status["revision"], second["revision"]);
    assert!(!status["last_error"].is_null());

    world.template("hello", "", "echo three");
    wait_for("mended", || {
        let status = world.ask(&daemon, &["config", "status", "--output", "json"]).json();
        status["last_error"].is_null().then_some(())
    });
}

#[test]
fn a_task_keeps_the_revision_that_it_was_created_from() {
    let world = World::new();
    world.template("hello", "runner_tag = \"late\"\n", "echo one");
    world.write("runners/late-1.toml", "tags = [\"late\"]\n");
    let daemon = world.daemon();
    let number = world.start_task(&daemon, "hello");
    let created = world.task(&daemon, number);
    world.template("hello", "runner_tag = \"late\"\n", "echo two");
    wait_for("the new revision serves", || {
        let status = world.ask(&daemon, &["config", "status", "--output", "json"]).json();
        (status["revision"] != created["revision"]).then_some(())
    });
    let _runner = world.runner(&daemon, "late-1", "");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["revision"], created["revision"]);
    assert_eq!(world.log(&daemon, number), b"one\n");
}

#[test]
fn a_template_that_left_the_tree_keeps_its_history_and_says_so() {
    let world = World::new();
    world.template("hello", "", "echo one");
    world.template("stays", "", "echo two");
    let daemon = world.daemon();
    let (gone, stays) = (world.start_task(&daemon, "hello"), world.start_task(&daemon, "stays"));
    assert_eq!(world.task(&daemon, gone).get("template_removed"), None);
    std::fs::remove_file(world.path("tree/projects/shop/templates/hello.toml")).expect("removed");
    wait_for("the task's template is gone", || (world.task(&daemon, gone)["template_removed"] == true).then_some(()));
    let shown = world.ask(&daemon, &["task", "show", &gone.to_string()]).expect_code(0);
    assert!(shown.text().contains("shop/hello (removed)"), "{}", shown.text());
    let listed = world.ask(&daemon, &["task", "list"]).expect_code(0);
    assert!(listed.text().contains("shop/hello (removed)") && !listed.text().contains("shop/stays (removed)"));
    assert_eq!(world.task(&daemon, stays).get("template_removed"), None);
    // What was asked for before runs all the same, as it was meant then.
    let _runner = world.runner(&daemon, "any", "");
    world.wait_state(&daemon, gone, "succeeded");
    assert_eq!(world.log(&daemon, gone), b"one\n");
    let refused = world.ask(&daemon, &["run", "shop/hello"]).expect_code(1);
    assert!(refused.stderr.contains("there is no template"), "{}", refused.stderr);
}

#[test]
fn a_daemon_with_a_broken_first_tree_serves_an_empty_one_and_the_error() {
    let world = World::new();
    world.write("projects/shop/templates/hello.toml", "executor = 5\n");
    let daemon = world.daemon();
    let status = world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).json();
    assert_eq!(status["revision"], "");
    assert_eq!(status["last_error"]["diagnostics"][0]["file"], "projects/shop/templates/hello.toml");
    world.template("hello", "", "echo hello");
    wait_for("mended", || {
        let listed = world.ask(&daemon, &["task", "list"]);
        listed.status.success().then_some(())
    });
}

#[test]
fn survey_answers_that_do_not_match_are_refused_before_a_task_exists() {
    let world = World::new();
    world.template(
        "deploy",
        "[survey.version]\ntype = \"string\"\nrequired = true\npattern = \"^v[0-9]+$\"\n[survey.count]\ntype = \"integer\"\ndefault = 3\n",
        "echo \"$FORGE_VAR_VERSION $FORGE_VAR_COUNT\"",
    );
    let daemon = world.daemon();
    let missing = world.ask(&daemon, &["run", "shop/deploy"]).expect_code(1).stderr;
    assert!(missing.contains("version"), "{missing}");
    let wrong = world.ask(&daemon, &["run", "shop/deploy", "--var", "version=42"]).expect_code(1).stderr;
    assert!(wrong.contains("version") && wrong.contains("^v[0-9]+$"), "{wrong}");
    let wrong =
        world.ask(&daemon, &["run", "shop/deploy", "--var", "version=v1", "--var", "count=many"]).expect_code(1).stderr;
    assert!(wrong.contains("count") && wrong.contains("integer"), "{wrong}");
    let unknown =
        world.ask(&daemon, &["run", "shop/deploy", "--var", "version=v1", "--var", "cuont=4"]).expect_code(1).stderr;
    assert!(unknown.contains("cuont") && unknown.contains("count"), "{unknown}");
    let unknown = world.ask(&daemon, &["run", "shop/deplyo"]).expect_code(1).stderr;
    assert!(unknown.contains("deplyo") && unknown.contains("deploy"), "{unknown}");
    let none = world.ask(&daemon, &["task", "list", "--output", "json"]).json();
    assert_eq!(none["items"].as_array().map(Vec::len), Some(0));
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/deploy", "--var", "version=v1"]).expect_code(0);
    assert_eq!(done.text(), "v1 3\n");
}

#[test]
fn a_repository_url_that_smuggles_an_option_or_a_command_is_refused() {
    let world = World::new();
    for url in [
        "-oProxyCommand=touch /tmp/x",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch%20/tmp/x",
        "ssh://-oProxyCommand=x/y",
        "https://a b/c",
    ] {
        world.write("projects/shop/repositories/app.toml", &format!("url = {url:?}\n"));
        let bad = world.run(&["config", "check", "tree"]).expect_code(1).stderr;
        assert!(bad.contains("repositories/app.toml:1:7"), "{url}: {bad}");
    }
}

#[test]
fn a_program_that_is_not_granted_fails_the_task_and_names_the_file_to_change() {
    let world = World::new();
    world.write(
        "projects/shop/templates/py.toml",
        "executor = \"shell\"\n[params]\nscript = \"print(1)\"\ninterpreter = \"python3\"\n",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/py", "--output", "json"]).expect_code(1).json();
    let reason = done["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("python3") && reason.contains("[allow].programs") && reason.contains("plugins/shell.toml"),
        "{reason}"
    );
}

#[test]
fn every_example_that_is_a_tree_has_nothing_to_say() {
    let world = World::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).expect("the examples") {
        let folder = entry.expect("an entry").path();
        if !folder.join("projects").is_dir() {
            continue;
        }
        let tree = world.path("example");
        // Alone: what a plugin or a project of another tree declares does not count.
        crate::ansible::copy(&folder, &tree);
        let done = world.run(&["config", "check", "example"]).expect_code(0);
        assert!(!done.stderr.contains("warning"), "{}: {}", folder.display(), done.stderr);
        std::fs::remove_dir_all(tree).expect("removed");
        checked += 1;
    }
    assert!(checked >= 5, "{checked}");
}
