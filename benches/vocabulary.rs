//! What counting, ranking and remapping the ids of a large vocabulary costs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::philox::{fill, to_uniform};
use lmcore::vocabulary::{Ids, count_ids, rank_ids, remap_ids};

const SIZE: u32 = 250_000;
const COUNT: usize = 1 << 22;

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vocabulary");
    group.throughput(Throughput::Elements(COUNT as u64));
    // The logarithm of a Zipf id is uniform.
    #[expect(clippy::cast_possible_truncation, reason = "ids are below 2**31")]
    let make = |bits: u64| (f64::from(SIZE).powf(to_uniform(bits)) - 1.0) as i32;
    let Ok(ids) = fill(1, 2, &[0], 0, COUNT, make) else { return };
    let ids = Ids { values: &ids, shape: &[COUNT] };
    let mut counts = vec![0; SIZE as usize];
    group.bench_function("count", |bencher| {
        bencher.iter(|| count_ids(ids, &mut counts, false, Some(1)));
    });
    let table: Vec<i64> = (0..SIZE).map(|id| i64::from(id / 2)).collect();
    let mut out = vec![0_i32; COUNT];
    group.bench_function("remap", |bencher| {
        bencher.iter(|| remap_ids(ids, &table, None, false, &mut out, Some(1)));
    });
    group.throughput(Throughput::Elements(SIZE.into()));
    group.bench_function("rank", |bencher| {
        bencher.iter(|| rank_ids(&counts));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
