//! Checkouts: a bare cache a project and repository, a clone of its own an attempt.
//!
//! The clone borrows the cache's objects (nothing is ever pruned from a cache), or where the job's user cannot reach the cache holds
//! them by links that it cannot write to, and shares nothing else with it, so two tasks
//! of one template never meet. Two projects never share a cache, also of one URL: whoever can read a clone can read everything that
//! its cache holds, and the key that fetched it was the other project's. URL, branch and commit come from a tree that many people write: each is checked here again,
//! stands after `--`, and git may use no protocol but those named. A URL's redirect, a submodule, a hook or a
//! configuration file of the repository cannot start a program: the configuration is ours alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forge_api::Repository;

use self::check::{check_references, check_url};
use crate::files;
use crate::log::Log;
use crate::process::{self, Processes, Start};
use crate::state::Shared;

mod access;
mod check;
mod lend;

/// The command that has submodules.
const SUBMODULE: &str = "submodule";

/// git's words for a protocol that it was not allowed: `transport 'file' not allowed`.
const NOT_ALLOWED: &str = "' not allowed";

/// What to do about a submodule that is refused.
const SUBMODULE_HINT: &str = "a submodule is had over https:// or ssh:// only: write such a `url` into .gitmodules, or take `submodules` out of \
     the repository's file and have the job get what it needs";

/// How many of git's last lines make a reason.
const REASON_LINES: usize = 4;

/// How often a cache that another attempt holds is tried again.
const LOCK_NAP: Duration = Duration::from_millis(100);

/// How deep the folders of a cache's references may lie.
const REFERENCE_DEPTH_MAX: u32 = 32;

/// The most bytes that an answer of git is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// git as one attempt uses it.
pub(crate) struct Git<'a> {
    /// The project, which has caches of its own.
    pub(crate) project: &'a str,
    /// The program.
    pub(crate) program: &'a str,
    /// What git's processes see of the runner's environment.
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// The folder of the caches.
    pub(crate) caches: &'a Path,
    /// A folder for scripts, which may not lie where programs cannot run.
    pub(crate) scripts: &'a Path,
    /// The folder of secret files.
    pub(crate) private: &'a Path,
    /// A configuration for ssh.
    pub(crate) ssh_config_path: Option<&'a Path>,
    /// Where git's words go.
    pub(crate) log: &'a Arc<Log>,
    /// Who starts its processes.
    pub(crate) processes: &'a Processes,
    /// Whether the job must end.
    pub(crate) shared: &'a Shared,
    /// Whether the job's user is another one, who cannot reach the caches.
    pub(crate) is_apart: bool,
}

/// The repository cannot be checked out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// The URL is refused.
    #[error(
        "the URL {url:?} of the repository {name:?} is refused: {reason}; write https://, ssh://, user@host:path or file://"
    )]
    Url {
        /// The repository.
        name: String,
        /// As written.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// The branch or commit is refused.
    #[error("{what} {text:?} of the repository {name:?} is refused: {reason}")]
    Reference {
        /// The repository.
        name: String,
        /// Branch or commit.
        what: &'static str,
        /// As written.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// The program is missing.
    #[error("the git program {program:?} is not on PATH ({path}) of this runner: install git there, or set git_client")]
    NoProgram {
        /// The program.
        program: String,
        /// The path that was searched.
        path: String,
    },
    /// git says no.
    #[error("the repository {name:?} cannot be checked out (git {step}): {words}")]
    Failed {
        /// The repository.
        name: String,
        /// Which of git's commands.
        step: String,
        /// git's own last lines.
        words: String,
    },
    /// The job was told to end.
    #[error("canceled while the repository {name:?} was checked out")]
    Canceled {
        /// The repository.
        name: String,
    },
    /// A file or process of this machine.
    #[error("the repository {name:?} cannot be checked out: {error}")]
    Io {
        /// The repository.
        name: String,
        /// Why.
        error: io::Error,
    },
}

/// One repository being checked out.
struct Step<'a> {
    git: &'a Git<'a>,
    repository: &'a Repository,
    program: PathBuf,
    env: BTreeMap<OsString, OsString>,
}

impl Git<'_> {
    /// Checks `repository` out into the new folder `target` and answers its commit. `role` keeps the secret files of two
    /// repositories of one attempt apart.
    pub(crate) fn check_out(&self, repository: &Repository, target: &Path, role: &str) -> Result<String, GitError> {
        check_url(repository)?;
        check_references(repository)?;
        let path = self.environment.get("PATH").cloned().unwrap_or_default();
        let program = process::find_program(self.program, &path, Path::new("/"))
            .ok_or(GitError::NoProgram { program: self.program.to_owned(), path })?;
        let env = self.env(repository, role).map_err(|error| io_error(repository, error))?;
        let step = Step { git: self, repository, program, env };
        let of_branch = repository.branch.as_deref().map(|branch| format!(" ({branch})")).unwrap_or_default();
        // git is waited for without a look at what it says.
        self.log.start_pump();
        self.log.forge(&format!("checking out {}{of_branch}", repository.url));
        let commit = step.fetch_and_clone(target)?;
        self.log.forge(&format!("at commit {commit}"));
        Ok(commit)
    }
}

/// Removes git's own lock files from a cache: whoever holds the cache is alone, so they are of a git that was killed, and
/// each would make every fetch from now on fail.
fn remove_stale_locks(cache: &Path) -> io::Result<()> {
    remove_locks_in(cache)?;
    let mut open = vec![(cache.join("refs"), 0)];
    while let Some((folder, depth)) = open.pop() {
        for below in remove_locks_in(&folder)? {
            if depth < REFERENCE_DEPTH_MAX {
                open.push((below, depth + 1));
            }
        }
    }
    Ok(())
}

/// Removes the lock files in one folder and answers the folders in it.
fn remove_locks_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        } else if entry.path().extension().is_some_and(|end| end == "lock") {
            files::remove(&entry.path())?;
        }
    }
    Ok(folders)
}

fn io_error(repository: &Repository, error: io::Error) -> GitError {
    GitError::Io { name: repository.name.clone(), error }
}

impl Step<'_> {
    fn fetch_and_clone(&self, target: &Path) -> Result<String, GitError> {
        let failed = |error| io_error(self.repository, error);
        files::make_private_folder(self.git.caches).map_err(failed)?;
        // A shallow cache would make every history that is read through it shallow, so each depth has one of its own.
        let depth = self.repository.depth.map(|depth| depth.to_string()).unwrap_or_default();
        // Neither a project's name nor a URL that passed the check holds an end of line.
        let key = files::sha256_hex(format!("{}\n{}\n{depth}", self.git.project, self.repository.url).as_bytes());
        let cache = self.git.caches.join(format!("{key}.git"));
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.git.caches.join(format!("{key}.lock")))
            .map_err(failed)?;
        self.wait_for(&lock)?;
        remove_stale_locks(&cache).map_err(failed)?;
        if !cache.join("HEAD").is_file() {
            files::remove(&cache).map_err(failed)?;
            self.run(&["init", "--quiet", "--bare", "--"], &[cache.as_os_str().to_owned()], Path::new("/"))?;
        }
        let commit = self.commit(&cache)?;
        let shallow = fs::read(cache.join("shallow")).ok();
        drop(lock);
        self.clone_at(&cache, target, &commit, shallow.as_deref())?;
        Ok(commit)
    }

    /// Takes the cache for this attempt. Another one may be fetching into it for long: who cancels does not wait for that.
    fn wait_for(&self, lock: &File) -> Result<(), GitError> {
        let mut is_told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(io_error(self.repository, error)),
            }
            if !std::mem::replace(&mut is_told, true) {
                self.git.log.forge("waiting for another task, which fetches the same repository");
            }
            if self.git.shared.wait_for(LOCK_NAP, |state| state.ending.is_some().then_some(())).is_some() {
                return Err(GitError::Canceled { name: self.repository.name.clone() });
            }
        }
    }

    /// The commit to check out, fetched into the cache when it is not there yet.
    fn commit(&self, cache: &Path) -> Result<String, GitError> {
        if let Some(commit) = &self.repository.commit {
            let wanted = format!("{commit}^{{commit}}");
            if self.answer(&["cat-file", "-e", &wanted], cache).is_err() {
                // Most servers give any commit by its id; an old one gives its branches.
                let by_id = self.fetch(cache, commit);
                if by_id.is_err() {
                    self.fetch(cache, "+refs/heads/*:refs/forge/heads/*")?;
                }
            }
            return self.answer(&["rev-parse", "--verify", "--quiet", &wanted], cache);
        }
        let (remote, local) = match &self.repository.branch {
            Some(branch) => (format!("refs/heads/{branch}"), format!("refs/forge/heads/{branch}")),
            None => ("HEAD".to_owned(), "refs/forge/HEAD".to_owned()),
        };
        self.fetch(cache, &format!("+{remote}:{local}"))?;
        self.answer(&["rev-parse", "--verify", "--quiet", &format!("{local}^{{commit}}")], cache)
    }

    fn fetch(&self, cache: &Path, refspec: &str) -> Result<(), GitError> {
        let mut args = vec!["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"];
        let depth = self.repository.depth.map(|depth| format!("--depth={depth}"));
        args.extend(depth.as_deref());
        args.extend(["--", &self.repository.url, refspec]);
        self.run(&args, &[], cache)
    }

    fn clone_at(&self, cache: &Path, target: &Path, commit: &str, shallow: Option<&[u8]>) -> Result<(), GitError> {
        let failed = |error| io_error(self.repository, error);
        self.run(&["init", "--quiet", "--"], &[target.as_os_str().to_owned()], Path::new("/"))?;
        let (objects, own) = (cache.join("objects"), target.join(".git/objects"));
        if self.git.is_apart {
            lend::objects(&objects, &own).map_err(failed)?;
        } else {
            fs::write(own.join("info/alternates"), format!("{}\n", objects.display())).map_err(failed)?;
        }
        if let Some(shallow) = shallow {
            fs::write(target.join(".git/shallow"), shallow).map_err(failed)?;
        }
        self.run(&["remote", "add", "--", "origin", &self.repository.url], &[], target)?;
        self.run(&["checkout", "--quiet", "--force", "--detach", commit, "--"], &[], target)?;
        if self.repository.submodules {
            let mut args = vec![SUBMODULE, "update", "--quiet", "--init", "--recursive", "--force"];
            let depth = self.repository.depth.map(|depth| format!("--depth={depth}"));
            args.extend(depth.as_deref());
            self.run(&args, &[], target)?;
        }
        Ok(())
    }

    fn start(
        &self,
        args: &[&str],
        more: &[OsString],
        cwd: &Path,
        stdout: OwnedFd,
    ) -> Result<Result<i32, i32>, GitError> {
        let failed = |error| io_error(self.repository, error);
        let mut env = self.env.clone();
        if args.first() == Some(&SUBMODULE) {
            // What a repository names as its submodules must not reach into this machine, wherever the repository lies.
            env.insert(access::ALLOW_PROTOCOL.into(), access::SUBMODULE_PROTOCOLS.into());
        }
        let args = args.iter().map(OsString::from).chain(more.iter().cloned()).collect();
        let stderr = self.git.log.writer().map_err(failed)?;
        let start = Start {
            program: self.program.clone(),
            args,
            env,
            cwd: cwd.to_owned(),
            stdin: None,
            stdout,
            stderr,
            // The cache and the credentials are the runner's; a job's user sees neither.
            user: None,
        };
        self.git.log.mark();
        let mut running = self.git.processes.start(start).map_err(failed)?;
        if self.git.shared.is_ending() {
            // The order came between two of git's steps, so nobody has seen this process yet.
            self.git.processes.end(process::Scope::Under(running.pid()), 0);
        }
        let status = running.wait(None, self.git.log).map_err(failed)?;
        self.git.log.drain();
        Ok(status.map_or(Err(0), process::code_or_signal))
    }

    /// Runs one of git's commands, its output going to the log.
    fn run(&self, args: &[&str], more: &[OsString], cwd: &Path) -> Result<(), GitError> {
        let stdout = self.git.log.writer().map_err(|error| io_error(self.repository, error))?;
        let ended = self.start(args, more, cwd, stdout)?;
        self.judge(args, ended)
    }

    /// Runs one of git's commands and reads what it prints.
    fn answer(&self, args: &[&str], cwd: &Path) -> Result<String, GitError> {
        let failed = |error| io_error(self.repository, error);
        let mut file = process::in_memory(&[]).map_err(failed)?;
        let ended = self.start(args, &[], cwd, file.try_clone().map_err(failed)?.into())?;
        self.judge(args, ended)?;
        let mut text = String::new();
        io::Seek::rewind(&mut file).map_err(failed)?;
        io::Read::read_to_string(&mut io::Read::take(file, ANSWER_BYTES_MAX), &mut text).map_err(failed)?;
        Ok(text.trim().to_owned())
    }

    fn judge(&self, args: &[&str], ended: Result<i32, i32>) -> Result<(), GitError> {
        let how = match ended {
            Ok(0) => return Ok(()),
            Ok(code) => format!("exit code {code}"),
            Err(signal) => format!("signal {signal}"),
        };
        let tail = self.git.log.tail();
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(REASON_LINES)..).unwrap_or_default();
        let mut words = if last.is_empty() { how } else { last.join(" / ") };
        let step = args.first().copied().unwrap_or_default().to_owned();
        if step == SUBMODULE && text.contains(NOT_ALLOWED) {
            words.push_str("; ");
            words.push_str(SUBMODULE_HINT);
        }
        Err(GitError::Failed { name: self.repository.name.clone(), step, words })
    }
}
