//! Shares with intervals, and areas under curves: samples are small, so no figure goes without its uncertainty.

use std::fmt;

/// `hits` of `all`, with its 95 % interval by Wilson.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) hits: usize,
    pub(super) all: usize,
}

impl Share {
    pub(super) fn count(values: impl IntoIterator<Item = bool>) -> Self {
        let mut share = Self { hits: 0, all: 0 };
        for value in values {
            share.hits += usize::from(value);
            share.all += 1;
        }
        share
    }

    pub(super) fn wilson(self) -> [f64; 2] {
        const Z: f64 = 1.959_964;
        let n = self.all.max(1) as f64;
        let p = self.hits as f64 / n;
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let over = 1.0 + Z * Z / n;
        [((middle - half) / over).max(0.0), ((middle + half) / over).min(1.0)]
    }
}

/// 95 % interval of a share whose cases come in groups that stand or fall together, in percent: a bootstrap over groups.
pub(super) fn grouped_percent<'a>(cases: impl IntoIterator<Item = (&'a str, bool)>) -> [f64; 2] {
    let mut groups = std::collections::BTreeMap::<&str, Share>::new();
    for (group, hit) in cases {
        let share = groups.entry(group).or_insert(Share { hits: 0, all: 0 });
        share.hits += usize::from(hit);
        share.all += 1;
    }
    let groups: Vec<Share> = groups.into_values().collect();
    let mut random = Random(0x5EED);
    let mut values: Vec<f64> = (0..2_000)
        .map(|_| {
            let drawn = random.resample(&groups);
            let (hits, all) = drawn.iter().fold((0, 0), |sum, share| (sum.0 + share.hits, sum.1 + share.all));
            100.0 * hits as f64 / all.max(1) as f64
        })
        .collect();
    values.sort_by(f64::total_cmp);
    [values[50], values[1_949]]
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all == 0 {
            return f.write_str("none to judge");
        }
        let [low, high] = self.wilson().map(|share| 100.0 * share);
        let percent = 100.0 * self.hits as f64 / self.all as f64;
        write!(f, "{} of {} = {percent:.0} % ({low:.0} to {high:.0})", self.hits, self.all)
    }
}

/// Area under the receiver's curve, with its 95 % interval.
#[derive(Debug, Clone)]
pub(super) struct Auroc {
    pub(super) good: Vec<f64>,
    pub(super) bad: Vec<f64>,
}

impl Auroc {
    /// The share of pairs in which the bad one scores more, ties half.
    pub(super) fn value(&self) -> f64 {
        let pairs = self.bad.iter().flat_map(|bad| self.good.iter().map(move |good| (bad, good)));
        let sum: f64 = pairs
            .map(|(bad, good)| match bad.total_cmp(good) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            })
            .sum();
        sum / (self.good.len() * self.bad.len()) as f64
    }

    /// Percentile bootstrap over recordings. Where all pairs are in order every resample is too, which is not certainty: then the
    /// lower end is that of a share of the smaller class.
    fn interval(&self) -> [f64; 2] {
        if self.value() == 1.0 {
            let all = self.good.len().min(self.bad.len());
            return [Share { hits: all, all }.wilson()[0], 1.0];
        }
        let mut random = Random(0x5EED);
        let mut values: Vec<f64> = (0..2_000)
            .map(|_| Self { good: random.resample(&self.good), bad: random.resample(&self.bad) }.value())
            .collect();
        values.sort_by(f64::total_cmp);
        [values[50], values[1_949]]
    }
}

impl fmt::Display for Auroc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.good.is_empty() || self.bad.is_empty() {
            return f.write_str("none to judge");
        }
        let [low, high] = self.interval();
        write!(
            f,
            "{:.3} ({low:.2} to {high:.2}) of {} good and {} bad",
            self.value(),
            self.good.len(),
            self.bad.len()
        )
    }
}

/// Rank correlation: 1 when both rise together throughout. Ties share their mean rank.
pub(super) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
        let mut ranks = vec![0.0; values.len()];
        for group in order.chunk_by(|i, j| values[*i] == values[*j]) {
            let below = order.partition_point(|i| values[*i] < values[group[0]]);
            for index in group {
                ranks[*index] = below as f64 + (group.len() - 1) as f64 / 2.0;
            }
        }
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let middle = (a.len() as f64 - 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - middle) * (y - middle)).sum::<f64>();
    sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt()
}

/// xorshift64*, of a fixed seed.
struct Random(u64);

impl Random {
    fn resample<T: Copy>(&mut self, values: &[T]) -> Vec<T> {
        let mut next = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
        };
        values.iter().map(|_| values[next() % values.len()]).collect()
    }
}

/// Events in so many hours, with the 95 % interval of a Poisson rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) count: usize,
    pub(super) hours: f64,
}

impl Rate {
    /// The expected count at which so many events or fewer have this probability.
    fn expected(count: usize, probability: f64) -> f64 {
        let cumulative = |mean: f64| {
            let mut term = (-mean).exp();
            let mut sum = term;
            for k in 1..=count {
                term *= mean / k as f64;
                sum += term;
            }
            sum
        };
        let (mut low, mut high) = (0.0, 10.0 * count as f64 + 20.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if cumulative(middle) > probability { low = middle } else { high = middle }
        }
        low
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = self.count.checked_sub(1).map_or(0.0, |below| Self::expected(below, 0.975));
        let high = Self::expected(self.count, 0.025);
        let [rate, low, high] = [self.count as f64, low, high].map(|count| count / self.hours);
        write!(f, "{rate:.1} an hour ({low:.1} to {high:.1}) in {:.2} h", self.hours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wilson_interval_is_the_published_one() {
        // 81 of 263, from R. G. Newcombe, Statistics in Medicine 17 (1998), table I: 0.2553 to 0.3662.
        let [low, high] = Share { hits: 81, all: 263 }.wilson();
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn groups_widen_an_interval() {
        let cases = |group: fn(usize) -> String| -> Vec<(String, bool)> {
            (0..80).map(|index| (group(index), index < 60)).collect()
        };
        let width = |cases: &[(String, bool)]| {
            let [low, high] = grouped_percent(cases.iter().map(|(group, hit)| (group.as_str(), *hit)));
            high - low
        };
        let alone = width(&cases(|index| index.to_string()));
        let in_tens = width(&cases(|index| (index / 10).to_string()));
        assert!((15.0..22.0).contains(&alone) && in_tens > 2.0 * alone, "{alone} {in_tens}");
    }

    #[test]
    fn an_area_counts_pairs_in_order() {
        let auroc = Auroc { good: vec![1.0, 2.0, 3.0], bad: vec![2.0, 4.0] };
        assert!((auroc.value() - 4.5 / 6.0).abs() < 1e-12);
        let perfect = Auroc { good: vec![1.0; 9], bad: vec![2.0; 5] };
        assert!(perfect.value() == 1.0 && perfect.interval()[0] < 0.6);
    }

    #[test]
    fn ranks_that_agree_correlate_fully_and_ties_share_theirs() {
        assert!((spearman(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[3.0, 2.0, 1.0], &[0.1, 0.2, 0.3]) + 1.0).abs() < 1e-12);
        // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
        assert!(
            (spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]) - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12
        );
    }

    #[test]
    fn a_rate_without_events_is_bounded_by_three_and_two_thirds() {
        assert!((Rate::expected(0, 0.025) - 3.689).abs() < 1e-3);
        assert!((Rate::expected(0, 0.05) - 2.996).abs() < 1e-3);
    }
}
