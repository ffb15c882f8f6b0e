//! Training batches of a sequential recommender: users, windows, and negatives that are not in
//! a user's history.
//!
//! Source: the sampler of `UFNRec`, the one of `SASRec`. Each sample is a function of
//! (seed, epoch, place in the epoch) alone, so that batches do not depend on threads or order.

mod draw;

use std::sync::{Arc, RwLock};

use crate::check::check_length;
use crate::error::{Error, Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::philox::{Draws, LANES};
use crate::threads;
use draw::{Catalogue, DrawRows, Popularity, Row, Scratch};

pub use draw::{DENSE_SHARE, DENSE_WEIGHT_SHARE, Id};

/// Epochs are below 2^24.
pub const EPOCH_BITS: u32 = 24;
/// Places in an epoch, `step * batch_size + row`, are below 2^40.
pub const PLACE_BITS: u32 = 40;
/// Streams of Philox: which use of randomness a draw belongs to.
const STREAM_USERS: u32 = 101;
const STREAM_NEGATIVES: u32 = 102;
const STREAM_SHUFFLE: u32 = 103;
const STREAM_CANDIDATES: u32 = 104;
/// One thread makes this many draws in about the time that starting another takes.
const DRAWS_PER_THREAD: usize = 1 << 18;

/// What can go wrong with training batches alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No user has enough items to learn from.
    #[error("no user has at least 2 items")]
    NoEligibleUser,
    /// All items that could be drawn for a user are in her history.
    #[error("user {user}: no item is left to draw, as all are in the history")]
    NoItemLeft {
        /// The user.
        user: u32,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NoEligibleUser | Self::NoItemLeft { .. } => Kind::Value,
        }
    }
}

/// How an epoch goes through the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each sample draws its user anew, as the authors do.
    Replacement,
    /// Each user once an epoch, in an order of the epoch.
    Shuffle,
}

impl Order {
    /// The names that [`Order::from_name`] knows.
    pub const NAMES: [&'static str; 2] = ["replacement", "shuffle"];

    /// The order of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "replacement" => Ok(Self::Replacement),
            "shuffle" => Ok(Self::Shuffle),
            _ => Err(Error::UnknownName { name: "order", known: &Self::NAMES, given: name.into() }),
        }
    }
}

/// What batches look like and how they are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Items have the ids 1 to `item_count`.
    pub item_count: u32,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Positions of a window.
    pub max_length: usize,
    /// Negatives of a position.
    pub negative_count: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// How an epoch goes through the users.
    pub order: Order,
    /// At most this many threads; none: as many as the machine offers.
    pub threads: Option<usize>,
}

/// Histories in compressed rows, and all that drawing from them needs.
#[derive(Debug)]
pub struct SequenceSampler {
    settings: Settings,
    /// Items of user u, in time order, at `offsets[u - 1]..offsets[u]`.
    offsets: Vec<usize>,
    items: Vec<u32>,
    /// The same without repeats, ascending.
    history_offsets: Vec<usize>,
    histories: Vec<u32>,
    eligible: Vec<u32>,
    catalogue: Catalogue,
    /// The order of the epoch that was asked for last. Nobody waits for it: who finds it locked
    /// makes the order again. In a child of a fork nobody may be left to unlock it.
    shuffled: RwLock<Option<(u64, Arc<Vec<u32>>)>>,
}

/// Users and windows of a batch, to be filled: `[B]`, `[B, L]` and `[B, L]`.
#[derive(Debug)]
pub struct Windows<'a, T> {
    /// `[B]`: users.
    pub users: &'a mut [T],
    /// `[B, L]`: items before those to be predicted, padded with 0 on the left.
    pub sequences: &'a mut [T],
    /// `[B, L]`: items to be predicted, padded with 0 on the left.
    pub positives: &'a mut [T],
}

impl SequenceSampler {
    /// A sampler over the train items of all users: those of user u at
    /// `items[offsets[u - 1]..offsets[u]]`, in time order.
    ///
    /// With `weights`, item i is drawn with a probability proportional to `weights[i - 1]`.
    ///
    /// # Errors
    /// Offsets that do not ascend over all items, an item that does not exist, a user for whom
    /// no item is left to draw, or settings out of their range.
    pub fn new(
        offsets: &[i64],
        items: &[i64],
        weights: Option<&[u32]>,
        settings: Settings,
    ) -> Result<Self> {
        check_settings(&settings)?;
        let offsets = check_offsets(offsets, items.len())?;
        let items = check_ids("items", items, settings.item_count, 1)?;
        let mut histories = memory::with_capacity(items.len())?;
        let mut history_offsets = memory::with_capacity(offsets.len())?;
        history_offsets.push(0);
        let mut steps = Steps::default();
        for row in offsets.windows(2) {
            steps.take(row[1] - row[0] + 1)?;
            let start = histories.len();
            histories.extend_from_slice(&items[row[0]..row[1]]);
            histories[start..].sort_unstable();
            let mut kept = start;
            for place in start..histories.len() {
                if place == start || histories[place] != histories[kept - 1] {
                    histories[kept] = histories[place];
                    kept += 1;
                }
            }
            histories.truncate(kept);
            history_offsets.push(kept);
        }
        let users = u32::try_from(offsets.len() - 1).map_err(|_| Error::OutOfRange {
            name: "offsets",
            range: "at most 2**32 long".to_owned(),
            got: offsets.len().to_string(),
        })?;
        let has_two = |user: &u32| offsets[*user as usize] - offsets[*user as usize - 1] >= 2;
        let mut eligible = memory::with_capacity((1..=users).filter(has_two).count())?;
        eligible.extend((1..=users).filter(has_two));
        let popularity =
            weights.map(|w| Popularity::new(w, settings.item_count as usize)).transpose()?;
        let catalogue = Catalogue { item_count: settings.item_count, popularity };
        let sampler = Self {
            settings,
            offsets,
            items,
            history_offsets,
            histories,
            eligible,
            catalogue,
            shuffled: RwLock::new(None),
        };
        for user in 1..=users {
            steps.take(sampler.history(user).len() + 1)?;
            let whole = sampler.history(user).len() == settings.item_count as usize;
            let drawn = sampler.train(user).len() >= 2;
            if whole || drawn && sampler.catalogue.left(sampler.history(user)) == 0 {
                return Err(Problem::NoItemLeft { user }.into());
            }
        }
        Ok(sampler)
    }

    /// Users with at least two train items.
    pub fn eligible_count(&self) -> usize {
        self.eligible.len()
    }

    /// Full batches that the eligible users make, at least one.
    ///
    /// # Errors
    /// There is no eligible user.
    pub fn steps_per_epoch(&self) -> Result<usize> {
        if self.eligible.is_empty() {
            return Err(Problem::NoEligibleUser.into());
        }
        Ok((self.eligible.len() / self.settings.batch_size).max(1))
    }

    /// What the sampler was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Fills a batch; `negatives` is `[B, L, N]`, 0 at padding.
    ///
    /// `previous` names the users of the batch that `negatives` holds, 0 for a row of zeros:
    /// their padding is taken to be 0 and not written again. It may be empty.
    ///
    /// # Errors
    /// No user with two items, an epoch or step out of its range, or slices of other lengths.
    pub fn sample<T: Id>(
        &self,
        epoch: u64,
        step: u64,
        windows: &mut Windows<'_, T>,
        negatives: &mut [T],
        previous: &[i64],
    ) -> Result<()> {
        let Settings { max_length, negative_count, .. } = self.settings;
        let user_count = u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX);
        let previous = check_ids("previous", previous, user_count, 0)?;
        let users = self.fill_windows(epoch, step, windows)?;
        let row_size = max_length * negative_count;
        check_length("negatives", negatives.len(), users.len().saturating_mul(row_size))?;
        let rows = users.iter().enumerate().zip(negatives.chunks_mut(row_size));
        let rows = memory::collect(
            users.len(),
            rows.map(|((row, &user), out)| {
                let was_valid = previous.get(row).map_or(max_length, |&user| self.valid(user));
                let out =
                    &mut out[(max_length - was_valid.max(self.valid(user))) * negative_count..];
                let (padding, out) =
                    out.split_at_mut(out.len() - self.valid(user) * negative_count);
                self.row(epoch, step, row, user, padding, out)
            }),
        )?;
        self.draw(rows)
    }

    /// Fills a batch whose negatives stand packed: `negatives` holds `[B * L, N]`, of which the
    /// first P rows are filled, and `places` `[B * L]`, of which the first P are filled with
    /// `row * L + position`. Returns P.
    ///
    /// # Errors
    /// No user with two items, an epoch or step out of its range, or slices of other lengths.
    pub fn sample_packed<T: Id>(
        &self,
        epoch: u64,
        step: u64,
        windows: &mut Windows<'_, T>,
        places: &mut [i64],
        mut negatives: &mut [T],
    ) -> Result<usize> {
        let Settings { max_length, negative_count, .. } = self.settings;
        let users = self.fill_windows(epoch, step, windows)?;
        check_length("places", places.len(), users.len() * max_length)?;
        check_length(
            "negatives",
            negatives.len(),
            (users.len() * max_length).saturating_mul(negative_count),
        )?;
        let mut packed = 0;
        let mut rows = memory::with_capacity(users.len())?;
        for (row, &user) in users.iter().enumerate() {
            let valid = self.valid(user);
            let end = (row + 1) * max_length;
            for (place, position) in places[packed..].iter_mut().zip(end - valid..end) {
                *place = i64::try_from(position).unwrap_or(i64::MAX);
            }
            packed += valid;
            let (out, rest) = negatives.split_at_mut(valid * negative_count);
            negatives = rest;
            rows.push(self.row(epoch, step, row, user, &mut [], out));
        }
        self.draw(rows)?;
        Ok(packed)
    }

    /// Fills `out`, `[users, count]`, with draws uniform over the items that are neither in the
    /// user's history nor in her row of `exclude`, `[users, K]` (0: no item).
    ///
    /// The draws of a user depend on the seed and her exclusions alone.
    ///
    /// # Errors
    /// A user or item that does not exist, a user for whom no item is left, or slices of other
    /// lengths.
    pub fn candidates<T: Id>(
        &self,
        users: &[i64],
        exclude: &[i64],
        seed: u64,
        out: &mut [T],
    ) -> Result<()> {
        let user_count = u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX);
        let checked = check_ids("users", users, user_count, 1)?;
        let exclude = check_ids("exclude", exclude, self.settings.item_count, 0)?;
        if users.is_empty() {
            return Ok(());
        }
        let (width, count) = (exclude.len() / users.len(), out.len() / users.len());
        check_length("exclude", exclude.len(), width * users.len())?;
        check_length("out", out.len(), count * users.len())?;
        if count == 0 {
            return Ok(());
        }
        let uniform = Catalogue { item_count: self.settings.item_count, popularity: None };
        let mut merged = Vec::new();
        let mut scratch = Scratch::default();
        for (row, (&user, out)) in checked.iter().zip(out.chunks_mut(count)).enumerate() {
            scratch.steps.take(self.history(user).len() + width)?;
            merged.clear();
            merged.extend_from_slice(self.history(user));
            merged.extend(exclude[row * width..(row + 1) * width].iter().filter(|&&i| i != 0));
            if width > 0 {
                merged.sort_unstable();
                merged.dedup();
            }
            if uniform.left(&merged) == 0 {
                return Err(Problem::NoItemLeft { user }.into());
            }
            let draws = Draws::new(seed, STREAM_CANDIDATES, user.into());
            let rows = vec![Row { draws, history: &merged, padding: &mut [], out }];
            pulp::Arch::new().dispatch(DrawRows {
                catalogue: &uniform,
                scratch: &mut scratch,
                rows,
            })?;
        }
        Ok(())
    }

    /// Fills users and windows; returns the users.
    fn fill_windows<T: Id>(
        &self,
        epoch: u64,
        step: u64,
        windows: &mut Windows<'_, T>,
    ) -> Result<Vec<u32>> {
        let Settings { batch_size, max_length, .. } = self.settings;
        check_below("epoch", epoch, 1 << EPOCH_BITS)?;
        check_below("step", step, self.steps_per_epoch()? as u64)?;
        check_length("users", windows.users.len(), batch_size)?;
        check_length("sequences", windows.sequences.len(), batch_size * max_length)?;
        check_length("positives", windows.positives.len(), batch_size * max_length)?;
        let users = self.draw_users(epoch, step)?;
        let mut steps = Steps::default();
        let rows = windows.sequences.chunks_mut(max_length);
        for ((sequence, positive), &user) in
            rows.zip(windows.positives.chunks_mut(max_length)).zip(&users)
        {
            steps.take(max_length)?;
            let train = self.train(user);
            let valid = self.valid(user);
            let window = &train[train.len() - valid - 1..];
            fill_right(sequence, &window[..valid]);
            fill_right(positive, &window[1..]);
        }
        for (out, &user) in windows.users.iter_mut().zip(&users) {
            *out = T::from_id(user);
        }
        Ok(users)
    }

    fn draw_users(&self, epoch: u64, step: u64) -> Result<Vec<u32>> {
        let count = self.eligible.len();
        let batch_size = self.settings.batch_size;
        let first = usize::try_from(step).unwrap_or(usize::MAX).saturating_mul(batch_size);
        let places = first..first.saturating_add(batch_size);
        if self.settings.order == Order::Shuffle {
            let order = self.shuffle(epoch)?;
            return memory::collect(batch_size, places.map(|place| order[place % count]));
        }
        let bound = u32::try_from(count).unwrap_or(u32::MAX);
        let draw = |place: usize| {
            let item = epoch << PLACE_BITS | place as u64;
            let mut words = Words::new(Draws::new(self.settings.seed, STREAM_USERS, item), 4);
            self.eligible[words.below(bound) as usize]
        };
        memory::collect(batch_size, places.map(draw))
    }

    /// The order of an epoch: Fisher and Yates from the last place down.
    fn shuffle(&self, epoch: u64) -> Result<Arc<Vec<u32>>> {
        if let Ok(last) = self.shuffled.try_read()
            && let Some((of, order)) = &*last
            && *of == epoch
        {
            return Ok(Arc::clone(order));
        }
        let mut order = memory::collect(self.eligible.len(), self.eligible.iter().copied())?;
        let mut steps = Steps::default();
        let draws = Draws::new(self.settings.seed, STREAM_SHUFFLE, epoch);
        let mut words = Words::new(draws, 4 * LANES);
        for place in (1..order.len()).rev() {
            steps.take(1)?;
            let bound = u32::try_from(place + 1).unwrap_or(u32::MAX);
            order.swap(place, words.below(bound) as usize);
        }
        let order = Arc::new(order);
        if let Ok(mut last) = self.shuffled.try_write() {
            *last = Some((epoch, Arc::clone(&order)));
        }
        Ok(order)
    }

    fn row<'a, T: Id>(
        &'a self,
        epoch: u64,
        step: u64,
        row: usize,
        user: u32,
        padding: &'a mut [T],
        out: &'a mut [T],
    ) -> Row<'a, T> {
        let place = step * self.settings.batch_size as u64 + row as u64;
        let item = epoch << PLACE_BITS | place;
        let draws = Draws::new(self.settings.seed, STREAM_NEGATIVES, item);
        Row { draws, history: self.history(user), padding, out }
    }

    fn draw<T: Id>(&self, rows: Vec<Row<'_, T>>) -> Result<()> {
        let catalogue = &self.catalogue;
        let draws: usize = rows.iter().map(|row| row.out.len()).sum();
        let count = threads::count(self.settings.threads);
        let count = count.min(draws / DRAWS_PER_THREAD).min(rows.len());
        let draw = |scratch: &mut Scratch, rows| {
            pulp::Arch::new().dispatch(DrawRows { catalogue, scratch, rows })
        };
        if count <= 1 {
            return draw(&mut Scratch::default(), rows);
        }
        // Several parts a thread, as rows differ in length.
        let size = rows.len().div_ceil(4 * count);
        let mut rows = rows.into_iter();
        threads::run_blocks(
            Some(count),
            &mut || {
                let part: Vec<_> = rows.by_ref().take(size).collect();
                Ok(Some(part).filter(|part| !part.is_empty()))
            },
            &draw,
            &mut |drawn| drawn,
            &mut interrupt::check,
        )
    }

    fn train(&self, user: u32) -> &[u32] {
        &self.items[self.offsets[user as usize - 1]..self.offsets[user as usize]]
    }

    fn history(&self, user: u32) -> &[u32] {
        let user = user as usize;
        &self.histories[self.history_offsets[user - 1]..self.history_offsets[user]]
    }

    /// Valid positions of a user; none for no user.
    fn valid(&self, user: u32) -> usize {
        if user == 0 {
            return 0;
        }
        self.train(user).len().saturating_sub(1).min(self.settings.max_length)
    }
}

/// Words of one item, one after the other, in the order of their blocks.
struct Words {
    draws: Draws,
    /// Words that are made at once: a block or a group.
    size: usize,
    made: [u32; 4 * LANES],
    next: usize,
    count: u32,
}

impl Words {
    fn new(draws: Draws, size: usize) -> Self {
        Self { draws, size, made: [0; 4 * LANES], next: size, count: 0 }
    }

    /// A number in `0..bound`, by the first word that is not in the biased tail.
    fn below(&mut self, bound: u32) -> u32 {
        loop {
            if self.next == self.size {
                if self.size == 4 {
                    let [first, second] = self.draws.block(self.count).map(draw::halves);
                    self.made[..2].copy_from_slice(&first);
                    self.made[2..4].copy_from_slice(&second);
                } else {
                    self.made = self.draws.words(self.count);
                }
                self.count = self.count.wrapping_add(1);
                self.next = 0;
            }
            let word = self.made[self.next];
            self.next += 1;
            let [low, high] = draw::halves(u64::from(word) * u64::from(bound));
            if low >= draw::tail(bound) {
                return high;
            }
        }
    }
}

fn fill_right<T: Id>(out: &mut [T], items: &[u32]) {
    let (padding, valid) = out.split_at_mut(out.len() - items.len());
    padding.fill(T::from_id(0));
    for (out, &item) in valid.iter_mut().zip(items) {
        *out = T::from_id(item);
    }
}

fn check_settings(settings: &Settings) -> Result<()> {
    for (name, value) in [
        ("item_count", settings.item_count as usize),
        ("batch_size", settings.batch_size),
        ("max_length", settings.max_length),
        ("negative_count", settings.negative_count),
    ] {
        if value == 0 || value >= 1 << 31 {
            return Err(Error::OutOfRange {
                name,
                range: "at least 1 and below 2**31".to_owned(),
                got: value.to_string(),
            });
        }
    }
    Ok(())
}

fn check_offsets(offsets: &[i64], items: usize) -> Result<Vec<usize>> {
    let refuse = |range: String, got: String| Error::OutOfRange { name: "offsets", range, got };
    let first = offsets.first().copied();
    if first != Some(0) {
        let got = first.map_or_else(|| "no offsets".to_owned(), |value| value.to_string());
        return Err(refuse("0 at the start".to_owned(), got));
    }
    for (row, pair) in offsets.windows(2).enumerate() {
        if pair[1] < pair[0] {
            let got = format!("{} after {} for user {}", pair[1], pair[0], row + 1);
            return Err(refuse("ascending".to_owned(), got));
        }
    }
    let last = offsets.last().copied().unwrap_or(0);
    if usize::try_from(last) != Ok(items) {
        let range = format!("{items} at the end, the number of items");
        return Err(refuse(range, last.to_string()));
    }
    let starts = offsets.iter().map(|&offset| usize::try_from(offset).unwrap_or(0));
    memory::collect(offsets.len(), starts)
}

fn check_ids(name: &'static str, items: &[i64], item_count: u32, least: u32) -> Result<Vec<u32>> {
    let mut ids = memory::with_capacity(items.len())?;
    let mut steps = Steps::default();
    for (index, &item) in items.iter().enumerate() {
        steps.take(1)?;
        let id = u32::try_from(item).ok().filter(|id| (least..=item_count).contains(id));
        ids.push(id.ok_or_else(|| Error::IdOutOfRange {
            name,
            index: index.to_string(),
            range: format!("at least {least} and at most {item_count}"),
            got: item.to_string(),
        })?);
    }
    Ok(ids)
}

fn check_below(name: &'static str, value: u64, end: u64) -> Result<()> {
    if value < end {
        return Ok(());
    }
    let limit = if end == 1 << EPOCH_BITS { format!("2**{EPOCH_BITS}") } else { end.to_string() };
    let range = format!("at least 0 and below {limit}");
    Err(Error::OutOfRange { name, range, got: value.to_string() })
}
