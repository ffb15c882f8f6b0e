//! BLEU of shared n-grams and lengths, rounded as the authors' libraries round.

use super::MOST_ORDER;

/// Logarithms and penalties of numbers below are kept.
const KEPT: usize = 64;
/// Lengths of n-grams, and numbers of zeros among them, whose smoothed precisions are kept.
const ZEROS: usize = 8;
/// So many numbers are added side by side.
const LANES: usize = 8;
/// More than so many are added in halves.
const LANES_BLOCK: usize = 128;

/// What stands for a precision of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smoothing {
    /// A tenth of an n-gram.
    Method1,
    /// For the first, second, ... zero a half, a quarter, ... times ln(length) / 5 of an n-gram.
    Method4,
}

/// The names of [`Smoothing`], in its order.
pub const SMOOTHINGS: [&str; 2] = ["method1", "method4"];

/// What was computed before; a number that was not is NaN.
pub(super) struct Scorer {
    /// `ln(shared / total)` at `shared * KEPT + total`.
    logs: Vec<f64>,
    /// `ln` of what method 4 takes for the k-th zero, at `(n - 1) * ZEROS + k` times `KEPT` + length.
    smoothed: Vec<f64>,
    /// `exp(1 - reference / length)` at `reference * KEPT + length`.
    penalties: Vec<f64>,
}

impl Default for Scorer {
    fn default() -> Self {
        let unknown = vec![f64::NAN; KEPT * KEPT];
        Self { logs: unknown.clone(), smoothed: unknown.clone(), penalties: unknown }
    }
}

impl Scorer {
    /// BLEU-n of a text of `length` words that shares these many 1-grams to n-grams.
    pub(super) fn score(
        &mut self,
        shared: &[u32],
        length: usize,
        reference: usize,
        smoothing: Smoothing,
    ) -> f64 {
        let mut logs = [0.0; MOST_ORDER];
        if !self.take_logs(shared, length, smoothing, &mut logs) {
            return 0.0;
        }
        self.penalty(length, reference) * mean(&logs[..shared.len()]).exp()
    }

    /// Appends BLEU-1 to BLEU-n.
    pub(super) fn score_all(
        &mut self,
        shared: &[u32],
        length: usize,
        reference: usize,
        smoothing: Smoothing,
        scores: &mut Vec<f64>,
    ) {
        let mut logs = [0.0; MOST_ORDER];
        if !self.take_logs(shared, length, smoothing, &mut logs) {
            scores.extend(shared.iter().map(|_| 0.0));
            return;
        }
        let penalty = self.penalty(length, reference);
        scores.extend((1..=shared.len()).map(|n| penalty * mean(&logs[..n]).exp()));
    }

    /// Writes the logarithm of each precision; says whether a word is shared at all.
    fn take_logs(
        &mut self,
        shared: &[u32],
        length: usize,
        smoothing: Smoothing,
        logs: &mut [f64; MOST_ORDER],
    ) -> bool {
        if shared.first().is_none_or(|&words| words == 0) {
            return false;
        }
        let (mut halved, mut zeros) = (1.0, 0);
        for (n, (&count, log)) in shared.iter().zip(logs).enumerate() {
            let total = length.saturating_sub(n).max(1);
            *log = match smoothing {
                _ if count > 0 => self.log(count, total),
                Smoothing::Method1 => (0.1 / total as f64).ln(),
                Smoothing::Method4 if length > 1 => {
                    (halved, zeros) = (halved * 2.0, zeros + 1);
                    let compute =
                        || (1.0 / (halved * 5.0 / (length as f64).ln()) / total as f64).ln();
                    // Longer n-grams have no place of their own.
                    let row = if n < ZEROS { n * ZEROS + zeros } else { KEPT };
                    keep(&mut self.smoothed, row, length, compute)
                }
                // A factor that NLTK leaves out.
                Smoothing::Method4 => 0.0,
            };
        }
        true
    }

    fn log(&mut self, count: u32, total: usize) -> f64 {
        let compute = || (f64::from(count) / total as f64).ln();
        keep(&mut self.logs, count as usize, total, compute)
    }

    /// The brevity penalty.
    fn penalty(&mut self, length: usize, reference: usize) -> f64 {
        if length > reference {
            return 1.0;
        }
        let compute = || (1.0 - reference as f64 / length as f64).exp();
        keep(&mut self.penalties, reference, length, compute)
    }
}

/// A number of a table, which is computed where it is not known yet.
fn keep(table: &mut [f64], row: usize, column: usize, compute: impl Fn() -> f64) -> f64 {
    if row >= KEPT || column >= KEPT {
        return compute();
    }
    let place = &mut table[row * KEPT + column];
    if place.is_nan() {
        *place = compute();
    }
    *place
}

/// The sum of each times 1 / n, rounded once at the end as Python's `math.fsum`.
fn mean(logs: &[f64]) -> f64 {
    let weight = 1.0 / logs.len() as f64;
    let (mut sum, mut rest) = (0.0, 0.0);
    let mut is_exact = true;
    for log in logs {
        let lost;
        (sum, lost) = two_sum(sum, weight * log);
        let rounded;
        (rest, rounded) = two_sum(rest, lost);
        is_exact &= rounded == 0.0;
    }
    // What was lost is known exactly, mostly: then one more rounding is the only one.
    if is_exact { sum + rest } else { sum_exactly(logs.iter().map(|log| weight * log)) }
}

/// A sum, and what its rounding lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// Shewchuk's sum by parts that do not overlap, rounded half to even at the end.
fn sum_exactly(values: impl Iterator<Item = f64>) -> f64 {
    let mut parts = [0.0; MOST_ORDER + 1];
    let mut count = 0;
    for mut value in values {
        let mut kept = 0;
        for index in 0..count {
            let (sum, lost) = two_sum(value, parts[index]);
            if lost != 0.0 {
                parts[kept] = lost;
                kept += 1;
            }
            value = sum;
        }
        parts[kept] = value;
        count = kept + 1;
    }
    let mut rest = parts[..count].iter().rev().copied();
    let mut sum = rest.next().unwrap_or(0.0);
    let mut lost = 0.0;
    for part in rest.by_ref() {
        (sum, lost) = two_sum(sum, part);
        if lost != 0.0 {
            break;
        }
    }
    // Half a unit was lost: what is left says to which side it goes.
    if let Some(next) = rest.next()
        && lost * next > 0.0
    {
        let (more, rounded) = two_sum(sum, lost * 2.0);
        if rounded == 0.0 {
            return more;
        }
    }
    sum
}

/// The sum in the order in which the authors' library of arrays adds a row of numbers.
pub(super) fn sum_pairwise(values: &[f64]) -> f64 {
    if values.len() < LANES {
        return values.iter().fold(0.0, |sum, value| sum + value);
    }
    if values.len() > LANES_BLOCK {
        let half = values.len() / 2;
        let (first, second) = values.split_at(half - half % LANES);
        return sum_pairwise(first) + sum_pairwise(second);
    }
    let (eights, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value;
        }
    }
    let twos = [lanes[0] + lanes[1], lanes[2] + lanes[3], lanes[4] + lanes[5], lanes[6] + lanes[7]];
    let sum = (twos[0] + twos[1]) + (twos[2] + twos[3]);
    rest.iter().fold(sum, |sum, value| sum + value)
}
