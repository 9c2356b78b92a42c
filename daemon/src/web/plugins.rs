//! The plugins of the tree: what each is, what it may do, what it asks for beyond that, and who uses it.

use axum::extract::State;
use forge_api::{PluginAccess, PluginRole, PluginSummary};
use maud::{Markup, html};

use super::layout::{Page, Place, Visitor};
use super::parts;
use crate::http::routes::Api;
use crate::plugins;

/// `GET /plugins`
pub(crate) async fn list(State(api): State<Api>, visitor: Visitor) -> Markup {
    let applied = api.config.borrow().clone();
    let plugins = plugins::summaries(&applied.tree, &api.catalog);
    let content = html! {
        div.head { div { h1 { "Plugins" } p { "Sandboxed components. Each may do what its file grants, and nothing else." } } }
        div id="plugins" data-live data-on="config" {
            @if plugins.is_empty() { section.panel { (parts::empty("The tree has none.")) } }
            div.grid { @for plugin in &plugins { (panel(plugin)) } }
        }
    };
    Page::new("Plugins", Place::Plugins, content).draw(&visitor)
}

fn panel(plugin: &PluginSummary) -> Markup {
    let kind = match plugin.kind {
        PluginRole::Executor => "executor",
        PluginRole::WebhookTarget => "webhook target",
    };
    let facts = [
        ("Source", Some(html! { code { (plugin.source) } })),
        ("Version", plugin.version.as_ref().map(parts::text)),
        ("SHA-256", Some(parts::short(&plugin.sha256))),
        ("May use", Some(access(&plugin.grants))),
        ("Not granted", (!is_empty(&plugin.not_granted)).then(|| access(&plugin.not_granted))),
        (
            "Limits",
            Some(
                html! { (parts::bytes(plugin.memory_bytes)) " of memory, " (parts::span(plugin.time_ms)) " of computing" },
            ),
        ),
        ("Used by", Some(users(plugin))),
    ];
    parts::panel(&plugin.name, html! { span.tag { (kind) } }, html! { div.body { (parts::facts(&facts)) } })
}

fn is_empty(access: &PluginAccess) -> bool {
    access.programs.is_empty() && access.hosts.is_empty() && access.env.is_empty()
}

fn access(access: &PluginAccess) -> Markup {
    html! {
        @if is_empty(access) { span.soft { "nothing beyond its workspace" } }
        @for (what, names) in [("programs", &access.programs), ("hosts", &access.hosts), ("variables", &access.env)] {
            @if !names.is_empty() { div { span.soft { (what) " " } @for name in names { span.tag { (name) } " " } } }
        }
    }
}

fn users(plugin: &PluginSummary) -> Markup {
    html! {
        @if plugin.used_by.is_empty() { span.soft { "nobody" } }
        @for user in &plugin.used_by {
            div { @match user.split_once('/') {
                Some((project, template)) => (parts::template_link(project, template)),
                None => (user),
            } }
        }
    }
}
