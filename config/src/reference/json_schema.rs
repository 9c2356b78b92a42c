//! From a declaration to a JSON Schema. It says what an editor can know of one file; what needs the whole tree is left to the check.

use serde_json::{Map, Value, json};

use crate::written::reader::{Need, Shape, TableInfo};

/// The draft that Taplo and Even Better TOML read.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// The kinds of a secret.
const SECRET_KINDS: &[(&str, &str)] = &[
    ("age", "Encrypted in the tree: what `forge secret encrypt` prints."),
    ("file", "A file on the daemon's host, by its absolute path."),
    ("env", "A variable of the daemon's own environment."),
    ("credential", "A credential that systemd hands to the daemon."),
];

pub(super) fn of(name: &str, info: &TableInfo) -> Value {
    let mut schema = table(info);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), DRAFT.into());
        schema.insert("title".to_owned(), format!("Forge: {name}").into());
    }
    schema
}

fn table(info: &TableInfo) -> Value {
    let properties: Map<String, Value> = info
        .fields
        .iter()
        .map(|field| {
            let mut schema = shape(&field.shape);
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".to_owned(), field.documentation.trim().into());
            }
            (field.key.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> =
        info.fields.iter().filter(|field| field.need == Need::Required).map(|field| field.key).collect();
    let mut schema = json!({
        "type": "object",
        "description": info.documentation.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if let (false, Value::Object(schema)) = (required.is_empty(), &mut schema) {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Duration => json!({ "type": "string", "pattern": r"^[0-9]+\s*(ms|s|m|h|d)$" }),
        Shape::Size => json!({ "type": "string", "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB|TiB)$" }),
        // TOML's own times reach a schema as text.
        Shape::Moment => json!({ "type": "string" }),
        Shape::Secret => secret(None),
        Shape::PlacedSecret => secret(Some(json!({
            "enum": ["env", "var"],
            "description": "Where the job sees it: in its environment, or among the variables. Default: `env`.",
        }))),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::List(item) => json!({ "type": "array", "items": self::shape(item) }),
        Shape::Named(value) => json!({ "type": "object", "additionalProperties": self::shape(value) }),
        Shape::Table(info) => table(info),
        Shape::Either(one, other) => json!({ "anyOf": [self::shape(one), self::shape(other)] }),
        Shape::AnyTable => json!({ "type": "object" }),
        Shape::Anything => json!({}),
    }
}

fn secret(destination: Option<Value>) -> Value {
    let mut properties: Map<String, Value> = SECRET_KINDS
        .iter()
        .map(|(kind, description)| ((*kind).to_owned(), json!({ "type": "string", "description": description })))
        .collect();
    properties.extend(destination.map(|destination| ("as".to_owned(), destination)));
    let one_of: Vec<_> = SECRET_KINDS.iter().map(|(kind, _)| json!({ "required": [kind] })).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false, "oneOf": one_of })
}
