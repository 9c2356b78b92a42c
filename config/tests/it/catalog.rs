//! A table in the place of the plugin host: the configuration never runs a plugin, it only asks.

use forge_config::meant::PluginKind;
use forge_config::{Digest, PluginCatalog, PluginFacts, Wants};
use serde_json::{Value, json};

/// What a component of the samples holds.
pub(crate) const COMPONENT: &[u8] = b"fake executor";

/// Plugins as in `testdata/config`: `shell` as it is built in, `levels` with stricter values, `notify` as a webhook target.
#[derive(Debug)]
pub(crate) struct FakeCatalog;

fn shell_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "script": { "type": "string", "minLength": 1 },
            "file": { "type": "string", "minLength": 1 },
            "interpreter": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$" },
            "arguments": { "type": "array", "items": { "type": "string" } }
        },
        "if": { "required": ["script"] },
        "then": {
            "properties": { "script": true, "interpreter": true, "arguments": true },
            "additionalProperties": false
        },
        "else": {
            "properties": { "file": true, "interpreter": true, "arguments": true },
            "required": ["file"],
            "additionalProperties": false
        }
    })
}

fn levels_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "level": { "enum": ["low", "high"] },
            "number": { "type": "integer", "maximum": 10 }
        },
        "oneOf": [{ "required": ["url"] }, { "required": ["host"] }]
    })
}

fn notify_config() -> Value {
    json!({
        "type": "object",
        "properties": { "url": { "type": "string" }, "token": { "type": "string" } },
        "additionalProperties": false
    })
}

fn facts(byte: u8, kind: PluginKind, params_schema: Option<Value>, config_schema: Option<Value>) -> PluginFacts {
    PluginFacts { sha256: Digest([byte; 32]), kind, params_schema, config_schema, wants: Wants::default() }
}

impl PluginCatalog for FakeCatalog {
    fn builtin_names(&self) -> Vec<String> {
        ["levels", "notify", "python", "shell"].map(str::to_owned).to_vec()
    }

    fn builtin(&self, name: &str) -> Option<Result<PluginFacts, String>> {
        let sender = json!({ "type": "object", "properties": { "sender": { "type": "string" } } });
        let endpoint = json!({ "type": "object", "properties": { "endpoint": { "type": "string" } } });
        match name {
            "shell" => Some(Ok(facts(1, PluginKind::Executor, Some(shell_params()), None))),
            "levels" => Some(Ok(facts(2, PluginKind::Executor, Some(levels_params()), Some(endpoint)))),
            "notify" => {
                let wants = Wants { hosts: vec!["chat.example.com".to_owned()], ..Wants::default() };
                Some(Ok(PluginFacts {
                    wants,
                    ..facts(3, PluginKind::WebhookTarget, Some(notify_config()), Some(sender))
                }))
            }
            "python" => Some(Err("it was built for another engine".to_owned())),
            _ => None,
        }
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        Digest([if bytes == COMPONENT { 7 } else { 9 }; 32])
    }

    fn inspect(&self, bytes: &[u8]) -> Result<PluginFacts, String> {
        match bytes {
            COMPONENT => Ok(facts(7, PluginKind::Executor, None, None)),
            _ => Err("it is no WebAssembly component".to_owned()),
        }
    }
}
