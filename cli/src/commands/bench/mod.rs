//! `forge bench`: what this machine reaches, measured from outside over the real protocol.
//!
//! Every measurement has a world of its own: a temporary folder, a daemon in a process of its own, and real runners or
//! simulated ones. Nothing of it reaches a daemon or a runner that works on this machine, and nothing of it stays.

mod claims;
mod config;
mod history;
mod idle;
mod logs;
mod machine;
mod parked;
mod process;
mod report;
mod samples;
mod simulated;
mod start;
mod throughput;
mod webhooks;
mod wire;
mod world;

use std::process::ExitCode;

use clap::ValueEnum as _;
use tokio_util::sync::CancellationToken;

use super::scratch;
use crate::args::{BenchArguments, BenchOutput, Measurement};
use crate::error::CliError;
use crate::printer::Printer;
use crate::runtime::{self, Signals};
use machine::Machine;
use report::{Measured, Report};

/// What every measurement is told.
struct Bench<'a> {
    printer: &'a Printer,
    tasks: Option<u32>,
    runners: Option<u32>,
    history: u64,
    log_mib: u32,
    /// How many descriptors this process may have.
    descriptors: u64,
}

impl Bench<'_> {
    /// Says what is under way.
    fn progress(&self, what: &str) {
        self.printer.aside(what);
    }
}

pub(crate) fn run(arguments: &BenchArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let descriptors = machine::raise_descriptor_limit();
    let BenchArguments { names, tasks, runners, history, log_mib, output } = arguments;
    let mut wanted = if names.is_empty() { Measurement::value_variants().to_vec() } else { names.clone() };
    wanted.sort_unstable();
    wanted.dedup();
    let bench = Bench { printer, tasks: *tasks, runners: *runners, history: *history, log_mib: *log_mib, descriptors };
    let report = runtime::run(runtime::server_threads(), until_interrupted(measure_all(&wanted, &bench)))?;
    match output {
        BenchOutput::Text => printer.data(&report.text()),
        BenchOutput::Json => printer.json(&report),
        BenchOutput::Markdown => printer.data(&report.markdown()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Does `work`, or drops it at the first signal, and with it every process and folder that it made.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let stop = CancellationToken::new();
    let signals = Signals::listen()?;
    tokio::select! {
        done = work => done,
        never = signals.forward(stop.clone(), stop.clone()) => match never {},
        () = stop.cancelled() => Err(CliError::failed("interrupted: nothing was measured to its end")),
    }
}

async fn measure_all(wanted: &[Measurement], bench: &Bench<'_>) -> Result<Report, CliError> {
    let folder = scratch::folder("forge-bench-")?;
    let machine = Machine::look(folder.path())?;
    drop(folder);
    let mut measurements = Vec::new();
    for measurement in wanted {
        let name = measurement.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        bench.printer.heading(&name);
        measurements.push(one(*measurement, bench).await?);
    }
    Ok(Report { version: env!("CARGO_PKG_VERSION"), machine, measurements })
}

async fn one(measurement: Measurement, bench: &Bench<'_>) -> Result<Measured, CliError> {
    match measurement {
        Measurement::Idle => idle::measure(bench).await,
        Measurement::Start => start::measure(bench).await,
        Measurement::Throughput => throughput::measure(bench).await,
        Measurement::Claims => claims::measure(bench).await,
        Measurement::Parked => parked::measure(bench).await,
        Measurement::Logs => logs::measure(bench).await,
        Measurement::History => history::measure(bench).await,
        Measurement::Config => config::measure(bench).await,
        Measurement::Webhooks => webhooks::measure(bench).await,
    }
}
