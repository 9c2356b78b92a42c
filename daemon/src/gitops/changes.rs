//! What differs from the revision before, as the list of revisions keeps it: `forge config diff`, bounded. Pure, and without a secret.

use forge_api::{ConfigChange, ConfigChangeKind, ConfigFieldChange};
use forge_config::meant::Tree;
use forge_config::{ChangeKind, FieldChange, ObjectChange, TreeDiff, objects};
use serde_json::Value;

/// The most objects that are kept of one revision.
const OBJECTS_MAX: usize = 200;

/// The most fields that are kept of one object.
const FIELDS_MAX: usize = 50;

/// The most bytes of one value.
const VALUE_BYTES_MAX: usize = 1_024;

/// What differs, and whether there is more of it than is kept.
pub(super) fn between(before: &Tree, after: &Tree) -> (Vec<ConfigChange>, bool) {
    let diff = TreeDiff::between(&objects(before), &objects(after));
    let is_cut = diff.objects.len() > OBJECTS_MAX || diff.objects.iter().any(|object| object.fields.len() > FIELDS_MAX);
    (diff.objects.into_iter().take(OBJECTS_MAX).map(change).collect(), is_cut)
}

/// Whether a path of the tree lies in one of these projects.
pub(crate) fn is_of_projects(path: &str, projects: &[String]) -> bool {
    let project = path.strip_prefix("projects/").and_then(|rest| rest.split('/').next());
    project.is_some_and(|project| projects.iter().any(|name| name == project))
}

fn change(ObjectChange { object, change, fields }: ObjectChange) -> ConfigChange {
    let field =
        |FieldChange { field, before, after }| ConfigFieldChange { field, before: cut(before), after: cut(after) };
    ConfigChange {
        object,
        change: match change {
            ChangeKind::Added => ConfigChangeKind::Added,
            ChangeKind::Removed => ConfigChangeKind::Removed,
            ChangeKind::Changed => ConfigChangeKind::Changed,
        },
        fields: fields.into_iter().take(FIELDS_MAX).map(field).collect(),
    }
}

/// A value, or the beginning of its text.
fn cut(value: Value) -> Value {
    let text = match &value {
        Value::Null | Value::Bool(_) | Value::Number(_) => return value,
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    match text.get(..text.floor_char_boundary(VALUE_BYTES_MAX)).filter(|beginning| beginning.len() < text.len()) {
        Some(beginning) => Value::String(format!("{beginning}…")),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_its_own_projects_are_a_tokens() {
        let projects = ["shop".to_owned()];
        for (path, expected) in [
            ("projects/shop/project", true),
            ("projects/shop/templates/a.toml", true),
            ("projects/shopping/project", false),
            ("projects/bank/project", false),
            ("runners/shop", false),
            ("source", false),
        ] {
            assert_eq!(is_of_projects(path, &projects), expected, "{path}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(cut(Value::from("short")), "short");
        assert_eq!(cut(Value::from(7)), 7);
        let long = cut(Value::from("é".repeat(2_000)));
        assert!(long.as_str().is_some_and(|text| text.ends_with('…') && text.len() <= VALUE_BYTES_MAX + 3));
        assert!(cut(Value::from(vec!["x"; 2_000])).is_string());
    }
}
