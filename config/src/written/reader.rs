//! From TOML with spans to what is written: one [`Written`] for each type of value, and the checks that every table shares.
//!
//! A value that is wrong is noted on the sheet and left out; reading goes on, so that all mistakes of a file show at once.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Code;
use crate::suggest::{did_you_mean, list_of, nearest};
use crate::units;
use crate::written::sheet::{At, Sheet, Span};

/// The process's environment, or a part of it.
pub(crate) type Environment = BTreeMap<String, String>;

/// What a key takes, as data: the reference page and JSON Schema are made from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Text,
    Boolean,
    Integer {
        least: i64,
        most: i64,
    },
    Number,
    Duration,
    Size,
    Moment,
    Secret,
    /// A secret with `as`.
    PlacedSecret,
    Choice(&'static [&'static str]),
    List(Box<Shape>),
    Named(Box<Shape>),
    Table(TableInfo),
    Either(Box<Shape>, Box<Shape>),
    /// A table with any keys.
    AnyTable,
    Anything,
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    Optional,
}

/// A key of a table, as data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldInfo {
    pub(crate) key: &'static str,
    pub(crate) documentation: &'static str,
    pub(crate) need: Need,
    pub(crate) environment_variable: Option<&'static str>,
    pub(crate) shape: Shape,
}

/// A table, as data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableInfo {
    pub(crate) documentation: &'static str,
    pub(crate) fields: Vec<FieldInfo>,
}

impl TableInfo {
    /// Every key of the table and of the tables in it: what may be shown of a broken file that may hold secrets.
    pub(crate) fn all_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for field in &self.fields {
            keys.push(field.key.to_owned());
            if let Shape::Table(table) = &field.shape {
                keys.extend(table.all_keys());
            }
        }
        keys
    }
}

/// Where a value is being read: which sheet, which source, under which key, and what to call that in a message.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) sheet: &'a Sheet,
    pub(crate) source: usize,
    pub(crate) key: &'a str,
}

impl Place<'_> {
    pub(crate) fn span<T>(&self, value: &Spanned<T>) -> Span {
        Span::of(value.span(), self.source)
    }

    /// Notes that the value is of another type than `expected`, an answer to "must be".
    pub(crate) fn wrong_type(&self, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = found(value.get_ref());
        let message = format!("`{}` must be {expected}, not {found}", self.key);
        self.sheet.error(self.span(value), Code::WrongType, message, None);
    }

    /// Notes that the value is of the right type and makes no sense.
    pub(crate) fn bad_value(&self, span: Span, why: impl std::fmt::Display, hint: Option<String>) {
        self.sheet.error(span, Code::BadValue, format!("`{}` {why}", self.key), hint);
    }
}

/// What a value is, for "not ...".
pub(crate) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A type of value that people write.
pub(crate) trait Written: Sized {
    /// What it is, as data.
    fn shape() -> Shape;

    /// Reads it, or notes what is wrong.
    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self>;

    /// Reads it from an environment variable. A text is taken as it is; anything else is written as in TOML.
    fn read_override(text: &str, place: Place<'_>) -> Option<Self> {
        let value = match Self::shape() {
            Shape::Boolean | Shape::Integer { .. } | Shape::Number => DeValue::parse(text.trim()).ok(),
            _ => None,
        };
        let value = value.map(Spanned::into_inner).unwrap_or(DeValue::String(text.into()));
        Self::read(&Spanned::new(0..text.len(), value), place)
    }

    /// Puts what the environment says in the place of what the file says.
    fn overridden(
        slot: &mut Option<At<Self>>,
        key: &str,
        variable: Option<&str>,
        environment: &Environment,
        sheet: &Sheet,
    ) {
        let Some((name, text)) = variable.and_then(|name| environment.get_key_value(name)) else { return };
        // Containers pass variables on that nobody set: an empty one says nothing.
        if text.is_empty() {
            return;
        }
        let source = sheet.add_override(name, text);
        let place = Place { sheet, source, key };
        let span = Span { start: 0, end: text.len(), source };
        *slot = Self::read_override(text, place).map(|value| At { value, span });
    }
}

/// Whether the table has `key` under a wrong spelling: that is a mistake already, and what is missing for it is none of its own.
pub(crate) fn is_misspelled(table: &DeTable<'_>, key: &str, known: &[&str]) -> bool {
    table.iter().any(|(written, _)| {
        let written: &str = written.get_ref();
        !known.contains(&written) && nearest(written, known.iter().copied()) == Some(key)
    })
}

/// Reads the value of `key`, or notes that it is missing.
pub(crate) fn field<T: Written>(
    table: &DeTable<'_>,
    key: &str,
    known: &[&str],
    need: Need,
    header: Span,
    place: Place<'_>,
) -> Option<At<T>> {
    let Some(value) = table.get(key) else {
        if need == Need::Required && !is_misspelled(table, key, known) {
            let hint = example(&T::shape()).map(|example| format!("write `{key} = {example}`"));
            place.sheet.error(header, Code::MissingKey, format!("`{key}` is missing"), hint);
        }
        return None;
    };
    let inner = Place { key, ..place };
    T::read(value, inner).map(|read| At { value: read, span: inner.span(value) })
}

/// What a value of this shape may look like.
fn example(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Text | Shape::Moment => Some("\"...\"".to_owned()),
        Shape::Boolean => Some("true".to_owned()),
        Shape::Integer { .. } | Shape::Number => Some("1".to_owned()),
        Shape::Duration => Some("\"30s\"".to_owned()),
        Shape::Size => Some("\"64MiB\"".to_owned()),
        Shape::Secret | Shape::PlacedSecret => Some("{ file = \"/path/on/the/daemons/host\" }".to_owned()),
        Shape::Choice(choices) => choices.first().map(|choice| format!("\"{choice}\"")),
        Shape::List(_) => Some("[\"...\"]".to_owned()),
        Shape::Either(first, _) => example(first),
        Shape::Named(_) | Shape::Table(_) | Shape::AnyTable | Shape::Anything => None,
    }
}

/// What to do with the values of keys that a table does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strangers {
    /// Their lines may be shown.
    Shown,
    /// A misspelled key of a secret has the secret as its value.
    Hidden,
}

/// Notes every key that the table does not have, with the nearest one that it has.
pub(crate) fn refuse_unknown(
    table: &DeTable<'_>,
    known: &'static [&'static str],
    strangers: Strangers,
    place: Place<'_>,
) {
    if place.key.is_empty() {
        place.sheet.set_top(known);
    }
    for (key, value) in table {
        let name: &str = key.get_ref();
        if known.contains(&name) {
            continue;
        }
        if strangers == Strangers::Hidden {
            hide_leaves(value, place);
        }
        let span = place.span(key);
        let misplaced = || if place.key.is_empty() { None } else { place.sheet.misplaced(name) };
        let hint = misplaced()
            .or_else(|| did_you_mean(name, known.iter().copied()))
            .unwrap_or_else(|| format!("the keys here are: {}", list_of(known.iter().copied())));
        let owner = if place.key.is_empty() { String::new() } else { format!(" in `{}`", place.key) };
        place.sheet.error(span, Code::UnknownKey, format!("unknown key `{name}`{owner}"), Some(hint));
    }
}

/// Hides every value in `value` that is no table or array itself.
pub(crate) fn hide_leaves(value: &Spanned<DeValue<'_>>, place: Place<'_>) {
    match value.get_ref() {
        DeValue::Table(table) => table.iter().for_each(|(_, value)| hide_leaves(value, place)),
        DeValue::Array(array) => array.iter().for_each(|value| hide_leaves(value, place)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            place.sheet.hide(place.span(value))
        }
    }
}

impl Written for String {
    fn shape() -> Shape {
        Shape::Text
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => {
                place.wrong_type(value, "a string");
                None
            }
        }
    }
}

impl Written for bool {
    fn shape() -> Shape {
        Shape::Boolean
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                place.wrong_type(value, "true or false");
                None
            }
        }
    }
}

/// A whole number between two bounds, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole<const LEAST: i64, const MOST: i64>(pub(crate) i64);

/// A count where 0 is unlimited.
pub(crate) type Count = Whole<0, { u32::MAX as i64 }>;

impl<const LEAST: i64, const MOST: i64> Whole<LEAST, MOST> {
    /// The number as a count; the bounds of the type say that it is one.
    pub(crate) fn count(self) -> u32 {
        u32::try_from(self.0).unwrap_or(if self.0 < 0 { 0 } else { u32::MAX })
    }
}

impl<const LEAST: i64, const MOST: i64> Written for Whole<LEAST, MOST> {
    fn shape() -> Shape {
        Shape::Integer { least: LEAST, most: MOST }
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            place.wrong_type(value, "an integer");
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (LEAST..=MOST).contains(&number) => Some(Self(number)),
            _ => {
                place.bad_value(
                    place.span(value),
                    format_args!("must be from {LEAST} to {MOST}, and {integer} is not"),
                    None,
                );
                None
            }
        }
    }
}

/// A number with or without a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Written for Number {
    fn shape() -> Shape {
        Shape::Number
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Self::Whole),
            DeValue::Float(float) => {
                float.as_str().parse().ok().filter(|float: &f64| float.is_finite()).map(Self::Fraction)
            }
            _ => {
                place.wrong_type(value, "a number");
                return None;
            }
        };
        if number.is_none() {
            place.bad_value(place.span(value), "must be a finite number of at most 64 bits", None);
        }
        number
    }
}

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Duration(pub(crate) u64);

impl Written for Duration {
    fn shape() -> Shape {
        Shape::Duration
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            place.wrong_type(value, "a duration in quotes, such as \"30s\"");
            return None;
        };
        match units::duration_ms(text) {
            Ok(ms) => Some(Self(ms)),
            Err(error) => {
                place.bad_value(place.span(value), format_args!("is no duration: {error}"), Some(error.hint()));
                None
            }
        }
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl Written for Size {
    fn shape() -> Shape {
        Shape::Size
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            place.wrong_type(value, "a size in quotes, such as \"64MiB\"");
            return None;
        };
        match units::size_bytes(text) {
            Ok(bytes) => Some(Self(bytes)),
            Err(error) => {
                place.bad_value(place.span(value), format_args!("is no size: {error}"), Some(error.hint()));
                None
            }
        }
    }
}

/// A moment, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) i64);

impl Written for Moment {
    fn shape() -> Shape {
        Shape::Moment
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let written = match value.get_ref() {
            DeValue::Datetime(moment) => moment.to_string(),
            DeValue::String(text) => text.clone().into_owned(),
            _ => {
                place.wrong_type(value, "a time such as 2027-01-31T00:00:00Z");
                return None;
            }
        };
        let moment = units::moment_unix_micros(&written);
        if moment.is_none() {
            let hint = "write it as 2027-01-31T00:00:00Z, with `Z` or an offset such as +02:00".to_owned();
            place.bad_value(place.span(value), "is no time with a zone", Some(hint));
        }
        moment.map(Self)
    }
}

impl<T: Written> Written for Vec<At<T>> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            place.wrong_type(value, "an array such as [\"...\"]");
            return None;
        };
        let read = |value| T::read(value, place).map(|read| At { value: read, span: place.span(value) });
        Some(array.iter().filter_map(read).collect())
    }

    /// Commas stand between the values of a list.
    fn read_override(text: &str, place: Place<'_>) -> Option<Self> {
        let mut list = Vec::new();
        let mut start = 0;
        for part in text.split(',') {
            let range = start..start + part.len();
            start = range.end + 1;
            if !part.trim().is_empty() {
                let value = Spanned::new(range, DeValue::String(part.trim().into()));
                list.extend(T::read(&value, place).map(|read| At { value: read, span: place.span(&value) }));
            }
        }
        Some(list)
    }
}

/// Values under names that the user chooses, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, At<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Written> Written for Named<T> {
    fn shape() -> Shape {
        Shape::Named(Box::new(T::shape()))
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            place.wrong_type(value, "a table");
            return None;
        };
        let mut named = Vec::new();
        for (key, value) in table {
            let name = At { value: key.get_ref().clone().into_owned(), span: place.span(key) };
            let path = format!("{}.{}", place.key, name.value);
            if let Some(read) = T::read(value, Place { key: &path, ..place }) {
                // A table's own span may be far from its name: mistakes about the whole entry belong to the name.
                named.push((name, At { value: read, span: place.span(value) }));
            }
        }
        named.sort_by_key(|(name, _)| name.span.start);
        Some(Self(named))
    }
}
