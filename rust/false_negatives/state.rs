//! A memory as arrays and back.

use super::counts::count_of;
use super::hard::List;
use super::{
    COUNT_BITS, FalseNegativeMemory, ITEM_BITS, LARGEST_COUNT, POSITION_BITS, Problem, as_i64,
};
use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::rows::Rows;

const OFFSETS_RULE: &str = "hard_offsets must ascend from 0 to the number of hard_items";

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

impl FalseNegativeMemory {
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
        let lists = check_state(state)?;
        let mut new = Self::new(self.threshold, self.max_keys);
        let mut steps = Steps::default();
        // Lists of a user stand in descending order of positions, keys ascend.
        for (&key, items) in state.hard_keys.iter().zip(lists.iter()).rev() {
            steps.take(items.len() + 1)?;
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
}

/// The lists of a state, whose arrays are checked.
fn check_state(state: &State) -> Result<Rows<'_, u32>> {
    let State { hard_keys, hard_offsets, hard_items, count_keys, counts, .. } = state;
    let lists = Rows::new(hard_offsets, hard_items)
        .ok()
        .filter(|lists| lists.len() == hard_keys.len() && lists.iter().all(|l| !l.is_empty()));
    let least_key = 1 << (POSITION_BITS + ITEM_BITS);
    let rules = [
        (
            "hard_keys must ascend and have users from 1",
            hard_keys.is_sorted_by(|a, b| a < b)
                && hard_keys.first().is_none_or(|&key| key >= 1 << POSITION_BITS),
        ),
        (OFFSETS_RULE, lists.is_some()),
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
    if let Some((rule, _)) = rules.into_iter().find(|&(_, holds)| !holds) {
        return Err(Problem::NotAState { rule }.into());
    }
    lists.ok_or_else(|| Problem::NotAState { rule: OFFSETS_RULE }.into())
}
