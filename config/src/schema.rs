//! What a plugin's JSON Schema says of a table, in plain words and on the user's own line.
//!
//! Schemas come from plugins: nothing that they refer to is fetched, and one that makes no sense is an error and never a panic.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::diagnostic::Code;
use crate::suggest::{either_of, list_of, nearest};
use crate::written::raw::{RawTable, pointer_part};
use crate::written::sheet::{At, Sheet, Span};

/// What is checked.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// `params` or `config`.
    pub(crate) name: &'a str,
    /// The plugin.
    pub(crate) owner: &'a str,
    /// What is written; `None` is an empty table.
    pub(crate) table: Option<&'a At<RawTable>>,
    /// Where a mistake stands that is about the whole.
    pub(crate) span: Span,
    pub(crate) code: Code,
}

/// A mistake in words.
struct Finding {
    span: Span,
    pointer: String,
    message: String,
    hint: Option<String>,
    kind: FindingKind,
    /// The key that the schema does not have, where it is about one.
    stranger: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FindingKind {
    Missing,
    /// A key that is nearly one that the schema has.
    Misspelled,
    Other,
}

/// A plugin's schema, compiled once for all tables that it checks.
pub(crate) struct Compiled {
    schema: Value,
    validator: Result<Validator, String>,
}

impl Compiled {
    /// Compiles a schema. One that is broken is told of where a table is checked against it.
    pub(crate) fn new(schema: &Value) -> Self {
        let validator = jsonschema::options().offline().build(schema).map_err(|error| error.to_string());
        Self { schema: schema.clone(), validator }
    }

    /// Whether a table may hold this key at its top.
    pub(crate) fn has_property(&self, key: &str) -> bool {
        self.schema.get("properties").and_then(|properties| properties.get(key)).is_some()
    }
}

/// Why no table can be checked against a plugin's schema, if so.
pub fn schema_mistake(schema: &Value) -> Option<String> {
    Compiled::new(schema).validator.err()
}

/// Checks a table and hands back what it holds, or `None` with every mistake noted.
pub(crate) fn check(compiled: Option<&Compiled>, subject: Subject<'_>, sheet: &Sheet) -> Option<Map<String, Value>> {
    let json = subject.table.map(|table| table.value.value.clone()).unwrap_or_default();
    let Some(Compiled { schema, validator }) = compiled else {
        if !json.is_empty() {
            let message = format!("the plugin `{}` takes no [{}]", subject.owner, subject.name);
            sheet.error(subject.span, subject.code, message, Some("take the table out".to_owned()));
            return None;
        }
        return Some(json);
    };
    let validator = match validator {
        Ok(validator) => validator,
        Err(error) => {
            let message =
                format!("the schema of the plugin `{}` for [{}] is broken: {error}", subject.owner, subject.name);
            sheet.error(subject.span, Code::PluginUnusable, message, Some("tell the plugin's author".to_owned()));
            return None;
        }
    };
    let instance = Value::Object(json);
    let mut findings: Vec<Finding> = Vec::new();
    for error in validator.iter_errors(&instance) {
        findings.extend(in_words(&error, schema, subject));
    }
    let whole = findings.is_empty();
    for Finding { span, message, hint, stranger, .. } in distinct(findings) {
        let misplaced = stranger.and_then(|key| sheet.misplaced(&key));
        sheet.error(span, subject.code, message, misplaced.or(hint));
    }
    match instance {
        Value::Object(json) if whole => Some(json),
        _ => None,
    }
}

/// Each mistake once. Beside a misspelled key, what it leaves missing is no mistake of its own.
fn distinct(findings: Vec<Finding>) -> Vec<Finding> {
    let misspelled: Vec<_> = findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::Misspelled)
        .map(|finding| finding.pointer.clone())
        .collect();
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let follows = finding.kind == FindingKind::Missing && misspelled.contains(&finding.pointer);
        let twice = kept.iter().any(|other| other.span == finding.span && other.message == finding.message);
        if !follows && !twice {
            kept.push(finding);
        }
    }
    kept
}

/// One mistake of the validator as mistakes in plain words: each unexpected key is one of its own.
fn in_words(error: &ValidationError<'_>, schema: &Value, subject: Subject<'_>) -> Vec<Finding> {
    let pointer = error.instance_path().as_str();
    let name = spoken(pointer, subject);
    let at = |message: String, hint: Option<String>, kind: FindingKind| Finding {
        span: value_span(pointer, subject),
        pointer: pointer.to_owned(),
        message,
        hint,
        kind,
        stranger: None,
    };
    let one = |message: String| vec![at(message, None, FindingKind::Other)];
    let actual = error.instance();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|key| unexpected_key(key, pointer, error, schema, subject)).collect()
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let known = known_keys(pointer, error, schema);
            let hint = (!known.is_empty()).then(|| {
                format!("`{}` of {} has the keys {}", name, subject.owner, list_of(known.iter().map(String::as_str)))
            });
            vec![at(format!("`{key}` is missing in `{name}`"), hint, FindingKind::Missing)]
        }
        ValidationErrorKind::Type { kind } => one(format!("`{name}` must be {}, not {}", types(kind), found(actual))),
        ValidationErrorKind::Enum { options } => {
            let texts: Vec<_> = options.as_array().into_iter().flatten().map(text_of).collect();
            let near = actual.as_str().and_then(|text| nearest(text, texts.iter().map(String::as_str)));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!(
                "`{name}` must be one of {}, not `{}`",
                list_of(texts.iter().map(String::as_str)),
                text_of(actual)
            );
            vec![at(message, hint, FindingKind::Other)]
        }
        ValidationErrorKind::Constant { expected_value } => {
            one(format!("`{name}` must be `{}`", text_of(expected_value)))
        }
        ValidationErrorKind::Minimum { limit } => one(format!("`{name}` must be at least {limit}, not {actual}")),
        ValidationErrorKind::Maximum { limit } => one(format!("`{name}` must be at most {limit}, not {actual}")),
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            one(format!("`{name}` must be more than {limit}, not {actual}"))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            one(format!("`{name}` must be less than {limit}, not {actual}"))
        }
        ValidationErrorKind::MinLength { limit: 1 } => one(format!("`{name}` must not be empty")),
        ValidationErrorKind::MinLength { limit } => one(format!("`{name}` must have at least {limit} characters")),
        ValidationErrorKind::MaxLength { limit } => one(format!("`{name}` must have at most {limit} characters")),
        ValidationErrorKind::MinItems { limit } => one(format!("`{name}` must have at least {limit} entries")),
        ValidationErrorKind::MaxItems { limit } => one(format!("`{name}` must have at most {limit} entries")),
        ValidationErrorKind::UniqueItems => one(format!("`{name}` must have no entry twice")),
        ValidationErrorKind::Pattern { pattern } => {
            one(format!("`{name}` must match `{pattern}`, and `{}` does not", text_of(actual)))
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let (message, hint) = no_alternative(&name, context);
            vec![at(message, hint, FindingKind::Other)]
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            one(format!("`{name}` says two things that exclude one another: keep one of them"))
        }
        // The validator's own words serve for what schemas rarely say.
        _ => one(format!("`{name}` is refused: {error}")),
    }
}

fn unexpected_key(
    key: &str,
    pointer: &str,
    error: &ValidationError<'_>,
    schema: &Value,
    subject: Subject<'_>,
) -> Finding {
    let path = format!("{pointer}/{}", pointer_part(key));
    let span = subject.table.and_then(|table| table.value.spans.get(&path)).map_or(subject.span, |span| span.key);
    let known = known_keys(pointer, error, schema);
    let name = spoken(pointer, subject);
    if known.iter().any(|known| known == key) {
        let message = format!("`{key}` does not go with what else stands in `{name}`");
        let hint = Some("keep the one or the other".to_owned());
        return Finding { span, pointer: pointer.to_owned(), message, hint, kind: FindingKind::Other, stranger: None };
    }
    let near = nearest(key, known.iter().map(String::as_str));
    let kind = if near.is_some() { FindingKind::Misspelled } else { FindingKind::Other };
    let hint = near
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_else(|| format!("the keys here are: {}", list_of(known.iter().map(String::as_str))));
    let message = format!("unknown key `{key}` in `{name}`, says the plugin `{}`", subject.owner);
    Finding { span, pointer: pointer.to_owned(), message, hint: Some(hint), kind, stranger: Some(key.to_owned()) }
}

/// The keys that the schema knows at this place: those of the part that refused, and those of the whole schema when it is about its top.
fn known_keys(pointer: &str, error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    let mut add = |part: Option<&Value>| {
        for (key, _) in part.and_then(Value::as_object).into_iter().flatten() {
            if !known.contains(key) {
                known.push(key.clone());
            }
        }
    };
    if pointer.is_empty() {
        add(schema.get("properties"));
    }
    let refusing = error.schema_path().as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    add(schema.pointer(refusing).and_then(|part| part.get("properties")));
    known
}

/// What no alternative took: when each of them only lacks a key, those keys.
fn no_alternative(name: &str, context: &[Vec<ValidationError<'static>>]) -> (String, Option<String>) {
    let lacking: Option<Vec<String>> = context
        .iter()
        .map(|errors| match errors.as_slice() {
            [error] => match error.kind() {
                ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
                _ => None,
            },
            _ => None,
        })
        .collect();
    match lacking {
        Some(keys) if !keys.is_empty() => {
            (format!("`{name}` needs {}", either_of(keys.iter().map(String::as_str))), None)
        }
        _ => (format!("`{name}` fits none of the forms that it may have"), alternatives(context)),
    }
}

/// How many alternatives a hint lists.
const ALTERNATIVES_MAX: usize = 4;

fn alternatives(context: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let first: Vec<_> =
        context.iter().filter_map(|errors| errors.first()).take(ALTERNATIVES_MAX).map(ToString::to_string).collect();
    (!first.is_empty()).then(|| first.join(", or "))
}

/// Where the value at a pointer stands; the whole subject where that is not written.
fn value_span(pointer: &str, subject: Subject<'_>) -> Span {
    subject.table.and_then(|table| table.value.spans.get(pointer)).map_or(subject.span, |span| span.value)
}

/// A JSON pointer as people write it: `params.arguments[0]` as `arguments[0]`; the top is the subject's own name.
fn spoken(pointer: &str, subject: Subject<'_>) -> String {
    let mut spoken = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            spoken.push_str(&format!("[{part}]"));
        } else {
            if !spoken.is_empty() {
                spoken.push('.');
            }
            spoken.push_str(&part);
        }
    }
    if spoken.is_empty() { subject.name.to_owned() } else { spoken }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => type_word(*one).to_owned(),
        TypeKind::Multiple(set) => set.iter().map(type_word).collect::<Vec<_>>().join(" or "),
    }
}

const fn type_word(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "an array",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a table",
        JsonType::String => "a string",
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

/// A value as people write it, texts without quotes.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
