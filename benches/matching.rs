//! What reading and matching one generation costs, by the condition that holds.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::entities::Types;
use lmcore::matching::Matcher;
use lmcore::text::Strings;

/// Words of a sentence, and a generation that loses or replaces some of them.
fn sentence(size: usize, lost: usize, replaced: usize, word: &str) -> (Strings, String) {
    let words: Vec<String> =
        (0..size).map(|i| format!("{word}{}", i * 7 % (size / 2 + 1))).collect();
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        let label = ["O", "O", "B-person", "I-person", "O", "B-place"][i % 6];
        match i + 1 {
            i if lost > 0 && i % lost == 0 => {}
            i if replaced > 0 && i % replaced == 0 => text.extend(["other(", label, ") "]),
            _ => text.extend([word, "(", label, ") "]),
        }
    }
    (words.iter().collect(), text)
}

fn bench(criterion: &mut Criterion) {
    let types = Strings::from_iter(["person", "place"]);
    let mut allowed = Types::default();
    assert!(allowed.allow(types.all()).is_ok());

    let mut group = criterion.benchmark_group("matching");
    for size in [30, 80, 400] {
        for (name, lost, replaced, word) in [
            ("exact", 0, 0, "Word"),
            ("exact, not ASCII", 0, 0, "Ärger"),
            ("subsequence", 20, 0, "Word"),
            ("lcs", 20, 15, "Word"),
        ] {
            let (words, text) = sentence(size, lost, replaced, word);
            let mut matcher = Matcher::default();
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    matcher.match_words(words.all(), &text, &allowed, None).is_ok()
                        && matcher.labels.len() == size
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
