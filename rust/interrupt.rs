//! Long calls that can be stopped: the caller is asked now and then whether to go on.
//!
//! Who calls the core installs a hook with [`with_hook`]; work that may last takes its steps from
//! a [`Steps`], or calls [`check`] between its parts, and gives an error up when it gets one. The
//! hook belongs to the thread, so that no function has to be handed one. Threads that
//! [`crate::threads::run_blocks`] starts have a hook of their own, which says whether the call
//! has failed or was stopped meanwhile.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a call works before it asks its caller whether to go on.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Steps between two looks at the clock: about a millisecond of machine words or short strings.
const STEPS: usize = 1 << 20;

struct Hook {
    ask: Box<dyn Fn() -> Result<()>>,
    every: Duration,
    asked: Cell<Instant>,
    stopped: Cell<bool>,
}

thread_local! {
    static HOOK: RefCell<Option<Rc<Hook>>> = const { RefCell::new(None) };
}

/// Calls `work`; meanwhile [`check`] asks `ask`, at most once in `every`, and for the first time
/// after that time. Once the answer is [`Error::Stopped`], it stays so.
pub fn with_hook<T>(
    every: Duration,
    ask: impl Fn() -> Result<()> + 'static,
    work: impl FnOnce() -> T,
) -> T {
    /// Puts the hook before back, also when `work` panics.
    struct Restore(Option<Rc<Hook>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOOK.set(self.0.take());
        }
    }
    let hook = Hook {
        ask: Box::new(ask),
        every,
        asked: Cell::new(Instant::now()),
        stopped: Cell::new(false),
    };
    let _restore = Restore(HOOK.replace(Some(Rc::new(hook))));
    work()
}

/// Asks whether to go on, if the last answer is old enough; without a hook the work goes on.
///
/// # Errors
/// The caller wants to stop.
pub fn check() -> Result<()> {
    ask(false)
}

/// The same, however new the last answer is: for calls of the system that a signal broke off.
///
/// # Errors
/// The caller wants to stop.
pub fn check_now() -> Result<()> {
    ask(true)
}

fn ask(now: bool) -> Result<()> {
    let Some(hook) = HOOK.with_borrow(Clone::clone) else { return Ok(()) };
    if hook.stopped.get() {
        return Err(Error::Stopped);
    }
    if !now && hook.asked.get().elapsed() < hook.every {
        return Ok(());
    }
    let answer = (hook.ask)();
    hook.asked.set(Instant::now());
    hook.stopped.set(answer == Err(Error::Stopped));
    answer
}

/// Counts the steps of a loop, and calls [`check`] once in a million: a subtraction a step.
///
/// ```
/// let mut steps = lmcore::interrupt::Steps::default();
/// for row in [[0; 100]; 3] {
///     steps.take(row.len())?; // before the work on so many words
/// }
/// # Ok::<(), lmcore::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Steps {
    left: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { left: STEPS }
    }
}

impl Steps {
    /// Counts `steps`: words that are looked at, or as much other work.
    ///
    /// # Errors
    /// The caller wants to stop.
    #[inline]
    pub fn take(&mut self, steps: usize) -> Result<()> {
        if let Some(left) = self.left.checked_sub(steps) {
            self.left = left;
            return Ok(());
        }
        self.left = STEPS;
        check()
    }
}
