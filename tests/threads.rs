//! `lmcore::threads`: blocks in order, and errors, panics and stops for any number of threads.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lmcore::error::{Error, Result};
use lmcore::interrupt::{self, Steps};
use lmcore::threads::{self, row_ranges, run_blocks};

const THREADS: [usize; 4] = [1, 2, 3, 8];

/// Reads the numbers below `blocks`, doubles them, and lists them; each part may fail.
fn double(
    threads: usize,
    blocks: usize,
    read: impl Fn(usize) -> Result<()>,
    work: impl Fn(usize) + Sync,
    check: impl Fn(usize) -> Result<()>,
) -> (Vec<usize>, Result<()>) {
    let (mut number, mut merged) = (0, Vec::new());
    let count = Cell::new(0);
    let result = run_blocks(
        Some(threads),
        &mut || {
            read(number)?;
            number += 1;
            Ok((number <= blocks).then_some(number - 1))
        },
        &|worked: &mut usize, block| {
            work(block);
            *worked += 1;
            2 * block
        },
        &mut |part| {
            merged.push(part);
            count.set(merged.len());
            Ok(())
        },
        &mut || check(count.get()),
    );
    (merged, result)
}

const NOTHING: fn(usize) -> Result<()> = |_| Ok(());

/// Blocks that take the longer the earlier they come.
fn take_turns(block: usize) {
    sleep(Duration::from_micros(300 * (4 - block as u64 % 5)));
}

#[test]
fn blocks_are_merged_in_order() {
    for threads in THREADS {
        for blocks in [0, 1, 2, 3, 40] {
            let (merged, result) = double(threads, blocks, NOTHING, take_turns, NOTHING);
            assert_eq!(result, Ok(()));
            assert_eq!(merged, (0..blocks).map(|k| 2 * k).collect::<Vec<_>>());
        }
    }
}

#[test]
fn blocks_before_a_failed_read_are_merged() {
    for threads in THREADS {
        for last in [0, 1, 2, 5, 30] {
            let read = |k| if k < last { Ok(()) } else { Err(Error::Raised) };
            let (merged, result) = double(threads, 40, read, take_turns, NOTHING);
            assert_eq!(result, Err(Error::Raised));
            assert_eq!(merged.len(), last, "{threads} threads");
        }
    }
}

#[test]
fn an_error_before_a_failed_read_comes_first() {
    for threads in THREADS {
        for (bad, last) in [(0, 1), (0, 2), (1, 2), (3, 9)] {
            let mut number = 0;
            let result = run_blocks(
                Some(threads),
                &mut || {
                    number += 1;
                    if number > last { Err(Error::Raised) } else { Ok(Some(number - 1)) }
                },
                &|(): &mut (), block| {
                    sleep(Duration::from_millis(5));
                    if block == bad { Err(Error::Memory { values: 1 }) } else { Ok(()) }
                },
                &mut |part: Result<()>| part,
                &mut || Ok(()),
            );
            assert_eq!(result, Err(Error::Memory { values: 1 }), "{threads} threads");
        }
    }
}

#[test]
fn a_stop_does_not_wait_for_the_blocks() {
    for threads in [2, 3, 8] {
        let worked = AtomicUsize::new(0);
        let read = |k| if k < 4 { Ok(()) } else { Err(Error::Stopped) };
        let work = |_| {
            worked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(20));
        };
        let (merged, result) = double(threads, 40, read, work, NOTHING);
        assert_eq!(result, Err(Error::Stopped));
        assert!(merged.len() < 4);
        assert!(worked.into_inner() <= 4);
    }
}

#[test]
fn a_check_that_fails_ends_the_work() {
    for threads in THREADS {
        let check = |merged| if merged < 3 { Ok(()) } else { Err(Error::Stopped) };
        let (merged, result) = double(threads, 1000, NOTHING, take_turns, check);
        assert_eq!(result, Err(Error::Stopped));
        assert!(merged.len() >= 3 && merged.len() < 100);
    }
}

/// A panic waits for the blocks before it, and neither hangs nor hides an earlier error.
#[test]
fn a_panic_goes_on_in_the_calling_thread() {
    for threads in THREADS {
        for (panics, blocks) in [(0, 1), (0, 2), (1, 2), (20, 40), (39, 40)] {
            let merged = Cell::new(0);
            let check = |count| {
                merged.set(count);
                Ok(())
            };
            let work = |block| {
                take_turns(block);
                // No hook prints what is raised like this.
                if block >= panics {
                    std::panic::resume_unwind(Box::new(block));
                }
            };
            let caught =
                catch_unwind(AssertUnwindSafe(|| double(threads, blocks, NOTHING, work, check)));
            assert_eq!(*caught.unwrap_err().downcast::<usize>().unwrap(), panics);
            assert!(merged.get() <= panics);
        }
    }
}

#[test]
fn no_more_threads_than_blocks_or_sense() {
    let most = threads::most();
    assert_eq!(most, 4 * threads::available());
    assert_eq!([Some(0), Some(1), Some(most), None].map(threads::count)[..2], [1, 1]);
    assert_eq!(threads::count(Some(most)), most);
    assert_eq!(threads::count(None), threads::available());
    for many in [most + 1, 100_000, usize::MAX] {
        assert_eq!(threads::count(Some(many)), most);
    }
    // The blocks in flight are bounded, too.
    let read = AtomicUsize::new(0);
    let read_one = |_| {
        read.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let in_flight = Cell::new(0);
    let check = |merged| {
        in_flight.set(in_flight.get().max(read.load(Ordering::Relaxed) - merged));
        Ok(())
    };
    let (merged, _) = double(usize::MAX, 2000, read_one, |_| {}, check);
    assert_eq!(merged.len(), 2000);
    assert!(in_flight.get() <= 2 * most + 1);
}

/// What `work` makes of each range of rows, in order.
fn map_ranges<T: Send>(
    threads: usize,
    rows: usize,
    work: impl Fn(Range<usize>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (mut ranges, mut made) = (row_ranges(rows), Vec::new());
    run_blocks(
        Some(threads),
        &mut || Ok(ranges.next()),
        &|(): &mut (), range| work(range),
        &mut |part: Result<T>| {
            made.push(part?);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(made)
}

#[test]
fn ranges_of_rows_come_back_in_order() {
    for threads in THREADS {
        for rows in [0, 1, 255, 256, 257, 10_000] {
            let ranges = map_ranges(threads, rows, |rows| Ok(rows.collect::<Vec<_>>()));
            assert_eq!(ranges.unwrap().concat(), (0..rows).collect::<Vec<_>>());
        }
        let failed = map_ranges(threads, 10_000, |rows| {
            if rows.start < 5000 {
                Ok(rows.len())
            } else {
                Err(Error::Memory { values: rows.start as u128 })
            }
        });
        assert_eq!(failed, Err(Error::Memory { values: 5120 }));
    }
}

/// Work that would last for minutes ends as soon as the caller's hook says so.
#[test]
fn a_hook_ends_long_work_in_every_thread() {
    let turn_for_ever = || -> Result<()> {
        let (mut steps, mut sum) = (Steps::default(), 0_u64);
        for k in 0..u64::MAX {
            steps.take(1)?;
            sum = std::hint::black_box(sum ^ k);
        }
        Ok(())
    };
    for threads in [1, 3] {
        let began = Instant::now();
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let ask = move || {
            count.set(count.get() + 1);
            if count.get() < 3 { Ok(()) } else { Err(Error::Stopped) }
        };
        let result = interrupt::with_hook(interrupt::PATIENCE, ask, || {
            map_ranges(threads, 1000, |_| turn_for_ever())
        });
        assert_eq!(result, Err(Error::Stopped));
        assert_eq!(asked.get(), 3);
        let seconds = began.elapsed().as_secs_f64();
        assert!((0.15..5.0).contains(&seconds), "{seconds}");
    }
    // The hook is gone: nothing is asked any more.
    assert_eq!(interrupt::check_now(), Ok(()));
}

#[test]
fn the_calling_thread_works_too() {
    let caller = std::thread::current().id();
    for threads in [2, 3] {
        let workers = Mutex::new(Vec::new());
        let work = |block| {
            take_turns(block);
            let id = std::thread::current().id();
            let mut workers = workers.lock().unwrap();
            if !workers.contains(&id) {
                workers.push(id);
            }
        };
        assert_eq!(double(threads, 100, NOTHING, work, NOTHING).0.len(), 100);
        let workers = workers.into_inner().unwrap();
        assert!(workers.contains(&caller));
        assert!(workers.len() <= threads);
    }
}

/// Asked once, as of a signal, the caller stops; what the block made of the answer does not count.
#[test]
fn a_stop_in_a_block_of_the_caller_s_ends_the_work() {
    let asked = Cell::new(false);
    let ask = move || if asked.replace(true) { Ok(()) } else { Err(Error::Stopped) };
    let began = Instant::now();
    let work = |_| {
        while interrupt::check().is_ok() && began.elapsed() < Duration::from_secs(3) {
            sleep(Duration::from_millis(1));
        }
    };
    let (_, result) = interrupt::with_hook(Duration::from_millis(20), ask, || {
        double(2, 20, NOTHING, work, NOTHING)
    });
    assert_eq!(result, Err(Error::Stopped));
    assert!(began.elapsed() < Duration::from_secs(2));
}
