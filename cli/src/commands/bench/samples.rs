//! Percentiles of raw samples. Pure.

use std::time::Duration;

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Samples {
    micros: Vec<u64>,
}

impl Samples {
    /// Adds one.
    pub(super) fn add(&mut self, took: Duration) {
        self.micros.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds all of another's.
    pub(super) fn extend(&mut self, other: Self) {
        self.micros.extend(other.micros);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.micros.len()
    }

    /// The smallest sample that `percent` of all do not exceed, in milliseconds; 0 without samples.
    pub(super) fn percentile_ms(&self, percent: u64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let count = u64::try_from(sorted.len()).unwrap_or(u64::MAX);
        let rank = count.saturating_mul(percent).div_ceil(100).max(1);
        let index = usize::try_from(rank - 1).unwrap_or(usize::MAX);
        sorted.get(index).map_or(0.0, |micros| *micros as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile_ms(50), 0.0);
        for millis in (1..=200).rev() {
            samples.add(Duration::from_millis(millis));
        }
        let at = |percent| samples.percentile_ms(percent);
        assert_eq!((at(50), at(95), at(99), at(100)), (100.0, 190.0, 198.0, 200.0));
        let mut one = Samples::default();
        one.add(Duration::from_micros(1_500));
        assert_eq!((one.percentile_ms(1), one.percentile_ms(99)), (1.5, 1.5));
    }
}
