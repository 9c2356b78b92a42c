//! What the playbook needs from Galaxy: the requirements files of the checkout are installed before the playbook runs.
//!
//! Where the job has a cache, and every requirement has a fixed version, what was installed stays there as a set: the next attempt with
//! the same requirements takes it, and asks no server. `forge_galaxy.py` says how. Otherwise it goes into the workspace, for this attempt.

use forge_plugin::{Command, Exit, Failed, Failure, Finished, Host, HostError, Job, Level};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::{PLAYBOOK, missing_program};

/// The program that installs.
pub(crate) const GALAXY: &str = "ansible-galaxy";

/// Which file is installed with which command. The one at the top may hold both kinds, which only the plain command takes.
const REQUIREMENTS: [(&str, &[&str]); 3] = [
    ("roles/requirements", &["role", "install"]),
    ("collections/requirements", &["collection", "install"]),
    ("requirements", &["install"]),
];

/// How the files' names end.
const ENDINGS: [&str; 2] = ["yml", "yaml"];

/// The callback that looks into the cache. It has a folder of its own: the playbook's run is none of its business.
const CALLBACK: &str = include_str!("forge_galaxy.py");

/// Where it and what it is told lie, beside the checkout.
const FOLDER: &str = "forge-ansible/galaxy";

/// What carries the callback: nothing is done.
const EMPTY_PLAYBOOK: &str = "- hosts: localhost\n  gather_facts: false\n";

/// The most that the callback tells, in bytes.
const OUTCOME_BYTES_MAX: u32 = 64 * 1024;

/// A requirements file, and the command that installs it.
struct File {
    path: String,
    command: &'static [&'static str],
}

/// A folder with what was installed, and what Ansible looks through besides.
pub(crate) struct Set {
    folder: String,
    roles: Vec<String>,
    collections: Vec<String>,
}

/// What the callback says of a step.
#[derive(Default, Deserialize)]
struct Told {
    /// Why nothing is kept.
    not_kept: Option<String>,
    folder: Option<String>,
    #[serde(default)]
    key: String,
    #[serde(default)]
    is_kept: bool,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    collections: Vec<String>,
}

impl Set {
    /// Has a command find what was installed.
    pub(crate) fn found_by(&self, command: Command) -> Command {
        let Self { folder, roles, collections } = self;
        let path = |kind: &str, more: &[String]| [&[format!("{folder}/{kind}")], more].concat().join(":");
        command
            .env("ANSIBLE_ROLES_PATH", path("roles", roles))
            .env("ANSIBLE_COLLECTIONS_PATH", path("collections", collections))
    }
}

/// Installs what the checkout, and the playbook's own folder in it, ask for. Without a set Ansible finds it by itself.
pub(crate) fn install(ground: &Ground, job: &Job, playbook: &str, host: &mut dyn Host) -> Result<Option<Set>, Failure> {
    let files = find(ground, playbook, host)?;
    if files.is_empty() {
        return Ok(None);
    }
    let told = match &job.cache {
        Some(cache) => look(ground, cache, &files, host)?,
        None => Told::default(),
    };
    if let Some(reason) = told.not_kept {
        host.log(Level::Info, &format!("the requirements are installed for this attempt alone: {reason}"), &[]);
    }
    let Some(folder) = told.folder else {
        for file in &files {
            install_file(ground.command(GALAXY), file, host)?;
        }
        return Ok(None);
    };
    let mut set = Set { folder, roles: told.roles, collections: told.collections };
    if told.is_kept {
        host.log(Level::Info, "taking roles and collections that an earlier task installed", &[]);
        return Ok(Some(set));
    }
    // Alone: what lies elsewhere on the runner may go, and the set stays.
    let alone = Set { folder: set.folder.clone(), roles: Vec::new(), collections: Vec::new() };
    for file in &files {
        if let Err(failure) = install_file(alone.found_by(ground.command(GALAXY)), file, host) {
            // The failure counts. What cannot be removed now goes with the next look, some day.
            let _ = step(ground, json!({ "step": "drop", "folder": set.folder }), host);
            return Err(failure);
        }
    }
    let plan = json!({ "step": "keep", "folder": set.folder, "key": told.key });
    let Told { not_kept, folder, .. } = step(ground, plan, host)?;
    if let Some(reason) = not_kept {
        host.log(Level::Warn, &format!("what was installed cannot be kept for the next task: {reason}"), &[]);
    }
    if let Some(folder) = folder {
        set.folder = folder;
    }
    Ok(Some(set))
}

/// The requirements files that are there.
fn find(ground: &Ground, playbook: &str, host: &mut dyn Host) -> Result<Vec<File>, Failure> {
    let of_playbook = playbook.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
    let folders = std::iter::once(String::new()).chain(of_playbook);
    let mut found = Vec::new();
    for folder in folders {
        for (name, command) in REQUIREMENTS {
            for ending in ENDINGS {
                let path = format!("{folder}{name}.{ending}");
                match host.read(&format!("{}/{path}", ground.checkout), 0, 0) {
                    Ok(_) => found.push(File { path, command }),
                    Err(HostError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(found)
}

fn look(ground: &Ground, cache: &str, files: &[File], host: &mut dyn Host) -> Result<Told, Failure> {
    host.write(&format!("{FOLDER}/forge_galaxy.py"), CALLBACK.as_bytes())?;
    host.write(&format!("{FOLDER}/empty.yml"), EMPTY_PLAYBOOK.as_bytes())?;
    let files: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    step(ground, json!({ "step": "look", "cache": cache, "files": files }), host)
}

/// Has the callback do a step. What goes wrong in it is in the log, and costs no more than the cache.
fn step(ground: &Ground, mut plan: Value, host: &mut dyn Host) -> Result<Told, Failure> {
    let name = plan["step"].as_str().unwrap_or_default().to_owned();
    let at = |file: String| (format!("{FOLDER}/{file}"), ground.path_of(&format!("{FOLDER}/{file}")));
    let (plan_file, plan_path) = at(format!("{name}.json"));
    let (outcome_file, outcome_path) = at(format!("{name}-outcome.json"));
    plan["outcome"] = Value::from(outcome_path);
    host.write(&plan_file, plan.to_string().as_bytes())?;
    let command = ground
        .command(PLAYBOOK)
        .args(["--inventory=localhost,", &ground.path_of(&format!("{FOLDER}/empty.yml"))])
        // Neither the recap nor the project's own callbacks have a part in it.
        .env("ANSIBLE_CALLBACK_PLUGINS", ground.path_of(FOLDER))
        .env("ANSIBLE_CALLBACKS_ENABLED", "forge_galaxy")
        .env("ANSIBLE_STDOUT_CALLBACK", "minimal")
        .env("ANSIBLE_FORGE_GALAXY", plan_path);
    match host.run(command) {
        Ok(Finished { .. }) => {}
        Err(HostError::NotFound(message)) => return Err(missing_program(PLAYBOOK, &message)),
        Err(error) => return Err(error.into()),
    }
    let told = match host.read(&outcome_file, 0, OUTCOME_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).ok(),
        Err(HostError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(told.unwrap_or_else(|| Told {
        not_kept: Some("Ansible did not look into the cache; its words are in the log".to_owned()),
        ..Told::default()
    }))
}

fn install_file(command: Command, File { path, command: words }: &File, host: &mut dyn Host) -> Result<(), Failure> {
    host.log(Level::Info, &format!("installing {path} with {GALAXY}"), &[]);
    // The `./` keeps a name from being an option.
    let command = command.args(words.iter().copied()).args(["-r", &format!("./{path}")]);
    let Finished { exit, stdout_tail: _, stderr_tail: _ } = match host.run(command) {
        Ok(finished) => finished,
        Err(HostError::NotFound(message)) => return Err(missing_program(GALAXY, &message)),
        Err(error) => return Err(error.into()),
    };
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(_) | Exit::Signal(_) | Exit::TimedOut => Err(Failure::Failed(Failed {
            message: format!(
                "{GALAXY} did not install {path}: {exit}; its words are in the log. `galaxy = false` in [params] leaves it out"
            ),
            exit_code: exit.code(),
            output_json: None,
        })),
    }
}
