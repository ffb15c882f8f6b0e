//! The n-grams of a group of texts, and which of the texts hold them.
//!
//! An n-gram is numbered by the number of its first n - 1 words and its last word: one look-up of
//! a machine word for each, however long it is. Numbers follow the order of first appearance.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::Result;
use crate::interrupt::Steps;
use crate::lcs::check_length;
use crate::memory;
use crate::text::{Interner, find_character, is_space};

/// Stands for no number and no place.
const NONE: u32 = u32::MAX;
/// A look-up costs as much as so many machine words that are looked at.
const HASHED_STEPS: usize = 16;
/// Words between two looks at whether the caller stops.
const STRIDE: usize = 1 << 16;

/// That a text holds an n-gram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Posting {
    /// Which text.
    pub(super) text: u32,
    /// How often.
    pub(super) count: u32,
    /// Where the posting of the same n-gram stands that is before this one.
    before: u32,
}

/// Texts as numbers of words, and the n-grams of one length in them.
#[derive(Default)]
pub(super) struct Index {
    numbers: Interner,
    words: Vec<u32>,
    /// The words of text k are those from `bounds[k]` to `bounds[k + 1]`.
    bounds: Vec<usize>,
    /// The length of the n-grams.
    order: usize,
    /// Of each word the number of the n-gram that starts there; none behind the last one of a
    /// text, and none where it shall not grow.
    starting: Vec<u32>,
    table: HashTable<(u64, u32)>,
    hasher: foldhash::fast::RandomState,
    /// Of each n-gram the posting of the last text that holds it.
    last: Vec<u32>,
    postings: Vec<Posting>,
}

impl Index {
    /// Takes texts in place of those before; their words are what Python's `str.split` makes.
    pub(super) fn fill<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Result<()> {
        self.numbers.clear();
        self.words.clear();
        self.bounds.clear();
        self.order = 0;
        memory::push(&mut self.bounds, 0)?;
        let mut steps = Steps::default();
        for text in texts {
            let mut end = 0;
            loop {
                let start = find_character(text, end, &mut steps, |c| !is_space(c))?;
                if start == text.len() {
                    break;
                }
                end = find_character(text, start, &mut steps, is_space)?;
                steps.take(HASHED_STEPS)?;
                memory::push(&mut self.words, self.numbers.intern(&text[start..end])?)?;
            }
            memory::push(&mut self.bounds, self.words.len())?;
        }
        check_length(self.bounds.len())?;
        check_length(self.words.len())
    }

    /// Words of a text.
    pub(super) fn length(&self, text: usize) -> usize {
        self.bounds[text + 1] - self.bounds[text]
    }

    /// How many n-grams there are.
    pub(super) fn ngrams(&self) -> usize {
        self.last.len()
    }

    /// Which texts hold an n-gram, from the last to the first.
    pub(super) fn postings(&self, ngram: usize) -> impl Iterator<Item = &Posting> {
        let first = self.postings.get(self.last[ngram] as usize);
        std::iter::successors(first, |posting| self.postings.get(posting.before as usize))
    }

    /// Goes on to the n-grams that are one word longer, or to single words at first.
    ///
    /// With `shared_only`, an n-gram that one text alone holds grows no longer.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of words are checked")]
    pub(super) fn advance(&mut self, shared_only: bool) -> Result<()> {
        if self.order > 0 && shared_only {
            self.forget_unshared()?;
        }
        self.order += 1;
        self.table.clear();
        self.last.clear();
        self.postings.clear();
        if self.order == 1 {
            self.starting.clear();
            memory::reserve(&mut self.starting, self.words.len())?;
            self.starting.extend_from_slice(&self.words);
            memory::fill(&mut self.last, self.numbers.len(), NONE)?;
        }
        let mut steps = Steps::default();
        for text in 0..self.bounds.len() - 1 {
            let end = self.bounds[text + 1];
            let whole = (end + 1).saturating_sub(self.order);
            for place in self.bounds[text]..end.min(whole) {
                steps.take(HASHED_STEPS)?;
                if self.order > 1 {
                    self.starting[place] = self.grow(place)?;
                }
                let ngram = self.starting[place];
                if ngram != NONE {
                    self.post(ngram as usize, text as u32)?;
                }
            }
            if let Some(over) = self.starting.get_mut(whole.max(self.bounds[text])..end) {
                over.fill(NONE);
            }
        }
        Ok(())
    }

    /// The number of the n-gram at a place; none if the shorter ones in it have none.
    fn grow(&mut self, place: usize) -> Result<u32> {
        let (first, second) = (self.starting[place], self.starting[place + 1]);
        if first == NONE || second == NONE {
            return Ok(NONE);
        }
        let word = self.words[place + self.order - 1];
        let key = u64::from(first) << 32 | u64::from(word);
        let Self { table, hasher, last, .. } = self;
        if table.len() == table.capacity() {
            table
                .try_reserve(1, |&(key, _)| hasher.hash_one(key))
                .map_err(|_| memory::refused(last.len()))?;
        }
        let found = table.entry(
            hasher.hash_one(key),
            |&(known, _)| known == key,
            |&(key, _)| hasher.hash_one(key),
        );
        match found {
            Entry::Occupied(known) => Ok(known.get().1),
            Entry::Vacant(free) => {
                #[expect(clippy::cast_possible_truncation, reason = "at most one for each word")]
                let ngram = last.len() as u32;
                memory::push(last, NONE)?;
                free.insert((key, ngram));
                Ok(ngram)
            }
        }
    }

    fn post(&mut self, ngram: usize, text: u32) -> Result<()> {
        let before = self.last[ngram];
        match self.postings.get_mut(before as usize) {
            Some(posting) if posting.text == text => posting.count += 1,
            _ => {
                #[expect(clippy::cast_possible_truncation, reason = "at most one for each word")]
                let place = self.postings.len() as u32;
                memory::push(&mut self.postings, Posting { text, count: 1, before })?;
                self.last[ngram] = place;
            }
        }
        Ok(())
    }

    fn forget_unshared(&mut self) -> Result<()> {
        let mut steps = Steps::default();
        for part in self.starting.chunks_mut(STRIDE) {
            steps.take(part.len())?;
            for ngram in part.iter_mut().filter(|ngram| **ngram != NONE) {
                let last = self.last[*ngram as usize];
                let posting = self.postings.get(last as usize);
                if posting.is_none_or(|posting| posting.before == NONE) {
                    *ngram = NONE;
                }
            }
        }
        Ok(())
    }
}
