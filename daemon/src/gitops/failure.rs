//! What keeps the newest revision away that is no mistake in its files: the source's failures and the guards around it, each with a
//! code of its own and what to run. `docs/guides/gitops.md` lists them.

use forge_api::{Diagnostic, Severity};

/// Where these failures are, as `file` of a diagnostic: no file of the tree.
pub(crate) const SOURCE: &str = "source";

/// Declares the codes once: their number, their name and what they mean.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $text:literal,)+) => {
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
        }
    };
}

codes! {
    /// The repository cannot be fetched.
    Unreachable = "FORGE-S001",
    /// The repository has no such branch.
    BranchGone = "FORGE-S002",
    /// The branch's history was rewritten.
    Rewritten = "FORGE-S003",
    /// The branch was set back to an older commit.
    SetBack = "FORGE-S004",
    /// The commit carries no signature.
    Unsigned = "FORGE-S005",
    /// The commit's signature is of no allowed key, or does not fit.
    Foreign = "FORGE-S006",
    /// The revision removes too much at once.
    Prunes = "FORGE-S007",
    /// The commit has no such folder.
    NoDirectory = "FORGE-S008",
    /// Something on the daemon's own host is to be mended.
    Host = "FORGE-S009",
}

/// Why the newest revision is not looked at, or waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFailure {
    /// What kind of failure.
    pub(crate) code: SourceCode,
    /// The revision that it is about; empty where there is none.
    pub(crate) revision: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

impl SourceFailure {
    /// A failure that is about no revision.
    pub(crate) fn new(code: SourceCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, revision: String::new(), message: message.into(), hint: hint.into() }
    }

    /// The same about a revision.
    pub(crate) fn about(mut self, revision: &str) -> Self {
        self.revision = revision.to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_without_a_gap_and_the_guide_explains_each() {
        let guide = include_str!("../../../docs/guides/gitops.md");
        for (index, code) in SourceCode::ALL.iter().enumerate() {
            assert_eq!(code.as_str(), format!("FORGE-S{:03}", index + 1));
            assert!(guide.contains(&format!("| `{}` |", code.as_str())), "{} is not in the guide", code.as_str());
        }
    }
}
