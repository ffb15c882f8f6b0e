//! Binding of [`crate::predictions`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::arrays::{
    Refusal, Whole, extend_labels, extend_strings, list_of, paths, strings, text, thread_count,
    type_name,
};
use super::borrowed::prefetch_items;
use super::entities::{Counts, Kinds, counts_tuple, kinds_tuple};
use super::hooks::{Raised, detach_interruptible, detach_with_calls};
use super::lcs::signed;
use crate::entities::Scheme;
use crate::error::{Error, Result, RowProblem};
use crate::predictions::{
    self, AlignOptions, DatasetScore, Evaluation, Found, Hooks, RowReader, RowValues, ScoreOptions,
    ScoredFile, Table, WorstRow,
};
use crate::text::Strings;

type List<'py> = Bound<'py, PyList>;
type Differences = (u64, u64, u64);
type Dataset<'py> = (
    u64,
    u64,
    (u64, u64, u64),
    u64,
    Option<(String, u64)>,
    Differences,
    u64,
    BTreeMap<String, u64>,
    Counts,
    Kinds,
    List<'py>,
    List<'py>,
);
type Worst<'py> =
    (u64, String, u64, List<'py>, List<'py>, List<'py>, String, &'static str, List<'py>);

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
) -> PyResult<(Bound<'py, PyDict>, u64, List<'py>)> {
    let options = ScoreOptions {
        scheme: Scheme::from_name(scheme)?,
        threads: thread_count(threads)?,
        worst: worst.at_least(0, "worst")?,
        skip_bad_rows,
    };
    let examples = examples.clone().unbind();
    let evaluation = with_hooks(py, None, back_tokenize, move |hooks, raised| {
        let mut taken = 0;
        let mut next = |table: &mut Table, rows: usize| {
            Python::attach(|py| {
                let examples = examples.bind(py);
                let end = examples.len().min(taken + rows).max(taken);
                table.extend(&mut Examples { examples, raised }, taken..end)?;
                taken = end;
                Ok(())
            })
        };
        predictions::score_examples(&mut next, &options, hooks)
    })?;
    evaluation_tuple(py, evaluation)
}

/// Returns the sums over the rows of files.
#[pyfunction]
#[pyo3(signature = (paths, names, scheme, threads, worst, skip_bad_rows, back_tokenize, progress, /))]
#[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
pub fn score_files<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyAny>,
    names: Option<Vec<(String, String)>>,
    scheme: &str,
    threads: Option<Whole>,
    worst: Whole,
    skip_bad_rows: bool,
    back_tokenize: Option<Py<PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, u64, List<'py>)> {
    let options = ScoreOptions {
        scheme: Scheme::from_name(scheme)?,
        threads: thread_count(threads)?,
        worst: worst.at_least(0, "worst")?,
        skip_bad_rows,
    };
    let paths = self::paths(paths, "paths")?;
    let mut names = names.into_iter().flatten();
    let mut files = Vec::new();
    for path in &paths {
        let mut file = ScoredFile::new(path);
        if let Some((name, dataset)) = names.next() {
            (file.name, file.dataset) = (name, dataset);
        }
        files.push(file);
    }
    let evaluation = with_hooks(py, progress, back_tokenize, move |hooks, _| {
        predictions::score_files(&files, &options, hooks)
    })?;
    evaluation_tuple(py, evaluation)
}

/// Writes one aligned row per row of a file; returns the number of rows, and the bad ones.
#[pyfunction]
#[pyo3(signature = (input_path, output_path, scheme, threads, skip_bad_rows, back_tokenize, progress, /))]
#[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
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
    detach_interruptible(py, || predictions::align_row(row, scheme))
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

/// Rows that are dicts in a list.
struct Examples<'e, 'py> {
    examples: &'e Bound<'py, PyList>,
    raised: &'e Raised,
}

impl Examples<'_, '_> {
    /// What a refused value is to its row.
    #[cold]
    fn error(&self, refusal: Refusal) -> Error {
        let problem = |reason: &str, wrong_type: bool| RowProblem {
            wrong_type,
            ..RowProblem::value(None, reason.trim())
        };
        match refusal {
            Refusal::Type(reason) => problem(&reason, true).into(),
            Refusal::Value(reason) => problem(&reason, false).into(),
            Refusal::Core(error) => error,
            Refusal::Raised(error) => self.raised.keep(self.examples.py(), error),
        }
    }

    fn find_values<'py>(row: &Bound<'py, PyAny>) -> PyResult<Result<RowValues<Bound<'py, PyAny>>>> {
        let py = row.py();
        let Ok(row) = row.cast::<PyDict>() else {
            let reason = format!("expected a dict, got {}", type_name(row));
            let problem = RowProblem { wrong_type: true, ..RowProblem::value(None, reason) };
            return Ok(Err(problem.into()));
        };
        let value = row.get_item(intern!(py, "instance"))?;
        let instance = value.as_ref().and_then(|value| value.cast::<PyDict>().ok());
        let instance_problem = match &value {
            Some(value) if instance.is_none() => {
                Some(RowProblem::of_type("instance", "a dict", &type_name(value)))
            }
            _ => None,
        };
        let find = |key: &Bound<'py, PyString>| {
            let in_instance = instance.map_or(Ok(None), |dict| dict.get_item(key))?;
            let at_top = row.get_item(key)?;
            in_instance.iter().chain(&at_top).for_each(prefetch_items);
            PyResult::Ok(Found { at_top, in_instance })
        };
        Ok(Ok(RowValues {
            words: find(intern!(py, "words"))?,
            labels: find(intern!(py, "labels"))?,
            dataset: row.get_item(intern!(py, "dataset"))?,
            types: row.get_item(intern!(py, "types"))?,
            label_list: row.get_item(intern!(py, "label_list"))?,
            prediction: row.get_item(intern!(py, "prediction"))?,
            instance_problem,
        }))
    }
}

impl<'py> RowReader for Examples<'_, 'py> {
    type Value = Bound<'py, PyAny>;

    fn find(&mut self, row: usize) -> Result<RowValues<Self::Value>> {
        let found = self.examples.get_item(row).and_then(|row| Self::find_values(&row));
        found.unwrap_or_else(|error| Err(self.error(error.into())))
    }

    fn text<'v>(&self, value: &'v Self::Value) -> Result<&'v str> {
        text(value, "").map_err(|refusal| self.error(refusal))
    }

    fn extend_strings(&self, value: &Self::Value, strings: &mut Strings) -> Result<()> {
        extend_strings(strings, value, &"").map_err(|refusal| self.error(refusal))
    }

    fn extend_labels(&self, value: &Self::Value, strings: &mut Strings) -> Result<()> {
        extend_labels(strings, value, &"").map_err(|refusal| self.error(refusal))
    }

    fn is_same(&self, one: &Self::Value, other: &Self::Value) -> bool {
        one.is(other)
    }
}

fn evaluation_tuple(
    py: Python<'_>,
    evaluation: Evaluation,
) -> PyResult<(Bound<'_, PyDict>, u64, List<'_>)> {
    let datasets = PyDict::new(py);
    for mut score in evaluation.datasets {
        let name = std::mem::take(&mut score.name);
        datasets.set_item(name, dataset_tuple(py, score)?)?;
    }
    let listed = evaluation.listed_bad_rows.iter().map(ToString::to_string).collect();
    Ok((datasets, evaluation.bad_rows, list_of::<String>(py, listed)?))
}

fn dataset_tuple(py: Python<'_>, score: DatasetScore) -> PyResult<Dataset<'_>> {
    let differences = score.differences;
    let worst: PyResult<Vec<_>> = score.worst.into_iter().map(|row| worst_tuple(py, row)).collect();
    Ok((
        score.rows,
        score.words,
        score.conditions.into(),
        score.empty_predictions,
        score.first_empty,
        (differences.omitted, differences.added, differences.substituted),
        score.invalid_labels,
        score.named_invalid_labels,
        counts_tuple(score.entities),
        kinds_tuple(score.errors),
        list_of::<String>(py, score.label_list.into_iter().collect())?,
        list_of(py, worst?)?,
    ))
}

fn worst_tuple(py: Python<'_>, row: WorstRow) -> PyResult<Worst<'_>> {
    Ok((
        row.wrong,
        row.path,
        row.row,
        list_of(py, row.words)?,
        list_of(py, row.labels)?,
        list_of(py, row.predicted)?,
        row.prediction,
        row.condition.name(),
        list_of(py, signed(&row.alignment)?)?,
    ))
}
