//! The demo's temporary folder: a copy of `examples/quickstart`, a git repository that it names, tokens, and the settings of daemon and runner.

use std::path::Path;
use std::process::Command;

use forge_api::Secret;
use forge_daemon::TokenKind;

use crate::error::{CliError, file_error};

/// `examples/quickstart`, inside the binary so that an installed `forge` shows the same as a checkout.
const QUICKSTART: &[(&str, &str)] = &[
    ("plugins/shell.toml", include_str!("../../../../examples/quickstart/plugins/shell.toml")),
    (
        "projects/demo/environments/greeting.toml",
        include_str!("../../../../examples/quickstart/projects/demo/environments/greeting.toml"),
    ),
    (
        "projects/demo/inventories/local.toml",
        include_str!("../../../../examples/quickstart/projects/demo/inventories/local.toml"),
    ),
    ("projects/demo/project.toml", include_str!("../../../../examples/quickstart/projects/demo/project.toml")),
    (
        "projects/demo/repositories/app.toml",
        include_str!("../../../../examples/quickstart/projects/demo/repositories/app.toml"),
    ),
    (
        "projects/demo/templates/from-git.toml",
        include_str!("../../../../examples/quickstart/projects/demo/templates/from-git.toml"),
    ),
    (
        "projects/demo/templates/hello.toml",
        include_str!("../../../../examples/quickstart/projects/demo/templates/hello.toml"),
    ),
    ("runners/demo-runner.toml", include_str!("../../../../examples/quickstart/runners/demo-runner.toml")),
];

/// The script of the demo's git repository.
const DEPLOY_SCRIPT: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo "deploying commit ${FORGE_COMMIT:0:12} of $(git log -1 --format=%an)'s repository, as task $FORGE_TASK"
for step in fetch build switch; do
  echo "  $step ... done"
done
"#;

/// Tokens that the demo made for itself.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) registration: Secret,
    pub(super) access: Secret,
}

/// Fills `folder` with all that the daemon reads.
pub(super) fn prepare(folder: &Path) -> Result<Tokens, CliError> {
    let tree = folder.join("tree");
    for (path, text) in QUICKSTART {
        write(&tree.join(path), text)?;
    }
    let repository = folder.join("app");
    make_repository(&repository)?;
    write(
        &tree.join("projects/demo/repositories/app.toml"),
        &format!("url    = {}\nbranch = \"main\"\n", quoted(&format!("file://{}", repository.display()))),
    )?;
    let (registration, registration_hash) =
        forge_daemon::new_token(TokenKind::Registration).map_err(CliError::failed)?;
    write(
        &tree.join("registration-tokens/demo.toml"),
        &format!("hash   = \"{registration_hash}\"\nrunner = \"demo-runner\"\n"),
    )?;
    let (access, access_hash) = forge_daemon::new_token(TokenKind::Access).map_err(CliError::failed)?;
    write(&tree.join("access/you.toml"), &format!("hash = \"{access_hash}\"\nrole = \"admin\"\n"))?;
    write(
        &folder.join("forge.toml"),
        &format!(
            "data_dir = {}\n\n[listen]\napi     = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n\n[source]\npath = {}\n",
            quoted_path(&folder.join("data")),
            quoted_path(&tree)
        ),
    )?;
    Ok(Tokens { registration, access })
}

/// Writes the runner's settings, once the daemon's address is known.
pub(super) fn write_runner_settings(folder: &Path, api: &str, ca_file: &Path, name: &str) -> Result<(), CliError> {
    let home = folder.join("runner");
    write(
        &folder.join("runner.toml"),
        &format!(
            "web_host = {}\ntmp_path = {}\nca_file  = {}\n\n[runner]\nname             = {}\ntoken_file       = {}\nprivate_key_file = {}\n",
            quoted(api),
            quoted_path(&home.join("tmp")),
            quoted_path(ca_file),
            quoted(name),
            quoted_path(&home.join("token")),
            quoted_path(&home.join("private.key")),
        ),
    )?;
    std::fs::create_dir_all(&home).map_err(|error| file_error("make", &home, &error))
}

fn make_repository(folder: &Path) -> Result<(), CliError> {
    write(&folder.join("deploy.sh"), DEPLOY_SCRIPT)?;
    git(folder, &["init", "--quiet", "--initial-branch=main"])?;
    git(folder, &["add", "deploy.sh"])?;
    let identity = ["-c", "user.name=Forge demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false"];
    git(folder, &[&identity[..], &["commit", "--quiet", "-m", "Deploy in three steps"]].concat())
}

fn git(folder: &Path, arguments: &[&str]) -> Result<(), CliError> {
    let ran = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output();
    let output = ran.map_err(|error| {
        CliError::failed(format_args!("cannot run git: {error}")).hint("the demo makes a git repository: install git")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(CliError::failed(format_args!("git failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| file_error("make", folder, &error))?;
    }
    std::fs::write(path, text).map_err(|error| file_error("write", path, &error))
}

/// A text as a TOML string: JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::QUICKSTART;

    /// Every file of the example is in the binary, and nothing that is not.
    #[test]
    fn the_binary_holds_the_whole_example() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the example is there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "toml") {
                    found.push(path.strip_prefix(&root).expect("below the root").display().to_string());
                }
            }
        }
        found.sort();
        let mut held: Vec<&str> = QUICKSTART.iter().map(|(path, _)| *path).collect();
        held.sort_unstable();
        assert_eq!(found, held);
    }
}
