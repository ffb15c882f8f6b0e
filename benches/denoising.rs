//! What counting the entities of one sentence costs, by scheme.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::entities::{SCHEME_NAMES, Scheme, Scorer, Types, normalize_text_into};
use lmcore::text::Strings;

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entities");
    for size in [30, 400] {
        let words: Strings = (0..size).map(|i| format!("Word{}", i * 7 % 90)).collect();
        let pattern = ["O", "B-person", "I-person", "O", "O", "B-place"];
        let (mut types, mut gold, mut predicted) = (Types::default(), Vec::new(), Vec::new());
        let wanted: Strings = (0..size).map(|i| pattern[i % 6]).collect();
        let found: Strings = (0..size).map(|i| pattern[i * 5 / 4 % 6]).collect();
        let read = types.read_all("labels", wanted.all(), &mut gold).is_ok()
            && types.read_all("labels", found.all(), &mut predicted).is_ok();
        assert!(read, "all labels have the right form");

        group.throughput(Throughput::Elements(size as u64));
        for name in SCHEME_NAMES {
            let Ok(scheme) = Scheme::from_name(name) else { continue };
            let mut scorer = Scorer::default();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    scorer.count(Some(words.all()), &gold, &predicted, &types, scheme).is_ok()
                });
            });
        }
    }
    for (name, text) in [("ASCII", "The U.S. Army of the West"), ("not ASCII", "Die Ärzte, Köln")]
    {
        let mut out = String::new();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("normalize", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                normalize_text_into(text, &mut out).map(|()| out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
