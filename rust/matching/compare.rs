//! Words made ready to be compared: by their first and last bytes, and by where they stand first.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::error::Result;
use crate::lcs::UNMATCHED;
use crate::memory;
use crate::text::{StringsRef, push_lowercase};

/// Lower-cased words of one text, ready to be compared.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    text: String,
    pub words: Vec<Word>,
}

/// Eight more bytes, so that eight can be read at once wherever a word stands.
const PADDING: &str = "\0\0\0\0\0\0\0\0";

/// The first 0 to 8 bytes of a word.
const KEPT: [u64; 9] = {
    let mut kept = [u64::MAX; 9];
    let mut length = 0;
    while length < 8 {
        kept[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    kept
};

/// A word by its first and last eight bytes, its length, and where it stands.
///
/// Lengths cannot be foreseen: what compares words of up to sixteen bytes without asking for
/// their length is faster than what looks at the fewest bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    head: u64,
    /// The same as `head` in words of up to eight bytes.
    tail: u64,
    start: usize,
    length: usize,
}

impl Lowered {
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether a word equals a word of another text; both ends decide almost always.
    #[inline]
    pub fn same(&self, one: &Word, other: &Self, two: &Word) -> bool {
        let differences =
            (one.head ^ two.head) | (one.tail ^ two.tail) | (one.length ^ two.length) as u64;
        differences == 0 && (one.length <= 16 || self.middles_equal(one, other, two))
    }

    #[cold]
    fn middles_equal(&self, one: &Word, other: &Self, two: &Word) -> bool {
        self.middle(one) == other.middle(two)
    }

    /// A hash whose high half is well mixed: two multiplications for words of up to sixteen bytes.
    #[inline]
    pub fn hash(&self, word: &Word, seed: &Seed) -> u64 {
        let head = (word.head ^ (word.length as u64) << 56).wrapping_mul(seed.odd[0]);
        let hash = (head ^ head >> 32 ^ word.tail).wrapping_mul(seed.odd[1]);
        if word.length <= 16 { hash } else { hash ^ seed.middles.hash_one(self.middle(word)) }
    }

    fn middle(&self, word: &Word) -> &[u8] {
        &self.text.as_bytes()[word.start + 8..word.start + word.length - 8]
    }

    /// Lower-cases ranges of a text; in ASCII the ranges stay as they are.
    ///
    /// `words` is the number of ranges.
    pub fn fill(
        &mut self,
        text: &str,
        words: usize,
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<()> {
        if text.is_ascii() {
            self.set_text(text)?;
            self.text.make_ascii_lowercase();
            return self.read_heads(words, ranges);
        }
        let mut lower = std::mem::take(&mut self.text);
        lower.clear();
        let mut ends = Vec::new();
        memory::reserve(&mut ends, words)?;
        for range in ranges {
            push_lowercase(&text[range], &mut lower)?;
            ends.push(lower.len());
        }
        self.text = lower;
        let mut end = 0;
        let ranges = ends.into_iter().map(|next| std::mem::replace(&mut end, next)..next);
        self.read_heads(words, ranges)
    }

    pub fn fill_as_is(&mut self, words: StringsRef<'_>) -> Result<()> {
        self.set_text(words.region())?;
        self.read_heads(words.len(), words.ranges())
    }

    fn set_text(&mut self, text: &str) -> Result<()> {
        self.text.clear();
        memory::reserve_text(&mut self.text, text.len() + PADDING.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn read_heads(
        &mut self,
        words: usize,
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<()> {
        memory::reserve_text(&mut self.text, PADDING.len())?;
        self.text.push_str(PADDING);
        let bytes = self.text.as_bytes();
        self.words.clear();
        memory::reserve(&mut self.words, words)?;
        self.words.extend(ranges.map(|range| {
            let length = range.len();
            let kept = KEPT[length.min(8)];
            let eight = |start: usize| {
                bytes[start..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight)) & kept
            };
            let tail = eight(range.start + length.saturating_sub(8));
            Word { head: eight(range.start), tail, start: range.start, length }
        }));
        Ok(())
    }
}

/// Where words stand first: a table that is searched from a word's hash on.
///
/// Fewer steps than a general hash table for the twenty words of a sentence: words compare by
/// their heads, one multiplication hashes them, and clearing writes a few hundred bytes.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    /// The index of the word in each slot, or [`UNMATCHED`]; at most half of the slots are taken.
    slots: Vec<u32>,
    pub seed: Seed,
}

/// What makes hashes differ from process to process, so that no text can make them collide.
#[derive(Debug)]
pub(super) struct Seed {
    odd: [u64; 2],
    middles: RandomState,
}

impl Default for Seed {
    fn default() -> Self {
        let middles = RandomState::default();
        Self { odd: [middles.hash_one(0) | 1, middles.hash_one(1) | 1], middles }
    }
}

impl Distinct {
    pub fn clear(&mut self, words: usize) -> Result<()> {
        memory::fill(&mut self.slots, (2 * words).next_power_of_two().max(64), UNMATCHED)
    }

    /// Where the word with this hash stands first; `index` if it was not seen before.
    #[inline]
    pub fn insert(&mut self, hash: u64, index: u32, same: impl Fn(u32) -> bool) -> u32 {
        let slot = self.search(hash, same);
        if self.slots[slot] == UNMATCHED {
            self.slots[slot] = index;
        }
        self.slots[slot]
    }

    /// Where the word with this hash stands first, or [`UNMATCHED`].
    #[inline]
    pub fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> u32 {
        self.slots[self.search(hash, same)]
    }

    /// The slot of the word with this hash, or the free one where it would go.
    #[inline]
    fn search(&self, hash: u64, same: impl Fn(u32) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = (hash >> 32) as usize & mask;
        while self.slots[slot] != UNMATCHED && !same(self.slots[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
