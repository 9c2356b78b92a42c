//! `data_dir/config/accepted`: the other history that an admin accepted, until one of its commits serves. So a restart between the two
//! asks nobody again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, MODE_PRIVATE};

/// A rewrite that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// Whose history it is.
    pub(crate) source: String,
    /// The revision that served when it was accepted: the word is about going on from this one.
    pub(crate) serving: String,
    /// The commit that was named. What follows descends from it.
    pub(crate) commit: String,
}

/// Where it is kept.
pub(crate) fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("config").join("accepted")
}

/// Keeps it.
pub(crate) fn save(path: &Path, accepted: &Accepted) -> Result<(), FileError> {
    if let Some(folder) = path.parent() {
        files::make_private_folder(folder)?;
    }
    let text = serde_json::to_vec(accepted).map_err(|error| FileError::new("write", path, error.into()))?;
    files::write_atomic(path, &text, MODE_PRIVATE)
}

/// What was accepted; one that cannot be read counts as none, and the admin is asked again.
pub(crate) fn load(path: &Path) -> Option<Accepted> {
    serde_json::from_slice(&files::read_optional(path).ok()??).ok()
}

/// Forgets it.
pub(crate) fn forget(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // It names the revision that served then, so it lets nothing pass any more.
        tracing::warn!(%error, "an accepted history that serves by now could not be forgotten");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_until_it_is_forgotten_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path_in(folder.path());
        assert_eq!(load(&path), None);
        let text = |text: &str| text.to_owned();
        let accepted = Accepted { source: text("git file:///x main"), serving: text("a"), commit: text("b") };
        save(&path, &accepted).expect("kept");
        assert_eq!(load(&path), Some(accepted));
        std::fs::write(&path, "{").expect("spoiled");
        assert_eq!(load(&path), None);
        forget(&path);
        forget(&path);
        assert!(!path.exists());
    }
}
