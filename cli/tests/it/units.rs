//! The packaged systemd units: what they take away, what they must not, and that daemon and runner work with what is left.
//!
//! No systemd runs here. Its own tools judge the units' text; `confine.py` is the stand-in for its sandbox as far as a process can
//! put itself into one (capabilities, system calls, address families), without the mount namespaces.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::git;
use crate::gitops;
use crate::harness::{Process, World, need, utf8};

/// What `systemd-analyze security` may at most say of the daemon.
const DAEMON_EXPOSURE_MAX: f64 = 2.0;

/// The same for a runner, whose jobs are other users' and may need whatever their tools need.
const RUNNER_EXPOSURE_MAX: f64 = 5.5;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("packaging/systemd/forge-{name}.service"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(unit(name)).expect("the unit")
}

fn has(name: &str, line: &str) -> bool {
    text(name).lines().any(|found| found == line)
}

fn analyze(arguments: &[&str]) -> Output {
    need("systemd-analyze", "systemd");
    Command::new("systemd-analyze").args(arguments).env("SYSTEMD_COLORS", "0").output().expect("systemd-analyze runs")
}

fn exposure(name: &str) -> f64 {
    let output = analyze(&["security", "--offline=true", "--no-pager", utf8(&unit(name))]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let overall = said.lines().find(|line| line.contains("Overall exposure level"));
    let overall = overall.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let number = overall.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a number");
    number.parse().expect("a number")
}

#[test]
fn what_the_units_leave_exposed_is_little() {
    for (name, most) in [("daemon", DAEMON_EXPOSURE_MAX), ("runner", RUNNER_EXPOSURE_MAX)] {
        let found = exposure(name);
        assert!(found <= most, "forge-{name}.service: systemd-analyze security says {found}, and {most} is the most");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["daemon", "runner"] {
        // The program is not installed here; any that is will do for the check.
        let text = text(name).replace("/usr/bin/forge ", "/bin/true ");
        assert!(text.contains("ExecStart=/bin/true "), "{text}");
        let path = folder.path().join(format!("forge-{name}.service"));
        std::fs::write(&path, text).expect("written");
        let output = analyze(&["verify", "--man=no", utf8(&path)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about_it: Vec<&str> = said.lines().filter(|line| line.contains("forge-")).collect();
        assert!(output.status.success() && about_it.is_empty(), "{said}");
    }
}

#[test]
fn the_units_keep_what_the_promises_need() {
    for name in ["daemon", "runner"] {
        for line in [
            "Type=notify",
            "WatchdogSec=60s",
            "Restart=on-failure",
            "LoadCredential=forge.registration-token",
            "After=network-online.target time-sync.target",
        ] {
            assert!(has(name, line), "forge-{name}.service has no {line}");
        }
        assert!(!text(name).contains("MemoryDenyWriteExecute=y"), "plugins could not be compiled");
    }
    assert!(has("daemon", "StateDirectory=forge") && has("daemon", "LoadCredential=forge.identity"));
    assert!(has("daemon", "User=forge") && has("daemon", "CapabilityBoundingSet="));
    // Promise 5: whatever ends a runner ends its process alone. Any other mode kills what is left in its cgroup.
    assert!(has("runner", "KillMode=process") && has("runner", "OOMPolicy=continue"));
    // Tasks that go on keep their /tmp.
    assert!(!text("runner").contains("\nPrivateTmp="));
    assert!(has("runner", "StateDirectory=forge-runner"));
    // The users that the package makes are those that the unit names, and as many.
    let users = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sysusers/forge.conf"));
    let users = users.expect("forge.conf");
    let ids: Vec<u32> =
        users.lines().filter_map(|line| line.strip_prefix("u forge-")?.split(' ').nth(1)?.parse().ok()).collect();
    let (first, last) = (ids.first().expect("users"), ids.last().expect("users"));
    assert!(has("runner", &format!("Environment=FORGE_RUN_AS={first}-{last}")), "{first}-{last}");
    assert!(ids.iter().copied().eq(*first..=*last), "no gaps: {ids:?}");
    for id in &ids {
        assert!(
            users.contains(&format!("u forge-{id} {id} ")),
            "what a job of user {id} calls itself is its account's name"
        );
    }
}

/// Why the units have no `MemoryDenyWriteExecute=`: systemd's own means for it is this very prctl.
#[test]
fn a_process_that_may_not_make_memory_executable_runs_no_plugin() {
    need("python3", "python3");
    let world = World::new();
    world.template("hello", "", "true");
    let check = |denied: bool| {
        let program = "import ctypes, os, sys\n\
             if sys.argv[1] == 'deny' and ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0: sys.exit(77)\n\
             os.execv(sys.argv[2], sys.argv[2:])";
        let forge = world.forge(&["config", "check", "tree"]);
        let mut command = Command::new("python3");
        command
            .args(["-c", program, if denied { "deny" } else { "allow" }])
            .arg(forge.get_program())
            .args(forge.get_args());
        command.current_dir(world.path("")).output().expect("python3 runs")
    };
    let allowed = check(false);
    assert_eq!(allowed.status.code(), Some(0), "{}", String::from_utf8_lossy(&allowed.stderr));
    let denied = check(true);
    if denied.status.code() == Some(77) {
        // Before Linux 6.3 there is no such prctl; systemd uses a filter of system calls there.
        return;
    }
    assert_ne!(denied.status.code(), Some(0), "plugins compile without executable memory: the units may deny it now");
}

/// `command`, confined as the unit `name` confines it.
fn confined(name: &str, command: &Command) -> Command {
    need("python3", "python3");
    need("systemd-analyze", "systemd");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/confine.py");
    let mut outer = Command::new("python3");
    outer.arg(script).arg(unit(name)).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
    outer
}

#[test]
fn daemon_and_runner_work_with_what_the_units_leave_them() {
    let world = World::new();
    let origin = world.path("origin");
    git::repository(
        &origin,
        "echo \"I am $(id -u)\"; grep NoNewPrivs /proc/self/status; echo made > made; mktemp > /dev/null; (setsid sleep 1000 &)",
    );
    let url = format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display());
    world.write("projects/shop/repositories/app.toml", &url);
    let template = "executor = \"shell\"\nrepository = \"app\"\n[params]\nfile = \"deploy.sh\"\n";
    world.write("projects/shop/templates/deploy.toml", template);
    // The daemon's own git is confined, too.
    gitops::repository(&world, "");
    let daemon = world.daemon_of(confined("daemon", &world.forge(&["daemon", "--config", "forge.toml"])));

    let settings = world.runner_settings(&daemon, "ny-1", "");
    world.register(&settings).expect_code(0);
    for folder in [world.path(""), world.path("ny-1")] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).expect("a folder of this user");
    }
    let mut command = world.forge(&["runner", "--config", utf8(&settings)]);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        command.env("FORGE_RUN_AS", "70000-70031");
    }
    let mut runner = Process::start(confined("runner", &command), &world.path("out"), "ny-1");
    let done = world.ask(&daemon, &["run", "shop/deploy"]);
    let log = done.text();
    assert_eq!(done.status.code(), Some(0), "{log}{}{}", done.stderr, runner.stderr());
    assert!(log.contains("NoNewPrivs:\t1"), "the job inherits it: {log}");
    assert!(!is_root || log.contains("I am 70000\n"), "{log}");
    runner.signal("TERM");
    assert_eq!(runner.wait("the runner leaves").code(), Some(0));
    assert_eq!(daemon.stop().code(), Some(0));
}
