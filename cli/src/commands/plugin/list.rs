//! `forge plugin list`: the plugins that come with Forge; with a tree, those that it names, and whether it grants what they ask for.

use std::path::Path;
use std::process::ExitCode;

use forge_config::meant::{Plugin, PluginSource};
use forge_daemon::{ExaminedPlugin, PluginWords};
use serde::Serialize;
use serde_json::Value;

use super::check::Wants;
use super::kind_word;
use crate::args::OutputFormat;
use crate::error::{CliError, file_error};
use crate::printer::{Printer, Table};

/// How much of a digest a table shows.
const DIGEST_CHARS: usize = 12;

/// A built-in plugin.
#[derive(Serialize)]
struct Builtin<'a> {
    name: &'a str,
    kind: Option<&'static str>,
    version: &'a str,
    summary: &'a str,
    sha256: String,
    wants: Wants<'a>,
    params_schema: Option<&'a Value>,
    config_schema: Option<&'a Value>,
}

/// A plugin of a tree.
#[derive(Serialize)]
struct OfTree {
    name: String,
    kind: &'static str,
    source: String,
    version: String,
    sha256: String,
    granted: Granted,
    /// What it asks for and does not get.
    not_granted: Vec<String>,
}

#[derive(Serialize)]
struct Granted {
    programs: Vec<String>,
    env: Vec<String>,
    hosts: Vec<String>,
}

pub(crate) fn run(directory: Option<&Path>, output: OutputFormat, printer: &Printer) -> Result<ExitCode, CliError> {
    let builtins = super::examiner()?.builtins();
    match directory {
        None => show_builtins(&builtins, output, printer),
        Some(directory) => show_tree(directory, &builtins, output, printer)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show_builtins(builtins: &[(&'static str, ExaminedPlugin)], output: OutputFormat, printer: &Printer) {
    let described: Vec<Builtin<'_>> = builtins
        .iter()
        .filter_map(|(name, examined)| {
            let words = examined.words.as_ref()?;
            Some(Builtin {
                name,
                kind: examined.kind.map(kind_word),
                version: &words.version,
                summary: &words.summary,
                sha256: examined.sha256.hex(),
                wants: Wants::of(words),
                params_schema: words.params_schema.as_ref(),
                config_schema: words.config_schema.as_ref(),
            })
        })
        .collect();
    if output == OutputFormat::Json {
        printer.json(&described);
        return;
    }
    let mut table = Table::new(&["SOURCE", "KIND", "VERSION", "KEYS OF [params]", "ASKS FOR", "WHAT IT DOES"]);
    for builtin in &described {
        let keys: Vec<&str> = builtin
            .params_schema
            .and_then(|schema| schema.get("properties"))
            .and_then(Value::as_object)
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default();
        table.row([
            format!("builtin:{}", builtin.name),
            builtin.kind.unwrap_or_default().to_owned(),
            builtin.version.to_owned(),
            keys.join(","),
            builtin.wants.text(),
            builtin.summary.to_owned(),
        ]);
    }
    printer.data(&table.draw());
}

fn show_tree(
    directory: &Path,
    builtins: &[(&'static str, ExaminedPlugin)],
    output: OutputFormat,
    printer: &Printer,
) -> Result<(), CliError> {
    std::fs::read_dir(directory).map_err(|error| file_error("read the folder", directory, &error))?;
    let report = forge_daemon::check_folder(directory, None).map_err(CliError::failed)?;
    let Some(tree) = report.tree else {
        return Err(CliError::failed(format_args!("the tree {} has mistakes", directory.display()))
            .hint(format_args!("`forge config check {}` shows them", directory.display())));
    };
    let mut rows = Vec::new();
    for plugin in tree.plugins.values() {
        let (source, words) = match &plugin.source {
            PluginSource::Builtin(name) => {
                let known = builtins.iter().find(|(builtin, _)| builtin == name);
                (format!("builtin:{name}"), known.and_then(|(_, examined)| examined.words.clone()))
            }
            PluginSource::File(path) => {
                let bytes = super::read(&directory.join(path))?;
                (path.clone(), super::examiner()?.examine(&bytes).words)
            }
        };
        rows.push(OfTree {
            name: plugin.name.to_string(),
            kind: kind_word(plugin.kind),
            source,
            version: words.as_ref().map(|words| words.version.clone()).unwrap_or_default(),
            sha256: plugin.sha256.hex(),
            not_granted: words.as_ref().map(|words| not_granted(plugin, words)).unwrap_or_default(),
            granted: Granted {
                programs: plugin.programs.clone(),
                env: plugin.env.clone(),
                hosts: plugin.hosts.clone(),
            },
        });
    }
    if output == OutputFormat::Json {
        printer.json(&rows);
        return Ok(());
    }
    let mut table =
        Table::new(&["NAME", "KIND", "SOURCE", "VERSION", "SHA256", "GRANTED BY [allow]", "ASKED FOR, NOT GRANTED"]);
    for row in rows {
        let Granted { programs, env, hosts } = &row.granted;
        table.row([
            row.name,
            row.kind.to_owned(),
            row.source,
            row.version,
            row.sha256.chars().take(DIGEST_CHARS).collect(),
            one_of(
                &[programs, env, hosts]
                    .map(|names| names.join(","))
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            one_of(&row.not_granted.join(",")),
        ]);
    }
    printer.data(&table.draw());
    Ok(())
}

fn one_of(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn not_granted(plugin: &Plugin, words: &PluginWords) -> Vec<String> {
    let lists = [(&words.programs, &plugin.programs), (&words.env, &plugin.env), (&words.hosts, &plugin.hosts)];
    let lacking = lists.into_iter().flat_map(|(wanted, granted)| wanted.iter().filter(|name| !granted.contains(name)));
    lacking.cloned().collect()
}
