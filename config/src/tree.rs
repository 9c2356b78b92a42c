//! From the files of a tree to a tree, or to every mistake in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::PluginCatalog;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::meant;
use crate::name::Name;
use crate::place::{Misplaced, Place, ProjectKind, RootKind, SECRETS_FILE, place_of};
use crate::resolve;
use crate::secret::{AgeValues, SecretsAllow};
use crate::written::access::Access;
use crate::written::clear::note_clear_secrets;
use crate::written::declare::Table;
use crate::written::environment::Environment;
use crate::written::integration::Integration;
use crate::written::inventory::Inventory;
use crate::written::key::Key;
use crate::written::plugin::Plugin;
use crate::written::project::Project;
use crate::written::read_file;
use crate::written::reader::Written;
use crate::written::recipients::Recipients;
use crate::written::registration_token::RegistrationToken;
use crate::written::repository::Repository;
use crate::written::runner::Runner;
use crate::written::schedule::Schedule;
use crate::written::sheet::{Sheet, Span};
use crate::written::template::Template;
use crate::written::webhook::Webhook;

/// The files of a tree by path relative to its root, with `/` between the parts; only what belongs to a tree (TOML files and the plugins' components).
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a check may know beyond the tree itself.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// `[secrets.allow.<project>]` of forge.toml by project. `None` where no daemon's settings are at hand: then host kinds of secrets pass.
    pub secrets_allow: Option<BTreeMap<Name, SecretsAllow>>,
    /// What opens the tree's age values. `None` where no identity is at hand: then every one of them passes.
    pub age_values: Option<Arc<dyn AgeValues>>,
}

/// What came of a check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The tree, when there is no error.
    pub tree: Option<meant::Tree>,
    /// Everything that was found, by file and position. Notes only of a tree without an error.
    pub diagnostics: Vec<Diagnostic>,
}

/// A file of the tree: what it says, or `None` when it is no TOML. Its name counts either way, so that one broken file does not
/// make every reference to it look wrong.
pub(crate) struct Document<T> {
    pub(crate) sheet: Sheet,
    pub(crate) written: Option<T>,
}

/// Documents of a kind by name.
pub(crate) type Documents<T> = BTreeMap<Name, Document<T>>;

/// A project as it is written.
#[derive(Default)]
pub(crate) struct WrittenProject {
    pub(crate) project: Option<Document<Project>>,
    pub(crate) templates: Documents<Template>,
    pub(crate) inventories: Documents<Inventory>,
    pub(crate) environments: Documents<Environment>,
    pub(crate) repositories: Documents<Repository>,
    pub(crate) keys: Documents<Key>,
    pub(crate) schedules: Documents<Schedule>,
    pub(crate) integrations: Documents<Integration>,
}

/// A tree as it is written.
#[derive(Default)]
pub(crate) struct WrittenTree {
    pub(crate) secrets: Option<Document<Recipients>>,
    pub(crate) projects: BTreeMap<Name, WrittenProject>,
    pub(crate) runners: Documents<Runner>,
    pub(crate) registration_tokens: Documents<RegistrationToken>,
    pub(crate) plugins: Documents<Plugin>,
    pub(crate) webhooks: Documents<Webhook>,
    pub(crate) access: Documents<Access>,
}

/// Checks a whole tree and resolves it: every mistake at once, by file and position. The tree is there exactly when none is an error.
pub fn check_tree(files: &Files, catalog: &dyn PluginCatalog, options: &CheckOptions) -> Checked {
    let mut written = WrittenTree::default();
    let mut diagnostics = Vec::new();
    for (path, bytes) in files {
        match place_of(path) {
            None => {}
            Some(Ok(place)) => match std::str::from_utf8(bytes) {
                Ok(text) => written.add(place, Sheet::new(path, text)),
                Err(error) => written.add_broken(place, no_text(path, &bytes[..error.valid_up_to()])),
            },
            Some(Err(Misplaced { code, message, hint })) => {
                let sheet = Sheet::new(path.clone(), "");
                sheet.error(Span::FILE, code, message, hint);
                diagnostics.extend(sheet.finish());
            }
        }
    }
    let tree = resolve::tree(&written, files, catalog, options);
    diagnostics.extend(written.finish());
    diagnostics.sort_by(|one, other| {
        (&one.file, one.line, one.column, one.code).cmp(&(&other.file, other.line, other.column, other.code))
    });
    let is_broken = diagnostics.iter().any(Diagnostic::is_error);
    if is_broken {
        // What is worth knowing of a tree that serves only hides the mistakes of one that does not.
        diagnostics.retain(|found| found.severity != Severity::Note);
    }
    let tree = tree.filter(|_| !is_broken);
    Checked { tree, diagnostics }
}

/// The recipients of a tree, from its `secrets.toml` alone: what encrypts a value need not read the rest of the tree.
///
/// # Errors
/// Every mistake in it.
pub fn tree_recipients(path: &str, text: &str) -> Result<Vec<String>, Vec<Diagnostic>> {
    let document = document(Sheet::new(path, text));
    let recipients = resolve::recipients(Some(&document));
    let diagnostics = document.sheet.finish();
    if diagnostics.iter().any(Diagnostic::is_error) { Err(diagnostics) } else { Ok(recipients.unwrap_or_default()) }
}

/// The sheet of a file that is no text. What comes before the first wrong byte gives the line and column; it is not shown, since it
/// may be a secret.
fn no_text(path: &str, valid: &[u8]) -> Sheet {
    let sheet = Sheet::new(path, String::from_utf8_lossy(valid));
    sheet.hide_all_but_keys(Vec::new());
    let hint = "save the file as UTF-8".to_owned();
    let end = valid.len();
    sheet.error(Span::of(end..end, 0), Code::NotText, "the file is not UTF-8 text", Some(hint));
    sheet
}

fn document<T: Written + Table>(sheet: Sheet) -> Document<T> {
    let written = read_file(&sheet);
    // What stands in a list of recipients is judged one by one.
    if sheet.path() != SECRETS_FILE {
        note_clear_secrets(&sheet);
    }
    Document { sheet, written }
}

/// Puts what `$document` makes of the sheet among the documents of its place, whatever their type is.
macro_rules! at_place {
    ($tree:ident, $place:ident, $sheet:ident, $document:ident) => {
        match $place {
            Place::Secrets => $tree.secrets = Some($document($sheet)),
            Place::Project(project) => {
                $tree.projects.entry(project).or_default().project = Some($document($sheet));
            }
            Place::InProject(project, kind, name) => {
                let project = $tree.projects.entry(project).or_default();
                match kind {
                    ProjectKind::Template => drop(project.templates.insert(name, $document($sheet))),
                    ProjectKind::Inventory => drop(project.inventories.insert(name, $document($sheet))),
                    ProjectKind::Environment => drop(project.environments.insert(name, $document($sheet))),
                    ProjectKind::Repository => drop(project.repositories.insert(name, $document($sheet))),
                    ProjectKind::Key => drop(project.keys.insert(name, $document($sheet))),
                    ProjectKind::Schedule => drop(project.schedules.insert(name, $document($sheet))),
                    ProjectKind::Integration => drop(project.integrations.insert(name, $document($sheet))),
                }
            }
            Place::Root(kind, name) => match kind {
                RootKind::Runner => drop($tree.runners.insert(name, $document($sheet))),
                RootKind::RegistrationToken => drop($tree.registration_tokens.insert(name, $document($sheet))),
                RootKind::Plugin => drop($tree.plugins.insert(name, $document($sheet))),
                RootKind::Webhook => drop($tree.webhooks.insert(name, $document($sheet))),
                RootKind::Access => drop($tree.access.insert(name, $document($sheet))),
            },
        }
    };
}

/// A document that cannot be read at all.
fn broken<T>(sheet: Sheet) -> Document<T> {
    Document { sheet, written: None }
}

impl WrittenTree {
    fn add(&mut self, place: Place, sheet: Sheet) {
        at_place!(self, place, sheet, document);
    }

    fn add_broken(&mut self, place: Place, sheet: Sheet) {
        at_place!(self, place, sheet, broken);
    }

    /// Everything that was noted on any sheet.
    fn finish(self) -> Vec<Diagnostic> {
        fn all<T>(documents: Documents<T>) -> impl Iterator<Item = Diagnostic> {
            documents.into_values().flat_map(|document| document.sheet.finish())
        }
        let mut found = Vec::new();
        let Self { secrets, projects, runners, registration_tokens, plugins, webhooks, access } = self;
        found.extend(secrets.into_iter().flat_map(|document| document.sheet.finish()));
        for project in projects.into_values() {
            let WrittenProject {
                project,
                templates,
                inventories,
                environments,
                repositories,
                keys,
                schedules,
                integrations,
            } = project;
            found.extend(project.into_iter().flat_map(|document| document.sheet.finish()));
            found.extend(all(templates));
            found.extend(all(inventories));
            found.extend(all(environments));
            found.extend(all(repositories));
            found.extend(all(keys));
            found.extend(all(schedules));
            found.extend(all(integrations));
        }
        found.extend(all(runners));
        found.extend(all(registration_tokens));
        found.extend(all(plugins));
        found.extend(all(webhooks));
        found.extend(all(access));
        found
    }
}
