//! What choosing candidates, self-BLEU and counting n-grams cost.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::ngrams::{Smoothing, choose_candidates_batch, count_ngrams, self_bleu};
use lmcore::philox::{fill, to_uniform};
use lmcore::text::{StringRows, Strings};

const GROUPS: usize = 1000;
const CANDIDATES: usize = 10;
const WORDS: usize = 9;

/// Texts of which those of one group have two words in three in common.
fn make_groups() -> Option<StringRows> {
    let count = GROUPS * CANDIDATES * WORDS;
    let draws = fill(1, 2, &[0], 0, 2 * count, to_uniform).ok()?;
    let mut rows = StringRows::default();
    for group in 0..GROUPS {
        for candidate in 0..CANDIDATES {
            let words: Vec<String> = (0..WORDS)
                .map(|word| {
                    let own = (group * CANDIDATES + candidate) * WORDS + word;
                    let shared = group * CANDIDATES * WORDS + word;
                    let is_own = draws[count + own] < 1.0 / 3.0;
                    format!("w{:.0}", draws[if is_own { own } else { shared }] * 2000.0)
                })
                .collect();
            rows.open().push(&words.join(" "));
        }
        rows.end_row();
    }
    Some(rows)
}

fn bench(criterion: &mut Criterion) {
    let Some(groups) = make_groups() else { return };
    let mut group = criterion.benchmark_group("ngrams");
    group.throughput(Throughput::Elements((GROUPS * CANDIDATES) as u64));
    group.bench_function("choose candidates", |bencher| {
        bencher.iter(|| choose_candidates_batch(&groups, 4, Smoothing::Method4, Some(1)));
    });
    let texts: Strings = (0..GROUPS).map(|row| groups.row(row).get(0)).collect();
    let rows: Vec<i64> = (0..).take(GROUPS).collect();
    group.throughput(Throughput::Elements(GROUPS as u64));
    group.bench_function("self-BLEU", |bencher| {
        bencher.iter(|| self_bleu(texts.all(), &rows, 5, Smoothing::Method1));
    });
    group.bench_function("count", |bencher| bencher.iter(|| count_ngrams(texts.all(), 4)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
