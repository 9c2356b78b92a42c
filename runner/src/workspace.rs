//! The folder that a job works in, and the folder of its secret files.
//!
//! | where | what |
//! |---|---|
//! | `WORKSPACE/repository` | the checkout |
//! | `WORKSPACE/inventory` | the inventory: written here, or the checkout of its own repository |
//! | `WORKSPACE/home`, `WORKSPACE/tmp` | HOME and TMPDIR of the processes |
//! | `PRIVATE/variables.json`, `PRIVATE/keys/` | 0600; the guest knows their paths and cannot read them |
//!
//! Both are made new for each attempt and removed at its end. Nothing here follows a name that a job's author chose.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use forge_api::{Inventory, InventorySource, Job, KeyMaterial};
use serde_json::{Map, Value};

use crate::files;
use crate::git::{Git, GitError};
use crate::user::JobUser;
use crate::wire::Brief;

/// The checkout's folder inside the workspace.
pub(crate) const CHECKOUT: &str = "repository";

/// HOME and TMPDIR of the processes, inside the workspace.
pub(crate) const INSIDE: [&str; 2] = ["home", "tmp"];

/// A workspace that is ready for the job.
pub(crate) struct Prepared {
    /// The commit that was checked out.
    pub(crate) commit: Option<String>,
    /// The path of the inventory.
    pub(crate) inventory: Option<String>,
    /// The file with all variables.
    pub(crate) variables_file: PathBuf,
    /// Key files by role.
    pub(crate) key_files: Vec<(String, String)>,
}

/// The workspace cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    /// A file or folder.
    #[error("{what} cannot be made at {}: {error}", path.display())]
    Io {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The repository.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The inventory is to come from a repository that the template lacks.
    #[error(
        "the inventory {name:?} is the file {path:?} of the template's repository, and the template has none: name one"
    )]
    NoCheckout {
        /// The inventory.
        name: String,
        /// The file.
        path: String,
    },
    /// The inventory's file is not in the checkout.
    #[error("the inventory {name:?} is the file {path:?}, which is not in the checkout")]
    NoInventory {
        /// The inventory.
        name: String,
        /// The file.
        path: String,
    },
    /// The job was told to end.
    #[error("canceled")]
    Canceled,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WorkspaceError + 'a {
    move |error| WorkspaceError::Io { what, path: path.to_owned(), error }
}

/// Makes both folders and everything in them. `commit_known` is called as soon as the commit is.
pub(crate) fn prepare(
    brief: &Brief,
    git: &Git<'_>,
    commit_known: impl FnOnce(&str),
) -> Result<Prepared, WorkspaceError> {
    let Brief { job, workspace, private, .. } = brief;
    // It may be one that was kept: then all of this is there.
    for folder in std::iter::once(workspace.clone()).chain(INSIDE.map(|name| workspace.join(name))) {
        files::make_private_folder(&folder).map_err(failed("the workspace", &folder))?;
    }
    let keys = private.join("keys");
    for folder in [private, &keys] {
        files::make_private_folder(folder).map_err(failed("the folder of secret files", folder))?;
    }
    let commit = match &job.repository {
        None => None,
        Some(repository) => Some(git.check_out(repository, &workspace.join(CHECKOUT), "repository")?),
    };
    if let Some(commit) = &commit {
        commit_known(commit);
    }
    let inventory = match &job.inventory {
        None => None,
        Some(inventory) => Some(place_inventory(inventory, workspace, commit.is_some(), git)?),
    };
    let variables_file = private.join("variables.json");
    let variables = Value::Object(all_variables(job)).to_string();
    files::write_new_private(&variables_file, variables.as_bytes(), 0o600)
        .map_err(failed("the variables' file", &variables_file))?;
    let key_files = write_keys(job, &keys)?;
    if let Some(user) = &brief.user {
        give(user, workspace, private, &[&variables_file, &keys])?;
    }
    Ok(Prepared { commit, inventory, variables_file, key_files })
}

/// Gives the job's user what its processes work with. What else lies in `private`, the keys that git used, stays the runner's.
fn give(user: &JobUser, workspace: &Path, private: &Path, secrets: &[&Path]) -> Result<(), WorkspaceError> {
    for path in [workspace].iter().chain(secrets) {
        user.owns_tree(path).map_err(failed("what belongs to the job's user", path))?;
    }
    File::open(private)
        .and_then(|folder| user.owns_open(folder))
        .map_err(failed("what belongs to the job's user", private))
}

/// Every variable of the job, secret ones included.
fn all_variables(job: &Job) -> Map<String, Value> {
    let secret = job.secret_variables.iter().map(|(name, value)| (name.clone(), Value::from(value.reveal())));
    job.variables.clone().into_iter().chain(secret).collect()
}

fn place_inventory(
    inventory: &Inventory,
    workspace: &Path,
    has_checkout: bool,
    git: &Git<'_>,
) -> Result<String, WorkspaceError> {
    let folder = workspace.join("inventory");
    let written = |name: &str, text: &str| {
        files::make_private_folder(&folder).map_err(failed("the inventory's folder", &folder))?;
        let file = folder.join(name);
        files::write_new_private(&file, text.as_bytes(), 0o600).map_err(failed("the inventory", &file))?;
        Ok(file.display().to_string())
    };
    let inside = |root: &Path, path: &str| {
        let missing = || WorkspaceError::NoInventory { name: inventory.name.clone(), path: path.to_owned() };
        // Resolved on disk: neither `..` nor a symlink of the repository leads out of it.
        let root = root.canonicalize().map_err(|_| missing())?;
        let file = root.join(path).canonicalize().map_err(|_| missing())?;
        if file.starts_with(&root) { Ok(file.display().to_string()) } else { Err(missing()) }
    };
    match &inventory.source {
        InventorySource::Static(text) => written("inventory.ini", text),
        InventorySource::StaticYaml(text) => written("inventory.yml", text),
        InventorySource::File(path) if has_checkout => inside(&workspace.join(CHECKOUT), path),
        InventorySource::File(path) => {
            Err(WorkspaceError::NoCheckout { name: inventory.name.clone(), path: path.clone() })
        }
        InventorySource::RepositoryFile { repository, path } => {
            git.check_out(repository, &folder, "inventory")?;
            inside(&folder, path)
        }
    }
}

/// Writes each key to a file. Beside the role itself there are `ROLE:passphrase` and `ROLE:login` where the key has them, and
/// `ROLE:password` names the file again when it holds a password: where both fit, a plugin must know which one it got.
fn write_keys(job: &Job, folder: &Path) -> Result<Vec<(String, String)>, WorkspaceError> {
    let mut written = Vec::new();
    for (index, entry) in job.keys.iter().enumerate() {
        let mut add = |role: String, kind: &str, text: &str| {
            let file = folder.join(format!("{index}-{kind}"));
            files::write_new_private(&file, text.as_bytes(), 0o600).map_err(failed("a key's file", &file))?;
            written.push((role, file.display().to_string()));
            Ok::<(), WorkspaceError>(())
        };
        let role = &entry.role;
        match &entry.key {
            KeyMaterial::Ssh { login, private_key, passphrase } => {
                add(role.clone(), "key", &ended_line(private_key.reveal()))?;
                if let Some(passphrase) = passphrase {
                    add(format!("{role}:passphrase"), "passphrase", passphrase.reveal())?;
                }
                if let Some(login) = login {
                    add(format!("{role}:login"), "login", login)?;
                }
            }
            KeyMaterial::LoginPassword { login, password } => {
                add(role.clone(), "password", password.reveal())?;
                if !login.is_empty() {
                    add(format!("{role}:login"), "login", login)?;
                }
                let file = folder.join(format!("{index}-password"));
                written.push((format!("{role}:password"), file.display().to_string()));
            }
            KeyMaterial::String { value } => add(role.clone(), "value", value.reveal())?,
        }
    }
    Ok(written)
}

/// ssh refuses a private key whose last line has no end.
pub(crate) fn ended_line(text: &str) -> String {
    format!("{}\n", text.replace("\r\n", "\n").trim_end_matches('\n'))
}

/// Removes a workspace, folders that a job made read-only included.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match files::remove(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(folder)?;
            files::remove(folder)
        }
        other => other,
    }
}

fn open_folders(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The entry's own type: a symlink to a folder is not followed.
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Gid, Uid};

    use super::*;

    /// A user that is not root, from whom the system keeps nothing back otherwise.
    const NOBODY: u32 = 65_534;

    #[test]
    fn folders_that_a_job_closed_are_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let closed = place.path().join("1-1");
        fs::create_dir_all(closed.join("a/b")).expect("made");
        fs::write(closed.join("a/b/x"), "x").expect("written");
        fs::create_dir(closed.join("c")).expect("made");
        std::os::unix::fs::symlink(place.path(), closed.join("a/out")).expect("linked");
        fs::write(place.path().join("outside"), "x").expect("written");
        for (folder, mode) in [("a/b", 0o500), ("a", 0o500), ("c", 0), ("", 0o500)] {
            fs::set_permissions(closed.join(folder), fs::Permissions::from_mode(mode)).expect("closed");
        }
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            for path in ["", "1-1", "1-1/a", "1-1/a/b", "1-1/a/b/x", "1-1/c"].map(|name| place.path().join(name)) {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("given");
            }
        }
        let removed = std::thread::scope(|scope| {
            let removing = scope.spawn(|| {
                if is_root {
                    // This thread alone.
                    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                    rustix::thread::set_thread_res_gid(group, group, group).expect("another group");
                    rustix::thread::set_thread_res_uid(user, user, user).expect("another user");
                }
                assert!(files::remove(&closed).is_err(), "the system lets it stand");
                remove(&closed)
            });
            removing.join().expect("no panic")
        });
        removed.expect("removed");
        assert!(!closed.exists() && place.path().join("outside").exists());
    }
}
