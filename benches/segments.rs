//! What listing distinct segments and masking toxic ones cost.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::philox::{fill, to_uniform};
use lmcore::segments::{list_segments, mask_segments_batch};

const TEXTS: usize = 10_000;
const LENGTH: usize = 24;
const MASK: i64 = 103;

/// Ids of which some are frequent, as words are, and texts of one length.
fn make_texts() -> Option<(Vec<i64>, Vec<i64>)> {
    let draws = fill(1, 3, &[0], 0, TEXTS * LENGTH, to_uniform).ok()?;
    let ids = draws.iter().map(|draw| (1..30_000_i64).nth(rank(*draw)).unwrap_or(0)).collect();
    let offsets = (0_i64..).step_by(LENGTH).take(TEXTS + 1).collect();
    Some((ids, offsets))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 30,000")]
fn rank(draw: f64) -> usize {
    (draw * 10.3).exp() as usize % 29_998
}

fn bench(criterion: &mut Criterion) {
    let Some((ids, offsets)) = make_texts() else { return };
    let mut group = criterion.benchmark_group("segments");
    group.throughput(Throughput::Elements((TEXTS * LENGTH) as u64));
    group.bench_function("list", |bencher| bencher.iter(|| list_segments(&ids, &offsets, 2)));
    let labels: Vec<i64> =
        (0..TEXTS * (LENGTH - 1)).map(|segment| i64::from(segment % 11 == 0)).collect();
    group.bench_function("mask", |bencher| {
        bencher.iter(|| mask_segments_batch(&ids, &offsets, &labels, MASK, 2, Some(1)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
