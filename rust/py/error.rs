//! The one place where the core's errors become Python's.

use pyo3::PyErr;
use pyo3::exceptions::{
    PyIndexError, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};

use crate::error::{Error, Kind};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            Kind::Value => PyValueError::new_err(text),
            Kind::Type => PyTypeError::new_err(text),
            Kind::Index => PyIndexError::new_err(text),
            Kind::Memory => PyMemoryError::new_err(text),
            Kind::Os => match error {
                // With a number, Python chooses the subclass of OSError.
                Error::File { path, reason, code: Some(code) } => {
                    PyOSError::new_err((code, reason, path.into_os_string()))
                }
                _ => PyOSError::new_err(text),
            },
            // What the caller raised comes out instead, where it was kept.
            Kind::Caller => PyRuntimeError::new_err(text),
        }
    }
}
