//! The capability `workspace`: files under the attempt's folder and nowhere else.
//!
//! The kernel decides what lies inside: every path is opened with `openat2` and `RESOLVE_BENEATH`, so `..`, absolute paths and
//! symlinks that leave are refused even when a process of the job changes the tree meanwhile. Only regular files are
//! read and written: a FIFO or a device cannot make the host wait.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::acting::Acting;
use crate::bindings::forge::plugin::{types, workspace};
use crate::limits::{LIST_ENTRIES_MAX, PATH_BYTES_MAX, READ_BYTES_MAX, WRITTEN_BYTES_MAX, WRITTEN_ENTRIES_MAX};
use crate::state::State;
use crate::{CapabilityError, FileUser, convert};

/// The job's user reads what a plugin writes, so no secret is ever written through here.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
/// What of a mode is kept where a file is brought to another workspace: who may read, write and run it, and no setuid.
const KEPT_MODE: u32 = 0o777;
/// `openat2` answers EAGAIN when the tree was renamed under it.
const OPEN_ATTEMPTS_MAX: usize = 16;

/// An attempt's folder, held open. An embedder that touches files by a guest's names does it through this, too.
#[derive(Debug)]
pub struct Workspace {
    root: OwnedFd,
    /// Whose files these are, when they are not this process's user's.
    file_user: Option<FileUser>,
}

/// A file as it is brought to another workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeFile {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Who may read, write and run it.
    pub mode: u32,
}

/// What one call has written into the workspace itself. What it removes again counts on: it was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    bytes: u64,
    entries: u32,
}

impl Written {
    fn add_bytes(&mut self, more: usize) -> Result<(), CapabilityError> {
        self.bytes = self.bytes.saturating_add(more as u64);
        if self.bytes <= WRITTEN_BYTES_MAX { Ok(()) } else { Err(Self::refusal()) }
    }

    fn add_entry(&mut self) -> Result<(), CapabilityError> {
        self.entries = self.entries.saturating_add(1);
        if self.entries <= WRITTEN_ENTRIES_MAX { Ok(()) } else { Err(Self::refusal()) }
    }

    fn refusal() -> CapabilityError {
        CapabilityError::Denied(format!(
            "in one call a plugin writes at most {} MiB and makes at most {WRITTEN_ENTRIES_MAX} files and folders itself: have a process write what is more",
            WRITTEN_BYTES_MAX >> 20
        ))
    }
}

/// What becomes of what a file holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Append,
    Replace,
}

/// One entry of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    name: String,
    size_bytes: u64,
    is_folder: bool,
}

impl Workspace {
    /// Opens the folder; its files are touched as `file_user`, where that is given.
    ///
    /// # Errors
    /// It is not there, or no folder.
    pub fn open(path: &Path, file_user: Option<FileUser>) -> std::io::Result<Self> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, file_user })
    }

    /// Reads a whole file; `None` when it has more than `bytes_max`.
    ///
    /// # Errors
    /// It is not there, is no regular file, or lies outside.
    pub fn read_whole(&self, path: &str, bytes_max: u64) -> Result<Option<WholeFile>, CapabilityError> {
        let _acting = self.act()?;
        let file = self.open_file(path, OFlags::RDONLY)?;
        let mode = file.metadata().map_err(|error| CapabilityError::Io(format!("{path}: {error}")))?.mode() & KEPT_MODE;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
        let length = read.map_err(|error| CapabilityError::Io(format!("{path}: {error}")))?;
        Ok((length as u64 <= bytes_max).then_some(WholeFile { bytes, mode }))
    }

    /// Writes a whole file of the job's user; its folders are made.
    ///
    /// # Errors
    /// It lies outside, or the system refuses.
    pub fn write_whole(&self, path: &str, file: &WholeFile) -> Result<(), CapabilityError> {
        let WholeFile { bytes, mode } = file;
        // The embedder's own bytes are bounded by whoever hands them over.
        self.write(path, bytes, How::Replace, &mut Written::default())?;
        let _acting = self.act()?;
        let file = self.open_file(path, OFlags::WRONLY)?;
        let changed = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & KEPT_MODE));
        changed.map_err(|error| CapabilityError::Io(format!("{path}: {error}")))
    }

    fn act(&self) -> Result<Option<Acting>, CapabilityError> {
        self.file_user.map(Acting::start).transpose()
    }

    fn open_inside(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, CapabilityError> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, beneath) {
                Err(Errno::AGAIN | Errno::INTR) if attempts < OPEN_ATTEMPTS_MAX => attempts += 1,
                result => return result.map_err(|error| explain(path, error)),
            }
        }
    }

    fn open_file(&self, path: &str, flags: OFlags) -> Result<File, CapabilityError> {
        let path = plain(path)?;
        // The kernel refuses a mode for a file that is not to be made.
        let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
        let file = File::from(self.open_inside(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY, mode)?);
        let metadata = file.metadata().map_err(|error| CapabilityError::Io(format!("{path}: {error}")))?;
        if metadata.is_dir() {
            return Err(CapabilityError::Invalid(format!("{path} is a folder and not a file")));
        }
        if !metadata.is_file() {
            return Err(CapabilityError::Invalid(format!("{path} is not a regular file")));
        }
        Ok(file)
    }

    pub(crate) fn read(&self, path: &str, offset: u64, max: u32) -> Result<Vec<u8>, CapabilityError> {
        let _acting = self.act()?;
        let mut file = self.open_file(path, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(u64::from(max.min(READ_BYTES_MAX))).read_to_end(&mut bytes))
            .map_err(|error| CapabilityError::Io(format!("{path}: {error}")))?;
        Ok(bytes)
    }

    pub(crate) fn write(
        &self,
        path: &str,
        data: &[u8],
        how: How,
        written: &mut Written,
    ) -> Result<(), CapabilityError> {
        let _acting = self.act()?;
        let path = plain(path)?;
        written.add_bytes(data.len())?;
        self.make_parents(path, written)?;
        let flags = match how {
            How::Append => OFlags::WRONLY | OFlags::APPEND,
            How::Replace => OFlags::WRONLY,
        };
        let mut file = match self.open_file(path, flags) {
            Err(CapabilityError::NotFound(_)) => {
                written.add_entry()?;
                self.open_file(path, flags | OFlags::CREATE)?
            }
            other => other?,
        };
        // Only what has been found to be a regular file is emptied; ext4 writes out at once what is written after that.
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        let emptied = if how == How::Append || is_empty { Ok(()) } else { file.set_len(0) };
        emptied.and_then(|()| file.write_all(data)).map_err(|error| CapabilityError::Io(format!("{path}: {error}")))
    }

    fn make_parents(&self, path: &str, written: &mut Written) -> Result<(), CapabilityError> {
        for (end, _) in path.match_indices('/') {
            let Some(folder) = path.get(..end) else { continue };
            let (parent, name) = split(folder);
            let parent = self.open_inside(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            match rustix::fs::mkdirat(&parent, name, FOLDER_MODE) {
                Ok(()) => written.add_entry()?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(explain(folder, error)),
            }
        }
        Ok(())
    }

    pub(crate) fn list(&self, path: &str) -> Result<Vec<Entry>, CapabilityError> {
        let _acting = self.act()?;
        let path = plain(path)?;
        let folder = self.open_inside(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&folder).map_err(|error| explain(path, error))? {
            let entry = entry.map_err(|error| explain(path, error))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entries.len() == LIST_ENTRIES_MAX {
                return Err(CapabilityError::Invalid(format!("{path} has more than {LIST_ENTRIES_MAX} entries")));
            }
            // What is removed meanwhile is not listed.
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            entries.push(Entry {
                name: name.to_string_lossy().into_owned(),
                size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                is_folder: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Removes a file, or an empty folder.
    ///
    /// # Errors
    /// It is not there, lies outside, or the system refuses.
    pub fn remove(&self, path: &str) -> Result<(), CapabilityError> {
        let _acting = self.act()?;
        let path = plain(path)?.trim_end_matches('/');
        let (parent, name) = split(path);
        if matches!(name, "." | "") {
            return Err(CapabilityError::Denied("the workspace itself is not removed".to_owned()));
        }
        let parent = self.open_inside(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            other => other,
        }
        .map_err(|error| explain(path, error))
    }

    /// A folder inside, as the path that was asked for.
    pub(crate) fn folder<'a>(&self, path: &'a str) -> Result<&'a str, CapabilityError> {
        let _acting = self.act()?;
        let path = plain(path)?;
        self.open_inside(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(path)
    }
}

/// The folder and the last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

/// What can be refused without asking the kernel, with a message that says so.
fn plain(path: &str) -> Result<&str, CapabilityError> {
    if path.is_empty() || path.contains('\0') || path.len() > PATH_BYTES_MAX {
        return Err(CapabilityError::Invalid(format!(
            "a path has 1 to {PATH_BYTES_MAX} bytes and no NUL; \".\" is the workspace"
        )));
    }
    if path.starts_with('/') {
        return Err(CapabilityError::Denied(format!("{path} is absolute; paths are relative to the workspace")));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(CapabilityError::Denied(format!("{path} holds `..`; paths stay inside the workspace")));
    }
    Ok(path)
}

fn explain(path: &str, error: Errno) -> CapabilityError {
    match error {
        Errno::XDEV | Errno::LOOP => CapabilityError::Denied(format!("{path} leaves the workspace through a symlink")),
        Errno::NOENT => CapabilityError::NotFound(format!("{path} in the workspace")),
        Errno::NOTDIR => CapabilityError::Invalid(format!("{path} is not a folder, or lies in a file")),
        Errno::ISDIR => CapabilityError::Invalid(format!("{path} is a folder and not a file")),
        Errno::NXIO => CapabilityError::Invalid(format!("{path} is not a regular file")),
        Errno::NOSYS => CapabilityError::Io("plugins need openat2: Linux 5.6 or newer".to_owned()),
        other => CapabilityError::Io(format!("{path}: {other}")),
    }
}

impl State {
    pub(crate) fn workspace(&self) -> Result<&Workspace, CapabilityError> {
        given(self.workspace.as_ref())
    }
}

fn given(workspace: Option<&Workspace>) -> Result<&Workspace, CapabilityError> {
    workspace.ok_or_else(|| CapabilityError::Denied("a plugin that describes itself has no workspace".to_owned()))
}

impl workspace::Host for State {
    fn read(&mut self, path: String, offset: u64, max: u32) -> wasmtime::Result<Result<Vec<u8>, types::HostError>> {
        let bytes = self.workspace().and_then(|workspace| workspace.read(&path, offset, max));
        Ok(bytes.map_err(convert::host_error))
    }

    fn write(&mut self, path: String, data: Vec<u8>, append: bool) -> wasmtime::Result<Result<(), types::HostError>> {
        let how = if append { How::Append } else { How::Replace };
        let Self { workspace, written: so_far, .. } = self;
        let written = given(workspace.as_ref()).and_then(|workspace| workspace.write(&path, &data, how, so_far));
        Ok(written.map_err(convert::host_error))
    }

    fn list(&mut self, path: String) -> wasmtime::Result<Result<Vec<workspace::Entry>, types::HostError>> {
        let entries = self.workspace().and_then(|workspace| workspace.list(&path));
        Ok(entries.map_err(convert::host_error).map(|entries| {
            entries
                .into_iter()
                .map(|Entry { name, size_bytes, is_folder }| workspace::Entry {
                    name,
                    size: size_bytes,
                    is_dir: is_folder,
                })
                .collect()
        }))
    }

    fn remove(&mut self, path: String) -> wasmtime::Result<Result<(), types::HostError>> {
        let removed = self.workspace().and_then(|workspace| workspace.remove(&path));
        Ok(removed.map_err(convert::host_error))
    }
}

impl types::Host for State {}
