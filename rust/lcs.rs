//! Longest common subsequence with the canonical alignment of GNER's fast matcher.
//!
//! The definition (`reference/lcs.py`) sorts matching pairs into piles. The same piles can
//! be read from the bit-parallel LCS, whose state after row `i` has a zero bit at the top of
//! every pile: `V' = (V + (V & M)) | (V & !M)`, `M` the columns that equal `a[i]`.
//! The last card put on the pile with top `j` lies in the latest row whose item equals
//! `b[j]`, and its predecessor is the nearest zero bit left of `j` in the state before that
//! row. So the walk back needs the states alone.
//!
//! Long sequences use a band of columns around the diagonal. Passes over ever wider bands
//! find a lower bound `L` of the length. Every alignment of at least that length stays
//! between the diagonals `-(n - L)` and `m - L`, so a last pass over that band takes the
//! same walk as the whole matrix: a chain that ends in a card on the canonical walk can be
//! completed to the full length, hence lies in the band, hence the tops on the walk are the
//! same. Cost: n + n (n - L + m - L) / 64 word operations, up to a small factor.
//!
//! States that do not fit the memory budget are computed again from checkpoints.

use std::collections::HashMap;

use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::text::{Interner, StringsRef};

/// Stands for "no partner" in an alignment.
pub const UNMATCHED: u32 = u32::MAX;

/// Looking an item up in a table costs as much as so many machine words of states.
const HASHED_STEPS: usize = 16;
/// Columns on each side of the diagonal in the first pass.
const FIRST_BAND: usize = 64;
/// States kept at once, in 64-bit words (16 MiB).
const STATE_WORDS: usize = 1 << 21;
/// Checkpoints kept at once on one level, in 64-bit words (8 MiB).
const CHECKPOINT_WORDS: usize = 1 << 20;

/// Working memory, to be reused between calls.
#[derive(Debug, Default)]
pub struct Lcs {
    masks: Vec<u64>,
    states: Vec<u64>,
    common: Common,
    wide: Wide,
}

impl Lcs {
    /// Writes, for each item of `a`, the index of its partner in `b`, or [`UNMATCHED`].
    ///
    /// Items of `b` are numbers below `ids`; items of `a` that occur nowhere in `b` may have any
    /// larger number. Cost and memory grow with `ids`, so number items densely.
    ///
    /// ```
    /// let mut alignment = Vec::new();
    /// lmcore::lcs::Lcs::default().align(&[0, 1, 1, 0], &[1, 0, 0, 1], 2, &mut alignment)?;
    /// assert_eq!(alignment, [u32::MAX, u32::MAX, 0, 1]);
    /// # Ok::<(), lmcore::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Memory is refused, also to sides of 2^32 items, or the caller stopped.
    pub fn align(
        &mut self,
        a: &[u32],
        b: &[u32],
        ids: usize,
        alignment: &mut Vec<u32>,
    ) -> Result<()> {
        check_length(a.len())?;
        check_length(b.len())?;
        memory::fill(alignment, a.len(), UNMATCHED)?;
        if b.len() <= 64 {
            return self.align_narrow(a, b, ids, alignment);
        }
        let mut common = std::mem::take(&mut self.common);
        common.fill(a, b, ids)?;
        let mut partners = std::mem::take(&mut common.partners);
        memory::fill(&mut partners, common.a.len(), UNMATCHED)?;
        if common.b.len() <= 64 {
            self.align_narrow(&common.a, &common.b, ids, &mut partners)?;
        } else {
            self.wide.align(&common.a, &common.b, ids, &mut partners)?;
        }
        for (&position, &partner) in common.a_positions.iter().zip(&partners) {
            if partner != UNMATCHED {
                alignment[position as usize] = common.b_positions[partner as usize];
            }
        }
        self.common = Common { partners, ..common };
        Ok(())
    }

    /// At most 64 columns: one machine word per state.
    fn align_narrow(
        &mut self,
        a: &[u32],
        b: &[u32],
        ids: usize,
        alignment: &mut [u32],
    ) -> Result<()> {
        memory::fill(&mut self.masks, ids, 0)?;
        for (j, &id) in b.iter().enumerate() {
            self.masks[id as usize] |= 1 << j;
        }
        self.states.clear();
        memory::reserve(&mut self.states, a.len())?;
        let mut state = u64::MAX;
        for &id in a {
            self.states.push(state);
            let mask = self.masks.get(id as usize).copied().unwrap_or(0);
            state = state.wrapping_add(state & mask) | (state & !mask);
        }
        let (mut row, mut below) = (a.len(), u64::MAX);
        while let Some(column) = (!state & below).checked_ilog2() {
            let item = b[column as usize];
            let Some(found) = a[..row].iter().rposition(|&id| id == item) else { break };
            alignment[found] = column;
            row = found;
            below = (1 << column) - 1;
            state = self.states[row];
        }
        Ok(())
    }
}

/// Checks that the items of one side have numbers of 32 bits.
///
/// # Errors
/// They are too many.
pub fn check_length(items: usize) -> Result<()> {
    if items < UNMATCHED as usize { Ok(()) } else { Err(memory::refused(items)) }
}

/// The same for strings.
///
/// # Errors
/// As [`Lcs::align`].
pub fn align_strings(a: StringsRef<'_>, b: StringsRef<'_>) -> Result<Vec<u32>> {
    check_length(a.len())?;
    check_length(b.len())?;
    let mut numbers = Interner::default();
    let mut steps = Steps::default();
    let mut b_numbers = Vec::new();
    memory::reserve(&mut b_numbers, b.len())?;
    for string in b.iter() {
        steps.take(HASHED_STEPS)?;
        b_numbers.push(numbers.intern(string)?);
    }
    let mut last = UNMATCHED;
    let mut number = |string| {
        if !numbers.is(last, string) {
            last = numbers.find(string).unwrap_or(UNMATCHED);
        }
        last
    };
    let mut a_numbers = Vec::new();
    memory::reserve(&mut a_numbers, a.len())?;
    for string in a.iter() {
        steps.take(HASHED_STEPS)?;
        a_numbers.push(number(string));
    }
    align_numbered(&a_numbers, &b_numbers, numbers.len())
}

/// The same for any integers.
///
/// # Errors
/// As [`Lcs::align`].
#[expect(clippy::cast_possible_truncation, reason = "at most one number per item")]
pub fn align_integers(a: &[i64], b: &[i64]) -> Result<Vec<u32>> {
    check_length(a.len())?;
    check_length(b.len())?;
    let mut numbers = HashMap::<i64, u32, foldhash::fast::RandomState>::default();
    let mut steps = Steps::default();
    let mut b_numbers = Vec::new();
    memory::reserve(&mut b_numbers, b.len())?;
    for &value in b {
        steps.take(HASHED_STEPS)?;
        let next = numbers.len() as u32;
        if numbers.len() == numbers.capacity() {
            numbers.try_reserve(1).map_err(|_| memory::refused(numbers.len()))?;
        }
        b_numbers.push(*numbers.entry(value).or_insert(next));
    }
    let ids = numbers.len();
    let mut a_numbers = Vec::new();
    memory::reserve(&mut a_numbers, a.len())?;
    for value in a {
        steps.take(HASHED_STEPS)?;
        a_numbers.push(numbers.get(value).copied().unwrap_or(UNMATCHED));
    }
    align_numbered(&a_numbers, &b_numbers, ids)
}

fn align_numbered(a: &[u32], b: &[u32], ids: usize) -> Result<Vec<u32>> {
    let mut alignment = Vec::new();
    Lcs::default().align(a, b, ids, &mut alignment)?;
    Ok(alignment)
}

/// The items that occur on both sides, with their positions: no others can be partners.
#[derive(Debug, Default)]
struct Common {
    a: Vec<u32>,
    a_positions: Vec<u32>,
    b: Vec<u32>,
    b_positions: Vec<u32>,
    occurs: Vec<bool>,
    partners: Vec<u32>,
}

impl Common {
    fn fill(&mut self, a: &[u32], b: &[u32], ids: usize) -> Result<()> {
        memory::fill(&mut self.occurs, ids, false)?;
        self.a.clear();
        self.a_positions.clear();
        for (position, &id) in (0..).zip(a) {
            if let Some(occurs) = self.occurs.get_mut(id as usize) {
                *occurs = true;
                memory::push(&mut self.a, id)?;
                memory::push(&mut self.a_positions, position)?;
            }
        }
        self.b.clear();
        self.b_positions.clear();
        for (position, &id) in (0..).zip(b) {
            if self.occurs[id as usize] {
                memory::push(&mut self.b, id)?;
                memory::push(&mut self.b_positions, position)?;
            }
        }
        Ok(())
    }
}

/// More than 64 columns: states of many words, restricted to a band.
#[derive(Debug, Default)]
struct Wide {
    /// Columns of each id, ascending: `columns[starts[id]..starts[id + 1]]`.
    starts: Vec<usize>,
    columns: Vec<u32>,
    /// Whole masks of frequent ids; `dense[id]` is the number of the mask, if any.
    dense: Vec<Option<u32>>,
    masks: Vec<u64>,
    /// The current state over all columns; only the band is kept up to date.
    state: Vec<u64>,
    /// Highest word that was ever changed: above it all bits are ones.
    frontier: usize,
    states: Vec<u64>,
}

/// Diagonals `-low ..= high`.
#[derive(Debug, Clone, Copy)]
struct Band {
    low: usize,
    high: usize,
    words: usize,
}

impl Band {
    fn new(low: usize, high: usize, columns: usize) -> Self {
        Self { low, high, words: columns.div_ceil(64) }
    }

    /// Words of the state before `row` that lie in the band, with one column to spare on
    /// the left: the predecessor of a card in the band may stand there.
    fn range(self, row: usize) -> (usize, usize) {
        let end = ((row + self.high) / 64 + 1).min(self.words);
        ((row.saturating_sub(self.low + 1) / 64).min(end), end)
    }

    /// The most words that a row has in the band.
    fn width(self) -> usize {
        ((self.low + self.high + 1) / 64 + 2).min(self.words)
    }
}

/// Where the walk back stands: it needs the state before `row`, columns below `column`.
#[derive(Debug)]
struct Walk<'s> {
    a: &'s [u32],
    b: &'s [u32],
    alignment: &'s mut [u32],
    row: usize,
    column: usize,
    done: bool,
    steps: Steps,
}

impl Wide {
    fn align(&mut self, a: &[u32], b: &[u32], ids: usize, alignment: &mut [u32]) -> Result<()> {
        let (n, m) = (a.len(), b.len());
        self.index_columns(b, ids)?;
        let mut steps = Steps::default();

        // Widen the band until the last pass costs at most some times what this one did: the
        // bound is mostly tight long before the band is as wide as it asks for.
        let mut slack = FIRST_BAND;
        let length = loop {
            let band = Band::new(n.saturating_sub(m) + slack, m.saturating_sub(n) + slack, m);
            self.reset(band.words)?;
            for (row, &id) in a.iter().enumerate() {
                steps.take(band.width())?;
                self.step(id, band.range(row));
            }
            let length: usize = self.state.iter().map(|word| word.count_zeros() as usize).sum();
            if n.min(m) - length <= slack * 16 {
                break length;
            }
            slack *= 4;
        };

        let band = Band::new(n - length, m - length, m);
        self.reset(band.words)?;
        let mut walk = Walk { a, b, alignment, row: n, column: m, done: false, steps };
        self.walk(band, 0, n, &mut walk)
    }

    fn reset(&mut self, words: usize) -> Result<()> {
        self.frontier = 0;
        memory::fill(&mut self.state, words, u64::MAX)
    }

    /// Lists the columns of each id, and whole masks of those found in every other word.
    #[expect(clippy::cast_possible_truncation, reason = "callers number items with u32")]
    fn index_columns(&mut self, b: &[u32], ids: usize) -> Result<()> {
        memory::fill(&mut self.starts, ids + 1, 0)?;
        for &id in b {
            self.starts[id as usize + 1] += 1;
        }
        let words = b.len().div_ceil(64);
        self.dense.clear();
        memory::reserve(&mut self.dense, ids)?;
        self.masks.clear();
        for id in 0..ids {
            let frequent = self.starts[id + 1] * 2 >= words;
            self.dense.push(frequent.then_some((self.masks.len() / words) as u32));
            if frequent {
                memory::reserve(&mut self.masks, words)?;
                self.masks.resize(self.masks.len() + words, 0);
            }
            self.starts[id + 1] += self.starts[id];
        }
        memory::fill(&mut self.columns, b.len(), 0)?;
        let mut next = memory::collect(self.starts.len(), self.starts.iter().copied())?;
        for (j, &id) in b.iter().enumerate() {
            self.columns[next[id as usize]] = j as u32;
            next[id as usize] += 1;
            if let Some(mask) = self.dense[id as usize] {
                self.masks[mask as usize * words + j / 64] |= 1 << (j % 64);
            }
        }
        Ok(())
    }

    /// Takes the state over one row: `V' = (V + (V & M)) | (V & !M)` within the band.
    fn step(&mut self, id: u32, (start, end): (usize, usize)) {
        let Self { starts, columns, dense, masks, state, frontier, .. } = self;
        if let Some(mask) = dense[id as usize] {
            let masks = &masks[mask as usize * state.len()..][start..end];
            let mut carry = false;
            for (word, &mask) in state[start..end].iter_mut().zip(masks) {
                *word = advance(*word, mask, &mut carry);
            }
            *frontier = (*frontier).max(end);
            return;
        }
        let columns = &columns[starts[id as usize]..starts[id as usize + 1]];
        let first = if columns.len() > 16 {
            columns.partition_point(|&j| (j as usize) < start * 64)
        } else {
            columns.iter().take_while(|&&j| (j as usize) < start * 64).count()
        };
        let mut rest = columns[first..].iter().map(|&j| j as usize).peekable();
        let (mut word, mut carry) = (start, false);
        loop {
            match rest.peek() {
                Some(&j) if !carry => word = j / 64,
                None if !carry || word > *frontier => break,
                _ => {}
            }
            if word >= end {
                break;
            }
            let mut mask = 0;
            while let Some(j) = rest.next_if(|&j| j / 64 == word) {
                mask |= 1 << (j % 64);
                *frontier = (*frontier).max(word);
            }
            state[word] = advance(state[word], mask, &mut carry);
            word += 1;
        }
    }

    /// Walks back through the rows `start..end`; the current state is the one before `start`.
    fn walk(&mut self, band: Band, start: usize, end: usize, walk: &mut Walk<'_>) -> Result<()> {
        let width = band.width();
        let total = (end - start + 1).saturating_mul(width);
        if total <= STATE_WORDS || end - start < 2 {
            return self.walk_kept(band, start, end, walk);
        }
        let parts = total.div_ceil(STATE_WORDS).min((CHECKPOINT_WORDS / width).max(2));
        let step = (end - start).div_ceil(parts);
        let mut checkpoints: Vec<(usize, Vec<u64>)> = Vec::new();
        for row in start..end {
            if (row - start).is_multiple_of(step) {
                let (low, high) = band.range(row);
                let state = memory::collect(high - low, self.state[low..high].iter().copied())?;
                memory::push(&mut checkpoints, (row, state))?;
                if row + step >= end {
                    break;
                }
            }
            walk.steps.take(width)?;
            self.step(walk.a[row], band.range(row));
        }
        for (row, state) in checkpoints.into_iter().rev() {
            if walk.done || walk.row < row {
                continue;
            }
            let (low, high) = band.range(row);
            self.state[low..high].copy_from_slice(&state);
            self.state[high..].fill(u64::MAX);
            self.frontier = high;
            self.walk(band, row, (row + step).min(end), walk)?;
        }
        Ok(())
    }

    /// The same where all states fit: computes and keeps them, then walks.
    fn walk_kept(
        &mut self,
        band: Band,
        start: usize,
        end: usize,
        walk: &mut Walk<'_>,
    ) -> Result<()> {
        let width = band.width();
        self.states.clear();
        memory::reserve(&mut self.states, (end - start + 1).saturating_mul(width))?;
        for row in start..=end {
            walk.steps.take(width)?;
            let (low, high) = band.range(row);
            self.states.extend_from_slice(&self.state[low..high]);
            self.states.resize((row - start + 1) * width, u64::MAX);
            if row < end {
                self.step(walk.a[row], (low, high));
            }
        }
        while walk.row >= start {
            let (low, _) = band.range(walk.row);
            let state = &self.states[(walk.row - start) * width..][..width];
            let Some(column) = last_zero_below(state, walk.column.saturating_sub(low * 64)) else {
                walk.done = true;
                return Ok(());
            };
            let column = low * 64 + column;
            let item = walk.b[column];
            let Some(row) = walk.a[..walk.row].iter().rposition(|&id| id == item) else {
                walk.done = true;
                return Ok(());
            };
            walk.alignment[row] = u32::try_from(column).unwrap_or(UNMATCHED);
            walk.row = row;
            walk.column = column;
        }
        Ok(())
    }
}

/// One word of `V' = (V + (V & M) + carry) | (V & !M)`.
#[inline]
fn advance(state: u64, mask: u64, carry: &mut bool) -> u64 {
    let (sum, over) = state.overflowing_add(state & mask);
    let (sum, over_again) = sum.overflowing_add(u64::from(*carry));
    *carry = over | over_again;
    sum | (state & !mask)
}

/// The highest zero bit among the first `limit` bits.
fn last_zero_below(state: &[u64], limit: usize) -> Option<usize> {
    let limit = limit.min(state.len() * 64);
    let (whole, part) = (limit / 64, limit % 64);
    if part > 0 {
        let zeros = !state[whole] & ((1 << part) - 1);
        if let Some(bit) = zeros.checked_ilog2() {
            return Some(whole * 64 + bit as usize);
        }
    }
    let (word, bits) = state[..whole].iter().enumerate().rfind(|(_, word)| **word != u64::MAX)?;
    (!bits).checked_ilog2().map(|bit| word * 64 + bit as usize)
}
