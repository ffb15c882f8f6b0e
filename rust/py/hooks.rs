//! The interpreter released for long work that Ctrl-C and functions of the caller's can end.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::error::{Error, Kind, Result};
use crate::interrupt::{self, PATIENCE};

/// Keeps the exception of a Python function while the core gives its own error up.
#[derive(Debug, Clone, Default)]
pub struct Raised(Rc<RefCell<Option<PyErr>>>);

impl Raised {
    /// Keeps an exception. `KeyboardInterrupt` and its like, which are no `Exception`, end the
    /// work at once; of others and the errors of rows before them, the first comes out.
    pub fn keep(&self, py: Python<'_>, error: PyErr) -> Error {
        let ends = !is_exception(py, &error);
        *self.0.borrow_mut() = Some(error);
        if ends { Error::Stopped } else { Error::Raised }
    }
}

/// Whether it is an `Exception`: what is none asks to end, as Ctrl-C does.
pub fn is_exception(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
}

/// Releases the interpreter for `work`, which Ctrl-C ends within some tens of milliseconds where
/// it takes its steps from [`interrupt::Steps`].
pub fn detach_interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    detach_with_calls(py, |_| work())
}

/// The same for work that calls Python functions back: what they raise is kept and comes out.
pub fn detach_with_calls<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Raised) -> Result<T> + Send,
) -> PyResult<T> {
    let (result, raised) = py.detach(move || {
        let raised = Raised::default();
        let kept = raised.clone();
        let ask =
            move || Python::attach(|py| py.check_signals().map_err(|error| kept.keep(py, error)));
        let result = interrupt::with_hook(PATIENCE, ask, || work(&raised));
        (result, raised.0.take())
    });
    match (result, raised) {
        (Err(ended), Some(error)) if ended.kind() == Kind::Caller => Err(error),
        (result, _) => Ok(result?),
    }
}
