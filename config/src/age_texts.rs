//! Where the age values of a file stand: what encrypts a whole tree anew replaces them in place, and leaves the rest of the file as it is.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Code, Diagnostic};
use crate::name::Name;
use crate::place::{Place, RootKind, place_of};
use crate::secret::{PLUGIN_SECRETS, WEBHOOK_SECRETS};
use crate::written::sheet::{Sheet, Span};

/// What an age value begins with.
const AGE_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

/// An age value in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgeText {
    /// The bytes of the TOML string that holds it, quotes included.
    pub range: Range<usize>,
    /// The line on which the string begins, from 1.
    pub line: usize,
    /// The armoured text.
    pub armored: String,
    /// The project that it must have been encrypted for.
    pub project: Name,
}

/// The age values of a file of the tree, in its order. A file that declares nothing, or nothing with secrets, has none.
///
/// # Errors
/// The file is no TOML.
pub fn age_texts(path: &str, text: &str) -> Result<Vec<AgeText>, Vec<Diagnostic>> {
    let project = match place_of(path) {
        Some(Ok(Place::Project(project) | Place::InProject(project, _, _))) => Some(project),
        Some(Ok(Place::Root(RootKind::Webhook, _))) => WEBHOOK_SECRETS.parse().ok(),
        Some(Ok(Place::Root(RootKind::Plugin, _))) => PLUGIN_SECRETS.parse().ok(),
        Some(Ok(
            Place::Root(RootKind::Runner | RootKind::RegistrationToken | RootKind::Access, _) | Place::Secrets,
        ))
        | Some(Err(_))
        | None => None,
    };
    let Some(project) = project else { return Ok(Vec::new()) };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let sheet = Sheet::new(path, text);
        sheet.hide_all_but_keys(Vec::new());
        for error in errors {
            sheet.error(Span::of(error.span().unwrap_or(0..0), 0), Code::Syntax, error.message(), None);
        }
        return Err(sheet.finish());
    }
    let mut found = Vec::new();
    in_table(table.get_ref(), &mut found);
    found.sort_by_key(|(range, _)| range.start);
    let line = |range: &Range<usize>| text.get(..range.start).map_or(1, |before| before.matches('\n').count() + 1);
    Ok(found
        .into_iter()
        .map(|(range, armored)| AgeText { line: line(&range), range, armored, project: project.clone() })
        .collect())
}

fn in_table(table: &DeTable<'_>, found: &mut Vec<(Range<usize>, String)>) {
    for (key, value) in table {
        match value.get_ref() {
            DeValue::String(text) if key.get_ref() == "age" && text.trim_start().starts_with(AGE_BEGIN) => {
                found.push((value.span(), text.clone().into_owned()));
            }
            _ => in_value(value, found),
        }
    }
}

fn in_value(value: &Spanned<DeValue<'_>>, found: &mut Vec<(Range<usize>, String)>) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, found),
        DeValue::Array(items) => items.iter().for_each(|item| in_value(item, found)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_found_with_its_project_and_its_bytes() {
        let armored = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n";
        let value = format!("\"\"\"\n{armored}\"\"\"");
        let text = format!("# {armored}\ntype = \"ssh\"\nprivate_key = {{ age = {value} }}\n[other]\nage = {value}\n")
            .replacen('\n', " ", 2);
        let found = age_texts("projects/shop/keys/a.toml", &text).expect("TOML");
        assert_eq!(found.len(), 2, "what stands in a comment is none");
        for one in &found {
            assert_eq!((one.project.as_str(), one.armored.as_str()), ("shop", armored));
            assert_eq!(&text[one.range.clone()], value);
        }
        assert_eq!(text.lines().nth(found[0].line - 1), Some("private_key = { age = \"\"\""));
        for (path, owner) in [("webhooks/ops.toml", "webhooks"), ("plugins/ops.toml", "plugins")] {
            let found = age_texts(path, &format!("secret = {{ age = {value} }}")).expect("TOML");
            assert_eq!(found[0].project.as_str(), owner, "{path}");
        }
        for elsewhere in ["runners/a.toml", "secrets.toml", "README.md", "elsewhere/a.toml"] {
            assert_eq!(age_texts(elsewhere, &text), Ok(Vec::new()), "{elsewhere}");
        }
    }

    #[test]
    fn of_a_broken_file_nothing_is_shown() {
        let found = age_texts("projects/shop/keys/a.toml", "value = \"hunter2").expect_err("no TOML");
        assert!(found.iter().all(|found| !found.draw(crate::Colour::Never).contains("hunter2")));
    }
}
