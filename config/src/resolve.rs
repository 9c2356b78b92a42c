//! From what is written to what is meant: defaults applied, references resolved, every mistake noted where it stands.
//!
//! A part that cannot be resolved is left out and the rest goes on. What comes out counts only when no sheet holds an error.

mod answers;
mod guessable;
mod integrations;
mod parts;
mod plugins;
mod recipients;
mod runners;
mod schedules;
mod survey;
mod templates;
mod unused;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use recipients::recipients;

use crate::catalog::PluginCatalog;
use crate::diagnostic::Code;
use crate::meant;
use crate::name::{Digest, Name};
use crate::place::ProjectKind;
use crate::suggest::{did_you_mean, list_of};
use crate::tree::{CheckOptions, Documents, Files, WrittenProject, WrittenTree};
use crate::units::duration_text;
use crate::written::reader::{Count, Duration};
use crate::written::sheet::{At, Sheet, Span};

/// How many tags an object has at most, and how long one is.
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 63;

/// Defaults of a project, each decided here only.
const RETENTION_TASKS: i64 = 1_000;
const RETENTION_AGE_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// Resolves a whole tree. Mistakes are on its sheets afterwards.
pub(crate) fn tree(
    written: &WrittenTree,
    files: &Files,
    catalog: &dyn PluginCatalog,
    options: &CheckOptions,
) -> Option<meant::Tree> {
    let plugins = plugins::plugins(&written.plugins, files, catalog, options);
    let templates = templates::Context { tree: written, plugins: &plugins, catalog };
    let projects: BTreeMap<_, _> = written
        .projects
        .iter()
        .map(|(name, written)| (name.clone(), project(name, written, &templates, options)))
        .collect();
    let runners = runners::runners(written);
    let registration_tokens = runners::registration_tokens(written);
    let webhooks = webhooks::webhooks(&written.webhooks, &plugins, options);
    let access = runners::access(written);
    let recipients = recipients(written.secrets.as_ref());
    Some(meant::Tree {
        recipients: recipients?,
        projects: whole(projects)?.into_iter().map(|(name, project)| (name, Arc::new(project))).collect(),
        runners: whole(runners)?,
        registration_tokens: whole(registration_tokens)?,
        plugins: whole(plugins.into_iter().map(|(name, plugin)| (name, plugin.meant)).collect())?
            .into_iter()
            .map(|(name, plugin)| (name, Arc::new(plugin)))
            .collect(),
        webhooks: whole(webhooks)?,
        access: whole(access)?,
    })
}

/// The map when each of its parts is there.
pub(crate) fn whole<T>(parts: BTreeMap<Name, Option<T>>) -> Option<BTreeMap<Name, T>> {
    parts.into_iter().map(|(name, part)| part.map(|part| (name, part))).collect()
}

fn project(
    name: &Name,
    written: &WrittenProject,
    context: &templates::Context<'_>,
    options: &CheckOptions,
) -> Option<meant::Project> {
    // Every part notes its own mistakes before the first `?` gives up.
    let templates = templates::templates(name, written, context);
    let inventories = each(&written.inventories, |sheet, inventory| parts::inventory(sheet, inventory, written));
    let environments =
        each(&written.environments, |sheet, environment| parts::environment(sheet, environment, name, options));
    let repositories = each(&written.repositories, |sheet, repository| parts::repository(sheet, repository, written));
    let keys = each(&written.keys, |sheet, key| parts::key(sheet, key, name, options));
    let schedules = schedules::schedules(written, &templates);
    let integrations = integrations::integrations(name, written, &templates, options);
    unused::note_unused(written);
    let Some(document) = &written.project else {
        missing_project_file(name, written);
        return None;
    };
    let project = document.written.as_ref()?;
    let webhooks = webhooks::targets(project.webhooks.as_ref(), &context.tree.webhooks, &document.sheet);
    tag("runner_tag", project.runner_tag.as_ref(), &document.sheet)?;
    let retention = project.retention.clone().unwrap_or_default().value;
    Some(meant::Project {
        name: name.clone(),
        description: or_default(project.description.clone(), String::new()),
        global_runners: or_default(project.global_runners.clone(), true),
        max_parallel_tasks: or_default(project.max_parallel_tasks.clone(), Count::default()).count(),
        retention: meant::Retention {
            tasks: or_default(retention.tasks, crate::written::reader::Whole(RETENTION_TASKS)).count(),
            age_ms: or_default(retention.age, Duration(RETENTION_AGE_MS)).0,
        },
        templates: whole(templates)?.into_iter().map(|(name, template)| (name, Arc::new(template))).collect(),
        inventories: whole(inventories)?,
        environments: whole(environments)?,
        repositories: whole(repositories)?,
        keys: whole(keys)?,
        schedules: whole(schedules)?,
        integrations: whole(integrations)?,
        webhooks: webhooks?,
    })
}

/// Notes on one of the project's files that project.toml is missing: a mistake needs a file that exists.
fn missing_project_file(name: &Name, written: &WrittenProject) {
    let WrittenProject {
        project: _,
        templates,
        inventories,
        environments,
        repositories,
        keys,
        schedules,
        integrations,
    } = written;
    let first = sheets(templates)
        .chain(sheets(inventories))
        .chain(sheets(environments))
        .chain(sheets(repositories))
        .chain(sheets(keys))
        .chain(sheets(schedules))
        .chain(sheets(integrations))
        .next();
    if let Some(sheet) = first {
        let message = format!("the project {name} has no projects/{name}/project.toml");
        sheet.error(Span::FILE, Code::ProjectFileMissing, message, Some("make it; it may be empty".to_owned()));
    }
}

fn sheets<T>(documents: &Documents<T>) -> impl Iterator<Item = &Sheet> {
    documents.values().map(|document| &document.sheet)
}

/// Resolves each document of a kind; one that is no TOML stays unresolved.
fn each<T, M>(documents: &Documents<T>, mut resolve: impl FnMut(&Sheet, &T) -> Option<M>) -> BTreeMap<Name, Option<M>> {
    documents
        .iter()
        .map(|(name, document)| {
            let meant = document.written.as_ref().and_then(|written| resolve(&document.sheet, written));
            (name.clone(), meant)
        })
        .collect()
}

/// The value, or the default where nothing is written.
pub(crate) fn or_default<T>(written: Option<At<T>>, default: T) -> T {
    written.map_or(default, |at| at.value)
}

/// The values of a list without their places.
pub(crate) fn list<T>(written: Option<At<Vec<At<T>>>>) -> Vec<T> {
    written.into_iter().flat_map(|list| list.value).map(|at| at.value).collect()
}

/// A reference to one of `candidates`: `Some(None)` where nothing is written, `None` with the mistake noted where it does not exist.
pub(crate) fn reference<'a>(
    noun: &str,
    written: Option<&At<String>>,
    candidates: impl Iterator<Item = &'a Name> + Clone,
    where_to: &str,
    sheet: &Sheet,
) -> Option<Option<Name>> {
    let Some(written) = written else { return Some(None) };
    if let Some(name) = candidates.clone().find(|name| name.as_str() == written.value) {
        return Some(Some(name.clone()));
    }
    let names = || candidates.clone().map(Name::as_str);
    let hint = did_you_mean(&written.value, names()).unwrap_or_else(|| {
        let path = where_to.replace("NAME", Name::nearest_to(&written.value).as_ref().map_or("NAME", Name::as_str));
        match names().next() {
            Some(_) => format!("known are {}; or make {path}", list_of(names().take(SUGGESTED_NAMES_MAX))),
            None => format!("make {path}"),
        }
    });
    let message = format!("no {noun} is named `{}`", written.value);
    sheet.error(written.span, Code::UnknownReference, message, Some(hint));
    None
}

/// How many names a hint lists.
const SUGGESTED_NAMES_MAX: usize = 8;

/// A reference within a project.
pub(crate) fn project_reference<'a>(
    kind: ProjectKind,
    written: Option<&At<String>>,
    candidates: impl Iterator<Item = &'a Name> + Clone,
    sheet: &Sheet,
) -> Option<Option<Name>> {
    // The sheet's own path says which project it is: projects/<project>/...
    let project = sheet.path().split('/').nth(1).unwrap_or_default();
    reference(kind.noun(), written, candidates, &format!("projects/{project}/{}/NAME.toml", kind.folder()), sheet)
}

/// A path inside a repository or the tree: relative, without `..`.
pub(crate) fn reference_path(key: &str, written: &At<String>, sheet: &Sheet) -> Option<String> {
    let path = &written.value;
    let why = if path.is_empty() {
        "it is empty"
    } else if path.starts_with('/') {
        "it is absolute, and must be relative to the root of the repository"
    } else if path.starts_with('-') {
        "it begins with `-`, which a program could read as an option"
    } else if path.contains(|c: char| c.is_control() || c == '\\') {
        "it holds a backslash or control characters"
    } else if path.split('/').any(|part| part == "..") {
        "it leaves the repository with `..`"
    } else if path.split('/').any(|part| part == ".git") {
        "it reaches into git's own folder"
    } else {
        return Some(path.clone());
    };
    let hint = "write a relative path such as \"hosts/production.ini\"".to_owned();
    sheet.error(written.span, Code::Path, format!("`{key}` is refused: {why}"), Some(hint));
    None
}

/// A tag: `Some(None)` where none is written, `None` with the mistake noted.
pub(crate) fn tag(key: &str, written: Option<&At<String>>, sheet: &Sheet) -> Option<Option<String>> {
    let Some(written) = written else { return Some(None) };
    if is_tag(&written.value) {
        return Some(Some(written.value.clone()));
    }
    let message = format!("`{key}` is no tag: `{}`", written.value);
    let hint = format!("a tag has 1 to {TAG_BYTES_MAX} letters, digits and -._:/=+, and begins with a letter or digit");
    sheet.error(written.span, Code::BadValue, message, Some(hint));
    None
}

/// Whether `text` is a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= TAG_BYTES_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:/=+".contains(c))
}

/// A list of tags, each once.
pub(crate) fn tags(written: Option<&At<Vec<At<String>>>>, sheet: &Sheet) -> Option<Vec<String>> {
    let Some(written) = written else { return Some(Vec::new()) };
    let mut tags = Vec::new();
    let mut all_valid = true;
    for one in &written.value {
        match tag("tags", Some(one), sheet).flatten() {
            None => all_valid = false,
            Some(tag) if tags.contains(&tag) => {
                sheet.warning(one.span, Code::Unused, format!("`{tag}` stands twice in `tags`"), None);
            }
            Some(tag) => tags.push(tag),
        }
    }
    if tags.len() > TAGS_MAX {
        let message = format!("`tags` has {} tags, and at most {TAGS_MAX} are taken", tags.len());
        sheet.error(written.span, Code::TooLarge, message, None);
        return None;
    }
    all_valid.then_some(tags)
}

/// How large a pattern's compiled form may be: it runs in the daemon.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A regular expression of the tree.
pub(crate) fn pattern(key: &str, written: &At<String>, code: Code, sheet: &Sheet) -> Option<regex::Regex> {
    match regex::RegexBuilder::new(&written.value).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let message = format!("`{key}` is no regular expression: {reason}");
            let hint = "write one such as '^v[0-9]+$'; in single quotes TOML leaves backslashes alone".to_owned();
            sheet.error(written.span, code, message, Some(hint));
            None
        }
    }
}

/// A token's hash. A text that is none is hidden: it may be the token itself.
pub(crate) fn hash(written: Option<&At<String>>, sheet: &Sheet) -> Option<Digest> {
    let written = written?;
    let parsed = written.value.strip_prefix("sha256:").and_then(|_| written.value.parse().ok());
    if parsed.is_none() {
        sheet.hide(written.span);
        let message = "`hash` must be `sha256:` and 64 hex digits";
        let hint = "`forge token new` prints a token and the hash to commit; never commit the token".to_owned();
        sheet.error(written.span, Code::BadValue, message, Some(hint));
    }
    if parsed.as_ref().is_some_and(guessable::is_guessable) {
        let message = "`hash` is that of a token that anyone guesses";
        let hint = "make a random one with `forge token new`, and write its hash".to_owned();
        sheet.warning(written.span, Code::Unprotected, message, Some(hint));
    }
    parsed
}

/// A duration that must be at least so long: `None` with the mistake noted.
pub(crate) fn duration_at_least(
    key: &str,
    written: Option<&At<Duration>>,
    default_ms: u64,
    least_ms: u64,
    sheet: &Sheet,
) -> Option<u64> {
    match written {
        None => Some(default_ms),
        Some(at) if at.value.0 >= least_ms => Some(at.value.0),
        Some(at) => {
            let message = format!("`{key}` must be at least {}", duration_text(least_ms));
            sheet.error(
                at.span,
                Code::BadValue,
                message,
                Some(format!("the default is \"{}\"", duration_text(default_ms))),
            );
            None
        }
    }
}
