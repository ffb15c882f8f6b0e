//! What hashes and their tables cost.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::duplicates::{Duplicates, Key, hash_batch};
use lmcore::text::Strings;

const LINES: usize = 200_000;

fn bench(criterion: &mut Criterion) {
    let lines: Strings = (0..LINES).map(|line| format!("a short line, number {line}")).collect();
    let key = Key::new([7; 16]);
    let mut group = criterion.benchmark_group("duplicates");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("hash", |bencher| {
        bencher.iter(|| hash_batch(key, lines.all(), Some(1)));
    });
    group.bench_function("add", |bencher| {
        bencher.iter(|| Duplicates::new(key, None)?.add_batch(lines.all(), Some(1)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
