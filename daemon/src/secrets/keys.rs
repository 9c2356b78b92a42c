//! The daemon's own keys, `data_dir/keys`, made when they are missing: the Ed25519 key that signs jobs, the age identity that
//! seals secret answers in the store, and the key from which attempts' tokens follow. A file that others may read is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptId, Secret};
use forge_config::Digest;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::token::{NoRandomness, TokenKind, random_bytes, token_of};

/// Why the daemon's keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system refused.
    #[error("{}: {source}; the daemon's user must be able to read and write it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:o}); run `chmod 600` on it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not a key.
    #[error("{} holds no {what}; restore it from a backup, or remove it to have a new one made", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The keys.
pub(crate) struct Keys {
    signing: Ed25519KeyPair,
    store: age::x25519::Identity,
    attempts: hmac::Key,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(...)")
    }
}

impl Keys {
    /// Reads the keys, and makes those that are missing; it blocks.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, KeysError> {
        let folder = data_dir.join("keys");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| KeysError::Io { path: folder.clone(), source })?;
        let malformed = |file: &str, what| KeysError::Malformed { path: folder.join(file), what };

        let seed = || Ok(STANDARD.encode(random_bytes::<32>()?));
        let text = read_or_make(&folder.join("signing.key"), seed)?;
        let wrong = || malformed("signing.key", "Ed25519 seed in base64");
        let seed_bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed_bytes).map_err(|_| wrong())?;

        let text = read_or_make(&folder.join("store.age"), || {
            Ok(age::x25519::Identity::generate().to_string().expose_secret().to_owned())
        })?;
        let store = age::x25519::Identity::from_str(text.trim())
            .map_err(|_| malformed("store.age", "age identity (AGE-SECRET-KEY-1...)"))?;

        let text = read_or_make(&folder.join("attempts.key"), seed)?;
        let wrong = || malformed("attempts.key", "key of 32 bytes in base64");
        let bytes = STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32).ok_or_else(wrong)?;
        Ok(Self { signing, store, attempts: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// What signs jobs.
    pub(crate) fn signing(&self) -> &Ed25519KeyPair {
        &self.signing
    }

    /// The public half of what signs jobs, in base64: runners pin it.
    pub(crate) fn signing_public(&self) -> String {
        STANDARD.encode(self.signing.public_key().as_ref())
    }

    /// What opens secret answers in the store.
    pub(crate) fn store(&self) -> &age::x25519::Identity {
        &self.store
    }

    /// An attempt's token: derived, so that an attempt that never arrived is delivered again with the same one, and only its
    /// hash is stored.
    pub(crate) fn attempt_token(&self, attempt: AttemptId, nonce: &[u8]) -> (Secret, Digest) {
        let mut context = hmac::Context::with_key(&self.attempts);
        context.update(b"forge attempt token v1\n");
        context.update(attempt.to_string().as_bytes());
        context.update(b"\n");
        context.update(nonce);
        token_of(TokenKind::Attempt, context.sign().as_ref())
    }

    /// What tells one request from another without storing it.
    pub(crate) fn request_mac(&self, request: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.attempts);
        context.update(b"forge idempotent request v1\n");
        context.update(request);
        context.sign().as_ref().to_vec()
    }
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String, KeysError>) -> Result<String, KeysError> {
    let io = |source| KeysError::Io { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeysError::Open { path: path.to_owned(), mode });
            }
            std::fs::read_to_string(path).map_err(io)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_new(path, &text).map_err(io)?;
            Ok(text)
        }
        Err(error) => Err(io(error)),
    }
}

/// Writes beside and renames: a power cut leaves the whole file or none.
fn write_new(path: &Path, text: &str) -> Result<(), std::io::Error> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_to_the_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let id = AttemptId { task: 1, attempt: 1 };
        let first = Keys::open(folder.path()).expect("made");
        let again = Keys::open(folder.path()).expect("read");
        assert_eq!(first.signing_public(), again.signing_public());
        assert_eq!(first.attempt_token(id, b"nonce").1, again.attempt_token(id, b"nonce").1);
        assert_ne!(first.attempt_token(id, b"nonce").1, first.attempt_token(id, b"other").1);
        for name in ["signing.key", "store.age", "attempts.key"] {
            let path = folder.path().join("keys").join(name);
            let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }

    #[test]
    fn a_key_that_others_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        Keys::open(folder.path()).expect("made");
        let path = folder.path().join("keys/store.age");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(Keys::open(folder.path()).expect_err("open").to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::fs::write(&path, "nothing").expect("write");
        assert!(matches!(Keys::open(folder.path()), Err(KeysError::Malformed { .. })));
    }
}
