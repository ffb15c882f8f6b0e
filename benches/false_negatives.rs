//! What the two halves of a step cost, by density.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::false_negatives::{FalseNegativeMemory, Positions, Scores, padded_positions};
use lmcore::philox::Draws;

const SLOTS: usize = 100;
const ROWS: usize = 128;

/// Every row is a user of her own with as many positions; one negative in `share` is hard.
struct Batch {
    users: Vec<i64>,
    positions: Positions,
    negatives: Vec<i64>,
    hard: Vec<u8>,
}

fn batch(positions: usize, share: u64) -> Batch {
    let draws = Draws::new(1, 0, positions as u64);
    let bits: Vec<u64> = (0..(ROWS * positions * SLOTS) as u64).map(|k| draws.bits(k)).collect();
    Batch {
        users: (1..).take(ROWS).collect(),
        positions: padded_positions(&vec![1; ROWS * positions], positions).unwrap(),
        negatives: bits.iter().map(|bits| 1 + i64::from((bits >> 48) as u16)).collect(),
        hard: bits.iter().map(|bits| u8::from(bits % share == 0)).collect(),
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("false_negatives");
    for (positions, share) in [(5, 12), (43, 12)] {
        let Batch { users, positions, negatives, hard } = batch(positions, share);
        let shape = format!("{} positions", positions.len());
        let mut memory = FalseNegativeMemory::new(Some(5), None);
        group.throughput(Throughput::Elements(negatives.len() as u64));
        group.bench_function(BenchmarkId::new("observe", &shape), |bencher| {
            let scores = Scores::Hard(&hard);
            bencher.iter(|| {
                memory.observe(&users, &positions, SLOTS, &negatives, scores, &[]).is_ok()
            });
        });
        group.bench_function(BenchmarkId::new("inject", &shape), |bencher| {
            bencher.iter_batched_ref(
                || negatives.clone(),
                |written| memory.inject(&users, &positions, SLOTS, written).is_ok(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
