//! What changes from one tree to another: object by object, field by field; and what plugins may do, on its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::objects::{Fields, Objects};

/// Everything that changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TreeDiff {
    /// Objects that were added, removed or changed, by path.
    pub objects: Vec<ObjectChange>,
    /// Plugins whose component is another one, or whose grants are: what a reviewer must not miss.
    pub plugins: Vec<PluginChange>,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is only in the second tree.
    Added,
    /// It is only in the first tree.
    Removed,
    /// It is in both, with other fields.
    Changed,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectChange {
    /// Its file's path without `.toml`.
    pub object: String,
    /// What happens to it.
    pub change: ChangeKind,
    /// Its fields that differ, by dotted path.
    pub fields: Vec<FieldChange>,
}

/// One field. Where it is not written, its value is the default, or null where there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its dotted path, such as `params.playbook`.
    pub field: String,
    /// Its value in the first tree.
    pub before: Value,
    /// Its value in the second tree.
    pub after: Value,
}

/// A plugin that is another one, or may do something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginChange {
    /// The plugin.
    pub plugin: String,
    /// What changes: `sha256`, or a grant: `programs`, `hosts` or `env`.
    pub what: String,
    /// What comes: the new digest, or the names that are granted now.
    pub added: Vec<String>,
    /// What goes: the old digest, or the names that are not granted any more.
    pub removed: Vec<String>,
}

impl TreeDiff {
    /// From one tree to another.
    pub fn between(before: &Objects, after: &Objects) -> Self {
        let nothing = Fields::new();
        let mut diff = Self::default();
        for object in before.keys().chain(after.keys().filter(|object| !before.contains_key(*object))) {
            let (old, new) = (before.get(object), after.get(object));
            let change = match (old, new) {
                (None, _) => ChangeKind::Added,
                (_, None) => ChangeKind::Removed,
                (Some(old), Some(new)) if old == new => continue,
                (Some(_), Some(_)) => ChangeKind::Changed,
            };
            let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
            diff.objects.push(ObjectChange { object: object.clone(), change, fields: field_changes(old, new) });
            if let Some(plugin) = object.strip_prefix("plugins/") {
                diff.plugins.extend(plugin_changes(plugin, old, new));
            }
        }
        diff.objects.sort_by(|one, other| one.object.cmp(&other.object));
        diff.plugins.sort_by(|one, other| (&one.plugin, &one.what).cmp(&(&other.plugin, &other.what)));
        diff
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects are added, changed and removed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |kind| self.objects.iter().filter(|object| object.change == kind).count();
        (count(ChangeKind::Added), count(ChangeKind::Changed), count(ChangeKind::Removed))
    }
}

fn field_changes(old: &Fields, new: &Fields) -> Vec<FieldChange> {
    let (old, new) = (leaves(old), leaves(new));
    let mut paths: Vec<&String> = old.keys().chain(new.keys().filter(|path| !old.contains_key(*path))).collect();
    paths.sort();
    let value = |leaves: &BTreeMap<String, Value>, path: &String| leaves.get(path).cloned().unwrap_or(Value::Null);
    paths
        .into_iter()
        .map(|path| FieldChange { field: path.clone(), before: value(&old, path), after: value(&new, path) })
        .filter(|change| change.before != change.after)
        .collect()
}

/// Every value that is no table, by dotted path. Keys that need it are quoted, so that no two paths are the same.
fn leaves(fields: &Fields) -> BTreeMap<String, Value> {
    fn walk(table: &Map<String, Value>, path: &str, leaves: &mut BTreeMap<String, Value>) {
        for (key, value) in table {
            let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            let key = if is_bare { key.clone() } else { format!("{key:?}") };
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(inner, &path, leaves),
                leaf => drop(leaves.insert(path, leaf.clone())),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(fields, "", &mut found);
    found
}

fn plugin_changes(plugin: &str, old: &Fields, new: &Fields) -> Vec<PluginChange> {
    let texts = |value: Option<&Value>| -> Vec<String> {
        match value {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
        }
    };
    let grant = |fields: &Fields, what: &str| texts(fields.get("allow").and_then(|allow| allow.get(what)));
    let parts = [
        ("sha256", texts(old.get("sha256")), texts(new.get("sha256"))),
        ("programs", grant(old, "programs"), grant(new, "programs")),
        ("hosts", grant(old, "hosts"), grant(new, "hosts")),
        ("env", grant(old, "env"), grant(new, "env")),
    ];
    let missing = |from: &[String], other: &[String]| -> Vec<String> {
        from.iter().filter(|name| !other.contains(name)).cloned().collect()
    };
    parts
        .into_iter()
        .map(|(what, old, new)| PluginChange {
            plugin: plugin.to_owned(),
            what: what.to_owned(),
            added: missing(&new, &old),
            removed: missing(&old, &new),
        })
        .filter(|change| !change.added.is_empty() || !change.removed.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(value: Value) -> Objects {
        serde_json::from_value(value).expect("objects")
    }

    #[test]
    fn each_field_that_differs_is_told_and_no_other() {
        let before = objects(json!({
            "runners/a": { "tags": ["x"] },
            "projects/shop/templates/deploy": { "timeout": "30m", "params": { "a": 1, "b": { "c": 2 } }, "priority": 0 },
            "access/root": { "role": "admin" },
        }));
        let after = objects(json!({
            "runners/b": { "tags": ["x"] },
            "projects/shop/templates/deploy": { "timeout": "1h", "params": { "a": 1, "b": { "c": 3 } }, "priority": 0 },
            "access/root": { "role": "admin" },
        }));
        let diff = TreeDiff::between(&before, &after);
        let told: Vec<_> = diff.objects.iter().map(|object| (object.object.as_str(), object.change)).collect();
        assert_eq!(
            told,
            [
                ("projects/shop/templates/deploy", ChangeKind::Changed),
                ("runners/a", ChangeKind::Removed),
                ("runners/b", ChangeKind::Added),
            ]
        );
        let fields: Vec<_> = diff.objects[0].fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["params.b.c", "timeout"]);
        assert_eq!(
            (&diff.objects[2].fields[0].before, &diff.objects[2].fields[0].after),
            (&Value::Null, &json!(["x"]))
        );
        assert_eq!(diff.counts(), (1, 1, 1));
        assert!(diff.plugins.is_empty() && !diff.is_empty());
        assert!(TreeDiff::between(&before, &before).is_empty());
    }

    #[test]
    fn digests_and_grants_are_told_on_their_own() {
        let before = objects(json!({
            "plugins/ansible": { "sha256": "aa", "allow": { "programs": ["ansible-playbook", "git"] } },
            "plugins/same": { "sha256": "aa", "limits": { "time": "5s" } },
        }));
        let after = objects(json!({
            "plugins/ansible": { "sha256": "bb", "allow": { "programs": ["ansible-playbook", "ssh"], "env": ["LANG"] } },
            "plugins/same": { "sha256": "aa", "limits": { "time": "6s" } },
        }));
        let plugins = TreeDiff::between(&before, &after).plugins;
        let told: Vec<_> = plugins
            .iter()
            .map(|change| (change.what.as_str(), change.added.join(" "), change.removed.join(" ")))
            .collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told,
            [
                ("env", text("LANG"), text("")),
                ("programs", text("ssh"), text("git")),
                ("sha256", text("bb"), text("aa"))
            ]
        );
    }

    #[test]
    fn a_dot_in_a_key_is_no_path() {
        let before = objects(json!({ "a": { "params": { "x.y": 1 } } }));
        let after = objects(json!({ "a": { "params": { "x": { "y": 1 } } } }));
        let fields = &TreeDiff::between(&before, &after).objects[0].fields;
        let paths: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(paths, ["params.\"x.y\"", "params.x.y"]);
    }
}
