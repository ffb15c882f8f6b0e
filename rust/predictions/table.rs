//! Rows of a caller's own objects, copied side by side.

use std::ops::Range;

use super::row::RowRef;
use super::rules::{
    BOTH, Found, LABEL_LIST, LABELS, RowResult, TYPES, WORDS, check_lengths, missing, under_key,
};
use crate::error::{Error, Result, RowProblem};
use crate::text::{Interner, StringRows, Strings};

/// Label lists that a new one is compared with: rows with equal ones share what was read.
const REMEMBERED_LISTS: usize = 8;

/// The values of a row, found under its keys and not looked at yet.
#[derive(Debug)]
pub struct RowValues<V> {
    /// The name of its data set.
    pub dataset: Option<V>,
    /// The entity types that may occur.
    pub types: Option<V>,
    /// The same under the authors' name.
    pub label_list: Option<V>,
    /// Why `instance` has no keys, where it is there and has none.
    pub instance_problem: Option<RowProblem>,
    /// The words of the sentence.
    pub words: Found<V>,
    /// One gold BIO label per word.
    pub labels: Found<V>,
    /// The generated text.
    pub prediction: Option<V>,
}

/// Looks at rows that are objects of the caller's.
///
/// What is wrong with a row or a value is an [`Error::Row`], which need not name the key; any
/// other error ends the work.
pub trait RowReader {
    /// A value of a row.
    type Value;

    /// The values of a row.
    ///
    /// # Errors
    /// The row is no object with keys, or the work ends.
    fn find(&mut self, row: usize) -> Result<RowValues<Self::Value>>;

    /// The text of a value.
    ///
    /// # Errors
    /// It is no text, or the work ends.
    fn text<'v>(&self, value: &'v Self::Value) -> Result<&'v str>;

    /// Appends the strings of a value.
    ///
    /// # Errors
    /// It is no list of strings, or the work ends.
    fn extend_strings(&self, value: &Self::Value, strings: &mut Strings) -> Result<()>;

    /// The same for labels, of which most are `O`.
    ///
    /// # Errors
    /// As [`Self::extend_strings`].
    fn extend_labels(&self, value: &Self::Value, strings: &mut Strings) -> Result<()> {
        self.extend_strings(value, strings)
    }

    /// Whether both are the same object, which need not be read twice.
    fn is_same(&self, one: &Self::Value, other: &Self::Value) -> bool;
}

/// Rows side by side, read by a [`RowReader`].
#[derive(Debug, Default)]
pub struct Table {
    words: StringRows,
    labels: StringRows,
    /// Shared by rows.
    label_lists: StringRows,
    predictions: Strings,
    datasets: Interner,
    rows: Vec<RowResult<TableRow>>,
}

#[derive(Debug)]
struct TableRow {
    label_list: usize,
    dataset: Option<u32>,
}

impl Table {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.labels.clear();
        self.label_lists.clear();
        self.predictions.clear();
        self.datasets.clear();
        self.rows.clear();
    }

    /// Appends rows; of one that cannot be used, the problem.
    ///
    /// # Errors
    /// The work ends; the rows before are there.
    pub fn extend<R: RowReader>(&mut self, reader: &mut R, rows: Range<usize>) -> Result<()> {
        let mut last_list = None;
        let mut rest = rows;
        // The values of a row are found while those of the row before it are still to be read:
        // meanwhile they come near.
        let mut ahead = rest.next().map(|row| reader.find(row));
        while let Some(found) = ahead {
            ahead = rest.next().map(|row| reader.find(row));
            match found.and_then(|values| self.read(reader, values, &mut last_list)) {
                Ok(()) => {}
                Err(Error::Row { problem }) => {
                    self.predictions.push("");
                    self.close_row(Err(problem));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a row in the order in which a file's row is checked.
    fn read<R: RowReader>(
        &mut self,
        reader: &R,
        values: RowValues<R::Value>,
        last_list: &mut Option<(R::Value, usize)>,
    ) -> Result<()> {
        let text = |value, key| reader.text(value).map_err(|error| under_key(key, error));
        let dataset = values.dataset.as_ref().map(|name| text(name, "dataset")).transpose()?;
        let (list, list_key) = match (values.types, values.label_list) {
            (Some(list), None) => (list, TYPES),
            (None, Some(list)) => (list, LABEL_LIST),
            (None, None) => return Err(missing(TYPES).into()),
            (Some(_), Some(_)) => return Err(RowProblem::value(Some(TYPES), BOTH).into()),
        };
        let label_list = match last_list {
            Some((known, index)) if reader.is_same(known, &list) => *index,
            _ => {
                reader.extend_strings(&list, self.label_lists.open()).map_err(|error| {
                    self.label_lists.drop_open();
                    under_key(list_key, error)
                })?;
                let index = self.label_lists.end_row_unless_known(REMEMBERED_LISTS);
                *last_list = Some((list, index));
                index
            }
        };
        if let Some(problem) = values.instance_problem {
            return Err(problem.into());
        }
        let (words, key) = values.words.choose(WORDS)?;
        reader.extend_strings(&words, self.words.open()).map_err(|error| under_key(key, error))?;
        let (labels, key) = values.labels.choose(LABELS)?;
        reader.extend_labels(&labels, self.labels.open()).map_err(|error| under_key(key, error))?;
        check_lengths(key, self.words.open_len(), self.labels.open_len())?;
        let prediction = values.prediction.ok_or_else(|| missing("prediction"))?;
        let prediction = text(&prediction, "prediction")?;
        let dataset = dataset.map(|name| self.datasets.intern(name)).transpose()?;
        self.predictions.append(prediction)?;
        self.close_row(Ok(TableRow { label_list, dataset }));
        Ok(())
    }

    fn close_row(&mut self, row: RowResult<TableRow>) {
        self.words.end_row();
        self.labels.end_row();
        self.rows.push(row);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One row.
    ///
    /// # Errors
    /// The row cannot be used.
    pub fn row(&self, index: usize) -> RowResult<RowRef<'_>> {
        let row = self.rows[index].as_ref().map_err(Clone::clone)?;
        Ok(RowRef {
            dataset: row.dataset.map(|id| self.datasets.get(id)),
            words: self.words.row(index),
            labels: self.labels.row(index),
            label_list: self.label_lists.row(row.label_list),
            prediction: self.predictions.all().get(index),
        })
    }
}
