//! The reference: every kind of file that people write, from the same declarations that read it. JSON Schemas for editors, pages for
//! people, and a page for each diagnostic. Nothing here is written twice, and a test compares what is checked in.

mod diagnostics;
mod json_schema;
mod markdown;

pub use diagnostics::{DiagnosticSample, diagnostic_page, diagnostics_index};

use serde_json::Value;

use crate::settings;
use crate::written::declare::Table;
use crate::written::reader::TableInfo;
use crate::written::{
    access, environment, integration, inventory, key, plugin, project, recipients, registration_token, repository,
    runner, schedule, template, webhook,
};

/// A kind of file that people write.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name, such as `template`; for the settings of a host the file's own.
    pub name: &'static str,
    /// Where such a file lies, with `<...>` for names that the user chooses.
    pub path: &'static str,
    info: fn() -> TableInfo,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).field("path", &self.path).finish()
    }
}

/// The kinds of the watched tree.
pub const TREE_KINDS: &[Kind] = &[
    Kind { name: "project", path: "projects/<project>/project.toml", info: project::Project::info },
    Kind { name: "template", path: "projects/<project>/templates/<template>.toml", info: template::Template::info },
    Kind {
        name: "inventory",
        path: "projects/<project>/inventories/<inventory>.toml",
        info: inventory::Inventory::info,
    },
    Kind {
        name: "environment",
        path: "projects/<project>/environments/<environment>.toml",
        info: environment::Environment::info,
    },
    Kind {
        name: "repository",
        path: "projects/<project>/repositories/<repository>.toml",
        info: repository::Repository::info,
    },
    Kind { name: "key", path: "projects/<project>/keys/<key>.toml", info: key::Key::info },
    Kind { name: "schedule", path: "projects/<project>/schedules/<schedule>.toml", info: schedule::Schedule::info },
    Kind {
        name: "integration",
        path: "projects/<project>/integrations/<integration>.toml",
        info: integration::Integration::info,
    },
    Kind { name: "runner", path: "runners/<runner>.toml", info: runner::Runner::info },
    Kind {
        name: "registration-token",
        path: "registration-tokens/<token>.toml",
        info: registration_token::RegistrationToken::info,
    },
    Kind { name: "plugin", path: "plugins/<plugin>.toml", info: plugin::Plugin::info },
    Kind { name: "webhook", path: "webhooks/<target>.toml", info: webhook::Webhook::info },
    Kind { name: "access", path: "access/<token>.toml", info: access::Access::info },
    Kind { name: "secrets", path: "secrets.toml", info: recipients::Recipients::info },
];

/// The settings that stand on a host and not in git.
pub const HOST_KINDS: &[Kind] = &[
    Kind { name: "forge.toml", path: "forge.toml", info: settings::daemon_info },
    Kind { name: "runner.toml", path: "runner.toml", info: settings::runner_info },
];

/// Every kind: those of the tree, then those of a host.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    TREE_KINDS.iter().chain(HOST_KINDS)
}

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    kinds().find(|kind| kind.name == name)
}

impl Kind {
    /// The JSON Schema (draft 7, which the editors' TOML plugins read).
    pub fn json_schema(&self) -> Value {
        json_schema::of(self.name, &(self.info)())
    }
}

/// The reference page of the watched tree.
pub fn tree_page() -> String {
    markdown::page(
        "The watched tree",
        "One object a file; the file's name is the object's name (`[a-z0-9][a-z0-9-]{0,62}`). Dotfiles, dot folders and files that are \
         not TOML are passed over. Durations are written as `\"500ms\"`, `\"30s\"`, `\"10m\"`, `\"2h\"` or `\"90d\"`, sizes as `\"64MiB\"`. A secret is \
         one of `{ age = \"...\" }`, `{ file = \"/path/on/the/daemons/host\" }`, `{ env = \"NAME\" }` and `{ credential = \"name\" }`: see \
         [secrets](../guides/secrets.md).\n\n\
         `forge config check DIR` checks a tree, `forge config schema KIND` prints the JSON Schema of a kind for an editor, and \
         [diagnostics](diagnostics/README.md) explains each mistake.",
        TREE_KINDS,
    )
}

/// The reference page of the settings of a host.
pub fn settings_page() -> String {
    markdown::page(
        "The settings of a host",
        "These files stand on a host and not in git. Each key has an environment variable, which wins over the file; an empty one says \
         nothing. An unknown key in a file is an error, and other `FORGE_` variables are passed over.",
        HOST_KINDS,
    )
}
