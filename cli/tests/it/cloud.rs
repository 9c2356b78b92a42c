//! The example of machines on demand: nobody is there, a webhook starts a machine, its one-off runner takes the task and leaves, another
//! webhook stops the machine. The cloud is a stand-in that speaks Lambda's protocol; its machines are real `forge runner` processes.

#[path = "../../../examples/cloud-on-demand/stand-in/cloud.rs"]
mod stand_in;

use std::path::Path;
use std::sync::Arc;

use self::stand_in::{Cloud, Image};
use crate::ansible::copy;
use crate::harness::{Daemon, World, wait_for};

struct Story {
    world: World,
    daemon: Daemon,
    cloud: Arc<Cloud>,
}

impl Story {
    fn new(waiting_again: &str) -> Self {
        let world = World::new();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cloud-on-demand"), &world.path("tree"));
        let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
        let address = server.server_addr().to_ip().expect("it listens on an address").to_string();
        let secret = world.path("aws-secret-key");
        std::fs::write(&secret, "wJalrXUtnFEMI/K7MDENG\n").expect("written");
        for file in ["plugins/aws-lambda.toml", "webhooks/start-cloud-1.toml", "webhooks/stop-cloud-1.toml"] {
            let text = std::fs::read_to_string(world.path("tree").join(file)).expect("the example has it");
            let text = text
                .replace("127.0.0.1:3001", &address)
                .replace("/etc/forge/webhooks/aws-secret-key", secret.to_str().expect("UTF-8"))
                .replace("waiting_again = \"2m\"", &format!("waiting_again = \"{waiting_again}\""));
            world.write(file, &text);
        }
        world.daemon_settings(&format!("[secrets.allow.webhooks]\nfiles = [{secret:?}]\n"));
        let daemon = world.daemon();
        let cloud = Cloud::new(Image {
            forge: env!("CARGO_BIN_EXE_forge").into(),
            web_host: daemon.api.clone(),
            ca_file: daemon.ca_file.clone(),
            registration_token: world.registration_token().to_owned(),
            disks: world.path("disks"),
        });
        let serving = Arc::clone(&cloud);
        std::thread::spawn(move || serving.serve(&server));
        Self { world, daemon, cloud }
    }

    fn start(&self) -> u64 {
        let created = self.world.ask(&self.daemon, &["run", "shop/report", "--detach", "--output", "json"]);
        created.expect_code(0).json()["number"].as_u64().expect("a number")
    }

    /// Waits until the task has succeeded on the machine, and until that is gone.
    fn ends_and_nothing_is_left(&self, number: u64) {
        let task = self.world.wait_state(&self.daemon, number, "succeeded");
        assert_eq!(task["runner"], "cloud-1");
        let log = String::from_utf8(self.world.log(&self.daemon, number)).expect("text");
        assert!(log.contains("the report is made on cloud-1\n"), "{log}");
        wait_for("the machine is stopped", || (self.cloud.machines_there() == 0).then_some(()));
        let left = std::fs::read_dir(self.world.path("disks")).expect("disks were made").count();
        assert_eq!(left, 0, "its disk is gone, too");
        let calls = self.cloud.calls();
        let last = calls.last().map(|(function, _, event)| (function.as_str(), event.as_str()));
        assert_eq!(last, Some(("stop-machine", "runner.idle")), "as soon as nothing is lost with it");
    }

    fn calls(&self, function: &str) -> usize {
        let calls = self.cloud.calls();
        calls.iter().filter(|(called, machine, _)| called == function && machine == "cloud-1").count()
    }
}

#[test]
fn a_machine_is_there_for_its_task_and_no_longer() {
    let story = Story::new("2m");
    let number = story.start();
    story.ends_and_nothing_is_left(number);
    assert_eq!(story.calls("start-machine"), 1);
    // The next task starts it again: a fresh disk under the same name.
    let number = story.start();
    story.ends_and_nothing_is_left(number);
    assert_eq!(story.calls("start-machine"), 2);
}

#[test]
fn a_machine_that_does_not_come_is_asked_for_again() {
    let story = Story::new("3s");
    story.cloud.lose_starts(1);
    let number = story.start();
    wait_for("the cloud was asked", || (story.calls("start-machine") == 1).then_some(()));
    let why = wait_for("the delivery is known to have arrived", || {
        let why = story.world.ask(&story.daemon, &["task", "why", &number.to_string()]).expect_code(0).text();
        why.contains("it was delivered").then_some(why)
    });
    assert!(why.contains("webhook target start-cloud-1 was told") && why.contains("cloud-1"), "{why}");
    assert!(why.contains("waiting for "), "since when: {why}");
    story.ends_and_nothing_is_left(number);
    assert!(story.calls("start-machine") >= 2, "{:?}", story.cloud.calls());
}
