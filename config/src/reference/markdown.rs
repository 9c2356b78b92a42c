//! From declarations to a page for people: a section for each kind, a table of its keys, and one for each table inside it.

use crate::reference::Kind;
use crate::suggest::either_of;
use crate::written::reader::{FieldInfo, Need, Shape, TableInfo};

/// What every generated page begins with.
pub(super) const GENERATED: &str = "<!-- Generated from the declarations in config/. FORGE_TEST_REWRITE=1 cargo test --release -p forge-config writes it anew. -->";

pub(super) fn page(title: &str, introduction: &str, kinds: &[Kind]) -> String {
    let mut page = format!("{GENERATED}\n\n# {title}\n\n{introduction}\n\n");
    for kind in kinds {
        page.push_str(&format!("- [`{}`](#{})\n", kind.path, anchor(kind.name)));
    }
    for kind in kinds {
        page.push_str(&format!("\n## {}\n\n", kind.name));
        if kind.path != kind.name {
            page.push_str(&format!("`{}`\n\n", kind.path));
        }
        section(&(kind.info)(), "", kind.name, &mut page);
    }
    page
}

/// The anchor that a heading gets: lower case, without what is no letter, digit or dash.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// What a table says of itself, its keys, and then the tables in it, each under its own heading.
fn section(info: &TableInfo, path: &str, kind: &str, page: &mut String) {
    page.push_str(&paragraph(info.documentation));
    page.push_str("\n\n| key | takes | |\n|---|---|---|\n");
    for field in &info.fields {
        let required = if field.need == Need::Required { "**Required.** " } else { "" };
        let variable = field.environment_variable.map(|name| format!(" Variable: `{name}`.")).unwrap_or_default();
        let documentation = paragraph(field.documentation).replace('|', "\\|");
        page.push_str(&format!(
            "| `{}` | {} | {required}{documentation}{variable} |\n",
            field.key,
            words(&field.shape).replace('|', "\\|")
        ));
    }
    for field in &info.fields {
        if let Some((inner, header)) = inner_table(field, path) {
            page.push_str(&format!("\n### {kind}: `{header}`\n\n"));
            section(inner, header.trim_matches(['[', ']']), kind, page);
        }
    }
}

/// The table that a field holds, with its header as people write it.
fn inner_table<'a>(field: &'a FieldInfo, path: &str) -> Option<(&'a TableInfo, String)> {
    let path = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
    match &field.shape {
        Shape::Table(inner) => Some((inner, format!("[{path}]"))),
        Shape::Named(inner) => match inner.as_ref() {
            Shape::Table(inner) => Some((inner, format!("[{path}.NAME]"))),
            Shape::Either(_, other) => match other.as_ref() {
                Shape::Table(inner) => Some((inner, format!("[{path}.NAME]"))),
                _ => None,
            },
            _ => None,
        },
        Shape::List(inner) => match inner.as_ref() {
            Shape::Table(inner) => Some((inner, format!("[[{path}]]"))),
            _ => None,
        },
        _ => None,
    }
}

/// What a key takes, in words.
fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Integer { least, most } if *most == i64::from(u32::MAX) => format!("whole number from {least}"),
        Shape::Integer { least, most } => format!("whole number from {least} to {most}"),
        Shape::Number => "number".to_owned(),
        Shape::Duration => "duration".to_owned(),
        Shape::Size => "size".to_owned(),
        Shape::Moment => "time with a zone".to_owned(),
        Shape::Secret => "secret".to_owned(),
        Shape::PlacedSecret => "secret, with `as`".to_owned(),
        Shape::Choice(choices) => either_of(
            choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().iter().map(String::as_str),
        ),
        Shape::List(inner) => match inner.as_ref() {
            Shape::Table(_) => "tables".to_owned(),
            inner => format!("list: {}", words(inner)),
        },
        Shape::Named(inner) => match inner.as_ref() {
            Shape::Table(_) => "tables by name".to_owned(),
            inner => format!("by name: {}", words(inner)),
        },
        Shape::Table(_) => "table".to_owned(),
        Shape::Either(one, other) => format!("{}, or {}", words(one), words(other)),
        Shape::AnyTable => "table".to_owned(),
        Shape::Anything => "any value".to_owned(),
    }
}

/// The lines of a doc comment as one line.
fn paragraph(documentation: &str) -> String {
    documentation.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
