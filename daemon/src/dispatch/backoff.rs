//! When a delivery is tried again: each wait is twice the one before, a little more or less for each delivery, and never shorter than its
//! target asks for. Pure.

use ring::digest::{SHA256, digest};

/// The longest wait between two tries, but for one that a target asks for, in milliseconds.
const WAIT_MS_MAX: u64 = 3_600_000;

/// The longest wait that a target may ask for, in milliseconds.
const ASKED_MS_MAX: u64 = 24 * 3_600_000;

/// A wait is up to this part longer, by chance: what failed together is not tried again together.
const JITTER_PERCENT: u64 = 20;

/// `retry` of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// Tries after the first.
    pub(super) attempts: u32,
    /// The wait before the first of them, in milliseconds.
    pub(super) delay_ms: u64,
}

/// How long to wait after so many tries, in milliseconds; `None` when there is none left. `asked_ms` is what the target says.
pub(super) fn next_try_ms(retry: Retry, delivery: &str, tries: u32, asked_ms: Option<u64>) -> Option<u64> {
    if tries > retry.attempts {
        return None;
    }
    let doublings = tries.saturating_sub(1).min(u64::BITS - 1);
    let wait_ms = retry.delay_ms.saturating_mul(1 << doublings).min(WAIT_MS_MAX);
    let wait_ms = wait_ms + wait_ms.saturating_mul(chance_percent(delivery, tries) * JITTER_PERCENT) / 10_000;
    Some(wait_ms.max(asked_ms.unwrap_or_default().min(ASKED_MS_MAX)))
}

/// 0 to 99, the same for a delivery's same try each time: its id is random.
fn chance_percent(delivery: &str, tries: u32) -> u64 {
    let digest = digest(&SHA256, format!("{delivery} {tries}").as_bytes());
    u64::from(digest.as_ref().first().copied().unwrap_or_default()) * 100 / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { attempts: 8, delay_ms: 10_000 };

    #[test]
    fn waits_double_and_end() {
        for tries in 1..=8 {
            let least = 10_000_u64 << (tries - 1);
            let wait = next_try_ms(RETRY, "d1", tries, None).expect("there is another try");
            assert!((least..=least + least / 5).contains(&wait), "{tries}: {wait}");
        }
        assert_eq!(next_try_ms(RETRY, "d1", 9, None), None);
        assert_eq!(next_try_ms(Retry { attempts: 0, ..RETRY }, "d1", 1, None), None);
        let long = next_try_ms(Retry { attempts: 100, delay_ms: 10_000 }, "d1", 90, None).expect("one more");
        assert!((WAIT_MS_MAX..=WAIT_MS_MAX + WAIT_MS_MAX / 5).contains(&long), "{long}");
    }

    #[test]
    fn a_target_may_ask_for_more_and_not_for_less() {
        assert_eq!(next_try_ms(RETRY, "d1", 1, Some(90_000)), Some(90_000));
        assert!(next_try_ms(RETRY, "d1", 1, Some(1)).is_some_and(|wait| wait >= 10_000));
        assert_eq!(next_try_ms(RETRY, "d1", 1, Some(u64::MAX)), Some(ASKED_MS_MAX));
    }

    #[test]
    fn deliveries_that_failed_together_spread() {
        let waits: std::collections::BTreeSet<_> =
            (0..20).map(|number| next_try_ms(RETRY, &format!("d{number}"), 3, None)).collect();
        assert!(waits.len() > 5, "{waits:?}");
        assert_eq!(next_try_ms(RETRY, "d1", 3, None), next_try_ms(RETRY, "d1", 3, None));
    }
}
