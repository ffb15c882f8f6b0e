//! Work on many rows by several threads, with results in the order of the rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::interrupt::{self, PATIENCE};

/// Rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 256;
/// More threads than this for each core only wait for each other.
const THREADS_PER_CORE: usize = 4;

/// How many threads the machine offers this process.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most threads that a call starts, whatever it is asked for.
pub fn most() -> usize {
    THREADS_PER_CORE * available()
}

/// Makes what is otherwise made at first use under a lock: the seed of hash tables. A child of a
/// fork would wait for ever for a thread that was making it.
pub fn prepare() {
    let _seeded = foldhash::fast::RandomState::default();
}

/// How many threads to start: as many as asked for and sensible, or one for each core.
pub fn count(asked: Option<usize>) -> usize {
    match asked {
        None => available(),
        // Asking the system costs some files.
        Some(few @ ..=THREADS_PER_CORE) => few.max(1),
        Some(many) => many.min(most()),
    }
}

/// The rows `0..rows` in ranges of as many as one thread takes at a time: blocks for [`run_blocks`].
pub fn row_ranges(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS_AT_ONCE).map(move |start| start..rows.min(start + ROWS_AT_ONCE))
}

/// A block's result, or what its panic said, with the block's number.
type Part<P> = (usize, std::thread::Result<P>);

/// Takes blocks from `next`, works on them in several threads, and merges them in order.
///
/// The calling thread is one of them: it runs `next`, `merge` and `check`, and takes a block
/// itself while nothing waits to be merged. `check` says whether to go on, after each block and
/// at least every 50 ms of waiting, and each thread keeps a `W` from block to block. At most two
/// blocks per thread exist at once, and no thread is started before there is a block for it;
/// with one thread, or one block, none is.
///
/// The result does not depend on the number of threads, and neither does the error: when `next`
/// fails, the blocks before it are merged first, as one thread would have done, and an error in
/// them comes out instead. A panic in `work` goes on in the calling thread when its block is
/// merged.
///
/// # Errors
/// One of the functions fails, or the system refuses the threads. [`Error::Stopped`] ends the
/// work at once.
pub fn run_blocks<B: Send, W: Default, P: Send>(
    threads: Option<usize>,
    next: &mut dyn FnMut() -> Result<Option<B>>,
    work: &(dyn Fn(&mut W, B) -> P + Sync),
    merge: &mut dyn FnMut(P) -> Result<()>,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let threads = count(threads);
    if threads <= 1 {
        let mut worker = W::default();
        while let Some(block) = next()? {
            merge(work(&mut worker, block))?;
            check()?;
        }
        return Ok(());
    }
    let Some(first) = next()? else { return Ok(()) };
    let second = match next() {
        Ok(Some(block)) => block,
        Err(Error::Stopped) => return Err(Error::Stopped),
        end => {
            merge(work(&mut W::default(), first))?;
            check()?;
            return end.map(|_| ());
        }
    };
    let mut ready = vec![second, first];

    let stop = Stop::default();
    let (blocks, queue) = channel();
    let (sender, parts) = channel();
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        // Both end the threads when this closure ends, however it does.
        let (_stop, blocks, sender) = (StopAtEnd(&stop), blocks, sender);
        let (mut started, mut done, mut merged, mut workers) = (0, 0, 0, 0);
        let mut own = W::default();
        let mut waiting = BTreeMap::new();
        // How reading ended, once it has.
        let mut end = None;
        loop {
            while end.is_none() && started - merged < 2 * threads {
                match ready.pop().map_or_else(&mut *next, |block| Ok(Some(block))) {
                    Ok(Some(block)) => {
                        // The queue lives as long as the threads that take from it.
                        let _ = blocks.send((started, block));
                        started += 1;
                    }
                    Ok(None) => end = Some(Ok(())),
                    Err(Error::Stopped) => return Err(Error::Stopped),
                    Err(error) => end = Some(Err(error)),
                }
                // One of the blocks is for the calling thread.
                if workers + 1 < threads && workers + 1 < started - done {
                    workers += 1;
                    let (queue, stop, sender) = (&queue, &stop, sender.clone());
                    std::thread::Builder::new()
                        .spawn_scoped(scope, move || take_blocks(queue, work, &sender, stop))
                        .map_err(|error| Error::Threads {
                            threads: workers,
                            reason: error.to_string(),
                        })?;
                }
            }
            if merged == started
                && let Some(end) = end
            {
                return end;
            }
            let part = match parts.try_recv() {
                Ok(part) => Some(part),
                // A thread that waits for a block has the queue: then there is none.
                Err(_) => match queue.try_lock().ok().and_then(|queue| queue.try_recv().ok()) {
                    Some((number, block)) => Some((number, work_on(block, work, &mut own))),
                    None => parts.recv_timeout(PATIENCE).ok(),
                },
            };
            if let Some((number, part)) = part {
                done += 1;
                waiting.insert(number, part);
            }
            // A block that the caller stopped has an error that must not wait for its turn.
            interrupt::check()?;
            while let Some(part) = waiting.remove(&merged) {
                merge(part.unwrap_or_else(|panic| resume_unwind(panic)))?;
                merged += 1;
            }
            check()?;
        }
    })
}

/// Works on a block; what a panic left of the worker is not to be trusted.
fn work_on<B, W: Default, P>(
    block: B,
    work: &(dyn Fn(&mut W, B) -> P + Sync),
    worker: &mut W,
) -> std::thread::Result<P> {
    let part = catch_unwind(AssertUnwindSafe(|| work(worker, block)));
    if part.is_err() {
        *worker = W::default();
    }
    part
}

/// Whether the work on blocks has ended early.
#[derive(Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells the threads to stop, also when the calling thread panics.
struct StopAtEnd<'s>(&'s Stop);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// What a thread does until there are no more blocks.
fn take_blocks<B, W: Default, P>(
    queue: &Mutex<Receiver<(usize, B)>>,
    work: &(dyn Fn(&mut W, B) -> P + Sync),
    sender: &Sender<Part<P>>,
    stop: &Stop,
) {
    let asked = stop.clone();
    let ask = move || if asked.is_set() { Err(Error::Stopped) } else { Ok(()) };
    interrupt::with_hook(Duration::ZERO, ask, || {
        let mut worker = W::default();
        loop {
            let block = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, block)) = block else { return };
            if stop.is_set() {
                continue;
            }
            if sender.send((number, work_on(block, work, &mut worker))).is_err() {
                return;
            }
        }
    });
}
