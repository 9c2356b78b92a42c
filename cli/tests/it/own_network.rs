//! A runner that reaches nothing but the daemon: it lives in a network namespace of its own, which has loopback and nothing else. The one way
//! out is the story's own: a port of that loopback, a Unix socket on the disk, and the daemon's port. Over it the runner registers by
//! token, fetches the plugin by digest, and runs tasks.
//!
//! The machine has to allow network namespaces, to root or to a user that is root in a namespace of its own.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Finished, Process, World, need, utf8, wait_for};
use crate::plugins::digests;

/// Inside the namespace: brings loopback up, and forwards from a port of its own to the socket.
const FORWARDER: &str = r#"
import fcntl, os, socket, struct, sys, threading
way_out, address = sys.argv[1:]
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))

def forward(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

listener = socket.create_server(("127.0.0.1", 0))
with open(address + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(address + ".new", address)
while True:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(way_out)
    except OSError:
        client.close()
        continue
    for pair in ((client, server), (server, client)):
        threading.Thread(target=forward, args=pair, daemon=True).start()
"#;

/// What a job sees of the network: how many routes there are, and whether anything answers.
const LOOK: &str = r#"
echo "routes: $(sed 1d /proc/net/route | wc -l)"
try() { if (exec 3<>"/dev/tcp/$2/$3") 2>/dev/null; then echo "$1 answers"; else echo "$1 is out of reach"; fi; }
try "the way out" 127.0.0.1 "$WAY_OUT_PORT"
try "the daemon itself" 127.0.0.1 "$DAEMON_PORT"
try "another machine" 192.0.2.1 443
"#;

/// The options of `unshare` and of `nsenter` that make and enter a network namespace here.
fn namespaces() -> Option<(&'static [&'static str], &'static [&'static str])> {
    let as_root: (&[&str], &[&str]) = (&["--net"], &["--net"]);
    let as_user: (&[&str], &[&str]) = (&["--map-root-user", "--net"], &["--user", "--preserve-credentials", "--net"]);
    [as_root, as_user].into_iter().find(|(unshare, _)| {
        Command::new("unshare").args(*unshare).arg("true").output().is_ok_and(|output| output.status.success())
    })
}

/// A namespace with its forwarder.
struct OwnNetwork {
    forwarder: Process,
    enter: &'static [&'static str],
    /// Of its loopback.
    port: u16,
    /// How many bytes came in.
    fetched: Arc<AtomicU64>,
}

impl OwnNetwork {
    /// With a way to `daemon_port`; nothing where the machine lets none be made, which is said loudly.
    fn new(world: &World, daemon_port: u16) -> Option<Self> {
        let Some((unshare, enter)) = namespaces() else {
            let line =
                "\nNOT TESTED: a runner in a network of its own: this machine lets nobody make a network namespace\n";
            // Printed by hand, so that it is seen when the test passes.
            drop(std::io::stderr().write_all(line.as_bytes()));
            return None;
        };
        need("python3", "python3");
        let (way_out, address) = (world.path("way-out"), world.path("inside.port"));
        let fetched = Arc::new(AtomicU64::new(0));
        serve(UnixListener::bind(&way_out).expect("a socket"), daemon_port, &fetched);
        let mut command = Command::new("unshare");
        command.args(unshare).args(["python3", "-c", FORWARDER, utf8(&way_out), utf8(&address)]);
        let mut forwarder = Process::start(command, &world.path("out"), "forwarder");
        let port = wait_for("the forwarder listens", || {
            assert!(forwarder.exited().is_none(), "the forwarder ended: {}", forwarder.stderr());
            std::fs::read_to_string(&address).ok()?.parse().ok()
        });
        Some(Self { forwarder, enter, port, fetched })
    }

    /// A `forge` inside, with the environment of the world's.
    fn forge(&self, world: &World, arguments: &[&str]) -> Command {
        let forge = world.forge(arguments);
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.forwarder.pid().to_string()])
            .args(self.enter)
            .arg("--")
            .arg(forge.get_program())
            .args(forge.get_args())
            .current_dir(world.path(""))
            .env_clear()
            .envs(forge.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }
}

/// Forwards each connection of the socket to a port of this side's loopback; it ends with the program.
fn serve(listener: UnixListener, port: u16, fetched: &Arc<AtomicU64>) {
    let fetched = Arc::clone(fetched);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
            let fetched = Arc::clone(&fetched);
            std::thread::spawn(move || upwards(&client, &server));
            std::thread::spawn(move || downwards(&server_too, &client_too, &fetched));
        }
    });
}

fn upwards(mut client: &UnixStream, mut server: &TcpStream) {
    // An end of either side is the end of both.
    let _ = std::io::copy(&mut client, &mut server);
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn downwards(mut server: &TcpStream, mut client: &UnixStream, fetched: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        fetched.fetch_add(length as u64, Ordering::Relaxed);
        if client.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// The namespace of a process.
fn network_of(pid: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("a process of this user")
}

#[test]
fn a_runner_that_reaches_nothing_but_the_daemon_registers_fetches_its_plugin_and_runs_tasks() {
    let world = World::new();
    world.template("look", "environment = \"ports\"", LOOK);
    // Which ports there are is known later; the tree has to be whole at once.
    let ports =
        |daemon: u16, way_out: u16| format!("[env]\nDAEMON_PORT = \"{daemon}\"\nWAY_OUT_PORT = \"{way_out}\"\n");
    world.write("projects/shop/environments/ports.toml", &ports(1, 1));
    let daemon = world.daemon();
    let daemon_port: u16 = daemon.api.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let Some(network) = OwnNetwork::new(&world, daemon_port) else { return };
    let applied =
        || world.run(&["config", "status", "--config", "forge.toml", "--output", "json"]).expect_code(0).json();
    let before = applied()["revision"].clone();
    world.write("projects/shop/environments/ports.toml", &ports(daemon_port, network.port));
    wait_for("the daemon serves the ports", || (applied()["revision"] != before).then_some(()));

    // The daemon's own address is of no use inside.
    let settings = world.runner_settings(&daemon, "alone-1", "");
    let token = format!("{}\n", world.registration_token());
    let register = ["runner", "register", "--stdin-registration-token", "--config", utf8(&settings)];
    let lost = Finished::of(network.forge(&world, &register), token.as_bytes());
    assert!(!lost.status.success() && lost.stderr.contains(&daemon.api), "{}", lost.stderr);
    assert_eq!(network.fetched.load(Ordering::Relaxed), 0, "nothing came in yet");

    let written = std::fs::read_to_string(&settings).expect("runner.toml");
    let inside = format!("https://127.0.0.1:{}", network.port);
    std::fs::write(&settings, written.replace(&daemon.api, &inside)).expect("runner.toml");
    Finished::of(network.forge(&world, &register), token.as_bytes()).expect_code(0);
    let command = network.forge(&world, &["runner", "--config", utf8(&settings)]);
    let mut runner = Process::start(command, &world.path("out"), "alone-1");
    world.wait_runner(&daemon, "alone-1", "online");
    assert_ne!(network_of(&runner.pid().to_string()), network_of("self"), "the runner is not in this network");
    let compiled = world.path("alone-1/tmp/plugins");
    let has_none = |folder: &Path| std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    assert!(has_none(&compiled), "a new runner has no plugin");
    let fetched_before = network.fetched.load(Ordering::Relaxed);

    let done = world.ask(&daemon, &["run", "shop/look", "--output", "json"]).expect_code(0);
    let (task, log) = (done.json(), done.stderr);
    assert_eq!((&task["runner"], &task["state"]), (&"alone-1".into(), &"succeeded".into()));
    for line in
        ["routes: 0", "the way out answers", "the daemon itself is out of reach", "another machine is out of reach"]
    {
        assert!(log.lines().any(|found| found == line), "{line:?} is missing: {log}");
    }
    // The plugin came over the one way there is, and is the daemon's.
    let [shell] = digests(&world.path("data/plugins")).try_into().expect("the one of the tree");
    assert_eq!(digests(&compiled), std::slice::from_ref(&shell));
    let size = std::fs::metadata(world.path("data/plugins").join(format!("{shell}.wasm"))).expect("the plugin").len();
    let fetched = network.fetched.load(Ordering::Relaxed) - fetched_before;
    assert!(fetched > size, "{fetched} bytes came in, the plugin has {size}");

    // The second task needs it no more.
    let fetched_before = network.fetched.load(Ordering::Relaxed);
    world.ask(&daemon, &["run", "shop/look"]).expect_code(0);
    assert!(network.fetched.load(Ordering::Relaxed) - fetched_before < size);
    runner.signal("TERM");
    assert_eq!(runner.wait("the runner stops").code(), Some(0), "{}", runner.stderr());
}
