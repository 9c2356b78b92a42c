//! Arguments of `forge bench`.

use clap::{Args, ValueEnum};

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measurement {
    /// Memory of a daemon and a runner that have nothing to do
    Idle,
    /// From the trigger to the process's first instruction, one task after the other
    Start,
    /// Tasks a second that run `true`, on real runners
    Throughput,
    /// Claims with their ends a second, on simulated runners and without processes
    Claims,
    /// Many runners that wait for work: memory, and how fast others are answered meanwhile
    Parked,
    /// Bytes of logs a second, from simulated runners
    Logs,
    /// The same with a long history in the store
    History,
    /// From a write in the watched folder to the moment where it serves
    Config,
    /// Deliveries a second to a receiver of webhooks, through a plugin
    Webhooks,
}

/// How the results are written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchOutput {
    /// A table for people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// A table for a page such as docs/performance.md
    Markdown,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What to measure; all of it when nothing is named
    #[arg(value_enum, value_name = "NAME")]
    pub(crate) names: Vec<Measurement>,
    /// How many tasks each measurement runs, instead of its own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) tasks: Option<u32>,
    /// How many runners each measurement has, instead of its own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(crate) runners: Option<u32>,
    /// How many finished tasks `history` puts into the store
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) history: u64,
    /// How many MiB each log of `logs` has
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) log_mib: u32,
    /// How to write the results
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: BenchOutput,
}
