//! `forge plugin inspect FILE`: what lies in a component, for those who review one. Nothing of it runs.

use std::path::Path;
use std::process::ExitCode;

use forge_daemon::PluginExaminer;

use super::anatomy::{self, Anatomy};
use super::size_text;
use crate::args::OutputFormat;
use crate::error::CliError;
use crate::printer::{Printer, Table};

/// What WASM begins with.
const MAGIC: &[u8] = b"\0asm";

/// How much of it says whether it is a module or a component.
const HEADER_BYTES: usize = 8;

pub(crate) fn run(file: &Path, output: OutputFormat, printer: &Printer) -> Result<ExitCode, CliError> {
    let bytes = super::read(file)?;
    let anatomy = anatomy::read(&bytes).map_err(|error| {
        let path = file.display();
        if bytes.starts_with(MAGIC) && bytes.len() >= HEADER_BYTES {
            return CliError::failed(format_args!("{path} is WASM that cannot be read to its end: {error}"))
                .hint("most likely it was cut or changed after it was built: build it again, or copy it anew");
        }
        CliError::failed(format_args!("{path} is no WASM that can be read: {}", PluginExaminer::looks_like(&bytes)))
            .hint("name a component, such as plugins/NAME.wasm; `forge plugin build` makes one of a crate")
    })?;
    match output {
        OutputFormat::Json => printer.json(&anatomy),
        OutputFormat::Text => printer.data(&text(file, bytes.len() as u64, &anatomy)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(file: &Path, bytes: u64, anatomy: &Anatomy) -> String {
    let Anatomy { format, imports, exports, core_modules, components, memories, sections, custom_sections, producers } =
        anatomy;
    let mut parts = vec![format!(
        "{}: a {format} of {}; core modules: {core_modules}, components: {components}, memories: {memories}",
        file.display(),
        size_text(bytes),
    )];
    for (what, names) in [("exports", exports), ("imports", imports)] {
        let names = if names.is_empty() { "  nothing".to_owned() } else { format!("  {}", names.join("\n  ")) };
        parts.push(format!("{what}\n{names}"));
    }
    let mut table = Table::new(&["SECTION", "COUNT", "BYTES"]);
    let mut largest: Vec<_> = sections.iter().collect();
    largest.sort_by_key(|(_, sections)| std::cmp::Reverse(sections.bytes));
    for (name, sections) in largest {
        table.row([(*name).to_owned(), sections.count.to_string(), sections.bytes.to_string()]);
    }
    parts.push(table.draw());
    if !custom_sections.is_empty() {
        let mut table = Table::new(&["CUSTOM SECTION", "INSIDE", "BYTES"]);
        for custom in custom_sections {
            table.row([custom.name.clone(), custom.inside.clone(), custom.bytes.to_string()]);
        }
        parts.push(table.draw());
    }
    if !producers.is_empty() {
        let mut table = Table::new(&["MADE WITH", "NAME", "VERSION"]);
        for producer in producers {
            table.row([producer.field.clone(), producer.name.clone(), producer.version.clone()]);
        }
        parts.push(table.draw());
    }
    parts.join("\n\n")
}
