//! The recap by host, from the callback's JSON to what people read and machines get.

use std::collections::BTreeMap;

use forge_plugin::{Failure, Host, HostError};
use serde::{Deserialize, Serialize};

use crate::ground::RECAP_FILE;

/// How much of the recap is read at a time, in bytes.
const READ_BYTES: u32 = 1024 * 1024;

/// The most bytes of a recap; a host takes about a hundred.
const RECAP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most hosts that the summary names one by one, those in trouble before others: a task's summary is a page, not an archive.
const HOSTS_MAX: usize = 5_000;

/// The most bytes that they take in it as JSON: a result whose summary is longer than 512 KiB keeps nothing of it but the text.
const HOSTS_BYTES_MAX: usize = 384 * 1024;

/// How many hosts a line for people names.
const NAMES_MAX: usize = 5;

/// What the callback counted.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Recap {
    hosts: BTreeMap<String, Counts>,
    /// How many hosts are not named, when there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    hosts_left_out: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Counts {
    ok: u64,
    changed: u64,
    unreachable: u64,
    failed: u64,
    skipped: u64,
    rescued: u64,
    ignored: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Recap {
    /// What the callback left, or nothing: Ansible ended before it counted anything.
    pub(crate) fn take(host: &mut dyn Host) -> Result<Option<Self>, Failure> {
        let mut bytes = Vec::new();
        loop {
            match host.read(RECAP_FILE, bytes.len() as u64, READ_BYTES) {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => bytes.extend(piece),
                Err(HostError::NotFound(_)) if bytes.is_empty() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if bytes.len() > RECAP_BYTES_MAX {
                return Err(Failure::failed(format!("the recap of this run has more than {RECAP_BYTES_MAX} bytes")));
            }
        }
        let recap = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::failed(format!("the recap in {RECAP_FILE} is not what Forge's callback writes: {error}"))
        })?;
        Ok(Some(recap))
    }

    /// One line for people.
    pub(crate) fn text(&self) -> String {
        if self.hosts.is_empty() {
            return "no host matched".to_owned();
        }
        let sum = |count: fn(&Counts) -> u64| self.hosts.values().map(count).sum::<u64>();
        let mut text = format!(
            "{}: {} ok, {} changed, {} failed",
            counted(self.hosts.len()),
            sum(|host| host.ok),
            sum(|host| host.changed),
            sum(|host| host.failed)
        );
        for (count, word) in [(sum(|host| host.unreachable), "unreachable"), (sum(|host| host.rescued), "rescued")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    }

    /// Which hosts are in trouble, in words; nothing when none is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let named = |word: &str, is: fn(&Counts) -> bool| {
            let names: Vec<&str> =
                self.hosts.iter().filter(|(_, counts)| is(counts)).map(|(name, _)| name.as_str()).collect();
            let more = names.len().saturating_sub(NAMES_MAX);
            let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (!names.is_empty()).then(|| format!("{word}: {shown}{more}"))
        };
        let words =
            [named("failed", |counts| counts.failed > 0), named("unreachable", |counts| counts.unreachable > 0)];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What the summary holds: every host, or the first so many, those in trouble first.
    pub(crate) fn bounded(self) -> Self {
        let Self { hosts, hosts_left_out } = self;
        let mut order: Vec<(String, Counts)> = hosts.into_iter().collect();
        order.sort_by_key(|(_, counts)| counts.failed == 0 && counts.unreachable == 0);
        let mut bytes = 0_usize;
        let fitting = order.iter().take(HOSTS_MAX).take_while(|host| {
            bytes = bytes.saturating_add(serde_json::to_string(host).map_or(usize::MAX, |text| text.len()));
            bytes <= HOSTS_BYTES_MAX
        });
        let kept = fitting.count();
        let left_out = order.len() - kept;
        Self { hosts: order.into_iter().take(kept).collect(), hosts_left_out: hosts_left_out + left_out }
    }
}

fn counted(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recap(hosts: &[(&str, Counts)]) -> Recap {
        Recap { hosts: hosts.iter().map(|(name, counts)| ((*name).to_owned(), *counts)).collect(), hosts_left_out: 0 }
    }

    #[test]
    fn reads_as_people_say_it() {
        let well = Counts { ok: 3, changed: 1, ..Counts::default() };
        let failed = Counts { ok: 1, failed: 1, ..Counts::default() };
        let away = Counts { unreachable: 1, ..Counts::default() };
        assert_eq!(recap(&[]).text(), "no host matched");
        assert_eq!(recap(&[("a", well)]).text(), "1 host: 3 ok, 1 changed, 0 failed");
        assert_eq!(recap(&[("a", well)]).trouble(), None);
        let mixed = recap(&[("a", well), ("b", failed), ("c", away)]);
        assert_eq!(mixed.text(), "3 hosts: 4 ok, 1 changed, 1 failed, 1 unreachable");
        assert_eq!(mixed.trouble().as_deref(), Some("failed: b; unreachable: c"));
        let many: Vec<(String, Counts)> = (0..7).map(|index| (format!("web-{index}"), failed)).collect();
        let many: Vec<(&str, Counts)> = many.iter().map(|(name, counts)| (name.as_str(), *counts)).collect();
        let trouble = recap(&many).trouble().expect("seven failed");
        assert_eq!(trouble, "failed: web-0, web-1, web-2, web-3, web-4 and 2 more");
    }

    #[test]
    fn a_large_fleet_keeps_its_hosts_in_trouble() {
        let mut fleet = Recap::default();
        for index in 0..=HOSTS_MAX {
            fleet.hosts.insert(format!("a-{index}"), Counts { ok: 1, ..Counts::default() });
        }
        fleet.hosts.insert("z".to_owned(), Counts { failed: 1, ..Counts::default() });
        let all = fleet.hosts.len();
        let bounded = fleet.bounded();
        assert!(bounded.hosts.len() > 3_000 && bounded.hosts.len() + bounded.hosts_left_out == all);
        assert!(bounded.hosts.contains_key("z"));
    }

    #[test]
    fn a_fleet_with_long_names_still_fits() {
        let host = |index: usize| (format!("{index:04}-{}", "n".repeat(240)), Counts::default());
        let fleet = Recap { hosts: (0..HOSTS_MAX).map(host).collect(), hosts_left_out: 0 };
        let bounded = fleet.bounded();
        assert!(bounded.hosts_left_out > 0);
        assert!(serde_json::to_string(&bounded).expect("JSON").len() < 512 * 1024);
    }
}
