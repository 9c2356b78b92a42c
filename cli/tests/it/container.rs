//! The runner's Containerfile. No container engine runs here, so it is read and not built: each instruction has to be one, what it
//! copies and installs is looked at, and its ENTRYPOINT runs as a plain process with its ENV and nothing else of this machine's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::{Process, World, wait_for};

/// What may begin a line of a Containerfile.
const INSTRUCTIONS: &[&str] =
    &["ARG", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

/// Names with their values, in the file's order.
type Pairs = Vec<(String, String)>;

/// The instructions of the last stage, and those of all.
fn read() -> (Pairs, Pairs) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/Containerfile");
    let text = std::fs::read_to_string(path).expect("the Containerfile");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let all: Vec<(String, String)> = lines
        .map(|line| {
            line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).expect("two words")
        })
        .collect();
    let last = all.iter().rposition(|(word, _)| word == "FROM").expect("a stage");
    (all[last..].to_vec(), all)
}

fn one<'a>(stage: &'a [(String, String)], word: &str) -> &'a str {
    let mut found = stage.iter().filter(|(name, _)| name == word);
    let value = found.next().unwrap_or_else(|| panic!("no {word}"));
    assert!(found.next().is_none(), "{word} stands twice");
    &value.1
}

#[test]
fn the_containerfile_is_one_and_takes_what_the_repository_has() {
    let (stage, all) = read();
    for (word, rest) in &all {
        assert!(INSTRUCTIONS.contains(&word.as_str()), "{word} {rest}");
        if word == "RUN" {
            let parsed = Command::new("sh").args(["-n", "-c", rest]).output().expect("sh runs");
            assert!(parsed.status.success(), "{rest}: {}", String::from_utf8_lossy(&parsed.stderr));
        }
    }
    // The toolchain is the one that Cargo.toml asks for.
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(all[0].1.contains(&format!("rust:{}-", version.trim_matches('"'))), "{}", all[0].1);
    assert!(all.iter().any(|(_, rest)| rest.contains("cargo build --release --locked --bin forge")));
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources: Vec<&str> = all
        .iter()
        .filter(|(word, rest)| word == "COPY" && !rest.starts_with("--"))
        .flat_map(|(_, rest)| rest.split(' ').rev().skip(1))
        .collect();
    for source in &sources {
        assert!(top.join(source).exists(), "{source} is not in the repository");
    }
    let members = manifest.lines().filter_map(|line| line.strip_prefix("    \"")?.strip_suffix("\","));
    for member in members.filter(|member| top.join(member).join("Cargo.toml").is_file()) {
        let room = member.split('/').next().expect("a room");
        assert!(sources.contains(&room), "{member} is not copied");
    }
    let copied: Vec<&str> = stage.iter().filter(|(word, _)| word == "COPY").map(|(_, rest)| rest.as_str()).collect();
    assert_eq!(copied, ["--from=build /src/target/release/forge /usr/local/bin/forge"]);
    // Not root, in a folder that is kept, and told to stop as a runner drains.
    let user = one(&stage, "USER");
    let runs: String = stage.iter().filter(|(word, _)| word == "RUN").map(|(_, rest)| rest.as_str()).collect();
    assert!(user != "root" && runs.contains("useradd") && runs.contains(user), "{runs}");
    assert_eq!(one(&stage, "VOLUME"), one(&stage, "WORKDIR"));
    assert_eq!(one(&stage, "STOPSIGNAL"), "SIGTERM");
    for package in ["bash", "git", "openssh-client", "ca-certificates"] {
        assert!(runs.split_whitespace().any(|word| word == package), "{package} is not installed");
    }
}

#[test]
fn its_entrypoint_registers_and_works_with_the_environment_alone() {
    let (stage, _) = read();
    let entrypoint: Vec<String> = serde_json::from_str(one(&stage, "ENTRYPOINT")).expect("a list in JSON");
    assert_eq!(entrypoint, ["forge", "runner"]);
    let environment: BTreeMap<&str, &str> =
        one(&stage, "ENV").split_whitespace().map(|pair| pair.split_once('=').expect("NAME=value")).collect();
    assert_eq!(environment["FORGE_TMP_PATH"], one(&stage, "VOLUME"), "the registration is kept");

    let world = World::new();
    world.template("hello", "", "echo \"hello from $FORGE_RUNNER\"");
    let daemon = world.daemon();
    let fingerprint = wait_for("the daemon prints it", || {
        let log = daemon.process.stderr();
        let (_, rest) = log.split_once("fingerprint=\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    });
    let volume = world.path("volume");
    std::fs::create_dir(&volume).expect("a volume");
    let start = |more: &[(&str, &str)]| {
        let arguments: Vec<&str> = entrypoint.iter().skip(1).map(String::as_str).collect();
        let mut command = world.forge(&arguments);
        command.env_clear().current_dir(&volume).env("PATH", std::env::var_os("PATH").expect("PATH is set"));
        // The image's variables; only the folder is this world's instead of the image's.
        command.envs(&environment).env("FORGE_TMP_PATH", &volume);
        command.envs([
            ("FORGE_WEB_ROOT", daemon.api.as_str()),
            ("FORGE_CA_FINGERPRINT", &fingerprint),
            ("FORGE_RUNNER_NAME", "box-1"),
        ]);
        command.envs(more.iter().copied());
        Process::start(command, &world.path("out"), "box-1")
    };
    let mut first = start(&[("FORGE_RUNNER_REGISTRATION_TOKEN", world.registration_token())]);
    let done = world.ask(&daemon, &["run", "shop/hello"]);
    assert!(done.text().contains("hello from box-1"), "{}{}{}", done.text(), done.stderr, first.stderr());
    // What `podman stop` does.
    first.signal("TERM");
    assert_eq!(first.wait("the container stops").code(), Some(0));
    // The same volume in a new container: it is registered already, and needs no token.
    let _second = start(&[]);
    world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
}
