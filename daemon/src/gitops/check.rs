//! The verdict on a tree that was read: the tree itself, or every mistake in it.

use forge_config::meant::Tree;
use forge_config::{CheckOptions, Diagnostic, check_tree};

use super::read::ReadTree;
use crate::plugins::Catalog;

/// What came of a check.
pub(crate) struct Verdict {
    /// The tree, when nothing keeps it from serving.
    pub(crate) tree: Option<Tree>,
    /// Everything that was found, by file and position.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Checks files that were read. What could not be read is a mistake like any other, so all are shown at once.
pub(crate) fn check(read: &ReadTree, catalog: &Catalog, options: &CheckOptions) -> Verdict {
    let unreadable = read.findings.iter().any(Diagnostic::is_error);
    if unreadable && read.files.is_empty() {
        return Verdict { tree: None, diagnostics: read.findings.clone() };
    }
    let checked = check_tree(&read.files, catalog, options);
    let mut diagnostics = checked.diagnostics;
    diagnostics.extend(read.findings.iter().cloned());
    diagnostics.sort_by(|one, other| (&one.file, one.line, one.column).cmp(&(&other.file, other.line, other.column)));
    Verdict { tree: checked.tree.filter(|_| !unreadable), diagnostics }
}

/// A diagnostic as the API shows it.
pub(crate) fn for_api(found: &Diagnostic) -> forge_api::Diagnostic {
    forge_api::Diagnostic {
        file: found.file.clone(),
        line: found.line,
        column: found.column,
        code: found.code.as_str().to_owned(),
        message: found.message.clone(),
        hint: found.hint.clone(),
        severity: match found.severity {
            forge_config::Severity::Error => forge_api::Severity::Error,
            forge_config::Severity::Warning => forge_api::Severity::Warning,
            forge_config::Severity::Note => forge_api::Severity::Note,
        },
        source_line: found.source_line.clone(),
    }
}
