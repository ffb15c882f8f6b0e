//! Binding of [`crate::predictions`].

use std::path::PathBuf;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::arrays::{
    Refusal, Whole, extend_labels, extend_strings, paths, strings, text, thread_count, type_name,
};
use super::borrowed::prefetch_items;
use super::entities::{counts_tuple, kinds_tuple};
use super::hooks::{Raised, detach_interruptible, detach_with_calls, is_exception};
use super::lcs::signed;
use crate::entities::Scheme;
use crate::error::{Error, Result, RowProblem};
use crate::predictions::{
    self, AlignOptions, DatasetScore, Evaluation, Hooks, ScoreOptions, Table, WorstRow,
    in_both_places,
};

/// Rows taken from a list before the interpreter is released for a moment.
const TABLE_ROWS: usize = 128;
/// Label lists that a new one is compared with: rows with equal ones share what was read.
const REMEMBERED_LISTS: usize = 8;
/// The same with a tokenizer, which is asked once per table.
const TOKENIZED_TABLE_ROWS: usize = 8192;

/// Returns the sums over the rows of a list.
#[pyfunction]
#[pyo3(signature = (examples, scheme, threads, worst, skip_bad_rows, back_tokenize, /))]
pub fn score_examples<'py>(
    py: Python<'py>,
    examples: &Bound<'py, PyList>,
    scheme: &str,
    threads: Option<Whole>,
    worst: Whole,
    skip_bad_rows: bool,
    back_tokenize: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = ScoreOptions {
        scheme: Scheme::from_name(scheme)?,
        threads: thread_count(threads)?,
        worst: worst.at_least(0, "worst")?,
        skip_bad_rows,
    };
    let rows = if back_tokenize.is_some() { TOKENIZED_TABLE_ROWS } else { TABLE_ROWS };
    let mut examples = Rows { examples: examples.clone().unbind(), taken: 0, raised: None };
    let evaluation = with_hooks(py, None, back_tokenize, move |hooks, raised| {
        let mut evaluation = Evaluation::default();
        let mut next = |table: &mut Table| {
            Python::attach(|py| match examples.read(py, rows, table) {
                Ok(()) => Ok(()),
                Err(Stop::Core(error)) => Err(error),
                Err(Stop::Raised(error)) => Err(raised.keep(py, error)),
            })
        };
        predictions::score_tables(&mut next, &options, hooks, &mut evaluation)?;
        Ok(evaluation)
    })?;
    evaluation_dict(py, evaluation)
}

/// Returns the sums over the rows of files.
#[pyfunction]
#[pyo3(signature = (paths, scheme, threads, worst, skip_bad_rows, back_tokenize, progress, /))]
#[allow(clippy::too_many_arguments)]
pub fn score_files<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyAny>,
    scheme: &str,
    threads: Option<Whole>,
    worst: Whole,
    skip_bad_rows: bool,
    back_tokenize: Option<Py<PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = ScoreOptions {
        scheme: Scheme::from_name(scheme)?,
        threads: thread_count(threads)?,
        worst: worst.at_least(0, "worst")?,
        skip_bad_rows,
    };
    let paths = self::paths(paths, "paths")?;
    let evaluation = with_hooks(py, progress, back_tokenize, move |hooks, _| {
        let mut evaluation = Evaluation::default();
        for path in &paths {
            predictions::score_file(path, &options, hooks, &mut evaluation)?;
        }
        Ok(evaluation)
    })?;
    evaluation_dict(py, evaluation)
}

/// Writes one aligned row per row of a file; returns the number of rows, and the bad ones.
#[pyfunction]
#[pyo3(signature = (input_path, output_path, scheme, threads, skip_bad_rows, back_tokenize, progress, /))]
#[allow(clippy::too_many_arguments)]
pub fn align_file(
    py: Python<'_>,
    input_path: PathBuf,
    output_path: PathBuf,
    scheme: &str,
    threads: Option<Whole>,
    skip_bad_rows: bool,
    back_tokenize: Option<Py<PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(u64, u64, Vec<String>)> {
    let options = AlignOptions {
        scheme: Scheme::from_name(scheme)?,
        threads: thread_count(threads)?,
        skip_bad_rows,
    };
    let summary = with_hooks(py, progress, back_tokenize, move |hooks, _| {
        predictions::align_file(&input_path, &output_path, &options, hooks)
    })?;
    let listed = summary.listed_bad_rows.iter().map(ToString::to_string).collect();
    Ok((summary.rows, summary.bad_rows, listed))
}

/// Returns one aligned row as JSON.
#[pyfunction]
#[pyo3(signature = (row, scheme, /))]
pub fn align_row(py: Python<'_>, row: &str, scheme: &str) -> PyResult<String> {
    let scheme = Scheme::from_name(scheme)?;
    detach_interruptible(py, || predictions::align_line(row, scheme))
}

/// Runs the core without the interpreter; Python functions are called back on this thread,
/// which is also where Ctrl-C arrives.
fn with_hooks<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    back_tokenize: Option<Py<PyAny>>,
    run: impl FnOnce(&mut Hooks<'_>, &Raised) -> Result<T> + Send,
) -> PyResult<T> {
    detach_with_calls(py, move |raised| {
        let mut on_progress = |done: u64| {
            Python::attach(|py| {
                let call = || {
                    py.check_signals()?;
                    progress.as_ref().map_or(Ok(()), |call| call.call1(py, (done,)).map(|_| ()))
                };
                call().map_err(|error| raised.keep(py, error))
            })
        };
        let mut on_words = back_tokenize.map(|call| {
            move |words: &[String]| {
                Python::attach(|py| {
                    ask_tokenizer(call.bind(py), words).map_err(|error| raised.keep(py, error))
                })
            }
        });
        run(
            &mut Hooks {
                progress: &mut on_progress,
                back_tokenize: on_words.as_mut().map(|call| call as _),
            },
            raised,
        )
    })
}

/// What the caller's tokenizer makes of words.
fn ask_tokenizer(call: &Bound<'_, PyAny>, words: &[String]) -> PyResult<Vec<String>> {
    Ok(strings(&call.call1((words,))?, "the answer of back_tokenize")?.all().to_vec())
}

/// Rows that are taken from a list of dicts, some at a time.
struct Rows {
    examples: Py<PyList>,
    taken: usize,
    /// What the caller's code raised while a row was looked at: the rows before it come first.
    raised: Option<PyErr>,
}

impl Rows {
    /// Takes the next rows.
    fn read(&mut self, py: Python<'_>, rows: usize, table: &mut Table) -> Stops<()> {
        if let Some(error) = self.raised.take() {
            return Err(Stop::Raised(error));
        }
        match self.read_some(py, rows, table) {
            Err(Stop::Raised(error)) if !table.is_empty() && is_exception(py, &error) => {
                self.raised = Some(error);
                Ok(())
            }
            result => result,
        }
    }

    fn read_some(&mut self, py: Python<'_>, rows: usize, table: &mut Table) -> Stops<()> {
        let examples = self.examples.bind(py);
        let end = examples.len().min(self.taken + rows);
        let find = |index: usize| RowParts::find(&examples.get_item(index)?);
        let mut last_list = None;
        // The values of a row are found while those of the row before it are still to be read:
        // meanwhile they come near.
        let mut ahead = (self.taken < end).then(|| find(self.taken));
        for index in self.taken..end {
            let next = (index + 1 < end).then(|| find(index + 1));
            if let Some(found) = std::mem::replace(&mut ahead, next) {
                match found.and_then(|parts| parts.read(table, &mut last_list)) {
                    Ok(()) => {}
                    Err(RowStop::Problem(problem)) => table.end_bad_row(problem),
                    Err(RowStop::Stop(stop)) => return Err(stop),
                }
            }
        }
        self.taken = end.max(self.taken);
        Ok(())
    }
}

/// What ends the reading of rows.
enum Stop {
    Core(Error),
    Raised(PyErr),
}

type Stops<T> = std::result::Result<T, Stop>;

/// What ends the reading of one row.
enum RowStop {
    Problem(RowProblem),
    Stop(Stop),
}

type RowStops<T> = std::result::Result<T, RowStop>;

impl From<RowProblem> for RowStop {
    fn from(problem: RowProblem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Error> for RowStop {
    fn from(error: Error) -> Self {
        Self::Stop(Stop::Core(error))
    }
}

impl From<PyErr> for RowStop {
    fn from(error: PyErr) -> Self {
        Self::Stop(Stop::Raised(error))
    }
}

/// A value of a row, where it has one, with the name of its key.
struct Value<'py> {
    found: Option<Bound<'py, PyAny>>,
    key: &'static str,
    /// Whether the key stands at the top of the row and in its instance.
    in_both_places: bool,
}

impl<'py> Value<'py> {
    fn take(self) -> std::result::Result<(Bound<'py, PyAny>, &'static str), RowProblem> {
        if self.in_both_places {
            return Err(in_both_places(self.key));
        }
        Ok((self.found.ok_or_else(|| missing(self.key))?, self.key))
    }
}

/// The values of one row.
struct RowParts<'py> {
    dataset: Option<Bound<'py, PyAny>>,
    label_list: Option<Bound<'py, PyAny>>,
    instance_problem: Option<RowProblem>,
    words: Value<'py>,
    labels: Value<'py>,
    prediction: Option<Bound<'py, PyAny>>,
}

impl<'py> RowParts<'py> {
    fn find(row: &Bound<'py, PyAny>) -> RowStops<Self> {
        let py = row.py();
        let row = row.cast::<PyDict>().map_err(|_| RowProblem {
            wrong_type: true,
            ..RowProblem::value(None, format!("expected a dict, got {}", type_name(row)))
        })?;
        let value = row.get_item(intern!(py, "instance"))?;
        let instance = value.as_ref().and_then(|value| value.cast::<PyDict>().ok());
        let instance_problem = match &value {
            Some(value) if instance.is_none() => {
                Some(RowProblem::of_type("instance", "a dict", &type_name(value)))
            }
            _ => None,
        };
        let find_list = |key: &Bound<'py, PyString>, flat: &'static str, nested: &'static str| {
            let inner = instance.map_or(Ok(None), |dict| dict.get_item(key))?;
            let outer = row.get_item(key)?;
            let in_both_places = inner.is_some() && outer.is_some();
            let key = if inner.is_some() && !in_both_places { nested } else { flat };
            let found = inner.or(outer);
            found.iter().for_each(prefetch_items);
            PyResult::Ok(Value { found, key, in_both_places })
        };
        Ok(Self {
            words: find_list(intern!(py, "words"), "words", "instance.words")?,
            labels: find_list(intern!(py, "labels"), "labels", "instance.labels")?,
            dataset: row.get_item(intern!(py, "dataset"))?,
            label_list: row.get_item(intern!(py, "label_list"))?,
            prediction: row.get_item(intern!(py, "prediction"))?,
            instance_problem,
        })
    }

    /// Reads the row in the order in which a file's row is checked.
    fn read(
        self,
        table: &mut Table,
        last_list: &mut Option<(Bound<'py, PyAny>, usize)>,
    ) -> RowStops<()> {
        let dataset = self.dataset.as_ref().map(|name| read_text(name, "dataset")).transpose()?;
        let list = self.label_list.ok_or_else(|| missing("label_list"))?;
        let label_list = match last_list {
            Some((known, place)) if known.is(&list) => *place,
            _ => {
                let strings = table.label_lists.open();
                extend_strings(strings, &list, &"").map_err(|refusal| {
                    table.label_lists.drop_open();
                    stop("label_list", refusal)
                })?;
                let place = table.label_lists.end_row_unless_known(REMEMBERED_LISTS);
                *last_list = Some((list, place));
                place
            }
        };
        if let Some(problem) = self.instance_problem {
            return Err(problem.into());
        }
        let (words, key) = self.words.take()?;
        extend_strings(table.words.open(), &words, &"").map_err(|refusal| stop(key, refusal))?;
        let (labels, key) = self.labels.take()?;
        extend_labels(table.labels.open(), &labels, &"").map_err(|refusal| stop(key, refusal))?;
        table.check_open_row(key)?;
        let prediction = self.prediction.ok_or_else(|| missing("prediction"))?;
        table.end_row(read_text(&prediction, "prediction")?, dataset, label_list)?;
        Ok(())
    }
}

fn missing(key: &str) -> RowProblem {
    RowProblem::value(Some(key), "this key is missing")
}

fn read_text<'a>(value: &'a Bound<'_, PyAny>, key: &str) -> RowStops<&'a str> {
    text(value, "").map_err(|refusal| stop(key, refusal))
}

/// What a refused value is to its row: a problem, if the refusal is ours.
fn stop(key: &str, refusal: Refusal) -> RowStop {
    let problem = |reason: String, wrong_type: bool| RowProblem {
        wrong_type,
        ..RowProblem::value(Some(key), reason.trim())
    };
    match refusal {
        Refusal::Type(reason) => problem(reason, true).into(),
        Refusal::Value(reason) => problem(reason, false).into(),
        Refusal::Core(error) => error.into(),
        Refusal::Raised(error) => error.into(),
    }
}

fn evaluation_dict(py: Python<'_>, evaluation: Evaluation) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    let datasets = PyDict::new(py);
    for score in evaluation.datasets {
        datasets.set_item(&score.name, dataset_dict(py, &score)?)?;
    }
    result.set_item("datasets", datasets)?;
    result.set_item("bad_rows", evaluation.bad_rows)?;
    let listed: Vec<String> = evaluation.listed_bad_rows.iter().map(ToString::to_string).collect();
    result.set_item("listed_bad_rows", listed)?;
    Ok(result)
}

fn dataset_dict<'py>(py: Python<'py>, score: &DatasetScore) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rows", score.rows)?;
    dict.set_item("words", score.words)?;
    dict.set_item("conditions", score.conditions)?;
    dict.set_item("empty_predictions", score.empty_predictions)?;
    let differences = score.differences;
    dict.set_item(
        "differences",
        (differences.omitted, differences.added, differences.substituted),
    )?;
    dict.set_item("invalid_labels", score.invalid_labels)?;
    dict.set_item("entities", counts_tuple(score.entities))?;
    dict.set_item("errors", kinds_tuple(score.errors))?;
    dict.set_item("label_list", score.label_list.iter().collect::<Vec<_>>())?;
    let worst: PyResult<Vec<_>> = score.worst.iter().map(|row| worst_dict(py, row)).collect();
    dict.set_item("worst", worst?)?;
    Ok(dict)
}

fn worst_dict<'py>(py: Python<'py>, row: &WorstRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("wrong", row.wrong)?;
    dict.set_item("path", &row.path)?;
    dict.set_item("row", row.row)?;
    dict.set_item("words", &row.words)?;
    dict.set_item("labels", &row.labels)?;
    dict.set_item("predicted", &row.predicted)?;
    dict.set_item("prediction", &row.prediction)?;
    dict.set_item("matching", row.condition.name())?;
    dict.set_item("alignment", signed(&row.alignment)?)?;
    Ok(dict)
}
