//! Where the program runs: the folder, the environment, and the files of ours beside the checkout.
//!
//! The data folder (`TF_DATA_DIR`) lies beside the checkout, new in each attempt, so a `.terraform` that somebody committed
//! is never used and `git status` of a job stays clean.
//!
//! # The plugin cache
//! `TF_PLUGIN_CACHE_DIR` saves downloading the providers for each attempt, and Terraform does not guard it against two inits at a
//! time. It writes into the cache only for a package whose checksum is not in `.terraform.lock.hcl`, or that is not in the cache
//! yet. So the cache is used only where the lock file is committed: then a filled cache is only read, whoever runs beside, and what
//! another job left in it is checked against this repository's own checksums. What is left is two first inits at a time: both
//! check what they link, so the worst is an error, and [`crate::steps::init`] answers that one with a second init without the
//! cache. Without a lock file each init would write anew, into the same files (Terraform 1.11, tried),
//! programs that another attempt may be running, so there the cache stays out.

use forge_plugin::{Command, Failure, Host, HostError, Job};

use crate::params::{Params, Setting};

/// Ours, beside the checkout.
pub(crate) const OWN: &str = "forge-terraform";

/// The saved plan.
pub(crate) const PLAN_FILE: &str = "forge-terraform/plan";

/// What is known of the plan, for the attempt that applies it.
pub(crate) const PLANNED_FILE: &str = "forge-terraform/planned.json";

/// A copy of the dependency lock file that the plan was made with.
pub(crate) const LOCK_COPY: &str = "forge-terraform/lock.hcl";

/// The dependency lock file, in the folder of the root module.
pub(crate) const LOCK_FILE: &str = ".terraform.lock.hcl";

/// How the names of a configuration's files end.
const ENDINGS: [&str; 4] = [".tf", ".tf.json", ".tofu", ".tofu.json"];

/// How much of a file is read at a time, in bytes.
const READ_BYTES: u32 = 1024 * 1024;

/// Whether providers are taken from the runner's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PluginCache {
    Used,
    LeftOut,
}

/// The folder that everything runs in, after a look that a configuration is there.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) params: &'a Params,
    pub(crate) job: &'a Job,
    checkout: &'a str,
    /// The folder of the root module, in the workspace.
    pub(crate) folder: String,
    /// From there to the workspace, with a `/` at the end.
    up: String,
}

impl<'a> Ground<'a> {
    pub(crate) fn prepare(job: &'a Job, params: &'a Params, host: &mut dyn Host) -> Result<Self, Failure> {
        let Some(checkout) = job.checkout.as_deref() else {
            return Err(Failure::Invalid(
                "a configuration lies in a repository, and the template names none: set `repository`".to_owned(),
            ));
        };
        let written = &params.working_dir;
        let folder = below(checkout, "", written)
            .ok_or_else(|| Failure::Invalid(format!("[params].working_dir = {written:?} leaves the repository")))?;
        let entries = host.list(&folder).map_err(|error| match error {
            HostError::NotFound(_) => Failure::Invalid(format!(
                "[params].working_dir = {written:?} is not a folder of the repository at this commit"
            )),
            HostError::Denied(message) | HostError::Invalid(message) => {
                Failure::Invalid(format!("[params].working_dir: {message}"))
            }
            error @ (HostError::Canceled | HostError::Io(_)) => error.into(),
        })?;
        if !entries.iter().any(|entry| ENDINGS.iter().any(|ending| entry.name.ends_with(ending))) {
            let shown = if matches!(written.as_str(), "" | ".") { "the repository's top" } else { written };
            return Err(Failure::Invalid(format!(
                "{shown} holds no configuration (*.tf) at this commit: set [params].working_dir to the folder that does"
            )));
        }
        let depth = parts(&folder).count();
        let ground = Self { params, job, checkout, folder, up: "../".repeat(depth) };
        let files = [("var_files", &params.var_files), ("backend_config_files", &params.backend_config_files)];
        for (param, file) in files.into_iter().flat_map(|(param, files)| files.iter().map(move |file| (param, file))) {
            ground.check_file(param, file, host)?;
        }
        Ok(ground)
    }

    /// The path in the workspace of a file that a param names.
    pub(crate) fn file(&self, param: &str, file: &str) -> Result<String, Failure> {
        below(self.checkout, self.folder.strip_prefix(self.checkout).unwrap_or_default(), file)
            .ok_or_else(|| Failure::Invalid(format!("[params].{param}: {file:?} leaves the repository")))
    }

    fn check_file(&self, param: &str, file: &str, host: &mut dyn Host) -> Result<(), Failure> {
        match host.read(&self.file(param, file)?, 0, 0) {
            Ok(_) => Ok(()),
            Err(HostError::NotFound(_)) => Err(Failure::Invalid(format!(
                "[params].{param}: {file:?} is not in the repository at this commit, seen from working_dir"
            ))),
            Err(HostError::Denied(message) | HostError::Invalid(message)) => {
                Err(Failure::Invalid(format!("[params].{param}: {message}")))
            }
            Err(error @ (HostError::Canceled | HostError::Io(_))) => Err(error.into()),
        }
    }

    /// A file of the workspace as the program sees it.
    pub(crate) fn seen(&self, file: &str) -> String {
        format!("{}{file}", self.up)
    }

    pub(crate) fn program(&self) -> &'static str {
        self.params.binary.program()
    }

    /// A subcommand without a word that a person would have to answer; its output is for machines unless colors are asked for.
    pub(crate) fn command(&self, subcommand: &[&str]) -> Command {
        Command::new(self.program())
            .args(subcommand.iter().copied())
            .cwd(Some(&self.folder))
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("TF_DATA_DIR", self.seen(&format!("{OWN}/data")))
            // It asks the maker's server whether there is a newer version, which nobody here reads.
            .env("CHECKPOINT_DISABLE", "1")
    }

    /// A subcommand whose output people read.
    pub(crate) fn shown(&self, subcommand: &[&str]) -> Command {
        let command = self.command(subcommand);
        if self.params.color { command } else { command.arg("-no-color") }
    }

    pub(crate) fn init(&self, cache: PluginCache) -> Command {
        let Params { backend_config, backend_config_files, .. } = self.params;
        let files = backend_config_files.iter().map(|file| format!("-backend-config={}", named(file)));
        let settings = backend_config.iter().map(|(key, value): (&String, &Setting)| {
            // The last one counts, so what stands in the template wins over a file.
            format!("-backend-config={key}={value}")
        });
        let command = self.shown(&["init", "-input=false"]).args(files).args(settings);
        match (&self.job.cache, cache) {
            (Some(folder), PluginCache::Used) => command.env("TF_PLUGIN_CACHE_DIR", folder),
            (Some(_) | None, _) => command,
        }
    }

    /// The options that bring variables: the template's files, and then the task's own, which win.
    pub(crate) fn variables(&self) -> Vec<String> {
        let files = self.params.var_files.iter().map(|file| format!("-var-file={}", named(file)));
        let own = Some(&self.job.variables_file).filter(|file| !file.is_empty());
        files.chain(own.map(|file| format!("-var-file={file}"))).collect()
    }

    /// Options that planning and applying share.
    pub(crate) fn limits(&self) -> Vec<String> {
        let Params { parallelism, lock_timeout, .. } = self.params;
        let parallelism = parallelism.map(|number| format!("-parallelism={number}"));
        let lock_timeout = lock_timeout.as_ref().map(|time| format!("-lock-timeout={time}"));
        parallelism.into_iter().chain(lock_timeout).collect()
    }
}

/// A file that a param names, so that its name is not taken for `key=value`.
fn named(file: &str) -> String {
    format!("./{file}")
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// `path` seen from `folder` of the checkout, in the workspace; none when it leaves the checkout.
fn below(checkout: &str, folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut inside: Vec<&str> = Vec::new();
    for part in parts(folder).chain(parts(path)) {
        if part == ".." {
            inside.pop()?;
        } else {
            inside.push(part);
        }
    }
    Some(parts(checkout).chain(inside).collect::<Vec<_>>().join("/"))
}

/// A whole file of the workspace, of at most so many bytes; none when it is not there.
pub(crate) fn read_file(path: &str, max_bytes: usize, host: &mut dyn Host) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    loop {
        match host.read(path, bytes.len() as u64, READ_BYTES) {
            Ok(piece) if piece.is_empty() => return Ok(Some(bytes)),
            Ok(piece) => bytes.extend(piece),
            Err(HostError::NotFound(_)) if bytes.is_empty() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if bytes.len() > max_bytes {
            return Err(Failure::failed(format!("{path} has more than {max_bytes} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_checkout() {
        let seen = |folder, path| below("repository", folder, path);
        assert_eq!(seen("", ".").as_deref(), Some("repository"));
        assert_eq!(seen("", "").as_deref(), Some("repository"));
        assert_eq!(seen("/live/prod", "../common.tfvars").as_deref(), Some("repository/live/common.tfvars"));
        assert_eq!(seen("live", "./a//b").as_deref(), Some("repository/live/a/b"));
        assert_eq!(seen("live", "../../x"), None);
        assert_eq!(seen("", "/etc/passwd"), None);
    }
}
