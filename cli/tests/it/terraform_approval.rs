//! The example of an approval, with the real terraform: nothing changes before a person has said so, and then exactly what was planned.

use std::path::Path;

use serde_json::{Value, json};

use crate::ansible::copy;
use crate::git::git;
use crate::harness::{Daemon, World};
use crate::terraform::is_missing;

/// `examples/terraform-approval` with its repository and its state in the world.
fn example() -> (World, Daemon) {
    let world = World::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/terraform-approval"), &world.path("tree"));
    let origin = world.path("infrastructure");
    std::fs::rename(world.path("tree/repository"), &origin).expect("the repository moves out of the tree");
    git(&origin, &["init", "--quiet", "--initial-branch=main"]);
    git(&origin, &["add", "--all"]);
    git(&origin, &["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "Network"]);
    world.write(
        "projects/network/repositories/infrastructure.toml",
        &format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display()),
    );
    for name in ["roll-out", "preview", "tear-down"] {
        let file = format!("projects/network/templates/{name}.toml");
        let text = std::fs::read_to_string(world.path("tree").join(&file)).expect("the template");
        let state = world.path("state");
        world.write(&file, &text.replace("/var/lib/forge-runner/state", state.to_str().expect("UTF-8")));
    }
    let daemon = world.daemon();
    (world, daemon)
}

/// Starts a template of the example and waits until it is in `state`.
fn run(world: &World, daemon: &Daemon, template: &str, variables: &[&str], state: &str) -> Value {
    let template = format!("network/{template}");
    let created = world.ask(daemon, &[&["run", &template, "--detach", "--output", "json"], variables].concat());
    let number = created.expect_code(0).json()["number"].as_u64().expect("a number");
    world.wait_state(daemon, number, state)
}

fn decide(world: &World, daemon: &Daemon, word: &str, task: &Value, state: &str) -> Value {
    let number = task["number"].as_u64().expect("a number");
    world.ask(daemon, &["task", word, &number.to_string()]).expect_code(0);
    world.wait_state(daemon, number, state)
}

fn log(world: &World, daemon: &Daemon, task: &Value) -> String {
    String::from_utf8(world.log(daemon, task["number"].as_u64().expect("a number"))).expect("text")
}

/// The machines that the state knows.
fn machines(world: &World) -> usize {
    let Ok(text) = std::fs::read_to_string(world.path("state/network.tfstate")) else { return 0 };
    let state: Value = serde_json::from_str(&text).expect("a state");
    let resources = state["resources"].as_array().expect("resources");
    resources.iter().map(|resource| resource["instances"].as_array().map_or(0, Vec::len)).sum()
}

#[test]
fn the_example_changes_nothing_before_a_person_has_said_so_and_then_exactly_what_was_planned() {
    if is_missing() {
        return;
    }
    let (world, daemon) = example();
    let _runner = world.runner(&daemon, "infra-1", "");
    let planned = run(&world, &daemon, "roll-out", &["--var", "machines=2"], "awaiting_approval");
    assert_eq!((planned["summary"]["add"].as_u64(), machines(&world)), (Some(2), 0), "{planned}");
    assert!(log(&world, &daemon, &planned).contains("2 to add, 0 to change"), "the plan is there to be read");
    let applied = decide(&world, &daemon, "approve", &planned, "succeeded");
    assert_eq!((applied["summary"]["applied"].as_bool(), machines(&world)), (Some(true), 2), "{applied}");
    assert_eq!(applied["summary"]["outputs"]["machines"], json!(["machine-1", "machine-2"]), "{applied}");
    assert_eq!(applied["commit"], planned["commit"], "the same commit");

    // Two plans for one state: the one that is approved second is out of date, and changes nothing.
    let stale = run(&world, &daemon, "roll-out", &["--var", "machines=3"], "awaiting_approval");
    let down = run(&world, &daemon, "tear-down", &[], "awaiting_approval");
    decide(&world, &daemon, "approve", &down, "succeeded");
    assert_eq!(machines(&world), 0);
    let failed = decide(&world, &daemon, "approve", &stale, "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("the plan is out of date")), "{failed}");
    assert_eq!(machines(&world), 0);
}

#[test]
fn an_inventory_that_is_a_workspace_says_where_a_template_works() {
    let world = World::new();
    world.write("plugins/terraform.toml", "source = \"builtin:terraform\"\n[allow]\nprograms = [\"terraform\"]\n");
    world.write("projects/shop/repositories/app.toml", "url = \"https://git.example.com/shop.git\"\n");
    world.write("projects/shop/inventories/blue.toml", "type = \"terraform-workspace\"\ncontent = \"blue-1\"\n");
    let template = |more: &str| {
        world.write(
            "projects/shop/templates/plan.toml",
            &format!(
                "executor = \"terraform\"\nrepository = \"app\"\ninventory = \"blue\"\n[params]\ncommand = \"plan\"\n{more}"
            ),
        );
        world.run(&["config", "check", "tree"])
    };
    template("").expect_code(0);
    copy(&world.path("tree"), &world.path("before"));
    world.write("projects/shop/inventories/blue.toml", "type = \"terraform-workspace\"\ncontent = \"blue-2\"\n");
    let changed = world.run(&["config", "diff", "before", "tree"]).expect_code(3).text();
    assert!(changed.contains("params.workspace") && changed.contains("blue-2"), "{changed}");
    let both = template("workspace = \"green\"\n").expect_code(1).stderr;
    assert!(both.contains("the inventory `blue` names the workspace, and [params] names one, too"), "{both}");
    world.write(
        "projects/shop/templates/plan.toml",
        "executor = \"shell\"\ninventory = \"blue\"\n[params]\nscript = \"true\"\n",
    );
    let none = world.run(&["config", "check", "tree"]).expect_code(1).stderr;
    assert!(none.contains("projects/shop/templates/plan.toml:2:13") && none.contains("takes none"), "{none}");
}
