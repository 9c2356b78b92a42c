//! Programs of Debian that a story needs: taken when they are there, installed where that is allowed, named where it is not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Where Debian and most others keep it; sshd insists on being started by its whole path.
pub(crate) const SSHD: &str = "/usr/sbin/sshd";

/// One installation at a time: apt-get refuses a second.
static INSTALLING: Mutex<()> = Mutex::new(());

fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var("PATH").expect("PATH is set");
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// The folder of this repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of a tool in the target folder, which a script of `.ci` makes unless it stands there.
pub(crate) fn made_by(script: &str) -> PathBuf {
    let script = repository().join(".ci").join(script);
    let output = Command::new("sh").arg(script).arg(env!("CARGO_TARGET_TMPDIR")).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
}

/// Sees to it that `program` can be run; `package` is Debian's.
pub(crate) fn need(program: &str, package: &str) {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_there(program) {
        return;
    }
    for arguments in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends", package][..]] {
        // What went wrong shows in the end: the program is there or not.
        let _ = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output();
    }
    assert!(is_there(program), "this story runs the real {program}: install it (Debian: apt-get install {package})");
}
