//! A webhook target for Forge: it tells a chat room what happened.

use forge_plugin::webhook::{Event, Request};
use forge_plugin::{Info, JsonSchema, WebhookTarget, schemars};
use serde::{Deserialize, Serialize};

/// Where it sends: the only host that the plugin asks for.
const HOST: &str = "chat.example.com";

/// A target's `[config]`. The doc comments become the descriptions in its schema, which the daemon checks the tree against:
/// `forge plugin check` shows it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The room
    #[schemars(length(min = 1))]
    room: String,
    /// What lets it speak there; a secret, of which the plugin sees a placeholder
    token: String,
}

/// What the room is told.
#[derive(Serialize)]
struct Message {
    text: String,
}

/// The plugin.
pub struct Plugin;

forge_plugin::export!(Plugin as WebhookTarget);

impl WebhookTarget for Plugin {
    fn describe() -> Info {
        Info::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
        .params::<Config>()
        .wants_hosts(&[HOST])
    }

    fn plan(event: &Event) -> Result<Vec<Request>, String> {
        let Config { room, token } = event.config()?;
        // Forge puts the secret where its placeholder stands, when it sends.
        let request = Request::post(format!("https://{HOST}/rooms/{room}"))
            .header("Authorization", format!("Bearer {token}"))
            .json(&Message {
                text: format!("{}: {}", event.kind, event.payload_json),
            })?;
        Ok(vec![request])
    }

    // What an answer means is decided as usual: `judge` would say otherwise.
}

#[cfg(test)]
mod tests {
    use forge_plugin::Pair;

    use super::*;

    fn event(config: &str) -> Event {
        Event {
            id: "1".to_owned(),
            kind: "task.finished".to_owned(),
            at_ms: 0,
            payload_json: "{}".to_owned(),
            config_json: config.to_owned(),
            plugin_config_json: "{}".to_owned(),
            attempt: 1,
        }
    }

    #[test]
    fn the_room_is_told_with_the_token_s_placeholder() {
        let planned = Plugin::plan(&event(
            r#"{ "room": "ops", "token": "{{secret:token:0}}" }"#,
        ))
        .expect("it is planned");
        let [request] = planned.as_slice() else {
            panic!("one request: {planned:?}")
        };
        assert_eq!(request.url, "https://chat.example.com/rooms/ops");
        assert!(
            request
                .headers
                .contains(&Pair::from(("Authorization", "Bearer {{secret:token:0}}")))
        );
        assert_eq!(request.body, br#"{"text":"task.finished: {}"}"#);
    }

    #[test]
    fn config_is_checked() {
        let error = Plugin::plan(&event(r#"{ "rom": "ops" }"#)).expect_err("there is no such key");
        assert!(error.contains("unknown field `rom`"), "{error}");
    }

    #[test]
    fn it_asks_for_its_host_alone() {
        assert_eq!(
            Plugin::describe().wants,
            Info::new("", "", "").wants_hosts(&[HOST]).wants
        );
    }
}
