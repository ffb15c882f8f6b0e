//! N-grams of words: how often they occur, BLEU, and the candidate that others agree with most.
//!
//! Source: the evaluator of Bridge-Gap Diffusion (arXiv 2305.04465), which calls NLTK for each
//! pair of texts; Papineni et al., ACL 2002; Chen and Cherry, WMT 2014, for the smoothing.
//!
//! Words are interned once for a group of texts and n-grams numbered by [`index`]: what two texts
//! share is then a walk over the texts that hold one n-gram, and never a look into both. An n-gram
//! of one text alone is shared by none, and neither is a longer one that contains it. Additions
//! and roundings are those of the authors' libraries, so that ties are theirs, too.

mod bleu;
mod index;

use std::ops::Range;

use crate::check::{id_in_range, in_range, same_length};
use crate::error::{Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::text::{StringRows, StringsRef};
use crate::threads::{row_ranges, run_blocks};

use bleu::{Scorer, sum_pairwise};
use index::{Index, Posting};

pub use bleu::{SMOOTHINGS, Smoothing};

/// The longest n-gram that is counted.
pub const MOST_ORDER: usize = 16;

/// Problems of n-grams alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A row without texts.
    #[error("{name}[{row}] must hold at least one text")]
    Empty {
        /// Name of the rows.
        name: &'static str,
        /// Index of the row.
        row: usize,
    },
}

impl Problem {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Empty { .. } => Kind::Value,
        }
    }
}

/// What a thread keeps from row to row.
#[derive(Default)]
struct Worker {
    index: Index,
    scorer: Scorer,
    matches: Vec<u32>,
    values: Vec<f64>,
    holders: Vec<Posting>,
}

/// BLEU-1 to BLEU-`order` of each hypothesis against its references: `[rows, order]` values.
///
/// `threads` does not change the result.
///
/// # Errors
/// Lengths that differ, an order outside its range, or a hypothesis without references.
pub fn sentence_bleu_batch(
    hypotheses: StringsRef<'_>,
    references: &StringRows,
    order: usize,
    smoothing: Smoothing,
    threads: Option<usize>,
) -> Result<Vec<f64>> {
    check_order(order)?;
    let rows = hypotheses.len();
    same_length(("hypotheses", rows), ("references", references.len()))?;
    let score_rows = |worker: &mut Worker, range: Range<usize>| -> Result<Vec<f64>> {
        let mut scores = memory::with_capacity(range.len() * order)?;
        for row in range {
            let references = references.row(row);
            if references.is_empty() {
                return Err(Problem::Empty { name: "references", row }.into());
            }
            worker.score(hypotheses.get(row), references, order, smoothing, &mut scores)?;
        }
        Ok(scores)
    };
    let mut scores = memory::with_capacity(rows.saturating_mul(order))?;
    let mut ranges = row_ranges(rows);
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &score_rows,
        &mut |part: Result<Vec<_>>| {
            scores.extend(part?);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(scores)
}

/// BLEU-1 to BLEU-`order` of the texts of these rows, each against all other texts:
/// `[rows, order]` values.
///
/// # Errors
/// Fewer than two texts, an order outside its range, or a row that does not exist.
pub fn self_bleu(
    texts: StringsRef<'_>,
    rows: &[i64],
    order: usize,
    smoothing: Smoothing,
) -> Result<Vec<f64>> {
    check_order(order)?;
    in_range("the number of texts", texts.len() as i128, 2..)?;
    for (index, &row) in rows.iter().enumerate() {
        id_in_range("rows", index, None, row, 0..texts.len())?;
    }
    let mut index = Index::default();
    index.fill(texts.iter())?;
    let mut matches = memory::repeat(0, texts.len().saturating_mul(order))?;
    let mut steps = Steps::default();
    for n in 0..order {
        index.advance(true)?;
        for ngram in 0..index.ngrams() {
            let (mut most, mut second, mut holder) = (0, 0, None);
            for posting in index.postings(ngram) {
                if posting.count > most {
                    (most, second, holder) = (posting.count, most, Some(posting.text));
                } else {
                    second = second.max(posting.count);
                }
            }
            for posting in index.postings(ngram) {
                steps.take(1)?;
                let others = if holder == Some(posting.text) { second } else { most };
                matches[posting.text as usize * order + n] += posting.count.min(others);
            }
        }
    }
    let mut lengths =
        memory::collect(texts.len(), (0..texts.len()).map(|text| index.length(text)))?;
    lengths.sort_unstable();
    let mut scorer = Scorer::default();
    let mut bleu = memory::with_capacity(rows.len().saturating_mul(order))?;
    for &row in rows {
        steps.take(order)?;
        let row = usize::try_from(row).unwrap_or(0); // checked above
        let length = index.length(row);
        let shared = &matches[row * order..][..order];
        scorer.score_all(shared, length, closest_other(&lengths, length), smoothing, &mut bleu);
    }
    Ok(bleu)
}

/// Of sorted lengths without one that is `length` itself the one nearest to it; the shorter of two.
fn closest_other(sorted: &[usize], length: usize) -> usize {
    let start = sorted.partition_point(|&other| other < length);
    let above = sorted.get(start + 1).copied(); // its own place is `start`
    let below = start.checked_sub(1).map(|index| sorted[index]);
    match (below, above) {
        (Some(below), Some(above)) if length - below <= above - length => below,
        (_, Some(above)) => above,
        (below, None) => below.unwrap_or(length),
    }
}

/// Which candidate of each group the others agree with most.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choices {
    /// Of each group the index of the first candidate with the largest sum.
    pub best: Vec<i64>,
    /// Of each candidate, group by group, the sum of its BLEU against each of the others.
    pub sums: Vec<f64>,
}

/// Minimum Bayes risk: the candidate of each group whose BLEU against the others is largest.
///
/// `threads` does not change the result.
///
/// # Errors
/// A group without candidates, or an order outside its range.
pub fn choose_candidates_batch(
    groups: &StringRows,
    order: usize,
    smoothing: Smoothing,
    threads: Option<usize>,
) -> Result<Choices> {
    check_order(order)?;
    let choose_groups = |worker: &mut Worker, range: Range<usize>| -> Result<Choices> {
        let mut choices = Choices::default();
        for group in range {
            let candidates = groups.row(group);
            if candidates.is_empty() {
                return Err(Problem::Empty { name: "groups", row: group }.into());
            }
            let start = choices.sums.len();
            worker.sum_agreement(candidates, order, smoothing, &mut choices.sums)?;
            choices.best.push(first_maximum(&choices.sums[start..]));
        }
        Ok(choices)
    };
    let mut all = Choices { best: memory::with_capacity(groups.len())?, sums: Vec::new() };
    let mut ranges = row_ranges(groups.len());
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &choose_groups,
        &mut |part: Result<Choices>| {
            let part = part?;
            memory::reserve(&mut all.sums, part.sums.len())?;
            all.best.extend(part.best);
            all.sums.extend(part.sums);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(all)
}

fn first_maximum(values: &[f64]) -> i64 {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, &value) in (0..).zip(values) {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// How often n-grams occur.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// For n = 1, 2, ... the occurrences of each n-gram, in the order of first appearance.
    pub occurrences: Vec<Vec<i64>>,
    /// `[texts, order]`: the occurrences of the n-gram that is most frequent in a text, 0 if none.
    pub most: Vec<i64>,
}

/// How often each n-gram occurs in all texts, and the most frequent one in each.
///
/// # Errors
/// An order outside its range.
pub fn count_ngrams(texts: StringsRef<'_>, order: usize) -> Result<Counts> {
    check_order(order)?;
    let mut index = Index::default();
    index.fill(texts.iter())?;
    let mut most = memory::repeat(0, texts.len().saturating_mul(order))?;
    let mut occurrences = memory::with_capacity(order)?;
    let mut steps = Steps::default();
    for n in 0..order {
        index.advance(false)?;
        let mut totals = memory::with_capacity(index.ngrams())?;
        for ngram in 0..index.ngrams() {
            let mut total = 0;
            for posting in index.postings(ngram) {
                steps.take(1)?;
                let count = i64::from(posting.count);
                let place: &mut i64 = &mut most[posting.text as usize * order + n];
                *place = count.max(*place);
                total += count;
            }
            totals.push(total);
        }
        occurrences.push(totals);
    }
    Ok(Counts { occurrences, most })
}

fn check_order(order: usize) -> Result<()> {
    in_range("order", order as i128, 1..=MOST_ORDER as i128)
}

impl Worker {
    /// Appends BLEU-1 to BLEU-`order` of one hypothesis.
    fn score(
        &mut self,
        hypothesis: &str,
        references: StringsRef<'_>,
        order: usize,
        smoothing: Smoothing,
        scores: &mut Vec<f64>,
    ) -> Result<()> {
        let Self { index, scorer, matches, .. } = self;
        index.fill(std::iter::once(hypothesis).chain(references.iter()))?;
        memory::fill(matches, order, 0)?;
        for shared in matches.iter_mut() {
            index.advance(true)?;
            for ngram in 0..index.ngrams() {
                let (mut own, mut most) = (0, 0);
                for posting in index.postings(ngram) {
                    match posting.text {
                        0 => own = posting.count,
                        _ => most = most.max(posting.count),
                    }
                }
                *shared += own.min(most);
            }
        }
        let length = index.length(0);
        let lengths = (1..=references.len()).map(|text| index.length(text));
        let closest = lengths.min_by_key(|&other| (other.abs_diff(length), other)).unwrap_or(0);
        scorer.score_all(matches, length, closest, smoothing, scores);
        Ok(())
    }

    /// Appends, for each candidate, the sum of its BLEU against each of the others.
    fn sum_agreement(
        &mut self,
        candidates: StringsRef<'_>,
        order: usize,
        smoothing: Smoothing,
        sums: &mut Vec<f64>,
    ) -> Result<()> {
        let Self { index, scorer, matches, values, holders } = self;
        let size = candidates.len();
        index.fill(candidates.iter())?;
        // Of the candidates i < j the shared n-grams stand at (i * size + j) * order.
        let room = size.checked_mul(size).and_then(|pairs| pairs.checked_mul(order));
        memory::fill(matches, room.ok_or_else(|| memory::refused(usize::MAX))?, 0)?;
        let mut steps = Steps::default();
        for n in 0..order {
            index.advance(true)?;
            for ngram in 0..index.ngrams() {
                holders.clear();
                for posting in index.postings(ngram) {
                    memory::push(holders, *posting)?;
                }
                // The last text comes first.
                for (place, later) in holders.iter().enumerate() {
                    steps.take(holders.len() - place)?;
                    for earlier in &holders[place + 1..] {
                        let pair = earlier.text as usize * size + later.text as usize;
                        matches[pair * order + n] += earlier.count.min(later.count);
                    }
                }
            }
        }
        memory::reserve(sums, size)?;
        memory::fill(values, size, 0.0)?;
        for own in 0..size {
            steps.take(size)?;
            let length = index.length(own);
            for (other, value) in values.iter_mut().enumerate() {
                let pair = own.min(other) * size + own.max(other);
                let shared = &matches[pair * order..][..order];
                if other != own {
                    *value = scorer.score(shared, length, index.length(other), smoothing);
                }
            }
            values[own] = 0.0;
            sums.push(sum_pairwise(values));
        }
        Ok(())
    }
}
