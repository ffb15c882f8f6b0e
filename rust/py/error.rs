//! The one place where the core's errors become Python's.

use pyo3::PyErr;
use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyTypeError, PyValueError};

use crate::error::Error;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Line { problem, .. }
            | Error::Row { problem }
            | Error::Example { problem, .. }
                if problem.wrong_type =>
            {
                PyTypeError::new_err(text)
            }
            // With a number, Python chooses the subclass of OSError.
            Error::File { path, reason, code: Some(code) } => {
                PyOSError::new_err((code, reason, path.into_os_string()))
            }
            Error::File { .. } => PyOSError::new_err(text),
            Error::IdOutOfRange { .. }
            | Error::UserRange { .. }
            | Error::ItemRange { .. }
            | Error::PlaceRange { .. }
            | Error::NotReversed { .. } => PyIndexError::new_err(text),
            Error::Memory { .. } => PyMemoryError::new_err(text),
            Error::ItemWidth { .. } => PyTypeError::new_err(text),
            _ => PyValueError::new_err(text),
        }
    }
}
