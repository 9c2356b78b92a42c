//! What a hostile plugin gets of a real runner: no secret's value, nothing of the runner's environment, and no more than its memory.

use std::path::Path;

use crate::harness::{Daemon, World, wait_for};
use crate::packed::component;

/// A secret that no log, answer or plugin may show.
const SECRET: &str = "correct-horse-battery";

/// A world whose template `spy` runs this guest with a secret in its environment and one among its variables.
fn world(guest: &str) -> World {
    let world = World::new();
    let wasm = component(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), guest);
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &wasm);
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(world.path("tree/plugins/spy.wasm"), wasm).expect("the plugin");
    let grants = "[allow]\nprograms = [\"bash\"]\nenv = [\"GRANTED\"]\n[limits]\nmemory = \"16MiB\"\n";
    world.write("plugins/spy.toml", &format!("source = \"plugins/spy.wasm\"\nsha256 = \"{sha256}\"\n{grants}"));
    let secret = world.path("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    world.write(
        "projects/shop/environments/live.toml",
        &format!(
            "[secrets]\nPASSWORD = {{ file = {secret:?}, as = \"env\" }}\ntoken = {{ file = {secret:?}, as = \"var\" }}\n"
        ),
    );
    world.write(
        "projects/shop/templates/spy.toml",
        "executor = \"spy\"\nenvironment = \"live\"\nallow_arguments = true\nretry = { attempts = 1, delay = \"0s\" }\n",
    );
    world.daemon_settings(&format!("[secrets.allow.shop]\nfiles = [{secret:?}]\n"));
    world
}

/// What the guest was told by `script`, and why its task failed.
fn spy(world: &World, daemon: &Daemon, script: &str) -> (Option<String>, Option<String>) {
    let arguments = ["run", "shop/spy", "--arg=bash", "--arg=-c", "--arg", script, "--output", "json"];
    let task = world.ask(daemon, &arguments).json();
    assert!(!task.to_string().contains(SECRET), "{task}");
    let log = String::from_utf8_lossy(&world.log(daemon, task["number"].as_u64().expect("a number"))).into_owned();
    assert!(!log.contains(SECRET), "{log}");
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    (text(&task["summary"]["text"]), text(&task["reason"]))
}

#[test]
fn a_plugin_reads_no_secret_back_and_nothing_of_the_runners_environment() {
    let world = world("spawn");
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let mut command = world.forge(&["runner", "--config", settings.to_str().expect("UTF-8")]);
    command.env("GRANTED", "yes").env("CLOUD_TOKEN", SECRET);
    let _runner = crate::harness::Process::start(command, &world.path("out"), "ny-1");

    // The process has the secret; what comes back from it to the plugin has not.
    let script = "echo ${#PASSWORD}; echo $PASSWORD; printf %s \"$PASSWORD\" | base64";
    let (told, _) = spy(&world, &daemon, script);
    assert_eq!(told.as_deref(), Some(format!("{}\n[masked]\n[masked]\n", SECRET.len()).as_str()));
    // The file of variables: where it lies stands in the runner's spool, which a job of the runner's own user can read.
    let file =
        r#"$(sed -n '$s/.*"private":"\([^"]*\)".*/\1/p' ../../attempts/$FORGE_TASK-1/attempt.json)/variables.json"#;
    let (told, _) = spy(&world, &daemon, &format!("cat {file}; head -c 30 {file} >&2"));
    assert!(told.as_deref().is_some_and(|told| told.contains("\"token\":\"[masked]\"")), "{told:?}");
    let (told, _) = spy(
        &world,
        &daemon,
        "echo \"$GRANTED ${CLOUD_TOKEN-none}\"; tr '\\0' '\\n' < /proc/$PPID/environ | grep -c CLOUD",
    );
    assert_eq!(told.as_deref(), Some("yes none\n0\n"), "neither given to its processes nor left for them to find");
}

#[test]
fn a_file_that_a_process_wrote_brings_no_secret_into_the_summary() {
    let world = world("read-back");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let (told, reason) = spy(&world, &daemon, "printenv PASSWORD > x; printf %s \"$PASSWORD\" | base64 >> x");
    assert_eq!((told.as_deref(), reason), (Some("[masked]\n[masked]\n"), None));
    // Nor is it kept where no answer shows it.
    let stored = std::fs::read(world.path("data/forge.db")).expect("the store");
    let wal = std::fs::read(world.path("data/forge.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(!holds(&stored) && !holds(&wal));
}

#[test]
fn a_file_of_secrets_lies_where_no_plugin_reads() {
    let world = world("peeks");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let (told, reason) = spy(&world, &daemon, "true");
    let reason = reason.expect("it is refused");
    assert!(reason.contains("variables.json is absolute; paths are relative to the workspace"), "{told:?} {reason}");
}

#[test]
fn a_secret_of_the_plugin_s_own_config_reaches_its_processes_and_not_the_plugin() {
    let world = world("configured");
    let secret = world.path("secret");
    let plugin = std::fs::read_to_string(world.path("tree/plugins/spy.toml")).expect("it is there");
    world.write("plugins/spy.toml", &format!("{plugin}[config]\nroom = \"ops\"\ntoken = {{ file = {secret:?} }}\n"));
    let allow = |owner: &str| format!("[secrets.allow.{owner}]\nfiles = [{secret:?}]\n");
    world.daemon_settings(&format!("{}{}", allow("shop"), allow("plugins")));
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");

    // A variable and standard input hold the value, which the environment's PASSWORD has as well.
    let script = r#"[ "$CONFIG" = "{\"room\":\"ops\",\"token\":\"$PASSWORD\"}" ] && [ "$(cat)" = "$CONFIG" ] && echo "it is $CONFIG""#;
    let arguments = ["run", "shop/spy", "--arg=bash", "--arg=-c", "--arg", script, "--output", "json"];
    let task = world.ask(&daemon, &arguments).expect_code(0).json();
    let log = String::from_utf8(world.log(&daemon, task["number"].as_u64().expect("a number"))).expect("text");
    assert_eq!(log, "it is {\"room\":\"ops\",\"token\":\"[masked]\"}\n");
    let told = task["summary"]["text"].as_str().expect("what it was told");
    assert!(told.starts_with(r#"{"room":"ops","token":"{{secret:token:"#) && !told.contains(SECRET), "{told}");

    // Everyone on the runner's machine reads what stands in a command line.
    let refused = world.ask(&daemon, &["run", "shop/spy", "--arg=bash", "--output", "json"]).expect_code(1).json();
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("config.token of plugins/spy.toml stands in an argument of bash")
            && reason.contains("in a variable or on standard input"),
        "{reason}"
    );
    // It is in no job before a runner has it.
    let stored = std::fs::read(world.path("data/forge.db")).expect("the store");
    assert!(!stored.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[test]
fn what_a_plugin_says_of_another_try_is_kept() {
    // `invalid` is never tried again, whatever the template says.
    let world_of_spawn = world("spawn");
    let daemon = world_of_spawn.daemon();
    let _runner = world_of_spawn.runner(&daemon, "ny-1", "");
    let refused = ["run", "shop/spy", "--arg=python3", "--output", "json"];
    let task = world_of_spawn.ask(&daemon, &refused).expect_code(1).json();
    assert_eq!((&task["state"], &task["attempt"]), (&"failed".into(), &1.into()), "{task}");
    let reason = task["reason"].as_str().expect("a reason");
    assert!(reason.contains("python3 is not in [allow].programs of plugins/spy.toml"), "{reason}");

    // A plugin that asks to be left alone for an hour is.
    let world = world("later");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "spy");
    let why = wait_for("it is queued again", || {
        let why = world.ask(&daemon, &["task", "why", &number.to_string(), "--output", "json"]).json();
        why["unmet"].as_array()?.iter().find(|unmet| unmet["code"] == "retry_delay").cloned()
    });
    let said = why["message"].as_str().expect("words");
    assert!(said.contains("its next attempt is due in 59m") || said.contains("due in 1h"), "{said}");
}

#[test]
fn what_a_plugin_holds_when_it_traps_is_ended_at_once_and_not_one_after_the_other() {
    let world = world("deserter");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let folder = world.path("told");
    std::fs::create_dir(&folder).expect("a folder");
    let folder = folder.display();
    // Each ends by itself once all three were told to end, and not before: told one after the other, the first two are killed.
    let script = format!(
        "cd {folder}; for n in 0 1 2; do mkdir $n 2>/dev/null && break; done; \
         end() {{ : > told.$n; until [ -e told.0 ] && [ -e told.1 ] && [ -e told.2 ]; do sleep 0.05; done; : > ended.$n; exit 0; }}; \
         trap end TERM; echo ready; while :; do sleep 0.05; done"
    );
    let (_, reason) = spy(&world, &daemon, &script);
    let reason = reason.expect("it trapped");
    assert!(reason.contains("unreachable"), "{reason}");
    for n in 0..3 {
        assert!(world.path(&format!("told/ended.{n}")).exists(), "process {n} was killed before the others were told");
    }
}

#[test]
fn a_gigabyte_of_output_costs_the_plugin_its_own_memory_and_nobody_else_anything() {
    let world = world("spawn");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let (_, reason) = spy(&world, &daemon, "head -c 1073741824 /dev/zero");
    let reason = reason.expect("it failed");
    let limit =
        "plugins/spy.toml [limits].memory = \"16MiB\" used up: if it needs more, write `memory = \"32MiB\"` there";
    assert!(reason.contains(limit), "{reason}");
    // The runner works on.
    let (told, _) = spy(&world, &daemon, "echo fine");
    assert_eq!(told.as_deref(), Some("fine\n"));
}

/// The most memory that a process has held, in KiB.
fn most_memory_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// A process and all below it.
fn tree_of(pid: u32) -> Vec<u32> {
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(|task| {
        let children = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        Some(children.split_whitespace().filter_map(|pid| pid.parse().ok()).flat_map(tree_of).collect::<Vec<_>>())
    });
    std::iter::once(pid).chain(children.flatten()).collect()
}

#[test]
fn a_gigabyte_that_goes_to_the_log_ends_at_the_logs_limit_and_is_never_held_in_memory() {
    const GIB: u64 = 1 << 30;
    const MEMORY_KIB_MAX: u64 = 256 << 10;
    let world = World::new();
    world.daemon_settings("[logs]\nmax_bytes = \"8MiB\"\n");
    world.template("flood", "", &format!("head -c {GIB} /dev/zero | tr '\\0' x; echo over"));
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "flood");
    let mut most = 0;
    let task = wait_for("the flood ends", || {
        most = tree_of(runner.process.pid()).into_iter().filter_map(most_memory_kib).chain([most]).max()?;
        let task = world.task(&daemon, number);
        (task["finished_at"] != serde_json::Value::Null).then_some(task)
    });
    assert_eq!(task["state"], "failed", "{task}");
    let reason = task["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("its log is longer than `max_bytes` under [logs] of forge.toml (8388608 bytes): let it print less, or raise that"),
        "{reason}"
    );
    assert!(most > 0 && most < MEMORY_KIB_MAX, "runner, supervisor and processes held at most {most} KiB each");
    assert!(world.log(&daemon, number).len() <= 8 << 20);
    assert_eq!(world.ask(&daemon, &["run", "shop/hello"]).expect_code(0).text(), "hello\n", "the runner works on");
}

#[test]
fn a_failure_names_the_variables_that_a_plugin_asked_for_and_did_not_get() {
    let world = World::new();
    world.write(
        "plugins/python.toml",
        "source = \"builtin:python\"\n[allow]\nprograms = [\"python3\"]\nenv = [\"PIP_INDEX_URL\", \"NO_PROXY\"]\n",
    );
    let template = |name: &str, script: &str| {
        let text = format!("executor = \"python\"\n[params]\nscript = {script:?}\n");
        world.write(&format!("projects/shop/templates/{name}.toml"), &text);
    };
    template("fails", "raise SystemExit(3)");
    template("works", "print('fine')");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let failed = world.ask(&daemon, &["run", "shop/fails"]).expect_code(1);
    let log = failed.text();
    let said = "[forge] python asks for variables of the runner's environment that are not in [allow].env of plugins/python.toml: ";
    assert!(log.contains(&format!("{said}PIP_EXTRA_INDEX_URL, PIP_CERT, PIP_TRUSTED_HOST, HTTPS_PROXY; ")), "{log}");
    let worked = world.ask(&daemon, &["run", "shop/works"]).expect_code(0).text();
    assert!(
        worked.contains("fine") && !worked.contains("asks for"),
        "work that went well has nothing to explain: {worked}"
    );
}
