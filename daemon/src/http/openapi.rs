//! `GET /openapi.json`: the API's contract (OpenAPI 3.1), written from the table, the operations and the types themselves.
//!
//! It is made when it is first asked for, and not before. `docs/reference/openapi.json` is the same text, compared by a test.

use std::sync::OnceLock;

use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::operations::{self, Content, Operation};
use super::session::SESSION_COOKIE;
use super::surface::Surface;
use super::table::{self, Needs, Route, Scope};

/// Where schemas stand in the document.
const SCHEMAS: &str = "/components/schemas";

/// `GET /openapi.json`
pub(super) async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let mut response = TEXT.get_or_init(text).as_str().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The document as it is sent and checked in.
fn text() -> String {
    format!("{:#}\n", whole())
}

fn whole() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        })
    };
    let mut writer = Writer {
        answers: settings().for_serialize().into_generator(),
        bodies: settings().for_deserialize().into_generator(),
    };
    let mut paths: Map<String, Value> = Map::new();
    let operations = operations::all();
    let routes = table::table();
    for route in routes.iter().filter(|route| route.surface == Surface::Api) {
        let Some(operation) = operations.iter().find(|operation| describes(operation, route)) else { continue };
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(route.method.as_str().to_ascii_lowercase(), writer.operation(operation, route));
        }
    }
    let problem = writer.answers.subschema_for::<forge_api::Problem>().to_value();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forge",
            "version": "1",
            "description": "The API of a Forge daemon. docs/reference/api.md walks through it."
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "access": bearer("An access token of the tree."),
                "session": { "type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "The dashboard's session." },
                "runner": bearer("A runner's own token."),
                "attempt": bearer("The token of an attempt's job."),
                "registration": bearer("A registration token."),
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong, and what to do (RFC 9457).",
                    "content": { forge_api::PROBLEM_MEDIA_TYPE: { "schema": problem } }
                }
            },
        }
    });
    let schemas = merge(writer.answers.take_definitions(true), writer.bodies.take_definitions(true), &mut document);
    if let Some(components) = document.get_mut("components") {
        components["schemas"] = Value::Object(schemas);
    }
    bound_integers(&mut document);
    document
}

/// Says of each integer how large it may be: its format alone binds nobody. Those of 64 bits are wider than what many programs read exactly.
fn bound_integers(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let bounds = match map.get("format").and_then(Value::as_str) {
                Some("uint16") => Some((json!(u16::MIN), json!(u16::MAX))),
                Some("uint32") => Some((json!(u32::MIN), json!(u32::MAX))),
                Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
                Some(_) | None => None,
            };
            if let Some((minimum, maximum)) = bounds {
                map.entry("minimum").or_insert(minimum);
                map.entry("maximum").or_insert(maximum);
            }
            map.values_mut().for_each(bound_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn bearer(description: &str) -> Value {
    json!({ "type": "http", "scheme": "bearer", "description": description })
}

fn full_path(operation: &Operation) -> String {
    if operation.path.starts_with("/hooks/") {
        operation.path.to_owned()
    } else {
        format!("{}{}", forge_api::API_PREFIX, operation.path)
    }
}

fn describes(operation: &Operation, route: &Route) -> bool {
    route.method.as_str() == operation.method && route.path == full_path(operation)
}

/// What a body is called whose shape differs from that of an answer of the same name: what an answer always has, a body may leave out.
fn request_name(name: &str) -> String {
    format!("{name}Request")
}

/// One list of schemas. Those of bodies that differ from an answer's of the same name get names of their own.
fn merge(answers: Map<String, Value>, mut bodies: Map<String, Value>, document: &mut Value) -> Map<String, Value> {
    // What refers to one that differs differs, too, once that has another name.
    let mut differ: Vec<String> = Vec::new();
    loop {
        let found: Vec<String> = bodies
            .iter()
            .filter(|(name, schema)| {
                !differ.contains(name) && answers.get(*name).is_some_and(|answer| answer != *schema)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if found.is_empty() {
            break;
        }
        for schema in bodies.values_mut() {
            rename(schema, &found);
        }
        differ.extend(found);
    }
    // Bodies are the only places of the document that mean these.
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
        operations.filter_map(|operation| operation.get_mut("requestBody")).for_each(|body| rename(body, &differ));
    }
    let mut merged = answers;
    for (name, schema) in bodies {
        let name = if differ.contains(&name) { request_name(&name) } else { name };
        merged.insert(name, schema);
    }
    merged
}

fn rename(value: &mut Value, names: &[String]) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix(&format!("#{SCHEMAS}/"))
                && names.iter().any(|known| known == name)
            {
                *target = format!("#{SCHEMAS}/{}", request_name(name));
            }
            map.values_mut().for_each(|inner| rename(inner, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| rename(inner, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

struct Writer {
    answers: SchemaGenerator,
    bodies: SchemaGenerator,
}

impl Writer {
    fn operation(&mut self, operation: &Operation, route: &Route) -> Value {
        let mut parameters: Vec<Value> = path_parameters(&route.path).collect();
        parameters.extend(self.query_parameters(operation));
        parameters.extend(headers(operation));
        let mut responses: Map<String, Value> = Map::new();
        for status in operation.statuses {
            responses.insert(status.to_string(), self.answer(operation.answer));
        }
        for status in problems(operation, route) {
            responses.entry(status.to_string()).or_insert_with(|| json!({ "$ref": "#/components/responses/Problem" }));
        }
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "description": needs(route.needs),
            "responses": responses,
            "security": security(route.needs),
        });
        if !parameters.is_empty() {
            described["parameters"] = Value::Array(parameters);
        }
        if let Some(body) = self.body(operation) {
            described["requestBody"] = body;
        }
        described
    }

    fn answer(&mut self, content: Content) -> Value {
        match content {
            Content::Nothing => json!({ "description": "Done." }),
            Content::Json(shape) => json!({
                "description": "Done.",
                "content": { "application/json": { "schema": shape(&mut self.answers).to_value() } }
            }),
            Content::AnyJson => json!({ "description": "Done.", "content": { "application/json": { "schema": {} } } }),
            Content::Bytes(media_type) => json!({ "description": "Done.", "content": { media_type: {} } }),
        }
    }

    fn body(&mut self, operation: &Operation) -> Option<Value> {
        let content = match operation.body {
            Content::Nothing => return None,
            Content::Json(shape) => {
                json!({ "application/json": { "schema": shape(&mut self.bodies).to_value() } })
            }
            Content::AnyJson => json!({ "application/json": { "schema": {} } }),
            Content::Bytes(media_type) => json!({ media_type: {} }),
        };
        // Whoever calls a hook may have nothing to say.
        let is_needed = operation.needs_body && !operation.path.starts_with("/hooks/");
        Some(json!({ "required": is_needed, "content": content }))
    }

    /// The fields of the query's type.
    fn query_parameters(&mut self, operation: &Operation) -> Vec<Value> {
        let Some(shape) = operation.query else { return Vec::new() };
        // Inlined: a query is no object of the API.
        let mut apart = SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .for_deserialize()
            .into_generator();
        let schema = shape(&mut apart).to_value();
        let Some(Value::Object(fields)) = schema.get("properties") else { return Vec::new() };
        fields
            .iter()
            .map(|(name, field)| {
                let mut field = field.clone();
                let description = field.as_object_mut().and_then(|field| field.remove("description"));
                without_null(&mut field);
                json!({ "name": name, "in": "query", "description": description, "schema": field })
            })
            .collect()
    }
}

/// A query has no null: what is not there is left out.
fn without_null(field: &mut Value) {
    let Some(field) = field.as_object_mut() else { return };
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            field.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(any)) = field.get_mut("anyOf") {
        any.retain(|one| one != &json!({ "type": "null" }));
    }
    field.remove("default");
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let schema = match name {
            "number" => json!({ "type": "integer", "minimum": 1 }),
            "sha256" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
            "id" => json!({ "type": "string", "minLength": 1 }),
            _name => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    })
}

/// What some operations read of the headers.
fn headers(operation: &Operation) -> Vec<Value> {
    let header = |name: &str, required: bool, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": required, "description": description, "schema": schema });
    match operation.id {
        "createTask" => vec![header(
            "Idempotency-Key",
            false,
            "The same key with the same request makes one task, however often it is sent.",
            json!({ "type": "string", "minLength": 1, "maxLength": super::limits::IDEMPOTENCY_KEY_BYTES_MAX }),
        )],
        "appendLog" => vec![header(
            "Content-Range",
            true,
            "Where the bytes stand.",
            json!({ "type": "string", "pattern": "^bytes [0-9]+-[0-9]+/\\*$" }),
        )],
        "listen" => vec![header("Last-Event-ID", false, "The event that was seen last.", json!({ "type": "string" }))],
        "getLog" => {
            let said = "One range of bytes, such as `bytes=100-199`; what is none is passed over (RFC 9110).";
            vec![header("Range", false, said, json!({ "type": "string" }))]
        }
        _ => Vec::new(),
    }
}

/// The problems that a route may answer.
fn problems(operation: &Operation, route: &Route) -> Vec<u16> {
    let mut statuses = vec![500, 503];
    match route.needs {
        Needs::Access(scope, _) => {
            statuses.extend([401, 403, 429]);
            if matches!(scope, Scope::Project | Scope::Task | Scope::Runner) {
                statuses.push(404);
            }
        }
        Needs::Registration | Needs::Runner | Needs::Attempt => statuses.extend([401, 429]),
        Needs::Nothing | Needs::Proof => {}
    }
    if operation.query.is_some() {
        statuses.push(400);
    }
    if !matches!(operation.body, Content::Nothing) {
        statuses.extend([400, 408, 413]);
    }
    if matches!(operation.body, Content::Json(_)) {
        statuses.push(415);
    }
    statuses.extend(operation.problems);
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn security(needs: Needs) -> Value {
    match needs {
        Needs::Nothing | Needs::Proof => json!([]),
        Needs::Registration => json!([{ "registration": [] }]),
        Needs::Runner => json!([{ "runner": [] }]),
        Needs::Attempt => json!([{ "attempt": [] }]),
        Needs::Access(..) => json!([{ "access": [] }, { "session": [] }]),
    }
}

/// What a route needs, in words.
fn needs(needs: Needs) -> String {
    let (scope, role) = match needs {
        Needs::Nothing => return "Anybody is answered.".to_owned(),
        Needs::Registration => return "Needs a registration token.".to_owned(),
        Needs::Runner => return "Needs a runner's token.".to_owned(),
        Needs::Attempt => return "Needs the attempt's own token.".to_owned(),
        Needs::Proof => return "Needs the secret of the sender.".to_owned(),
        Needs::Access(scope, role) => (scope, role),
    };
    let reach = match scope {
        Scope::Visible => "; the answer holds what the token reaches",
        Scope::Everywhere => ", with a token that reaches every project",
        Scope::Project => ", with a token that reaches the project",
        Scope::Task => ", with a token that reaches the task's project",
        Scope::Runner => {
            ", with a token that reaches the runner's project; one that serves every project is an admin's to change"
        }
    };
    format!("Needs the role {}{reach}.", super::auth::role_name(role))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_route_has_its_operation_and_every_operation_its_route() {
        let (routes, operations) = (table::table(), operations::all());
        for route in routes.iter().filter(|route| route.surface == Surface::Api) {
            let found = operations.iter().filter(|operation| describes(operation, route)).count();
            assert_eq!(found, 1, "{} {}: say in operations.rs what it takes and answers", route.method, route.path);
        }
        for operation in &operations {
            let is_there = routes.iter().any(|route| describes(operation, route));
            assert!(is_there, "{} {} is no route any more", operation.method, operation.path);
        }
        let mut ids: Vec<&str> = operations.iter().map(|operation| operation.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), operations.len(), "two operations have one name");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        let pointer = target.strip_prefix('#').expect("of this document");
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    map.values().for_each(|inner| walk(inner, document));
                }
                Value::Array(items) => items.iter().for_each(|inner| walk(inner, document)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = whole();
        walk(&document, &document);
    }

    /// `FORGE_TEST_REWRITE=1 cargo test --release --workspace` writes the file anew; review what changed.
    #[test]
    fn the_contract_that_is_checked_in_is_the_one_that_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
        let expected = text();
        if std::env::var_os("FORGE_TEST_REWRITE").is_some() {
            std::fs::write(&path, expected).expect("written");
            return;
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "docs/reference/openapi.json is not what is served: run `FORGE_TEST_REWRITE=1 cargo test --release --workspace` and review it"
        );
    }
}
