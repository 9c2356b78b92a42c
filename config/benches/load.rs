//! How long a tree takes from its files to what it means, and again after one of its files changed: `cargo bench -p forge-config`.
//!
//! It measures and asserts nothing. `forge config check --timings DIR` says the same of a real folder, reading included.

use std::hint::black_box;
use std::time::{Duration, Instant};

use forge_config::meant::PluginKind;
use forge_config::{CheckOptions, Digest, Files, PluginCatalog, PluginFacts, Wants, check_tree, objects};
use serde_json::json;

/// How many templates the trees have.
const TEMPLATES: &[usize] = &[10, 1_000, 10_000];

/// How many templates a project has.
const TEMPLATES_PER_PROJECT: usize = 50;

/// How often each tree is measured; the median counts.
const ROUNDS: usize = 7;

/// Knows one executor, as the daemon does after the first look at it.
#[derive(Debug)]
struct Catalog;

impl PluginCatalog for Catalog {
    fn builtin_names(&self) -> Vec<String> {
        vec!["shell".to_owned()]
    }

    fn builtin(&self, name: &str) -> Option<Result<PluginFacts, String>> {
        let schema = json!({
            "type": "object",
            "properties": { "script": { "type": "string", "minLength": 1 } },
            "required": ["script"],
            "additionalProperties": false,
        });
        let facts = PluginFacts {
            sha256: Digest([1; 32]),
            kind: PluginKind::Executor,
            params_schema: Some(schema),
            config_schema: None,
            wants: Wants::default(),
        };
        (name == "shell").then_some(Ok(facts))
    }

    fn digest(&self, _bytes: &[u8]) -> Digest {
        Digest([1; 32])
    }

    fn inspect(&self, _bytes: &[u8]) -> Result<PluginFacts, String> {
        Err("the benchmark has no components".to_owned())
    }
}

fn template(timeout_minutes: usize) -> Vec<u8> {
    format!(
        "description = \"Rolls out\"\nexecutor = \"shell\"\ninventory = \"hosts\"\nenvironment = \"production\"\n\
         runner_tag = \"linux\"\ntimeout = \"{timeout_minutes}m\"\n[params]\nscript = '''\necho one\necho two\n'''\n\
         [survey.version]\ntype = \"string\"\nrequired = true\npattern = '^v[0-9]+$'\n"
    )
    .into_bytes()
}

fn tree(templates: usize) -> Files {
    let mut files = Files::new();
    let mut add = |path: String, text: &str| drop(files.insert(path, text.as_bytes().to_vec()));
    add("plugins/shell.toml".to_owned(), "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    add("runners/ny-1.toml".to_owned(), "tags = [\"linux\"]\n");
    for number in 0..templates {
        let project = format!("projects/p{}", number / TEMPLATES_PER_PROJECT);
        add(format!("{project}/project.toml"), "description = \"One of many\"\n");
        add(format!("{project}/inventories/hosts.toml"), "type = \"static\"\ncontent = \"localhost\"\n");
        add(format!("{project}/environments/production.toml"), "[env]\nA = \"b\"\n[secrets]\nC = { env = \"D\" }\n");
    }
    for number in 0..templates {
        let path = format!("projects/p{}/templates/t{number}.toml", number / TEMPLATES_PER_PROJECT);
        files.insert(path, template(30));
    }
    files
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed(work: impl Fn()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    });
    median(rounds.collect())
}

#[expect(clippy::print_stdout, reason = "a benchmark's result is its output")]
fn main() {
    println!("| templates | files | load | reload after one change | objects for a diff |");
    println!("|---|---|---|---|---|");
    for templates in TEMPLATES {
        let files = tree(*templates);
        let mut changed = files.clone();
        changed.insert("projects/p0/templates/t0.toml".to_owned(), template(45));
        let options = CheckOptions::default();
        let check = |files: &Files| drop(black_box(check_tree(files, &Catalog, &options)));
        let load = timed(|| check(&files));
        let reload = timed(|| check(&changed));
        let meant = check_tree(&files, &Catalog, &options).tree.unwrap_or_default();
        let form = timed(|| drop(black_box(objects(&meant))));
        println!("| {templates} | {} | {load:.1?} | {reload:.1?} | {form:.1?} |", files.len());
    }
}
