//! `forge plugin new NAME`: a crate that builds, whose tests pass, and which holds the SDK of this Forge.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use forge_config::Name;

use super::sdk;
use crate::args::PluginTemplate;
use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// What the plugin's name replaces in a template's files.
const NAME: &str = "{{name}}";
/// What this Forge's version replaces.
const VERSION: &str = "{{version}}";

/// The files of a new crate by their path in it. They are files here, too, so that a test reads what an author gets.
const EXECUTOR: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/executor/Cargo.toml.in")),
    ("README.md", include_str!("template/executor/README.md")),
    ("src/lib.rs", include_str!("template/executor/src/lib.rs")),
    (".gitignore", include_str!("template/gitignore")),
    ("forge/README.md", include_str!("template/forge.md")),
];

const WEBHOOK: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/webhook/Cargo.toml.in")),
    ("README.md", include_str!("template/webhook/README.md")),
    ("src/lib.rs", include_str!("template/webhook/src/lib.rs")),
    (".gitignore", include_str!("template/gitignore")),
    ("forge/README.md", include_str!("template/forge.md")),
];

fn files(kind: PluginTemplate) -> &'static [(&'static str, &'static str)] {
    match kind {
        PluginTemplate::Executor => EXECUTOR,
        PluginTemplate::Webhook => WEBHOOK,
    }
}

pub(crate) fn run(name: &Name, kind: PluginTemplate, printer: &Printer) -> Result<ExitCode, CliError> {
    if name.as_str().starts_with(|first: char| first.is_ascii_digit()) {
        return Err(CliError::usage(format_args!("`{name}` begins with a digit, which no crate's name does"))
            .hint("write a name that begins with a letter"));
    }
    let Some(lock) = sdk::lock(name)? else {
        return Err(CliError::usage(format_args!("`{name}` is the name of a crate that the plugin itself needs"))
            .hint("write another name"));
    };
    let directory = Path::new(name.as_str());
    // `create_dir` and not `create_dir_all`: whoever makes the folder first has it.
    std::fs::create_dir(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::failed(format_args!("{name} is there already"))
            .hint("write another name, or go to another folder; nothing is ever overwritten"),
        _ => file_error("make the folder", directory, &error),
    })?;
    for (path, text) in files(kind) {
        let text = text.replace(NAME, name.as_str()).replace(VERSION, env!("CARGO_PKG_VERSION"));
        write_new(directory, path, &text)?;
    }
    write_new(directory, "Cargo.lock", &lock)?;
    write_new(directory, "forge/sdk/Cargo.toml", &sdk::manifest()?)?;
    for (path, text) in sdk::SOURCES {
        write_new(directory, &format!("forge/{path}"), text)?;
    }
    printer.done(&format!("the crate of a plugin is in {name}/, and the SDK that it is built with in {name}/forge/"));
    printer.hint(&format!("cd {name}; cargo test; forge plugin build; forge plugin check {name}.wasm"));
    Ok(ExitCode::SUCCESS)
}

fn write_new(directory: &Path, relative: &str, text: &str) -> Result<(), CliError> {
    let path = directory.join(relative);
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes())
    });
    written.map_err(|error| file_error("write", &path, &error))
}
