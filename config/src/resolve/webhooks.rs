//! Webhook targets: the plugin that tells them, what it is told, and the events; and the lists that name targets.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::meant;
use crate::name::Name;
use crate::resolve::parts::allowed;
use crate::resolve::plugins::ResolvedPlugin;
use crate::resolve::{each, or_default, reference};
use crate::schema;
use crate::secret::WEBHOOK_SECRETS;
use crate::suggest::list_of;
use crate::tree::{CheckOptions, Documents};
use crate::written::raw::RawTable;
use crate::written::reader::{Duration, Whole};
use crate::written::sheet::{At, Sheet, Span};
use crate::written::webhook::{Event, On, Webhook};

/// Defaults, each decided here only.
const RETRY_ATTEMPTS: i64 = 8;
const RETRY_DELAY_MS: u64 = 10_000;
const WAITING_AGAIN_MS: u64 = 10 * 60_000;

/// A shorter time would have a machine told to start that is starting.
const WAITING_AGAIN_MS_MIN: u64 = 1_000;

pub(super) fn webhooks(
    written: &Documents<Webhook>,
    plugins: &BTreeMap<Name, ResolvedPlugin>,
    options: &CheckOptions,
) -> BTreeMap<Name, Option<meant::Webhook>> {
    // The name is one that every project's name could be; the check of places keeps projects away from it.
    let owner = WEBHOOK_SECRETS.parse::<Name>().ok();
    each(written, |sheet, webhook| {
        let plugin = webhook.plugin.as_ref().and_then(|plugin| self::plugin(plugin, plugins, sheet));
        let events = events(webhook.events.as_ref(), sheet);
        let owner = owner.as_ref()?;
        let mut valid = true;
        if let Some(secret) = &webhook.secret {
            valid &= allowed(&secret.value.0, secret.span, "secret", owner, options, sheet);
        }
        let config = webhook.config.clone().unwrap_or_default();
        let mut config_secrets = BTreeMap::new();
        for (field, secret) in &config.value.secrets {
            valid &= allowed(&secret.value.0, secret.span, &format!("config.{field}"), owner, options, sheet);
            config_secrets.insert(field.clone(), secret.value.0.clone());
        }
        let table = webhook.config.as_ref().map(|at| At { value: at.value.table.clone(), span: at.span });
        let config = plugin.as_ref().and_then(|name| self::config(name, table.as_ref(), webhook, plugins, sheet));
        let retry = webhook.retry.clone().unwrap_or_default().value;
        let waiting_again_ms = or_default(webhook.waiting_again.clone(), Duration(WAITING_AGAIN_MS)).0;
        if let Some(written) = &webhook.waiting_again
            && waiting_again_ms < WAITING_AGAIN_MS_MIN
        {
            let hint = format!("write at least \"{}s\"", WAITING_AGAIN_MS_MIN / 1_000);
            sheet.error(written.span, Code::BadValue, "`waiting_again` is too short", Some(hint));
            return None;
        }
        Some(meant::Webhook {
            plugin: plugin?,
            events: events?,
            on: match or_default(webhook.on.clone(), On::Always) {
                On::Always => meant::On::Always,
                On::Failure => meant::On::Failure,
            },
            waiting_again_ms,
            config: config.filter(|_| valid)?,
            config_secrets,
            secret: webhook.secret.as_ref().map(|secret| secret.value.0.clone()),
            retry_attempts: or_default(retry.attempts, Whole(RETRY_ATTEMPTS)).count(),
            retry_delay_ms: or_default(retry.delay, Duration(RETRY_DELAY_MS)).0,
        })
    })
}

/// The plugin: one of the tree that is a webhook target.
fn plugin(written: &At<String>, plugins: &BTreeMap<Name, ResolvedPlugin>, sheet: &Sheet) -> Option<Name> {
    let name = reference("plugin", Some(written), plugins.keys(), "plugins/NAME.toml", sheet)??;
    let kind = |plugin: &ResolvedPlugin| plugin.facts.as_ref().map(|facts| facts.kind);
    match plugins.get(&name).and_then(kind) {
        Some(meant::PluginKind::Executor) => {
            let targets = plugins
                .iter()
                .filter(|(_, plugin)| kind(plugin) == Some(meant::PluginKind::WebhookTarget))
                .map(|(name, _)| name.as_str());
            let hint = format!("the webhook targets among the plugins are {}", list_of(targets));
            let message = format!("the plugin `{name}` is an executor and tells nobody of events");
            sheet.error(written.span, Code::WrongKind, message, Some(hint));
            None
        }
        // A plugin whose own file is wrong says so itself.
        Some(meant::PluginKind::WebhookTarget) | None => Some(name),
    }
}

fn config(
    plugin: &Name,
    table: Option<&At<RawTable>>,
    written: &Webhook,
    plugins: &BTreeMap<Name, ResolvedPlugin>,
    sheet: &Sheet,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let resolved = plugins.get(plugin)?;
    // Without the plugin's facts there is no schema, and the plugin's own file has the mistake.
    resolved.facts.as_ref()?;
    let span = table.map(|table| table.span).or(written.plugin.as_ref().map(|plugin| plugin.span));
    let subject = schema::Subject {
        name: "config",
        owner: plugin.as_str(),
        table,
        span: span.unwrap_or(Span::FILE),
        code: Code::PluginConfig,
    };
    schema::check(resolved.params_schema.as_ref(), subject, sheet)
}

fn events(written: Option<&At<Vec<At<Event>>>>, sheet: &Sheet) -> Option<Vec<meant::Event>> {
    let Some(written) = written else { return Some(meant::Event::ALL.to_vec()) };
    let mut events = Vec::new();
    for at in &written.value {
        let event = match at.value {
            Event::TaskQueued => meant::Event::TaskQueued,
            Event::TaskWaiting => meant::Event::TaskWaiting,
            Event::TaskStarted => meant::Event::TaskStarted,
            Event::TaskAwaitingApproval => meant::Event::TaskAwaitingApproval,
            Event::TaskFinished => meant::Event::TaskFinished,
            Event::RunnerOnline => meant::Event::RunnerOnline,
            Event::RunnerOffline => meant::Event::RunnerOffline,
            Event::RunnerIdle => meant::Event::RunnerIdle,
            Event::ConfigApplied => meant::Event::ConfigApplied,
            Event::ConfigFailed => meant::Event::ConfigFailed,
        };
        if events.contains(&event) {
            let message = format!("`{}` stands twice in `events`", event.as_str());
            sheet.warning(at.span, Code::Unused, message, None);
        } else {
            events.push(event);
        }
    }
    if written.value.is_empty() {
        let message = "`events` is empty: the target is told of nothing";
        let hint = "name events, or take the key out for all of them".to_owned();
        sheet.warning(written.span, Code::Unused, message, Some(hint));
    }
    Some(events)
}

/// The targets that an object names, each once.
pub(super) fn targets(
    written: Option<&At<Vec<At<String>>>>,
    webhooks: &Documents<Webhook>,
    sheet: &Sheet,
) -> Option<Vec<Name>> {
    let Some(written) = written else { return Some(Vec::new()) };
    let mut names: Vec<Name> = Vec::new();
    let mut valid = true;
    for at in &written.value {
        match reference("webhook target", Some(at), webhooks.keys(), "webhooks/NAME.toml", sheet).flatten() {
            None => valid = false,
            Some(name) if names.contains(&name) => {
                sheet.warning(at.span, Code::Unused, format!("`{name}` stands twice in `webhooks`"), None);
            }
            Some(name) => names.push(name),
        }
    }
    valid.then_some(names)
}
