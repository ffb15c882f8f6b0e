//! What ranking the targets of a block of users costs.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::philox::{fill, to_uniform};
use lmcore::ranking::{Targets, Ties, rank_targets, ranking_metrics};

const USERS: usize = 64;

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranking");
    for width in [101_usize, 12_101, 57_289] {
        let users: Vec<u64> = (0..USERS as u64).collect();
        #[expect(clippy::cast_possible_truncation, reason = "single precision is meant")]
        let make = |bits: u64| to_uniform(bits) as f32;
        let Ok(values) = fill(1, 2, &users, 0, width, make) else { return };
        let rows: Vec<&[f32]> = values.chunks(width).collect();
        let (columns, excluded) = ([7; USERS], [1, 5, 9, 3, 8, 2, 4].repeat(USERS));
        let offsets: Vec<i64> = (0..).step_by(7).take(USERS + 1).collect();
        let targets = Targets { columns: &columns, offsets: &offsets, excluded: &excluded };

        group.throughput(Throughput::Elements((USERS * width) as u64));
        group.bench_function(BenchmarkId::new("random scores", width), |bencher| {
            bencher.iter(|| rank_targets(&rows, targets, Ties::Average, Some(1)));
        });
        let equal = vec![0.5_f32; width];
        let rows = vec![equal.as_slice(); USERS];
        group.bench_function(BenchmarkId::new("equal scores", width), |bencher| {
            bencher.iter(|| rank_targets(&rows, targets, Ties::Average, Some(1)));
        });
    }
    let ranks: Vec<f64> = (0..22_363).map(|user| f64::from(user % 1_000)).collect();
    group.throughput(Throughput::Elements(ranks.len() as u64));
    group.bench_function("metrics", |bencher| {
        bencher.iter(|| ranking_metrics(&ranks, &[1, 5, 10]));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
