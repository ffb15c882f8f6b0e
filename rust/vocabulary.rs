//! How often the ids of a vocabulary occur, how they rank, and what they become in another one.
//!
//! Source: `OpenBA-V2` (arXiv 2405.05957), pruning of the vocabulary: count, keep the most
//! frequent, map old ids to new ones.
//!
//! Ids are read where they lie, in their own type. An id that the vocabulary lacks takes the slot
//! behind the last one: bounds cost a minimum and no branch, and how many there are is known at
//! the end. What stays in the cache decides on the time: a table of counters has 32 bits for each
//! id, and so has the table of new ids, whatever type they are written in. A new id that is
//! missing is negative there; only a stretch that has such a one is looked at again.

use std::cmp::Reverse;

use crate::check::{in_range, same_length};
use crate::error::{Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::threads::{count as count_threads, run_blocks};

/// The most ids that a vocabulary has: one more is no int32.
pub const MOST_IDS: usize = 1 << 31;
/// New ids are below, whatever type they are written in.
pub const NEW_IDS_END: i64 = 1 << 31;

/// Ids that a loop takes at once.
const UNROLLED: usize = 8;
/// Ids after which it is asked whether one was lost: they are still in the nearest cache.
const STRETCH: usize = 1 << 11;
/// Ids between two looks at whether the caller stops.
const STRIDE: usize = 1 << 16;
/// Ids that a thread takes at a time, at least.
const LEAST_BLOCK: usize = 1 << 20;
/// The same at most, unless the vocabulary is large: adding its counters up costs, too.
const MOST_BLOCK: usize = 1 << 24;
/// Counters are of 32 bits, and a block of no more ids than they hold.
const LARGEST_BLOCK: usize = 1 << 31;
/// Counts that are sorted at once.
const SORTED_AT_ONCE: usize = 1 << 18;

/// Problems of the vocabulary alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Ids that the vocabulary does not have.
    #[error(
        "ids[{index}] must be at least 0 and below {size}: got {got}, the first of {count} outside"
    )]
    Outside {
        /// Where the first of them stands, with several dimensions as `row, column`.
        index: String,
        /// Ids of the vocabulary.
        size: usize,
        /// The id.
        got: i64,
        /// How many there are.
        count: u64,
    },
    /// Ids that have no new id.
    #[error(
        "ids[{index}] must have a new id in the table: got {got}, the first of {count} without"
    )]
    Lost {
        /// Where the first of them stands, with several dimensions as `row, column`.
        index: String,
        /// The id.
        got: i64,
        /// How many there are.
        count: u64,
    },
    /// A number that is no count.
    #[error("counts[{index}] must be at least 0: got {got}")]
    NegativeCount {
        /// Its index.
        index: usize,
        /// The number.
        got: i64,
    },
    /// A new id that cannot be one.
    #[error("table[{index}] must be at least -1 and below {end}: got {got}")]
    NewId {
        /// Its index, which is the old id.
        index: usize,
        /// One more than the last new id that the type of the output holds.
        end: i128,
        /// The new id.
        got: i64,
    },
}

impl Problem {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Outside { .. } | Self::Lost { .. } => Kind::Index,
            Self::NegativeCount { .. } | Self::NewId { .. } => Kind::Value,
        }
    }
}

/// A type that ids are stored in.
pub trait Id: Copy + Send + Sync {
    /// The id as an index; of one below 0 more than any vocabulary has.
    fn slot(self) -> usize;
    /// The id as a number.
    fn number(self) -> i64;
}

macro_rules! ids {
    ($($kind:ty => $slot:expr),*) => {
        $(impl Id for $kind {
            #[inline]
            fn slot(self) -> usize {
                let slot: fn($kind) -> usize = $slot;
                slot(self)
            }

            #[inline]
            fn number(self) -> i64 {
                i64::from(self)
            }
        })*
    };
}

ids!(
    u16 => usize::from,
    u32 => |id| usize::try_from(id).unwrap_or(usize::MAX),
    i32 => |id| usize::try_from(id.cast_unsigned()).unwrap_or(usize::MAX),
    i64 => |id| usize::try_from(id.cast_unsigned()).unwrap_or(usize::MAX)
);

/// A type that new ids are written in.
pub trait NewId: Copy + Send + Sync {
    /// The least number that it holds.
    const LEAST: i128;
    /// One more than the most.
    const END: i128;
    /// A number that it holds.
    fn narrow(number: i64) -> Self;
}

macro_rules! new_ids {
    ($($kind:ty => $narrow:expr),*) => {
        $(impl NewId for $kind {
            const LEAST: i128 = <$kind>::MIN as i128;
            const END: i128 = <$kind>::MAX as i128 + 1;

            #[inline]
            fn narrow(number: i64) -> Self {
                let narrow: fn(i64) -> $kind = $narrow;
                narrow(number)
            }
        })*
    };
}

new_ids!(u16 => low_quarter, i32 => low_half, i64 => |number| number);

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number that fits")]
const fn low_quarter(number: i64) -> u16 {
    number as u16
}

#[expect(clippy::cast_possible_truncation, reason = "a number that fits")]
const fn low_half(number: i64) -> i32 {
    number as i32
}

/// Ids of any shape, in C order.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a, T> {
    /// The ids.
    pub values: &'a [T],
    /// Their shape, for errors.
    pub shape: &'a [usize],
}

impl<T: Id> Ids<'_, T> {
    /// The first id for which this holds: where it stands, and which it is.
    fn find(&self, is_meant: impl Fn(usize) -> bool) -> Result<(String, i64)> {
        let mut steps = Steps::default();
        for (part, start) in self.values.chunks(STRIDE).zip((0..).step_by(STRIDE)) {
            steps.take(part.len())?;
            if let Some(place) = part.iter().position(|id| is_meant(id.slot())) {
                return Ok((self.show_place(start + place), part[place].number()));
            }
        }
        Ok((String::new(), 0)) // there is one: it was counted
    }

    fn show_place(&self, place: usize) -> String {
        let (mut rest, mut places) = (place, Vec::new());
        for &length in self.shape.iter().rev() {
            places.push((rest % length.max(1)).to_string());
            rest /= length.max(1);
        }
        places.reverse();
        places.join(", ")
    }
}

/// Adds how often each id occurs to `counts`, and returns how many ids are outside of them.
///
/// `threads` does not change the result; with an error, `counts` are as they were.
///
/// # Errors
/// Too many counts, or an id outside where `unknown` is not set.
pub fn count_ids<T: Id>(
    ids: Ids<'_, T>,
    counts: &mut [i64],
    unknown: bool,
    threads: Option<usize>,
) -> Result<u64> {
    let size = counts.len();
    in_range("vocabulary_size", size as i128, 1..=MOST_IDS as i128)?;
    let mut totals = memory::repeat(0_u64, size + 1)?;
    let share = ids.values.len() / (4 * count_threads(threads));
    let least = LEAST_BLOCK.max(4 * size).min(LARGEST_BLOCK);
    let mut blocks = ids.values.chunks(share.clamp(least, least.max(MOST_BLOCK)));
    run_blocks(
        threads,
        &mut || Ok(blocks.next()),
        &|(): &mut (), block| count_block(block, size),
        &mut |part| {
            for (total, more) in totals.iter_mut().zip(part?) {
                *total += u64::from(more);
            }
            Ok(())
        },
        &mut interrupt::check,
    )?;
    let outside = totals.pop().unwrap_or(0);
    if outside > 0 && !unknown {
        let (index, got) = ids.find(|slot| slot >= size)?;
        return Err(Problem::Outside { index, size, got, count: outside }.into());
    }
    for (count, total) in counts.iter_mut().zip(totals) {
        *count = count.wrapping_add_unsigned(total);
    }
    Ok(outside)
}

/// Counts of a block, and behind them how many ids are outside.
fn count_block<T: Id>(block: &[T], size: usize) -> Result<Vec<u32>> {
    let mut table = memory::repeat(0, size + 1)?;
    let mut steps = Steps::default();
    for part in block.chunks(STRIDE) {
        steps.take(part.len())?;
        add(part, &mut table);
    }
    Ok(table)
}

#[inline(never)]
fn add<T: Id>(ids: &[T], table: &mut [u32]) {
    let Some(last) = table.len().checked_sub(1) else { return };
    let (parts, rest) = ids.as_chunks::<UNROLLED>();
    for part in parts {
        for id in part {
            table[id.slot().min(last)] += 1;
        }
    }
    for id in rest {
        table[id.slot().min(last)] += 1;
    }
}

/// The ids by falling count; of equal counts the smaller id comes first.
///
/// # Errors
/// A count is negative.
pub fn rank_ids(counts: &[i64]) -> Result<Vec<i64>> {
    let mut steps = Steps::default();
    let mut ranked = memory::with_capacity(counts.len())?;
    for (index, (&count, id)) in counts.iter().zip(0_i64..).enumerate() {
        if index % STRIDE == 0 {
            steps.take(STRIDE)?;
        }
        if count < 0 {
            return Err(Problem::NegativeCount { index, got: count }.into());
        }
        ranked.push((Reverse(count), id));
    }
    sort(&mut ranked)?;
    let mut ids = memory::with_capacity(ranked.len())?;
    ids.extend(ranked.into_iter().map(|(_, id)| id));
    Ok(ids)
}

/// Sorts by parts, so that the caller can stop in between, and merges them.
fn sort<T: Ord + Copy>(items: &mut Vec<T>) -> Result<()> {
    for part in items.chunks_mut(SORTED_AT_ONCE) {
        interrupt::check()?;
        part.sort_unstable();
    }
    let (mut width, mut steps) = (SORTED_AT_ONCE, Steps::default());
    while width < items.len() {
        let mut merged = memory::with_capacity(items.len())?;
        for pair in items.chunks(2 * width) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
            while let Some(&item) = match (left.peek(), right.peek()) {
                (Some(one), Some(other)) if other < one => right.next(),
                (None, _) => right.next(),
                _ => left.next(),
            } {
                steps.take(1)?;
                merged.push(item);
            }
        }
        *items = merged;
        width *= 2;
    }
    Ok(())
}

/// Ids that have no new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many there are.
    pub count: u64,
    /// Which they are and how many of each, by falling number and then by id, if that was asked.
    pub ids: Vec<(i64, u64)>,
}

/// Writes the new id of each id into `out`, and returns how many have none.
///
/// Old id i becomes `table[i]`; one whose entry is -1, and one that the table lacks, becomes `fill`.
/// `threads` does not change the result; with an error, what stands in `out` is not defined.
///
/// # Errors
/// Lengths that differ, a new id or `fill` that the output does not hold, or, without `fill`, an
/// id that has none.
pub fn remap_ids<T: Id, N: NewId>(
    ids: Ids<'_, T>,
    table: &[i64],
    fill: Option<i64>,
    report: bool,
    out: &mut [N],
    threads: Option<usize>,
) -> Result<Lost> {
    same_length(("ids", ids.values.len()), ("out", out.len()))?;
    if let Some(fill) = fill {
        in_range("fill", fill.into(), N::LEAST..N::END)?;
    }
    let entries = make_entries::<N>(table)?;
    let is_lost = |slot: usize| entries[slot.min(table.len())] < 0;
    let none = N::narrow(fill.unwrap_or(0));
    let mut blocks = ids.values.chunks(LEAST_BLOCK).zip(out.chunks_mut(LEAST_BLOCK));
    let mut lost = Lost::default();
    let mut known: Vec<(i64, u64)> = Vec::new();
    run_blocks(
        threads,
        &mut || Ok(blocks.next()),
        &|(): &mut (), (block, place): (&[T], &mut [N])| -> Result<(u64, Vec<i64>)> {
            let count = translate(block, &entries, none, place)?;
            let found = if report && count > 0 { find_all(block, count, is_lost)? } else { vec![] };
            Ok((count, found))
        },
        &mut |part| {
            let (count, found) = part?;
            lost.count += count;
            if !found.is_empty() {
                known = add_found(&known, &found)?;
            }
            Ok(())
        },
        &mut interrupt::check,
    )?;
    if lost.count > 0 && fill.is_none() {
        let (index, got) = ids.find(is_lost)?;
        return Err(Problem::Lost { index, got, count: lost.count }.into());
    }
    let mut ranked = memory::with_capacity(known.len())?;
    ranked.extend(known.into_iter().map(|(id, count)| (Reverse(count), id)));
    sort(&mut ranked)?;
    lost.ids = memory::with_capacity(ranked.len())?;
    lost.ids.extend(ranked.into_iter().map(|(Reverse(count), id)| (id, count)));
    Ok(lost)
}

/// The new id of each old one, or -1; the last entry is for all other ids.
fn make_entries<N: NewId>(table: &[i64]) -> Result<Vec<i32>> {
    in_range("the length of table", table.len() as i128, 1..=MOST_IDS as i128)?;
    let end = i128::from(NEW_IDS_END).min(N::END);
    let mut entries = memory::with_capacity(table.len() + 1)?;
    for (index, &got) in table.iter().enumerate() {
        if index % STRIDE == 0 {
            interrupt::check()?;
        }
        match i32::try_from(got) {
            Ok(new) if (-1..end).contains(&got.into()) => entries.push(new),
            _ => return Err(Problem::NewId { index, end, got }.into()),
        }
    }
    entries.push(-1);
    Ok(entries)
}

/// Writes the new ids of a block, and returns how many have none: `none` stands in their place.
fn translate<T: Id, N: NewId>(block: &[T], entries: &[i32], none: N, out: &mut [N]) -> Result<u64> {
    let mut steps = Steps::default();
    let mut lost = 0;
    for (part, places) in block.chunks(STRETCH).zip(out.chunks_mut(STRETCH)) {
        steps.take(part.len())?;
        if look_up(part, entries, places) {
            lost += replace_lost(part, entries, none, places);
        }
    }
    Ok(lost)
}

/// Writes new ids, and returns whether one is missing.
#[inline(never)]
fn look_up<T: Id, N: NewId>(ids: &[T], entries: &[i32], out: &mut [N]) -> bool {
    let Some(last) = entries.len().checked_sub(1) else { return false };
    let mut any = 0;
    let mut one = |id: &T, place: &mut N| {
        let entry = entries[id.slot().min(last)];
        *place = N::narrow(entry.into());
        any |= entry;
    };
    let (parts, rest) = ids.as_chunks::<UNROLLED>();
    let (places, rest_places) = out.as_chunks_mut::<UNROLLED>();
    for (part, place) in parts.iter().zip(places) {
        for (id, place) in part.iter().zip(place) {
            one(id, place);
        }
    }
    for (id, place) in rest.iter().zip(rest_places) {
        one(id, place);
    }
    any < 0
}

/// Writes `none` where a new id is missing, and returns how often.
#[inline(never)]
fn replace_lost<T: Id, N: NewId>(ids: &[T], entries: &[i32], none: N, out: &mut [N]) -> u64 {
    let Some(last) = entries.len().checked_sub(1) else { return 0 };
    let mut missing = 0;
    for (id, place) in ids.iter().zip(out) {
        let is_lost = entries[id.slot().min(last)] < 0;
        *place = if is_lost { none } else { *place };
        missing += u64::from(is_lost);
    }
    missing
}

/// The lost ids of a block, sorted.
fn find_all<T: Id>(block: &[T], count: u64, is_lost: impl Fn(usize) -> bool) -> Result<Vec<i64>> {
    let mut found = memory::with_capacity(usize::try_from(count).unwrap_or(usize::MAX))?;
    found.extend(block.iter().filter(|id| is_lost(id.slot())).map(|id| id.number()));
    sort(&mut found)?;
    Ok(found)
}

/// Ids with their numbers and more ids, both sorted, as ids with their numbers.
fn add_found(known: &[(i64, u64)], found: &[i64]) -> Result<Vec<(i64, u64)>> {
    let mut all: Vec<(i64, u64)> = Vec::new();
    let mut steps = Steps::default();
    let mut known = known.iter().copied().peekable();
    let mut groups = found.chunk_by(|one, other| one == other).peekable();
    loop {
        steps.take(1)?;
        let first = groups.peek().map(|group| group[0]);
        let next = match (known.peek(), first) {
            (Some(&(id, _)), Some(first)) if first == id => {
                let more = groups.next().map_or(0, <[i64]>::len) as u64;
                known.next().map(|(id, count)| (id, count + more))
            }
            (Some(&(id, _)), Some(first)) if first < id => {
                groups.next().map(|group| (first, group.len() as u64))
            }
            (Some(_), _) => known.next(),
            (None, Some(first)) => groups.next().map(|group| (first, group.len() as u64)),
            (None, None) => return Ok(all),
        };
        if let Some(next) = next {
            memory::push(&mut all, next)?;
        }
    }
}
