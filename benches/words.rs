//! What cutting a text into words costs, and finding them again.

#![expect(clippy::expect_used, reason = "a bench may panic")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::text::Strings;
use lmcore::words::{locate_words, split_words, to_characters};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("words");
    for (name, sentence) in [
        ("English", "EU-wide rules (of 1996) were rejected, the German minister said. "),
        ("German", "Größere Städte fördern überall öffentliche Verkehrsmittel. "),
        ("Chinese", "北京2008年奥运会，中国队获得51枚金牌。"),
        ("emoji", "👍🏽 👩\u{200d}👩\u{200d}👧 🇪🇺🇩🇪 ❤\u{fe0f}! "),
    ] {
        let text = sentence.repeat(20);
        let ranges = split_words(&text).expect("memory is there");
        let words: Strings = ranges.iter().map(|range| &text[range.start..range.end]).collect();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("split", name), |bencher| {
            bencher.iter(|| {
                split_words(&text)
                    .and_then(|found| to_characters(&text, &found))
                    .map(|found| found.len())
            });
        });
        group.bench_function(BenchmarkId::new("locate", name), |bencher| {
            bencher.iter(|| locate_words(&text, words.all()).is_ok_and(|found| found == ranges));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
