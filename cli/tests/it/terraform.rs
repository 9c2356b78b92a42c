//! Terraform through daemon and runner, with the real program: a secret variable reaches it, and nobody else; a cancel ends it as
//! it wants to be ended. Where there is no terraform these stories say so, and pass.

use std::io::{Read as _, Write as _};
use std::process::Command;

use serde_json::json;

use crate::git::git;
use crate::harness::{Daemon, Runner, World};

const TOKEN: &str = "the-token-of-the-shop";

/// Of [`TOKEN`], in SHA-256.
const DIGEST: &str = "d7522091798d23db6a1f1db975d465401994869814700b286112474d555284e5";

/// Its outputs prove that the token came, and try to give it away.
const MODULE: &str = r#"
terraform {
  backend "local" {}
}
variable "release" { type = string }
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "release" { input = var.release }
output "digest" { value = nonsensitive(sha256(var.token)) }
output "leak" { value = "it is ${nonsensitive(var.token)}" }
output "token" {
  value     = var.token
  sensitive = true
}
"#;

/// Whether there is no terraform here, which is said past the capture of a test's output.
pub(crate) fn is_missing() -> bool {
    let version = Command::new("terraform").arg("version").output();
    if version.is_ok_and(|output| output.status.success()) {
        return false;
    }
    drop(std::io::stderr().write_all(b"\nNOT TESTED: there is no terraform on PATH\n"));
    true
}

/// A daemon, a runner, and the template `shop/roll-out` that applies a module; its state outlives the task.
struct Shop {
    world: World,
    daemon: Daemon,
    _runner: Runner,
}

impl Shop {
    /// None on a machine without terraform. `survey` stands at the end of the template.
    fn start(module: impl FnOnce(&World) -> String, survey: &str) -> Option<Self> {
        if is_missing() {
            return None;
        }
        let world = World::new();
        world.write("plugins/terraform.toml", "source = \"builtin:terraform\"\n[allow]\nprograms = [\"terraform\"]\n");
        let origin = world.path("origin");
        std::fs::create_dir_all(origin.join("live")).expect("a folder");
        std::fs::write(origin.join("live/main.tf"), module(&world)).expect("a file");
        git(&origin, &["init", "--quiet", "--initial-branch=main"]);
        git(&origin, &["add", "--all"]);
        git(&origin, &["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "Shop"]);
        let token = world.path("token");
        std::fs::write(&token, TOKEN).expect("a file");
        world.write(
            "projects/shop/repositories/app.toml",
            &format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display()),
        );
        world.write(
            "projects/shop/environments/production.toml",
            &format!("[secrets]\ntoken = {{ file = {token:?}, as = \"var\" }}\n"),
        );
        world.write(
            "projects/shop/templates/roll-out.toml",
            &format!(
                "executor = \"terraform\"\nrepository = \"app\"\nenvironment = \"production\"\n\
                 [params]\ncommand = \"apply\"\nworking_dir = \"live\"\ncolor = false\nbackend_config = {{ path = {:?} }}\n\
                 {survey}\n",
                world.path("state/shop.tfstate")
            ),
        );
        world.daemon_settings(&format!("[secrets.allow.shop]\nfiles = [{token:?}]\n"));
        let daemon = world.daemon();
        let runner = world.runner(&daemon, "ny-1", "");
        Some(Self { world, daemon, _runner: runner })
    }

    fn state(&self) -> String {
        std::fs::read_to_string(self.world.path("state/shop.tfstate")).expect("the state stays")
    }
}

#[test]
fn a_secret_variable_reaches_terraform_and_neither_log_nor_summary() {
    let Some(shop) = Shop::start(|_| MODULE.to_owned(), "[survey.release]\ntype = \"string\"\nrequired = true") else {
        return;
    };
    let arguments = ["run", "shop/roll-out", "--var", "release=v7 ${x}", "--output", "json"];
    let done = shop.world.ask(&shop.daemon, &arguments).expect_code(0);
    let (task, log) = (done.json(), &done.stderr);
    assert_eq!(task["state"], "succeeded", "{log}");
    let expected = json!({
        "add": 1, "change": 0, "destroy": 0, "applied": true,
        "outputs": { "digest": DIGEST, "leak": "it is [masked]" },
        "sensitive_outputs": ["token"],
        "text": "1 added, 0 changed, 0 destroyed"
    });
    assert_eq!(task["summary"], expected, "{log}");
    assert!(log.contains("v7 ${x}") && log.contains("it is [masked]"), "{log}");
    assert!(!log.contains(TOKEN) && !task.to_string().contains(TOKEN), "{log}");
    assert!(shop.state().contains(TOKEN), "a state holds what it was given");
}

/// Complaint of everyone who canceled an apply elsewhere: the state forgot what was made, and stayed locked.
#[test]
fn a_canceled_apply_saves_its_state_and_lets_go_of_its_lock() {
    let module = |world: &World| {
        for name in ["started", "go-on"] {
            assert!(Command::new("mkfifo").arg(world.path(name)).status().expect("mkfifo runs").success());
        }
        format!(
            "terraform {{\n  backend \"local\" {{}}\n}}\n\
             variable \"hold\" {{ type = bool }}\nvariable \"token\" {{ type = string }}\n\
             resource \"terraform_data\" \"first\" {{ input = 1 }}\n\
             resource \"terraform_data\" \"held\" {{\n  count = var.hold ? 1 : 0\n  depends_on = [terraform_data.first]\n  \
             provisioner \"local-exec\" {{\n    command = \"echo > {}; cat {}\"\n  }}\n}}\n",
            world.path("started").display(),
            world.path("go-on").display()
        )
    };
    let Some(shop) = Shop::start(module, "[survey.hold]\ntype = \"boolean\"\nrequired = true") else { return };
    let Shop { world, daemon, .. } = &shop;
    let created = ["run", "shop/roll-out", "--var", "hold=true", "--detach", "--output", "json"];
    let number = world.ask(daemon, &created).expect_code(0).json()["number"].as_u64().expect("a number");
    let mut line = Vec::new();
    let started = std::fs::File::open(world.path("started")).and_then(|mut file| file.read_to_end(&mut line));
    started.expect("it works on the second resource");
    world.ask(daemon, &["task", "cancel", &number.to_string()]).expect_code(0);
    world.wait_state(daemon, number, "canceled");
    let log = String::from_utf8_lossy(&world.log(daemon, number)).into_owned();
    assert!(shop.state().contains("\"name\": \"first\""), "{log}");
    let again = ["run", "shop/roll-out", "--var", "hold=false", "--output", "json"];
    let done = world.ask(daemon, &again).expect_code(0);
    assert_eq!(done.json()["summary"]["text"], "0 added, 0 changed, 1 destroyed", "{log}\n{}", done.stderr);
}
