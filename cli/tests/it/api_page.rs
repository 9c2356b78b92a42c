//! `docs/reference/api.md`, as written: its blocks are read from the page and run in order by one shell, against a daemon and a runner.
//!
//! A block's mark says what comes of it: `once` is what the reader types first, `run` ends well, and `listen` goes on until something was
//! heard. Only what is the reader's own is replaced: the address, the token and the CA's certificate.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Daemon, Finished, Process, World, need, utf8, wait_for};

/// What begins a block.
const MARK: &str = "<!-- api: ";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/api.md");
    std::fs::read_to_string(path).expect("the page")
}

/// The page's blocks in order: what is to come of each, and its script.
fn blocks(page: &str) -> Vec<(String, String)> {
    let marked = page.split(MARK).skip(1).map(|rest| {
        let (what, rest) = rest.split_once(" -->\n```sh\n").expect("a mark stands right above its block");
        let (script, _) = rest.split_once("\n```").expect("a block has an end");
        (what.to_owned(), script.to_owned())
    });
    marked.collect()
}

/// The reader's shell, which has typed `before` by now.
fn shell(world: &World, daemon: &Daemon, before: &str, script: &str) -> Command {
    let mut typed = format!("{before}\n{script}");
    for (written, here) in [
        ("https://forge.example.com:8443", &*daemon.api),
        ("forge_access_...", world.admin_token()),
        ("FORGE_CA_FILE=ca.pem", &format!("FORGE_CA_FILE={}", utf8(&daemon.ca_file))),
    ] {
        typed = typed.replace(written, here);
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-e", "-c", &typed])
        .current_dir(world.path(""))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
        .env("HOME", world.path(""))
        .env("LANG", "C.UTF-8");
    shell
}

#[test]
fn the_page_s_requests_are_answered_as_it_says() {
    need("curl", "curl");
    let world = World::new();
    world.write("projects/demo/project.toml", "");
    world.write(
        "projects/demo/templates/hello.toml",
        "executor = \"shell\"\n[params]\nscript = \"echo hello $FORGE_VAR_NAME; echo 'error: no timeout'\"\n\
         [survey.name]\ntype = \"string\"\ndefault = \"world\"\n",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let page = page();
    let blocks = blocks(&page);
    assert_eq!(page.matches("```sh\n").count(), blocks.len(), "every block of commands is run");
    let (mut once, mut said, mut listening) = (String::new(), Vec::new(), None);
    for (what, script) in &blocks {
        match what.as_str() {
            "once" => once.push_str(script),
            "run" => said.push(Finished::of(shell(&world, &daemon, &once, script), b"").expect_code(0).text()),
            "listen" => {
                listening =
                    Some(Process::start(shell(&world, &daemon, &once, script), &world.path("out"), "listening"));
                let heard = || std::fs::read_to_string(world.path("out/listening.stdout")).unwrap_or_default();
                wait_for("it listens", || heard().contains("id: ").then_some(()));
                world.ask(&daemon, &["run", "demo/hello"]).expect_code(0);
                wait_for("it hears of the task", || heard().contains("event: task\n").then_some(()));
            }
            other => panic!("{MARK}{other} --> is no mark that this test knows"),
        }
    }
    let [missing, created, failed, logs, lines] = said.as_slice() else { panic!("five blocks are run: {said:#?}") };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (_, shown) = page.split_once("```json\n").expect("an error is shown");
    let (shown, _) = shown.split_once("```").expect("it has an end");
    assert_eq!(json(missing), json(shown), "the error is the one that is shown");
    assert_eq!((&json(created)["number"], &json(created)["variables"]["name"]), (&Value::from(1), &Value::from("Ada")));
    assert_eq!(json(failed), serde_json::json!({"items": [], "next_cursor": null}));
    assert_eq!(logs.matches("hello Ada\n").count(), 2, "followed, and in part: {logs}");
    assert_eq!(daemon.stop().code(), Some(0));
    listening.expect("one block listens").wait("the stream ends with the daemon");
    for expected in ["\"text\":\"hello Ada\"", "no timeout"] {
        assert!(lines.contains(expected), "{expected} is missing: {lines}");
    }
}
