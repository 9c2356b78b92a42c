//! The daemon's own keys, `data_dir/keys`, made when they are missing: the Ed25519 key that signs jobs, the age identity that
//! seals secret answers in the store, and the key from which attempts' tokens follow. A file that others may read is refused.
//!
//! `signing.changes` says how the signing key was changed ([`rotate_signing_key`]): runners follow it from the key that they pinned.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptId, KeyChange, Secret};
use forge_config::Digest;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::token::{NoRandomness, TokenKind, random_bytes, token_of};

/// Where the keys lie in the data folder.
const FOLDER: &str = "keys";

/// The file of the key that signs jobs.
const SIGNING: &str = "signing.key";

/// The file of its changes, one a line.
const CHANGES: &str = "signing.changes";

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
    /// It is not there, and was to be changed.
    #[error("{} is not there: a daemon makes it at its first start; is data_dir the right one?", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
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
    /// How the signing key became what it is, oldest first; the last one leads to it.
    changes: Vec<KeyChange>,
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
        let folder = data_dir.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| KeysError::Io { path: folder.clone(), source })?;
        let malformed = |file: &str, what| KeysError::Malformed { path: folder.join(file), what };

        let path = folder.join(SIGNING);
        let signing = signing_of(&path, &read_or_make(&path, seed)?)?;
        let changes = read_changes(&folder, &public_of(&signing))?;

        let text = read_or_make(&folder.join("store.age"), || {
            Ok(age::x25519::Identity::generate().to_string().expose_secret().to_owned())
        })?;
        let store = age::x25519::Identity::from_str(text.trim())
            .map_err(|_| malformed("store.age", "age identity (AGE-SECRET-KEY-1...)"))?;

        let text = read_or_make(&folder.join("attempts.key"), seed)?;
        let wrong = || malformed("attempts.key", "key of 32 bytes in base64");
        let bytes = STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32).ok_or_else(wrong)?;
        Ok(Self { signing, changes, store, attempts: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// What signs jobs.
    pub(crate) fn signing(&self) -> &Ed25519KeyPair {
        &self.signing
    }

    /// The public half of what signs jobs, in base64: runners pin it.
    pub(crate) fn signing_public(&self) -> String {
        public_of(&self.signing)
    }

    /// How the signing key follows from `pinned`; nothing when it is the same, or when none of the changes begins there.
    pub(crate) fn changes_since(&self, pinned: &str) -> &[KeyChange] {
        // The newest one: a key that came back from a backup may have been changed twice.
        match self.changes.iter().rposition(|change| change.from == pinned) {
            Some(first) if pinned != self.signing_public() => self.changes.get(first..).unwrap_or_default(),
            _ => &[],
        }
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

    /// What encrypts the files that a task carries over an approval, in base64: derived, so that it is stored nowhere. Runners get it sealed.
    pub(crate) fn carry_key(&self, task: u64) -> Secret {
        let mut context = hmac::Context::with_key(&self.attempts);
        context.update(b"forge carry key v1\n");
        context.update(task.to_string().as_bytes());
        Secret::new(STANDARD.encode(context.sign()))
    }

    /// What tells one request from another without storing it.
    pub(crate) fn request_mac(&self, request: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.attempts);
        context.update(b"forge idempotent request v1\n");
        context.update(request);
        context.sign().as_ref().to_vec()
    }
}

/// What a rotation did: public keys in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedKey {
    /// The key until then.
    pub from: String,
    /// The key that the daemon signs with from its next start on.
    pub to: String,
}

/// Makes a new key to sign jobs with, and has the old one sign that. A daemon uses it from its next start on, and runners follow it by
/// themselves. It blocks.
pub fn rotate_signing_key(data_dir: &Path) -> Result<RotatedKey, KeysError> {
    let folder = data_dir.join(FOLDER);
    let path = folder.join(SIGNING);
    let io = |path: &Path, source| KeysError::Io { path: path.to_owned(), source };
    let text = read_private(&path)?.ok_or_else(|| KeysError::Absent { path: path.clone() })?;
    let old = signing_of(&path, &text)?;
    let next = seed()?;
    let new = signing_of(&path, &next)?;
    let (from, to) = (public_of(&old), public_of(&new));
    let signed = KeyChange::signed_bytes(old.public_key().as_ref(), new.public_key().as_ref());
    let mut changes = read_changes(&folder, &from)?;
    let signature = STANDARD.encode(old.sign(&signed));
    changes.push(KeyChange { from: from.clone(), to: to.clone(), signature });
    let lines: Result<Vec<String>, _> = changes.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|error| io(&path, error.into()))?.join("\n");
    // The change first: one that leads to no key is passed over, and a key that no change leads to would be believed by nobody.
    let changes_file = folder.join(CHANGES);
    write_new(&changes_file, &lines).map_err(|error| io(&changes_file, error))?;
    write_new(&path, &next).map_err(|error| io(&path, error))?;
    Ok(RotatedKey { from, to })
}

/// The changes that lead to the key `current`. Later ones belong to a rotation that did not come to its end, or to a key that a backup
/// took back.
fn read_changes(folder: &Path, current: &str) -> Result<Vec<KeyChange>, KeysError> {
    let path = folder.join(CHANGES);
    let text = read_private(&path)?.unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
    let malformed = |_| KeysError::Malformed { path: path.clone(), what: "change of the signing key a line" };
    let mut changes: Vec<KeyChange> = lines.collect::<Result<_, _>>().map_err(malformed)?;
    let kept = changes.iter().rposition(|change| change.to == current).map_or(0, |last| last + 1);
    changes.truncate(kept);
    Ok(changes)
}

fn seed() -> Result<String, KeysError> {
    Ok(STANDARD.encode(random_bytes::<32>()?))
}

fn signing_of(path: &Path, text: &str) -> Result<Ed25519KeyPair, KeysError> {
    let wrong = || KeysError::Malformed { path: path.to_owned(), what: "Ed25519 seed in base64" };
    let seed = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| wrong())
}

fn public_of(key: &Ed25519KeyPair) -> String {
    STANDARD.encode(key.public_key().as_ref())
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String, KeysError>) -> Result<String, KeysError> {
    if let Some(text) = read_private(path)? {
        return Ok(text);
    }
    let text = make()?;
    write_new(path, &text).map_err(|source| KeysError::Io { path: path.to_owned(), source })?;
    Ok(text)
}

/// The text of a file that nobody else may read; `None` when there is none.
fn read_private(path: &Path) -> Result<Option<String>, KeysError> {
    let io = |source| KeysError::Io { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeysError::Open { path: path.to_owned(), mode });
            }
            std::fs::read_to_string(path).map(Some).map_err(io)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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

    #[test]
    fn a_changed_signing_key_follows_from_every_older_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Keys::open(folder.path()).expect("made").signing_public();
        let second = rotate_signing_key(folder.path()).expect("rotated");
        let third = rotate_signing_key(folder.path()).expect("rotated");
        assert_eq!((&first, &second.to), (&second.from, &third.from));
        let keys = Keys::open(folder.path()).expect("read");
        assert_eq!(keys.signing_public(), third.to);
        assert_eq!(keys.changes_since(&first).len(), 2);
        assert_eq!(keys.changes_since(&second.to).len(), 1);
        assert_eq!(keys.changes_since(&third.to), [], "it is the same");
        assert_eq!(keys.changes_since("a stranger's"), []);
        let mode = std::fs::metadata(folder.path().join("keys/signing.changes")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_change_that_leads_to_no_key_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Keys::open(folder.path()).expect("made").signing_public();
        let key = folder.path().join("keys/signing.key");
        let kept = std::fs::read_to_string(&key).expect("read");
        rotate_signing_key(folder.path()).expect("rotated");
        // As after a power cut between the two files, or a backup.
        write_new(&key, kept.trim()).expect("written");
        let keys = Keys::open(folder.path()).expect("read");
        assert_eq!((keys.signing_public(), keys.changes_since(&first)), (first.clone(), &[][..]));
        let again = rotate_signing_key(folder.path()).expect("rotated");
        let keys = Keys::open(folder.path()).expect("read");
        let [change] = keys.changes_since(&first) else { panic!("one change") };
        assert_eq!((&change.to, keys.signing_public()), (&again.to, again.to.clone()));
    }

    #[test]
    fn nothing_is_rotated_where_no_daemon_has_been() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(rotate_signing_key(folder.path()).expect_err("refused").to_string().contains("data_dir"));
    }
}
