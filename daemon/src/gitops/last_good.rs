//! The last good revision's files in one file, `data_dir/config/last-good`: what serves after a restart on a broken tree.
//!
//! One file, so that it is whole or the one before: what it is, the hash of all that follows, a line of JSON about the revision, then
//! each path and content with its length. A damaged file is noticed and never served.

use std::path::{Path, PathBuf};

use forge_api::{ConfigCommit, Timestamp};
use forge_config::Files;
use serde::{Deserialize, Serialize};

use super::read::{ReadTree, revision_of};
use crate::files::{self, FileError, MODE_PRIVATE};
use crate::hex;

/// What the file begins with; another number is another format.
const FORMAT: &str = "forge tree 2";

/// The format before, which knew folders only: it is read so that an upgrade keeps what served.
const FORMAT_BEFORE: &str = "forge tree 1";

/// A revision that served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastGood {
    /// The tree.
    pub(crate) read: ReadTree,
    /// What is known of it.
    pub(crate) facts: Facts,
}

/// What is known of a revision beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// When it was applied.
    pub(crate) applied_at: Timestamp,
    /// Which history it belongs to; empty for a folder, which has none.
    pub(crate) source: String,
    /// Its commit.
    pub(crate) commit: Option<ConfigCommit>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    revision: String,
    #[serde(flatten)]
    facts: Facts,
}

/// Where it is kept.
pub(crate) fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("config").join("last-good")
}

/// Keeps a revision.
pub(crate) fn save(path: &Path, read: &ReadTree, facts: &Facts) -> Result<(), FileError> {
    if let Some(folder) = path.parent() {
        files::make_private_folder(folder)?;
    }
    let head = Head { revision: read.revision.clone(), facts: facts.clone() };
    let head = serde_json::to_string(&head).map_err(|error| FileError::new("write", path, error.into()))?;
    let mut body = format!("{head}\n").into_bytes();
    for (path, content) in &read.files {
        for part in [path.as_bytes(), content.as_slice()] {
            body.extend_from_slice(&(part.len() as u64).to_le_bytes());
            body.extend_from_slice(part);
        }
    }
    let mut bytes = format!("{FORMAT}\n{}\n", sha256(&body)).into_bytes();
    bytes.append(&mut body);
    files::write_atomic(path, &bytes, MODE_PRIVATE)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
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
    let (format, rest) = line(bytes)?;
    if format == FORMAT_BEFORE {
        return parse_before(rest);
    }
    let (hash, body) = line(rest)?;
    if format != FORMAT || hash != sha256(body) {
        return None;
    }
    let (head, rest) = line(body)?;
    let Head { revision, facts } = serde_json::from_str(head).ok()?;
    Some(LastGood { read: ReadTree { revision, files: parts(rest)?, findings: Vec::new() }, facts })
}

/// A folder's revision was the hash of its files, and stood for theirs.
fn parse_before(rest: &[u8]) -> Option<LastGood> {
    let (revision, rest) = line(rest)?;
    let (applied_at, rest) = line(rest)?;
    let applied_at = Timestamp::from_unix_micros(applied_at.parse().ok()?);
    let read = ReadTree { revision: revision.to_owned(), files: parts(rest)?, findings: Vec::new() };
    let facts = Facts { applied_at, source: String::new(), commit: None };
    (revision_of(&read.files) == read.revision).then_some(LastGood { read, facts })
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

fn parts(mut rest: &[u8]) -> Option<Files> {
    let mut files = Files::new();
    while !rest.is_empty() {
        let path = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
        files.insert(path, part(&mut rest)?.to_vec());
    }
    Some(files)
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

    fn files() -> Files {
        Files::from([("a.toml".to_owned(), b"x\ny".to_vec()), ("b/c.wasm".to_owned(), vec![0, 10, 255])])
    }

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path_in(folder.path());
        assert_eq!(load(&path), None);
        let read = ReadTree { revision: "c0ffee".to_owned(), files: files(), findings: Vec::new() };
        let applied_at = Timestamp::from_unix_micros(7);
        let commit = ConfigCommit {
            author: "Ada <ada@example.com>".to_owned(),
            subject: "Begin".to_owned(),
            committed_at: applied_at,
            signed_by: None,
        };
        let facts = Facts { applied_at, source: "git file:///x main".to_owned(), commit: Some(commit) };
        save(&path, &read, &facts).expect("kept");
        assert_eq!(load(&path), Some(LastGood { read, facts }));
        let bytes = std::fs::read(&path).expect("there");
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        for spoiled in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[spoiled] ^= 1;
            assert_eq!(parse(&bytes), None, "spoiled at {spoiled}");
        }
    }

    #[test]
    fn what_an_older_forge_kept_comes_back() {
        let revision = revision_of(&files());
        let mut bytes = format!("forge tree 1\n{revision}\n7\n").into_bytes();
        for (path, content) in &files() {
            for part in [path.as_bytes(), content.as_slice()] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        let kept = parse(&bytes).expect("read");
        assert_eq!((kept.read.revision, kept.read.files), (revision, files()));
        assert_eq!(kept.facts.applied_at, Timestamp::from_unix_micros(7));
    }
}
