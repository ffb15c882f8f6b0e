//! What a batch costs, by density and distribution.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::negatives::{Order, SequenceSampler, Settings, Windows};
use lmcore::philox::{fill, to_below};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("negatives");
    for (users, item_count, length) in [(52_000, 57_000, 6), (6_040, 3_416, 163)] {
        let of_users: Vec<u64> = (0..users).collect();
        let items = fill(1, 2, &of_users, 0, length, |bits| to_below(bits, item_count)).unwrap();
        let items: Vec<i64> = items.iter().map(|&item| item.cast_signed() + 1).collect();
        let offsets: Vec<i64> =
            (0..=users).map(|user| user.cast_signed() * i64::try_from(length).unwrap()).collect();
        let mut weights = vec![1; usize::try_from(item_count).unwrap()];
        for &item in &items {
            weights[usize::try_from(item - 1).unwrap()] += 1;
        }
        let settings = Settings {
            item_count: u32::try_from(item_count).unwrap(),
            batch_size: 128,
            max_length: 50,
            negative_count: 100,
            seed: 1,
            order: Order::Replacement,
            threads: Some(1),
        };
        let [mut sequences, mut positives, mut flat_indices] =
            [(); 3].map(|()| vec![0_i64; 128 * 50]);
        let (mut of_rows, mut negatives) = (vec![0_i64; 128], vec![0_i64; 128 * 50 * 100]);
        for (name, weights) in [("uniform", None), ("popularity", Some(&weights[..]))] {
            let sampler = SequenceSampler::new(&offsets, &items, weights, settings).unwrap();
            let steps = sampler.steps_per_epoch().unwrap() as u64;
            let mut step = 0;
            let id = BenchmarkId::new(name, format!("{users} x {item_count}"));
            group.throughput(Throughput::Elements(128 * (length as u64 - 1).min(50) * 100));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    step = (step + 1) % steps;
                    let mut windows = Windows {
                        users: &mut of_rows,
                        sequences: &mut sequences,
                        positives: &mut positives,
                    };
                    sampler.sample_packed(0, step, &mut windows, &mut flat_indices, &mut negatives)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
