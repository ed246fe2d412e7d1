//! The few statistics a report needs. Medians and extremes: a noisy machine has outliers, and a mean would hide them.

use serde::Serialize;

/// The middle and the ends of a set of figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let min = figures.iter().copied().reduce(f64::min)?;
        let max = figures.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(figures)?, min, max })
    }
}

/// The middle figure, or the mean of the two in the middle; `None` of no figures.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

/// The median of the ratios of figures taken in the same round. Noise that lasts longer than one measurement hits
/// both figures of a round and cancels out, which the ratio of two medians would not give. `None` when either side
/// has no figures.
pub(crate) fn median_ratio(figures: &[f64], base: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = figures.iter().zip(base).map(|(figure, base)| figure / base).collect();
    median(&ratios)
}

/// The smallest figure that at least `percent` of all figures do not exceed (nearest rank). `sorted` is ascending;
/// `None` of no figures.
pub(crate) fn percentile<T: Copy + Ord>(sorted: &[T], percent: usize) -> Option<T> {
    debug_assert!(sorted.is_sorted());
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_spread_has_middle_and_ends() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[2.0, 8.0, 3.0]), Some(Spread { median: 3.0, min: 2.0, max: 8.0 }));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // A slow third round slows both: the ratio stays, while the ratio of the extremes would not.
        assert_eq!(median_ratio(&[10.0, 8.0, 2.0], &[5.0, 4.0, 1.0]), Some(2.0));
        assert_eq!(median_ratio(&[10.0], &[]), None);
    }

    #[test]
    fn percentiles_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&hundred, 100), Some(100));
        assert_eq!(percentile(&[7], 1), Some(7));
        assert_eq!(percentile::<u64>(&[], 50), None);
    }
}
