//! What a runner measures of its machine, for people who look at `forge runners show`. What cannot be measured is 0.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forge_api::Health;

/// How long a measurement is good for: a busy runner asks for work hundreds of times a second, and people look once in a while.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Measures, or answers what was measured a moment ago; `folder` is where workspaces and spool lie.
pub(crate) fn measure(folder: &Path) -> Option<Health> {
    static LAST: Mutex<Option<(Instant, PathBuf, Option<Health>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, of, health)) = &*last
        && at.elapsed() < FRESH_FOR
        && of == folder
    {
        return *health;
    }
    let health = measure_now(folder);
    *last = Some((Instant::now(), folder.to_owned(), health));
    health
}

fn measure_now(folder: &Path) -> Option<Health> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(Health {
        load1: parse_load(&load),
        memory_bytes_free: parse_available(&memory),
        disk_bytes_free: disk_bytes_free(folder).unwrap_or(0),
        // The daemon's to say.
        clock_skew_ms: None,
    })
}

/// How much room there is where `folder` lies, in bytes; `None` where the system does not say.
pub(crate) fn disk_bytes_free(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// How many processes of this machine the kernel has ended so far since memory ran out; `None` where it does not say.
pub(crate) fn oom_kills() -> Option<u64> {
    parse_oom_kills(&std::fs::read_to_string("/proc/vmstat").ok()?)
}

/// Whether the kernel has ended more of them since.
pub(crate) fn has_more(before: Option<u64>, after: Option<u64>) -> bool {
    matches!((before, after), (Some(before), Some(after)) if after > before)
}

fn parse_oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

fn parse_load(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn parse_available(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|first| first.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert!((parse_load("0.52 0.58 0.59 1/597 1234") - 0.52).abs() < f64::EPSILON);
        assert_eq!(parse_available("MemTotal: 10 kB\nMemAvailable:    7 kB\n"), 7 * 1_024);
        assert_eq!(parse_available(""), 0);
        assert_eq!(parse_oom_kills("drop_slab 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse_oom_kills("oom_kill_disable 0\n"), None);
        assert!(has_more(Some(1), Some(2)) && !has_more(Some(2), Some(2)) && !has_more(None, Some(2)));
    }
}
