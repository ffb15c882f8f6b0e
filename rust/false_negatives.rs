//! The memory of `UFNRec`: hard negatives are shown again, and turn positive when that recurs.
//!
//! The definition is `reference/false_negatives.py`. All that belongs to a user stands together,
//! since a row of a batch is one user: her lists in the order in which a row is walked, and a
//! hash table of 64-bit words, each a count with its position and item.

use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::hint::black_box;

use crate::check::{check_length, check_same_length};
use crate::error::{Error, Result};
use crate::interrupt::{self, Steps};
use crate::memory;

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

/// A valid position of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Row of the batch.
    pub row: usize,
    /// Window position, below 2^8.
    pub position: u32,
    /// Which block of N negatives is its own.
    pub block: usize,
}

/// Valid positions of a batch, in the authors' order: rows up, positions down.
///
/// Every row is below the number of rows, every block below the number of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    list: Vec<Place>,
    rows: usize,
    blocks: usize,
}

impl Places {
    /// Checks that these are places of as many rows as there are users.
    fn check_users(&self, users: &[i64]) -> Result<()> {
        check_same_length(("positives", self.rows), ("users", users.len()))?;
        check_users(users)
    }

    /// Checks that a slice holds so many values for each block.
    fn check_values(&self, name: &'static str, got: usize, block: usize) -> Result<()> {
        check_length(name, got, memory::size(&[self.blocks, block])?)
    }
}

impl std::ops::Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        &self.list
    }
}

/// The valid positions of padded rows.
///
/// # Errors
/// A zero stands right of a target, or the rows are not of that length.
pub fn padded_places(positives: &[i64], max_length: usize) -> Result<Places> {
    check_max_length(max_length)?;
    let rows = positives.len() / max_length;
    check_length("positives", positives.len(), rows * max_length)?;
    let mut places = memory::with_capacity(positives.len())?;
    for (row, targets) in positives.chunks_exact(max_length).enumerate() {
        let start = targets.iter().rposition(|&target| target == 0).map_or(0, |zero| zero + 1);
        if let Some(first) = targets[..start].iter().position(|&target| target != 0) {
            let zero = targets[first..].iter().position(|&target| target == 0).unwrap_or(0);
            return Err(Error::NotLeftPadded { row, position: first + zero });
        }
        let block = row * max_length;
        places.extend((start..max_length).rev().map(|p| place(row, p, block + p)));
    }
    Ok(Places { list: places, rows, blocks: positives.len() })
}

/// The packed positions; `packed` holds row * `max_length` + position.
///
/// # Errors
/// A place is out of its range, or the places do not ascend.
pub fn packed_places(packed: &[i64], rows: usize, max_length: usize) -> Result<Places> {
    check_max_length(max_length)?;
    let end = memory::size(&[rows, max_length])?;
    let mut places: Vec<Place> = memory::with_capacity(packed.len())?;
    // Places of the open row stand in ascending order until the row ends.
    let (mut before, mut open, mut open_row) = (-1, 0, 0);
    for (index, &got) in packed.iter().enumerate() {
        let Some(flat) = usize::try_from(got).ok().filter(|&flat| flat < end) else {
            return Err(Error::PlaceRange { end, got, index });
        };
        if got <= before {
            return Err(Error::PlaceOrder { before, got, index });
        }
        before = got;
        let row = flat / max_length;
        if row != open_row {
            places[open..].reverse();
            (open, open_row) = (places.len(), row);
        }
        places.push(place(row, flat % max_length, index));
    }
    places[open..].reverse();
    Ok(Places { list: places, rows, blocks: packed.len() })
}

#[expect(clippy::cast_possible_truncation, reason = "positions are below 2^8")]
fn place(row: usize, position: usize, block: usize) -> Place {
    Place { row, position: position as u32, block }
}

/// Checks that every position of a window fits its bits.
///
/// # Errors
/// It does not.
pub fn check_max_length(max_length: usize) -> Result<()> {
    if (1..=1 << POSITION_BITS).contains(&max_length) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        name: "max_length",
        range: format!("at least 1 and at most {}", 1 << POSITION_BITS),
        got: max_length.to_string(),
    })
}

/// What tells which negatives scored above the positive.
#[derive(Debug, Clone, Copy)]
pub enum Scores<'a> {
    /// N bytes a position: not 0 where it did.
    Hard(&'a [u8]),
    /// 1 + N logits a position, the positive's first.
    Single(&'a [f32]),
    /// The same in double precision.
    Double(&'a [f64]),
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

/// All that a memory holds, in ascending order of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// user * 2^8 + position of each list.
    pub hard_keys: Vec<u32>,
    /// Where each list starts in `hard_items`, and where the last ends.
    pub hard_offsets: Vec<i64>,
    /// The lists.
    pub hard_items: Vec<u32>,
    /// user * 2^40 + position * 2^32 + item of each count.
    pub count_keys: Vec<u64>,
    /// The counts.
    pub counts: Vec<u32>,
    /// Counts that were given up so far.
    pub evicted_count: u64,
}

/// Hard negatives per user and window position, and how often each was presented again.
#[derive(Debug, Default)]
pub struct Memory {
    threshold: Option<u32>,
    max_keys: Option<usize>,
    places: HashMap<u32, u32, foldhash::fast::FixedState>,
    users: Vec<User>,
    hard_count: usize,
    key_count: usize,
    reversed_key_count: usize,
    evicted_count: u64,
    /// At least as large as any stored item.
    item_bound: u32,
    scratch: Scratch,
}

/// Working memory of [`Memory::observe`].
#[derive(Debug, Default)]
struct Scratch {
    /// A byte for each negative of each place: 1 where it is hard.
    above: Vec<u8>,
    /// Hard items of all places, and where those of each place end.
    items: Vec<u32>,
    ends: Vec<usize>,
    /// The lists of one user in the making.
    lists: Vec<List>,
    hard: Vec<u32>,
}

/// Hard items of one position: they end at `end` of the user's, and start where the last ended.
#[derive(Debug, Clone, Copy)]
struct List {
    position: u32,
    end: u32,
}

#[derive(Debug, Default)]
struct User {
    id: u32,
    /// In descending order of positions; no list is empty.
    lists: Vec<List>,
    hard: Vec<u32>,
    counts: Counts,
}

impl User {
    /// The position and items of each list.
    fn each_list(&self) -> impl DoubleEndedIterator<Item = (u32, &[u32])> {
        (0..self.lists.len()).map(|k| {
            let start = if k == 0 { 0 } else { self.lists[k - 1].end as usize };
            let List { position, end } = self.lists[k];
            (position, &self.hard[start..end as usize])
        })
    }
}

impl Memory {
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
        let own = self.users.capacity() * size_of::<User>() + self.places.allocation_size();
        self.users.iter().fold(own, |sum, user| {
            sum + user.lists.capacity() * size_of::<List>()
                + user.hard.capacity() * size_of::<u32>()
                + user.counts.words.capacity() * size_of::<u64>()
        })
    }

    /// Writes stored items over the first negatives of each place, counts them and returns
    /// those above the threshold.
    ///
    /// Stops before the work or not at all: a part of it could not be taken back.
    ///
    /// # Errors
    /// Lengths that do not fit, a user id out of its range, or `T` cannot hold a stored item.
    pub fn inject<T: Item>(
        &mut self,
        users: &[i64],
        places: &Places,
        negative_count: usize,
        negatives: &mut [T],
    ) -> Result<Reversed> {
        places.check_users(users)?;
        places.check_values("negatives", negatives.len(), negative_count)?;
        self.check_items_fit(T::LARGEST)?;
        interrupt::check()?;
        let limit = self.threshold.unwrap_or(u32::MAX);
        let mut reversed = Reversed::default();
        // A user's lists, and then her counts, are read once before they are needed: reads that
        // do not wait for each other take a tenth of the time where memory is far.
        let rows: Vec<(&[Place], usize)> = places
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
                while left.first().is_some_and(|place| place.position > list.position) {
                    left = &left[1..];
                }
                let Some(place) = left.first().filter(|p| p.position == list.position) else {
                    continue;
                };
                let first = place.block * negative_count;
                let Some(block) = negatives.get_mut(first..first + negative_count) else {
                    continue;
                };
                for (slot, (negative, &item)) in block.iter_mut().zip(items).enumerate() {
                    *negative = T::from_item(item);
                    let count = counts.increment(place.position, item);
                    if count > limit {
                        self.reversed_key_count += usize::from(count == limit + 1);
                        reversed.push(place, slot, count);
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

    /// Stores the negatives of each place that scored above its positive, but for those that
    /// were reversed, and returns their number.
    ///
    /// `reversed` holds row, position and slot of each, in the order of [`Memory::inject`].
    ///
    /// # Errors
    /// Lengths that do not fit, a user or item id out of its range, a score that is NaN, or
    /// `reversed` is of another batch.
    pub fn observe<T: Item>(
        &mut self,
        users: &[i64],
        places: &Places,
        negative_count: usize,
        negatives: &[T],
        scores: Scores<'_>,
        reversed: &[i64],
    ) -> Result<usize> {
        places.check_users(users)?;
        places.check_values("negatives", negatives.len(), negative_count)?;
        let (got, columns) = match scores {
            Scores::Hard(mask) => (mask.len(), negative_count),
            Scores::Single(logits) => (logits.len(), negative_count + 1),
            Scores::Double(logits) => (logits.len(), negative_count + 1),
        };
        places.check_values("scores", got, columns)?;
        check_length("reversed_", reversed.len(), reversed.len() / 3 * 3)?;
        let Scratch { above, items, ends, .. } = &mut self.scratch;
        let size = memory::size(&[places.len(), negative_count])?;
        if above.len() < size {
            *above = memory::repeat(0, size)?;
        }
        let mut steps = Steps::default();
        let nan = compare(scores, places, negative_count, above, &mut steps)?;
        items.clear();
        ends.clear();
        let mut bound = self.item_bound;
        let mut left = reversed;
        // What stands before a NaN is looked at first: errors come in the order of places.
        for (k, place) in places.iter().enumerate().take(nan.map_or(places.len(), |nan| nan.0)) {
            steps.take(negative_count)?;
            let above = &mut above[k * negative_count..(k + 1) * negative_count];
            while let [row, position, slot, rest @ ..] = left {
                let here = *row == as_i64(place.row) && *position == i64::from(place.position);
                let slot = usize::try_from(*slot).ok().filter(|&slot| slot < negative_count);
                let Some(slot) = slot.filter(|_| here) else { break };
                above[slot] = 0;
                left = rest;
            }
            let block = &negatives[place.block * negative_count..][..negative_count];
            for_each_set(above, |slot| {
                let got = block[slot].widen();
                let item = u32::try_from(got).ok().filter(|&item| item > 0).ok_or_else(|| {
                    let (row, position) = (place.row, place.position);
                    Error::ItemRange { got, row, position, slot }
                })?;
                bound = bound.max(item);
                items.push(item);
                Ok(())
            })?;
            ends.push(items.len());
        }
        if let Some((k, column)) = nan {
            let Place { row, position, .. } = places[k];
            return Err(Error::NanLogit { row, position, column });
        }
        if let [row, position, slot, ..] = *left {
            let index = (reversed.len() - left.len()) / 3;
            return Err(Error::NotReversed { coordinates: [row, position, slot], index });
        }
        self.item_bound = bound;
        self.store(users, places);
        Ok(self.scratch.items.len())
    }

    /// Replaces the lists of the places by the items in the working memory.
    #[expect(clippy::cast_possible_truncation, reason = "a user has fewer than 2^32 hard items")]
    fn store(&mut self, users: &[i64], places: &[Place]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        black_box(self.touch(users, places));
        let (mut start, mut next) = (0, 0);
        for row in places.chunk_by(|a, b| a.row == b.row) {
            let ends = &scratch.ends[next..next + row.len()];
            next += row.len();
            let last = ends.last().copied().unwrap_or(start);
            let found = self.find(users, row[0].row);
            if found.is_none() && start == last {
                continue;
            }
            let user = found.unwrap_or_else(|| self.add(users, row[0].row));
            let user = &mut self.users[user];
            let (lists, hard) = (&mut scratch.lists, &mut scratch.hard);
            lists.clear();
            hard.clear();
            let mut old = user.each_list().peekable();
            for (place, &end) in row.iter().zip(ends) {
                while let Some((position, items)) = old.next_if(|o| o.0 >= place.position) {
                    if position > place.position {
                        hard.extend_from_slice(items);
                        lists.push(List { position, end: hard.len() as u32 });
                    }
                }
                if end > start {
                    hard.extend_from_slice(&scratch.items[start..end]);
                    lists.push(List { position: place.position, end: hard.len() as u32 });
                }
                start = end;
            }
            for (position, items) in old {
                hard.extend_from_slice(items);
                lists.push(List { position, end: hard.len() as u32 });
            }
            self.hard_count = self.hard_count + hard.len() - user.hard.len();
            user.lists.clear();
            user.lists.extend_from_slice(lists);
            user.hard.clear();
            user.hard.extend_from_slice(hard);
        }
        self.scratch = scratch;
    }

    /// All that the memory holds.
    ///
    /// # Errors
    /// There is not enough memory, or the caller stopped.
    pub fn state(&self) -> Result<State> {
        let mut state = State { evicted_count: self.evicted_count, ..State::default() };
        let lists = self.users.iter().map(|user| user.lists.len()).sum();
        state.hard_keys = memory::with_capacity(lists)?;
        state.hard_offsets = memory::with_capacity(lists + 1)?;
        state.hard_items = memory::with_capacity(self.hard_count)?;
        state.count_keys = memory::with_capacity(self.key_count)?;
        state.counts = memory::with_capacity(self.key_count)?;
        state.hard_offsets.push(0);
        let mut words = Vec::new();
        let mut steps = Steps::default();
        for user in self.in_order() {
            steps.take(user.hard.len() + user.counts.words.len() + 1)?;
            for (position, items) in user.each_list().rev() {
                state.hard_keys.push(user.id << POSITION_BITS | position);
                state.hard_items.extend_from_slice(items);
                state.hard_offsets.push(as_i64(state.hard_items.len()));
            }
            user.counts.sorted_into(&mut words);
            let high = u64::from(user.id) << (POSITION_BITS + ITEM_BITS);
            state.count_keys.extend(words.iter().map(|word| high | word >> COUNT_BITS));
            state.counts.extend(words.iter().copied().map(count_of));
        }
        Ok(state)
    }

    /// Replaces all that the memory holds by a state.
    ///
    /// # Errors
    /// The arrays are no state.
    #[expect(clippy::cast_possible_truncation, reason = "keys are cut to their parts")]
    pub fn load(&mut self, state: &State) -> Result<()> {
        check_state(state)?;
        let mut new = Self::new(self.threshold, self.max_keys);
        let bounds = state.hard_offsets.windows(2);
        let mut steps = Steps::default();
        // Lists of a user stand in descending order of positions, keys ascend.
        for (&key, bounds) in state.hard_keys.iter().zip(bounds).rev() {
            let range = flat_index(bounds[0])..flat_index(bounds[1]);
            steps.take(range.len() + 1)?;
            let Some(items) = state.hard_items.get(range) else { continue };
            let user = new.find_or_add(key >> POSITION_BITS);
            let user = &mut new.users[user];
            user.hard.extend_from_slice(items);
            let (position, end) = (key & 0xFF, user.hard.len() as u32);
            user.lists.push(List { position, end });
            new.hard_count += items.len();
            new.item_bound = items.iter().copied().fold(new.item_bound, u32::max);
        }
        let keys = state.count_keys.iter().zip(&state.counts);
        for (&key, &count) in keys {
            steps.take(1)?;
            let user = new.find_or_add((key >> (POSITION_BITS + ITEM_BITS)) as u32);
            let low = key & ((1 << (POSITION_BITS + ITEM_BITS)) - 1);
            new.users[user].counts.insert(low << COUNT_BITS | u64::from(count));
            new.reversed_key_count += usize::from(self.threshold.is_some_and(|m| count > m));
        }
        new.key_count = state.count_keys.len();
        new.evicted_count = state.evicted_count;
        *self = new;
        Ok(())
    }

    /// Gives up counts until `most` are left: those of items in no hard list first, then low
    /// counts, then low keys.
    fn evict(&mut self, most: usize) {
        let mut surplus = self.key_count.saturating_sub(most);
        self.evicted_count += surplus as u64;
        // How many keys each (in a hard list, count) has tells where the cut is.
        let mut sizes: BTreeMap<(bool, u32), usize> = BTreeMap::new();
        let mut stored = Vec::new();
        for user in &self.users {
            user.stored_keys_into(&mut stored);
            for word in user.counts.each() {
                *sizes.entry(rank(word, &stored)).or_default() += 1;
            }
        }
        let mut cut = (true, u32::MAX);
        for (&key, &size) in &sizes {
            cut = key;
            if size >= surplus {
                break;
            }
            surplus -= size;
        }
        let mut order: Vec<usize> = (0..self.users.len()).collect();
        order.sort_unstable_by_key(|&user| self.users[user].id);
        let limit = self.threshold.unwrap_or(u32::MAX);
        let mut words = Vec::new();
        (self.key_count, self.reversed_key_count) = (0, 0);
        for user in order {
            let user = &mut self.users[user];
            user.stored_keys_into(&mut stored);
            user.counts.sorted_into(&mut words);
            let mut kept = Counts::default();
            for &word in &words {
                let rank = rank(word, &stored);
                if rank < cut || (rank == cut && surplus > 0) {
                    surplus -= usize::from(rank == cut);
                    continue;
                }
                kept.insert(word);
                self.reversed_key_count += usize::from(count_of(word) > limit);
            }
            self.key_count += kept.used as usize;
            user.counts = kept;
        }
    }

    /// Something that depends on the lists of all users of a batch.
    ///
    /// Reads that do not wait for each other overlap where memory is far.
    fn touch(&self, users: &[i64], places: &[Place]) -> u32 {
        let rows = places.chunk_by(|a, b| a.row == b.row);
        let found = rows.filter_map(|row| self.find(users, row[0].row));
        found.fold(0, |sum, user| sum ^ self.users[user].touch())
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
        self.places.get(&(users[row] as u32)).map(|&place| place as usize)
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
        let place = *self.places.entry(id).or_insert(new as u32) as usize;
        if place == new {
            self.users.push(User { id, ..User::default() });
        }
        place
    }

    fn check_items_fit(&self, largest: u32) -> Result<()> {
        if self.item_bound <= largest {
            return Ok(());
        }
        let items = self.users.iter().flat_map(|user| &user.hard);
        match items.copied().max().filter(|&item| item > largest) {
            Some(item) => Err(Error::ItemWidth { item }),
            None => Ok(()),
        }
    }
}

impl User {
    /// Something that depends on every part of a user but the counts' words.
    fn touch(&self) -> u32 {
        let lists = self.lists.last().map_or(0, |list| list.end);
        self.hard.iter().step_by(16).fold(lists, |sum, item| sum ^ item)
    }

    /// The keys of the items in the lists, sorted.
    fn stored_keys_into(&self, keys: &mut Vec<u64>) {
        keys.clear();
        for (position, items) in self.each_list() {
            keys.extend(items.iter().map(|&item| key_of(position, item)));
        }
        keys.sort_unstable();
    }
}

impl Reversed {
    fn push(&mut self, place: &Place, slot: usize, count: u32) {
        let coordinates = [as_i64(place.row), i64::from(place.position), as_i64(slot)];
        self.coordinates.extend_from_slice(&coordinates);
        self.counts.push(count);
        self.blocks.push(as_i64(place.block));
    }
}

fn check_users(users: &[i64]) -> Result<()> {
    match users.iter().position(|user| !(1..1 << USER_BITS).contains(user)) {
        Some(row) => Err(Error::UserRange { got: users[row], row }),
        None => Ok(()),
    }
}

/// Checks that arrays are the state of a memory.
fn check_state(state: &State) -> Result<()> {
    let State { hard_keys, hard_offsets, hard_items, count_keys, counts, .. } = state;
    let ends = [hard_offsets.first().copied(), hard_offsets.last().copied()];
    let least_key = 1 << (POSITION_BITS + ITEM_BITS);
    let rules = [
        (
            "hard_keys must ascend and have users from 1",
            hard_keys.is_sorted_by(|a, b| a < b)
                && hard_keys.first().is_none_or(|&key| key >= 1 << POSITION_BITS),
        ),
        (
            "hard_offsets must ascend from 0 to the number of hard_items",
            hard_offsets.len().checked_sub(1) == Some(hard_keys.len())
                && ends == [Some(0), Some(as_i64(hard_items.len()))]
                && hard_offsets.is_sorted_by(|a, b| a < b),
        ),
        ("hard_items must be at least 1", hard_items.iter().all(|&item| item > 0)),
        (
            "count_keys must ascend and have users and items from 1",
            count_keys.is_sorted_by(|a, b| a < b)
                && count_keys.first().is_none_or(|&key| key >= least_key)
                && count_keys.iter().all(|&key| key & u64::from(u32::MAX) > 0),
        ),
        (
            "counts must be one per key, from 1 to 16777215",
            counts.len() == count_keys.len()
                && counts.iter().all(|count| (1..=LARGEST_COUNT).contains(count)),
        ),
    ];
    match rules.into_iter().find(|&(_, holds)| !holds) {
        Some((rule, _)) => Err(Error::NotAState { rule }),
        None => Ok(()),
    }
}

/// An offset that was checked.
fn flat_index(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_possible_wrap, reason = "no array has 2^63 items")]
fn as_i64(size: usize) -> i64 {
    size as i64
}

/// A logit.
trait Logit: Copy + PartialOrd {
    fn is_nan(self) -> bool;
}

impl Logit for f32 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Logit for f64 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

/// Writes a byte for each negative of each place: 1 where it scored above the positive.
///
/// Returns which place has a NaN first, and in which column.
fn compare(
    scores: Scores<'_>,
    places: &[Place],
    count: usize,
    above: &mut [u8],
    steps: &mut Steps,
) -> Result<Option<(usize, usize)>> {
    let place = match scores {
        Scores::Hard(hard) => {
            for (k, place) in places.iter().enumerate() {
                steps.take(count)?;
                let hard = &hard[place.block * count..][..count];
                let above = &mut above[k * count..][..count];
                above.iter_mut().zip(hard).for_each(|(above, &hard)| *above = u8::from(hard != 0));
            }
            None
        }
        Scores::Single(logits) => {
            pulp::Arch::new().dispatch(Compare { logits, places, count, above, steps })?
        }
        Scores::Double(logits) => {
            pulp::Arch::new().dispatch(Compare { logits, places, count, above, steps })?
        }
    };
    let Some(place) = place else { return Ok(None) };
    let first = places[place].block * (count + 1);
    let column = match scores {
        Scores::Hard(_) => None,
        Scores::Single(logits) => logits[first..].iter().position(|z| z.is_nan()),
        Scores::Double(logits) => logits[first..].iter().position(|z| z.is_nan()),
    };
    Ok(Some((place, column.unwrap_or(0))))
}

/// The work of [`compare`], compiled once for each set of instructions.
struct Compare<'a, F> {
    logits: &'a [F],
    places: &'a [Place],
    count: usize,
    above: &'a mut [u8],
    steps: &'a mut Steps,
}

impl<F: Logit> pulp::NullaryFnOnce for Compare<'_, F> {
    /// Which place has a NaN first.
    type Output = Result<Option<usize>>;

    #[expect(clippy::inline_always, reason = "or it is compiled for the least processor")]
    #[inline(always)]
    fn call(self) -> Result<Option<usize>> {
        let Self { logits, places, count, above, steps } = self;
        for (k, place) in places.iter().enumerate() {
            steps.take(count)?;
            let block = &logits[place.block * (count + 1)..][..=count];
            let Some((&positive, negatives)) = block.split_first() else { continue };
            let above = &mut above[k * count..][..count];
            let mut nan = u8::from(positive.is_nan());
            for (above, &z) in above.iter_mut().zip(negatives) {
                *above = u8::from(z > positive);
                nan |= u8::from(z.is_nan());
            }
            if nan != 0 {
                return Ok(Some(k));
            }
        }
        Ok(None)
    }
}

/// Calls `visit` with the place of each byte that is 1; the others are 0.
fn for_each_set(bytes: &[u8], mut visit: impl FnMut(usize) -> Result<()>) -> Result<()> {
    for (group, bytes) in bytes.chunks(64).enumerate() {
        let mut bits = 0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for (k, eight) in eights.iter().enumerate() {
            // Byte i goes to bit 56 + i.
            let high = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080);
            bits |= (high >> 56) << (k * 8);
        }
        for (k, &byte) in rest.iter().enumerate() {
            bits |= u64::from(byte) << (eights.len() * 8 + k);
        }
        while bits != 0 {
            visit(group * 64 + bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
        }
    }
    Ok(())
}

/// Whether a count's item is in a hard list, and the count: low ranks are given up first.
fn rank(word: u64, stored: &[u64]) -> (bool, u32) {
    (stored.binary_search(&(word >> COUNT_BITS)).is_ok(), count_of(word))
}

fn key_of(position: u32, item: u32) -> u64 {
    u64::from(position) << ITEM_BITS | u64::from(item)
}

#[expect(clippy::cast_possible_truncation, reason = "the low 24 bits are taken")]
fn count_of(word: u64) -> u32 {
    word as u32 & LARGEST_COUNT
}

/// Counts by position and item: open addressing, linear probing, 8 bytes a slot.
///
/// A word is position (8 bits), item (32), count (24). No item is 0, so 0 is an empty slot.
#[derive(Debug, Default)]
struct Counts {
    words: Vec<u64>,
    used: u32,
}

impl Counts {
    /// Slot that a key would like to have; the capacity may be any number.
    fn home(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ((hash * self.words.len() as u64) >> 32) as usize
    }

    /// The slot of a key, or the empty one where it belongs. There is always an empty slot.
    fn locate(&self, key: u64) -> usize {
        let mut slot = self.home(key);
        loop {
            let word = self.words[slot];
            if word == 0 || word >> COUNT_BITS == key {
                return slot;
            }
            slot += 1;
            if slot == self.words.len() {
                slot = 0;
            }
        }
    }

    /// Something that depends on the slots where a search for these items starts.
    fn touch(&self, position: u32, items: &[u32]) -> u64 {
        if self.words.is_empty() {
            return 0;
        }
        let slots = items.iter().map(|&item| self.home(key_of(position, item)));
        slots.fold(0, |sum, slot| sum ^ self.words[slot])
    }

    /// Something that depends on every cache line of the slots.
    fn touch_all(&self) -> u64 {
        self.words.iter().step_by(8).fold(0, |sum, word| sum ^ word)
    }

    /// Counts an item once more and returns its count.
    fn increment(&mut self, position: u32, item: u32) -> u32 {
        let key = key_of(position, item);
        if !self.words.is_empty() {
            let slot = self.locate(key);
            let word = &mut self.words[slot];
            if *word != 0 {
                *word += u64::from(count_of(*word) < LARGEST_COUNT);
                return count_of(*word);
            }
        }
        self.insert(key << COUNT_BITS | 1);
        1
    }

    /// Adds a word whose key is new.
    fn insert(&mut self, word: u64) {
        // At most three quarters are taken, so that a search ends soon.
        if (self.used as usize + 1) * 4 > self.words.len() * 3 {
            self.grow();
        }
        let slot = self.locate(word >> COUNT_BITS);
        self.words[slot] = word;
        self.used += 1;
    }

    fn grow(&mut self) {
        let size = (self.words.len() + self.words.len() / 2).max(8);
        let old = std::mem::replace(&mut self.words, vec![0; size]);
        for word in old.into_iter().filter(|&word| word != 0) {
            let slot = self.locate(word >> COUNT_BITS);
            self.words[slot] = word;
        }
    }

    fn each(&self) -> impl Iterator<Item = u64> {
        self.words.iter().copied().filter(|&word| word != 0)
    }

    fn sorted_into(&self, words: &mut Vec<u64>) {
        words.clear();
        words.extend(self.each());
        words.sort_unstable();
    }
}
