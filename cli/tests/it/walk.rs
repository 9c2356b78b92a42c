//! The main job: a template of the tree runs on a registered runner, and what it printed comes back.

use crate::harness::World;

#[test]
fn a_task_runs_on_a_registered_runner_and_its_outcome_is_the_exit_code() {
    let world = World::new();
    world.template("hello", "", "echo \"hello from $FORGE_PROJECT/$FORGE_TEMPLATE on $FORGE_RUNNER\"");
    world.template("broken", "", "echo about to fail; exit 7");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");

    let good = world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
    assert_eq!(good.text(), "hello from shop/hello on ny-1\n", "{}", good.stderr);
    assert!(good.stderr.contains("succeeded"), "{}", good.stderr);

    let bad = world.ask(&daemon, &["run", "shop/broken", "--output", "json"]).expect_code(1);
    let task = bad.json();
    assert_eq!(task["state"], "failed");
    assert_eq!(task["exit_code"], 7);
    assert!(task["reason"].as_str().expect("a reason").contains('7'), "{task}");
    assert!(bad.stderr.contains("about to fail"), "with --output json the log goes to stderr: {}", bad.stderr);
}

#[test]
fn a_task_has_the_shape_that_tools_rely_on() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let task = world.ask(&daemon, &["run", "shop/hello", "--output", "json"]).expect_code(0).json();
    let keys: Vec<&str> = task.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut expected = vec![
        "number",
        "project",
        "template",
        "state",
        "reason",
        "attempt",
        "runner",
        "required_tag",
        "revision",
        "commit",
        "exit_code",
        "trigger",
        "variables",
        "created_at",
        "assigned_at",
        "started_at",
        "finished_at",
        "log_bytes",
        "summary",
    ];
    expected.sort_unstable();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(task["number"], 1);
    assert_eq!(task["attempt"], 1);
    assert_eq!(task["runner"], "ny-1");
    assert_eq!(task["reason"], serde_json::Value::Null);
    assert_eq!(task["exit_code"], 0);
    assert_eq!(task["trigger"], serde_json::json!({"kind": "user", "by": "admin"}));
    assert_eq!(task["log_bytes"], 6);
    for moment in ["created_at", "assigned_at", "started_at", "finished_at"] {
        let text = task[moment].as_str().expect("a time");
        assert!(text.len() == 27 && text.ends_with('Z'), "RFC 3339, UTC, microseconds: {moment} {text}");
    }
}

#[test]
fn a_job_sees_its_own_environment_and_nothing_else_of_the_runners() {
    let world = World::new();
    world.write(
        "projects/shop/environments/production.toml",
        "[variables]\nregion = \"east\"\n[env]\nSTAGE = \"production\"\n",
    );
    world.template(
        "look",
        "environment = \"production\"\n[survey.version]\ntype = \"string\"\nrequired = true\npattern = \"^v[0-9]+$\"\n",
        "env | sort | cut -d= -f1; echo \"version=$FORGE_VAR_VERSION\"; echo \"stage=$STAGE\"; echo \"home=$HOME\"; pwd",
    );
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["runner", "--config", settings.to_str().expect("UTF-8")]);
    command.env("FORGE_SECRET_OF_THE_RUNNER", "x").env("AWS_SECRET_ACCESS_KEY", "x");
    let _runner = crate::harness::Process::start(command, &world.path("out"), "ny-1");

    let log = world.ask(&daemon, &["run", "shop/look", "--var", "version=v42"]).expect_code(0).text();
    assert!(log.contains("version=v42\n"), "{log}");
    assert!(log.contains("stage=production\n"), "{log}");
    let home = log.lines().find_map(|line| line.strip_prefix("home=")).expect("HOME is set");
    assert!(std::path::Path::new(home).starts_with(world.path("ny-1/tmp")), "HOME lies in the workspace: {home}");
    let names: Vec<&str> = log.lines().take_while(|line| !line.starts_with("version=")).collect();
    for foreign in ["FORGE_SECRET_OF_THE_RUNNER", "AWS_SECRET_ACCESS_KEY", "FORGE_URL", "FORGE_TOKEN"] {
        assert!(!names.contains(&foreign), "{foreign} leaked: {names:?}");
    }
    for ours in [
        "FORGE_TASK",
        "FORGE_PROJECT",
        "FORGE_TEMPLATE",
        "FORGE_REVISION",
        "FORGE_WORKSPACE",
        "FORGE_RUNNER",
        "HOME",
        "PATH",
        "LANG",
    ] {
        assert!(names.contains(&ours), "{ours} is missing: {names:?}");
    }
}

#[test]
fn a_secret_answer_reaches_the_process_and_no_log_answer_or_file_of_the_daemon() {
    let world = World::new();
    world.template(
        "secret",
        "[survey.password]\ntype = \"secret\"\nrequired = true\n",
        "echo \"the password is $FORGE_VAR_PASSWORD\"; printf %s \"$FORGE_VAR_PASSWORD\" | base64; printf %s \"$FORGE_VAR_PASSWORD\" | wc -c",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let secret = "correct-horse-battery-staple";
    let command = world.client(&daemon, &["run", "shop/secret", "--var", "password=@-", "--output", "json"]);
    let done = crate::harness::Finished::of(command, format!("{secret}\n").as_bytes()).expect_code(0);
    let log = String::from_utf8(world.log(&daemon, 1)).expect("text");
    assert!(log.contains("the password is [masked]\n"), "{log}");
    assert!(log.ends_with(&format!("{}\n", secret.len())), "the process got all of it: {log}");
    for place in [&log, &done.text(), &done.stderr] {
        assert!(!place.contains(secret) && !place.contains("Y29ycmVjdC1ob3JzZS1"), "{place}");
    }
    assert_eq!(daemon.stop().code(), Some(0));
    let mut folders = vec![world.path("data"), world.path("ny-1")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).expect("a file");
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "the secret lies in {}", path.display());
            }
        }
    }
}
