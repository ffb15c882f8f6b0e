//! BIO labels become entities, and entities become counts under a named scheme.
//!
//! The definition is `reference/entities.py`; its table says how the schemes differ.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::BuildHasher;
use std::ops::Range;

use crate::check::{one_of, same_length};
use crate::error::{Kind, Result};
use crate::interrupt::{self, Steps};
use crate::labels::normalize_bytes_into;
pub use crate::labels::{Label, Types, normalize_text_into};
use crate::memory;
use crate::text::{StringRows, StringsRef};
use crate::threads::{row_ranges, run_blocks};

/// What can go wrong with entities alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A scheme that compares texts was asked without words.
    #[error("words are needed: this scheme compares the texts of entities")]
    WordsNeeded,
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::WordsNeeded => Kind::Value,
        }
    }
}

/// The schemes' names, in the order of [`Scheme`].
pub const SCHEME_NAMES: [&str; 5] = ["gner", "universalner", "strict", "conll", "iob2"];

/// How BIO labels are read and when two entities are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// GNER: normalised text and type, a set per sentence; I- of another type renames.
    Gner,
    /// `UniversalNER`: normalised text, a set per sentence and type.
    UniversalNer,
    /// Positions and type; an I- that continues nothing starts an entity.
    Strict,
    /// conlleval, seqeval's default: for BIO labels the same as `Strict`.
    Conll,
    /// seqeval's strict IOB2: positions and type; only B- starts an entity.
    Iob2,
}

impl Scheme {
    /// The scheme of this name.
    ///
    /// # Errors
    /// There is no scheme of this name.
    pub fn from_name(name: &str) -> Result<Self> {
        let all = [Self::Gner, Self::UniversalNer, Self::Strict, Self::Conll, Self::Iob2];
        one_of("scheme", &SCHEME_NAMES, all, name)
    }

    fn compares_text(self) -> bool {
        matches!(self, Self::Gner | Self::UniversalNer)
    }
}

/// Words `start..end` are an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First word.
    pub start: usize,
    /// Word after the last.
    pub end: usize,
    /// Number of the type.
    pub type_id: u32,
}

/// Writes the entities that the labels spell, in order.
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn find_spans(labels: &[Label], scheme: Scheme, spans: &mut Vec<Span>) -> Result<()> {
    spans.clear();
    // An open entity runs from `start` in the type of `open`, which is `OUTSIDE` when none is.
    let (mut start, mut open) = (0, Label::OUTSIDE);
    let (renames, needs_begin) = (scheme == Scheme::Gner, scheme == Scheme::Iob2);
    let mut next = 0;
    while let Some(&label) = labels.get(next) {
        let i = next;
        next += 1;
        if label == open && label == Label::OUTSIDE {
            continue;
        }
        let continues = label.is_inside() && open != Label::OUTSIDE;
        if continues && (renames || label == open.continued()) {
            open = label;
            continue;
        }
        if let Some(type_id) = open.type_id() {
            memory::push(spans, Span { start, end: i, type_id })?;
        }
        start = i;
        open = if needs_begin && label.is_inside() { Label::OUTSIDE } else { label };
    }
    if let Some(type_id) = open.type_id() {
        memory::push(spans, Span { start, end: labels.len(), type_id })?;
    }
    Ok(())
}

/// How many entities are in the gold labels, in the predicted ones, and in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntityCounts {
    /// Entities of the gold labels.
    pub gold: u64,
    /// Entities of the predicted labels.
    pub predicted: u64,
    /// Predicted entities that are gold entities.
    pub correct: u64,
}

impl std::ops::AddAssign for EntityCounts {
    fn add_assign(&mut self, other: Self) {
        self.gold += other.gold;
        self.predicted += other.predicted;
        self.correct += other.correct;
    }
}

/// What became of the gold entities, by position (GNER, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorKinds {
    /// Gold entities.
    pub gold: u64,
    /// Those that no predicted entity touches.
    pub unlabelled: u64,
    /// Those that only entities of other types touch.
    pub noisy: u64,
    /// Those that an entity of their type touches, with another extent.
    pub boundary: u64,
}

impl std::ops::AddAssign for ErrorKinds {
    fn add_assign(&mut self, other: Self) {
        self.gold += other.gold;
        self.unlabelled += other.unlabelled;
        self.noisy += other.noisy;
        self.boundary += other.boundary;
    }
}

/// Precision, recall and F1 under a scheme's formula.
///
/// `gner` and `universalner` add 1e-10 to each denominator; the others define 0 / 0 as 0.
pub fn compute_quality(counts: EntityCounts, scheme: Scheme) -> [f64; 3] {
    let epsilon = if scheme.compares_text() { 1e-10 } else { 0.0 };
    let ratio = |part: f64, whole: f64| {
        let whole = whole + epsilon;
        if whole == 0.0 { 0.0 } else { part / whole }
    };
    let correct = counts.correct as f64;
    let precision = ratio(correct, counts.predicted as f64);
    let recall = ratio(correct, counts.gold as f64);
    [precision, recall, ratio(2.0 * precision * recall, precision + recall)]
}

/// The entities that labels given as text spell: start, end and type.
///
/// # Errors
/// A label that is neither `O` nor `B-<type>` nor `I-<type>`.
pub fn decode_spans(labels: StringsRef<'_>, scheme: Scheme) -> Result<Vec<(usize, usize, String)>> {
    let (mut types, mut read, mut spans) = (Types::default(), Vec::new(), Vec::new());
    types.read_all("labels", labels, &mut read)?;
    find_spans(&read, scheme, &mut spans)?;
    let named = spans.iter().map(|s| (s.start, s.end, types.name(s.type_id).to_owned()));
    memory::collect(spans.len(), named)
}

/// Counts the entities of one sentence given as text, and sorts the missed ones by kind.
///
/// Without words, entities are compared by position whatever the scheme says.
///
/// # Errors
/// The sequences differ in length, or a label has another form.
pub fn count_entities(
    words: Option<StringsRef<'_>>,
    gold: StringsRef<'_>,
    predicted: StringsRef<'_>,
    scheme: Scheme,
) -> Result<(EntityCounts, ErrorKinds)> {
    Counter::default().count(words, gold, predicted, scheme)
}

/// The sums over many sentences, with the threads' number given or that of the machine.
///
/// # Errors
/// The sequences differ in length, or the error of the first sentence that has one.
pub fn count_entities_batch(
    words: Option<&StringRows>,
    gold: &StringRows,
    predicted: &StringRows,
    scheme: Scheme,
    threads: Option<usize>,
) -> Result<(EntityCounts, ErrorKinds)> {
    let rows = gold.len();
    same_length(("gold", rows), ("predicted", predicted.len()))?;
    match words {
        Some(words) => same_length(("words", words.len()), ("gold", rows))?,
        None if scheme.compares_text() => return Err(Problem::WordsNeeded.into()),
        None => {}
    }
    let count_rows = |counter: &mut Counter, range: Range<usize>| -> Result<_> {
        let mut sums = (EntityCounts::default(), ErrorKinds::default());
        for row in range {
            let words = words.map(|words| words.row(row));
            let (counts, kinds) = counter
                .count(words, gold.row(row), predicted.row(row), scheme)
                .map_err(|error| error.in_sentence(row))?;
            sums.0 += counts;
            sums.1 += kinds;
        }
        Ok(sums)
    };
    let mut sums = (EntityCounts::default(), ErrorKinds::default());
    let mut ranges = row_ranges(rows);
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &count_rows,
        &mut |part: Result<(EntityCounts, ErrorKinds)>| {
            let (counts, kinds) = part?;
            sums.0 += counts;
            sums.1 += kinds;
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(sums)
}

/// Counts sentences given as text; holds the working memory.
#[derive(Debug, Default)]
struct Counter {
    scorer: Scorer,
    types: Types,
    gold: Vec<Label>,
    predicted: Vec<Label>,
}

impl Counter {
    fn count(
        &mut self,
        words: Option<StringsRef<'_>>,
        gold: StringsRef<'_>,
        predicted: StringsRef<'_>,
        scheme: Scheme,
    ) -> Result<(EntityCounts, ErrorKinds)> {
        if let Some(words) = words {
            same_length(("words", words.len()), ("gold", gold.len()))?;
            same_length(("words", words.len()), ("predicted", predicted.len()))?;
        }
        same_length(("gold", gold.len()), ("predicted", predicted.len()))?;
        self.types.read_all("gold", gold, &mut self.gold)?;
        self.types.read_all("predicted", predicted, &mut self.predicted)?;
        self.scorer.count(words, &self.gold, &self.predicted, &self.types, scheme)
    }
}

/// Compares the entities of one sentence; holds the working memory.
#[derive(Debug, Default)]
pub struct Scorer {
    gold: Vec<Span>,
    predicted: Vec<Span>,
    texts: Vec<u8>,
    joined: String,
    keys: Vec<Key>,
    gold_keys: Vec<usize>,
    table: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    steps: Steps,
}

/// An entity as the text schemes compare it.
#[derive(Debug, Clone, Copy)]
struct Key {
    span: Span,
    kind: u32,
    /// Where its normalised text stands, once another entity of its kind asked for it.
    text: Option<(usize, usize)>,
    in_gold: bool,
    in_predicted: bool,
}

impl Scorer {
    /// Counts the entities of one sentence and sorts the missed ones by kind.
    ///
    /// `words`, `gold` and `predicted` must have the same length; callers check it, since they
    /// know what to call them. Without words, entities are compared by position.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn count(
        &mut self,
        words: Option<StringsRef<'_>>,
        gold: &[Label],
        predicted: &[Label],
        types: &Types,
        scheme: Scheme,
    ) -> Result<(EntityCounts, ErrorKinds)> {
        self.steps.take(gold.len() + predicted.len())?;
        find_spans(gold, scheme, &mut self.gold)?;
        find_spans(predicted, scheme, &mut self.predicted)?;
        let errors = self.classify_errors();
        let counts = match words {
            Some(words) if scheme.compares_text() => self.count_texts(words, types, scheme)?,
            _ => EntityCounts {
                gold: self.gold.len() as u64,
                predicted: self.predicted.len() as u64,
                correct: self.count_equal_spans(),
            },
        };
        Ok((counts, errors))
    }

    fn count_equal_spans(&self) -> u64 {
        let mut gold = self.gold.iter().peekable();
        let mut equal = 0;
        for span in &self.predicted {
            while gold.next_if(|entity| entity.start < span.start).is_some() {}
            equal += u64::from(gold.peek() == Some(&span));
        }
        equal
    }

    /// Both span lists are sorted and free of overlap, so one walk over both suffices.
    fn classify_errors(&self) -> ErrorKinds {
        let mut kinds = ErrorKinds { gold: self.gold.len() as u64, ..ErrorKinds::default() };
        let mut first = 0;
        for entity in &self.gold {
            while self.predicted.get(first).is_some_and(|span| span.end <= entity.start) {
                first += 1;
            }
            let touching = self.predicted[first..].iter().take_while(|s| s.start < entity.end);
            let (mut touched, mut same_type, mut found) = (false, false, false);
            for span in touching {
                touched = true;
                same_type |= span.type_id == entity.type_id;
                found |= span == entity;
            }
            match (found, touched, same_type) {
                (true, _, _) => {}
                (false, false, _) => kinds.unlabelled += 1,
                (false, true, true) => kinds.boundary += 1,
                (false, true, false) => kinds.noisy += 1,
            }
        }
        kinds
    }

    fn count_texts(
        &mut self,
        words: StringsRef<'_>,
        types: &Types,
        scheme: Scheme,
    ) -> Result<EntityCounts> {
        self.texts.clear();
        self.keys.clear();
        self.gold_keys.clear();
        self.table.clear();
        let mut counts = EntityCounts::default();
        let kind = |span: &Span| match scheme {
            Scheme::Gner => types.normalized_id(span.type_id),
            _ => span.type_id,
        };
        for k in 0..self.gold.len() {
            let span = self.gold[k];
            let key = self.push_key(words, &span, kind(&span))?;
            memory::push(&mut self.gold_keys, key)?;
            counts.gold += u64::from(!self.keys[key].in_gold);
            self.keys[key].in_gold = true;
        }
        let mut next = 0; // gold span that may start at the same word
        for k in 0..self.predicted.len() {
            let span = self.predicted[k];
            while self.gold.get(next).is_some_and(|gold| gold.start < span.start) {
                next += 1;
            }
            let key = if self.gold.get(next) == Some(&span) {
                self.gold_keys[next]
            } else {
                self.push_key(words, &span, kind(&span))?
            };
            let key = &mut self.keys[key];
            if !key.in_predicted {
                counts.predicted += 1;
                counts.correct += u64::from(key.in_gold);
            }
            key.in_predicted = true;
        }
        Ok(counts)
    }

    /// The index of an entity's key, new if the sentence did not have it yet.
    #[expect(clippy::cast_possible_truncation, reason = "at most one key per word")]
    fn push_key(&mut self, words: StringsRef<'_>, span: &Span, kind: u32) -> Result<usize> {
        let index = self.keys.len();
        let key = Key { span: *span, kind, text: None, in_gold: false, in_predicted: false };
        memory::push(&mut self.keys, key)?;
        if index <= 8 {
            // Few entities, as in most sentences: looking at each is faster than hashing, and
            // texts matter only between entities of one kind.
            for known in 0..index {
                if self.keys[known].kind == kind {
                    let (old, new) = (self.spell(words, known)?, self.spell(words, index)?);
                    if self.texts[old.0..old.1] == self.texts[new.0..new.1] {
                        self.keys.pop();
                        return Ok(known);
                    }
                }
            }
        }
        if index >= 8 {
            let first = if self.table.is_empty() { 0 } else { index };
            for added in first..=index {
                self.spell(words, added)?;
                let Self { texts, keys, table, hasher, .. } = self;
                let text = |key: &Key| key.text.map(|(start, end)| &texts[start..end]);
                let hash_of = |key: &Key| hasher.hash_one((text(key), key.kind));
                let new = &keys[added];
                if table.len() == table.capacity() {
                    table
                        .try_reserve(1, |&known| hash_of(&keys[known as usize]))
                        .map_err(|_| memory::refused(keys.len()))?;
                }
                match table.entry(
                    hash_of(new),
                    |&known| {
                        let known = &keys[known as usize];
                        known.kind == new.kind && text(known) == text(new)
                    },
                    |&known| hash_of(&keys[known as usize]),
                ) {
                    Entry::Occupied(found) => {
                        let found = *found.get() as usize;
                        keys.pop();
                        return Ok(found);
                    }
                    Entry::Vacant(free) => {
                        free.insert(added as u32);
                    }
                }
            }
        }
        Ok(index)
    }

    /// Where the normalised text of a key's entity stands.
    fn spell(&mut self, words: StringsRef<'_>, index: usize) -> Result<(usize, usize)> {
        let Self { keys, texts, joined, .. } = self;
        let key = &mut keys[index];
        if let Some(text) = key.text {
            return Ok(text);
        }
        joined.clear();
        for word in key.span.start..key.span.end {
            let text = words.get(word);
            memory::reserve_text(joined, text.len() + 1)?;
            if word > key.span.start {
                joined.push(' ');
            }
            joined.push_str(text);
        }
        let start = texts.len();
        normalize_bytes_into(joined, texts)?;
        let text = (start, texts.len());
        key.text = Some(text);
        Ok(text)
    }
}
