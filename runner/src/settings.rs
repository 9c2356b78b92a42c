//! What a runner is told when it starts: the meaning of `runner.toml` and its environment, with every default applied.
//!
//! The command line reads the file; this module holds the result and refuses what no runner could work with. It reads nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_api::Secret;

use crate::trust::Trust;

/// Everything that a runner needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon's public URL: `https://...`, or `http://...` towards an address that is loopback or private.
    pub web_host: String,
    /// The folder for workspaces, git caches, compiled plugins and the spool. It belongs to this runner alone.
    pub tmp_path: PathBuf,
    /// A configuration for ssh, used when git goes over ssh.
    pub ssh_config_path: Option<PathBuf>,
    /// The git program, `git` by default.
    pub git_client: String,
    /// Which certificates of the daemon are believed.
    pub trust: Trust,
    /// The runner's name.
    pub name: String,
    /// Where the runner's token lies; written by [`crate::register`].
    pub token_file: PathBuf,
    /// The token itself where the environment gives it; it wins over the file.
    pub token: Option<Secret>,
    /// Where the private key lies; made by [`crate::register`].
    pub private_key_file: PathBuf,
    /// How many attempts run at a time; 0 is unlimited.
    pub max_parallel_tasks: u32,
    /// Whether the runner leaves after the first attempt's end is acknowledged.
    pub one_off: bool,
    /// What starts a supervisor: this program and the arguments that lead to [`crate::supervise`].
    pub supervisor_command: Vec<OsString>,
    /// How long processes have between TERM and KILL, in milliseconds; [`STOP_GRACE_MS_DEFAULT`] by default.
    pub stop_grace_ms: u64,
    /// How much longer than that a supervisor may take to obey an order before it is killed, in milliseconds;
    /// [`OBEY_MARGIN_MS_DEFAULT`] by default.
    pub obey_margin_ms: u64,
    /// Whose processes the jobs' are; the runner's own user where it is `None`.
    pub run_as: Option<RunAs>,
    /// Whether the workspace of an attempt that failed is kept.
    pub keep_failed_workspaces: bool,
    /// Below this much free space where [`Settings::tmp_path`] lies it asks for no work, in bytes.
    pub disk_reserve_bytes: u64,
    /// Names of variables of the runner's own environment that every job sees.
    pub pass_env: Vec<String>,
    /// How often [`crate::Event::Alive`] is due; never where it is `None`.
    pub alive_interval: Option<Duration>,
    /// The program's version.
    pub version: String,
}

/// Whose processes a job's are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// One user by name, for all jobs.
    User(String),
    /// User ids without accounts, one an attempt.
    Range {
        /// The first.
        first: u32,
        /// The last, included.
        last: u32,
    },
}

/// How long processes have between TERM and KILL where nothing else is said, in milliseconds.
pub const STOP_GRACE_MS_DEFAULT: u64 = 10_000;

/// How much longer than the processes' own grace a supervisor may take to obey an order, in milliseconds. It waits for processes that
/// hang in the kernel, too, and writes the rest of the log.
pub const OBEY_MARGIN_MS_DEFAULT: u64 = 60_000;

/// The settings contradict themselves or the machine.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL is none.
    #[error(
        "web_host = {url:?} is no URL: {reason}; write the daemon's address, such as \"https://forge.example.com\""
    )]
    Url {
        /// As written.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL would send tokens in clear over a public network.
    #[error(
        "web_host = {url:?} is plain HTTP to a host that is neither loopback nor a private address: tokens would travel in clear; write https://"
    )]
    PlainHttp {
        /// As written.
        url: String,
    },
    /// The name cannot be one.
    #[error(
        "[runner].name = {name:?} is no name: write a-z, 0-9 and `-`, at most 63, beginning with a letter or digit"
    )]
    Name {
        /// As written.
        name: String,
    },
    /// There is nothing to start supervisors with.
    #[error(
        "supervisor_command is empty: it names the program that runs an attempt, such as [\"forge\", \"supervise\"]"
    )]
    NoSupervisor,
}

impl Settings {
    /// Refuses settings that could not work, before anything is asked or written.
    pub fn check(&self) -> Result<(), SettingsError> {
        base_url(&self.web_host)?;
        let mut letters = self.name.bytes();
        let first = letters.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let rest = letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !first || !rest || self.name.len() > 63 {
            return Err(SettingsError::Name { name: self.name.clone() });
        }
        if self.supervisor_command.is_empty() {
            return Err(SettingsError::NoSupervisor);
        }
        Ok(())
    }

    /// Where the daemon's pinned signing key lies.
    pub(crate) fn signing_key_file(&self) -> PathBuf {
        self.tmp_path.join("daemon.key")
    }

    /// Where compiled plugins lie.
    pub(crate) fn plugin_cache(&self) -> PathBuf {
        self.tmp_path.join("plugins")
    }

    /// The folder of the attempts that are not yet acknowledged.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.tmp_path.join("attempts")
    }

    /// The folder of the attempts' workspaces.
    pub(crate) fn workspaces(&self) -> PathBuf {
        self.tmp_path.join("workspaces")
    }

    /// The folder that the workspaces of failed attempts are kept in, where they are.
    pub(crate) fn kept_workspaces(&self) -> Option<PathBuf> {
        self.keep_failed_workspaces.then(|| self.tmp_path.join("kept"))
    }

    /// The folder of what stays between attempts of one project and plugin.
    pub(crate) fn caches(&self) -> PathBuf {
        self.tmp_path.join("caches")
    }

    /// The folder of the git caches.
    pub(crate) fn git_caches(&self) -> PathBuf {
        self.tmp_path.join("git")
    }
}

/// Reads `web_host` as a base for the API's paths; the same rules serve the command line's `FORGE_URL`.
pub fn base_url(text: &str) -> Result<reqwest::Url, SettingsError> {
    let wrong = |reason: String| SettingsError::Url { url: text.to_owned(), reason };
    let url = reqwest::Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    let host = url.host_str().ok_or_else(|| wrong("it names no host".to_owned()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds a user or a password".to_owned()));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near(host) => Ok(url),
        "http" => Err(SettingsError::PlainHttp { url: text.to_owned() }),
        other => Err(wrong(format!("its scheme is {other}, not https"))),
    }
}

/// Whether `host` is loopback or a private address, where plain HTTP may pass.
fn is_near(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => bare == "localhost" || bare.ends_with(".localhost"),
    }
}

/// The folder that a file lies in; the working folder for a bare name.
pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_near() {
        for good in [
            "https://forge.example.com",
            "https://10.0.0.1:8443/",
            "http://127.0.0.1:80",
            "http://[::1]:1",
            "http://localhost:3",
        ] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for (wrong, says) in [
            ("forge.example.com", "no URL"),
            ("http://forge.example.com", "https://"),
            ("http://8.8.8.8", "https://"),
            ("ftp://forge.example.com", "ftp"),
            ("https://user:word@forge.example.com", "password"),
        ] {
            let error = base_url(wrong).expect_err(wrong).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
