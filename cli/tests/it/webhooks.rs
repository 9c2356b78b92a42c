//! Webhooks: who is told, in which order, over restarts, and by targets that answer badly.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use ring::hmac;
use serde_json::Value;

use crate::harness::{Daemon, Received, Receiver, World, free_port, status, wait_for};
use crate::packed::pack;

/// A world with a template `quick`, whose project tells the targets `names`.
fn world(names: &[&str]) -> World {
    let world = World::new();
    world.template("quick", "", "echo done");
    world.write("projects/shop/project.toml", &format!("webhooks = {names:?}\n"));
    std::fs::write(world.path("hook-secret"), "hunter2-hunter2\n").expect("written");
    world
}

/// Declares a target of the plugin `http`, which may send to `addresses`.
fn targets(world: &World, targets: &[(&str, &Receiver, &str)]) {
    let hosts: Vec<String> = targets.iter().map(|(_, receiver, _)| format!("http://{}", receiver.address)).collect();
    world.write("plugins/http.toml", &format!("source = \"builtin:http\"\n[allow]\nhosts = {hosts:?}\n"));
    for (name, receiver, more) in targets {
        let url = receiver.url();
        world.write(
            &format!("webhooks/{name}.toml"),
            &format!("plugin = \"http\"\n{more}\n[config]\nurl = \"{url}\"\nsign = \"none\"\n"),
        );
    }
}

fn deliveries(world: &World, daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let page = world.ask(daemon, &[&["webhook", "list", "--output", "json"], arguments].concat()).expect_code(0).json();
    page["items"].as_array().expect("a list").clone()
}

fn kinds(received: &[Received]) -> Vec<(String, u64)> {
    received.iter().map(Received::told).collect()
}

#[test]
fn a_task_is_told_from_its_beginning_to_its_end_signed_and_in_order() {
    let world = world(&["ops"]);
    let receiver = Receiver::good();
    world.write(
        "plugins/http.toml",
        &format!("source = \"builtin:http\"\n[allow]\nhosts = [\"http://{}\"]\n", receiver.address),
    );
    let secret = world.path("hook-secret");
    world.daemon_settings(&format!("[secrets.allow.webhooks]\nfiles = [{secret:?}]\n"));
    world.write(
        "webhooks/ops.toml",
        &format!("plugin = \"http\"\nevents = [\"task.queued\", \"task.started\", \"task.finished\"]\nsecret = {{ file = {secret:?} }}\n[config]\nurl = \"{}\"\n", receiver.url()),
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "quick");
    world.wait_state(&daemon, number, "succeeded");

    let received = receiver.wait(3);
    let expected = ["task.queued", "task.started", "task.finished"].map(|event| (event.to_owned(), number));
    assert_eq!(kinds(&received), expected);
    let states: Vec<Value> = received.iter().map(|one| one.json()["task"]["state"].clone()).collect();
    assert_eq!(states, ["queued", "running", "succeeded"], "each shows the task as it was then");
    let last = received[2].json();
    assert_eq!((&last["task"]["exit_code"], &last["task"]["runner"]), (&0.into(), &"ny-1".into()), "{last}");
    assert!(last["task"]["log_bytes"].as_u64().is_some_and(|bytes| bytes >= 5), "{last}");

    // Forge-Signature is what its documentation says it is.
    let signature = received[2].header("forge-signature");
    let (time, digits) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("two parts");
    let signed = [time.as_bytes(), b".", &received[2].body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"hunter2-hunter2");
    let tag: String = hmac::sign(&key, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, tag);
    assert_eq!(received[2].header("forge-event"), "task.finished");

    let told = deliveries(&world, &daemon, &["--target", "ops"]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|delivery| delivery["state"] == "delivered" && delivery["tries"] == 1), "{told:?}");
    let id = received[2].header("forge-delivery");
    let shown = world.ask(&daemon, &["webhook", "show", id]).expect_code(0).text();
    assert!(shown.contains(": 204 (") && shown.contains("\"event\": \"task.finished\""), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");

    // The same once more, by hand: the same delivery.
    world.ask(&daemon, &["webhook", "redeliver", id]).expect_code(0);
    assert_eq!(receiver.wait(4)[3].header("forge-delivery"), id);
}

#[test]
fn a_secret_of_the_plugin_itself_is_filled_in_for_all_its_targets() {
    let world = world(&["ops"]);
    let receiver = Receiver::good();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guest = std::fs::read_to_string(root.join("testdata/guests/webhook-shared.wat")).expect("the guest");
    let wasm = pack(&root, "webhook-shared", &guest.replace("00000", &format!("{:05}", receiver.address.port())));
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &wasm);
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(world.path("tree/plugins/shared.wasm"), wasm).expect("the plugin");
    let secret = world.path("hook-secret");
    world.daemon_settings(&format!("[secrets.allow.plugins]\nfiles = [{secret:?}]\n"));
    world.write(
        "plugins/shared.toml",
        &format!(
            "source = \"plugins/shared.wasm\"\nsha256 = \"{sha256}\"\n[allow]\nhosts = [\"http://{}\"]\n\
             [config]\ntoken = {{ file = {secret:?} }}\nroom = \"ops\"\n",
            receiver.address
        ),
    );
    world.write("webhooks/ops.toml", "plugin = \"shared\"\nevents = [\"task.queued\"]\n");
    let daemon = world.daemon();
    world.start_task(&daemon, "quick");
    let received = receiver.wait(1);
    assert_eq!(received[0].json(), serde_json::json!({ "token": "hunter2-hunter2", "room": "ops" }));
    let told = deliveries(&world, &daemon, &["--target", "ops"]);
    assert!(!told.iter().any(|delivery| delivery.to_string().contains("hunter2")), "{told:?}");
}

#[test]
fn a_target_that_is_slow_or_dead_delays_no_other() {
    let names = ["dead", "good", "hangs", "moved", "resets", "slow"];
    let world = world(&names);
    let good = Receiver::good();
    let dead = Receiver::start(status("500 Internal Server Error"));
    // It takes the request and never answers; the connection stays for as long as the other side wants it.
    let hangs = Receiver::start(|_, stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let resets = Receiver::start(|_, _| Ok(()));
    let moved = Receiver::start(status("302 Found"));
    let slow = Receiver::start(|_, stream| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" {
            stream.write_all(&[*byte])?;
            stream.flush()?;
        }
        Ok(())
    });
    let few = "events = [\"task.finished\"]\nretry = { attempts = 1, delay = \"1s\" }";
    let receivers =
        [("dead", &dead), ("good", &good), ("hangs", &hangs), ("moved", &moved), ("resets", &resets), ("slow", &slow)];
    // Those of the one that hangs go on for long.
    let many = "events = [\"task.finished\"]";
    targets(&world, &receivers.map(|(name, receiver)| (name, receiver, if name == "hangs" { many } else { few })));
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    for _ in 0..3 {
        let number = world.start_task(&daemon, "quick");
        world.wait_state(&daemon, number, "succeeded");
    }
    assert_eq!(good.wait(3).len(), 3, "while the one that hangs has not answered its first");
    assert_eq!(slow.wait(3).len(), 3);
    let of = |target: &str, state: &str| deliveries(&world, &daemon, &["--target", target, "--state", state]);
    let ended = |target: &str, state: &'static str| {
        wait_for(&format!("the deliveries of {target} are {state}"), || {
            Some(of(target, state)).filter(|deliveries| deliveries.len() == 3)
        })
    };
    let message = |delivery: &Value| delivery["message"].as_str().unwrap_or_default().to_owned();
    let of_dead = ended("dead", "dead");
    assert!(of_dead.iter().all(|delivery| delivery["tries"] == 2), "{of_dead:?}");
    assert_eq!(message(&of_dead[0]), "the answer was 500; that was the last of 2 tries");
    let of_moved = ended("moved", "dead");
    assert!(message(&of_moved[0]).contains("a redirect, which is not followed"), "{of_moved:?}");
    assert_eq!(of_moved[0]["tries"], 1, "it says the same each time");
    let of_resets = ended("resets", "dead");
    assert!(message(&of_resets[0]).ends_with("that was the last of 2 tries"), "{of_resets:?}");
    ended("slow", "delivered");
    assert_eq!(of("hangs", "waiting").len(), 3);
    let list = world.ask(&daemon, &["webhook", "list"]).expect_code(0).text();
    assert!(list.contains("dead") && list.lines().any(|line| line.starts_with("good ")), "{list}");
    // Once more, the oldest first, with the same ids.
    let said = world.ask(&daemon, &["webhook", "redeliver", "--dead", "dead"]).expect_code(0);
    assert!(said.stderr.contains("3 deliveries are sent once more"), "{}", said.stderr);
    let received = dead.wait(9);
    let ids = |received: &[Received]| {
        received.iter().map(|one| one.header("forge-delivery").to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&received[6..]), ids(&received[..6]));
    let none = world.ask(&daemon, &["webhook", "redeliver", "--dead", "good"]).expect_code(0);
    assert!(none.stderr.contains("no delivery of this target is dead"), "{}", none.stderr);
}

#[test]
fn targets_that_hang_leave_a_good_one_its_places() {
    const AT_ONCE: usize = 8;
    let hanging: Vec<String> = (0..20).map(|number| format!("hangs-{number}")).collect();
    let names: Vec<&str> = hanging.iter().map(String::as_str).chain(["good"]).collect();
    let world = world(&names);
    let hangs = Receiver::start(|_, stream| stream.read_to_end(&mut Vec::new()).map(drop));
    // It answers nobody before so many ask at once.
    let (asking, all_ask) = (AtomicUsize::new(0), Barrier::new(AT_ONCE));
    let good = Receiver::start(move |received, stream| {
        if asking.fetch_add(1, Ordering::SeqCst) < AT_ONCE {
            all_ask.wait();
        }
        status("204 No Content")(received, stream)
    });
    let events = "events = [\"task.queued\"]";
    let all: Vec<_> = names.iter().map(|name| (*name, if *name == "good" { &good } else { &hangs }, events)).collect();
    targets(&world, &all);
    let daemon = world.daemon();
    for _ in 0..20 {
        world.start_task(&daemon, "quick");
    }
    good.wait(20);
    assert!(hangs.received().len() >= 20 * AT_ONCE, "they hang with {} tries", hangs.received().len());
}

#[test]
fn a_target_that_is_busy_is_left_alone_until_the_time_that_it_says() {
    let world = world(&["dated", "seconds"]);
    let moment = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
    let date = httpdate::fmt_http_date(moment);
    let busy = |until: String| {
        Receiver::start(move |_, stream| {
            write!(
                stream,
                "HTTP/1.1 503 Busy\r\nRetry-After: {until}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        })
    };
    let (dated, seconds) = (busy(date), busy("600".to_owned()));
    let few = "events = [\"task.queued\"]\nretry = { attempts = 3, delay = \"1s\" }";
    targets(&world, &[("dated", &dated, few), ("seconds", &seconds, few)]);
    let daemon = world.daemon();
    world.start_task(&daemon, "quick");
    for target in ["dated", "seconds"] {
        let tried = wait_for("it was tried", || {
            deliveries(&world, &daemon, &["--target", target]).into_iter().find(|one| one["tries"] == 1)
        });
        let at =
            |field: &str| -> forge_api::Timestamp { serde_json::from_value(tried[field].clone()).expect("a time") };
        let wait_ms = at("next_at").millis_since(at("tried_at"));
        assert!((500_000..=610_000).contains(&wait_ms), "{target}: it is tried again after {wait_ms} ms");
    }
}

#[test]
fn what_a_receiver_was_taking_when_the_daemon_was_killed_comes_once_more_and_nothing_is_lost() {
    const TASKS: usize = 60;
    let world = world(&["ops"]);
    // It answers three, and takes more that it answers once the daemon is dead: how many came, and whether it is.
    let state: Arc<(Mutex<(usize, bool)>, Condvar)> = Arc::default();
    let seen = Arc::clone(&state);
    let receiver = Receiver::start(move |received, stream| {
        let mut now = seen.0.lock().expect("nobody panics with it");
        now.0 += 1;
        seen.1.notify_all();
        if now.0 > 3 {
            drop(seen.1.wait_while(now, |(_, is_dead)| !*is_dead).expect("nobody panics with it"));
        }
        status("204 No Content")(received, stream)
    });
    targets(&world, &[("ops", &receiver, "events = [\"task.queued\"]\nretry = { attempts = 50, delay = \"1s\" }")]);
    let mut daemon = world.daemon();
    for _ in 0..TASKS {
        world.start_task(&daemon, "quick");
    }
    let made: BTreeSet<String> = deliveries(&world, &daemon, &["--target", "ops", "--limit", "500"])
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(made.len(), TASKS);
    let now = state.0.lock().expect("nobody panics with it");
    let mut now = state.1.wait_while(now, |(came, _)| *came < 4).expect("nobody panics with it");
    daemon.process.kill_hard();
    now.1 = true;
    drop(now);
    state.1.notify_all();
    let daemon = world.daemon();
    wait_for("everything was delivered", || {
        deliveries(&world, &daemon, &["--state", "waiting"]).is_empty().then_some(())
    });
    let received = receiver.received();
    let came: BTreeSet<String> = received.iter().map(|one| one.header("forge-delivery").to_owned()).collect();
    assert_eq!(came, made, "each came");
    assert!(received.len() > TASKS, "and what was under way came twice: {}", received.len());
}

#[test]
fn what_waits_is_delivered_after_the_daemon_was_killed_and_each_once() {
    let world = world(&["ops"]);
    // Nobody listens there yet.
    let port = free_port();
    let hosts = format!("source = \"builtin:http\"\n[allow]\nhosts = [\"http://127.0.0.1:{port}\"]\n");
    world.write("plugins/http.toml", &hosts);
    world.write(
        "webhooks/ops.toml",
        &format!("plugin = \"http\"\nevents = [\"task.queued\", \"task.finished\"]\nretry = {{ attempts = 50, delay = \"1s\" }}\n[config]\nurl = \"http://127.0.0.1:{port}/\"\nsign = \"none\"\n"),
    );
    let api = free_port();
    world.daemon_settings_on(api);
    let mut daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let numbers: Vec<u64> = (0..5)
        .map(|_| {
            let number = world.start_task(&daemon, "quick");
            world.wait_state(&daemon, number, "succeeded");
            number
        })
        .collect();
    let waiting = wait_for("a try was made", || {
        let waiting = deliveries(&world, &daemon, &["--state", "waiting"]);
        waiting.iter().any(|delivery| delivery["tries"].as_u64() > Some(0)).then_some(waiting)
    });
    assert_eq!(waiting.len(), 10, "{waiting:?}");
    // The second about a task is not tried before the first has gone.
    let of_task = |number: u64| waiting.iter().filter(move |one| one["subject"] == format!("task {number}"));
    let blocked = of_task(numbers[0]).find(|one| one["event"] == "task.finished").expect("it is there");
    assert_eq!((&blocked["tries"], &blocked["next_at"]), (&0.into(), &Value::Null), "{blocked}");

    daemon.process.kill_hard();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let receiver = Receiver::on(listener, status("200 OK"));
    let daemon = world.daemon();
    wait_for("everything was delivered", || {
        deliveries(&world, &daemon, &["--state", "waiting"]).is_empty().then_some(())
    });
    let received = receiver.received();
    for number in numbers {
        let of_task: Vec<_> = kinds(&received).into_iter().filter(|(_, about)| *about == number).collect();
        assert_eq!(of_task, [("task.queued".to_owned(), number), ("task.finished".to_owned(), number)]);
    }
    assert_eq!(received.len(), 10, "nothing was sent twice");
    let mut ids: Vec<&str> = received.iter().map(|one| one.header("forge-delivery")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

#[test]
fn a_target_that_wants_failures_hears_of_nothing_else_and_a_test_reaches_it() {
    let world = world(&[]);
    let receiver = Receiver::good();
    targets(&world, &[("alarm", &receiver, "events = [\"task.finished\"]\non = \"failure\"")]);
    world.template("quick", "webhooks = [\"alarm\"]", "echo done");
    world.template("broken", "webhooks = [\"alarm\"]", "exit 3");
    world.template("unheard", "", "exit 3");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let mut broken = 0;
    for (template, state) in [("quick", "succeeded"), ("unheard", "failed"), ("broken", "failed")] {
        broken = world.start_task(&daemon, template);
        world.wait_state(&daemon, broken, state);
    }
    assert_eq!(kinds(&receiver.wait(1)), [("task.finished".to_owned(), broken)]);
    let tested = world.ask(&daemon, &["webhook", "test", "alarm", "--output", "json"]).expect_code(0).json();
    assert_eq!((&tested["state"], &tested["event"]), (&"delivered".into(), &"task.finished".into()), "{tested}");
    let received = receiver.wait(2);
    assert_eq!(received[1].json()["test"], true, "{:?}", received[1]);
    assert_eq!(deliveries(&world, &daemon, &["--target", "alarm"]).len(), 2, "nothing else was for it");
    let wrong = world.ask(&daemon, &["webhook", "test", "alarn"]).expect_code(1);
    assert!(wrong.stderr.contains("alarn") && wrong.stderr.contains("alarm"), "{}", wrong.stderr);
}

#[test]
fn a_refused_host_is_said_with_what_to_write() {
    let world = world(&["ops"]);
    let receiver = Receiver::good();
    targets(&world, &[("ops", &receiver, "events = [\"task.finished\"]")]);
    world.write("plugins/http.toml", "source = \"builtin:http\"\n");
    let daemon = world.daemon();
    let tested = world.ask(&daemon, &["webhook", "test", "ops"]).expect_code(1);
    let words = tested.text();
    assert!(words.contains("127.0.0.1") && words.contains("[allow].hosts of plugins/http.toml"), "{words}");
    assert_eq!(receiver.received().len(), 0);
}

#[test]
fn tasks_that_find_nobody_and_runners_that_come_and_go_are_told() {
    let world = world(&[]);
    let (machine, other) = (Receiver::good(), Receiver::good());
    let all =
        "events = [\"task.waiting\", \"runner.online\", \"runner.offline\", \"runner.idle\"]\nwaiting_again = \"2s\"";
    targets(&world, &[("machine", &machine, all), ("other", &other, all)]);
    world.write("runners/ny-1.toml", "tags = [\"ny\"]\nwebhooks = [\"machine\"]\n");
    world.write("runners/tokyo-1.toml", "tags = [\"tokyo\"]\nwebhooks = [\"other\"]\n");
    world.template("quick", "runner_tag = \"ny\"", "echo done");
    let daemon = world.daemon();
    let number = world.start_task(&daemon, "quick");
    // It is told at once, and again after a while.
    let told = machine.wait(2);
    assert_eq!(kinds(&told), [("task.waiting".to_owned(), number), ("task.waiting".to_owned(), number)]);
    assert_ne!(told[0].header("forge-delivery"), told[1].header("forge-delivery"));
    // The target has the news before the daemon has its answer, and is told again meanwhile.
    wait_for("its task says that it was delivered", || {
        let why = world.ask(&daemon, &["task", "why", &number.to_string()]).expect_code(0).text();
        (why.contains("webhook target machine was told") && why.contains("it was delivered")).then_some(())
    });

    let runner = world.runner(&daemon, "ny-1", "");
    world.wait_state(&daemon, number, "succeeded");
    let online = wait_for("its coming was told", || {
        machine.received().into_iter().find(|one| one.header("forge-event") == "runner.online")
    });
    assert_eq!(
        (&online.json()["runner"]["name"], &online.json()["runner"]["status"]),
        (&"ny-1".into(), &"online".into())
    );
    let heard = |event: &str| machine.received().into_iter().filter(|one| one.header("forge-event") == event).count();
    assert_eq!(heard("runner.idle"), 0, "nobody drained it");
    assert_eq!(runner.stop().code(), Some(0));
    world.ask(&daemon, &["runners", "remove", "ny-1"]).expect_code(0);
    wait_for("its end was told", || (heard("runner.offline") == 1).then_some(()));

    // Another one under its name, which is drained.
    std::fs::remove_dir_all(world.path("ny-1")).expect("removed");
    let runner = world.runner(&daemon, "ny-1", "");
    wait_for("its coming was told", || (heard("runner.online") == 2).then_some(()));
    world.ask(&daemon, &["runners", "drain", "ny-1"]).expect_code(0);
    let idle = wait_for("its idleness was told", || {
        machine.received().into_iter().find(|one| one.header("forge-event") == "runner.idle")
    });
    assert_eq!(idle.json()["runner"]["running"], 0);
    assert_eq!(runner.stop().code(), Some(0));
    world.ask(&daemon, &["runners", "remove", "ny-1"]).expect_code(0);
    // What is told after it shows that nothing came in between.
    world.ask(&daemon, &["webhook", "test", "machine"]).expect_code(0);
    assert_eq!((heard("runner.idle"), heard("runner.offline")), (1, 1), "one that is idle goes without a word");
    assert_eq!(other.received().len(), 0, "it is another runner's");
}

#[test]
fn ten_thousand_waiting_deliveries_survive_a_kill() {
    const TARGETS: usize = 500;
    const TASKS: usize = 20;
    let names: Vec<String> = (0..TARGETS).map(|number| format!("t{number}")).collect();
    let world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let port = free_port();
    let hosts = format!("source = \"builtin:http\"\n[allow]\nhosts = [\"http://127.0.0.1:{port}\"]\n");
    world.write("plugins/http.toml", &hosts);
    for name in &names {
        world.write(
            &format!("webhooks/{name}.toml"),
            &format!("plugin = \"http\"\nevents = [\"task.queued\"]\nretry = {{ attempts = 100, delay = \"1s\" }}\n[config]\nurl = \"http://127.0.0.1:{port}/{name}\"\nsign = \"none\"\n"),
        );
    }
    let mut daemon = world.daemon();
    // Nobody is there to run them: each is one event.
    for _ in 0..TASKS {
        world.start_task(&daemon, "quick");
    }
    let waiting = |daemon: &Daemon| -> u64 {
        let targets = world.ask(daemon, &["webhook", "list", "--output", "json"]).expect_code(0).json();
        targets["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|target| target["waiting"].as_u64().expect("a number"))
            .sum()
    };
    assert_eq!(waiting(&daemon), 10_000);
    daemon.process.kill_hard();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let receiver = Receiver::on(listener, status("200 OK"));
    let daemon = world.daemon();
    wait_for("everything was delivered", || (waiting(&daemon) == 0).then_some(()));
    let mut ids: Vec<String> = receiver.received().iter().map(|one| one.header("forge-delivery").to_owned()).collect();
    assert_eq!(ids.len(), 10_000, "none was sent twice");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10_000, "and none is missing");
}

#[test]
fn a_runner_s_targets_hear_of_its_tasks_and_others_of_the_configuration() {
    let world = world(&[]);
    let (of_runner, of_tree) = (Receiver::good(), Receiver::good());
    targets(
        &world,
        &[
            ("machine", &of_runner, "events = [\"task.started\", \"task.finished\"]"),
            ("reviewers", &of_tree, "events = [\"config.applied\", \"config.failed\"]"),
        ],
    );
    world.write("runners/ny-1.toml", "tags = [\"ny\"]\nwebhooks = [\"machine\"]\n");
    world.write("runners/tokyo-1.toml", "tags = [\"tokyo\"]\n");
    world.template("here", "runner_tag = \"ny\"", "echo done");
    world.template("there", "runner_tag = \"tokyo\"", "echo done");
    let daemon = world.daemon();
    let (_ny, _tokyo) = (world.runner(&daemon, "ny-1", ""), world.runner(&daemon, "tokyo-1", ""));
    let elsewhere = world.start_task(&daemon, "there");
    world.wait_state(&daemon, elsewhere, "succeeded");
    let number = world.start_task(&daemon, "here");
    world.wait_state(&daemon, number, "succeeded");
    let expected = ["task.started", "task.finished"].map(|event| (event.to_owned(), number));
    assert_eq!(kinds(&of_runner.wait(2)), expected, "what another runner does is not its targets' business");

    world.template("broken", "executor_typo = 1", "true");
    let heard = |event: &str| of_tree.received().into_iter().find(|one| one.header("forge-event") == event);
    let failed = wait_for("the mistake was told", || heard("config.failed")).json();
    assert!(failed["config"].to_string().contains("broken.toml"), "{failed}");
    std::fs::remove_file(world.path("tree/projects/shop/templates/broken.toml")).expect("removed");
    world.template("more", "", "true");
    let applied = wait_for("the next revision was told", || heard("config.applied")).json();
    assert!(applied["config"]["revision"].as_str().is_some_and(|revision| !revision.is_empty()), "{applied}");
}
