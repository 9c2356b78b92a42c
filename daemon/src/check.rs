//! `forge config check DIR`: the daemon's own verdict on a folder, without a daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_config::meant::Tree;
use forge_config::{CheckOptions, DaemonSecrets, DaemonSettings, Diagnostic, Severity};
use forge_plugin_host::{Host, HostError};

use crate::gitops::check::{check, for_api};
use crate::gitops::read::read_once;
use crate::plugins::{Catalog, as_the_daemon};
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
    /// The tree, when a daemon would serve it.
    pub tree: Option<Tree>,
    /// How long reading the files took.
    pub reading: Duration,
    /// How long checking them took, plugins that were compiled for it included.
    pub checking: Duration,
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
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let of = |severity: Severity| self.diagnostics.iter().filter(|found| found.severity == severity).count();
        let found: Vec<_> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
            .into_iter()
            .map(|(severity, what)| (of(severity), what))
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| count(number, what))
            .collect();
        let found = match found.split_last() {
            None => "nothing to mend".to_owned(),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
        };
        format!("{} checked, {found}", count(self.files, "file"))
    }
}

/// Checks a folder as the daemon would. With its settings, secrets are checked too: host kinds against
/// `[secrets.allow]`, age values against the daemon's identity.
/// It blocks, and compiles the tree's plugins.
///
/// # Errors
/// The plugin host does not start.
pub fn check_folder(folder: &Path, settings: Option<&DaemonSettings>) -> Result<CheckReport, HostError> {
    let catalog = Catalog::new(Host::new(as_the_daemon())?);
    let options = settings.map(|settings| check_options(&settings.secrets)).unwrap_or_default();
    let begun = Instant::now();
    let read = read_once(folder);
    let reading = begun.elapsed();
    let verdict = check(&read, &catalog, &options);
    let checking = begun.elapsed().saturating_sub(reading);
    Ok(CheckReport {
        revision: read.revision,
        files: read.files.len(),
        diagnostics: verdict.diagnostics,
        tree: verdict.tree,
        reading,
        checking,
    })
}

/// What the daemon's settings let a check know of secrets.
pub(crate) fn check_options(secrets: &DaemonSecrets) -> CheckOptions {
    CheckOptions {
        secrets_allow: Some(secrets.allow.clone()),
        age_values: Some(Arc::new(Identity { file: secrets.identity_file.clone() })),
    }
}
