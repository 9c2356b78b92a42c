//! How a kind of object is declared: once, as a struct with doc comments that stay as data.
//!
//! `written!` makes the struct (every field optional: what was missing or wrong is already noted), its reading with unknown keys
//! refused, its overriding by the environment, and its description. `choice!` does the same for a set of words.

use crate::written::reader::{Strangers, TableInfo};

/// A table with declared keys.
pub(crate) trait Table: Default {
    /// What to do with the values of keys that the table does not have.
    const STRANGERS: Strangers;

    /// The table as data.
    fn info() -> TableInfo;
}

/// `written! { /// Docs. shown|hidden Name { /// Docs. required|optional field as "key": Type => env::VARIABLE, } }`.
///
/// `hidden` means that unknown keys may have secrets as values.
macro_rules! written {
    (
        $(#[doc = $doc:literal])+
        $strangers:ident $name:ident {
            $($(#[doc = $field_doc:literal])+ $need:ident $field:ident $(as $key:literal)?: $type:ty $(=> $variable:expr)?,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            $($(#[doc = $field_doc])+ pub(crate) $field: Option<$crate::written::sheet::At<$type>>,)*
        }

        impl $crate::written::declare::Table for $name {
            const STRANGERS: $crate::written::reader::Strangers = $crate::written::declare::strangers!($strangers);

            fn info() -> $crate::written::reader::TableInfo {
                $crate::written::reader::TableInfo {
                    documentation: concat!($($doc, "\n"),+),
                    fields: vec![$($crate::written::reader::FieldInfo {
                        key: $crate::written::declare::key!($field $($key)?),
                        documentation: concat!($($field_doc, "\n"),+),
                        need: $crate::written::declare::need!($need),
                        environment_variable: $crate::written::declare::variable!($($variable)?),
                        shape: <$type as $crate::written::reader::Written>::shape(),
                    },)*],
                }
            }
        }

        impl $crate::written::reader::Written for $name {
            fn shape() -> $crate::written::reader::Shape {
                $crate::written::reader::Shape::Table(<Self as $crate::written::declare::Table>::info())
            }

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                place: $crate::written::reader::Place<'_>,
            ) -> Option<Self> {
                let toml::de::DeValue::Table(table) = value.get_ref() else {
                    place.wrong_type(value, "a table");
                    return None;
                };
                // The top of a file has no header of its own: what is missing there is missing in the first line.
                let header = if place.key.is_empty() { $crate::written::sheet::Span::FILE } else { place.span(value) };
                const KNOWN: &[&str] = &[$($crate::written::declare::key!($field $($key)?)),*];
                let strangers = <Self as $crate::written::declare::Table>::STRANGERS;
                $crate::written::reader::refuse_unknown(table, KNOWN, strangers, place);
                Some(Self {
                    $($field: $crate::written::reader::field(
                        table,
                        $crate::written::declare::key!($field $($key)?),
                        KNOWN,
                        $crate::written::declare::need!($need),
                        header,
                        place,
                    ),)*
                })
            }

            fn overridden(
                slot: &mut Option<$crate::written::sheet::At<Self>>,
                _key: &str,
                _variable: Option<&str>,
                environment: &$crate::written::reader::Environment,
                sheet: &$crate::written::sheet::Sheet,
            ) {
                let mut table = slot.clone().unwrap_or_default();
                $(<$type as $crate::written::reader::Written>::overridden(
                    &mut table.value.$field,
                    $crate::written::declare::key!($field $($key)?),
                    $crate::written::declare::variable!($($variable)?),
                    environment,
                    sheet,
                );)*
                // A table that neither the file nor the environment speaks of stays absent.
                if slot.is_some() $(|| table.value.$field.is_some())* {
                    *slot = Some(table);
                }
            }
        }
    };
}

/// The key of a field: its own name, unless that is a word of Rust.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// Whether a key must be there.
macro_rules! need {
    (required) => {
        $crate::written::reader::Need::Required
    };
    (optional) => {
        $crate::written::reader::Need::Optional
    };
}

/// Whether the values of unknown keys may be shown.
macro_rules! strangers {
    (shown) => {
        $crate::written::reader::Strangers::Shown
    };
    (hidden) => {
        $crate::written::reader::Strangers::Hidden
    };
}

/// The environment variable of a key, where it has one.
macro_rules! variable {
    () => {
        None
    };
    ($variable:expr) => {
        Some($variable)
    };
}

/// `choice! { /// Docs. Name { "word" => Variant, } }`: a set of words as an enum.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        $name:ident { $($word:literal => $variant:ident,)+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($variant,)+
        }

        impl $crate::written::reader::Written for $name {
            fn shape() -> $crate::written::reader::Shape {
                $crate::written::reader::Shape::Choice(&[$($word),+])
            }

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                place: $crate::written::reader::Place<'_>,
            ) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),+];
                let word = <String as $crate::written::reader::Written>::read(value, place)?;
                match word.as_str() {
                    $($word => Some(Self::$variant),)+
                    word => {
                        $crate::written::declare::refuse_word(word, WORDS, place.span(value), place);
                        None
                    }
                }
            }
        }
    };
}

pub(crate) use {choice, key, need, strangers, variable, written};

use crate::suggest::{did_you_mean, list_of};
use crate::written::reader::Place;
use crate::written::sheet::Span;

/// Notes that a word is none of those that the key takes.
pub(crate) fn refuse_word(word: &str, words: &[&str], span: Span, place: Place<'_>) {
    let hint = did_you_mean(word, words.iter().copied());
    place.bad_value(span, format_args!("must be one of {}, not `{word}`", list_of(words.iter().copied())), hint);
}
