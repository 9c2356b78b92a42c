//! runner.toml as setup writes it: every answer with a line that says what it is. Its own reader decides what is a good answer.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::{CliError, file_error};

/// Everyone may read it: it holds no secret.
const MODE: u32 = 0o644;

/// What stands for the daemon while another answer is checked.
const SOME_WEB_HOST: &str = "https://forge.example.com";

/// The answers, as text.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) web_host: String,
    /// A file, a fingerprint, or empty for a public CA.
    pub(super) authority: String,
    pub(super) name: String,
    pub(super) tmp_path: String,
    pub(super) token_file: String,
    pub(super) private_key_file: String,
    pub(super) max_parallel_tasks: String,
}

impl Answers {
    /// The file.
    pub(super) fn text(&self) -> String {
        let authority = match authority_key(&self.authority) {
            None => "# ca_file or ca_fingerprint: whom to believe; this machine's own CAs without either".to_owned(),
            Some("ca_file") => {
                format!("# The CA that the daemon's certificate comes from.\nca_file = {}", string(&self.authority))
            }
            Some(key) => format!(
                "# The CA that the daemon's certificate comes from, by its SHA-256.\n{key} = {}",
                string(&self.authority)
            ),
        };
        format!(
            "\
# A runner of Forge, written by `forge runner setup`. What it may do is said in the tree, in runners/NAME.toml.
# Every key has an environment variable that wins over it: see docs/guides/install.md.

# The daemon.
web_host = {web_host}
{authority}

# Workspaces, git cache and the spool of logs that the daemon has not acknowledged yet. It belongs to this runner alone.
tmp_path = {tmp_path}

[runner]
name = {name}

# Written by `forge runner register`, for this user alone. The key is made here and never leaves.
token_file = {token_file}
private_key_file = {private_key_file}

# How many tasks at a time, 0 for unlimited; the smaller of this and runners/NAME.toml counts.
max_parallel_tasks = {max_parallel_tasks}

# true: leave after the first task.
one_off = false
",
            web_host = string(&self.web_host),
            tmp_path = string(&self.tmp_path),
            name = string(&self.name),
            token_file = string(&self.token_file),
            private_key_file = string(&self.private_key_file),
            max_parallel_tasks = self.max_parallel_tasks,
        )
    }
}

/// Which key an answer to the question of the CA belongs to.
fn authority_key(answer: &str) -> Option<&'static str> {
    match answer {
        "" => None,
        fingerprint if fingerprint.starts_with("sha256:") => Some("ca_fingerprint"),
        _ => Some("ca_file"),
    }
}

/// Refuses what is neither a file that is there, nor a fingerprint, nor empty.
pub(super) fn check_authority(answer: &str) -> Result<(), CliError> {
    let Some(key) = authority_key(answer) else { return Ok(()) };
    check(key, answer)?;
    if key == "ca_file" {
        forge_runner::trust::client_config(&forge_runner::trust::Trust::CaFile(answer.into()))
            .map_err(CliError::failed)?;
    }
    Ok(())
}

/// Refuses what runner.toml could not hold under this key.
pub(super) fn check(key: &str, answer: &str) -> Result<(), CliError> {
    let is_number = !answer.is_empty() && answer.bytes().all(|byte| byte.is_ascii_digit());
    let value = if key == "max_parallel_tasks" && is_number { answer.to_owned() } else { string(answer) };
    let text = match key {
        "web_host" => format!("{key} = {value}\n"),
        "ca_file" | "ca_fingerprint" | "tmp_path" => format!("web_host = {SOME_WEB_HOST:?}\n{key} = {value}\n"),
        _ => format!("web_host = {SOME_WEB_HOST:?}\n[runner]\n{key} = {value}\n"),
    };
    let Err(mistakes) = forge_config::runner_settings("the answer", Some(&text), &BTreeMap::new()) else {
        return Ok(());
    };
    let Some(first) = mistakes.into_iter().find(forge_config::Diagnostic::is_error) else { return Ok(()) };
    let error = CliError::usage(first.message);
    Err(match first.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// A TOML string of any text.
fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Puts the file in its place, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let failed = |error: std::io::Error| {
        file_error("write", path, &error).hint("name a file in a folder that this user may write in with --config FILE")
    };
    let mut file = tempfile::Builder::new().prefix(".forge-").tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was_answered() {
        for (authority, name) in
            [("", "ny-1"), ("/etc/a \"b\".pem", "x"), (&*format!("sha256:{}", "ab".repeat(32)), "y")]
        {
            let answers = Answers {
                web_host: "https://forge.example.com:8443".to_owned(),
                authority: authority.to_owned(),
                name: name.to_owned(),
                tmp_path: "/var/lib/a b".to_owned(),
                token_file: "/var/lib/t\\oken".to_owned(),
                private_key_file: "/k".to_owned(),
                max_parallel_tasks: "3".to_owned(),
            };
            let read = forge_config::runner_settings("runner.toml", Some(&answers.text()), &BTreeMap::new());
            let (read, warnings) = read.expect("good settings");
            assert!(warnings.is_empty());
            assert_eq!(read.runner.name.expect("a name").as_str(), name);
            assert_eq!(read.runner.token_file, Path::new("/var/lib/t\\oken"));
            assert_eq!((read.tmp_path.as_path(), read.runner.max_parallel_tasks), (Path::new("/var/lib/a b"), 3));
        }
    }

    #[test]
    fn a_bad_answer_is_refused_in_the_words_of_the_file() {
        for (key, answer, says) in [
            ("web_host", "forge.example.com", "https://"),
            ("web_host", "http://forge.example.com", "HTTPS only"),
            ("name", "New York", "name"),
            ("ca_fingerprint", "sha256:ab", "ca_fingerprint"),
            ("max_parallel_tasks", "many", "max_parallel_tasks"),
            ("tmp_path", "", "tmp_path"),
        ] {
            let error = check(key, answer).expect_err(answer);
            assert!(format!("{error:?}").contains(says), "{key} = {answer}: {error:?}");
        }
        assert!(check_authority("/nowhere/ca.pem").is_err());
    }
}
