//! A PATH with `ansible-playbook`: the machine's own, else that of ansible-core from PyPI in the target folder, which the first
//! test that needs it makes with `.ci/ansible-core`. Where neither can be had the test fails and says what to install.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The PATH, with Ansible's programs on it.
pub(crate) fn path() -> &'static OsString {
    static PATH: OnceLock<OsString> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var_os("PATH").expect("tests have a PATH");
        // A name that is there and does not start, such as pyenv's for another Python, is of no use.
        let started = Command::new("ansible-playbook").arg("--version").output();
        if started.is_ok_and(|output| output.status.success()) {
            return path;
        }
        let folders = std::iter::once(make()).chain(std::env::split_paths(&path));
        std::env::join_paths(folders).expect("no folder of PATH has a colon")
    })
}

fn make() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join(".ci/ansible-core"))
        .find(|script| script.is_file())
        .expect("the work tree has .ci/ansible-core");
    let output = Command::new("sh").arg(script).arg(env!("CARGO_TARGET_TMPDIR")).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
}
