//! Daemon and runner under a service manager: what they tell it, when they prove that they live, and what it hands them.
//! The manager here is a socket that listens as systemd's does; the processes are real.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{Process, World, utf8, wait_for};
use crate::secrets;

/// How long the manager is patient, in microseconds; a sign of life is due twice as often.
const PATIENCE_MICROS: &str = "400000";

/// Long enough for several signs of life to be due, and shorter than the store waits for a lock.
const SILENCE: Duration = Duration::from_secs(2);

/// How many signs of life may have been proved before the store hung and be told after: the one that is told, and the one after it.
const SIGNS_ON_THE_WAY_MAX: usize = 2;

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(world: &World, name: &str) -> Self {
        let path = world.path(name);
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_nonblocking(true).expect("set");
        Self { socket, path }
    }

    /// The next message, if one is there.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// The next message, if one comes within `wait`.
    fn hear(&self, wait: Duration) -> Option<String> {
        self.socket.set_nonblocking(false).expect("set");
        self.socket.set_read_timeout(Some(wait)).expect("set");
        let heard = self.next();
        self.socket.set_nonblocking(true).expect("set");
        heard
    }

    /// Waits for a message that is no sign of life.
    fn word(&self, what: &str) -> String {
        wait_for(what, || std::iter::from_fn(|| self.next()).find(|message| message != "WATCHDOG=1"))
    }

    fn sign_of_life(&self) {
        wait_for("a sign of life", || (self.next()? == "WATCHDOG=1").then_some(()));
    }

    /// Hears signs of life and nothing else.
    fn signs_of_life(&self, count: u32) {
        for _ in 0..count {
            assert_eq!(wait_for("a sign of life", || self.next()), "WATCHDOG=1");
        }
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("NOTIFY_SOCKET", utf8(&self.path)), ("WATCHDOG_USEC", PATIENCE_MICROS)]
    }
}

fn start_runner(world: &World, name: &str, environment: &[(&str, &str)]) -> Process {
    let settings = world.path(name).join("runner.toml");
    let mut command = world.forge(&["runner", "--config", utf8(&settings)]);
    command.envs(environment.iter().copied());
    Process::start(command, &world.path("out"), name)
}

#[test]
fn a_daemon_tells_its_manager_when_it_serves_reloads_lives_and_stops() {
    let world = World::new();
    let manager = Manager::new(&world, "notify");
    let mut daemon = world.daemon_with(&manager.environment());
    assert_eq!(wait_for("the first message", || manager.next()), "READY=1");
    manager.signs_of_life(3);

    world.template("new", "", "true");
    daemon.process.signal("HUP");
    let reloading = manager.word("it reloads");
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.word("the reload is over"), "READY=1");
    // What the reload read serves by the time that the manager hears of its end.
    world.start_task(&daemon, "new");
    manager.sign_of_life();

    daemon.process.signal("TERM");
    assert_eq!(manager.word("it stops"), "STOPPING=1");
    assert_eq!(daemon.process.wait("the daemon stops").code(), Some(0));
    assert_eq!(std::iter::from_fn(|| manager.next()).find(|message| message != "WATCHDOG=1"), None, "said once");
}

#[test]
fn a_daemon_whose_store_hangs_gives_no_sign_of_life() {
    let world = World::new();
    let manager = Manager::new(&world, "notify");
    let _daemon = world.daemon_with(&manager.environment());
    assert_eq!(manager.word("it serves"), "READY=1");
    manager.sign_of_life();
    // Another process holds the database: the daemon's writer waits, and everything else of it goes on.
    let other = rusqlite::Connection::open(world.path("data/forge.db")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    // What was on its way when the lock was taken may still come; then nothing does.
    let on_the_way = std::iter::from_fn(|| manager.hear(SILENCE)).take(SIGNS_ON_THE_WAY_MAX + 1).count();
    assert!(on_the_way <= SIGNS_ON_THE_WAY_MAX, "signs of life go on though the store hangs");
    other.execute_batch("ROLLBACK").expect("unlocked");
    manager.sign_of_life();
}

#[test]
fn a_runner_tells_its_manager_when_it_is_ready_lives_and_stops() {
    let world = World::new();
    let go = world.path("go");
    world.template("wait", "", &format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    let manager = Manager::new(&world, "notify");
    let mut runner = start_runner(&world, "ny-1", &manager.environment());
    assert_eq!(wait_for("the first message", || manager.next()), "READY=1");
    manager.signs_of_life(3);
    let number = world.start_task(&daemon, "wait");
    world.wait_state(&daemon, number, "running");

    // It drains for as long as its task takes, and lives meanwhile.
    runner.signal("TERM");
    assert_eq!(manager.word("it stops"), "STOPPING=1");
    manager.signs_of_life(3);
    assert!(runner.exited().is_none(), "it waits for its task");
    std::fs::write(&go, "").expect("go");
    assert_eq!(runner.wait("the runner leaves").code(), Some(0));
    world.wait_state(&daemon, number, "succeeded");
}

#[test]
fn a_runner_is_ready_without_a_daemon_and_signs_only_for_itself() {
    let world = World::new();
    let daemon = world.daemon();
    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    assert_eq!(daemon.stop().code(), Some(0));
    let manager = Manager::new(&world, "notify");
    // The manager wants to hear from process 1, which this is not.
    let environment = [&manager.environment()[..], &[("WATCHDOG_PID", "1")]].concat();
    let mut runner = start_runner(&world, "ny-1", &environment);
    assert_eq!(wait_for("the first message", || manager.next()), "READY=1");
    wait_for("it looks for its daemon", || runner.stderr().contains("waiting for the daemon").then_some(()));
    runner.signal("TERM");
    assert_eq!(runner.wait("the runner leaves").code(), Some(0));
    assert_eq!(manager.next().as_deref(), Some("STOPPING=1"), "no sign of life in between");
}

/// A folder as systemd makes it of `LoadCredential=`.
fn credentials(world: &World, files: &[(&str, &str)]) -> PathBuf {
    let folder = world.path("credentials");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("a credential");
    }
    folder
}

/// Takes what the credentials give out of forge.toml.
fn without_secrets(world: &World) {
    let path = world.path("forge.toml");
    let text = std::fs::read_to_string(&path).expect("forge.toml");
    let is_given = |line: &str| line.contains("registration_token") || line.contains("identity_file");
    let kept: String = text.lines().filter(|line| !is_given(line)).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, kept).expect("written");
}

#[test]
fn credentials_of_the_units_register_a_runner_and_open_the_trees_secrets() {
    let world = World::new();
    let identity = secrets::identity(&world, "");
    let value = secrets::encrypted(&world, "shop", "hunter2");
    world.write("projects/shop/environments/locked.toml", &format!("[secrets]\nPASSWORD = {value}\n"));
    world.template("open", "environment = \"locked\"", "test \"$PASSWORD\" = hunter2");
    let token = format!("{}\n", world.registration_token());
    let identity = std::fs::read_to_string(identity).expect("an identity");
    let folder = credentials(&world, &[("forge.registration-token", &token), ("forge.identity", &identity)]);
    without_secrets(&world);
    let daemon = world.daemon_with(&[("CREDENTIALS_DIRECTORY", utf8(&folder))]);
    world.runner_settings(&daemon, "ny-1", "");
    let _runner = start_runner(&world, "ny-1", &[("CREDENTIALS_DIRECTORY", utf8(&folder))]);
    world.ask(&daemon, &["run", "shop/open"]).expect_code(0);
}
