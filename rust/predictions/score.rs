//! Rows to counts: the evaluation of GNER, and those of other scorers, in one pass.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use super::back_tokens::{BackTokens, Questions, lock};
use super::row::{RowBuffer, RowRef};
use super::rules::{label_outside_list, of_words};
use super::table::Table;
use super::{Hooks, LISTED_BAD_ROWS, TOKENIZED_BLOCK_BYTES};
use crate::entities::{EntityCounts, ErrorKinds, Label, Scheme, Scorer, Types};
use crate::error::{Error, Result, RowProblem, show_path};
use crate::lines::{LineBlocks, Lines};
use crate::matching::{Condition, DifferenceCounts, Matcher};
use crate::memory;
use crate::text::{Interner, STRING_BYTES, Strings};
use crate::threads::run_blocks;

/// Bytes of a file that one thread works on at a time.
const BLOCK_BYTES: usize = 1 << 18;
/// Rows of a list that one thread works on at a time: they are copied while others wait.
const TABLE_ROWS: usize = 128;
/// The same with a tokenizer, which is asked once per table.
const TOKENIZED_TABLE_ROWS: usize = 8192;

/// Invalid labels that are counted by name; the others are only counted.
const NAMED_LABELS: usize = 1000;

/// A file of predictions.
#[derive(Debug, Clone)]
pub struct ScoredFile {
    /// Where it is read.
    pub path: PathBuf,
    /// What errors call it.
    pub name: String,
    /// The data set of rows that name none.
    pub dataset: String,
}

impl ScoredFile {
    /// A file that errors call by its path, and whose data set is its stem.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            name: show_path(path),
            dataset: show_path(Path::new(path.file_stem().unwrap_or_default())),
        }
    }
}

/// What to count, and how.
#[derive(Debug, Clone, Copy)]
pub struct ScoreOptions {
    /// When two entities are the same.
    pub scheme: Scheme,
    /// Threads; the machine's if not given.
    pub threads: Option<usize>,
    /// Sentences with the most wrong entities to keep, per data set.
    pub worst: usize,
    /// Whether bad rows are counted and listed, instead of ending the work.
    pub skip_bad_rows: bool,
}

/// The sums over the rows of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetScore {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Words.
    pub words: u64,
    /// Rows per condition: exact, subsequence, LCS.
    pub conditions: [u64; 3],
    /// Rows whose prediction holds no labelled word.
    pub empty_predictions: u64,
    /// Unmatched words.
    pub differences: DifferenceCounts,
    /// The first of them that has words: the file's name and the line, or the place in the list.
    pub first_empty: Option<(String, u64)>,
    /// Generated labels outside the row's types.
    pub invalid_labels: u64,
    /// The first [`NAMED_LABELS`] of them by name and how often each stood there, sorted.
    pub named_invalid_labels: BTreeMap<String, u64>,
    /// Entities.
    pub entities: EntityCounts,
    /// Missed entities by kind.
    pub errors: ErrorKinds,
    /// Every entity type in a label list.
    pub label_list: BTreeSet<String>,
    /// The sentences with the most wrong entities.
    pub worst: Vec<WorstRow>,
}

/// A sentence with wrong entities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorstRow {
    /// Gold entities missed plus wrong predicted ones.
    pub wrong: u64,
    /// The file's path, as [`show_path`] writes it; empty for a list.
    pub path: String,
    /// Line or item number.
    pub row: u64,
    /// Its words.
    pub words: Vec<String>,
    /// Gold labels.
    pub labels: Vec<String>,
    /// Predicted labels.
    pub predicted: Vec<String>,
    /// The generated text.
    pub prediction: String,
    /// The condition that held.
    pub condition: Condition,
    /// For each word the index of its generated word, or [`crate::lcs::UNMATCHED`].
    pub alignment: Vec<u32>,
}

/// Sums per data set, in the order of their first row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evaluation {
    /// The data sets.
    pub datasets: Vec<DatasetScore>,
    /// Rows that could not be used.
    pub bad_rows: u64,
    /// The first of them.
    pub listed_bad_rows: Vec<Error>,
    /// The index of each data set, by its name.
    indices: HashMap<String, usize, foldhash::fast::RandomState>,
}

/// Scores files of predictions, one after the other.
///
/// # Errors
/// A file cannot be read or holds no rows, a row cannot be used, the memory is refused, or the
/// caller stopped.
pub fn score_files(
    files: &[ScoredFile],
    options: &ScoreOptions,
    hooks: &mut Hooks<'_>,
) -> Result<Evaluation> {
    let (mut evaluation, mut bytes) = (Evaluation::default(), 0);
    for file in files {
        bytes += score_file(file, options, hooks, bytes, &mut evaluation)?;
    }
    Ok(evaluation)
}

/// Scores one file, after files of so many bytes; returns its own.
fn score_file(
    file: &ScoredFile,
    options: &ScoreOptions,
    hooks: &mut Hooks<'_>,
    before: u64,
    evaluation: &mut Evaluation,
) -> Result<u64> {
    let tokenized = hooks.back_tokenize.is_some();
    let block_bytes = if tokenized { TOKENIZED_BLOCK_BYTES } else { BLOCK_BYTES };
    let mut blocks = LineBlocks::open(&file.path, block_bytes)?;
    let (path, stem) = (&file.name, &file.dataset);
    let tokens = RwLock::new(BackTokens::default());
    let mut questions = Questions::default();
    let mut buffer = RowBuffer::default();
    let mut rows = 0;
    let done = Cell::new(0);
    let Hooks { progress, back_tokenize } = hooks;
    let mut progress = |bytes| progress(before + bytes);
    run_blocks(
        options.threads,
        &mut || {
            let Some(lines) = blocks.next_block()? else { return Ok(None) };
            if let Some(back_tokenize) = back_tokenize {
                for (_, line) in lines.rows() {
                    match buffer.read(line) {
                        Ok(()) => {
                            if let Ok(row) = buffer.scored() {
                                questions.note(&lock(&tokens), row.words)?;
                            }
                        }
                        Err(Error::Row { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                questions.ask(&tokens, back_tokenize)?;
            }
            Ok(Some(lines))
        },
        &|worker: &mut Worker, lines: Lines| {
            let tokens = lock(&tokens);
            let tokens = tokenized.then_some(&*tokens);
            let mut part = Part::new(options, path, stem);
            let mut buffer = std::mem::take(&mut worker.buffer);
            for (number, line) in lines.rows() {
                let scored = buffer
                    .read(line)
                    .and_then(|()| Ok(buffer.scored()?))
                    .and_then(|row| worker.score(&row, number, tokens, &mut part));
                if !part.accept(number, scored) {
                    break;
                }
            }
            worker.buffer = buffer;
            (lines.end, part.finish(worker))
        },
        &mut |(end, part): (u64, FinishedPart)| {
            done.set(end);
            rows += part.rows();
            evaluation.merge(part, options.worst, |line, problem| Error::Line {
                path: path.clone(),
                line,
                problem,
            })
        },
        &mut || progress(done.get()),
    )?;
    progress(done.get())?;
    if rows == 0 { Err(Error::EmptyFile { path: path.clone() }) } else { Ok(done.get()) }
}

/// Scores rows that `next` puts into the empty table it is given, at most so many at a time,
/// numbered from 0; it puts none after the last one.
///
/// What a function of the caller's raises in `next` comes out after the errors of the rows that
/// are in the table.
///
/// # Errors
/// `next` fails, a row cannot be used, or the caller stopped.
pub fn score_examples(
    next: &mut dyn FnMut(&mut Table, usize) -> Result<()>,
    options: &ScoreOptions,
    hooks: &mut Hooks<'_>,
) -> Result<Evaluation> {
    let mut evaluation = Evaluation::default();
    let tokens = RwLock::new(BackTokens::default());
    let mut questions = Questions::default();
    let Hooks { progress, back_tokenize } = hooks;
    let tokenized = back_tokenize.is_some();
    let rows = if tokenized { TOKENIZED_TABLE_ROWS } else { TABLE_ROWS };
    let (mut taken, mut failed) = (0, None);
    let done = Cell::new(0);
    // Tables that were worked on: their memory is used again.
    let spare = Mutex::new(Vec::<Table>::new());
    let lock_spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
    run_blocks(
        options.threads,
        &mut || {
            if let Some(error) = failed.take() {
                return Err(error);
            }
            let mut table = lock_spare().pop().unwrap_or_default();
            table.clear();
            match next(&mut table, rows) {
                Err(Error::Raised) if !table.is_empty() => failed = Some(Error::Raised),
                result => result?,
            }
            if table.is_empty() {
                return Ok(None);
            }
            if let Some(back_tokenize) = back_tokenize {
                for row in (0..table.len()).filter_map(|index| table.row(index).ok()) {
                    questions.note(&lock(&tokens), row.words)?;
                }
                questions.ask(&tokens, back_tokenize)?;
            }
            let first = taken;
            taken += table.len() as u64;
            Ok(Some((first, table)))
        },
        &|worker: &mut Worker, (first, table): (u64, Table)| {
            let tokens = lock(&tokens);
            let tokens = tokenized.then_some(&*tokens);
            let mut part = Part::new(options, "", "examples");
            for (number, index) in (first..).zip(0..table.len()) {
                let row = table.row(index).map_err(Error::from);
                let scored = row.and_then(|row| worker.score(&row, number, tokens, &mut part));
                if !part.accept(number, scored) {
                    break;
                }
            }
            lock_spare().push(table);
            part.finish(worker)
        },
        &mut |part: FinishedPart| {
            done.set(done.get() + part.rows());
            evaluation
                .merge(part, options.worst, |index, problem| Error::Example { index, problem })
        },
        &mut || progress(done.get()),
    )?;
    progress(done.get())?;
    Ok(evaluation)
}

impl Evaluation {
    fn merge(
        &mut self,
        part: FinishedPart,
        worst: usize,
        error: impl Fn(u64, RowProblem) -> Error,
    ) -> Result<()> {
        match part.failed {
            Some((row, Error::Row { problem })) => return Err(error(row, problem)),
            Some((_, failed)) => return Err(failed),
            None => {}
        }
        for (score, invalid_labels) in part.datasets {
            let index = if let Some(&index) = self.indices.get(&score.name) {
                self.datasets[index].add(score, worst);
                index
            } else {
                let index = self.datasets.len();
                self.indices.insert(score.name.clone(), index);
                self.datasets.push(score);
                index
            };
            self.datasets[index].add_invalid_labels(invalid_labels);
        }
        self.bad_rows += part.bad_rows.len() as u64;
        let room = LISTED_BAD_ROWS.saturating_sub(self.listed_bad_rows.len());
        let listed = part.bad_rows.into_iter().take(room);
        self.listed_bad_rows.extend(listed.map(|(row, problem)| error(row, problem)));
        Ok(())
    }
}

impl DatasetScore {
    fn add(&mut self, other: Self, worst: usize) {
        self.rows += other.rows;
        self.words += other.words;
        for (sum, more) in self.conditions.iter_mut().zip(other.conditions) {
            *sum += more;
        }
        self.empty_predictions += other.empty_predictions;
        self.differences.omitted += other.differences.omitted;
        self.differences.added += other.differences.added;
        self.differences.substituted += other.differences.substituted;
        self.invalid_labels += other.invalid_labels;
        if self.first_empty.is_none() {
            self.first_empty = other.first_empty;
        }
        self.entities += other.entities;
        self.errors += other.errors;
        self.label_list.extend(other.label_list);
        self.worst.extend(other.worst);
        self.keep_worst(worst);
    }

    /// Counts labels by name; of new names those that come first, while there is room.
    fn add_invalid_labels(&mut self, labels: Vec<(String, u64)>) {
        for (label, count) in labels {
            if let Some(sum) = self.named_invalid_labels.get_mut(&label) {
                *sum += count;
            } else if self.named_invalid_labels.len() < NAMED_LABELS {
                self.named_invalid_labels.insert(label, count);
            }
        }
    }

    /// Keeps the rows with the most wrong entities; of equal ones those that came first.
    fn keep_worst(&mut self, count: usize) {
        self.worst.sort_by_key(|row| std::cmp::Reverse(row.wrong));
        self.worst.truncate(count);
    }
}

/// The sums over one block.
struct Part<'o> {
    options: &'o ScoreOptions,
    path: &'o str,
    default_dataset: &'o str,
    names: Interner,
    datasets: Vec<OpenScore>,
    /// The data set of the last row: rows of one data set stand together.
    last: usize,
    bad_rows: Vec<(u64, RowProblem)>,
    failed: Option<(u64, Error)>,
}

/// A data set's sums with its label set as numbers of types.
#[derive(Default)]
struct OpenScore {
    score: DatasetScore,
    listed: HashSet<u32, foldhash::fast::RandomState>,
    /// The list that was noted last: rows of one data set mostly have the same.
    noted: Option<u64>,
    least_wrong_kept: u64,
    /// Labels outside the rows' types in the order in which they came, and how often they did.
    invalid_labels: Interner,
    invalid_counts: Vec<u64>,
}

struct FinishedPart {
    /// Sums, and invalid labels in the order in which they came.
    datasets: Vec<(DatasetScore, Vec<(String, u64)>)>,
    bad_rows: Vec<(u64, RowProblem)>,
    failed: Option<(u64, Error)>,
}

impl FinishedPart {
    fn rows(&self) -> u64 {
        self.datasets.iter().map(|(score, _)| score.rows).sum::<u64>() + self.bad_rows.len() as u64
    }
}

impl<'o> Part<'o> {
    fn new(options: &'o ScoreOptions, path: &'o str, default_dataset: &'o str) -> Self {
        Self {
            options,
            path,
            default_dataset,
            names: Interner::default(),
            datasets: Vec::new(),
            last: 0,
            bad_rows: Vec::new(),
            failed: None,
        }
    }

    fn dataset(&mut self, name: Option<&str>) -> Result<&mut OpenScore> {
        let name = name.unwrap_or(self.default_dataset);
        if self.datasets.get(self.last).is_some_and(|open| open.score.name == name) {
            return Ok(&mut self.datasets[self.last]);
        }
        let id = self.names.intern(name)?;
        self.last = id as usize;
        if id as usize == self.datasets.len() {
            let name = self.names.get(id).to_owned();
            let score = DatasetScore { name, ..DatasetScore::default() };
            self.datasets.push(OpenScore { score, ..OpenScore::default() });
        }
        Ok(&mut self.datasets[id as usize])
    }

    /// Notes a row's problem; says whether to go on.
    fn accept(&mut self, number: u64, scored: Result<()>) -> bool {
        match scored {
            Ok(()) => true,
            Err(Error::Row { problem }) if self.options.skip_bad_rows => {
                self.bad_rows.push((number, problem));
                true
            }
            Err(error) => {
                self.failed = Some((number, error));
                false
            }
        }
    }

    fn finish(self, worker: &Worker) -> FinishedPart {
        let worst = self.options.worst;
        let datasets = self.datasets.into_iter().map(|open| {
            let OpenScore { mut score, listed, invalid_labels, invalid_counts, .. } = open;
            score.label_list = listed.iter().map(|&id| worker.types.name(id).to_owned()).collect();
            score.keep_worst(worst);
            let named = (0..).zip(invalid_counts);
            let named = named.map(|(id, count)| (invalid_labels.get(id).to_owned(), count));
            (score, named.collect())
        });
        FinishedPart { datasets: datasets.collect(), bad_rows: self.bad_rows, failed: self.failed }
    }
}

/// The memory of one thread.
#[derive(Default)]
struct Worker {
    buffer: RowBuffer,
    matcher: Matcher,
    scorer: Scorer,
    types: Types,
    gold: Vec<Label>,
    lower: String,
    translated: Strings,
}

impl Worker {
    fn score(
        &mut self,
        row: &RowRef<'_>,
        number: u64,
        tokens: Option<&BackTokens>,
        part: &mut Part<'_>,
    ) -> Result<()> {
        self.types.allow(row.label_list)?;
        self.gold.clear();
        memory::reserve(&mut self.gold, row.labels.len())?;
        for (index, text) in row.labels.iter().enumerate() {
            let label = self.types.read_allowed(text);
            self.gold.push(label.ok_or_else(|| label_outside_list(index, text))?);
        }
        if let Some(tokens) = tokens {
            tokens.translate(row.words, &mut self.lower, &mut self.translated)?;
        }
        let comparison = tokens.map(|_| self.translated.all());
        self.matcher
            .match_words(row.words, row.prediction, &self.types, comparison)
            .map_err(of_words)?;
        let matcher = &self.matcher;
        let scheme = part.options.scheme;
        let (entities, errors) =
            self.scorer.count(Some(row.words), &self.gold, &matcher.labels, &self.types, scheme)?;

        let (path, worst) = (part.path, part.options.worst);
        let OpenScore { score, listed, noted, least_wrong_kept, invalid_labels, invalid_counts } =
            part.dataset(row.dataset)?;
        score.rows += 1;
        score.words += row.words.len() as u64;
        score.conditions[matcher.condition as usize] += 1;
        if matcher.pairs.is_empty() {
            score.empty_predictions += 1;
            if !row.words.is_empty() {
                score.first_empty.get_or_insert_with(|| (path.to_owned(), number));
            }
        }
        let differences = matcher.count_differences();
        score.differences.omitted += differences.omitted;
        score.differences.added += differences.added;
        score.differences.substituted += differences.substituted;
        score.invalid_labels += matcher.invalid_labels.len() as u64;
        for &index in &matcher.invalid_labels {
            let label = matcher.pairs[index].label_text(row.prediction);
            let id = invalid_labels.intern(&label)? as usize;
            if id == invalid_counts.len() {
                memory::push(invalid_counts, 0)?;
            }
            invalid_counts[id] += 1;
        }
        score.entities += entities;
        score.errors += errors;
        let list = self.types.allowed_number();
        if noted.replace(list) != Some(list) {
            listed
                .try_reserve(self.types.allowed_ids().len())
                .map_err(|_| memory::refused(listed.len()))?;
            listed.extend(self.types.allowed_ids());
        }
        let wrong = entities.gold + entities.predicted - 2 * entities.correct;
        if worst > 0 && wrong > *least_wrong_kept {
            let texts =
                |labels: &[Label]| labels.iter().map(|&l| self.types.label_text(l)).collect();
            // Words and labels become strings of their own.
            let bytes = row.words.region().len() + row.prediction.len();
            memory::probe(3 * row.words.len() * STRING_BYTES + bytes)?;
            score.worst.push(WorstRow {
                wrong,
                path: path.to_owned(),
                row: number,
                words: row.words.to_vec(),
                labels: texts(&self.gold),
                predicted: texts(&matcher.labels),
                prediction: row.prediction.to_owned(),
                condition: matcher.condition,
                alignment: matcher.alignment.clone(),
            });
            if score.worst.len() >= worst.saturating_mul(4) {
                score.keep_worst(worst);
                *least_wrong_kept = score.worst.last().map_or(0, |row| row.wrong);
            }
        }
        Ok(())
    }
}
