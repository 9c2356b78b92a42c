//! What a project has and nothing uses: inventories, environments, repositories and keys that only look as if they mattered.

use std::collections::BTreeSet;

use crate::diagnostic::Code;
use crate::place::ProjectKind;
use crate::tree::{Documents, WrittenProject};
use crate::written::sheet::{At, Span};

/// Notes each of them on its own file. Nothing is said while a file that could use one cannot be read.
pub(super) fn note_unused(project: &WrittenProject) {
    fn read<T>(documents: &Documents<T>) -> bool {
        documents.values().all(|document| document.written.is_some())
    }
    if !read(&project.templates) {
        return;
    }
    let templates = || project.templates.values().filter_map(|document| document.written.as_ref());
    let inventories = || project.inventories.values().filter_map(|document| document.written.as_ref());
    let repositories = || project.repositories.values().filter_map(|document| document.written.as_ref());
    note(&project.inventories, ProjectKind::Inventory, &names(templates().map(|template| template.inventory.as_ref())));
    note(
        &project.environments,
        ProjectKind::Environment,
        &names(templates().map(|template| template.environment.as_ref())),
    );
    if !read(&project.inventories) {
        return;
    }
    let of_templates = templates().map(|template| template.repository.as_ref());
    let of_inventories = inventories().map(|inventory| inventory.repository.as_ref());
    note(&project.repositories, ProjectKind::Repository, &names(of_templates.chain(of_inventories)));
    if !read(&project.repositories) {
        return;
    }
    let of_inventories =
        inventories().flat_map(|inventory| [inventory.ssh_key.as_ref(), inventory.become_key.as_ref()]);
    let of_repositories = repositories().map(|repository| repository.ssh_key.as_ref());
    let vaults = templates().flat_map(|template| template.vault_keys.iter()).flat_map(|keys| &keys.value.0);
    let of_vaults = vaults.map(|(_, key)| Some(key));
    note(&project.keys, ProjectKind::Key, &names(of_inventories.chain(of_repositories).chain(of_vaults)));
}

fn names<'a>(written: impl Iterator<Item = Option<&'a At<String>>>) -> BTreeSet<&'a str> {
    written.flatten().map(|at| at.value.as_str()).collect()
}

fn note<T>(documents: &Documents<T>, kind: ProjectKind, used: &BTreeSet<&str>) {
    for (name, document) in documents.iter().filter(|(name, _)| !used.contains(name.as_str())) {
        let message = format!("nothing uses the {} `{name}`", kind.noun());
        let hint = format!("name it where it belongs, or delete the file; {}", users(kind));
        document.sheet.note(Span::FILE, Code::Unused, message, Some(hint));
    }
}

/// Who could use one.
const fn users(kind: ProjectKind) -> &'static str {
    match kind {
        ProjectKind::Inventory => "a template names one with `inventory`",
        ProjectKind::Environment => "a template names one with `environment`",
        ProjectKind::Repository => "a template or an inventory names one with `repository`",
        ProjectKind::Key => "`ssh_key`, `become_key` and `vault_keys` name one",
        ProjectKind::Template | ProjectKind::Schedule | ProjectKind::Integration => "nothing has to name one",
    }
}
