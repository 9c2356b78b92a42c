//! How often something took how long, or was how large: counted into fixed buckets without a lock, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds for what takes time, in microseconds: from a commit in memory to a long poll.
pub(crate) const MICROS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Bounds for how many operations share a commit.
pub(crate) const BATCH: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// Counts by upper bound.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: the last holds what is above all of them.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

/// What was counted at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Upper bound, and how many were at or below it; each holds those before it.
    pub(crate) buckets: Vec<(u64, u64)>,
    /// How many there were.
    pub(crate) count: u64,
    /// Their sum.
    pub(crate) sum: u64,
}

impl Histogram {
    /// Nothing is counted yet; `bounds` grow.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts one.
    pub(crate) fn count(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time in microseconds.
    pub(crate) fn time(&self, taken: Duration) {
        self.count(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was counted until now.
    pub(crate) fn counted(&self) -> Counted {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            buckets.extend(self.bounds.get(index).map(|bound| (*bound, count)));
        }
        Counted { buckets, count, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_those_before_it() {
        let histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 1_000] {
            histogram.count(value);
        }
        let counted = histogram.counted();
        assert_eq!(counted.buckets, [(1, 2), (10, 4), (100, 5)]);
        assert_eq!((counted.count, counted.sum), (6, 1_024));
    }
}
