//! How long to wait before the next try: exponential with full jitter, so that a thousand runners do not come back at once.
//! Pure: the randomness comes from a seed.

/// The shortest wait, in milliseconds.
const WAIT_MS_MIN: u64 = 200;

/// The longest wait, in milliseconds.
const WAIT_MS_MAX: u64 = 30_000;

/// Waits that grow while tries fail.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    seed: u64,
}

impl Backoff {
    /// Begins short; two seeds make two different series.
    pub(crate) fn new(seed: u64) -> Self {
        Self { failures: 0, seed }
    }

    /// A try succeeded: the next failure waits shortly again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A try failed: how long to wait, in milliseconds.
    pub(crate) fn next_ms(&mut self) -> u64 {
        let doubled = WAIT_MS_MIN.checked_shl(self.failures + 1).unwrap_or(WAIT_MS_MAX);
        let ceiling = doubled.min(WAIT_MS_MAX);
        self.failures = (self.failures + 1).min(16);
        WAIT_MS_MIN + self.random() % (ceiling - WAIT_MS_MIN + 1)
    }

    /// SplitMix64: good enough to keep runners apart.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_wait_lies_between_the_bounds(seed: u64, tries in 1_usize..200) {
            let mut backoff = Backoff::new(seed);
            for _ in 0..tries {
                let wait_ms = backoff.next_ms();
                prop_assert!((WAIT_MS_MIN..=WAIT_MS_MAX).contains(&wait_ms));
            }
            backoff.reset();
            prop_assert!(backoff.next_ms() <= 2 * WAIT_MS_MIN);
        }
    }
}
