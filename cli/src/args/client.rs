//! Arguments of what talks to a daemon over its API, and of `forge config check` and `forge token new`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How a command's result is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// How mistakes of a tree are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// Text for people, on stderr
    #[default]
    Text,
    /// One JSON document
    Json,
    /// Annotations of a pull request, as GitHub Actions reads them
    Github,
}

/// What a side of a comparison may be.
const DIFF_HELP: &str = "A side is a folder; a revision of the git repository around the current folder (main, HEAD~1), of which the \
                         part is taken that the current folder is, or another one with REVISION:FOLDER; or `live`, for what the daemon at \
                         FORGE_URL serves.";

/// The kinds of files that have a schema.
fn kind_names() -> clap::builder::PossibleValuesParser {
    forge_config::reference::kinds().map(|kind| kind.name).collect::<Vec<_>>().into()
}

/// Which daemon, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The daemon's URL
    #[arg(long, value_name = "URL", env = "FORGE_URL")]
    pub(crate) url: Option<String>,
    /// An access token; the variable keeps it out of the process list
    #[arg(long, value_name = "TOKEN", env = "FORGE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The CA's certificate, for a self-made one
    #[arg(long, value_name = "FILE", env = "FORGE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// One `--var NAME=VALUE`; `@FILE` and `@-` read the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl std::str::FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            Some(_) | None => Err(format!("{text:?} is not of the form NAME=VALUE, as in version=v42")),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The template to run, as PROJECT/TEMPLATE
    #[arg(value_name = "PROJECT/TEMPLATE")]
    pub(crate) template: String,
    /// Answer a question of the survey; =@FILE and =@- read the answer
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<Variable>,
    /// Append an argument, where the template allows it
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
    /// Print the task that was created and leave
    #[arg(long)]
    pub(crate) detach: bool,
    /// How to write the task; with json the log goes to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct ListTasks {
    /// Only this project's
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Only this template's
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// Only those in this state
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) at: Ask,
}

/// How to ask a daemon and write its answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Ask {
    /// How to write the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct OneTask {
    /// The task's number
    #[arg(value_name = "N")]
    pub(crate) number: u64,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks, newest first
    List(ListTasks),
    /// Show one task
    Show(OneTask),
    /// Print a task's log
    Log {
        /// The task's number
        #[arg(value_name = "N")]
        number: u64,
        /// Go on until the task ends
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// End a task and every process of it
    Cancel(OneTask),
    /// Run a finished task again, at the same commit and revision
    Retry(RetryTask),
    /// Say why a task is where it is
    Why(OneTask),
    /// Have a task go on with exactly what it has planned
    Approve(DecideTask),
    /// End a task without doing what it has planned
    Reject(DecideTask),
}

#[derive(Debug, Args)]
pub(crate) struct RetryTask {
    #[command(flatten)]
    pub(crate) one: OneTask,
    /// Run it at once although its last attempt may still run, on a runner that was lost with it
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecideTask {
    #[command(flatten)]
    pub(crate) one: OneTask,
    /// Why, in words: it is logged, and stands in a rejected task's reason
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The attempt whose plan was looked at; refused when the task has planned anew since
    #[arg(long, value_name = "ATTEMPT")]
    pub(crate) attempt: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct OneRunner {
    /// The runner's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunnersCommand {
    /// List runners
    List(Ask),
    /// Show one runner
    Show(OneRunner),
    /// Let a runner finish what it has and give it nothing new
    Drain(OneRunner),
    /// Give a drained runner work again
    Resume(OneRunner),
    /// Forget a runner's registration: its token is refused from now on
    Remove(OneRunner),
}

#[derive(Debug, Args)]
pub(crate) struct OneIntegration {
    /// The integration, as PROJECT/NAME
    #[arg(value_name = "PROJECT/NAME")]
    pub(crate) integration: String,
    #[command(flatten)]
    pub(crate) at: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IntegrationCommand {
    /// List the newest requests to an integration, and why each did or did not start a task
    Log(OneIntegration),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// List schedules with their next firings and what the last one came to
    List(Ask),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a tree and show every mistake at once
    Check {
        /// The tree's root
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// On the daemon's own host: its settings, to check secrets against what it may read and decrypt
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to write the mistakes: text to stderr, json and github to stdout
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        output: CheckOutput,
        /// Say how long reading and checking took
        #[arg(long)]
        timings: bool,
    },
    /// Compare two trees, object by object; exits 3 when they differ
    #[command(after_help = DIFF_HELP)]
    Diff {
        /// The tree before: a folder, a git revision, or live
        #[arg(value_name = "A")]
        before: String,
        /// The tree after
        #[arg(value_name = "B")]
        after: String,
        /// On the daemon's own host: its settings, to check secrets against what it may read and decrypt
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        at: Ask,
    },
    /// Print the JSON Schema of a kind of file, for editors
    Schema {
        /// The kind, such as template, runner or forge.toml
        #[arg(value_name = "KIND", value_parser = kind_names())]
        kind: String,
    },
    /// Write a small tree with comments, and the schemas that editors read
    Init {
        /// A new or empty folder
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Have the newest revision applied now, and let it pass a guard where you name it
    Apply {
        /// The revision that may remove more than half of a kind's objects, or every runner
        #[arg(long, value_name = "REV")]
        prune: Option<String>,
        /// The commit that may follow without descending from the one that serves
        #[arg(long, value_name = "REV")]
        accept_rewrite: Option<String>,
        #[command(flatten)]
        at: Ask,
    },
    /// Show the revision that serves, and why a newer one does not
    Status {
        /// On the daemon's own host: its settings, instead of a URL and a token
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        at: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token, and the hash to commit for it
    New {
        /// What the token is for: it shows in its first letters and nowhere else
        #[arg(long, value_enum, value_name = "KIND", default_value_t)]
        kind: TokenFor,
        /// How to write them
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        output: OutputFormat,
    },
    /// Refuse a token from now on, by its hash, whatever the state of the tree
    Revoke {
        /// The hash, as it stands in access/NAME.toml or registration-tokens/NAME.toml
        #[arg(value_name = "HASH")]
        hash: String,
        /// On the daemon's own host: its settings, instead of a URL and a token
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        at: Ask,
    },
}

/// What a new token is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenFor {
    /// People and programs: its hash goes into access/NAME.toml
    #[default]
    Access,
    /// Registering runners: its hash goes into registration-tokens/NAME.toml
    Registration,
}
