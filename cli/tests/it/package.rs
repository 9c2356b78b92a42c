//! The Debian package: built by cargo-deb from the program that these tests run, looked into with dpkg-deb, and installed by dpkg.
//!
//! The machine that it is installed on is an overlay over this one, in namespaces of its own, without a running systemd: that the units
//! start is what a real machine has to show. Where overlays cannot be mounted (a container, another user than root), the package is
//! looked into and not installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{need, utf8};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The folder of `cargo-deb`: already on the PATH, else installed by `.ci/cargo-deb` into the target folder.
fn cargo_deb() -> Option<PathBuf> {
    if Command::new("cargo-deb").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return None;
    }
    let script = packaging().join("../../.ci/cargo-deb");
    let printed = run(Command::new("sh").arg(script).arg(env!("CARGO_TARGET_TMPDIR")));
    Some(PathBuf::from(printed.trim_end()))
}

/// Packs the program of these tests; answers the package.
fn build(folder: &Path) -> PathBuf {
    need("dpkg-deb", "dpkg");
    need("dpkg-shlibdeps", "dpkg-dev");
    // A target folder that holds this program and nothing else, wherever the real one is and whatever its profile.
    let release = folder.join("target/release");
    std::fs::create_dir_all(&release).expect("a folder");
    std::fs::copy(env!("CARGO_BIN_EXE_forge"), release.join("forge")).expect("copied");
    let path = std::env::var_os("PATH").expect("PATH is set");
    let folders = cargo_deb().into_iter().chain(std::env::split_paths(&path));
    let output = folder.join("out");
    run(Command::new(packaging().join("build-deb"))
        .arg(folder.join("target"))
        .arg(&output)
        .arg("--fast")
        .env("PATH", std::env::join_paths(folders).expect("a PATH")));
    let built = std::fs::read_dir(&output).expect("the output").map(|entry| entry.expect("an entry").path());
    let packages: Vec<PathBuf> = built.filter(|path| path.extension().is_some_and(|found| found == "deb")).collect();
    assert_eq!(packages.len(), 1, "{packages:?}");
    packages.into_iter().next().expect("one")
}

#[test]
fn the_package_installs_units_users_and_settings_and_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = build(folder.path());
    holds_what_it_should(&package);
    installs(folder.path(), &package);
}

fn holds_what_it_should(package: &Path) {
    let field = |name: &str| run(Command::new("dpkg-deb").args(["-f", utf8(package), name])).trim().to_owned();
    assert_eq!(field("Package"), "forge");
    assert!(field("Version").starts_with(env!("CARGO_PKG_VERSION")), "{}", field("Version"));
    let depends = field("Depends");
    assert!(depends.contains("libc6") && depends.contains("git"), "{depends}");
    let listing = run(Command::new("dpkg-deb").args(["-c", utf8(package)]));
    let lines: Vec<&str> = listing.lines().collect();
    for (path, mode) in [
        ("usr/bin/forge", "-rwxr-xr-x"),
        ("usr/lib/systemd/system/forge-daemon.service", "-rw-r--r--"),
        ("usr/lib/systemd/system/forge-runner.service", "-rw-r--r--"),
        ("usr/lib/sysusers.d/forge.conf", "-rw-r--r--"),
        ("etc/forge/forge.toml", "-rw-r--r--"),
        ("usr/share/man/man1/forge-runner.1.gz", "-rw-r--r--"),
        ("usr/share/bash-completion/completions/forge", "-rw-r--r--"),
        ("usr/share/doc/forge/guides/service.md", "-rw-r--r--"),
        ("usr/share/doc/forge/examples/quickstart/plugins/shell.toml", "-rw-r--r--"),
    ] {
        let found = lines.iter().find(|line| line.ends_with(&format!(" ./{path}")));
        let found = found.unwrap_or_else(|| panic!("{path} is not in the package:\n{listing}"));
        assert!(found.starts_with(mode) && (found.contains(" root/root ") || found.contains(" 0/0 ")), "{found}");
    }
    assert!(!listing.contains(".wants/"), "nothing is enabled by a link: {listing}");
    let control = |name: &str| run(Command::new("dpkg-deb").args(["-I", utf8(package), name]));
    assert_eq!(control("conffiles").trim(), "/etc/forge/forge.toml");
    for script in ["postinst", "prerm", "postrm"] {
        let text = control(script);
        let parsed = Command::new("sh").args(["-n", "-c", &text]).output().expect("sh runs");
        assert!(parsed.status.success(), "{script}: {}", said(&parsed));
        for word in ["enable ", "systemctl start", "deb-systemd", "invoke-rc.d"] {
            assert!(!text.contains(word), "{script} starts or enables something: {text}");
        }
    }
}

/// Installs, upgrades, starts by hand, removes and purges it on an overlay over this machine. Each step prints what the test reads.
const STORY: &str = include_str!("package.sh");

fn installs(folder: &Path, package: &Path) {
    if !rustix::process::geteuid().is_root() {
        drop(std::io::stderr().write_all(b"\nNOT TESTED without root: what the package does when it is installed\n"));
        return;
    }
    for name in ["upper", "root"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", STORY]);
    let output = command.env("FOLDER", folder).env("PACKAGE", package).output().expect("unshare runs");
    let text = said(&output);
    if text.contains("NO-OVERLAY") || text.contains("unshare failed") {
        return;
    }
    assert!(output.status.success() && text.contains("== end"), "{text}");
    let part = |name: &str| -> String {
        let (_, rest) = text.split_once(&format!("== {name}\n")).unwrap_or_else(|| panic!("no {name}: {text}"));
        rest.split("\n== ").next().unwrap_or_default().to_owned()
    };
    let installed = part("installed");
    for line in [
        "install ok installed",
        &format!("forge {}", env!("CARGO_PKG_VERSION")),
        "/etc/forge root:forge 750",
        "/etc/forge/config root:forge 750",
        "/etc/forge/forge.toml root:root 644",
    ] {
        assert!(installed.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }
    assert!(installed.contains("\nforge-70000:x:70000:70000:"), "{text}");
    assert!(installed.contains("\nforge-70031:x:70031:70031:"), "{text}");
    assert!(!installed.contains("/etc/systemd"), "nothing is enabled: {text}");
    assert!(part("started").contains("the daemon served"), "{text}");
    // A machine without systemd gets the same users.
    let by_useradd = part("by useradd");
    for user in ["forge:x:", "forge-70000:x:70000:70000:", "forge-70031:x:70031:70031:"] {
        assert!(by_useradd.lines().any(|line| line.starts_with(user)), "{user} is missing:\n{text}");
    }
    // An upgrade keeps what the administrator changed.
    assert!(part("upgrade").ends_with("# mine\n700"), "{text}");
}
