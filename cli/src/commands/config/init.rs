//! `forge config init DIR`: a small tree that passes the check, with comments, and the schemas that editors read.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use forge_config::reference::TREE_KINDS;

use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// Where the schemas lie in a tree: in a dot folder, which is no part of the tree itself.
const SCHEMAS: &str = ".forge/schemas";

/// The files of a new tree. They are files here, too, so that a test reads what a user gets.
const SKELETON: &[(&str, &str)] = &[
    ("README.md", include_str!("skeleton/README.md")),
    ("plugins/shell.toml", include_str!("skeleton/plugins/shell.toml")),
    ("projects/demo/project.toml", include_str!("skeleton/projects/demo/project.toml")),
    ("projects/demo/environments/default.toml", include_str!("skeleton/projects/demo/environments/default.toml")),
    ("projects/demo/templates/hello.toml", include_str!("skeleton/projects/demo/templates/hello.toml")),
    ("runners/runner-1.toml", include_str!("skeleton/runners/runner-1.toml")),
];

pub(crate) fn run(directory: &Path, printer: &Printer) -> Result<ExitCode, CliError> {
    std::fs::create_dir_all(directory).map_err(|error| file_error("make the folder", directory, &error))?;
    let entries = std::fs::read_dir(directory).map_err(|error| file_error("read the folder", directory, &error))?;
    // A fresh repository is as good as an empty folder.
    if let Some(there) = entries.flatten().map(|entry| entry.file_name()).find(|name| name != ".git") {
        return Err(CliError::failed(format_args!(
            "{} is not empty: it holds {}",
            directory.display(),
            there.to_string_lossy()
        ))
        .hint("name a new folder; nothing is ever overwritten"));
    }
    for (path, text) in SKELETON {
        write_new(directory, path, text)?;
    }
    for kind in TREE_KINDS {
        let schema = serde_json::to_string_pretty(&kind.json_schema()).map_err(CliError::failed)?;
        write_new(directory, &format!("{SCHEMAS}/{}.json", kind.name), &format!("{schema}\n"))?;
    }
    // As `config check` counts: the README is beside the tree.
    let files = SKELETON.iter().filter(|(path, _)| path.ends_with(".toml")).count();
    printer.done(&format!("a tree of {files} files is in {}", directory.display()));
    printer.hint(&format!("check it with `forge config check {}`, and commit it", directory.display()));
    Ok(ExitCode::SUCCESS)
}

fn write_new(directory: &Path, relative: &str, text: &str) -> Result<(), CliError> {
    let path = directory.join(relative);
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes())
    });
    written.map_err(|error| file_error("write", &path, &error))
}
