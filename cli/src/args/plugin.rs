//! Arguments of `forge plugin`: what plugin authors use, and those who review what they wrote.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use forge_config::Name;

use super::OutputFormat;

/// What a new plugin is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginTemplate {
    /// Runs jobs, on a runner
    #[default]
    Executor,
    /// Plans webhook requests, in the daemon
    Webhook,
}

/// How `forge plugin check` writes what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginOutput {
    /// Text for people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// What plugins/NAME.toml holds when everything that it asks for is granted
    Toml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Write a crate that builds, with tests, and the SDK of this Forge in it
    New {
        /// The plugin's name, and that of the new folder
        #[arg(value_name = "NAME")]
        name: Name,
        /// What it is to be
        #[arg(long, value_enum, value_name = "KIND", default_value_t)]
        kind: PluginTemplate,
    },
    /// Build a plugin's crate to NAME.wasm, a component that a tree can hold
    Build {
        /// The crate's folder
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Write the component to this file instead
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Load a component as the daemon would, and show what it says of itself and what to grant it
    Check {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How to write what was found
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        output: PluginOutput,
    },
    /// Show what is inside of a component: imports, exports, sections, producers
    Inspect {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How to write it
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        output: OutputFormat,
    },
    /// List the plugins that are built in, or those of a tree and what they are granted
    List {
        /// A tree's root
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
        /// How to write the list
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        output: OutputFormat,
    },
}
