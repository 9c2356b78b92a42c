//! A `forge` process: started with a clean environment, its output collected in files, ended when the story is.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::wait_for;

/// A long-running process of a story. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stderr: PathBuf,
}

/// A process that has ended, and what it wrote.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts `command` with its output in files below `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for output");
        let stderr = folder.join(format!("{name}.stderr"));
        let open = |path: &Path| {
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("an output file can be opened")
        };
        command.stdin(Stdio::null()).stdout(open(&folder.join(format!("{name}.stdout")))).stderr(open(&stderr));
        let child = command.spawn().expect("forge starts");
        Self { child, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written to stderr.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill -{name} {}", self.pid());
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill_hard(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, what: &str) -> ExitStatus {
        wait_for(what, || self.child.try_wait().expect("the child is ours"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail: String = self.stderr().chars().rev().take(4_000).collect::<Vec<_>>().into_iter().rev().collect();
            // Printed by hand: a panic here would end the whole test program.
            let _ = writeln!(std::io::stderr(), "---- {} said last:\n{tail}", self.stderr.display());
        }
        self.kill_hard();
    }
}

impl Finished {
    /// Runs `command` to its end with `stdin`.
    pub(crate) fn of(mut command: Command, stdin: &[u8]) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("forge starts");
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A command that does not read its stdin closes the pipe: that is its right.
        let _ = pipe.write_all(stdin);
        drop(pipe);
        let output = child.wait_with_output().expect("forge ends");
        Self {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its stdout as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}\n{}", self.text(), self.stderr))
    }

    /// Itself, when it exited with `code`.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}
