//! `forge config check DIR`: the daemon's own verdict on a folder, without a daemon.

use std::path::Path;
use std::sync::Arc;

use forge_config::{CheckOptions, DaemonSecrets, DaemonSettings, Diagnostic};
use forge_plugin_host::{Host, HostError, HostOptions};

use crate::gitops::check::{check, for_api};
use crate::gitops::read::read_once;
use crate::plugins::Catalog;
use crate::secrets::Identity;

/// What was found in a folder.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// The revision that the folder's files make.
    pub revision: String,
    /// How many files belong to the tree.
    pub files: usize,
    /// Everything that was found, by file and position.
    pub diagnostics: Vec<Diagnostic>,
}

impl CheckReport {
    /// Whether a daemon would refuse it.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The diagnostics in the shape of `--output json`.
    pub fn api_diagnostics(&self) -> Vec<forge_api::Diagnostic> {
        self.diagnostics.iter().map(for_api).collect()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let errors = self.diagnostics.iter().filter(|found| found.is_error()).count();
        let others = self.diagnostics.len() - errors;
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let files = count(self.files, "file");
        match (errors, others) {
            (0, 0) => format!("{files} checked, nothing to mend"),
            (0, _) => format!("{files} checked, {}", count(others, "warning")),
            (_, 0) => format!("{files} checked, {}", count(errors, "error")),
            (_, _) => format!("{files} checked, {} and {}", count(errors, "error"), count(others, "warning")),
        }
    }
}

/// Checks a folder as the daemon would. With its settings, secrets are checked too: host kinds against
/// `[secrets.allow]`, age values against the daemon's identity.
/// It blocks, and compiles the tree's plugins.
///
/// # Errors
/// The plugin host does not start.
pub fn check_folder(folder: &Path, settings: Option<&DaemonSettings>) -> Result<CheckReport, HostError> {
    let catalog = Catalog::new(Host::new(HostOptions { cache_dir: None })?);
    let options = settings.map(|settings| check_options(&settings.secrets)).unwrap_or_default();
    let read = read_once(folder);
    let verdict = check(&read, &catalog, &options);
    Ok(CheckReport { revision: read.revision, files: read.files.len(), diagnostics: verdict.diagnostics })
}

/// What the daemon's settings let a check know of secrets.
pub(crate) fn check_options(secrets: &DaemonSecrets) -> CheckOptions {
    CheckOptions {
        secrets_allow: Some(secrets.allow.clone()),
        age_values: Some(Arc::new(Identity { file: secrets.identity_file.clone() })),
    }
}
