//! The last good revision's files in one file, `data_dir/config/last-good`: what serves after a restart on a broken tree.
//!
//! One file, so that it is whole or the one before: a head of three lines, then each path and content with its length. The
//! revision is the hash of what follows, so that a damaged file is noticed and never served.

use std::path::{Path, PathBuf};

use forge_api::Timestamp;
use forge_config::Files;

use super::read::{ReadTree, revision_of};
use crate::files::{self, FileError, MODE_PRIVATE};

/// What the file begins with; another number is another format.
const FORMAT: &str = "forge tree 1";

/// A revision that served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastGood {
    /// The tree.
    pub(crate) read: ReadTree,
    /// When it was applied.
    pub(crate) applied_at: Timestamp,
}

/// Where it is kept.
pub(crate) fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("config").join("last-good")
}

/// Keeps a revision.
pub(crate) fn save(path: &Path, read: &ReadTree, applied_at: Timestamp) -> Result<(), FileError> {
    if let Some(folder) = path.parent() {
        files::make_private_folder(folder)?;
    }
    let mut bytes = format!("{FORMAT}\n{}\n{}\n", read.revision, applied_at.unix_micros()).into_bytes();
    for (path, content) in &read.files {
        for part in [path.as_bytes(), content.as_slice()] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    files::write_atomic(path, &bytes, MODE_PRIVATE)
}

/// The revision that was kept; `None` when there is none, or when the file is damaged, which is logged.
pub(crate) fn load(path: &Path) -> Option<LastGood> {
    let bytes = match files::read_optional(path) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "the last good revision cannot be read");
            return None;
        }
    };
    let loaded = parse(&bytes);
    if loaded.is_none() {
        tracing::warn!(path = %path.display(), "the last good revision on disk is damaged and is not used");
    }
    loaded
}

fn parse(bytes: &[u8]) -> Option<LastGood> {
    let mut head = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(head.next()?).ok();
    if line()? != FORMAT {
        return None;
    }
    let revision = line()?.to_owned();
    let applied_at = Timestamp::from_unix_micros(line()?.parse().ok()?);
    let mut rest = head.next()?;
    let mut files = Files::new();
    while !rest.is_empty() {
        let path = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
        files.insert(path, part(&mut rest)?.to_vec());
    }
    let read = ReadTree { revision, files, findings: Vec::new() };
    (revision_of(&read.files) == read.revision).then_some(LastGood { read, applied_at })
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<8>()?;
    let (part, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path_in(folder.path());
        assert_eq!(load(&path), None);
        let files = Files::from([("a.toml".to_owned(), b"x\ny".to_vec()), ("b/c.wasm".to_owned(), vec![0, 10, 255])]);
        let read = ReadTree { revision: revision_of(&files), files, findings: Vec::new() };
        let applied_at = Timestamp::from_unix_micros(7);
        save(&path, &read, applied_at).expect("kept");
        assert_eq!(load(&path), Some(LastGood { read, applied_at }));
        let mut bytes = std::fs::read(&path).expect("there");
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(parse(&bytes), None);
    }
}
