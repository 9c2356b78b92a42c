//! Tables whose keys Forge does not know: a template's params, a plugin's config, an environment's variables.
//!
//! They become JSON, and keep where each part stands: what a plugin's schema refuses is shown on the user's own line.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::written::reader::{Place, Shape, Written};
use crate::written::sheet::Span;

/// Where a part of a raw value stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RawSpan {
    /// Its key, or for a part of an array the part itself.
    pub(crate) key: Span,
    /// The value.
    pub(crate) value: Span,
}

/// A table as JSON, with the place of each part by its JSON pointer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawTable {
    pub(crate) value: Map<String, Value>,
    pub(crate) spans: BTreeMap<String, RawSpan>,
}

/// One value as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawValue(pub(crate) Value);

/// `key` as a part of a JSON pointer.
pub(crate) fn pointer_part(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl RawTable {
    /// Puts a value under a key of the top.
    pub(crate) fn insert(&mut self, key: &str, key_span: Span, value_span: Span, value: Value) {
        self.spans.insert(format!("/{}", pointer_part(key)), RawSpan { key: key_span, value: value_span });
        self.value.insert(key.to_owned(), value);
    }
}

/// Reads one value of a table's top into `table`; false when it is no JSON, with the mistake noted.
pub(crate) fn raw_value(
    key: &str,
    key_span: Span,
    value: &Spanned<DeValue<'_>>,
    place: Place<'_>,
    table: &mut RawTable,
) -> bool {
    let json = to_json(value, &format!("/{}", pointer_part(key)), place, &mut table.spans);
    json.map(|json| table.insert(key, key_span, place.span(value), json)).is_some()
}

impl Written for RawTable {
    fn shape() -> Shape {
        Shape::AnyTable
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            place.wrong_type(value, "a table");
            return None;
        };
        let mut spans = BTreeMap::new();
        let value = table_to_json(table, "", place, &mut spans)?;
        Some(Self { value, spans })
    }
}

impl Written for RawValue {
    fn shape() -> Shape {
        Shape::Anything
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        to_json(value, "", place, &mut BTreeMap::new()).map(Self)
    }
}

fn table_to_json(
    table: &DeTable<'_>,
    pointer: &str,
    place: Place<'_>,
    spans: &mut BTreeMap<String, RawSpan>,
) -> Option<Map<String, Value>> {
    let mut json = Map::new();
    let mut whole = true;
    for (key, value) in table {
        let inner_pointer = format!("{pointer}/{}", pointer_part(key.get_ref()));
        let path = format!("{}.{}", place.key, key.get_ref());
        spans.insert(inner_pointer.clone(), RawSpan { key: place.span(key), value: place.span(value) });
        match to_json(value, &inner_pointer, Place { key: &path, ..place }, spans) {
            Some(value) => drop(json.insert(key.get_ref().clone().into_owned(), value)),
            None => whole = false,
        }
    }
    whole.then_some(json)
}

fn to_json(
    value: &Spanned<DeValue<'_>>,
    pointer: &str,
    place: Place<'_>,
    spans: &mut BTreeMap<String, RawSpan>,
) -> Option<Value> {
    match value.get_ref() {
        DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
        DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
        DeValue::Datetime(moment) => Some(Value::String(moment.to_string())),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            if number.is_none() {
                place.bad_value(place.span(value), format_args!("must fit into 64 bits, and {integer} does not"), None);
            }
            number.map(Value::from)
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            if number.is_none() {
                place.bad_value(place.span(value), format_args!("must be a finite number, and {float} is not"), None);
            }
            number.map(Value::Number)
        }
        DeValue::Array(array) => {
            let mut json = Vec::new();
            let mut whole = true;
            for (index, value) in array.iter().enumerate() {
                let inner_pointer = format!("{pointer}/{index}");
                let span = place.span(value);
                spans.insert(inner_pointer.clone(), RawSpan { key: span, value: span });
                match to_json(value, &inner_pointer, place, spans) {
                    Some(value) => json.push(value),
                    None => whole = false,
                }
            }
            whole.then_some(Value::Array(json))
        }
        DeValue::Table(table) => table_to_json(table, pointer, place, spans).map(Value::Object),
    }
}
