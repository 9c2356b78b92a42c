//! Runners, the tokens that register them, and access tokens.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::meant;
use crate::name::{Digest, Name};
use crate::resolve::webhooks::targets;
use crate::resolve::{each, hash, or_default, reference, tags};
use crate::suggest::nearest;
use crate::tree::{Documents, WrittenTree};
use crate::written::access::Role;
use crate::written::reader::{Count, Duration};
use crate::written::sheet::{At, Sheet, Span};

const PROJECT_FILE: &str = "projects/NAME/project.toml";

pub(super) fn runners(tree: &WrittenTree) -> BTreeMap<Name, Option<meant::RunnerRule>> {
    let runners = each(&tree.runners, |sheet, written| {
        let project = reference("project", written.project.as_ref(), tree.projects.keys(), PROJECT_FILE, sheet);
        let tokens = tree.registration_tokens.keys();
        let token = written.registration_token.as_ref();
        let registration_token = reference("registration token", token, tokens, "registration-tokens/NAME.toml", sheet);
        let tags = tags(written.tags.as_ref(), sheet);
        let webhooks = targets(written.webhooks.as_ref(), &tree.webhooks, sheet);
        let run_untagged =
            or_default(written.run_untagged.clone(), written.tags.as_ref().is_none_or(|tags| tags.value.is_empty()));
        let tags = tags?;
        if tags.is_empty() && !run_untagged {
            let span = written.run_untagged.as_ref().map_or(Span::FILE, |at| at.span);
            let message = "this runner takes no task at all: it has no tags, and `run_untagged` is false";
            sheet.warning(span, Code::Unused, message, Some("give it tags, or take `run_untagged` out".to_owned()));
        }
        Some(meant::RunnerRule {
            tags,
            project: project?,
            max_parallel_tasks: or_default(written.max_parallel_tasks.clone(), Count::default()).count(),
            run_untagged,
            enabled: or_default(written.enabled.clone(), true),
            registration_token: registration_token?,
            webhooks: webhooks?,
            one_off_wait_ms: or_default(written.one_off_wait.clone(), Duration(meant::ONE_OFF_WAIT_MS)).0,
        })
    });
    for (name, document) in &tree.runners {
        let token = document.written.as_ref().and_then(|runner| runner.registration_token.as_ref());
        if let Some(at) = token {
            bound_elsewhere(name, at, tree, &document.sheet);
        }
    }
    runners
}

/// Notes that the token of a runner is bound to another one: then nothing could ever register it.
fn bound_elsewhere(runner: &Name, at: &At<String>, tree: &WrittenTree, sheet: &Sheet) {
    let token = tree.registration_tokens.get(at.value.as_str()).and_then(|document| document.written.as_ref());
    let bound = token.and_then(|token| token.runner.as_ref()).filter(|bound| bound.value != runner.as_str());
    if let Some(bound) = bound {
        let message = format!(
            "the registration token `{}` is bound to the runner `{}`, so it cannot register `{runner}`",
            at.value, bound.value
        );
        let hint = format!("take `runner` out of registration-tokens/{}.toml, or name another token here", at.value);
        sheet.error(at.span, Code::Conflict, message, Some(hint));
    }
}

pub(super) fn registration_tokens(tree: &WrittenTree) -> BTreeMap<Name, Option<meant::RegistrationToken>> {
    let tokens = each(&tree.registration_tokens, |sheet, written| {
        let hash = hash(written.hash.as_ref(), sheet);
        let project = reference("project", written.project.as_ref(), tree.projects.keys(), PROJECT_FILE, sheet);
        let runner = bound_runner(written.runner.as_ref(), tree, sheet);
        let tags = tags(written.tags.as_ref(), sheet);
        Some(meant::RegistrationToken {
            hash: hash?,
            project: project?,
            tags: tags?,
            max_parallel_tasks: or_default(written.max_parallel_tasks.clone(), Count::default()).count(),
            expires_unix_micros: written.expires.as_ref().map(|at| at.value.0),
            uses: written.uses.as_ref().map(|at| at.value.count()),
            runner: runner?,
        })
    });
    distinct_hashes(&tree.registration_tokens, |written| written.hash.as_ref(), "registration-tokens");
    tokens
}

/// The name that a token is bound to. A runner needs no file, so one that has none is no mistake unless it is nearly one that has.
fn bound_runner(written: Option<&At<String>>, tree: &WrittenTree, sheet: &Sheet) -> Option<Option<Name>> {
    let Some(at) = written else { return Some(None) };
    let name = match at.value.parse::<Name>() {
        Ok(name) => name,
        Err(error) => {
            let hint = Name::nearest_to(&at.value).map(|near| format!("write \"{near}\""));
            sheet.error(at.span, Code::BadName, format!("`runner` is no name: {error}"), hint);
            return None;
        }
    };
    // Names that differ in their numbers alone are neighbours of a fleet and no slips.
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    let others = tree.runners.keys().map(Name::as_str).filter(|other| letters(other) != letters(name.as_str()));
    if !tree.runners.contains_key(&name)
        && let Some(near) = nearest(name.as_str(), others)
    {
        let message = format!("no runner is declared as `{name}`: the token registers one that has no file");
        sheet.warning(at.span, Code::UnknownReference, message, Some(format!("did you mean `{near}`?")));
    }
    Some(Some(name))
}

pub(super) fn access(tree: &WrittenTree) -> BTreeMap<Name, Option<meant::AccessToken>> {
    let access = each(&tree.access, |sheet, written| {
        let hash = hash(written.hash.as_ref(), sheet);
        let projects = projects(written.projects.as_ref(), tree, sheet);
        let role = match written.role.as_ref()?.value {
            Role::Viewer => meant::Role::Viewer,
            Role::Operator => meant::Role::Operator,
            Role::Owner => meant::Role::Owner,
            Role::Admin => meant::Role::Admin,
        };
        let expires_unix_micros = written.expires.as_ref().map(|at| at.value.0);
        Some(meant::AccessToken { hash: hash?, role, projects: projects?, expires_unix_micros })
    });
    distinct_hashes(&tree.access, |written| written.hash.as_ref(), "access");
    access
}

fn projects(written: Option<&At<Vec<At<String>>>>, tree: &WrittenTree, sheet: &Sheet) -> Option<Option<Vec<Name>>> {
    let Some(list) = written else { return Some(None) };
    if list.value.is_empty() {
        let hint = "name projects, or take the key out for all of them".to_owned();
        sheet.warning(list.span, Code::Unused, "`projects` is empty: the token reaches no project", Some(hint));
    }
    let found: Vec<_> = list
        .value
        .iter()
        .map(|at| reference("project", Some(at), tree.projects.keys(), PROJECT_FILE, sheet).flatten())
        .collect();
    found.into_iter().collect::<Option<Vec<_>>>().map(Some)
}

/// Notes every token whose hash an earlier one has: nobody could say which of them was used.
fn distinct_hashes<T>(documents: &Documents<T>, hash: impl Fn(&T) -> Option<&At<String>>, folder: &str) {
    let mut seen: BTreeMap<Digest, &Name> = BTreeMap::new();
    for (name, document) in documents {
        let Some(at) = document.written.as_ref().and_then(&hash) else { continue };
        let Ok(digest) = at.value.parse() else { continue };
        if let Some(other) = seen.get(&digest) {
            let message = format!("`hash` is that of {folder}/{other}.toml too");
            let hint = "make another token with `forge token new`, or delete one of the files".to_owned();
            document.sheet.error(at.span, Code::DuplicateHash, message, Some(hint));
        } else {
            seen.insert(digest, name);
        }
    }
}
