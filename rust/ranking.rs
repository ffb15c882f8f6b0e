//! Where a target stands among scored candidates, and the means that are reported of it.
//!
//! Source: the `UFNRec` authors' evaluator for HR@k and NDCG@k; Krichene and Rendle, "On sampled
//! metrics for item recommendation" (KDD 2020), for ranking the whole catalogue.
//!
//! A rank needs no sort: it is the number of candidates with a greater score. Two counts over
//! the row decide almost every user: how many scores are greater than the target's, and how many
//! are not less. If the second count is larger by the target alone, there is no tie, and nothing
//! that is not a number. Only other rows are read once more.

use std::ops::Range;

use crate::check::{id_in_range, one_of, same_length};
use crate::error::{Error, Result, display_float};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::rows::Rows;
use crate::threads::{row_ranges, run_blocks};

/// The rules for candidates with the target's score, by name.
pub const TIES_NAMES: [&str; 3] = ["average", "optimistic", "pessimistic"];

/// Scores whose comparisons are summed in 32 bits before they join the total.
const BLOCK: usize = 1 << 16;

/// Where the target stands among the candidates with its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// In their middle.
    Average,
    /// Before them.
    Optimistic,
    /// Behind them.
    Pessimistic,
}

impl Ties {
    /// The rule of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self> {
        one_of("ties", &TIES_NAMES, [Self::Average, Self::Optimistic, Self::Pessimistic], name)
    }

    /// The share of them that stands before the target.
    fn share(self) -> f64 {
        match self {
            Self::Average => 0.5,
            Self::Optimistic => 0.0,
            Self::Pessimistic => 1.0,
        }
    }
}

/// What is ranked for each user, and what is no candidate.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The target's column of each user.
    pub columns: &'a [i64],
    /// User u's part of `excluded` is `offsets[u]..offsets[u + 1]`.
    pub offsets: &'a [i64],
    /// Columns in any order, also repeated; the target is a candidate even if it is among them.
    pub excluded: &'a [i64],
}

/// The same, checked.
struct Checked<'a> {
    targets: Vec<usize>,
    rows: Rows<'a, i64>,
    excluded: Vec<usize>,
}

impl<'a> Checked<'a> {
    fn new(users: usize, width: usize, given: Targets<'a>) -> Result<Self> {
        let Targets { columns, offsets, excluded } = given;
        same_length(("targets", columns.len()), ("scores", users))?;
        if offsets.len() != users + 1 {
            return Err(Error::OutOfRange {
                name: "the length of offsets",
                range: (users + 1).to_string(),
                got: offsets.len().to_string(),
            });
        }
        let rows = Rows::new(offsets, excluded).map_err(|fault| fault.of("offsets", "excluded"))?;
        let mut checked = Self {
            targets: memory::with_capacity(users)?,
            rows,
            excluded: memory::with_capacity(excluded.len())?,
        };
        let mut steps = Steps::default();
        for (u, &target) in columns.iter().enumerate() {
            checked.targets.push(id_in_range("targets", u, None, target, 0..width)?);
            for (k, &id) in rows.range(u).zip(rows.row(u)) {
                steps.take(1)?;
                checked.excluded.push(id_in_range("excluded", k, Some(u), id, 0..width)?);
            }
        }
        Ok(checked)
    }

    fn excluded(&self, user: usize) -> &[usize] {
        &self.excluded[self.rows.range(user)]
    }
}

/// Which columns were seen: one bit each, empty between two users.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    /// Makes room for so many columns, if there is none yet.
    fn fit(&mut self, width: usize) -> Result<()> {
        if self.0.len() != width.div_ceil(64) {
            self.0 = memory::repeat(0, width.div_ceil(64))?;
        }
        Ok(())
    }

    /// Notes a column, and says whether it is new.
    fn insert(&mut self, column: usize) -> bool {
        let (word, bit) = (&mut self.0[column / 64], 1 << (column % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, column: usize) -> bool {
        self.0[column / 64] & (1 << (column % 64)) != 0
    }

    fn clear(&mut self, columns: &[usize]) {
        for &column in columns {
            self.0[column / 64] = 0;
        }
    }
}

/// The rank of each user's target, from 0, and how many other candidates have its score.
///
/// The rows of `scores` are of one length; `threads` does not change the result.
///
/// # Errors
/// Lengths or offsets that do not fit, a column outside of the row, or a candidate's score that
/// is not a number.
pub fn rank_targets<T: PartialOrd + Copy + Sync>(
    scores: &[&[T]],
    targets: Targets<'_>,
    ties: Ties,
    threads: Option<usize>,
) -> Result<(Vec<f64>, Vec<i64>)> {
    let width = scores.first().map_or(0, |row| row.len());
    if let Some(row) = (0..scores.len()).find(|&row| scores[row].len() != width) {
        return Err(Error::ItemOutOfRange {
            name: "scores",
            index: row.to_string(),
            range: format!("of length {width}"),
            got: scores[row].len().to_string(),
        });
    }
    let checked = Checked::new(scores.len(), width, targets)?;
    let rank =
        |(seen, steps): &mut (Seen, Steps), users: Range<usize>| -> Result<Vec<(f64, i64)>> {
            seen.fit(width)?;
            users
                .map(|user| {
                    let (target, excluded) = (checked.targets[user], checked.excluded(user));
                    let counts = count(scores[user], target, excluded, seen, steps)?;
                    let (greater, others) = counts.map_err(|column| Error::ItemOutOfRange {
                        name: "scores",
                        index: format!("{user}, {column}"),
                        range: "a number".to_owned(),
                        got: "nan".to_owned(),
                    })?;
                    Ok((greater as f64 + ties.share() * others as f64, others))
                })
                .collect()
        };
    let mut ranks = (memory::with_capacity(scores.len())?, memory::with_capacity(scores.len())?);
    let mut ranges = row_ranges(scores.len());
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &rank,
        &mut |part| {
            ranks.extend(part?);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(ranks)
}

/// Counts the candidates above the target, and the others with its score.
///
/// The inner error is the first candidate whose score is not a number.
fn count<T: PartialOrd + Copy>(
    row: &[T],
    target: usize,
    excluded: &[usize],
    seen: &mut Seen,
    steps: &mut Steps,
) -> Result<std::result::Result<(i64, i64), usize>> {
    let score = row[target];
    let (mut greater, not_less) = compare(row, score, steps)?;
    // The target itself, others with its score, and what is not a number.
    let mut equal = not_less - greater;
    let mut unordered = 0;
    if equal != 1 || is_unordered(score, score) {
        equal = 0;
        for block in row.chunks(BLOCK) {
            steps.take(block.len())?;
            equal += block.iter().map(|&x| i64::from(x == score)).sum::<i64>();
        }
        unordered = not_less - greater - equal;
    }
    steps.take(excluded.len())?;
    for &column in excluded {
        if column != target && seen.insert(column) {
            let x = row[column];
            greater -= i64::from(x > score);
            equal -= i64::from(x == score);
            unordered -= i64::from(is_unordered(x, score));
        }
    }
    let first = if unordered == 0 {
        None
    } else {
        let is_candidate = |c: usize| c == target || !seen.contains(c);
        (0..row.len()).find(|&c| is_candidate(c) && is_unordered(row[c], row[c]))
    };
    seen.clear(excluded);
    Ok(first.map_or(Ok((greater, equal - 1)), Err))
}

/// How many scores are greater than one score, and how many are not less.
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "what is not a number is not less")]
fn compare<T: PartialOrd + Copy>(row: &[T], score: T, steps: &mut Steps) -> Result<(i64, i64)> {
    let (mut greater, mut not_less) = (0, 0);
    for block in row.chunks(BLOCK) {
        steps.take(block.len())?;
        let (mut above, mut from) = (0_u32, 0_u32);
        for &x in block {
            above += u32::from(x > score);
            from += u32::from(!(x < score));
        }
        greater += i64::from(above);
        not_less += i64::from(from);
    }
    Ok((greater, not_less))
}

/// Whether one of the two is not a number.
fn is_unordered<T: PartialOrd + Copy>(x: T, y: T) -> bool {
    x.partial_cmp(&y).is_none()
}

/// (rows, columns) of what is no candidate: each once, and no targets.
///
/// For those who count elsewhere, on another device: the same checks as in [`rank_targets`].
///
/// # Errors
/// Lengths or offsets that do not fit, or a column outside of the row.
pub fn list_excluded(width: usize, targets: Targets<'_>) -> Result<(Vec<i64>, Vec<i64>)> {
    let users = targets.columns.len();
    let checked = Checked::new(users, width, targets)?;
    let (mut seen, mut steps) = (Seen::default(), Steps::default());
    seen.fit(width)?;
    let most = checked.excluded.len();
    let mut listed = (memory::with_capacity(most)?, memory::with_capacity(most)?);
    for (row, user) in (0..).zip(0..users) {
        let excluded = checked.excluded(user);
        for (&column, &id) in excluded.iter().zip(checked.rows.row(user)) {
            steps.take(1)?;
            if column != checked.targets[user] && seen.insert(column) {
                listed.0.push(row);
                listed.1.push(id);
            }
        }
        seen.clear(excluded);
    }
    Ok(listed)
}

/// Means over users.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// HR@k: the share of ranks below k.
    pub hit_rates: Vec<f64>,
    /// NDCG@k: of 1 / log2(rank + 2) where the rank is below k, else of 0.
    pub gains: Vec<f64>,
    /// MRR: of 1 / (rank + 1).
    pub reciprocal_rank: f64,
}

/// The means of the ranking metrics, for each cutoff.
///
/// # Errors
/// There are no ranks, one is negative or not finite, or a cutoff is below 1.
pub fn ranking_metrics(ranks: &[f64], cutoffs: &[i64]) -> Result<Metrics> {
    if ranks.is_empty() {
        return Err(Error::OutOfRange {
            name: "the length of ranks",
            range: "at least 1".to_owned(),
            got: "0".to_owned(),
        });
    }
    if let Some(i) = ranks.iter().position(|&rank| !(rank >= 0.0 && rank.is_finite())) {
        return Err(Error::ItemOutOfRange {
            name: "ranks",
            index: i.to_string(),
            range: "at least 0 and finite".to_owned(),
            got: display_float(ranks[i]),
        });
    }
    if let Some(i) = cutoffs.iter().position(|&k| k < 1) {
        return Err(Error::ItemOutOfRange {
            name: "cutoffs",
            index: i.to_string(),
            range: "at least 1 and below 2**63".to_owned(),
            got: cutoffs[i].to_string(),
        });
    }
    let mean = |value: &dyn Fn(f64) -> f64| {
        let mut sum = 0.0;
        for part in ranks.chunks(BLOCK) {
            interrupt::check()?;
            sum = part.iter().fold(sum, |sum, &rank| sum + value(rank));
        }
        Ok(sum / ranks.len() as f64)
    };
    let below = |rank: f64, k: i64| rank < k as f64;
    let gain = |rank: f64, k: i64| if below(rank, k) { (rank + 2.0).log2().recip() } else { 0.0 };
    Ok(Metrics {
        hit_rates: cutoffs
            .iter()
            .map(|&k| mean(&|rank| f64::from(u8::from(below(rank, k)))))
            .collect::<Result<_>>()?,
        gains: cutoffs.iter().map(|&k| mean(&|rank| gain(rank, k))).collect::<Result<_>>()?,
        reciprocal_rank: mean(&|rank| (rank + 1.0).recip())?,
    })
}
