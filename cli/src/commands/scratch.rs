//! A temporary folder with all that a daemon and its runners need: what `forge demo` and `forge bench` set up alike.

use std::path::{Path, PathBuf};

use forge_api::Secret;
use forge_daemon::TokenKind;

use crate::error::{CliError, file_error};

/// The daemon's settings in the folder.
pub(super) const DAEMON_FILE: &str = "forge.toml";

/// The watched tree in the folder.
pub(super) const TREE: &str = "tree";

/// The daemon's data folder in the folder.
pub(super) const DATA: &str = "data";

/// Tokens that were made for this folder alone.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) registration: Secret,
    pub(super) access: Secret,
}

/// What a runner's settings say.
#[derive(Debug)]
pub(super) struct RunnerFile<'a> {
    pub(super) api: &'a str,
    pub(super) ca_file: &'a Path,
    pub(super) name: &'a str,
    /// 0 is unlimited.
    pub(super) max_parallel_tasks: u32,
}

/// Makes a folder in the system's temporary one; it goes away when it is dropped.
pub(super) fn folder(prefix: &str) -> Result<tempfile::TempDir, CliError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .map_err(|error| file_error("make a temporary folder in", &std::env::temp_dir(), &error))
}

/// Writes the daemon's settings and what `more` adds to them, an access token with every right, and a registration token: for one runner, or
/// for any.
pub(super) fn prepare(folder: &Path, only_runner: Option<&str>, more: &str) -> Result<Tokens, CliError> {
    let tree = folder.join(TREE);
    let (registration, registration_hash) =
        forge_daemon::new_token(TokenKind::Registration).map_err(CliError::failed)?;
    let bound = only_runner.map_or_else(String::new, |name| format!("runner = {}\n", quoted(name)));
    write(&tree.join("registration-tokens/scratch.toml"), &format!("hash   = \"{registration_hash}\"\n{bound}"))?;
    let (access, access_hash) = forge_daemon::new_token(TokenKind::Access).map_err(CliError::failed)?;
    write(&tree.join("access/you.toml"), &format!("hash = \"{access_hash}\"\nrole = \"admin\"\n"))?;
    write(
        &folder.join(DAEMON_FILE),
        &format!(
            "data_dir = {}\n\n[listen]\napi     = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n\n[source]\npath = {}\n{more}",
            quoted_path(&folder.join(DATA)),
            quoted_path(&tree)
        ),
    )?;
    Ok(Tokens { registration, access })
}

/// Makes a runner's home with its settings in it, once the daemon's address is known; answers where they lie.
pub(super) fn write_runner(home: &Path, runner: &RunnerFile<'_>) -> Result<PathBuf, CliError> {
    let RunnerFile { api, ca_file, name, max_parallel_tasks } = *runner;
    let file = home.join("runner.toml");
    write(
        &file,
        &format!(
            "web_host = {}\ntmp_path = {}\nca_file  = {}\n\n[runner]\nname               = {}\ntoken_file         = {}\nprivate_key_file   = {}\nmax_parallel_tasks = {max_parallel_tasks}\n",
            quoted(api),
            quoted_path(&home.join("tmp")),
            quoted_path(ca_file),
            quoted(name),
            quoted_path(&home.join("token")),
            quoted_path(&home.join("private.key")),
        ),
    )?;
    Ok(file)
}

/// Writes a file, and makes the folders above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| file_error("make", folder, &error))?;
    }
    std::fs::write(path, text).map_err(|error| file_error("write", path, &error))
}

/// A text as a TOML string: JSON's escapes are TOML's.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// A path as a TOML string.
pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}
