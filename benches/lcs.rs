//! What an alignment costs: sentences, long texts, few symbols, moved blocks.

#![expect(clippy::cast_possible_truncation, reason = "ids are small")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::lcs::Lcs;
use lmcore::philox::{Draws, to_below};

/// Ids below `distinct`, the same on every machine.
fn ids(size: usize, distinct: u64, seed: u64) -> Vec<u32> {
    (0..size as u64).map(|i| to_below(Draws::new(seed, 0, 0).bits(i), distinct) as u32).collect()
}

/// A copy in which one item of `every` is lost and one is replaced.
fn damaged(ids: &[u32], every: usize) -> Vec<u32> {
    let mut copy = ids.to_vec();
    copy.iter_mut().skip(every / 3).step_by(every).for_each(|id| *id = 0);
    let mut place = 0;
    copy.retain(|_| {
        place += 1;
        place % every != 0
    });
    copy
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lcs");
    for (name, size, distinct, every) in [
        ("sentence", 30, 25, 15),
        ("paragraph", 200, 100, 50),
        ("document", 5_000, 1_000, 50),
        ("two symbols", 5_000, 2, 10),
    ] {
        let a = ids(size, distinct, 1);
        let b = damaged(&a, every);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let (mut lcs, mut alignment) = (Lcs::default(), Vec::new());
            bencher.iter(|| {
                lcs.align(&a, &b, distinct as usize, &mut alignment).map(|()| alignment.len())
            });
        });
        let mut moved = b;
        let half = moved.len() / 2;
        moved.rotate_left(half);
        group.bench_function(BenchmarkId::new(format!("{name}, moved"), size), |bencher| {
            let (mut lcs, mut alignment) = (Lcs::default(), Vec::new());
            bencher.iter(|| {
                lcs.align(&a, &moved, distinct as usize, &mut alignment).map(|()| alignment.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
