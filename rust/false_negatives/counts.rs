//! How often each item was presented again, and which counts go where they are too many.

use std::collections::BTreeMap;

use super::{COUNT_BITS, FalseNegativeMemory, ITEM_BITS, LARGEST_COUNT};

impl FalseNegativeMemory {
    /// Gives up counts until `most` are left: those of items in no hard list first, then low
    /// counts, then low keys.
    pub(super) fn evict(&mut self, most: usize) {
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
}

/// Whether a count's item is in a hard list, and the count: low ranks are given up first.
fn rank(word: u64, stored: &[u64]) -> (bool, u32) {
    (stored.binary_search(&(word >> COUNT_BITS)).is_ok(), count_of(word))
}

/// A word without its count.
pub fn key_of(position: u32, item: u32) -> u64 {
    u64::from(position) << ITEM_BITS | u64::from(item)
}

/// The count of a word.
#[expect(clippy::cast_possible_truncation, reason = "the low 24 bits are taken")]
pub fn count_of(word: u64) -> u32 {
    word as u32 & LARGEST_COUNT
}

/// Counts by position and item: open addressing, linear probing, 8 bytes a slot.
///
/// A word is position (8 bits), item (32), count (24). No item is 0, so 0 is an empty slot.
#[derive(Debug, Default)]
pub struct Counts {
    pub words: Vec<u64>,
    /// Slots that are taken.
    pub used: u32,
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
    pub fn touch(&self, position: u32, items: &[u32]) -> u64 {
        if self.words.is_empty() {
            return 0;
        }
        let slots = items.iter().map(|&item| self.home(key_of(position, item)));
        slots.fold(0, |sum, slot| sum ^ self.words[slot])
    }

    /// Something that depends on every cache line of the slots.
    pub fn touch_all(&self) -> u64 {
        self.words.iter().step_by(8).fold(0, |sum, word| sum ^ word)
    }

    /// Counts an item once more and returns its count.
    pub fn increment(&mut self, position: u32, item: u32) -> u32 {
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
    pub fn insert(&mut self, word: u64) {
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

    pub fn each(&self) -> impl Iterator<Item = u64> {
        self.words.iter().copied().filter(|&word| word != 0)
    }

    pub fn sorted_into(&self, words: &mut Vec<u64>) {
        words.clear();
        words.extend(self.each());
        words.sort_unstable();
    }
}
