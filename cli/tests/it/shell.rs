//! `builtin:shell` as a template's author meets it: an interpreter, arguments of the template and of the trigger, a script of the repository,
//! and what the tree does not grant.

use serde_json::json;

use crate::git;
use crate::harness::World;

#[test]
fn a_script_runs_with_the_interpreter_and_the_arguments_that_were_asked_for() {
    let world = World::new();
    let origin = world.path("origin");
    git::repository(&origin, "echo \"by ${BASH_VERSION:-sh} in $(basename \"$PWD\"):\"\nprintf '<%s>\\n' \"$@\"\n");
    let url = format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display());
    world.write("projects/shop/repositories/app.toml", &url);
    let template = |name: &str, interpreter: &str| {
        world.write(
            &format!("projects/shop/templates/{name}.toml"),
            &format!("executor = \"shell\"\nrepository = \"app\"\nallow_arguments = true\n[params]\nfile = \"deploy.sh\"\ninterpreter = {interpreter:?}\narguments = [\"one two\", \"$HOME\"]\n"),
        );
    };
    // `env` would run any program, and nobody granted it.
    template("by-sh", "sh");
    template("by-env", "env");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/by-sh", "--arg=; exit 3", "--output", "json"]).expect_code(0);
    assert!(done.stderr.contains("in repository:\n<one two>\n<$HOME>\n<; exit 3>\n"), "{}", done.stderr);
    assert_eq!(done.json()["summary"]["exit_code"], 0);

    let done = world.ask(&daemon, &["run", "shop/by-env", "--output", "json"]).expect_code(1);
    let task = done.json();
    let reason = task["reason"].as_str().expect("a reason");
    assert_eq!(reason, "denied: env is not in [allow].programs of plugins/shell.toml");
    assert_eq!(task["state"], json!("failed"));
}
