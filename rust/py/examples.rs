//! Binding of [`crate::examples`].

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::arrays::{Whole, nested_labels, nested_strings, strings, thread_count};
use super::hooks::detach_interruptible;
use crate::examples::{self, Sentences};

/// Returns the lines of examples, and how many hold a word that reads as a label.
#[pyfunction]
#[pyo3(signature = (heads, types, words, labels, target_labels, datasets, template, context, threads, /))]
#[expect(clippy::too_many_arguments, reason = "those of the function in Python")]
pub fn write_examples_batch<'py>(
    py: Python<'py>,
    heads: &Bound<'py, PyAny>,
    types: &Bound<'py, PyAny>,
    words: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
    target_labels: Option<&Bound<'py, PyAny>>,
    datasets: Option<&Bound<'py, PyAny>>,
    template: &Bound<'py, PyAny>,
    context: Option<Whole>,
    threads: Option<Whole>,
) -> PyResult<(Bound<'py, PyBytes>, usize)> {
    let threads = thread_count(threads)?;
    let context = context.map(|count| count.at_least(0, "context")).transpose()?;
    let heads = strings(heads, "heads")?;
    let types = nested_strings(types, "types")?;
    let words = nested_strings(words, "words")?;
    let labels = nested_labels(labels, "labels")?;
    let target_labels = target_labels.map(|given| nested_labels(given, "target_labels"));
    let target_labels = target_labels.transpose()?;
    let datasets = datasets.map(|given| strings(given, "datasets")).transpose()?;
    let template = strings(template, "template")?;
    let sentences = Sentences {
        heads: heads.all(),
        types: &types,
        words: &words,
        labels: &labels,
        target_labels: target_labels.as_ref(),
        datasets: datasets.as_ref().map(crate::text::Strings::all),
    };
    let written = detach_interruptible(py, || {
        examples::write_examples_batch(sentences, template.all(), context, threads)
    })?;
    Ok((PyBytes::new(py, written.lines.as_bytes()), written.unreadable))
}
