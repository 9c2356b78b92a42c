//! From a type to the JSON Schema that the daemon checks a table of TOML against.
//!
//! What the derive says is kept: names, doc comments as descriptions, defaults, bounds. Two things are added that hold for every plugin:
//! a key that the type does not have is refused, whether or not the author thought of it, and `null` is not offered, since TOML has none.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// What joins an object's own keys with those of another schema: a flattened enum, say.
const APPLICATORS: [&str; 5] = ["allOf", "anyOf", "oneOf", "$ref", "if"];

/// The schema of a type, closed and without `null`.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    // A mistake is then told of at its own place in the schema, where the keys stand that were meant.
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    finish(&mut schema, Keys::Closed);
    schema.to_value()
}

/// Whether a schema says all the keys of its object itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// It does: others are refused.
    Closed,
    /// It is a part of one that closes them.
    Part,
}

fn finish(schema: &mut Schema, keys: Keys) {
    if let Some(object) = schema.as_object_mut() {
        finish_object(object, keys);
    }
}

fn finish_object(object: &mut Map<String, Value>, keys: Keys) {
    without_null(object);
    let is_joined = APPLICATORS.iter().any(|name| object.contains_key(*name));
    let is_open = !object.contains_key("additionalProperties") && !object.contains_key("unevaluatedProperties");
    let has_keys = object.contains_key("properties");
    if keys == Keys::Part {
        // What is closed here would refuse the keys of its neighbours.
        if object.get("additionalProperties") == Some(&Value::Bool(false)) {
            object.remove("additionalProperties");
        }
    } else if has_keys && is_open {
        let name = if is_joined { "unevaluatedProperties" } else { "additionalProperties" };
        object.insert(name.to_owned(), Value::Bool(false));
    }
    let joined = if keys == Keys::Part || has_keys || object.contains_key("allOf") { Keys::Part } else { Keys::Closed };
    for (name, value) in object.iter_mut() {
        match (name.as_str(), value) {
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => each(parts, joined),
            ("properties" | "patternProperties" | "$defs", Value::Object(parts)) => {
                each(parts.values_mut(), Keys::Closed)
            }
            ("prefixItems", Value::Array(parts)) => each(parts, Keys::Closed),
            ("items" | "additionalProperties", Value::Object(part)) => finish_object(part, Keys::Closed),
            _ => {}
        }
    }
}

fn each<'a>(parts: impl IntoIterator<Item = &'a mut Value>, keys: Keys) {
    for part in parts {
        if let Value::Object(part) = part {
            finish_object(part, keys);
        }
    }
}

/// An `Option` takes `null` in JSON. TOML leaves the key out instead.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    let Some(Value::Array(forms)) = object.get_mut("anyOf") else { return };
    forms.retain(|form| form.get("type") != Some(&Value::String("null".to_owned())));
    let [Value::Object(only)] = forms.as_slice() else { return };
    // What stands beside it (a description, say) is about this place, and wins.
    let only = only.clone();
    object.remove("anyOf");
    for (name, value) in only {
        object.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// What a deployment is told.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Params {
        /// The release
        #[schemars(length(min = 1))]
        release: String,
        /// How many hosts at a time
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 100))]
        batch: u32,
        /// Where it is told of
        notify: Option<Notify>,
        labels: Option<BTreeMap<String, String>>,
        mode: Option<Mode>,
        target: Target,
        #[serde(flatten)]
        source: Source,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Notify {
        /// The channel
        channel: String,
    }

    /// How fast
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        AtOnce,
        Slowly,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Target {
        Host { name: String },
        Group { id: u32 },
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Source {
        File(String),
        Url(String),
    }

    fn one() -> u32 {
        1
    }

    fn mistakes(params: Value) -> Vec<String> {
        let schema = of::<Params>();
        let validator = jsonschema::options().offline().build(&schema).expect("it is a schema");
        validator.iter_errors(&params).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    #[test]
    fn a_type_says_its_schema() {
        let schema = of::<Params>();
        jsonschema::draft202012::meta::validate(&schema).expect("it is one of the draft that it names");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["description"], "What a deployment is told.");
        assert_eq!(schema["required"], json!(["release", "target"]));
        assert_eq!(schema["properties"]["batch"]["default"], 1);
        assert_eq!(
            schema["properties"]["notify"],
            json!({
                "description": "Where it is told of", "type": "object", "required": ["channel"], "additionalProperties": false,
                "properties": { "channel": { "description": "The channel", "type": "string" } }
            })
        );
        assert_eq!(schema["properties"]["labels"]["additionalProperties"], json!({ "type": "string" }));
        assert!(!schema.to_string().contains("null"), "{schema:#}");
    }

    #[test]
    fn what_fits_is_taken_and_the_rest_is_named_at_its_place() {
        let good = |more: Value| {
            let mut params = json!({ "release": "v1", "target": { "kind": "host", "name": "a" }, "file": "x" });
            for (name, value) in more.as_object().expect("an object") {
                params[name] = value.clone();
            }
            mistakes(params)
        };
        let none: [&str; 0] = [];
        assert_eq!(good(json!({})), none);
        let all =
            json!({ "batch": 3, "notify": { "channel": "ops" }, "labels": { "any": "thing" }, "mode": "at-once" });
        assert_eq!(good(all), none);
        assert_eq!(good(json!({ "target": { "kind": "group", "id": 7 } })), none);

        assert_eq!(good(json!({ "relase": "v1" })).len(), 1, "an unknown key");
        assert_eq!(
            good(json!({ "notify": { "channel": "ops", "chanel": "x" } })),
            ["/notify: Additional properties are not allowed ('chanel' was unexpected)"]
        );
        assert_eq!(good(json!({ "batch": 0 })), ["/batch: 0 is less than the minimum of 1"]);
        assert_eq!(good(json!({ "release": "" })), ["/release: \"\" is shorter than 1 character"]);
        assert_eq!(good(json!({ "mode": "fast" })).len(), 1);
        assert!(!good(json!({ "url": "y" })).is_empty(), "both file and url");
        let of_both = json!({ "target": { "kind": "host", "name": "a", "id": 7 } });
        assert!(!good(of_both).is_empty(), "a key of another kind");
    }
}
