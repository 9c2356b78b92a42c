//! A tree out of a git revision, for `forge config diff`: its files in a temporary folder, exactly as they were committed.
//!
//! It asks git for objects and never checks anything out: no attribute, filter or hook of the repository has a say.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::error::CliError;

/// The most bytes of one file that are taken out: what a plugin's component may have. A larger one would be refused by the check.
const FILE_BYTES_MAX: u64 = forge_api::PLUGIN_BYTES_MAX as u64;

/// A revision's tree.
pub(crate) struct GitTree {
    folder: TempDir,
    commit: String,
}

impl GitTree {
    /// Where its files lie.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The commit.
    pub(crate) fn commit(&self) -> &str {
        &self.commit
    }
}

/// A file of a revision.
struct Blob {
    kind: BlobKind,
    object: String,
    path: PathBuf,
}

/// What a file is. The order is that in which they are written: no file is ever written through a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BlobKind {
    File,
    Symlink,
}

/// Takes the tree at `revision` out of the repository around the current folder: the part of it that this folder is, or what
/// `REVISION:FOLDER` names.
pub(crate) fn unpack(revision: &str) -> Result<GitTree, CliError> {
    let unknown = |why: &str| {
        CliError::failed(format_args!("{revision:?} is neither a folder nor a revision here: {why}")).hint(
            "name a folder, `live`, or a revision of the git repository around this folder, such as main, HEAD~1 or main:FOLDER",
        )
    };
    let (name, folder) = match revision.split_once(':') {
        Some((name, folder)) => (name, Some(folder.trim_matches('/').to_owned())),
        None => (revision, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(unknown("it is no name of a revision"));
    }
    let commit = git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])
        .map_err(|why| unknown(&why))?;
    let prefix = match folder {
        Some(folder) => folder,
        None => git(&["rev-parse", "--show-prefix"]).map_err(|why| unknown(&why))?,
    };
    let prefix = prefix.trim_end_matches('/');
    let tree = format!("{commit}:{prefix}");
    let list = git_bytes(&["ls-tree", "-r", "-z", "--full-tree", &tree]).map_err(|why| unknown(&why))?;
    let mut blobs: Vec<_> = list.split(|byte| *byte == 0).filter_map(blob).collect();
    blobs.sort_by_key(|blob| blob.kind);
    let folder = tempfile::Builder::new()
        .prefix("forge-diff-")
        .tempdir()
        .map_err(|error| CliError::failed(format_args!("no temporary folder could be made: {error}")))?;
    write_blobs(&blobs, folder.path()).map_err(|error| {
        CliError::failed(format_args!("the files of {revision} could not be read from git: {error}"))
    })?;
    Ok(GitTree { folder, commit })
}

/// A line of `ls-tree`: mode, type, object, tab, path. Whether a symlink leaves the tree is for the check to say, as in any folder.
fn blob(line: &[u8]) -> Option<Blob> {
    let line = std::str::from_utf8(line).ok()?;
    let (facts, path) = line.split_once('\t')?;
    let mut facts = facts.split(' ');
    let (mode, kind, object) = (facts.next()?, facts.next()?, facts.next()?);
    let path = PathBuf::from(path);
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_of_a_tree = path.extension().is_some_and(|extension| extension == "toml" || extension == "wasm");
    let kind = match (kind, mode) {
        ("blob", "120000") => BlobKind::Symlink,
        ("blob", _) if is_of_a_tree => BlobKind::File,
        (_, _) => return None,
    };
    is_inside.then(|| Blob { kind, object: object.to_owned(), path })
}

/// Asks one git for all objects, and writes each below `folder`.
fn write_blobs(blobs: &[Blob], folder: &Path) -> std::io::Result<()> {
    let mut git = command(&["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut questions), Some(answers)) = (git.stdin.take(), git.stdout.take()) else {
        return Err(std::io::Error::other("git has no pipes"));
    };
    let asked: String = blobs.iter().map(|blob| format!("{}\n", blob.object)).collect();
    let written = std::thread::scope(|scope| {
        // Beside the reading: neither pipe may fill up while the other waits.
        let asking = scope.spawn(move || questions.write_all(asked.as_bytes()));
        let mut answers = BufReader::new(answers);
        let written = blobs.iter().try_for_each(|blob| write_blob(blob, &mut answers, folder));
        drop(answers);
        let asked = asking.join().unwrap_or_else(|_| Err(std::io::Error::other("asking git failed")));
        written.and(asked)
    });
    let status = git.wait()?;
    written?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other("git could not read its objects")) }
}

fn write_blob(blob: &Blob, answers: &mut impl BufRead, folder: &Path) -> std::io::Result<()> {
    let mut header = String::new();
    answers.read_line(&mut header)?;
    let malformed = || std::io::Error::other(format!("git has no object for {}", blob.path.display()));
    let bytes: u64 =
        header.trim_end().rsplit_once(' ').and_then(|(_, size)| size.parse().ok()).ok_or_else(malformed)?;
    if bytes > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("{} is larger than {FILE_BYTES_MAX} bytes", blob.path.display())));
    }
    let path = folder.join(&blob.path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut content = answers.by_ref().take(bytes);
    let taken = match blob.kind {
        BlobKind::File => std::io::copy(&mut content, &mut std::fs::File::create_new(&path)?)?,
        BlobKind::Symlink => {
            let mut target = Vec::new();
            let taken = content.read_to_end(&mut target)?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), &path)?;
            taken as u64
        }
    };
    if taken != bytes {
        return Err(malformed());
    }
    // A line feed follows each object.
    answers.read_exact(&mut [0])
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).stderr(Stdio::null()).env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    command
}

/// What git prints, on one line; or why it prints nothing.
fn git(arguments: &[&str]) -> Result<String, String> {
    let bytes = git_bytes(arguments)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

fn git_bytes(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output =
        command(arguments).stdin(Stdio::null()).output().map_err(|error| format!("git cannot be run: {error}"))?;
    if output.status.success() { Ok(output.stdout) } else { Err("git knows none of that name".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_a_tree_are_taken() {
        let taken = |line: &str| blob(line.as_bytes()).map(|blob| blob.path);
        let link = blob(b"120000 blob aa\trunners/link").map(|blob| blob.kind);
        assert!(link > Some(BlobKind::File), "written after every file");
        assert_eq!(taken("100644 blob aa\trunners/a.toml"), Some(PathBuf::from("runners/a.toml")));
        assert_eq!(taken("100755 blob aa\tplugins/a.wasm"), Some(PathBuf::from("plugins/a.wasm")));
        for other in [
            "120000 blob aa\t../link",
            "160000 commit aa\tsub.toml",
            "100644 blob aa\tREADME.md",
            "100644 blob aa\t../a.toml",
            "100644 blob aa\t/etc/a.toml",
            "",
        ] {
            assert_eq!(taken(other), None, "{other}");
        }
    }
}
