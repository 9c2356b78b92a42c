//! The machine that is measured: what it is, what processes on it use, and how long its disk takes to keep a promise.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::samples::Samples;
use crate::error::{CliError, file_error};

/// How many writes say how long the disk takes.
const DISK_WRITES: u32 = 50;

/// How many bytes each of them has.
const DISK_WRITE_BYTES: usize = 4096;

/// Linux counts the time of processes in hundredths of a second, whatever its own clock does.
const CPU_TICK_MS: u64 = 10;

/// What stands beside the numbers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cpus: usize,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
    /// How long a durable write of 4 KiB takes, in the median.
    pub(super) fdatasync_ms: f64,
}

impl Machine {
    /// Looks at this machine, and at the disk below `folder`.
    pub(super) fn look(folder: &Path) -> Result<Self, CliError> {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Self {
            processor: processors
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
                .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kib_of(&memory, "MemTotal:").unwrap_or_default() / 1024,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            fdatasync_ms: disk_promise(folder)?.percentile_ms(50),
        })
    }

    /// One line of it.
    pub(super) fn line(&self) -> String {
        let Self { processor, cpus, memory_mib, kernel, fdatasync_ms } = self;
        format!(
            "{processor}, {cpus} CPUs, {} GiB, Linux {kernel}, fdatasync of 4 KiB {fdatasync_ms:.2} ms",
            memory_mib.div_ceil(1024)
        )
    }
}

/// How long appended writes take until they are on the disk.
fn disk_promise(folder: &Path) -> Result<Samples, CliError> {
    let path = folder.join("disk");
    let failed = |error: std::io::Error| file_error("write", &path, &error);
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    let mut samples = Samples::default();
    for _ in 0..DISK_WRITES {
        let begin = Instant::now();
        file.write_all(&[0; DISK_WRITE_BYTES]).and_then(|()| file.sync_data()).map_err(failed)?;
        samples.add(begin.elapsed());
    }
    Ok(samples)
}

/// What a process holds in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// All its pages that are in memory, those that it shares included.
    pub(super) rss_kib: u64,
    /// The same with each shared page divided among those who share it.
    pub(super) pss_kib: u64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss_kib: self.rss_kib + other.rss_kib, pss_kib: self.pss_kib + other.pss_kib }
    }
}

impl Memory {
    pub(super) fn rss_mib(self) -> f64 {
        self.rss_kib as f64 / 1024.0
    }

    pub(super) fn pss_mib(self) -> f64 {
        self.pss_kib as f64 / 1024.0
    }
}

/// What a process holds in memory right now.
pub(super) fn memory_of(pid: u32) -> Result<Memory, CliError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|error| file_error("read", Path::new(&path), &error))?;
    let kib = |name: &str| {
        kib_of(&text, name).ok_or_else(|| CliError::failed(format_args!("{path} says nothing of {name} memory")))
    };
    Ok(Memory { rss_kib: kib("Rss:")?, pss_kib: kib("Pss:")? })
}

/// The number of KiB after a name at a line's begin.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The processes below a process, their names beside them.
pub(super) fn descendants(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()) {
                let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
                found.push((child, name.trim().to_owned()));
                open.push(child);
            }
        }
    }
    found
}

/// The processor time that a process has used, in steps of a hundredth of a second.
pub(super) fn cpu_time_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * CPU_TICK_MS)
}

/// Raises how many descriptors this process and its children may have to what the system allows; answers how many.
pub(super) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, wanted).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_proc_shows_it() {
        let own = std::process::id();
        let memory = memory_of(own).expect("our own");
        assert!(memory.pss_kib > 0 && memory.pss_kib <= memory.rss_kib, "{memory:?}");
        assert_eq!(kib_of("Rss:            2048 kB\nPss:\n", "Rss:"), Some(2048));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let found = descendants(own);
        child.kill().and_then(|()| child.wait()).expect("ended");
        assert!(found.iter().any(|(pid, _)| *pid == child.id()), "{found:?}");
    }
}
