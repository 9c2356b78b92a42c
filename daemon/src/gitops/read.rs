//! A folder read into memory as a tree of files: bounded, following only symlinks that stay inside, when it stands still.
//!
//! What is not of a tree (dotfiles, dot folders, files that are neither TOML nor components) is passed over. What is of it
//! and cannot be read becomes a finding that names the file, so that one bad file is shown beside every other mistake.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_config::{Code, Diagnostic, Files, Severity};

use crate::hex;

/// The most bytes of one TOML file.
pub(crate) const TOML_BYTES_MAX: u64 = 1024 * 1024;

/// The most bytes of one component.
pub(crate) const COMPONENT_BYTES_MAX: u64 = forge_api::PLUGIN_BYTES_MAX as u64;

/// The most files of a tree.
pub(crate) const TREE_FILES_MAX: usize = 20_000;

/// The most bytes of a whole tree.
pub(crate) const TREE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How deep folders may lie; a tree of Forge needs three.
pub(crate) const TREE_DEPTH_MAX: usize = 16;

/// How often a tree that does not stand still is read again before this look is given up.
const READS_MAX: u32 = 40;

/// How long a checkout of git's is waited for.
const CHECKOUT_MAX: Duration = Duration::from_secs(30);

/// The pause after a read, in which nothing may change.
const READ_PAUSE: Duration = Duration::from_millis(40);

/// A tree as it lies on the disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadTree {
    /// Of a folder the hex SHA-256 over the sorted paths and contents, of a repository the commit.
    pub(crate) revision: String,
    /// The files.
    pub(crate) files: Files,
    /// What could not be read, sorted by file.
    pub(crate) findings: Vec<Diagnostic>,
}

/// The folder kept changing.
#[derive(Debug, thiserror::Error)]
#[error("{folder} kept changing while it was read {READS_MAX} times: the next change, or the next look, tries again", folder = folder.display())]
pub(crate) struct NeverStill {
    folder: PathBuf,
}

/// Reads until nothing changes around a read, so that half of a burst is never taken for a tree. It blocks.
pub(crate) fn read_until_still(root: &Path) -> Result<ReadTree, NeverStill> {
    let mut patience = CHECKOUT_MAX.as_millis() / READ_PAUSE.as_millis();
    while patience > 0 && is_checking_out(root) {
        patience -= 1;
        std::thread::sleep(READ_PAUSE);
    }
    // What a file is made of is looked at before and after, and not what it holds: that is read once, between the two.
    let mut before = look(root, Look::Stamps);
    for _ in 0..READS_MAX {
        let read = look(root, Look::Contents);
        std::thread::sleep(READ_PAUSE);
        let after = look(root, Look::Stamps);
        if after == before && !is_checking_out(root) {
            return Ok(read);
        }
        before = after;
    }
    Err(NeverStill { folder: root.to_owned() })
}

/// Whether git is writing the folder's files: it holds the index's lock from before the first of them until after the last. A
/// lock that a killed git has left behind grows old, and then it says nothing any more.
fn is_checking_out(root: &Path) -> bool {
    let repository = root.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists());
    let Some(repository) = repository else { return false };
    // In a linked worktree it is a file that names the folder.
    let named = fs::read_to_string(&repository).ok();
    let folder = named
        .as_deref()
        .and_then(|text| text.trim().strip_prefix("gitdir: "))
        .map_or_else(|| repository.clone(), |folder| repository.parent().unwrap_or(root).join(folder));
    let began = fs::metadata(folder.join("index.lock")).and_then(|lock| lock.modified());
    began.is_ok_and(|began| began.elapsed().is_ok_and(|age| age < CHECKOUT_MAX))
}

/// Reads once, whatever the tree is doing.
pub(crate) fn read_once(root: &Path) -> ReadTree {
    look(root, Look::Contents)
}

/// What of the files is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// What they hold.
    Contents,
    /// What changes with whatever is done to them: which file it is, its size, and the times of its change. It stands in the place of
    /// the content.
    Stamps,
}

fn look(root: &Path, look: Look) -> ReadTree {
    let mut reader = Reader { look, root: PathBuf::new(), files: Files::new(), findings: BTreeMap::new(), bytes: 0 };
    match fs::canonicalize(root).and_then(|root| fs::metadata(&root).map(|metadata| (root, metadata.is_dir()))) {
        Ok((canonical, true)) => {
            reader.root = canonical;
            reader.folder(&reader.root.clone(), "", &mut Vec::new());
        }
        Ok((_, false)) => reader.find(
            ".",
            Code::Unreadable,
            format!("{} is a file and no folder", root.display()),
            Some("`source.path` in forge.toml names the folder that holds `projects/`"),
        ),
        Err(error) => reader.find(
            ".",
            Code::Unreadable,
            format!("the folder {} cannot be read: {error}", root.display()),
            Some("make the folder, or correct `source.path` in forge.toml; it is applied as soon as it is there"),
        ),
    }
    let revision = revision_of(&reader.files);
    ReadTree { revision, files: reader.files, findings: reader.findings.into_values().collect() }
}

/// Hex SHA-256 over the sorted paths and contents, each with its length before it.
pub(crate) fn revision_of(files: &Files) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for (path, bytes) in files {
        for part in [path.as_bytes(), bytes.as_slice()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finish().as_ref())
}

/// What tells a file from the same file before or after a change.
fn stamp(metadata: &fs::Metadata) -> Vec<u8> {
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    let which = [metadata.dev(), metadata.ino(), metadata.size(), u64::from(metadata.mode())];
    let times = times.iter().flat_map(|part| part.to_le_bytes());
    times.chain(which.iter().flat_map(|part| part.to_le_bytes())).collect()
}

/// What cannot be read, as a mistake of its file.
pub(super) fn finding(file: &str, code: Code, message: String, hint: Option<&str>) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        code,
        message,
        hint: hint.map(str::to_owned),
        severity: Severity::Error,
        source_line: String::new(),
        source_column: 1,
        span_width: 1,
    }
}

/// What a file of the tree is, by its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Toml,
    Component,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        match Path::new(name).extension().and_then(OsStr::to_str) {
            Some("toml") => Some(Self::Toml),
            Some("wasm") => Some(Self::Component),
            Some(_) | None => None,
        }
    }

    pub(super) const fn bytes_max(self) -> u64 {
        match self {
            Self::Toml => TOML_BYTES_MAX,
            Self::Component => COMPONENT_BYTES_MAX,
        }
    }
}

struct Reader {
    look: Look,
    root: PathBuf,
    files: Files,
    /// One finding a file is enough; keyed by file, so they come out sorted.
    findings: BTreeMap<String, Diagnostic>,
    bytes: u64,
}

impl Reader {
    fn find(&mut self, file: &str, code: Code, message: String, hint: Option<&str>) {
        self.findings.entry(file.to_owned()).or_insert_with(|| finding(file, code, message, hint));
    }

    /// `above` holds the real folders that lead here: one that comes again is a symlink loop.
    fn folder(&mut self, real: &Path, relative: &str, above: &mut Vec<PathBuf>) {
        let shown = if relative.is_empty() { "." } else { relative };
        if above.iter().any(|folder| folder == real) || above.len() >= TREE_DEPTH_MAX {
            let hint = Some("remove the symlink that leads back, or the folders that nest so deep");
            self.find(shown, Code::Path, format!("the folder {shown} leads into itself or lies too deep"), hint);
            return;
        }
        let entries = match fs::read_dir(real) {
            Ok(entries) => entries,
            Err(error) => {
                let hint = Some("let the daemon's user read it");
                return self.find(shown, Code::Unreadable, format!("the folder cannot be read: {error}"), hint);
            }
        };
        above.push(real.to_owned());
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry, relative, above),
                Err(error) => self.find(shown, Code::Unreadable, format!("the folder cannot be read: {error}"), None),
            }
        }
        above.pop();
    }

    fn entry(&mut self, entry: &fs::DirEntry, relative: &str, above: &mut Vec<PathBuf>) {
        let raw = entry.file_name();
        if raw.as_encoded_bytes().starts_with(b".") {
            return;
        }
        let join = |name: &str| if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
        let Some(name) = raw.to_str() else {
            let hint = Some("rename it; names are a-z, 0-9 and `-`");
            let shown = join(&raw.to_string_lossy());
            return self.find(&shown, Code::BadName, "the file's name is not valid UTF-8".to_owned(), hint);
        };
        let path = join(name);
        let is_symlink = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        // A file that goes between listing and reading was removed: the next read will show how it ends.
        let resolved = if is_symlink { fs::canonicalize(entry.path()) } else { Ok(entry.path()) };
        let metadata = resolved.and_then(|real| fs::metadata(&real).map(|metadata| (real, metadata)));
        let (real, metadata) = match metadata {
            Ok(found) => found,
            Err(_) if Kind::of(name).is_none() => return,
            Err(error) if is_symlink => {
                let hint = Some("let it point to a file inside the tree, or remove it");
                return self.find(&path, Code::Path, format!("the symlink leads nowhere: {error}"), hint);
            }
            Err(_) => return,
        };
        let wanted = metadata.is_dir() || Kind::of(name).is_some();
        if is_symlink && wanted && !real.starts_with(&self.root) {
            let hint = Some("keep what it points to inside the tree: only that is reviewed with it");
            return self.find(&path, Code::Path, "the symlink leaves the tree".to_owned(), hint);
        }
        if metadata.is_dir() {
            self.folder(&real, &path, above);
        } else if let Some(kind) = Kind::of(name) {
            // A pipe under a TOML name would block the read for good.
            if !metadata.is_file() {
                self.find(&path, Code::Unreadable, "it is no plain file".to_owned(), Some("put a plain file there"));
            } else if self.look == Look::Stamps {
                // A tree of more files is refused for what it holds.
                if self.files.len() < TREE_FILES_MAX {
                    self.files.insert(path, stamp(&metadata));
                }
            } else {
                self.file(&real, path, kind, metadata.len());
            }
        }
    }

    /// `bytes_likely` is what the file had a moment ago: with room for that and one more, two system calls read a file, and not eight.
    fn file(&mut self, real: &Path, path: String, kind: Kind, bytes_likely: u64) {
        if self.files.len() >= TREE_FILES_MAX {
            let message = format!("the tree holds more than {TREE_FILES_MAX} files");
            return self.find(".", Code::TooLarge, message, Some("split it over several daemons"));
        }
        let bytes_max = kind.bytes_max();
        let mut bytes = Vec::with_capacity(usize::try_from(bytes_likely.min(bytes_max)).unwrap_or_default() + 1);
        match fs::File::open(real).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() as u64 > bytes_max => {
                let message = format!("the file is larger than {bytes_max} bytes");
                self.find(&path, Code::TooLarge, message, Some("make it smaller"));
            }
            Ok(_) if self.bytes + bytes.len() as u64 > TREE_BYTES_MAX => {
                let message = format!("the tree is larger than {TREE_BYTES_MAX} bytes");
                self.find(".", Code::TooLarge, message, Some("remove components that no plugin names"));
            }
            Ok(_) => {
                self.bytes += bytes.len() as u64;
                self.files.insert(path, bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let hint = Some("let the daemon's user read it");
                self.find(&path, Code::Unreadable, format!("the file cannot be read: {error}"), hint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn only_what_belongs_to_a_tree_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for path in ["runners/a.toml", ".git/config.toml", ".hidden.toml", "README.md", "plugins/x.wasm", "a.toml~"] {
            put(root, path, "x");
        }
        let tree = read_until_still(root).expect("still");
        assert_eq!(tree.files.keys().map(String::as_str).collect::<Vec<_>>(), ["plugins/x.wasm", "runners/a.toml"]);
        assert_eq!(tree.findings, []);
        put(root, "README.md", "other");
        assert_eq!(read_once(root).revision, tree.revision);
        put(root, "runners/a.toml", "y");
        assert_ne!(read_once(root).revision, tree.revision);
    }

    #[test]
    fn a_checkout_of_gits_is_waited_for_and_a_left_lock_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("deploy");
        put(&root, "runners/a.toml", "x");
        assert!(!is_checking_out(&root));
        put(folder.path(), ".git/index.lock", "");
        assert!(is_checking_out(&root), "the repository may begin above the tree");
        let lock = fs::File::options().write(true).open(folder.path().join(".git/index.lock")).expect("opened");
        lock.set_modified(std::time::SystemTime::now() - CHECKOUT_MAX).expect("aged");
        assert!(!is_checking_out(&root));
        // A linked worktree names its folder in a file.
        put(&root, ".git", "gitdir: ../.git/worktrees/deploy\n");
        assert!(!is_checking_out(&root));
        put(folder.path(), ".git/worktrees/deploy/index.lock", "");
        assert!(is_checking_out(&root));
    }

    #[test]
    fn a_config_map_is_read_through_its_symlinks() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        put(root, "..2026_01/runners/a.toml", "x");
        symlink("..2026_01", root.join("..data")).expect("linked");
        symlink("..data/runners", root.join("runners")).expect("linked");
        assert_eq!(read_once(root).files.keys().collect::<Vec<_>>(), ["runners/a.toml"]);
        // The root itself may be a symlink, too.
        let other = tempfile::tempdir().expect("a folder");
        symlink(root, other.path().join("tree")).expect("linked");
        assert_eq!(read_once(&other.path().join("tree")), read_once(root));
    }

    #[test]
    fn whatever_is_done_to_a_file_shows_without_reading_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let path = root.join("runners/a.toml");
        put(root, "runners/a.toml", "1");
        put(root, "runners/b.toml", "2");
        let permissions = |mode: u32| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let changes: [(&str, &dyn Fn()); 6] = [
            ("a write of the same length", &|| fs::write(&path, "3").expect("written")),
            ("another one's name", &|| fs::rename(root.join("runners/b.toml"), &path).expect("renamed")),
            ("its permissions", &|| permissions(0o600)),
            ("an empty file", &|| fs::write(&path, "").expect("written")),
            ("no file", &|| fs::remove_file(&path).expect("removed")),
            ("a link", &|| symlink("c.toml", &path).expect("linked")),
        ];
        let mut before = look(root, Look::Stamps);
        assert_eq!(before, look(root, Look::Stamps));
        for (what, change) in changes {
            // A file's times move with the kernel's ticks.
            std::thread::sleep(Duration::from_millis(20));
            change();
            let after = look(root, Look::Stamps);
            assert!(after != before, "{what} does not show");
            before = after;
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        put(root, "big.toml", &"#".repeat(TOML_BYTES_MAX as usize + 1));
        symlink("/etc", root.join("outside")).expect("linked");
        symlink("nowhere", root.join("nowhere.toml")).expect("linked");
        fs::create_dir(root.join("loop")).expect("made");
        symlink("..", root.join("loop/again")).expect("linked");
        fs::write(root.join(OsStr::from_bytes(b"bad\xff.toml")), "").expect("written");
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe.toml"), rustix::fs::Mode::RUSR).expect("a pipe");
        let tree = read_once(root);
        let found: Vec<_> = tree.findings.iter().map(|found| (found.file.as_str(), found.code)).collect();
        assert_eq!(
            found,
            [
                ("bad\u{fffd}.toml", Code::BadName),
                ("big.toml", Code::TooLarge),
                ("loop/again", Code::Path),
                ("nowhere.toml", Code::Path),
                ("outside", Code::Path),
                ("pipe.toml", Code::Unreadable),
            ]
        );
        let missing = read_once(&root.join("not-there"));
        assert!(missing.findings[0].message.contains("not-there"), "{:?}", missing.findings);
    }
}
