//! The demo's tree: a copy of `examples/quickstart`, and the git repository that it names.

use std::path::Path;
use std::process::Command;

use crate::commands::scratch::{self, Tokens};
use crate::error::CliError;

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

/// Fills `folder` with all that the daemon reads.
pub(super) fn prepare(folder: &Path, runner: &str) -> Result<Tokens, CliError> {
    let tree = folder.join(scratch::TREE);
    for (path, text) in QUICKSTART {
        scratch::write(&tree.join(path), text)?;
    }
    let repository = folder.join("app");
    make_repository(&repository)?;
    scratch::write(
        &tree.join("projects/demo/repositories/app.toml"),
        &format!("url    = {}\nbranch = \"main\"\n", scratch::quoted(&format!("file://{}", repository.display()))),
    )?;
    scratch::prepare(folder, Some(runner), "")
}

fn make_repository(folder: &Path) -> Result<(), CliError> {
    scratch::write(&folder.join("deploy.sh"), DEPLOY_SCRIPT)?;
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
