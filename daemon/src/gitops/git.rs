//! A git repository as the source of the tree: a bare clone without blobs in `data_dir/source`, fetched by the system's git.
//!
//! It answers three questions about a branch's newest commit: which one it is, whether it may follow the one that serves (it must
//! descend from it, and be signed where that is asked for), and which files it holds. It never checks anything out, runs no hook,
//! reads no configuration but its own, and nothing that it meets ends in an empty tree.

mod access;
mod clone;
mod program;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forge_api::{ConfigCommit, Timestamp};
use forge_config::{SourceAccess, repository_url};
use tokio_util::sync::CancellationToken;

use self::access::Ground;
use self::clone::Filters;
use self::program::{Bounds, Ended, Program, ProgramError};
use super::failure::{SourceCode, SourceFailure};
use super::read::ReadTree;
use crate::files;

/// How long a fetch may take.
pub(crate) const FETCH_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How long the fetch of a start may take: the daemon serves only after it, when it has no last good revision.
pub(crate) const FIRST_FETCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a command may take that stays on this machine.
const LOCAL_TIME_MAX: Duration = Duration::from_secs(60);

/// The most bytes of an answer that is short, such as a commit with its message.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The longest name and subject of a commit that are kept.
const COMMIT_TEXT_CHARS_MAX: usize = 200;

/// The clone, in the source's folder.
const REPOSITORY: &str = "repository.git";

/// The branch's head, as it was fetched.
const HEAD: &str = "refs/forge/head";

/// Fetches without blobs where the server can; told by the command line, so that no other command fetches a blob on its own.
const BLOBLESS: [&str; 4] = ["-c", "remote.origin.promisor=true", "-c", "remote.origin.partialclonefilter=blob:none"];

/// How many packs the clone may hold before they are made one: each fetch that finds something adds one or two.
pub(super) const PACKS_MAX: usize = 32;

/// What a git source is made from.
#[derive(Debug)]
pub(crate) struct GitOptions {
    /// The repository's URL.
    pub(crate) url: String,
    /// The branch.
    pub(crate) branch: String,
    /// The folder of the repository that is the tree; empty is its root.
    pub(crate) directory: String,
    /// What opens it.
    pub(crate) access: SourceAccess,
    /// The keys that commits must be signed by.
    pub(crate) allowed_signers_file: Option<PathBuf>,
    /// The folder of the clone.
    pub(crate) folder: PathBuf,
    /// Ends what runs.
    pub(crate) stopping: CancellationToken,
}

/// A repository.
#[derive(Debug)]
pub(crate) struct Git {
    options: GitOptions,
    program: Program,
    /// Held for as long as this lives: two daemons must not fetch into one clone.
    lock: Option<File>,
    /// The failure that the clone is not to blame for, which was looked into.
    not_the_clones: Option<SourceFailure>,
    /// When the clone was thrown away last.
    thrown_away: Option<Instant>,
}

/// How a commit stands to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descent {
    /// It descends from it, or is the same.
    Descends,
    /// It is one of its ancestors.
    SetBack,
    /// Neither: the history is another one.
    Rewritten,
}

/// A failure of the daemon's own host.
pub(super) fn host_failure(message: impl Into<String>) -> SourceFailure {
    SourceFailure::new(
        SourceCode::Host,
        message,
        "see the daemon's log and its data folder; it is tried again by itself",
    )
}

impl From<ProgramError> for SourceFailure {
    fn from(error: ProgramError) -> Self {
        match &error {
            ProgramError::Missing => Self::new(SourceCode::Host, error.to_string(), "install git on the daemon's host"),
            ProgramError::TooSlow { .. } => Self::new(
                SourceCode::Unreachable,
                error.to_string(),
                "is the server reachable from the daemon's host? it is tried again at the next poll",
            ),
            ProgramError::TooMuch { .. } => Self::new(
                SourceCode::NoDirectory,
                error.to_string(),
                "name the folder that holds the tree: `source.directory` in forge.toml",
            ),
            ProgramError::Io(_) | ProgramError::Stopping => host_failure(error.to_string()),
        }
    }
}

impl Git {
    /// Describes the source; nothing is touched before [`Self::fetch`].
    pub(crate) fn new(options: GitOptions) -> Self {
        let program = Program {
            environment: BTreeMap::new(),
            repository: options.folder.join(REPOSITORY),
            stopping: options.stopping.clone(),
        };
        Self { options, program, lock: None, not_the_clones: None, thrown_away: None }
    }

    /// The source in words.
    pub(crate) fn shown(&self) -> String {
        let GitOptions { url, branch, directory, .. } = &self.options;
        match directory.as_str() {
            "" => format!("{url} (branch {branch})"),
            directory => format!("{url} (branch {branch}, folder {directory})"),
        }
    }

    /// What tells this source's history from another's.
    pub(crate) fn identity(&self) -> String {
        format!("git {} {}", self.options.url, self.options.branch)
    }

    /// The folder of the repository that is the tree.
    fn directory(&self) -> &str {
        self.options.directory.trim_end_matches('/')
    }

    /// Fetches the branch and answers its newest commit.
    pub(crate) fn fetch(&mut self, time_max: Duration) -> Result<String, SourceFailure> {
        self.prepare()?;
        let refspec = format!("+refs/heads/{}:{HEAD}", self.options.branch);
        let fetch = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"];
        let args = match self.filters() {
            Filters::Asked => [&BLOBLESS[..], &fetch[..], &["--filter=blob:none", "origin", &refspec]].concat(),
            Filters::Refused => [&fetch[..], &["origin", &refspec]].concat(),
        };
        let ended = self.run(&args, b"", Bounds { time_max, bytes_max: ANSWER_BYTES_MAX })?;
        if ended.code != Some(0) {
            return Err(self.not_fetched(&ended));
        }
        self.tidy();
        let commit = format!("{HEAD}^{{commit}}");
        let found = self.succeed(&["rev-parse", "--verify", "--quiet", &commit], b"", local())?;
        Ok(String::from_utf8_lossy(&found.answer).trim().to_owned())
    }

    /// Keeps the clone small. Nothing depends on it, so a failure is only told.
    fn tidy(&self) {
        let packs = fs::read_dir(self.program.repository.join("objects/pack")).into_iter().flatten().flatten();
        let count = packs.filter(|file| file.path().extension().is_some_and(|end| end == "pack")).count();
        if count <= PACKS_MAX {
            return;
        }
        let bounds = Bounds { time_max: FETCH_TIME_MAX, bytes_max: ANSWER_BYTES_MAX };
        if let Err(failure) = self.succeed(&[&BLOBLESS[..], &["gc", "--quiet"]].concat(), b"", bounds) {
            tracing::warn!(cause = failure.message, "the clone of the configuration could not be tidied up");
        }
    }

    fn not_fetched(&self, ended: &Ended) -> SourceFailure {
        let GitOptions { url, branch, .. } = &self.options;
        if ended.words.contains("couldn't find remote ref") {
            return SourceFailure::new(
                SourceCode::BranchGone,
                format!("{url} has no branch {branch:?}"),
                "push the branch again, or correct `source.branch` in forge.toml",
            );
        }
        let words = ended.reason();
        let hint = if words.contains("Host key verification failed") {
            "another host answers, or it is not in `source.known_hosts_file`: make sure which one it is before you change that file"
        } else if ["Authentication failed", "Permission denied", "could not read Username", "could not read Password"]
            .iter()
            .any(|part| words.contains(part))
        {
            "see `ssh_key_file`, `username` and `password_file` under [source] of forge.toml"
        } else if words.contains("certificate") {
            "name the CA of the server: `ca_file` under [source] of forge.toml"
        } else {
            "is the URL right, and the server reachable from the daemon's host? it is tried again at the next poll"
        };
        SourceFailure::new(SourceCode::Unreachable, format!("{url} cannot be fetched: {words}"), hint)
    }

    /// Fetches the blobs that a fetch without blobs has left out, all at once: as git itself does before a checkout.
    fn fetch_blobs(&self, blobs: &[String]) -> Result<(), SourceFailure> {
        let fetch = ["fetch", "origin", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no"];
        let blobless = ["--filter=blob:none", "--stdin"];
        let args = [&BLOBLESS[..], &["-c", "fetch.negotiationAlgorithm=noop"], &fetch[..], &blobless[..]].concat();
        let asked = blobs.join("\n") + "\n";
        let bounds = Bounds { time_max: FETCH_TIME_MAX, bytes_max: ANSWER_BYTES_MAX };
        let ended = self.run(&args, asked.as_bytes(), bounds)?;
        if ended.code == Some(0) { Ok(()) } else { Err(self.not_fetched(&ended)) }
    }

    /// How `newer` stands to `older`.
    pub(crate) fn descent(&self, older: &str, newer: &str) -> Result<Descent, SourceFailure> {
        if older == newer || self.is_ancestor(older, newer)? {
            return Ok(Descent::Descends);
        }
        Ok(if self.is_ancestor(newer, older)? { Descent::SetBack } else { Descent::Rewritten })
    }

    /// A commit that the clone does not hold is nobody's ancestor.
    fn is_ancestor(&self, older: &str, newer: &str) -> Result<bool, SourceFailure> {
        Ok(self.run(&["merge-base", "--is-ancestor", older, newer], b"", local())?.code == Some(0))
    }

    /// Who signed a commit; `None` where no signature is asked for.
    pub(crate) fn verify(&self, commit: &str) -> Result<Option<String>, SourceFailure> {
        let Some(signers) = &self.options.allowed_signers_file else { return Ok(None) };
        if let Err(error) = File::open(signers) {
            let message = format!("the allowed signers in {} cannot be read: {error}", signers.display());
            let hint = "let the daemon's user read the file that `source.allowed_signers_file` names";
            return Err(SourceFailure::new(SourceCode::Host, message, hint).about(commit));
        }
        let raw = self.succeed(&["cat-file", "commit", commit], b"", local())?;
        let head = raw.answer.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let signature = head.into_iter().find(|line| line.starts_with(b"gpgsig"));
        let Some(signature) = signature else {
            let message = format!("the commit {commit} is not signed, and `source.allowed_signers_file` asks for it");
            let hint =
                "sign it with an ssh key: `git commit --amend -S` with gpg.format=ssh, or a signed commit on top";
            return Err(SourceFailure::new(SourceCode::Unsigned, message, hint).about(commit));
        };
        if !signature.ends_with(b"-----BEGIN SSH SIGNATURE-----") {
            let message = format!("the signature of commit {commit} is no ssh signature, and only those are taken");
            let hint = "sign with an ssh key; a git server's merge button signs with a key of its own, so merge on a machine that signs, or fast-forward";
            return Err(SourceFailure::new(SourceCode::Foreign, message, hint).about(commit));
        }
        let ended = self.run(&["verify-commit", commit], b"", local())?;
        let signer = ended.words.lines().find_map(|line| {
            line.strip_prefix("Good \"git\" signature for ")?.rsplit_once(" with ").map(|(signer, _)| signer)
        });
        match (ended.code, signer) {
            (Some(0), Some(signer)) => Ok(Some(printable(signer))),
            (_, _) => {
                let message = format!("the signature of commit {commit} is of no allowed key: {}", ended.reason());
                let hint = format!(
                    "have it signed by a key of {}, or add the key there if it is to be trusted",
                    signers.display()
                );
                Err(SourceFailure::new(SourceCode::Foreign, message, hint).about(commit))
            }
        }
    }

    /// Who wrote a commit, and what they said.
    pub(crate) fn describe(&self, commit: &str, signed_by: Option<String>) -> Result<ConfigCommit, SourceFailure> {
        let format = "--format=%an <%ae>%x00%s%x00%ct";
        let shown = self.succeed(&["show", "--no-patch", "--no-show-signature", format, commit], b"", local())?;
        let text = String::from_utf8_lossy(&shown.answer);
        let mut parts = text.trim_end().split('\0');
        let mut part = || parts.next().unwrap_or_default();
        let (author, subject) = (printable(part()), printable(part()));
        let seconds: i64 = part().parse().unwrap_or_default();
        let committed_at = Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000));
        Ok(ConfigCommit { author, subject, committed_at, signed_by })
    }

    /// The files of a commit.
    pub(crate) fn read(&self, commit: &str) -> Result<ReadTree, SourceFailure> {
        self.read_tree(commit)
    }

    /// Makes what git needs; a clone that is there is used again.
    fn prepare(&mut self) -> Result<(), SourceFailure> {
        if let Some(password) = &self.options.access.password_file {
            readable("password_file", password)?;
        }
        if let Some(key) = &self.options.access.ssh_key_file {
            readable("ssh_key_file", key)?;
        }
        let transport = repository_url(&self.options.url).map_err(|error| {
            let hint = "correct `source.git` in forge.toml";
            SourceFailure::new(SourceCode::Host, format!("`source.git` is refused: {error}"), hint)
        })?;
        files::make_private_folder(&self.options.folder).map_err(|error| host_failure(error.to_string()))?;
        if self.lock.is_none() {
            self.lock = Some(self.take_folder()?);
        }
        let ground = Ground {
            folder: &self.options.folder,
            url: &self.options.url,
            transport: transport.transport(),
            access: &self.options.access,
            allowed_signers_file: self.options.allowed_signers_file.as_deref(),
        };
        self.program.environment = ground.prepare().map_err(|error| host_failure(error.to_string()))?;
        if !self.program.repository.join("HEAD").is_file() {
            self.remove_clone()?;
            self.succeed(&["init", "--quiet", "--bare", "--template="], b"", local())?;
        }
        Ok(())
    }

    fn run<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8], bounds: Bounds) -> Result<Ended, SourceFailure> {
        self.program.run(args, input, bounds).map_err(SourceFailure::from)
    }

    /// Runs a command that fails only where this machine does.
    fn succeed<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8], bounds: Bounds) -> Result<Ended, SourceFailure> {
        let ended = self.run(args, input, bounds)?;
        if ended.code == Some(0) { Ok(ended) } else { Err(host_failure(format!("git failed: {}", ended.reason()))) }
    }
}

const fn local() -> Bounds {
    Bounds { time_max: LOCAL_TIME_MAX, bytes_max: ANSWER_BYTES_MAX }
}

fn readable(key: &str, path: &Path) -> Result<(), SourceFailure> {
    let unreadable = |error: io::Error| {
        let message = format!("`source.{key}` {} cannot be read: {error}", path.display());
        SourceFailure::new(SourceCode::Host, message, "let the daemon's user read that file, or correct forge.toml")
    };
    File::open(path).map(drop).map_err(unreadable)
}

/// A commit's text without what drives a terminal, and not longer than a line.
fn printable(text: &str) -> String {
    let mark = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    text.chars().take(COMMIT_TEXT_CHARS_MAX).map(mark).collect()
}
