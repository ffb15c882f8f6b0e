//! The memory of `UFNRec`: hard negatives are shown again, and turn positive when that recurs.
//!
//! The definition is `reference/false_negatives.py`. All that belongs to a user stands together,
//! since a row of a batch is one user: her lists in the order in which a row is walked, and a
//! hash table of 64-bit words, each a count with its position and item.

mod counts;
mod hard;
mod positions;
mod problem;
mod scores;
mod state;

use std::hint::black_box;

use hashbrown::HashMap;

use crate::check::has_length;
use crate::error::Result;
use crate::interrupt::{self, Steps};
use crate::memory;
use hard::{List, Scratch, User};
use scores::{compare, for_each_set};

pub use positions::{Position, Positions, check_max_length, packed_positions, padded_positions};
pub use problem::Problem;
pub use scores::Scores;
pub use state::State;

/// User ids are below 2^24.
pub const USER_BITS: u32 = 24;
/// Window positions are below 2^8.
pub const POSITION_BITS: u32 = 8;
/// Item ids are below 2^32.
pub const ITEM_BITS: u32 = 32;
/// Counts are below 2^24.
pub const COUNT_BITS: u32 = 24;

/// Counts stay at this value when they reach it.
pub const LARGEST_COUNT: u32 = (1 << COUNT_BITS) - 1;

/// An item as an array of negatives holds it.
pub trait Item: Copy + Send + Sync {
    /// The largest item that fits.
    const LARGEST: u32;
    /// As the widest kind.
    fn widen(self) -> i64;
    /// From an item that is at most `LARGEST`.
    fn from_item(item: u32) -> Self;
}

impl Item for i64 {
    const LARGEST: u32 = u32::MAX;
    fn widen(self) -> i64 {
        self
    }
    fn from_item(item: u32) -> Self {
        i64::from(item)
    }
}

impl Item for i32 {
    const LARGEST: u32 = i32::MAX.cast_unsigned();
    fn widen(self) -> i64 {
        i64::from(self)
    }
    fn from_item(item: u32) -> Self {
        item.cast_signed()
    }
}

/// The negatives whose label turns to 1, in the authors' order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reversed {
    /// Row, position and slot of each, one after the other.
    pub coordinates: Vec<i64>,
    /// How often each was presented again so far, this time included.
    pub counts: Vec<u32>,
    /// Which block of N negatives each stands in.
    pub blocks: Vec<i64>,
}

/// Hard negatives per user and window position, and how often each was presented again.
#[derive(Debug, Default)]
pub struct FalseNegativeMemory {
    threshold: Option<u32>,
    max_keys: Option<usize>,
    /// Where each user stands in `users`, by id.
    indices: HashMap<u32, u32, foldhash::fast::FixedState>,
    users: Vec<User>,
    hard_count: usize,
    key_count: usize,
    reversed_key_count: usize,
    evicted_count: u64,
    /// At least as large as any stored item.
    item_bound: u32,
    scratch: Scratch,
}

impl FalseNegativeMemory {
    /// An empty memory: items presented again more than `threshold` times are reversed, at
    /// most `max_keys` counts are kept. The threshold is below [`LARGEST_COUNT`] - 1.
    pub fn new(threshold: Option<u32>, max_keys: Option<usize>) -> Self {
        Self { threshold, max_keys, ..Self::default() }
    }

    /// Stored hard negatives.
    pub fn hard_count(&self) -> usize {
        self.hard_count
    }

    /// Counts.
    pub fn key_count(&self) -> usize {
        self.key_count
    }

    /// Counts above the threshold.
    pub fn reversed_key_count(&self) -> usize {
        self.reversed_key_count
    }

    /// Counts that were given up so far.
    pub fn evicted_count(&self) -> u64 {
        self.evicted_count
    }

    /// Bytes that the lists and counts take, reserved ones included.
    pub fn memory_bytes(&self) -> usize {
        let own = self.users.capacity() * size_of::<User>() + self.indices.allocation_size();
        self.users.iter().fold(own, |sum, user| {
            sum + user.lists.capacity() * size_of::<List>()
                + user.hard.capacity() * size_of::<u32>()
                + user.counts.words.capacity() * size_of::<u64>()
        })
    }

    /// Writes stored items over the first negatives of each position, counts them and returns
    /// those above the threshold.
    ///
    /// Stops before the work or not at all: a part of it could not be taken back.
    ///
    /// # Errors
    /// Lengths that do not fit, a user id out of its range, or `T` cannot hold a stored item.
    pub fn inject<T: Item>(
        &mut self,
        users: &[i64],
        positions: &Positions,
        negative_count: usize,
        negatives: &mut [T],
    ) -> Result<Reversed> {
        positions.check_users(users)?;
        positions.check_values("negatives", negatives.len(), negative_count)?;
        self.check_items_fit(T::LARGEST)?;
        interrupt::check()?;
        let limit = self.threshold.unwrap_or(u32::MAX);
        let mut reversed = Reversed::default();
        // A user's lists, and then her counts, are read once before they are needed: reads that
        // do not wait for each other take a tenth of the time where memory is far.
        let rows: Vec<(&[Position], usize)> = positions
            .chunk_by(|a, b| a.row == b.row)
            .filter_map(|row| Some((row, self.find(users, row[0].row)?)))
            .collect();
        black_box(rows.iter().fold(0, |sum, &(_, user)| sum ^ self.users[user].touch()));
        for (row, user) in rows {
            let User { lists, hard, counts, .. } = &mut self.users[user];
            let keys_before = counts.used;
            let mut start = 0;
            // A small table is read from end to end, since most of its lines are needed.
            let touched = if counts.words.len() <= hard.len() * 16 {
                counts.touch_all()
            } else {
                lists.iter().fold(0, |sum, list| {
                    let items = &hard[start..list.end as usize];
                    start = list.end as usize;
                    sum ^ counts.touch(list.position, items)
                })
            };
            black_box(touched);
            let (mut start, mut left) = (0, row);
            for list in lists.iter() {
                let items = &hard[start..list.end as usize];
                start = list.end as usize;
                while left.first().is_some_and(|position| position.column > list.position) {
                    left = &left[1..];
                }
                let Some(position) = left.first().filter(|p| p.column == list.position) else {
                    continue;
                };
                let first = position.block * negative_count;
                let Some(block) = negatives.get_mut(first..first + negative_count) else {
                    continue;
                };
                for (slot, (negative, &item)) in block.iter_mut().zip(items).enumerate() {
                    *negative = T::from_item(item);
                    let count = counts.increment(list.position, item);
                    if count > limit {
                        self.reversed_key_count += usize::from(count == limit + 1);
                        reversed.push(position, slot, count);
                    }
                }
            }
            self.key_count += (counts.used - keys_before) as usize;
        }
        if let Some(most) = self.max_keys.filter(|&most| self.key_count > most) {
            self.evict(most / 4 * 3 + most % 4 * 3 / 4);
        }
        Ok(reversed)
    }

    /// Stores the negatives of each position that scored above its positive, but for those that
    /// were reversed, and returns their number.
    ///
    /// `reversed` holds row, position and slot of each, in the order of [`Self::inject`].
    ///
    /// # Errors
    /// Lengths that do not fit, a user or item id out of its range, a score that is NaN, or
    /// `reversed` is of another batch.
    pub fn observe<T: Item>(
        &mut self,
        users: &[i64],
        positions: &Positions,
        negative_count: usize,
        negatives: &[T],
        scores: Scores<'_>,
        reversed: &[i64],
    ) -> Result<usize> {
        positions.check_users(users)?;
        positions.check_values("negatives", negatives.len(), negative_count)?;
        let (got, columns) = match scores {
            Scores::Hard(mask) => (mask.len(), negative_count),
            Scores::Single(logits) => (logits.len(), negative_count + 1),
            Scores::Double(logits) => (logits.len(), negative_count + 1),
        };
        positions.check_values("scores", got, columns)?;
        has_length("reversed_", reversed.len(), reversed.len() / 3 * 3)?;
        let Scratch { above, items, ends, .. } = &mut self.scratch;
        let size = memory::size(&[positions.len(), negative_count])?;
        if above.len() < size {
            *above = memory::repeat(0, size)?;
        }
        let mut steps = Steps::default();
        let nan = compare(scores, positions, negative_count, above, &mut steps)?;
        items.clear();
        ends.clear();
        let mut bound = self.item_bound;
        let mut left = reversed;
        // What stands before a NaN is looked at first: errors come in the order of positions.
        let whole = nan.map_or(positions.len(), |nan| nan.0);
        for (k, &Position { row, column, block }) in positions[..whole].iter().enumerate() {
            steps.take(negative_count)?;
            let above = &mut above[k * negative_count..(k + 1) * negative_count];
            while let [r, p, slot, rest @ ..] = left {
                let here = *r == as_i64(row) && *p == i64::from(column);
                let slot = usize::try_from(*slot).ok().filter(|&slot| slot < negative_count);
                let Some(slot) = slot.filter(|_| here) else { break };
                above[slot] = 0;
                left = rest;
            }
            let block = &negatives[block * negative_count..][..negative_count];
            for_each_set(above, |slot| {
                let got = block[slot].widen();
                let item = u32::try_from(got).ok().filter(|&item| item > 0);
                let item = item.ok_or(Problem::ItemRange { got, row, position: column, slot })?;
                bound = bound.max(item);
                items.push(item);
                Ok(())
            })?;
            ends.push(items.len());
        }
        if let Some((k, column)) = nan {
            let Position { row, column: position, .. } = positions[k];
            return Err(Problem::NanLogit { row, position, column }.into());
        }
        if let [row, position, slot, ..] = *left {
            let index = (reversed.len() - left.len()) / 3;
            return Err(Problem::NotReversed { coordinates: [row, position, slot], index }.into());
        }
        self.item_bound = bound;
        self.store(users, positions);
        Ok(self.scratch.items.len())
    }

    fn in_order(&self) -> Vec<&User> {
        let mut users: Vec<&User> = self.users.iter().collect();
        users.sort_unstable_by_key(|user| user.id);
        users
    }

    /// Where the user of a row stands, whose id was checked.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value was checked to fit"
    )]
    fn find(&self, users: &[i64], row: usize) -> Option<usize> {
        self.indices.get(&(users[row] as u32)).map(|&index| index as usize)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value was checked to fit"
    )]
    fn add(&mut self, users: &[i64], row: usize) -> usize {
        self.find_or_add(users[row] as u32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "fewer than 2^24 users")]
    fn find_or_add(&mut self, id: u32) -> usize {
        let new = self.users.len();
        let index = *self.indices.entry(id).or_insert(new as u32) as usize;
        if index == new {
            self.users.push(User { id, ..User::default() });
        }
        index
    }

    fn check_items_fit(&self, largest: u32) -> Result<()> {
        if self.item_bound <= largest {
            return Ok(());
        }
        let items = self.users.iter().flat_map(|user| &user.hard);
        match items.copied().max().filter(|&item| item > largest) {
            Some(item) => Err(Problem::ItemWidth { item }.into()),
            None => Ok(()),
        }
    }
}

impl Reversed {
    fn push(&mut self, position: &Position, slot: usize, count: u32) {
        let coordinates = [as_i64(position.row), i64::from(position.column), as_i64(slot)];
        self.coordinates.extend_from_slice(&coordinates);
        self.counts.push(count);
        self.blocks.push(as_i64(position.block));
    }
}

#[expect(clippy::cast_possible_wrap, reason = "no array has 2^63 items")]
fn as_i64(size: usize) -> i64 {
    size as i64
}
