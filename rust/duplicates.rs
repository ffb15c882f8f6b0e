//! Which texts and sentences stood before, by their hashes: exactly, in ten to thirteen bytes each.
//!
//! A text is known by 80 bits of its hash: 16 choose one of 65,536 small tables, which hold the
//! other 64. Small tables grow one by one, so that never much more memory is taken than is used.
//! The hash is keyed: who does not know the key of a run cannot make texts whose hashes meet.
//!
//! Source: OpenBA-V2 (arXiv 2405.05957), its section on data: documents by their hashes, and
//! paragraphs by those of runs of 1 to 99 sentences. A run that stood before consists of runs of
//! the shortest length that did, so that only those are looked up.

mod hash;
mod table;

use std::ops::Range;

use crate::check::in_range;
use crate::cleaning::{Cleaner, Counts, MOST_PASSES, Outcome, Rules, split_sentences};
use crate::error::{Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::text::{Strings, StringsRef, is_space};
use crate::threads::{row_ranges, run_blocks};

pub use hash::{Hash, Key};
pub use table::{ENTRY_BYTES, Table};

/// Problems of duplicates alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The tables are as large as they may become.
    #[error(
        "the hashes of {entries} distinct texts and sentences fill max_memory, {most} bytes: give \
         more, or each process a part of the hashes"
    )]
    Full {
        /// What they hold.
        entries: usize,
        /// The bound, in bytes.
        most: usize,
    },
    /// Stored hashes that are cut off.
    #[error("stored hashes must be a multiple of {ENTRY_BYTES} bytes long: got {length}")]
    Stored {
        /// Bytes that were given.
        length: usize,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Full { .. } => Kind::Memory,
            Self::Stored { .. } => Kind::Value,
        }
    }
}

/// What is looked for in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// Whether texts that stood before are dropped.
    pub documents: bool,
    /// Sentences of the shortest run that is removed where it stood before; 0 for none.
    pub sentences: usize,
    /// What cleans a text from which sentences went.
    pub rules: Rules,
}

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It has something left.
    Kept = 0,
    /// Nothing is left.
    Empty = 1,
    /// Each pass uncovers more to remove.
    Unsettled = 2,
    /// It stood before.
    Duplicate = 3,
}

/// Texts without what stood before.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    /// What is left of each; empty where it is dropped.
    pub texts: Strings,
    /// What became of each.
    pub fates: Vec<u8>,
    /// Texts that were dropped, and their characters.
    pub documents: (u64, u64),
    /// Texts that lost sentences, and the characters of these.
    pub paragraphs: (u64, u64),
    /// What the rules did to texts that had lost sentences.
    pub counts: Counts,
}

/// Hashes of the texts and sentences that were seen.
#[derive(Debug)]
pub struct Duplicates {
    key: Key,
    table: Table,
    worker: Worker,
}

/// What is kept from text to text.
#[derive(Debug, Default)]
struct Worker {
    cleaner: Cleaner,
    /// Hashes that the text at hand brought.
    own: Vec<Hash>,
    left: String,
}

/// A text with the hashes that are computed ahead.
#[derive(Debug, Default)]
struct Hashed {
    document: Hash,
    ends: Vec<usize>,
    runs: Vec<Hash>,
}

impl Duplicates {
    /// None was seen yet; the tables take at most so many bytes.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn new(key: Key, most: Option<usize>) -> Result<Self> {
        Ok(Self { key, table: Table::new(most)?, worker: Worker::default() })
    }

    /// The hashes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The hashes, to change them.
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Whether each text stood before; all of them are kept. `threads` does not change the result.
    ///
    /// # Errors
    /// The tables are full, the memory is refused, or the caller stops.
    pub fn add_batch(
        &mut self,
        texts: StringsRef<'_>,
        threads: Option<usize>,
    ) -> Result<Vec<bool>> {
        let Self { key, table, .. } = self;
        let mut known = memory::with_capacity(texts.len())?;
        hash_blocks(*key, texts, threads, &mut |hashes| {
            for hash in hashes {
                known.push(!table.insert(hash)?);
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// The texts without what stood before, in them or in those of earlier calls; `threads` does
    /// not change the result.
    ///
    /// # Errors
    /// The tables are full, the memory is refused, or the caller stops.
    pub fn remove_batch(
        &mut self,
        texts: StringsRef<'_>,
        search: &Search,
        threads: Option<usize>,
    ) -> Result<Distinct> {
        in_range("sentences", search.sentences as i128, 0..=i128::from(u32::MAX))?;
        let key = self.key;
        let hash_rows = |(): &mut (), range: Range<usize>| -> Result<Vec<Hashed>> {
            let mut hashed = memory::with_capacity(range.len())?;
            for row in range {
                hashed.push(Hashed::new(key, texts.get(row), search)?);
            }
            Ok(hashed)
        };
        let mut all = Distinct::default();
        all.texts.reserve(texts.len(), texts.region().len())?;
        all.fates = memory::with_capacity(texts.len())?;
        let mut ranges = row_ranges(texts.len());
        run_blocks(
            threads,
            &mut || Ok(ranges.next()),
            &hash_rows,
            &mut |part: Result<Vec<Hashed>>| {
                for hashed in part? {
                    let text = texts.get(all.fates.len());
                    let fate = self.remove(text, &hashed, search, &mut all)?;
                    all.fates.push(fate as u8);
                }
                Ok(())
            },
            &mut interrupt::check,
        )?;
        Ok(all)
    }

    /// Appends what is left of a text.
    fn remove(
        &mut self,
        text: &str,
        hashed: &Hashed,
        search: &Search,
        all: &mut Distinct,
    ) -> Result<Fate> {
        if search.documents && !self.table.insert(hashed.document)? {
            return drop_duplicate(text, all);
        }
        self.worker.own.clear();
        let removed = self.remove_runs(text, hashed, search.sentences, false)?;
        if removed == 0 {
            all.texts.append(text)?;
            return Ok(Fate::Kept);
        }
        // What is left stands closer together: it is cleaned and looked at again, until it stays.
        all.paragraphs.0 += 1;
        all.paragraphs.1 += removed as u64;
        self.worker.own.sort_unstable();
        for _ in 0..MOST_PASSES {
            let left = std::mem::take(&mut self.worker.left);
            let outcome = self.worker.cleaner.clean(&left, &search.rules)?;
            self.worker.left = left;
            all.counts.add(self.worker.cleaner.counts());
            if outcome != Outcome::Kept {
                all.texts.append("")?;
                let is_empty = outcome == Outcome::Empty;
                return Ok(if is_empty { Fate::Empty } else { Fate::Unsettled });
            }
            let cleaner = std::mem::take(&mut self.worker.cleaner);
            let hashed = Hashed::new(self.key, cleaner.text(), search)?;
            let removed = self.remove_runs(cleaner.text(), &hashed, search.sentences, true)?;
            let fate = if removed > 0 {
                None
            } else if search.documents && !self.table.insert(hashed.document)? {
                Some(drop_duplicate(cleaner.text(), all)?)
            } else {
                all.texts.append(cleaner.text())?;
                Some(Fate::Kept)
            };
            self.worker.cleaner = cleaner;
            if let Some(fate) = fate {
                return Ok(fate);
            }
            all.paragraphs.1 += removed as u64;
        }
        all.texts.append("")?;
        Ok(Fate::Unsettled)
    }

    /// Puts what is left of a text without the runs that stood before into `worker.left`, and
    /// returns how many characters went; where none did, nothing is put there.
    ///
    /// Runs that the same text brought in an earlier pass did not stand before.
    fn remove_runs(
        &mut self,
        text: &str,
        hashed: &Hashed,
        size: usize,
        is_again: bool,
    ) -> Result<usize> {
        let Self { table, worker, .. } = self;
        let brought = worker.own.len();
        // Of those that an earlier pass brought, the ones that this pass has met.
        let mut met = if is_again { memory::repeat(false, brought)? } else { Vec::new() };
        let (mut removed, mut done, mut gone) = (0, 0, 0);
        worker.left.clear();
        for (index, &hash) in hashed.runs.iter().enumerate() {
            let is_new = table.insert(hash)?;
            if is_new {
                memory::push(&mut worker.own, hash)?;
                continue;
            }
            if is_again
                && let Ok(place) = worker.own[..brought].binary_search(&hash)
                && !std::mem::replace(&mut met[place], true)
            {
                continue;
            }
            let start = if index == 0 { 0 } else { hashed.ends[index - 1] };
            let end = hashed.ends[index + size - 1];
            memory::reserve_text(&mut worker.left, text.len())?;
            worker.left.push_str(&text[done..start.max(done)]);
            removed += text[start.max(gone)..end].chars().count();
            (done, gone) = (end, end);
        }
        if removed > 0 {
            worker.left.push_str(&text[done..]);
        }
        if is_again {
            worker.own.sort_unstable();
        }
        Ok(removed)
    }
}

/// Drops a text that stood before.
fn drop_duplicate(text: &str, all: &mut Distinct) -> Result<Fate> {
    all.documents.0 += 1;
    all.documents.1 += text.chars().count() as u64;
    all.texts.append("")?;
    Ok(Fate::Duplicate)
}

impl Hashed {
    fn new(key: Key, text: &str, search: &Search) -> Result<Self> {
        let mut hashed = Self::default();
        if search.documents {
            hashed.document = key.hash(text.as_bytes());
        }
        let size = search.sentences;
        if size == 0 {
            return Ok(hashed);
        }
        let key = key.of_sentences();
        let sentences = split_sentences(text)?;
        hashed.ends = memory::collect(sentences.len(), sentences.iter().map(|range| range.end))?;
        let mut steps = Steps::default();
        for range in &sentences {
            let sentence = text[range.start..range.end].trim_matches(is_space);
            steps.take(sentence.len() / 4)?;
            memory::push(&mut hashed.runs, key.hash(sentence.as_bytes()))?;
        }
        if size > 1 {
            let mut bytes = Vec::new();
            for hash in &hashed.runs {
                memory::reserve(&mut bytes, 16)?;
                bytes.extend(hash.to_bytes());
            }
            let runs = (hashed.runs.len() + 1).saturating_sub(size);
            for run in 0..runs {
                steps.take(size.saturating_mul(4))?;
                hashed.runs[run] = key.hash(&bytes[run * 16..(run + size) * 16]);
            }
            hashed.runs.truncate(runs);
        }
        Ok(hashed)
    }
}

/// The hashes of texts; `threads` does not change the result.
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn hash_batch(key: Key, texts: StringsRef<'_>, threads: Option<usize>) -> Result<Vec<u64>> {
    let mut all = memory::with_capacity(texts.len().saturating_mul(2))?;
    hash_blocks(key, texts, threads, &mut |hashes| {
        all.extend(hashes.into_iter().flat_map(|hash| [hash.low, hash.high]));
        Ok(())
    })?;
    Ok(all)
}

fn hash_blocks(
    key: Key,
    texts: StringsRef<'_>,
    threads: Option<usize>,
    take: &mut dyn FnMut(Vec<Hash>) -> Result<()>,
) -> Result<()> {
    let hash_rows = |(): &mut (), range: Range<usize>| -> Result<Vec<Hash>> {
        memory::collect(range.len(), range.map(|row| key.hash(texts.bytes(row))))
    };
    let mut ranges = row_ranges(texts.len());
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &hash_rows,
        &mut |part: Result<Vec<Hash>>| take(part?),
        &mut interrupt::check,
    )
}
