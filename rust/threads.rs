//! Work on many rows by several threads, with results in the order of the rows.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Rows that one thread takes at a time.
const CHUNK_ROWS: usize = 256;

/// How many threads the machine offers this process.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Starts a pool of its own: one that parks when idle and ends with the call.
///
/// # Errors
/// The system refuses the threads.
pub fn start_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Threads { threads, reason: error.to_string() })
}

/// Calls `work` for chunks of the rows `0..rows` and returns its results in order.
///
/// # Errors
/// The system refuses the threads.
pub fn map_chunks<T: Send>(
    threads: Option<usize>,
    rows: usize,
    work: impl Fn(Range<usize>) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let chunks = (0..rows.div_ceil(CHUNK_ROWS)).into_par_iter();
    let chunk = |k: usize| work(k * CHUNK_ROWS..rows.min((k + 1) * CHUNK_ROWS));
    let threads = threads.unwrap_or_else(available);
    if threads <= 1 || rows <= CHUNK_ROWS {
        return Ok((0..chunks.len()).map(chunk).collect());
    }
    Ok(start_pool(threads)?.install(|| chunks.map(chunk).collect()))
}

/// Checks that a sequence has one item per row of words.
///
/// # Errors
/// It has not.
pub fn check_rows(name: &'static str, length: usize, words: usize) -> Result<()> {
    if length == words {
        return Ok(());
    }
    Err(Error::LengthMismatch {
        first: name,
        second: "words",
        first_length: length,
        second_length: words,
    })
}
