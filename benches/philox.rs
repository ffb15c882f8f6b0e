//! What a draw costs, by kind.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::philox::{fill, to_below, to_uniform};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("philox");
    for (items, count) in [(10_000, 1), (100, 100)] {
        let items: Vec<u64> = (0..items).collect();
        let shape = format!("{} x {count}", items.len());
        group.throughput(Throughput::Elements((items.len() * count) as u64));
        group.bench_function(BenchmarkId::new("bits", &shape), |bencher| {
            bencher.iter(|| fill(1, 2, &items, 0, count, |bits| bits));
        });
        group.bench_function(BenchmarkId::new("uniform", &shape), |bencher| {
            bencher.iter(|| fill(1, 2, &items, 0, count, to_uniform));
        });
        group.bench_function(BenchmarkId::new("below", &shape), |bencher| {
            bencher.iter(|| fill(1, 2, &items, 0, count, |bits| to_below(bits, 1_000)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
