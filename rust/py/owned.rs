//! What stands in place of `borrowed.rs` where the interpreter has no lock.
//!
//! Another thread may change a list while it is read, so no item is looked at without a reference
//! of our own: every item is left to the loop that owns it.

use std::ops::Range;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::error::Result;
use crate::text::Strings;

/// Appends nothing, and returns the first item as the one where it stopped.
#[expect(clippy::unnecessary_wraps, reason = "it has the signature of what it stands for")]
pub fn extend_from_list(
    _strings: &mut Strings,
    _list: &Bound<'_, PyList>,
    _known: Option<&Bound<'_, PyString>>,
    items: Range<usize>,
) -> Result<usize> {
    Ok(items.start)
}

/// Does nothing.
pub fn prefetch_items(_list: &Bound<'_, PyAny>) {}
