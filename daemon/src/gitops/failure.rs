//! What keeps the newest revision away that is no mistake in its files: the source's failures and the guards around it, each with a
//! code of its own and what to run. `docs/guides/gitops.md` lists them.

use forge_api::{ConfigCommit, Diagnostic, Severity};

/// Where these failures are, as `file` of a diagnostic: no file of the tree.
pub(crate) const SOURCE: &str = "source";

/// Declares the codes once: their number, their name, what they mean, and what to do.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $text:literal, $remedy:literal;)+) => {
        /// What kind of failure it is. A code keeps its meaning for good.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum SourceCode {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl SourceCode {
            /// Every code, by number.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as people see it.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it means, for its page.
            #[cfg(test)]
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+),)+
                }
            }

            /// What to do, for its page.
            #[cfg(test)]
            pub(crate) const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

codes! {
    /// The repository cannot be fetched.
    Unreachable = "FORGE-S001",
        "git's own words are shown: the URL, the network, the server, or what opens it (`ssh_key_file`, `known_hosts_file`, `username`, \
         `password_file` and `ca_file` under `[source]`). It is tried again at each poll, and what served serves meanwhile.";
    /// The repository has no such branch.
    BranchGone = "FORGE-S002",
        "Push the branch again, or correct `source.branch` in forge.toml. A branch that vanished empties no tree.";
    /// The branch's history was rewritten.
    Rewritten = "FORGE-S003",
        "Push a commit on top of the one that serves. Where the other history is meant, an admin names its newest commit in full: \
         `forge config apply --accept-rewrite COMMIT`.";
    /// The branch was set back to an older commit.
    SetBack = "FORGE-S004",
        "To go back, revert: `git revert` makes a commit on top. Where the older one itself is to serve, an admin names it in full: \
         `forge config apply --accept-rewrite COMMIT`.";
    /// The commit carries no signature.
    Unsigned = "FORGE-S005",
        "Sign it with an ssh key of `source.allowed_signers_file` (`git config gpg.format ssh`, `git commit --amend -S`), or put a signed commit on \
         top. A commit that nobody asked for is looked at first: whoever signs the next one vouches for it.";
    /// The commit's signature is of no allowed key, or does not fit.
    Foreign = "FORGE-S006",
        "Have it signed by an allowed key, or add the key to `source.allowed_signers_file`. Signatures of OpenPGP and X.509, such as those of a \
         merge button, are not taken: merge on a machine that signs with ssh, or fast-forward.";
    /// The revision removes too much at once.
    Prunes = "FORGE-S007",
        "Look at it: a wrong `directory`, a bad merge? Put back what is missing, or, where it is meant, an admin names the revision in full: \
         `forge config apply --prune REVISION`.";
    /// The commit has no such folder.
    NoDirectory = "FORGE-S008",
        "Commit the folder that `source.directory` of forge.toml names, or correct it. It is also said of a folder with too many files to list.";
    /// Something on the daemon's own host is to be mended.
    Host = "FORGE-S009",
        "Mend what the message names on the daemon's host: git is missing, a file that `[source]` names cannot be read, or the data folder is full. \
         It is tried again at each poll.";
}

/// Why the newest revision is not looked at, or waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFailure {
    /// What kind of failure.
    pub(crate) code: SourceCode,
    /// The revision that it is about; empty where there is none.
    pub(crate) revision: String,
    /// Its commit, where that could be read.
    pub(crate) commit: Option<Box<ConfigCommit>>,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

impl SourceFailure {
    /// A failure that is about no revision.
    pub(crate) fn new(code: SourceCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, revision: String::new(), commit: None, message: message.into(), hint: hint.into() }
    }

    /// The same about a revision.
    pub(crate) fn about(mut self, revision: &str) -> Self {
        self.revision = revision.to_owned();
        self
    }

    /// The same with the commit that its revision is, where it is about one.
    pub(crate) fn by(mut self, describe: impl FnOnce(&str) -> Option<ConfigCommit>) -> Self {
        if !self.revision.is_empty() {
            self.commit = describe(&self.revision).map(Box::new);
        }
        self
    }

    /// As the API shows it.
    pub(crate) fn for_api(&self) -> Diagnostic {
        Diagnostic {
            file: SOURCE.to_owned(),
            line: 1,
            column: 1,
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
            hint: Some(self.hint.clone()),
            severity: Severity::Error,
            source_line: String::new(),
        }
    }
}
