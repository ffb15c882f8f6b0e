//! Training batches of a sequential recommender: users, windows, and negatives that are not in
//! a user's history.
//!
//! Source: the sampler of `UFNRec`, the one of `SASRec`. Each sample is a function of
//! (seed, epoch, position in the epoch) alone, so that batches do not depend on threads or order.

mod draw;

use std::sync::{Arc, RwLock};

use crate::check::{has_length, id_in_range, in_range, one_of};
use crate::error::{Error, Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::philox::{Draws, Stream, Words, shuffle};
use crate::rows::{Fault, OwnedRows, Rows, map_values};
use crate::threads;
use draw::{Catalogue, DrawRows, Popularity, Row, Scratch};

pub use draw::{DENSE_SHARE, DENSE_WEIGHT_SHARE, Id};

/// Epochs are below 2^24.
pub const EPOCH_BITS: u32 = 24;
/// Positions in an epoch, `step * batch_size + row`, are below 2^40.
pub const POSITION_BITS: u32 = 40;
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
        one_of("order", &Self::NAMES, [Self::Replacement, Self::Shuffle], name)
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
    /// Items of user u, in time order, in row u - 1.
    items: OwnedRows<u32>,
    /// The same without repeats, ascending.
    histories: OwnedRows<u32>,
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
        let interactions = items.len();
        let items = check_rows(offsets, items, settings.item_count)?;
        let mut histories = OwnedRows::with_capacity(items.len(), interactions)?;
        let mut history = Vec::new();
        let mut steps = Steps::default();
        for row in items.rows().iter() {
            steps.take(row.len() + 1)?;
            history.clear();
            memory::reserve(&mut history, row.len())?;
            history.extend_from_slice(row);
            history.sort_unstable();
            history.dedup();
            histories.push(&history)?;
        }
        let users = u32::try_from(items.len()).map_err(|_| Error::OutOfRange {
            name: "offsets",
            range: "at most 2**32 long".to_owned(),
            got: offsets.len().to_string(),
        })?;
        let has_two = |user: &u32| items.row(*user as usize - 1).len() >= 2;
        let mut eligible = memory::with_capacity((1..=users).filter(has_two).count())?;
        eligible.extend((1..=users).filter(has_two));
        let popularity =
            weights.map(|w| Popularity::new(w, settings.item_count as usize)).transpose()?;
        let catalogue = Catalogue { item_count: settings.item_count, popularity };
        let sampler =
            Self { settings, items, histories, eligible, catalogue, shuffled: RwLock::new(None) };
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
        let previous = check_ids("previous", previous, 0, self.user_count())?;
        let users = self.fill_windows(epoch, step, windows)?;
        let row_size = max_length * negative_count;
        has_length("negatives", negatives.len(), users.len().saturating_mul(row_size))?;
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
    /// first P rows are filled, and `flat_indices` `[B * L]`, of which the first P are filled with the
    /// flat indices `row * L + position`. Returns P.
    ///
    /// # Errors
    /// No user with two items, an epoch or step out of its range, or slices of other lengths.
    pub fn sample_packed<T: Id>(
        &self,
        epoch: u64,
        step: u64,
        windows: &mut Windows<'_, T>,
        flat_indices: &mut [i64],
        mut negatives: &mut [T],
    ) -> Result<usize> {
        let Settings { max_length, negative_count, .. } = self.settings;
        let users = self.fill_windows(epoch, step, windows)?;
        has_length("flat_indices", flat_indices.len(), users.len() * max_length)?;
        has_length(
            "negatives",
            negatives.len(),
            (users.len() * max_length).saturating_mul(negative_count),
        )?;
        let mut packed = 0;
        let mut rows = memory::with_capacity(users.len())?;
        for (row, &user) in users.iter().enumerate() {
            let valid = self.valid(user);
            let end = (row + 1) * max_length;
            for (out, flat_index) in flat_indices[packed..].iter_mut().zip(end - valid..end) {
                *out = i64::try_from(flat_index).unwrap_or(i64::MAX);
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
        let checked = check_ids("users", users, 1, self.user_count())?;
        let exclude = check_ids("exclude", exclude, 0, self.settings.item_count)?;
        if users.is_empty() {
            return Ok(());
        }
        let (width, count) = (exclude.len() / users.len(), out.len() / users.len());
        has_length("exclude", exclude.len(), width * users.len())?;
        has_length("out", out.len(), count * users.len())?;
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
            let draws = Draws::new(seed, Stream::Candidates.into(), user.into());
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
        in_range("epoch", epoch.into(), 0..1 << EPOCH_BITS)?;
        in_range("step", step.into(), 0..self.steps_per_epoch()? as i128)?;
        has_length("users", windows.users.len(), batch_size)?;
        has_length("sequences", windows.sequences.len(), batch_size * max_length)?;
        has_length("positives", windows.positives.len(), batch_size * max_length)?;
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
        let positions = first..first.saturating_add(batch_size);
        if self.settings.order == Order::Shuffle {
            let order = self.order_of(epoch)?;
            return memory::collect(batch_size, positions.map(|position| order[position % count]));
        }
        let bound = u32::try_from(count).unwrap_or(u32::MAX);
        let draw = |position: usize| {
            let item = epoch << POSITION_BITS | position as u64;
            let draws = Draws::new(self.settings.seed, Stream::Users.into(), item);
            self.eligible[Words::by_block(draws).below(bound) as usize]
        };
        memory::collect(batch_size, positions.map(draw))
    }

    /// The order of an epoch.
    fn order_of(&self, epoch: u64) -> Result<Arc<Vec<u32>>> {
        if let Ok(last) = self.shuffled.try_read()
            && let Some((of, order)) = &*last
            && *of == epoch
        {
            return Ok(Arc::clone(order));
        }
        let mut order = memory::collect(self.eligible.len(), self.eligible.iter().copied())?;
        shuffle(&mut order, Draws::new(self.settings.seed, Stream::Shuffle.into(), epoch))?;
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
        let position = step * self.settings.batch_size as u64 + row as u64;
        let item = epoch << POSITION_BITS | position;
        let draws = Draws::new(self.settings.seed, Stream::Negatives.into(), item);
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

    fn user_count(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    fn train(&self, user: u32) -> &[u32] {
        self.items.row(user as usize - 1)
    }

    fn history(&self, user: u32) -> &[u32] {
        self.histories.row(user as usize - 1)
    }

    /// Valid positions of a user; none for no user.
    fn valid(&self, user: u32) -> usize {
        if user == 0 {
            return 0;
        }
        self.train(user).len().saturating_sub(1).min(self.settings.max_length)
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
        in_range(name, value as i128, 1..1 << 31)?;
    }
    Ok(())
}

/// Items of users in compressed rows.
fn check_rows(offsets: &[i64], items: &[i64], item_count: u32) -> Result<OwnedRows<u32>> {
    let rows = Rows::new(offsets, items).map_err(|fault| {
        let (range, got) = match fault {
            Fault::NoOffsets => ("0 at the start".to_owned(), "no offsets".to_owned()),
            Fault::Start { got } => ("0 at the start".to_owned(), got.to_string()),
            Fault::Descent { row, before, got } => {
                ("ascending".to_owned(), format!("{got} after {before} for user {}", row + 1))
            }
            Fault::End { expected, got, .. } => {
                (format!("{expected} at the end, the number of items"), got.to_string())
            }
        };
        Error::OutOfRange { name: "offsets", range, got }
    })?;
    OwnedRows::map(rows, |index, &item| check_id("items", index, item, 1, item_count))
}

fn check_ids(name: &'static str, items: &[i64], least: u32, most: u32) -> Result<Vec<u32>> {
    map_values(items, |index, &item| check_id(name, index, item, least, most))
}

#[inline]
fn check_id(name: &'static str, index: usize, id: i64, least: u32, most: u32) -> Result<u32> {
    let found = id_in_range(name, index, None, id, least as usize..=most as usize)?;
    Ok(u32::try_from(found).unwrap_or(most))
}
