//! The prune guard: a revision that takes away more than half of what there is of a kind, or every runner, is more likely a mistake
//! than meant, so an admin has to say so. Taking rights away stays easy: access and registration tokens do not count.
//!
//! It decides on two trees and touches nothing.

use std::collections::BTreeSet;

use forge_config::meant::Tree;

/// The fewest objects of a kind of which more than half must be kept; of fewer, half is too soon reached.
const KIND_OBJECTS_MIN: usize = 4;

/// How many of the removed are named.
const NAMED_MAX: usize = 5;

/// What a revision removes too much of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// The kind, in the plural.
    pub(crate) kind: &'static str,
    /// What goes, sorted.
    pub(crate) removed: Vec<String>,
    /// How many there are.
    pub(crate) of: usize,
}

impl Pruned {
    /// In words.
    pub(crate) fn message(&self) -> String {
        let named = self.removed.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        let more = match self.removed.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("it removes {} of {} {}: {named}{more}", self.removed.len(), self.of, self.kind)
    }
}

/// What going from `serving` to `next` removes too much of; nothing is fine.
pub(crate) fn prunes(serving: &Tree, next: &Tree) -> Vec<Pruned> {
    let (before, after) = (objects(serving), objects(next));
    before
        .into_iter()
        .zip(after)
        .filter_map(|((kind, before), (_, after))| {
            let removed: Vec<String> = before.difference(&after).cloned().collect();
            let most = before.len() >= KIND_OBJECTS_MIN && removed.len() * 2 > before.len();
            let all_runners = kind == RUNNERS && !removed.is_empty() && removed.len() == before.len();
            (most || all_runners).then_some(Pruned { kind, removed, of: before.len() })
        })
        .collect()
}

/// The kind that may not go whole, however few there are.
const RUNNERS: &str = "runners";

/// Everything that the guard counts, by kind.
fn objects(tree: &Tree) -> Vec<(&'static str, BTreeSet<String>)> {
    // Taken apart whole: a kind that is added has to be thought of here.
    let Tree { recipients: _, projects, runners, registration_tokens: _, plugins, webhooks, access: _ } = tree;
    let mut kinds = vec![
        ("projects", projects.keys().map(ToString::to_string).collect()),
        (RUNNERS, runners.keys().map(ToString::to_string).collect()),
        ("plugins", plugins.keys().map(ToString::to_string).collect()),
        ("webhooks", webhooks.keys().map(ToString::to_string).collect()),
    ];
    let mut of_projects = [
        ("templates", BTreeSet::new()),
        ("inventories", BTreeSet::new()),
        ("environments", BTreeSet::new()),
        ("repositories", BTreeSet::new()),
        ("keys", BTreeSet::new()),
        ("schedules", BTreeSet::new()),
        ("integrations", BTreeSet::new()),
    ];
    for (name, project) in projects {
        let [templates, inventories, environments, repositories, keys, schedules, integrations] = &mut of_projects;
        let within = |object: &forge_config::Name| format!("{name}/{object}");
        templates.1.extend(project.templates.keys().map(within));
        inventories.1.extend(project.inventories.keys().map(within));
        environments.1.extend(project.environments.keys().map(within));
        repositories.1.extend(project.repositories.keys().map(within));
        keys.1.extend(project.keys.keys().map(within));
        schedules.1.extend(project.schedules.keys().map(within));
        integrations.1.extend(project.integrations.keys().map(within));
    }
    kinds.extend(of_projects);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_config::{CheckOptions, Digest, Files, PluginCatalog, PluginFacts, check_tree};

    /// Knows no plugin: these trees name none.
    struct NoPlugins;

    impl PluginCatalog for NoPlugins {
        fn builtin_names(&self) -> Vec<String> {
            Vec::new()
        }
        fn builtin(&self, _name: &str) -> Option<Result<PluginFacts, String>> {
            None
        }
        fn digest(&self, _bytes: &[u8]) -> Digest {
            Digest([1; 32])
        }
        fn inspect(&self, _bytes: &[u8]) -> Result<PluginFacts, String> {
            Err("there are no plugins here".to_owned())
        }
    }

    fn tree(paths: &[&str]) -> Tree {
        let file = |path: &&str| {
            let text = match path.split('/').next() {
                Some("access" | "registration-tokens") => {
                    let digit = path.len() % 10;
                    format!("hash = \"sha256:{}\"\nrole = \"admin\"\n", digit.to_string().repeat(64))
                }
                _ => String::new(),
            };
            let text =
                text.replace("role = \"admin\"\n", if path.starts_with("access") { "role = \"admin\"\n" } else { "" });
            ((*path).to_owned(), text.into_bytes())
        };
        let files: Files = paths.iter().map(file).collect();
        let checked = check_tree(&files, &NoPlugins, &CheckOptions::default());
        checked.tree.unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
    }

    fn kinds(before: &[&str], after: &[&str]) -> Vec<&'static str> {
        prunes(&tree(before), &tree(after)).into_iter().map(|pruned| pruned.kind).collect()
    }

    const P: [&str; 5] = [
        "projects/a/project.toml",
        "projects/b/project.toml",
        "projects/c/project.toml",
        "projects/d/project.toml",
        "projects/e/project.toml",
    ];

    #[test]
    fn more_than_half_of_four_or_more_waits() {
        assert_eq!(kinds(&P[..4], &P[..2]), [""; 0], "half is not more than half");
        assert_eq!(kinds(&P[..4], &P[..1]), ["projects"]);
        assert_eq!(kinds(&P, &P[..2]), ["projects"]);
        assert_eq!(kinds(&P[..3], &[]), [""; 0], "three are too few to count");
        assert_eq!(kinds(&[], &P), [""; 0]);
        let renamed = ["projects/v/project.toml", "projects/w/project.toml", "projects/x/project.toml", P[3]];
        assert_eq!(kinds(&P[..4], &renamed), ["projects"], "what is renamed is gone under its name");
    }

    #[test]
    fn the_last_runner_waits_and_tokens_go_at_once() {
        assert_eq!(kinds(&["runners/ny.toml"], &[]), ["runners"]);
        assert_eq!(kinds(&["runners/ny.toml", "runners/la.toml"], &["runners/la.toml"]), [""; 0]);
        let tokens = ["access/a.toml", "access/bb.toml", "access/ccc.toml", "access/dddd.toml", "access/eeeee.toml"];
        assert_eq!(kinds(&tokens, &[]), [""; 0]);
    }

    #[test]
    fn objects_of_all_projects_count_together_and_are_named() {
        let before: Vec<String> = (0..8).map(|number| format!("projects/a/keys/k{number}.toml")).collect();
        let pruned = Pruned { kind: "keys", removed: before.clone(), of: 9 };
        assert!(pruned.message().starts_with("it removes 8 of 9 keys: projects/a/keys/k0.toml, "));
        assert!(pruned.message().ends_with(" and 3 more"), "{}", pruned.message());
    }
}
