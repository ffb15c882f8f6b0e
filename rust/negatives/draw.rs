//! The draws of one row: words to numbers below a bound, numbers to items.

use pulp::NullaryFnOnce;

use crate::error::{Error, Result};
use crate::interrupt::Steps;
use crate::memory;
use crate::philox::{Draws, LANES, halves, tail};

/// A history with at least one part in this many of all items is mapped around; draws that fall
/// into a shorter one are rejected. A group of words seldom stays whole beyond this.
pub const DENSE_SHARE: u64 = 64;
/// The same for weights: there mapping takes a search for each draw, and rejection costs less
/// until every second draw is rejected.
pub const DENSE_WEIGHT_SHARE: u64 = 2;

/// Words that are made at once.
const GROUP: usize = 4 * LANES;
/// The bits of the filter, 4 KB: they stay in the first-level cache.
const FILTER_WORDS: usize = 1 << 10;

/// An integer that holds user and item ids.
pub trait Id: Copy + Send + Sync {
    /// The id as this type; ids are below 2^31.
    fn from_id(id: u32) -> Self;
}

impl Id for i32 {
    #[expect(clippy::cast_possible_wrap, reason = "ids are below 2^31")]
    #[inline]
    fn from_id(id: u32) -> Self {
        id as Self
    }
}

impl Id for i64 {
    #[inline]
    fn from_id(id: u32) -> Self {
        Self::from(id)
    }
}

/// The items and how likely they are.
#[derive(Debug)]
pub struct Catalogue {
    /// Items have the ids 1 to `item_count`.
    pub item_count: u32,
    /// None: all alike.
    pub popularity: Option<Popularity>,
}

/// Weights of items, summed up.
#[derive(Debug)]
pub struct Popularity {
    /// Weight of the items 1 to i, at i.
    sums: Vec<u32>,
    /// The first item whose sum exceeds `bucket << shift`.
    starts: Vec<u32>,
    shift: u32,
}

impl Popularity {
    /// Sums of weights, which must not be all 0 and stay below 2^32.
    pub fn new(weights: &[u32], item_count: usize) -> Result<Self> {
        let refuse = |range: &str, got: String| {
            let range = range.to_owned();
            Err(Error::OutOfRange { name: "weights", range, got })
        };
        if weights.len() != item_count {
            return refuse("as many as items", weights.len().to_string());
        }
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let Ok(total) = u32::try_from(total) else {
            return refuse("below 2**32 in sum", total.to_string());
        };
        if total == 0 {
            return refuse("above 0 in sum", "0".to_owned());
        }
        let mut sums = memory::with_capacity(weights.len() + 1)?;
        let mut sum = 0;
        sums.push(sum);
        let mut steps = Steps::default();
        for weight in weights {
            steps.take(2)?;
            sum += weight;
            sums.push(sum);
        }
        // About four buckets per item: most lie within one.
        let bits = u32::BITS - total.leading_zeros();
        let shift = bits.saturating_sub(item_count.next_power_of_two().ilog2() + 2);
        let mut starts = memory::with_capacity((total >> shift) as usize + 1)?;
        let mut item = 1;
        for bucket in 0..=total >> shift {
            while (item as usize) < item_count && sums[item as usize] <= bucket << shift {
                item += 1;
            }
            starts.push(item);
        }
        Ok(Self { sums, starts, shift })
    }

    fn total(&self) -> u32 {
        self.sums.last().copied().unwrap_or(0)
    }

    fn weight(&self, item: u32) -> u32 {
        self.sums[item as usize] - self.sums[item as usize - 1]
    }

    /// The item in whose share of the total `number` falls.
    #[inline]
    fn item(&self, number: u32) -> u32 {
        let mut item = self.starts[(number >> self.shift) as usize];
        // Most often the first or the second: without a branch that is guessed wrong.
        item += u32::from(self.sums[item as usize] <= number);
        while self.sums[item as usize] <= number {
            item += 1;
        }
        item
    }
}

impl Catalogue {
    fn total(&self) -> u32 {
        self.popularity.as_ref().map_or(self.item_count, Popularity::total)
    }

    /// Weight of the items outside a history, which holds no item twice.
    pub fn left(&self, history: &[u32]) -> u32 {
        let taken: u32 = match &self.popularity {
            None => u32::try_from(history.len()).unwrap_or(u32::MAX),
            Some(popularity) => history.iter().map(|&item| popularity.weight(item)).sum(),
        };
        self.total().saturating_sub(taken)
    }
}

/// What one row needs: its draws, the ascending history, and where to write.
#[derive(Debug)]
pub struct Row<'a, T> {
    pub draws: Draws,
    pub history: &'a [u32],
    /// Set to 0.
    pub padding: &'a mut [T],
    pub out: &'a mut [T],
}

/// Memory that rows use one after the other.
#[derive(Debug)]
pub struct Scratch {
    /// A bit for each item of a history, at its id modulo the number of bits; 0 between rows.
    filter: Box<[u32; FILTER_WORDS]>,
    /// Items outside a history, or weights inside it that come before.
    table: Vec<u32>,
    pub steps: Steps,
}

impl Default for Scratch {
    fn default() -> Self {
        let filter = Box::new([0; FILTER_WORDS]);
        Self { filter, table: Vec::new(), steps: Steps::default() }
    }
}

/// Draws for several rows, compiled once for each set of instructions.
pub struct DrawRows<'a, 'b, T> {
    pub catalogue: &'a Catalogue,
    pub scratch: &'a mut Scratch,
    pub rows: Vec<Row<'b, T>>,
}

impl<T: Id> NullaryFnOnce for DrawRows<'_, '_, T> {
    type Output = Result<()>;

    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn call(self) -> Result<()> {
        let Self { catalogue, scratch, rows } = self;
        for row in rows {
            scratch.steps.take(row.padding.len() + row.history.len())?;
            row.padding.fill(T::from_id(0));
            let (left, total) = (catalogue.left(row.history), catalogue.total());
            let share =
                if catalogue.popularity.is_none() { DENSE_SHARE } else { DENSE_WEIGHT_SHARE };
            let is_dense = u64::from(total - left) * share >= u64::from(total);
            match (&catalogue.popularity, is_dense) {
                (None, false) => {
                    reject(&row.draws, total, scratch, row.history, row.out, |r| r + 1)?;
                }
                (None, true) => {
                    scratch.steps.take(catalogue.item_count as usize)?;
                    list_others(catalogue.item_count, row.history, &mut scratch.table)?;
                    let table = &scratch.table;
                    fill(
                        &mut scratch.steps,
                        &row.draws,
                        left,
                        row.out,
                        |number| table[number as usize],
                        |_| false,
                        |_| false,
                    )?;
                }
                (Some(popularity), false) => {
                    reject(&row.draws, total, scratch, row.history, row.out, |r| {
                        popularity.item(r)
                    })?;
                }
                (Some(popularity), true) => {
                    sum_gaps(popularity, row.history, &mut scratch.table)?;
                    let gaps = &scratch.table;
                    let item = |number: u32| {
                        let before = gaps.partition_point(|&gap| gap <= number);
                        let skipped = before.checked_sub(1).map_or(0, |last| {
                            let item = row.history[last];
                            popularity.sums[item as usize] - gaps[last]
                        });
                        popularity.item(number + skipped)
                    };
                    let steps = &mut scratch.steps;
                    fill(steps, &row.draws, left, row.out, item, |_| false, |_| false)?;
                }
            }
        }
        Ok(())
    }
}

/// Lists the items outside a history, ascending.
// Always: see `philox4x32_lanes`.
#[inline(always)]
fn list_others(item_count: u32, history: &[u32], table: &mut Vec<u32>) -> Result<()> {
    // Runs are written in whole chunks, of which the next run overwrites the rest.
    const CHUNK: u8 = 16;
    let size = item_count as usize + usize::from(CHUNK);
    if table.len() < size {
        *table = memory::repeat(0, size)?;
    }
    let (mut next, mut written) = (1, 0);
    for end in history.iter().copied().chain([item_count + 1]) {
        while next < end {
            if let Some(chunk) = table[written..].first_chunk_mut::<{ CHUNK as usize }>() {
                for (offset, out) in (0..).zip(chunk) {
                    *out = next + offset;
                }
            }
            let run = (end - next).min(CHUNK.into());
            written += run as usize;
            next += run;
        }
        next = end + 1;
    }
    Ok(())
}

/// Lists for each item of a history the weight outside the history that comes before it.
fn sum_gaps(popularity: &Popularity, history: &[u32], gaps: &mut Vec<u32>) -> Result<()> {
    if gaps.capacity() < history.len() {
        *gaps = memory::with_capacity(history.len())?;
    }
    gaps.clear();
    let mut inside = 0;
    for &item in history {
        gaps.push(popularity.sums[item as usize - 1] - inside);
        inside += popularity.weight(item);
    }
    Ok(())
}

/// Draws from the whole catalogue and rejects what is in the history.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
fn reject<T: Id>(
    draws: &Draws,
    total: u32,
    scratch: &mut Scratch,
    history: &[u32],
    out: &mut [T],
    item: impl Fn(u32) -> u32,
) -> Result<()> {
    let Scratch { filter, steps, .. } = scratch;
    let filter = &mut **filter;
    for &item in history {
        filter[bit(item).0] |= bit(item).1;
    }
    let view = &*filter;
    let is_hit = |item: u32| view[bit(item).0] & bit(item).1 != 0;
    let is_taken = |item: u32| is_hit(item) && history.binary_search(&item).is_ok();
    let has_hit = |items: &[u32; GROUP]| {
        let mut hits = 0;
        for &item in items {
            hits |= u32::from(is_hit(item));
        }
        hits != 0
    };
    let filled = fill(steps, draws, total, out, item, has_hit, is_taken);
    for &item in history {
        filter[bit(item).0] = 0;
    }
    filled
}

/// Where an item's bit is in the filter: word and mask.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
fn bit(item: u32) -> (usize, u32) {
    ((item >> 5) as usize % FILTER_WORDS, 1 << (item & 31))
}

/// Fills `out` with those items of numbers below `bound` that are not taken.
///
/// `has_hit` may say of a group without taken items that it has one, but not the reverse.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
fn fill<T: Id>(
    steps: &mut Steps,
    draws: &Draws,
    bound: u32,
    mut out: &mut [T],
    item: impl Fn(u32) -> u32,
    has_hit: impl Fn(&[u32; GROUP]) -> bool,
    is_taken: impl Fn(u32) -> bool,
) -> Result<()> {
    let tail = tail(bound);
    let mut group = 0;
    while !out.is_empty() {
        steps.take(GROUP)?;
        let words = draws.words(group);
        group = group.wrapping_add(1);
        let (mut items, mut lows) = ([0; GROUP], [0; GROUP]);
        let mut in_tail = 0;
        for k in 0..GROUP {
            let [low, high] = halves(u64::from(words[k]) * u64::from(bound));
            (lows[k], items[k]) = (low, high);
            in_tail |= u32::from(low < tail);
        }
        for number in &mut items {
            *number = item(*number);
        }
        if in_tail == 0 && !has_hit(&items) {
            // A length that is known lets whole groups be written by few instructions.
            if let Some(out) = out.first_chunk_mut::<GROUP>() {
                write(out, &items);
            } else {
                write(out, &items);
            }
            let kept = GROUP.min(out.len());
            out = &mut out[kept..];
            continue;
        }
        let mut kept = 0;
        for (&item, low) in items.iter().zip(lows) {
            if low >= tail && !is_taken(item) {
                out[kept] = T::from_id(item);
                kept += 1;
                if kept == out.len() {
                    return Ok(());
                }
            }
        }
        out = &mut out[kept..];
    }
    Ok(())
}

#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
fn write<T: Id>(out: &mut [T], items: &[u32; GROUP]) {
    for (out, &item) in out.iter_mut().zip(items) {
        *out = T::from_id(item);
    }
}
