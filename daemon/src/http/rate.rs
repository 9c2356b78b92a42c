//! How much one access token may ask: so many requests a second in the long run, and five seconds' worth at once. A program that runs wild
//! with one token leaves the daemon to the others.
//!
//! A request is counted when it comes, however long its answer takes: a log that is followed is one. Runners and attempts are not counted;
//! their requests are as many as their work needs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use forge_config::Digest;

use super::limits;
use super::problem::Refusal;

/// What one request takes from a bucket: a thousandth flows in each millisecond for each request a second.
const REQUEST: u64 = 1_000;

/// Buckets by token.
#[derive(Debug)]
pub(crate) struct Rates {
    /// 0 is unlimited.
    per_second: u32,
    buckets: Mutex<HashMap<Digest, Bucket>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    level: u64,
    at_ms: u64,
}

impl Bucket {
    /// The bucket as it stands at a moment.
    fn at(self, now_ms: u64, per_second: u32) -> Self {
        let flowed = now_ms.saturating_sub(self.at_ms).saturating_mul(u64::from(per_second));
        Self { level: self.level.saturating_add(flowed).min(full(per_second)), at_ms: now_ms }
    }
}

fn full(per_second: u32) -> u64 {
    u64::from(per_second) * u64::from(limits::RATE_BURST_S) * REQUEST
}

impl Rates {
    /// So many requests a second for each token; 0 is unlimited.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    /// Takes a request from a token's bucket, or says in how many seconds there is one.
    pub(crate) fn take(&self, token: &Digest, now_ms: u64) -> Result<(), u64> {
        if self.per_second == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= limits::RATE_TOKENS_MAX && !buckets.contains_key(token) {
            // What has filled up again says nothing that a new one would not. There are as many others as the tree has tokens.
            buckets.retain(|_, bucket| bucket.at(now_ms, self.per_second).level < full(self.per_second));
            if buckets.len() >= limits::RATE_TOKENS_MAX {
                buckets.clear();
            }
        }
        let new = Bucket { level: full(self.per_second), at_ms: now_ms };
        let bucket = buckets.entry(*token).or_insert(new);
        *bucket = bucket.at(now_ms, self.per_second);
        match bucket.level.checked_sub(REQUEST) {
            Some(rest) => {
                bucket.level = rest;
                Ok(())
            }
            None => Err((REQUEST - bucket.level).div_ceil(u64::from(self.per_second)).div_ceil(1_000)),
        }
    }
}

/// The refusal of a token that asked too much.
pub(super) fn too_many(seconds: u64) -> Refusal {
    Refusal::new(429, forge_api::RATE_LIMITED, "Too many requests", "this token sent more requests than it may")
        .hint("repeat it after the time in Retry-After: nothing of it was done; `[limits] requests_per_second` in forge.toml says how many there may be")
        .retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Digest = Digest([1; 32]);
    const OTHER: Digest = Digest([2; 32]);

    #[test]
    fn a_token_may_ask_five_seconds_worth_at_once_and_its_rate_from_then_on() {
        let rates = Rates::new(2);
        for _ in 0..10 {
            assert_eq!(rates.take(&ONE, 0), Ok(()));
        }
        assert_eq!(rates.take(&ONE, 0), Err(1));
        assert_eq!(rates.take(&OTHER, 0), Ok(()), "another token has a bucket of its own");
        assert_eq!(rates.take(&ONE, 499), Err(1));
        assert_eq!(rates.take(&ONE, 500), Ok(()));
        assert_eq!(rates.take(&ONE, 500), Err(1));
        for _ in 0..10 {
            assert_eq!(rates.take(&ONE, 3_600_000), Ok(()), "it never holds more than at first");
        }
        assert_eq!(rates.take(&ONE, 3_600_000), Err(1));
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let rates = Rates::new(0);
        for _ in 0..10_000 {
            assert_eq!(rates.take(&ONE, 0), Ok(()));
        }
        assert!(rates.buckets.lock().expect("a lock").is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let rates = Rates::new(1);
        for number in 0..u32::try_from(limits::RATE_TOKENS_MAX).expect("small") + 10 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            assert_eq!(rates.take(&Digest(digest), 0), Ok(()));
        }
        assert!(rates.buckets.lock().expect("a lock").len() <= limits::RATE_TOKENS_MAX);
    }
}
