//! What an attempt that awaits approval carries to the attempt that follows: files of its workspace, as a tar, encrypted.
//!
//! The key comes with the job, sealed to its runner, and is the task's own; the daemon keeps the bytes and never opens them. Which
//! attempt left them is part of what is sealed, and their digest stands in the signed job that is to go on with them, so nobody
//! can put another plan in the place of the one that was approved.
//!
//! A path that leaves the workspace is refused by the kernel, on the way out and on the way in.

use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptId, CARRY_BYTES_MAX, CARRY_FILES_MAX, Carry, Secret};
use forge_plugin_host::{CapabilityError, FileUser, WholeFile, Workspace};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::files;

/// The file in the spool that an attempt leaves.
pub(crate) const OUT: &str = "carry";

/// The file in the spool that an approved attempt begins with.
pub(crate) const IN: &str = "resume";

/// The file in the spool that names what was carried or was to be: such files may hold secrets, and no kept workspace has them.
const NAMES: &str = "carried.json";

/// What the bytes begin with: the form that they have.
const FORM: &[u8] = b"forge carry 1\n";

/// Why files could not be carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    /// A file of the workspace.
    #[error("{path} of the plan: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: CapabilityError,
    },
    /// Too much.
    #[error(
        "the plan's files are more than {CARRY_FILES_MAX} or longer than {CARRY_BYTES_MAX} bytes together: such a plan cannot wait for approval"
    )]
    TooLarge,
    /// The daemon gave no key, or none of this form.
    #[error("the daemon gave no key for the plan's files: it is older than this runner; upgrade it")]
    NoKey,
    /// It does not open.
    #[error("the plan's files do not open: they are not what the earlier attempt left")]
    Sealed,
    /// The system.
    #[error("the plan's files: {0}")]
    Io(#[from] io::Error),
}

/// Whose files, and what seals them.
pub(crate) struct Carrier<'a> {
    pub(crate) key: Option<&'a Secret>,
    pub(crate) workspace: &'a Path,
    pub(crate) file_user: Option<FileUser>,
    pub(crate) spool: &'a Path,
}

impl Carrier<'_> {
    /// Packs the files at `paths` of the workspace into the spool.
    pub(crate) fn pack(&self, attempt: AttemptId, paths: &[String]) -> Result<Carry, CarryError> {
        self.note(paths)?;
        if paths.len() > CARRY_FILES_MAX {
            return Err(CarryError::TooLarge);
        }
        let key = self.key()?;
        let workspace = Workspace::open(self.workspace, self.file_user)?;
        let mut tar = tar::Builder::new(Vec::new());
        let mut total = 0;
        for path in paths {
            let failed = |error| CarryError::File { path: path.clone(), error };
            let file = workspace.read_whole(path, (CARRY_BYTES_MAX - total) as u64).map_err(failed)?;
            let WholeFile { bytes, mode } = file.ok_or(CarryError::TooLarge)?;
            total += bytes.len();
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            tar.append_data(&mut header, path, bytes.as_slice())?;
        }
        let sealed = seal(&key, attempt, tar.into_inner()?)?;
        let target = self.spool.join(OUT);
        // Before there is a result that names it, and so that a power cut takes neither alone.
        files::remove(&target)?;
        files::replace_private(&target, &sealed)?;
        Ok(Carry { attempt, length: sealed.len() as u64, sha256: files::sha256_hex(&sealed) })
    }

    /// Puts the files of an earlier attempt, which lie in the spool, back into the workspace.
    pub(crate) fn unpack(&self, carry: &Carry) -> Result<(), CarryError> {
        let key = self.key()?;
        let sealed = std::fs::read(self.spool.join(IN))?;
        if files::sha256_hex(&sealed) != carry.sha256 {
            return Err(CarryError::Sealed);
        }
        let opened = open(&key, carry.attempt, sealed)?;
        let workspace = Workspace::open(self.workspace, self.file_user)?;
        let mut files = Vec::new();
        for entry in tar::Archive::new(opened.as_slice()).entries()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mode = entry.header().mode()?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((path, WholeFile { bytes, mode }));
        }
        self.note(&files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>())?;
        for (path, file) in files {
            workspace.write_whole(&path, &file).map_err(|error| CarryError::File { path, error })?;
        }
        files::remove(&self.spool.join(IN))?;
        Ok(())
    }

    /// Leaves word of the files for whoever keeps the workspace, before there is one of them.
    fn note(&self, paths: &[String]) -> io::Result<()> {
        files::replace_private(&self.spool.join(NAMES), &serde_json::to_vec(paths)?)
    }

    fn key(&self) -> Result<LessSafeKey, CarryError> {
        let text = self.key.ok_or(CarryError::NoKey)?;
        let bytes = STANDARD.decode(text.reveal()).map_err(|_| CarryError::NoKey)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| CarryError::NoKey)?;
        Ok(LessSafeKey::new(key))
    }
}

/// Removes from a workspace what an attempt carried, or was to carry; answers how many files went. A copy under another name is not known.
pub(crate) fn remove_carried(spool: &Path, workspace: &Path) -> io::Result<usize> {
    let paths: Vec<String> = match std::fs::read(spool.join(NAMES)) {
        Ok(json) => serde_json::from_slice(&json)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let workspace = Workspace::open(workspace, None)?;
    let mut removed = 0;
    for path in paths {
        match workspace.remove(&path) {
            Ok(()) => removed += 1,
            Err(CapabilityError::NotFound(_)) => {}
            Err(error) => return Err(io::Error::other(format!("{path} of the plan cannot be removed: {error}"))),
        }
    }
    Ok(removed)
}

/// What is sealed together with the files.
fn context(attempt: AttemptId) -> Aad<Vec<u8>> {
    Aad::from([FORM, attempt.to_string().as_bytes()].concat())
}

fn seal(key: &LessSafeKey, attempt: AttemptId, mut bytes: Vec<u8>) -> Result<Vec<u8>, CarryError> {
    let mut nonce = [0; NONCE_LEN];
    let no_randomness = |_| io::Error::other("the system gave no random bytes");
    SystemRandom::new().fill(&mut nonce).map_err(no_randomness)?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context(attempt), &mut bytes)
        .map_err(|_| CarryError::Sealed)?;
    Ok([FORM, &nonce, &bytes].concat())
}

fn open(key: &LessSafeKey, attempt: AttemptId, sealed: Vec<u8>) -> Result<Vec<u8>, CarryError> {
    let rest = sealed.strip_prefix(FORM).ok_or(CarryError::Sealed)?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(CarryError::Sealed)?;
    let mut body = body.to_vec();
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), context(attempt), &mut body)
        .map_err(|_| CarryError::Sealed)?
        .len();
    body.truncate(length);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FIRST: AttemptId = AttemptId { task: 7, attempt: 1 };

    struct Place {
        folder: tempfile::TempDir,
        key: Secret,
    }

    impl Place {
        fn new(key: &Secret) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            for name in ["workspace", "spool"] {
                std::fs::create_dir(folder.path().join(name)).expect("made");
            }
            Self { folder, key: key.clone() }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join(name)
        }

        fn carry<R>(&self, work: impl FnOnce(&Carrier<'_>) -> R) -> R {
            let (workspace, spool) = (self.path("workspace"), self.path("spool"));
            work(&Carrier { key: Some(&self.key), workspace: &workspace, file_user: None, spool: &spool })
        }
    }

    fn key(byte: u8) -> Secret {
        Secret::new(STANDARD.encode([byte; 32]))
    }

    fn names(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|&path| path.to_owned()).collect()
    }

    #[test]
    fn files_come_back_as_they_were_with_their_modes() {
        let set_mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        let (one, other) = (Place::new(&key(1)), Place::new(&key(1)));
        std::fs::create_dir_all(one.path("workspace/repository/infra")).expect("made");
        std::fs::write(one.path("workspace/repository/infra/plan"), b"the plan\0").expect("written");
        std::fs::write(one.path("workspace/empty"), b"").expect("written");
        std::fs::write(one.path("workspace/tool"), b"#!/bin/sh\n").expect("written");
        set_mode(&one.path("workspace/repository/infra/plan"), 0o600);
        // Who may run it is kept; as whom it would run is not.
        set_mode(&one.path("workspace/tool"), 0o4751);
        let paths = names(&["repository/infra/plan", "empty", "tool"]);
        let carry = one.carry(|carrier| carrier.pack(FIRST, &paths)).expect("packed");
        let sealed = std::fs::read(one.path("spool").join(OUT)).expect("there");
        assert_eq!((carry.length, &carry.sha256), (sealed.len() as u64, &files::sha256_hex(&sealed)));
        assert!(!sealed.windows(8).any(|bytes| bytes == b"the plan"), "nobody reads it on the way");

        std::fs::write(other.path("spool").join(IN), &sealed).expect("written");
        other.carry(|carrier| carrier.unpack(&carry)).expect("unpacked");
        let plan = other.path("workspace/repository/infra/plan");
        assert_eq!(std::fs::read(&plan).expect("there"), b"the plan\0");
        assert_eq!((mode(&plan), mode(&other.path("workspace/tool"))), (0o600, 0o751));
        assert!(other.path("workspace/empty").exists());
        assert!(!other.path("spool").join(IN).exists());
    }

    #[test]
    fn a_workspace_that_is_kept_loses_what_was_carried_or_was_to_be() {
        let (one, other) = (Place::new(&key(1)), Place::new(&key(1)));
        let removed = |place: &Place| remove_carried(&place.path("spool"), &place.path("workspace"));
        assert_eq!(removed(&one).expect("nothing was carried"), 0);
        for name in ["plan", "large", "stays"] {
            std::fs::write(one.path("workspace").join(name), b"secret").expect("written");
        }
        let carry = one.carry(|carrier| carrier.pack(FIRST, &names(&["plan"]))).expect("packed");
        std::fs::copy(one.path("spool").join(OUT), other.path("spool").join(IN)).expect("copied");
        other.carry(|carrier| carrier.unpack(&carry)).expect("unpacked");
        assert!(other.path("workspace/plan").exists());
        assert_eq!(removed(&other).expect("removed"), 1);
        assert!(!other.path("workspace/plan").exists());

        // What was too large to be carried is no less secret; what is gone is no trouble.
        let large = std::fs::File::options().write(true).open(one.path("workspace/large")).expect("there");
        large.set_len(CARRY_BYTES_MAX as u64 + 1).expect("sparse");
        one.carry(|carrier| carrier.pack(FIRST, &names(&["gone", "plan", "large"]))).expect_err("gone");
        assert_eq!(removed(&one).expect("removed"), 2);
        assert!(one.path("workspace/stays").exists() && !one.path("workspace/large").exists());

        // One that cannot be removed is told, and nothing outside is touched.
        std::fs::write(one.path("outside"), b"mine").expect("written");
        std::os::unix::fs::symlink("..", one.path("workspace/up")).expect("a link");
        one.carry(|carrier| carrier.pack(FIRST, &names(&["up/outside"]))).expect_err("it lies outside");
        let error = removed(&one).expect_err("it lies outside").to_string();
        assert!(error.starts_with("up/outside of the plan cannot be removed: "), "{error}");
        assert!(one.path("outside").exists());
    }

    #[test]
    fn nothing_but_what_was_approved_opens() {
        let one = Place::new(&key(1));
        std::fs::write(one.path("workspace/plan"), b"the plan").expect("written");
        let carry = one.carry(|carrier| carrier.pack(FIRST, &names(&["plan"]))).expect("packed");
        let sealed = std::fs::read(one.path("spool").join(OUT)).expect("there");
        let unpack = |place: &Place, bytes: &[u8], carry: &Carry| {
            std::fs::write(place.path("spool").join(IN), bytes).expect("written");
            place.carry(|carrier| carrier.unpack(carry))
        };
        let refused = |result: Result<(), CarryError>| matches!(result, Err(CarryError::Sealed));
        let mut changed = sealed.clone();
        *changed.last_mut().expect("a byte") ^= 1;
        assert!(refused(unpack(&one, &changed, &carry)), "other bytes than were approved");
        let claimed = Carry { sha256: files::sha256_hex(&changed), ..carry.clone() };
        assert!(refused(unpack(&one, &changed, &claimed)), "bytes that nobody with the key made");
        let second = Carry { attempt: AttemptId { task: 7, attempt: 2 }, ..carry.clone() };
        assert!(refused(unpack(&one, &sealed, &second)), "what another attempt left");
        assert!(refused(unpack(&Place::new(&key(2)), &sealed, &carry)), "another task's key");
        let short = b"forge carry 1\nshort";
        assert!(refused(unpack(&one, short, &Carry { sha256: files::sha256_hex(short), ..carry.clone() })));
        unpack(&one, &sealed, &carry).expect("the very same");
    }

    #[test]
    fn paths_stay_inside_and_too_much_is_told() {
        let one = Place::new(&key(1));
        std::fs::write(one.path("outside"), b"secret").expect("written");
        std::os::unix::fs::symlink("../outside", one.path("workspace/link")).expect("a link");
        for path in ["../outside", "/etc/passwd", "link", "gone", "."] {
            let error = one.carry(|carrier| carrier.pack(FIRST, &names(&[path]))).expect_err(path);
            assert!(matches!(&error, CarryError::File { path: of, .. } if of == path), "{error}");
        }
        let many = vec!["plan".to_owned(); CARRY_FILES_MAX + 1];
        assert!(matches!(one.carry(|carrier| carrier.pack(FIRST, &many)), Err(CarryError::TooLarge)));
        let large = std::fs::File::create(one.path("workspace/large")).expect("made");
        large.set_len(CARRY_BYTES_MAX as u64 + 1).expect("sparse");
        assert!(matches!(one.carry(|carrier| carrier.pack(FIRST, &names(&["large"]))), Err(CarryError::TooLarge)));

        // A link that the checkout brings does not lead what comes back out of the workspace.
        std::fs::write(one.path("workspace/plan"), b"the plan").expect("written");
        let carry = one.carry(|carrier| carrier.pack(FIRST, &names(&["plan"]))).expect("packed");
        std::fs::copy(one.path("spool").join(OUT), one.path("spool").join(IN)).expect("copied");
        std::fs::remove_file(one.path("workspace/plan")).expect("removed");
        std::os::unix::fs::symlink("../outside", one.path("workspace/plan")).expect("a link");
        let error = one.carry(|carrier| carrier.unpack(&carry)).expect_err("it leads out");
        assert!(error.to_string().contains("leaves the workspace"), "{error}");
        assert_eq!(std::fs::read(one.path("outside")).expect("there"), b"secret");
    }
}
