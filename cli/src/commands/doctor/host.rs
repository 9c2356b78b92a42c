//! What a host has: who may read a file, how much space is left, which programs there are.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Findings;

/// Who may do what with a file that is a secret: its owner alone.
const OTHERS: u32 = 0o077;

/// Says when a secret's file can be read by others, belongs to someone else, or cannot be read. Answers whether it is there.
pub(super) fn secret_file(findings: &mut Findings, what: &str, path: &Path) -> bool {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            let mend = "run forge doctor as the user that it belongs to, or give that user the folder";
            findings.error("permissions", format!("{what} {} cannot be looked at: {error}", path.display()), mend);
            return true;
        }
    };
    let mode = metadata.mode() & 0o777;
    let user = rustix::process::geteuid();
    if mode & OTHERS != 0 {
        findings.error(
            "permissions",
            format!("{what} {} can be read by others (mode {mode:04o})", path.display()),
            format!("run `chmod 600 {}`", path.display()),
        );
    } else if metadata.uid() != user.as_raw() && !user.is_root() {
        findings.error(
            "permissions",
            format!(
                "{what} {} belongs to user {} and not to this one, {}",
                path.display(),
                metadata.uid(),
                user.as_raw()
            ),
            format!("run `chown {} {}` as root, or run this as its owner", user.as_raw(), path.display()),
        );
    } else if let Err(error) = fs::File::open(path) {
        findings.error(
            "permissions",
            format!("{what} {} cannot be read: {error}", path.display()),
            format!("run `chmod 600 {}`", path.display()),
        );
    } else {
        findings.ok("permissions", format!("{what} {} is its owner's alone", path.display()));
    }
    true
}

/// Says when a folder of secrets is open to others, is no folder, or cannot be written. Answers whether it is there.
pub(super) fn private_folder(findings: &mut Findings, key: &str, path: &Path) -> bool {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            let mend = format!("set {key} to a folder that this user may enter");
            findings.error("permissions", format!("{key} {} cannot be entered: {error}", path.display()), mend);
            return true;
        }
    };
    let (mode, user) = (metadata.mode() & 0o777, rustix::process::geteuid());
    if !metadata.is_dir() {
        let mend = format!("move that file away, or set {key} to a folder");
        findings.error("permissions", format!("{key} {} is no folder", path.display()), mend);
    } else if mode & OTHERS != 0 {
        findings.error(
            "permissions",
            format!("{key} {} is open to others (mode {mode:04o})", path.display()),
            format!("run `chmod 700 {}`", path.display()),
        );
    } else if let Err(error) = rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        findings.error(
            "permissions",
            format!("user {} may not write in {key} {}: {error}", user.as_raw(), path.display()),
            format!("run `chown -R {} {}` as root", user.as_raw(), path.display()),
        );
    } else {
        findings.ok("permissions", format!("{key} {} is its owner's alone", path.display()));
    }
    true
}

/// Says when less than `bytes_min` is free where `path` lies, or will.
pub(super) fn space(findings: &mut Findings, path: &Path, bytes_min: u64, mend: String) {
    let Some(there) = path.ancestors().find(|folder| folder.exists()) else { return };
    match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let message = format!("{free} bytes are free at {}", path.display());
            if free < bytes_min {
                findings.error("disk", format!("{message}, and {bytes_min} are needed"), mend);
            } else {
                findings.ok("disk", message);
            }
        }
        Err(error) => findings.error("disk", format!("the space at {} cannot be told: {error}", path.display()), mend),
    }
}

/// Where a program is, by the same rule as a shell's.
pub(in crate::commands) fn program(name: &str, search: Option<&str>) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    std::env::split_paths(search?).map(|folder| folder.join(name)).find(|path| is_program(path))
}
