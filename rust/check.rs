//! Checks that concepts share.

use crate::error::{Error, Result};

/// Checks that a slice holds as many values as its shape says.
///
/// # Errors
/// It does not.
pub fn check_length(name: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let range = format!("{expected} values long");
    Err(Error::OutOfRange { name, range, got: got.to_string() })
}

/// Checks that two sequences that belong together are of one length.
///
/// # Errors
/// They are not.
pub fn check_same_length(
    (first, first_length): (&'static str, usize),
    (second, second_length): (&'static str, usize),
) -> Result<()> {
    if first_length == second_length {
        return Ok(());
    }
    Err(Error::LengthMismatch { first, second, first_length, second_length })
}
