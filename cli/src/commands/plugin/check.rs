//! `forge plugin check FILE`: what the daemon would say of a component, and the TOML that grants what it asks for.

use std::path::Path;
use std::process::ExitCode;

use forge_config::Name;
use forge_daemon::{ExaminedPlugin, PluginWords};
use serde::Serialize;
use serde_json::Value;

use super::anatomy;
use super::{kind_word, size_text};
use crate::args::PluginOutput;
use crate::error::CliError;
use crate::printer::{Printer, Table};

/// What `--output json` says.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    kind: Option<&'static str>,
    name: Option<&'a str>,
    version: Option<&'a str>,
    summary: Option<&'a str>,
    imports: &'a [String],
    exports: &'a [String],
    wants: Option<Wants<'a>>,
    params_schema: Option<&'a Value>,
    config_schema: Option<&'a Value>,
    bytes: usize,
    sha256: String,
    compile_ms: u128,
    /// The text of `plugins/NAME.toml`.
    toml: Option<String>,
    mistakes: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Wants<'a> {
    programs: &'a [String],
    env: &'a [String],
    hosts: &'a [String],
}

impl<'a> Wants<'a> {
    pub(super) fn of(words: &'a PluginWords) -> Self {
        Self { programs: &words.programs, env: &words.env, hosts: &words.hosts }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        let parts: Vec<String> = self.lists().map(|(key, names)| format!("{key}: {}", names.join(", "))).collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }

    /// By the key of `[allow]`, without those that are empty.
    fn lists(&self) -> impl Iterator<Item = (&'static str, &'a [String])> {
        [("programs", self.programs), ("env", self.env), ("hosts", self.hosts)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
    }
}

pub(crate) fn run(file: &Path, output: PluginOutput, printer: &Printer) -> Result<ExitCode, CliError> {
    let bytes = super::read(file)?;
    let examined = super::examiner()?.examine(&bytes);
    // What cannot be read has no imports to show; why it cannot be loaded stands among the mistakes.
    let anatomy = anatomy::read(&bytes).unwrap_or_default();
    let ExaminedPlugin { sha256, bytes, compiling, kind, words, mistakes } = &examined;
    let toml = words.as_ref().map(|words| toml(&name(file, words), words, &sha256.hex()));
    match output {
        PluginOutput::Json => {
            let words = words.as_ref();
            printer.json(&Report {
                file: file.display().to_string(),
                kind: kind.map(kind_word),
                name: words.map(|words| words.name.as_str()),
                version: words.map(|words| words.version.as_str()),
                summary: words.map(|words| words.summary.as_str()),
                imports: &anatomy.imports,
                exports: &anatomy.exports,
                wants: words.map(Wants::of),
                params_schema: words.and_then(|words| words.params_schema.as_ref()),
                config_schema: words.and_then(|words| words.config_schema.as_ref()),
                bytes: *bytes,
                sha256: sha256.hex(),
                compile_ms: compiling.as_millis(),
                toml,
                mistakes,
            });
        }
        PluginOutput::Toml => printer.data_bytes(toml.unwrap_or_default().as_bytes()),
        PluginOutput::Text => {
            if let (Some(words), Some(toml)) = (words, toml) {
                printer.data(&text(file, &examined, words, &anatomy.imports));
                let name = name(file, words);
                printer.data(&format!("\nplugins/{name}.toml, when you have reviewed it:\n\n{}", toml.trim_end()));
            }
        }
    }
    if output != PluginOutput::Json {
        for mistake in mistakes {
            printer.error(&format!("{}: {mistake}", file.display()));
        }
    }
    Ok(if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plugin's name in a tree: its own where that is one, else the file's.
fn name(file: &Path, words: &PluginWords) -> String {
    let own = words.name.parse::<Name>().ok();
    let of_file = || Name::nearest_to(&file.file_stem()?.to_string_lossy());
    own.or_else(of_file).map_or_else(|| "plugin".to_owned(), |name| name.to_string())
}

/// What to commit: the digest, and what it wants granted.
fn toml(name: &str, words: &PluginWords, sha256: &str) -> String {
    let mut text = format!("source = \"plugins/{name}.wasm\"\nsha256 = \"{sha256}\"\n");
    let mut head = "\n[allow]\n";
    for (key, names) in Wants::of(words).lists() {
        let list = toml::Value::from(names.to_vec());
        text.push_str(&format!("{head}{key} = {list}\n"));
        head = "";
    }
    text
}

fn text(file: &Path, examined: &ExaminedPlugin, words: &PluginWords, imports: &[String]) -> String {
    let mut table = Table::default();
    let mut row = |key: &str, value: String| table.row([format!("  {key}"), value]);
    row("name", words.name.clone());
    row("version", words.version.clone());
    row("summary", words.summary.clone());
    row("wants", Wants::of(words).text());
    row("imports", if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") });
    let size = size_text(examined.bytes as u64);
    row("size", format!("{size}, compiled in {} ms", examined.compiling.as_millis()));
    row("sha256", examined.sha256.hex());
    let mut lines = vec![format!("{} is {}", file.display(), a_kind(examined)), table.draw()];
    for (name, schema) in [("params", &words.params_schema), ("config", &words.config_schema)] {
        lines.push(match schema {
            Some(schema) => format!("\n[{name}]\n{}", keys(schema)),
            None => format!("\n[{name}]\n  it takes none"),
        });
    }
    lines.join("\n")
}

fn a_kind(examined: &ExaminedPlugin) -> String {
    match examined.kind.map(kind_word) {
        Some(word) => format!("{} {word}", if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }),
        None => "of no kind".to_owned(),
    }
}

/// The keys of a schema, one a line.
pub(super) fn keys(schema: &Value) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let mut table = Table::default();
    for (key, part) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let is_required = required.is_some_and(|required| required.iter().any(|name| name == key));
        let kind = kind_of(part);
        let note = match (is_required, part.get("default")) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("default {default}"),
            (false, None) => "optional".to_owned(),
        };
        let description = part.get("description").and_then(Value::as_str).unwrap_or_default();
        table.row([format!("  {key}"), kind, note, description.to_owned()]);
    }
    let drawn = table.draw();
    if drawn.is_empty() { "  what its schema says; --output json shows it".to_owned() } else { drawn }
}

/// What a key may be: its values where they are counted, else its type.
fn kind_of(part: &Value) -> String {
    let list = |key: &str| part.get(key).and_then(Value::as_array).into_iter().flatten();
    let forms = list("oneOf").filter_map(|form| form.get("const"));
    let values: Vec<&str> = list("enum").chain(forms).filter_map(Value::as_str).collect();
    if !values.is_empty() {
        return values.join(" | ");
    }
    match part.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any of its forms".to_owned(),
    }
}
