//! Binding of [`crate::duplicates`].

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::arrays::{IntoNumpy, Whole, strings, thread_count};
use super::cleaning::{RulesTuple, left_of, rules_of, table_of};
use super::hooks::detach_interruptible;
use crate::duplicates::{self, Key, Search};
use crate::error::Result;
use crate::memory;

type Table = Vec<(u64, u64)>;
type Distinct<'py> = (Bound<'py, PyList>, Bound<'py, PyArray1<u8>>, Table);

/// Hashes of the texts and sentences that were seen.
#[pyclass]
pub struct Duplicates(duplicates::Duplicates);

#[pymethods]
impl Duplicates {
    #[new]
    #[pyo3(signature = (key, max_memory, keeps_added, /))]
    fn new(key: [u8; 16], max_memory: Option<Whole>, keeps_added: bool) -> PyResult<Self> {
        let most = max_memory.map(|bytes| bytes.at_least(0, "max_memory")).transpose()?;
        let mut duplicates = duplicates::Duplicates::new(Key::new(key), most)?;
        if keeps_added {
            duplicates.table_mut().keep_added();
        }
        Ok(Self(duplicates))
    }

    fn __len__(&self) -> usize {
        self.0.table().len()
    }

    fn memory_bytes(&self) -> usize {
        self.0.table().bytes()
    }

    #[pyo3(signature = (texts, threads, /))]
    fn add<'py>(
        &mut self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: Option<Whole>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let threads = thread_count(threads)?;
        let texts = strings(texts, "texts")?;
        let known = detach_interruptible(py, || self.0.add_batch(texts.all(), threads))?;
        Ok(known.into_numpy(py))
    }

    #[pyo3(signature = (texts, documents, sentences, rules, threads, /))]
    fn remove<'py>(
        &mut self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        documents: bool,
        sentences: Whole,
        rules: RulesTuple,
        threads: Option<Whole>,
    ) -> PyResult<Distinct<'py>> {
        let sentences = sentences.at_least(0, "sentences")?;
        let search = Search { documents, sentences, rules: rules_of(rules)? };
        let threads = thread_count(threads)?;
        let texts = strings(texts, "texts")?;
        let distinct =
            detach_interruptible(py, || self.0.remove_batch(texts.all(), &search, threads))?;
        let left = left_of(py, &distinct.texts, &distinct.fates)?;
        let mut table = table_of(&distinct.counts);
        table.extend([distinct.documents, distinct.paragraphs]);
        Ok((left, distinct.fates.into_numpy(py), table))
    }

    fn take_added<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.table_mut().take_added())
    }

    #[pyo3(signature = (stored, /))]
    fn load(&mut self, py: Python<'_>, stored: &[u8]) -> PyResult<()> {
        detach_interruptible(py, || self.0.table_mut().load(stored))
    }
}

/// Returns both halves of the hash of each text.
#[pyfunction]
#[pyo3(signature = (texts, key, threads, /))]
pub fn hash_texts<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    key: [u8; 16],
    threads: Option<Whole>,
) -> PyResult<Bound<'py, PyArray2<u64>>> {
    let threads = thread_count(threads)?;
    let texts = strings(texts, "texts")?;
    let hash = || -> Result<Vec<u64>> {
        let hashes = duplicates::hash_batch(Key::new(key), texts.all(), threads)?;
        memory::collect(hashes.len(), hashes)
    };
    let hashes = detach_interruptible(py, hash)?;
    hashes.into_numpy(py).reshape([texts.len(), 2])
}
