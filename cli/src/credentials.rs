//! What systemd hands a service beside its settings (`LoadCredential=`): secrets that need no line in a file, and no path.
//!
//! Settings and environment win: a credential fills in what they leave out. Values of the tree that name a credential of their own
//! (`{ credential = "name" }`) are the daemon's business.

use std::path::{Path, PathBuf};

use crate::settings::Environment;

/// Where systemd puts a service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The token that registers runners: `runner_registration_token_file` of a daemon, `FORGE_RUNNER_REGISTRATION_TOKEN` of a runner.
pub(crate) const REGISTRATION_TOKEN: &str = "forge.registration-token";

/// The age identity that opens the tree's secrets: `[secrets] identity_file` of a daemon.
pub(crate) const IDENTITY: &str = "forge.identity";

/// The file of a credential that was handed over.
pub(crate) fn find(environment: &Environment, name: &str) -> Option<PathBuf> {
    let folder = environment.get(CREDENTIALS_DIRECTORY).filter(|folder| !folder.is_empty())?;
    let path = Path::new(folder).join(name);
    path.is_file().then_some(path)
}
