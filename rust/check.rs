//! Checks that concepts share: each returns what it checked, or the one text for what is wrong.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result, display_float};

/// Powers of two from here on are written as such.
const WRITTEN_AS_POWERS: i128 = 1 << 24;

/// Checks that a slice holds as many values as its shape says.
///
/// # Errors
/// It does not.
pub fn has_length(name: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::OutOfRange { name, range: format!("{expected} values long"), got: got.to_string() })
}

/// Checks that two sequences that belong together are of one length.
///
/// # Errors
/// They are not.
pub fn same_length(
    (first, first_length): (&'static str, usize),
    (second, second_length): (&'static str, usize),
) -> Result<()> {
    if first_length == second_length {
        return Ok(());
    }
    Err(Error::LengthMismatch { first, second, first_length, second_length })
}

/// Checks that a number is in its range.
///
/// # Errors
/// It is not.
///
/// ```
/// let error = lmcore::check::in_range("step", 7, 0..5).unwrap_err();
/// assert_eq!(error.to_string(), "step must be at least 0 and below 5: got 7");
/// ```
pub fn in_range(name: &'static str, value: i128, range: impl RangeBounds<i128>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(out_of_range(name, value, &range))
}

/// The error of a number outside its range; `got` is how the number is written.
#[cold]
pub fn out_of_range(
    name: &'static str,
    got: impl Display,
    range: &impl RangeBounds<i128>,
) -> Error {
    Error::OutOfRange { name, range: describe(range), got: got.to_string() }
}

/// Checks that an item of an argument is in its range.
///
/// # Errors
/// It is not.
pub fn item_in_range(
    name: &'static str,
    index: usize,
    value: i128,
    range: impl RangeBounds<i128>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (index, range, got) = (index.to_string(), describe(&range), value.to_string());
    Err(Error::ItemOutOfRange { name, index, range, got })
}

/// Checks a number of floating point, of which the caller knows whether it is in its range.
///
/// # Errors
/// It is not.
///
/// ```
/// let error = lmcore::check::float_in("share", f64::NAN, false, "at most 1").unwrap_err();
/// assert_eq!(error.to_string(), "share must be at most 1: got nan");
/// ```
pub fn float_in(name: &'static str, value: f64, is_in: bool, range: &str) -> Result<()> {
    if is_in {
        return Ok(());
    }
    let got = display_float(value);
    Err(Error::OutOfRange { name, range: range.to_owned(), got })
}

/// The same for an item of an argument, at one index for each of its dimensions.
///
/// # Errors
/// It is not in its range.
pub fn item_in(
    name: &'static str,
    index: &[usize],
    value: f64,
    is_in: bool,
    range: &str,
) -> Result<()> {
    if is_in {
        return Ok(());
    }
    let index: Vec<String> = index.iter().map(usize::to_string).collect();
    let (index, got) = (index.join(", "), display_float(value));
    Err(Error::ItemOutOfRange { name, index, range: range.to_owned(), got })
}

/// An id or column as an index, if it names something.
///
/// # Errors
/// It names nothing; the error says which it was of `name`, and of which `row`, if there are any.
#[inline]
pub fn id_in_range(
    name: &'static str,
    index: usize,
    row: Option<usize>,
    id: i64,
    range: impl RangeBounds<usize>,
) -> Result<usize> {
    match usize::try_from(id) {
        Ok(found) if range.contains(&found) => Ok(found),
        _ => Err(no_such_id(name, index, row, id, &range)),
    }
}

#[cold]
fn no_such_id(
    name: &'static str,
    index: usize,
    row: Option<usize>,
    id: i64,
    range: &impl RangeBounds<usize>,
) -> Error {
    let widen = |bound: Bound<&usize>| bound.map(|&end| end as i128);
    let range = describe(&(widen(range.start_bound()), widen(range.end_bound())));
    let got = row.map_or_else(|| id.to_string(), |row| format!("{id} (row {row})"));
    Error::IdOutOfRange { name, index: index.to_string(), range, got }
}

/// A range in words.
fn describe(range: &impl RangeBounds<i128>) -> String {
    let least = match range.start_bound() {
        Bound::Included(&least) => least,
        Bound::Excluded(&below) => below.saturating_add(1),
        Bound::Unbounded => i128::MIN,
    };
    match range.end_bound() {
        Bound::Unbounded => format!("at least {least}"),
        Bound::Included(most) => format!("at least {least} and at most {most}"),
        Bound::Excluded(&end) if end >= WRITTEN_AS_POWERS && end & (end - 1) == 0 => {
            format!("at least {least} and below 2**{}", end.trailing_zeros())
        }
        Bound::Excluded(end) => format!("at least {least} and below {end}"),
    }
}

/// The value of this name.
///
/// # Errors
/// There is none.
///
/// ```
/// use lmcore::check::one_of;
///
/// assert_eq!(one_of("order", &["up", "down"], [1, -1], "down"), Ok(-1));
/// let error = one_of("order", &["up", "down"], [1, -1], "left").unwrap_err();
/// assert_eq!(error.to_string(), "order must be one of up, down: got 'left'");
/// ```
pub fn one_of<T: Copy, const N: usize>(
    name: &'static str,
    known: &'static [&'static str; N],
    values: [T; N],
    given: &str,
) -> Result<T> {
    let found = known.iter().zip(values).find(|(known, _)| **known == given);
    let (_, value) =
        found.ok_or_else(|| Error::UnknownName { name, known, given: given.to_owned() })?;
    Ok(value)
}
