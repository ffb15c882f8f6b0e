//! Ragged arrays: rows of any lengths that stand one after the other.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::interrupt::Steps;
use crate::memory;

/// Values between two looks at whether the caller stops; a look at each costs more than the value.
const BLOCK: usize = 1 << 10;

/// Rows of any lengths: row r is `values[offsets[r]..offsets[r + 1]]`.
///
/// The offsets of who has one were checked: they ascend from 0 to the number of values.
///
/// ```
/// use lmcore::rows::Rows;
///
/// let rows = Rows::new(&[0, 2, 2, 3], &["a", "b", "c"]).unwrap();
/// assert_eq!(rows.iter().collect::<Vec<_>>(), [&["a", "b"][..], &[], &["c"]]);
/// ```
#[derive(Debug)]
pub struct Rows<'a, T> {
    offsets: &'a [i64],
    values: &'a [T],
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

/// Why offsets cut values into no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There are none; even no rows have one.
    NoOffsets,
    /// The first is not 0.
    Start {
        /// The first.
        got: i64,
    },
    /// A row ends before it starts.
    Descent {
        /// The row.
        row: usize,
        /// Where it starts.
        before: i64,
        /// Where it ends.
        got: i64,
    },
    /// The last is not the number of values.
    End {
        /// How many rows there are.
        rows: usize,
        /// The number of values.
        expected: usize,
        /// The last.
        got: i64,
    },
}

impl Fault {
    /// The error of an array `name`, which cuts an array `values`.
    ///
    /// Who has other words for it makes the error from the fault.
    pub fn of(self, name: &'static str, values: &str) -> Error {
        let wrong = |index: usize, range: String, got: i64| Error::ItemOutOfRange {
            name,
            index: index.to_string(),
            range,
            got: got.to_string(),
        };
        match self {
            Self::NoOffsets => Error::OutOfRange {
                name,
                range: "at least 1 value long".to_owned(),
                got: "0".to_owned(),
            },
            Self::Start { got } => wrong(0, "0".to_owned(), got),
            Self::Descent { row, before, got } => wrong(row + 1, format!("at least {before}"), got),
            Self::End { rows, expected, got } => {
                wrong(rows, format!("{expected}, the length of {values}"), got)
            }
        }
    }
}

impl<'a, T> Rows<'a, T> {
    /// The rows that the offsets cut the values into.
    ///
    /// # Errors
    /// They do not ascend from 0 to the number of values.
    pub fn new(offsets: &'a [i64], values: &'a [T]) -> std::result::Result<Self, Fault> {
        let (&first, &last) = offsets.first().zip(offsets.last()).ok_or(Fault::NoOffsets)?;
        if first != 0 {
            return Err(Fault::Start { got: first });
        }
        if let Some(row) = offsets.windows(2).position(|row| row[1] < row[0]) {
            return Err(Fault::Descent { row, before: offsets[row], got: offsets[row + 1] });
        }
        if usize::try_from(last) != Ok(values.len()) {
            return Err(Fault::End { rows: offsets.len() - 1, expected: values.len(), got: last });
        }
        Ok(Self { offsets, values })
    }

    /// How many rows there are.
    pub fn len(self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where a row stands among the values.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "offsets are from 0 to the number of values"
    )]
    pub fn range(self, row: usize) -> Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// The values of a row.
    #[inline]
    pub fn row(self, row: usize) -> &'a [T] {
        &self.values[self.range(row)]
    }

    /// The rows in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = &'a [T]> + ExactSizeIterator {
        (0..self.len()).map(move |row| self.row(row))
    }
}

/// The same, with memory of its own.
#[derive(Debug)]
pub struct OwnedRows<T> {
    offsets: Vec<i64>,
    values: Vec<T>,
}

impl<T: Copy> OwnedRows<T> {
    /// No rows yet, with room for some.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn with_capacity(rows: usize, values: usize) -> Result<Self> {
        let mut offsets = memory::with_capacity(memory::size(&[rows])?.saturating_add(1))?;
        offsets.push(0);
        Ok(Self { offsets, values: memory::with_capacity(values)? })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn push(&mut self, row: &[T]) -> Result<()> {
        memory::reserve(&mut self.values, row.len())?;
        memory::reserve(&mut self.offsets, 1)?;
        self.values.extend_from_slice(row);
        // No vector is longer than `i64::MAX`.
        self.offsets.push(self.values.len().cast_signed() as i64);
        Ok(())
    }

    /// The rows of another ragged array, each value made into another.
    ///
    /// # Errors
    /// One of `make`, which gets the index of each value; the memory is refused, or the caller
    /// stops.
    pub fn map<U>(rows: Rows<'_, U>, make: impl FnMut(usize, &U) -> Result<T>) -> Result<Self> {
        let values = map_values(rows.values, make)?;
        let offsets = memory::collect(rows.offsets.len(), rows.offsets.iter().copied())?;
        Ok(Self { offsets, values })
    }

    /// The values of a row.
    #[inline]
    pub fn row(&self, row: usize) -> &[T] {
        self.rows().row(row)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows().is_empty()
    }

    /// All rows.
    #[inline]
    pub fn rows(&self) -> Rows<'_, T> {
        Rows { offsets: &self.offsets, values: &self.values }
    }
}

/// Values, each made into another.
///
/// # Errors
/// One of `make`, which gets the index of each value; the memory is refused, or the caller stops.
pub fn map_values<T, U>(
    values: &[U],
    mut make: impl FnMut(usize, &U) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = memory::with_capacity(values.len())?;
    let mut steps = Steps::default();
    for (block, part) in values.chunks(BLOCK).enumerate() {
        steps.take(part.len())?;
        for (index, value) in part.iter().enumerate() {
            found.push(make(block * BLOCK + index, value)?);
        }
    }
    Ok(found)
}
