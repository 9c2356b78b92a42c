//! What people type: one file for each kind of object, each a struct whose doc comments are kept as data.
//!
//! Everything here may be half there: what was wrong is noted on its sheet. `resolve` makes of it what is meant.

pub(crate) mod access;
pub(crate) mod clear;
pub(crate) mod declare;
pub(crate) mod environment;
pub(crate) mod integration;
pub(crate) mod inventory;
pub(crate) mod key;
pub(crate) mod plugin;
pub(crate) mod project;
pub(crate) mod raw;
pub(crate) mod reader;
pub(crate) mod recipients;
pub(crate) mod registration_token;
pub(crate) mod repository;
pub(crate) mod runner;
pub(crate) mod schedule;
pub(crate) mod secret;
pub(crate) mod sheet;
pub(crate) mod template;
pub(crate) mod webhook;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::Code;
use crate::written::declare::Table;
use crate::written::reader::{Place, Strangers, Written};
use crate::written::sheet::{Sheet, Span};

/// The largest TOML file that Forge reads.
pub const TOML_FILE_BYTES_MAX: usize = 1 << 20;

/// Reads a whole file. `None` when it is no TOML: then nothing else is said of it, since half a file is full of false mistakes.
pub(crate) fn read_file<T: Written + Table>(sheet: &Sheet) -> Option<T> {
    if sheet.text().len() > TOML_FILE_BYTES_MAX {
        let message =
            format!("the file has {} bytes, and Forge reads at most {TOML_FILE_BYTES_MAX}", sheet.text().len());
        sheet.error(Span::FILE, Code::TooLarge, message, Some("split it up".to_owned()));
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(sheet.text());
    if !errors.is_empty() && T::STRANGERS == Strangers::Hidden {
        sheet.hide_all_but_keys(T::info().all_keys());
    }
    for error in &errors {
        let end = sheet.text().len();
        let span = error.span().unwrap_or(end..end);
        sheet.error(Span::of(span, 0), Code::Syntax, error.message(), syntax_hint(error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let range = table.span();
    T::read(&toml::Spanned::new(range, DeValue::Table(table.into_inner())), Place { sheet, source: 0, key: "" })
}

/// What to do about the commonest mistakes in TOML, where the parser's own words do not say it.
fn syntax_hint(message: &str) -> Option<String> {
    let hint = if message.contains("duplicate key") {
        "a key stands once in a table: take one of them out"
    } else if message.contains("string values must be quoted") {
        "put the value in quotes"
    } else if message.contains("invalid basic string") || message.contains("invalid multi-line basic string") {
        "a string ends with the quotes that it began with, on the same line unless there are three of them"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::written::reader::{FieldInfo, Shape, TableInfo};

    fn every_field(table: TableInfo, visit: &mut impl FnMut(&FieldInfo)) {
        for field in table.fields {
            visit(&field);
            match field.shape {
                Shape::Table(inner) => every_field(inner, visit),
                Shape::Named(inner) | Shape::List(inner) | Shape::Either(_, inner) => {
                    if let Shape::Table(inner) = *inner {
                        every_field(inner, visit);
                    }
                }
                Shape::Text
                | Shape::Boolean
                | Shape::Integer { .. }
                | Shape::Number
                | Shape::Duration
                | Shape::Size
                | Shape::Moment
                | Shape::Secret
                | Shape::PlacedSecret
                | Shape::Choice(_)
                | Shape::AnyTable
                | Shape::Anything => {}
            }
        }
    }

    #[test]
    fn every_key_of_every_kind_is_documented() {
        let kinds = [
            project::Project::info(),
            template::Template::info(),
            inventory::Inventory::info(),
            environment::Environment::info(),
            repository::Repository::info(),
            key::Key::info(),
            schedule::Schedule::info(),
            integration::Integration::info(),
            runner::Runner::info(),
            registration_token::RegistrationToken::info(),
            plugin::Plugin::info(),
            webhook::Webhook::info(),
            access::Access::info(),
            recipients::Recipients::info(),
        ];
        for kind in kinds {
            assert!(kind.documentation.trim().ends_with('.'), "{}", kind.documentation);
            every_field(kind, &mut |field| {
                assert!(field.documentation.trim().ends_with('.'), "{}: {}", field.key, field.documentation);
                assert_eq!(field.environment_variable, None, "{}: what is in git is not overridden", field.key);
            });
        }
    }
}
