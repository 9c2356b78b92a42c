//! The API's contract, asked by schemathesis: whatever `openapi.json` allows and forbids is sent to a real daemon, by each kind of token
//! that there is, and every answer has to be one that the document tells of.
//!
//! `FORGE_CONTRACT_SEED` has it ask other things, and `FORGE_CONTRACT_EXAMPLES` more of them; what it prints says its seed.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::approval;
use crate::harness::{Daemon, Finished, World, made_by, need, repository, utf8};
use crate::wire::{ByHand, sample, with};

/// What each answer is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
     response_schema_conformance,negative_data_rejection";

/// What is not asked: an answer to it has no end.
const ENDLESS: &str = "listen";

/// What ends the registration of whoever asks it: asked last.
const LAST: &str = "unregisterRunner";

/// What is asked for objects that are there alone: who names others guesses, which is answered 429 after a while, or hits by chance what
/// later runs need.
const NAMED: [&str; 2] = ["callIntegration", "removeRunner"];

fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A shop with one object of each kind, and runners of which each is there for one purpose.
fn world() -> World {
    let world = approval::world("concurrency = \"parallel\"");
    // Nothing that is asked too often may hide behind a 429.
    world.daemon_settings("[limits]\nrequests_per_second = 0\n");
    world.write("plugins/http.toml", "source = \"builtin:http\"\n[allow]\nhosts = [\"http://127.0.0.1:9\"]\n");
    world.write(
        "webhooks/ops.toml",
        "plugin = \"http\"\nevents = [\"task.queued\", \"task.finished\"]\n[config]\nurl = \"http://127.0.0.1:9/\"\n",
    );
    world.template(
        "hello",
        "concurrency = \"parallel\"\nallow_arguments = true\n[survey.name]\ntype = \"string\"\ndefault = \"Ada\"",
        "echo \"hello $FORGE_VAR_NAME\"",
    );
    world.template("held", "runner_tag = \"held\"", "true");
    world.write("projects/shop/schedules/nightly.toml", "cron = \"0 3 * * *\"\ntemplate = \"hello\"\n");
    world.write("projects/shop/integrations/push.toml", "template = \"hello\"\nauth = \"none\"\n");
    world.write("runners/holder.toml", "tags = [\"held\"]\n");
    world.write("runners/spare.toml", "tags = [\"spare\"]\n");
    world.write("runners/asking.toml", "tags = [\"asking\"]\n");
    world
}

/// A runner that is registered and has no process.
fn by_hand(world: &World, daemon: &Daemon, name: &str) -> ByHand {
    let mut runner = ByHand::new(daemon);
    runner.register(world, with(sample(env!("CARGO_PKG_VERSION"), "register-request"), json!({ "name": name })));
    runner
}

/// The operations that a kind of token is for; an operation that anybody may ask is an admin's to ask here.
fn operations(document: &Value, scheme: &str) -> Vec<String> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.values().filter_map(Value::as_object).flat_map(serde_json::Map::values);
    let of_scheme = operations.filter(|operation| {
        let first = &operation["security"][0];
        if first.is_null() { scheme == "access" } else { first.get(scheme).is_some() }
    });
    of_scheme.map(|operation| operation["operationId"].as_str().expect("a name").to_owned()).collect()
}

/// One run of schemathesis.
struct Asking<'a> {
    /// For the folder of its files, and for whoever reads what it prints.
    what: &'a str,
    token: &'a str,
    operations: Vec<String>,
    /// Values of parameters, each where it belongs: the start of a path, its parameter, its value. Others are made up.
    parameters: &'a [(&'a str, &'a str, Value)],
    /// How many examples of each operation, at most, beside those that cover its schema.
    examples: u32,
}

impl Asking<'_> {
    /// Asks all of it, and answers how many requests there were.
    fn ask(self, world: &World, daemon: &Daemon, program: &Path) -> u64 {
        let folder = world.path(&format!("contract-{}", self.what));
        std::fs::create_dir_all(&folder).expect("a folder");
        let hooks = repository().join("cli/tests/it/contract.py").canonicalize().expect("the hooks");
        let mut settings = format!("hooks = {hooks:?}\n");
        for (path, parameter, value) in self.parameters {
            settings.extend(["[[operations]]\ninclude-path-regex = ", &format!("{path:?}\n")]);
            settings.extend(["parameters = ", &format!("{{ {parameter} = {value} }}\n")]);
        }
        std::fs::write(folder.join("schemathesis.toml"), settings).expect("written");
        let seed = number("FORGE_CONTRACT_SEED", 20_261_128);
        let mut command = Command::new(program);
        command
            .current_dir(&folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
            .env("HOME", &folder)
            .env("LANG", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args(["run", &format!("{}/api/v1/openapi.json", daemon.api), "--tls-verify", utf8(&daemon.ca_file)])
            .args(["--header", &format!("Authorization: Bearer {}", self.token)])
            .args(["--phases", "coverage,fuzzing", "--checks", CHECKS, "--continue-on-failure", "--no-color"])
            .args(["--seed", &seed.to_string(), "--max-examples", &self.examples.to_string()])
            .args(["--generation-database", "none", "--output-sanitize", "false", "--request-timeout", "20"])
            // A connection whose request was refused unread is closed: the next one begins anew.
            .args(["--request-retries", "2"]);
        for operation in &self.operations {
            command.args(["--include-operation-id", operation]);
        }
        let finished = Finished::of(command, b"");
        let said = finished.text();
        assert!(finished.status.success(), "{} with seed {seed}:\n{said}\n{}", self.what, finished.stderr);
        let tested = format!("Tested: {}", self.operations.len());
        assert!(said.contains(&tested), "{tested}:\n{said}");
        // Whoever has left has no token any more, and is soon not heard.
        let has_left = self.operations.iter().any(|operation| operation == LAST);
        assert!(has_left || !said.contains("Rate limited"), "{said}");
        let requests = said.lines().find_map(|line| line.trim().split_once(" generated, ")?.0.parse().ok());
        let requests = requests.unwrap_or_else(|| panic!("no number of requests:\n{said}"));
        // A test that passes says it to who asks for it.
        let what = self.what;
        let told = writeln!(
            std::io::stderr(),
            "schemathesis as {what}, seed {seed}: {requests} requests, all as the contract says"
        );
        told.expect("there is a stderr");
        requests
    }
}

#[test]
fn whatever_is_asked_is_answered_as_the_contract_says() {
    need("python3", "python3");
    let program = made_by("schemathesis").join("schemathesis");
    let world = world();
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.start_task(&daemon, "hello");
    world.wait_state(&daemon, done, "succeeded");
    let planned = approval::start(&world, &daemon);
    world.wait_state(&daemon, planned, "awaiting_approval");
    let _spare = by_hand(&world, &daemon, "spare");
    let asking = by_hand(&world, &daemon, "asking");
    let holder = by_hand(&world, &daemon, "holder");
    world.start_task(&daemon, "held");
    let claim = json!({"held": [], "refused": [], "wait_ms": 20_000});
    let claim = with(sample(env!("CARGO_PKG_VERSION"), "claim-request"), claim);
    let claimed = holder.done("POST", "/runner/claim", &holder.token, &claim);
    let job: Value = serde_json::from_slice(&holder.unseal(&claimed["jobs"][0]["sealed"])).expect("a job");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (attempt, attempt_token, sha256) = (text(&job["attempt"]), text(&job["token"]), text(&job["plugin"]["sha256"]));
    let delivery = holder.done("POST", "/webhooks/ops/test", world.admin_token(), &json!({}));
    let delivery = text(&delivery["id"]);
    let document = holder.done("GET", "/openapi.json", "", &Value::Null);

    let mut left: Vec<String> = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .flat_map(|path| path.as_object().expect("operations").values())
        .map(|operation| text(&operation["operationId"]))
        .filter(|operation| operation != ENDLESS)
        .collect();
    let of = |scheme: &str| -> Vec<String> {
        operations(&document, scheme).into_iter().filter(|id| id != ENDLESS && id != LAST).collect()
    };
    let objects = [
        ("/projects/", "project", json!("shop")),
        ("^/hooks/.project", "project", json!("shop")),
        ("/templates/", "template", json!("hello")),
        ("/integrations/", "integration", json!("push")),
        ("^/hooks/.project", "integration", json!("push")),
        ("/tasks/.number./(approve|reject)", "number", json!(planned)),
        ("/tasks/.number.($|/(attempts|log|why|cancel|retry))", "number", json!(done)),
        ("/runners/", "name", json!("spare")),
        ("/webhooks/.name", "name", json!("ops")),
        ("/webhooks/deliveries/", "id", json!(delivery)),
        ("/attempts/", "id", json!(attempt)),
        ("/plugins/", "sha256", json!(sha256)),
    ];
    let examples = number("FORGE_CONTRACT_EXAMPLES", 10);
    let asked = [
        // First of all: an attempt that is not begun within a minute of being given away is taken back.
        ("attempt", &*attempt_token, of("attempt"), &objects[..]),
        ("admin", world.admin_token(), of("access"), &objects[..]),
        // Whose paths name whatever they like.
        ("stranger", world.admin_token(), of("access").into_iter().filter(|id| !NAMED.contains(&&**id)).collect(), &[]),
        ("runner", &*asking.token, of("runner"), &objects[..]),
        ("newcomer", world.registration_token(), of("registration"), &[]),
        ("leaver", &*asking.token, vec![LAST.to_owned()], &[]),
    ];
    let mut requests = 0;
    for (what, token, operations, parameters) in asked {
        left.retain(|operation| !operations.contains(operation));
        requests += Asking { what, token, operations, parameters, examples }.ask(&world, &daemon, &program);
    }
    assert!(left.is_empty(), "nobody asks {left:?}");
    assert!(requests > 1_000, "{requests}");
    let said = daemon.process.stderr();
    assert!(!said.contains("bug in Forge") && !said.contains("failed inside the daemon"), "{said}");
    assert_eq!(world.task(&daemon, done)["project"], "shop", "it serves on");
}
