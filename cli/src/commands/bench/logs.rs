//! `logs`: how many bytes of logs a second the daemon takes, several runners at a time, until each log is whole and on disk.

use std::time::Instant;

use bytes::Bytes;
use forge_api::LOG_CHUNK_BYTES_MAX;
use ring::digest::{Context, SHA256};
use tokio::task::JoinSet;

use super::Bench;
use super::machine;
use super::report::{Aim, Measured, Unit};
use super::simulated::{Held, Simulated};
use super::world::{NOTHING, World, all};
use crate::error::CliError;

/// How many runners send at a time.
const RUNNERS: u32 = 8;

/// What should be reached, in MB a second.
const MEGABYTES_PER_SECOND_MIN: f64 = 300.0;

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// What every runner sends: the same piece again and again.
#[derive(Clone)]
struct Log {
    piece: Bytes,
    pieces: u64,
    sha256: String,
}

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let runners = bench.runners.unwrap_or(RUNNERS);
    let log = Log::of(u64::from(bench.log_mib) * MIB);
    let world = World::start().await?;
    world.create_tasks(NOTHING, runners).await?;
    let registered = world.simulated("logs", runners).await?;
    let mut claiming = JoinSet::new();
    for mut runner in registered {
        claiming.spawn(async move {
            let held = runner.claim(1).await?.pop();
            let held = held.ok_or_else(|| CliError::failed("a claim was not answered with a task that waits"))?;
            runner.start(&held).await?;
            Ok((runner, held))
        });
    }
    let claimed = all(claiming).await?;
    let daemon = machine::cpu_time_of(world.daemon_pid());
    let begin = Instant::now();
    let mut sending = JoinSet::new();
    for (runner, held) in claimed {
        sending.spawn(send(runner, held, log.clone()));
    }
    let sent: u64 = all(sending).await?.into_iter().sum();
    let took = begin.elapsed().as_secs_f64();
    let daemon = machine::cpu_time_of(world.daemon_pid()).saturating_sub(daemon).as_secs_f64();
    world.wait_succeeded(u64::from(runners)).await?;
    let mut measured = Measured::new(
        "logs",
        format!(
            "{runners} simulated runners send logs of {} MiB each in pieces of 1 MiB, until every log is whole and synced",
            bench.log_mib
        ),
    );
    let megabytes = sent as f64 / 1e6;
    measured.value("ingest", "log ingest", megabytes / took, Unit::MegabytesPerSecond);
    measured.aim(Aim::AtLeast(MEGABYTES_PER_SECOND_MIN));
    measured.value("sent_mib", "sent in all", sent as f64 / MIB as f64, Unit::Mebibytes);
    measured.value("daemon_cpu_per_mb", "processor time of the daemon a MB", daemon * 1e6 / megabytes, Unit::Micros);
    Ok(measured)
}

impl Log {
    fn of(bytes: u64) -> Self {
        let piece: Vec<u8> = b"a line of a log as a program prints it, with 64 bytes in all....\n"
            .iter()
            .copied()
            .cycle()
            .take(LOG_CHUNK_BYTES_MAX)
            .collect();
        let pieces = bytes.div_ceil(piece.len() as u64);
        let mut hash = Context::new(&SHA256);
        for _ in 0..pieces {
            hash.update(&piece);
        }
        let sha256 = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { piece: Bytes::from(piece), pieces, sha256 }
    }
}

/// Sends a whole log and ends the attempt; answers how many bytes were taken.
async fn send(mut runner: Simulated, held: Held, log: Log) -> Result<u64, CliError> {
    let mut length = 0;
    for _ in 0..log.pieces {
        length = runner.append(&held, length, log.piece.clone()).await?.length;
    }
    runner.finish(held, length, &log.sha256).await?;
    Ok(length)
}
