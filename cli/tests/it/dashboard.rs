//! The dashboard in a real browser: Debian's Chromium, driven by Playwright from `cli/tests/browser`, against the real daemon and runner.
//!
//! Each story there fails on a dialog, an error in the console, a break of the content policy, and a request to anyone else. With
//! `FORGE_SCREENSHOTS=docs/images` the story of all pages writes its pictures there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::approval;
use crate::git::git;
use crate::gitops;
use crate::harness::{Daemon, Finished, Process, Receiver, World, made_by, need, repository, wait_for};

/// The pages of which the repository keeps pictures, beside the one for signing in.
fn check_pictures(pages: &Value) {
    let names = pages.as_array().expect("pages").iter().map(|page| page[0].as_str().expect("a name"));
    let expected: BTreeSet<String> = names
        .chain(["sign-in"])
        .flat_map(|name| ["light", "dark"].map(|scheme| format!("{name}-{scheme}.png")))
        .collect();
    let kept = std::fs::read_dir(repository().join("docs/images")).expect("the folder of pictures");
    let kept: BTreeSet<String> = kept
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| !name.ends_with("-phone.png"))
        .collect();
    assert_eq!(kept, expected, "make them anew with FORGE_SCREENSHOTS=docs/images");
}

/// What would like to be markup.
const HOSTILE: &str = "\"><img src=x onerror=alert(1)><script>alert(2)</script>";

/// Prints 1,200 lines of 9 KB each.
const WIDE: &str = "awk 'BEGIN { for (more = \"x\"; length(more) < 9000;) more = more more; \
                    for (i = 1; i <= 1200; i++) print \"line \" i \" is long \" substr(more, 1, 9000) }'";

/// Runs a story of `cli/tests/browser` as the world's admin; `more` is what else it is told.
fn browse(world: &World, daemon: &Daemon, story: &str, more: &Value) {
    need("node", "nodejs");
    need("npm", "npm");
    need("chromium", "chromium");
    let mut told = json!({
        "url": daemon.api,
        "token": world.admin_token(),
        "tree": world.path("tree"),
        "packages": made_by("browser"),
        "browser": "/usr/bin/chromium",
        "screenshots": std::env::var_os("FORGE_SCREENSHOTS").map(|folder| repository().join(folder)),
    });
    let fields = told.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let mut command = Command::new("node");
    command
        .arg(repository().join(format!("cli/tests/browser/{story}.mjs")))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
        .env("HOME", world.path("."))
        .env("FORGE_STORY", told.to_string());
    let finished = Finished::of(command, b"");
    assert!(finished.status.success(), "{story}:\n{}\n{}", finished.text(), finished.stderr);
}

/// A world with a shop whose templates ask, colour their logs, wait, plan and fail.
fn shop() -> World {
    let world = approval::world("description = \"Plan a change, and do it once somebody has said so\"");
    world.write("projects/shop/project.toml", "description = \"The shop and what it runs on\"\nwebhooks = [\"ops\"]\n");
    let gate = world.path("gate");
    world.write(
        "projects/shop/templates/deploy.toml",
        &format!(
            r#"executor = "shell"
description = "Roll the shop out to its hosts"
[params]
script = '''
printf '\033[1;34m==>\033[0m deploying %s to %s hosts\n' "$FORGE_VAR_VERSION" "$FORGE_VAR_HOSTS"
echo "the registry's password is $FORGE_VAR_PASSWORD"
until [ -e {gate} ]; do sleep 0.1; done
for host in $(seq -w 1 40); do printf '\033[32mok\033[0m: [web-%s] \033[2mpackage shop is at %s\033[0m\n' "$host" "$FORGE_VAR_VERSION"; done
printf '\033[33mwarning:\033[0m the disk of web-07 is 91%% full, and the second one is not\n'
'''
[survey.version]
type = "string"
description = "Which release"
required = true
pattern = "^v[0-9]+$"
[survey.hosts]
type = "integer"
min = 1
max = 50
default = 12
[survey.strategy]
type = "choice"
choices = ["rolling", "all at once"]
default = "rolling"
[survey.password]
type = "secret"
description = "Of the registry"
"#,
            gate = gate.display()
        ),
    );
    world.template("endless", "description = \"Watch the queue\"", "while true; do echo working; sleep 0.2; done");
    world.template(
        "check",
        "description = \"Look whether all is well\"\nconcurrency = \"parallel\"",
        "echo looking; sleep 0.$((FORGE_TASK % 4)); [ $((FORGE_TASK % 5)) -ne 0 ]",
    );
    world.template("elsewhere", "description = \"Needs a runner in London\"\nrunner_tag = \"london\"", "true");
    world.write("runners/lon-1.toml", "tags = [\"london\"]\nmax_parallel_tasks = 4\n");
    world.write("runners/ny-1.toml", "max_parallel_tasks = 4\n");
    world.write(
        "projects/shop/schedules/nightly.toml",
        "cron = \"15 2 * * *\"\ntimezone = \"Europe/Berlin\"\ntemplate = \"check\"\n",
    );
    world.write("projects/shop/integrations/inbound.toml", "template = \"check\"\nauth = \"none\"\n");
    world
}

/// What the walk runs beside: a form of several lines, a log that goes on when it is told to, a task that succeeds at its second try.
fn more(world: &World) {
    let gate = world.path("gate");
    // Whoever reads one waits until the walk has opened it.
    for end in ["second", "third"] {
        let made = Command::new("mkfifo").arg(format!("{}.{end}", gate.display())).status();
        assert!(made.expect("mkfifo runs").success());
    }
    world.write(
        "projects/shop/templates/certificate.toml",
        r#"executor = "shell"
[params]
script = '''
for name in KEY PIN MOTD NOTE; do
  variable=FORGE_VAR_$name
  printf '%s %s %s\n' "${name,,}" "$(printf %s "${!variable}" | wc -l)" "$(printf %s "${!variable}" | wc -c)"
done
'''
[survey.key]
type = "secret"
[survey.pin]
type = "secret"
[survey.note]
type = "string"
[survey.motd]
type = "string"
default = "welcome\nto the shop\n"
"#,
    );
    world.template(
        "uneasy",
        "",
        &format!("echo 'error: the first'; cat {}.second; seq 80; echo 'error: the second'; seq 80", gate.display()),
    );
    world.template(
        "flaky",
        "retry = { attempts = 1, delay = \"1s\" }",
        &format!(
            "if mkdir {gate}.once; then echo first try; cat {gate}.third; exit 1; fi; echo second try",
            gate = gate.display()
        ),
    );
}

/// Runs the commands that the page shows for adding a runner, as somebody would who read them.
fn add_a_runner(world: &World, daemon: &Daemon, commands: &Value) -> Process {
    let folder = Path::new(env!("CARGO_BIN_EXE_forge")).parent().expect("a folder").to_owned();
    let known = std::env::var_os("PATH").expect("PATH is set");
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&known))).expect("a PATH");
    let machine = world.path("machine");
    std::fs::create_dir_all(&machine).expect("a folder");
    let shell = |id: &str| {
        let line = commands[id].as_str().expect("a command").replace("NAME", "east-1");
        // The shell becomes the runner, which then ends with this story.
        let line = if id == "add-start" { format!("exec {line}") } else { line };
        let mut command = Command::new("sh");
        command.arg("-c").arg(line.replace("/var/lib/forge-runner", "spool")).current_dir(&machine);
        command.env_clear().env("PATH", &path).env("HOME", &machine);
        command
    };
    let made = Finished::of(shell("add-token"), b"").expect_code(0).text();
    let after = |key: &str| {
        let found = made.lines().find_map(|line| line.strip_prefix(key));
        found.unwrap_or_else(|| panic!("{key} is printed: {made}")).trim().to_owned()
    };
    let token = format!("hash = \"{}\"\ntags = [\"east\"]\n", after("hash:"));
    world.write("registration-tokens/east.toml", &token);
    world.ask(daemon, &["config", "apply"]).expect_code(0);
    std::fs::write(machine.join("registration-token"), format!("{}\n", after("token:"))).expect("written");
    Finished::of(shell("add-setup"), b"").expect_code(0);
    Process::start(shell("add-start"), &world.path("out"), "east-1")
}

/// Declares the target that the shop's project tells.
fn tell(world: &World, receiver: &Receiver) {
    world.write(
        "plugins/http.toml",
        &format!("source = \"builtin:http\"\n[allow]\nhosts = [\"http://{}\"]\n", receiver.address),
    );
    world.write(
        "webhooks/ops.toml",
        &format!(
            "plugin = \"http\"\nevents = [\"task.finished\", \"runner.offline\"]\n[config]\nurl = \"{}\"\nsign = \"none\"\n",
            receiver.url()
        ),
    );
}

/// Starts a task of the shop with these further arguments and answers its number.
fn start(world: &World, daemon: &Daemon, template: &str, more: &[&str]) -> u64 {
    let template = format!("shop/{template}");
    let arguments = [&["run", &template, "--detach", "--output", "json"], more].concat();
    world.ask(daemon, &arguments).expect_code(0).json()["number"].as_u64().expect("a number")
}

#[test]
fn an_operator_s_day_goes_through_the_browser() {
    let world = shop();
    more(&world);
    let receiver = Receiver::good();
    tell(&world, &receiver);
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    // One that registered and never came.
    world.register(&world.runner_settings(&daemon, "spare", "")).expect_code(0);
    let commands = world.path("commands.json");
    let told = json!({ "gate": world.path("gate"), "script": approval::SCRIPT, "commands": commands });
    browse(&world, &daemon, "walk", &told);
    let commands = serde_json::from_slice(&std::fs::read(commands).expect("they were copied")).expect("JSON");
    let _east = add_a_runner(&world, &daemon, &commands);
    let runner = world.wait_runner(&daemon, "east-1", "online");
    assert_eq!(runner["tags"], json!(["east"]), "{runner}");
}

/// Complaint 25 (big logs freeze the page): of a million lines only those in sight are elements, whichever they are.
#[test]
fn a_log_of_a_million_lines_is_scrolled_and_searched() {
    let world = World::new();
    let script = "awk 'BEGIN { print \"begin\"; for (i = 1; i <= 1000000; i++) { \
                  if (i == 900000) print \"fatal: [web-09]: UNREACHABLE!\"; print \"line \" i \" of the big log\" } }'";
    world.template("big", "", script);
    world.template("wide", "", WIDE);
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "big");
    let wide = world.start_task(&daemon, "wide");
    world.wait_state(&daemon, number, "succeeded");
    world.wait_state(&daemon, wide, "succeeded");
    browse(&world, &daemon, "biglog", &json!({ "task": number, "wide": wide }));
}

#[test]
fn without_a_script_one_signs_in_reads_a_log_and_runs_a_form() {
    let world = World::new();
    world.write(
        "projects/shop/templates/many.toml",
        "executor = \"shell\"\n[params]\nscript = 'for i in $(seq $FORGE_VAR_LINES); do echo \"line $i of many\"; done'\n\
         [survey.lines]\ntype = \"integer\"\ndefault = 1200\n\
         [survey.release]\ntype = \"string\"\npattern = 'v[0-9]'\ndefault = \"v1\"\n",
    );
    world.template("wide", "", WIDE);
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "many");
    let wide = world.start_task(&daemon, "wide");
    world.wait_state(&daemon, number, "succeeded");
    world.wait_state(&daemon, wide, "succeeded");
    browse(&world, &daemon, "noscript", &json!({ "task": number, "wide": wide }));
}

#[test]
fn hostile_text_from_everywhere_is_shown_as_text() {
    let world = approval::world("");
    let text = |text: &str| format!("'''{text}'''");
    world.write("projects/shop/project.toml", &format!("description = {}\n", text(HOSTILE)));
    world.write(
        "projects/shop/templates/hostile.toml",
        &format!(
            "executor = \"shell\"\ndescription = {hostile}\n[params]\nscript = '''\n\
             printf '<img src=x onerror=alert(1)>\\n'\n\
             printf '\\033]8;;javascript:alert(1)\\033\\\\click here\\033]8;;\\033\\\\\\n'\n\
             printf '\\033[31m<b onclick=alert(3)>red</b>\\033[0m\\n\\033[2J\\033[1;1H\\007\\010after\\n'\n\
             printf '\\033]0;a title\\007</span><script>alert(3)</script>\\n\\033[38;5;208;48;2;1;2;3morange\\n'\n\
             printf '\\033[0;7;38;5;208mturned\\033[0m\\n'\nprintf 'fatal: \\xff\\xfe is no text\\n'\n'''\n\
             [survey.word]\ntype = \"string\"\ndescription = {hostile}\ndefault = {hostile}\n\
             [survey.pick]\ntype = \"choice\"\nchoices = [{hostile}, \"b\"]\ndefault = {hostile}\n\
             [survey.count]\ntype = \"integer\"\nmax = 5\ndefault = 1\n",
            hostile = text(HOSTILE)
        ),
    );
    world.write("projects/shop/integrations/inbound.toml", "template = \"hostile\"\nauth = \"none\"\n");
    gitops::repository(&world, "");
    let tree = world.path("tree");
    git(&tree, &["config", "user.name", "\" onmouseover=alert(1) x=\""]);
    git(&tree, &["config", "user.email", "ada@example.com"]);
    git(&tree, &["commit", "--quiet", "--allow-empty", "-m", HOSTILE]);
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = start(&world, &daemon, "hostile", &["--var", &format!("word={HOSTILE}")]);
    world.wait_state(&daemon, number, "succeeded");
    let planned = start(&world, &daemon, "greet", &["--arg=bash", "--arg=-c", "--arg", approval::SCRIPT]);
    world.wait_state(&daemon, planned, "awaiting_approval");
    world.ask(&daemon, &["task", "reject", &planned.to_string(), "--reason", HOSTILE]).expect_code(0);
    // A mistake shows the line that it is in.
    world.write("projects/shop/templates/wrong.toml", &format!("executor = {}\n", text(HOSTILE)));
    gitops::commit(&tree, HOSTILE);
    gitops::apply(&world, &daemon, &[]).expect_code(1);
    let paths = [
        "/",
        "/tasks",
        &format!("/tasks/{number}"),
        &format!("/tasks/{planned}"),
        "/templates",
        "/projects/shop/templates/hostile",
        "/runners",
        "/schedules",
        "/integrations",
        "/projects/shop/integrations/inbound",
        "/config",
        "/webhooks",
        "/plugins",
        "/audit",
    ];
    let logged = [
        "<img src=x onerror=alert(1)>",
        "click here",
        "<b onclick=alert(3)>red</b>",
        "</span><script>alert(3)</script>",
    ];
    browse(&world, &daemon, "hostile", &json!({ "paths": paths, "task": number, "logged": logged, "word": HOSTILE }));
}

#[test]
fn every_page_is_accessible_in_both_themes_and_fits_a_phone() {
    let world = shop();
    let receiver = Receiver::good();
    tell(&world, &receiver);
    std::fs::write(world.path("gate"), "").expect("the gate is open");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let deployed = start(&world, &daemon, "deploy", &["--var", "version=v12", "--var", "password=hunter2"]);
    let checks: Vec<u64> = (0..24).map(|_| start(&world, &daemon, "check", &[])).collect();
    start(&world, &daemon, "elsewhere", &[]);
    let running = start(&world, &daemon, "endless", &[]);
    let planned = start(&world, &daemon, "greet", &["--arg=bash", "--arg=-c", "--arg", approval::SCRIPT]);
    world.wait_state(&daemon, deployed, "succeeded");
    world.wait_state(&daemon, running, "running");
    world.wait_state(&daemon, planned, "awaiting_approval");
    wait_for("every check ended", || {
        let ended = |number: &u64| world.task(&daemon, *number)["finished_at"].is_string();
        checks.iter().all(ended).then_some(())
    });
    wait_for("a delivery arrived", || (!receiver.received().is_empty()).then_some(()));
    let delivery =
        world.ask(&daemon, &["webhook", "list", "--target", "ops", "--output", "json"]).expect_code(0).json();
    let delivery = delivery["items"][0]["id"].as_str().expect("an id").to_owned();
    let pages = json!([
        ["overview", "/"],
        ["tasks", "/tasks"],
        ["task", format!("/tasks/{deployed}")],
        ["task-running", format!("/tasks/{running}")],
        ["approval", format!("/tasks/{planned}")],
        ["templates", "/templates"],
        ["run", "/projects/shop/templates/deploy"],
        ["template", "/projects/shop/templates/check"],
        ["runners", "/runners"],
        ["schedules", "/schedules"],
        ["integrations", "/integrations"],
        ["integration", "/projects/shop/integrations/inbound"],
        ["diagnostics", "/config/codes"],
        ["webhooks", "/webhooks"],
        ["delivery", format!("/webhooks/deliveries/{delivery}")],
        ["plugins", "/plugins"],
        ["audit", "/audit"],
        ["not-found", "/nothing-is-here"],
        ["applied", "/config"],
        ["configuration", "/config"],
    ]);
    browse(&world, &daemon, "pages", &json!({ "pages": pages }));
    check_pictures(&pages);
}
