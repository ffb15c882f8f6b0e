//! Hierarchical Matching: generated `word(label)` text becomes one label per input word.
//!
//! The definition is `reference/matching.py`; source: GNER (arXiv 2402.16602).

mod compare;
mod parse;

use std::ops::Range;

use compare::{Distinct, Lowered};
pub use parse::{Pair, Parsed};

use crate::check::same_length;
use crate::entities::{Label, Types};
use crate::error::{Kind, Result};
use crate::interrupt::{self, Steps};
use crate::lcs::{Lcs, UNMATCHED, check_length};
use crate::memory;
use crate::text::{STRING_BYTES, StringRows, StringsRef};
use crate::threads::{row_ranges, run_blocks};

/// What can go wrong with matching alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The words to compare with are not as many as the words.
    #[error("comparison_words must have the same length as words: got {got} and {expected}")]
    ComparisonLength {
        /// Number of comparison words.
        got: usize,
        /// Number of words.
        expected: usize,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::ComparisonLength { .. } => Kind::Value,
        }
    }
}

/// The condition under which the generated words were matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// They equal the input words.
    #[default]
    Exact,
    /// They are a subsequence of the input words.
    Subsequence,
    /// Neither: the longest common subsequence was taken.
    Lcs,
}

impl Condition {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Subsequence => "subsequence",
            Self::Lcs => "lcs",
        }
    }
}

/// How many words of each kind stand unmatched in an alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DifferenceCounts {
    /// Input words that were not generated.
    pub omitted: u64,
    /// Generated words that are not in the input.
    pub added: u64,
    /// Input words with another generated word in their place.
    pub substituted: u64,
}

/// Which words stand unmatched in an alignment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Indices of input words that were not generated.
    pub omitted: Vec<usize>,
    /// Indices of generated words that are not in the input.
    pub added: Vec<usize>,
    /// Indices of an input word and of the generated word in its place.
    pub substituted: Vec<(usize, usize)>,
}

/// A sentence and what was generated for it.
#[derive(Debug, Clone, Copy)]
pub struct MatchInput<'a> {
    /// The words of the sentence.
    pub words: StringsRef<'a>,
    /// The generated text.
    pub generation: &'a str,
    /// The entity types that may occur.
    pub label_list: StringsRef<'a>,
    /// What to compare instead of the lower-cased words.
    pub comparison_words: Option<StringsRef<'a>>,
}

/// One label per word, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MatchedRow {
    /// One BIO label per word.
    pub labels: Vec<String>,
    /// The condition that held.
    pub condition: Condition,
    /// For each word the index of its generated word, or [`UNMATCHED`].
    pub alignment: Vec<u32>,
    /// What was read.
    pub parsed: Parsed,
    /// What did not match.
    pub differences: Differences,
    /// Indices of generated words whose label is not in the label list.
    pub invalid_labels: Vec<usize>,
}

/// Gives each word its label; with `split_generated`, generated words are cut as texts are.
///
/// # Errors
/// `comparison_words` has another length than `words`.
pub fn match_labels(input: &MatchInput<'_>, split_generated: bool) -> Result<MatchedRow> {
    match_with(&mut Matcher::default(), &mut Types::default(), input, split_generated)
}

/// The same for many sentences, with the threads' number given or that of the machine.
///
/// # Errors
/// The sequences differ in length, or the error of the first sentence that has one.
pub fn match_labels_batch(
    words: &StringRows,
    generations: StringsRef<'_>,
    label_lists: &StringRows,
    comparison_words: Option<&StringRows>,
    threads: Option<usize>,
) -> Result<Vec<MatchedRow>> {
    let rows = words.len();
    same_length(("generations", generations.len()), ("words", rows))?;
    same_length(("types", label_lists.len()), ("words", rows))?;
    if let Some(given) = comparison_words {
        same_length(("comparison_words", given.len()), ("words", rows))?;
    }
    let match_rows = |(matcher, types): &mut (Matcher, Types),
                      range: Range<usize>|
     -> Result<Vec<_>> {
        range
            .map(|row| {
                let input = MatchInput {
                    words: words.row(row),
                    generation: generations.get(row),
                    label_list: label_lists.row(row),
                    comparison_words: comparison_words.map(|given| given.row(row)),
                };
                match_with(matcher, types, &input, false).map_err(|error| error.in_sentence(row))
            })
            .collect()
    };
    let mut matched = memory::with_capacity(rows)?;
    let mut ranges = row_ranges(rows);
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &match_rows,
        &mut |part: Result<Vec<_>>| {
            matched.extend(part?);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(matched)
}

fn match_with(
    matcher: &mut Matcher,
    types: &mut Types,
    input: &MatchInput<'_>,
    split_generated: bool,
) -> Result<MatchedRow> {
    let MatchInput { words, generation, label_list, comparison_words } = *input;
    types.allow(label_list)?;
    if split_generated {
        matcher.match_split_words(words, generation, types, comparison_words)?;
    } else {
        matcher.match_words(words, generation, types, comparison_words)?;
    }
    // Labels and generated words become strings of their own.
    let strings = matcher.labels.len() + 2 * matcher.pairs.len();
    memory::probe((strings * STRING_BYTES).saturating_add(2 * generation.len()))?;
    let labels = matcher.labels.iter().map(|&label| types.label_text(label));
    Ok(MatchedRow {
        labels: memory::collect(matcher.labels.len(), labels)?,
        condition: matcher.condition,
        alignment: memory::collect(matcher.alignment.len(), matcher.alignment.iter().copied())?,
        parsed: matcher.parsed(generation)?,
        differences: matcher.list_differences()?,
        invalid_labels: matcher.invalid_labels.clone(),
    })
}

/// Matches generated texts with words; holds the last result and the working memory.
#[derive(Debug, Default)]
pub struct Matcher {
    /// The generated words and labels.
    pub pairs: Vec<Pair>,
    /// Labels that had no word before them.
    pub dropped_labels: Vec<Range<usize>>,
    /// Text after the last label, stripped.
    pub trailing_text: Range<usize>,
    /// Indices of generated words whose label is not allowed.
    pub invalid_labels: Vec<usize>,
    /// For each input word the index of its generated word, or [`UNMATCHED`].
    pub alignment: Vec<u32>,
    /// For each input word its label.
    pub labels: Vec<Label>,
    /// The condition that held.
    pub condition: Condition,
    generated_labels: Vec<Label>,
    words: Lowered,
    generated: Lowered,
    distinct: Distinct,
    generated_ids: Vec<u32>,
    word_ids: Vec<u32>,
    lcs: Lcs,
    steps: Steps,
}

impl Matcher {
    /// Reads `generation` and gives each word its label.
    ///
    /// `types` says which labels are allowed (see [`Types::allow`]). `comparison_words`, where
    /// given, are compared instead of the lower-cased words.
    ///
    /// # Errors
    /// `comparison_words` has another length than `words`; the memory is refused, or the caller
    /// stops.
    pub fn match_words(
        &mut self,
        words: StringsRef<'_>,
        generation: &str,
        types: &Types,
        comparison_words: Option<StringsRef<'_>>,
    ) -> Result<()> {
        self.parse(generation)?;
        self.match_parsed(words, generation, types, comparison_words)
    }

    /// The same for words that [`crate::words::split_words`] cut from a text: generated words are cut by
    /// the same rule, and the later pieces of one continue its entity.
    ///
    /// # Errors
    /// As [`Self::match_words`].
    pub fn match_split_words(
        &mut self,
        words: StringsRef<'_>,
        generation: &str,
        types: &Types,
        comparison_words: Option<StringsRef<'_>>,
    ) -> Result<()> {
        self.parse(generation)?;
        self.split_pairs(generation)?;
        self.match_parsed(words, generation, types, comparison_words)
    }

    /// Counts the unmatched words of the last result.
    pub fn count_differences(&self) -> DifferenceCounts {
        let mut counts = DifferenceCounts::default();
        if self.condition == Condition::Exact {
            return counts;
        }
        visit_gaps(&self.alignment, self.pairs.len(), |words, generated| {
            let pairs = words.len().min(generated.len());
            counts.substituted += pairs as u64;
            counts.omitted += (words.len() - pairs) as u64;
            counts.added += (generated.len() - pairs) as u64;
        });
        counts
    }

    /// Lists the unmatched words of the last result.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn list_differences(&self) -> Result<Differences> {
        let counts = self.count_differences();
        let mut lists = Differences::default();
        let room = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        memory::reserve(&mut lists.substituted, room(counts.substituted))?;
        memory::reserve(&mut lists.omitted, room(counts.omitted))?;
        memory::reserve(&mut lists.added, room(counts.added))?;
        visit_gaps(&self.alignment, self.pairs.len(), |words, generated| {
            let pairs = words.len().min(generated.len());
            lists.substituted.extend(words.clone().zip(generated.clone()));
            lists.omitted.extend(words.skip(pairs));
            lists.added.extend(generated.skip(pairs));
        });
        Ok(lists)
    }

    /// Aligns words as they are, without lower-casing; labels stay as they were.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn align_words(&mut self, words: StringsRef<'_>, generated: StringsRef<'_>) -> Result<()> {
        self.words.fill_as_is(words)?;
        self.generated.fill_as_is(generated)?;
        self.align()
    }

    fn match_parsed(
        &mut self,
        words: StringsRef<'_>,
        generation: &str,
        types: &Types,
        comparison_words: Option<StringsRef<'_>>,
    ) -> Result<()> {
        self.steps.take(words.len() + self.pairs.len())?;
        self.read_labels(generation, types)?;
        match comparison_words {
            None => self.words.fill(words.region(), words.len(), words.ranges())?,
            Some(given) if given.len() == words.len() => self.words.fill_as_is(given)?,
            Some(given) => {
                let (got, expected) = (given.len(), words.len());
                return Err(Problem::ComparisonLength { got, expected }.into());
            }
        }
        let generated = self.pairs.iter().map(|pair| pair.word.clone());
        self.generated.fill(generation, self.pairs.len(), generated)?;
        self.align()?;

        self.labels.clear();
        memory::reserve(&mut self.labels, self.alignment.len())?;
        let Self { labels, alignment, generated_labels, .. } = self;
        labels.extend(alignment.iter().map(|&j| match j {
            UNMATCHED => Label::OUTSIDE,
            j => generated_labels[j as usize],
        }));
        Ok(())
    }

    fn read_labels(&mut self, generation: &str, types: &Types) -> Result<()> {
        self.generated_labels.clear();
        memory::reserve(&mut self.generated_labels, self.pairs.len())?;
        self.invalid_labels.clear();
        for (k, pair) in self.pairs.iter().enumerate() {
            if pair.label.len() == 1 {
                // Of one letter there is only "O".
                self.generated_labels.push(Label::OUTSIDE);
                continue;
            }
            let label = types.read_allowed(&generation[pair.label.clone()]);
            if label.is_none() {
                memory::push(&mut self.invalid_labels, k)?;
            }
            let label = label.unwrap_or(Label::OUTSIDE);
            self.generated_labels.push(if pair.continues { label.continued() } else { label });
        }
        Ok(())
    }

    /// Condition 1: equal. Condition 2: a subsequence, greedily from the left. Condition 3: LCS.
    #[expect(clippy::cast_possible_truncation, reason = "indices are below the numbers of words")]
    fn align(&mut self) -> Result<()> {
        let Self { words, generated, alignment, .. } = self;
        let (n, m) = (words.len(), generated.len());
        check_length(n)?;
        check_length(m)?;
        alignment.clear();
        memory::reserve(alignment, n)?;
        self.condition = Condition::Lcs;
        // As many words as there are too many may stay unmatched; one more, and it is no
        // subsequence.
        if let Some(mut spare) = n.checked_sub(m) {
            let mut matched = 0;
            for word in &words.words {
                match generated.words.get(matched) {
                    Some(wanted) if words.same(word, generated, wanted) => {
                        alignment.push(matched as u32);
                        matched += 1;
                    }
                    _ if spare == 0 => break,
                    _ => {
                        alignment.push(UNMATCHED);
                        spare -= 1;
                    }
                }
            }
            if matched == m {
                self.condition = if n == m { Condition::Exact } else { Condition::Subsequence };
            }
        }
        if self.condition == Condition::Lcs { self.align_by_lcs() } else { Ok(()) }
    }

    /// Numbers words by where they stand first in the generated text, and aligns the numbers.
    #[expect(clippy::cast_possible_truncation, reason = "fewer words than bytes of memory")]
    fn align_by_lcs(&mut self) -> Result<()> {
        let Self { distinct, generated_ids, generated, word_ids, words, .. } = self;
        distinct.clear(generated.len())?;
        generated_ids.clear();
        memory::reserve(generated_ids, generated.len())?;
        generated_ids.extend(generated.words.iter().zip(0..).map(|(word, index)| {
            let same =
                |first: u32| generated.same(&generated.words[first as usize], generated, word);
            distinct.insert(generated.hash(word, &distinct.seed), index, same)
        }));
        // Most words follow the one before them in the generated text, too.
        let mut next = 0;
        word_ids.clear();
        memory::reserve(word_ids, words.len())?;
        word_ids.extend(words.words.iter().map(|word| {
            let index = match generated.words.get(next) {
                Some(guess) if words.same(word, generated, guess) => next as u32,
                _ => {
                    let same =
                        |first: u32| words.same(word, generated, &generated.words[first as usize]);
                    distinct.find(words.hash(word, &distinct.seed), same)
                }
            };
            if index == UNMATCHED {
                return UNMATCHED;
            }
            next = index as usize + 1;
            generated_ids[index as usize]
        }));
        self.lcs.align(word_ids, generated_ids, generated_ids.len(), &mut self.alignment)
    }
}

/// Calls `visit` with the unmatched words and generated words between neighbouring matches.
fn visit_gaps(
    alignment: &[u32],
    generated: usize,
    mut visit: impl FnMut(Range<usize>, Range<usize>),
) {
    let (mut word, mut next) = (0, 0);
    for (i, &j) in alignment.iter().enumerate() {
        if j != UNMATCHED {
            if word < i || next < j as usize {
                visit(word..i, next..j as usize);
            }
            (word, next) = (i + 1, j as usize + 1);
        }
    }
    visit(word..alignment.len(), next..generated);
}
