//! A cache's objects, held by a clone whose user cannot reach the cache.
//!
//! Each object's file gets a second name in the clone. It stays the runner's and read-only: the job's user can read it and
//! remove its own name for it, and change nothing in the cache.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// How many characters of an object's id name its folder.
const FOLDER_NAME: usize = 2;

/// The mode of a lent file: git keeps objects read-only itself.
const READ_MODE: u32 = 0o444;

/// Links every object of the folder `cache` into the folder `own`, which a new clone made.
pub(super) fn objects(cache: &Path, own: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_loose = text.len() == FOLDER_NAME && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_loose || text == "pack" {
            link_files(&entry.path(), &own.join(&name))?;
        }
    }
    Ok(())
}

fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    match fs::create_dir(to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        // Another attempt may be fetching: what it has not finished has a temporary name.
        let text = name.to_string_lossy();
        if !text.starts_with("tmp_") && !text.starts_with('.') {
            names.push(name);
        }
    }
    // An index says that its pack is there, so packs go first.
    names.sort_by_key(|name| !name.to_string_lossy().ends_with(".pack"));
    for name in names {
        link(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Links a file and lets everyone read it who gets to it; the cache's own folder stays closed.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let mode = fs::metadata(from)?.mode();
    if mode & READ_MODE != READ_MODE {
        fs::set_permissions(from, fs::Permissions::from_mode(READ_MODE))?;
    }
    match fs::hard_link(from, to) {
        // Another file system, or one without links.
        Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported) => {
            fs::copy(from, to).map(drop)
        }
        other => other,
    }
}
