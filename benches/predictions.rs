//! From a file's bytes to counts, by number of threads.

#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::fmt::Write as _;
use std::io::Write as _;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::entities::Scheme;
use lmcore::predictions::{Hooks, ScoreOptions, ScoredFile, score_files};

/// Rows of twelve words whose generations lack one word or change one.
fn rows(count: usize) -> String {
    let mut text = String::new();
    for row in 0..count {
        let words: Vec<String> =
            (0..12).map(|k| format!("word{}", (row * 7 + k * k) % 50)).collect();
        let labels: Vec<&str> =
            (0..12).map(|k| if k == row % 12 { "B-place" } else { "O" }).collect();
        let pairs = words.iter().zip(&labels).enumerate().filter(|(k, _)| *k != (row / 2) % 12);
        let generated: Vec<String> = pairs.map(|(_, (w, l))| format!("{w}({l})")).collect();
        writeln!(
            text,
            r#"{{"label_list": ["place"], "words": {words:?}, "labels": {labels:?}, "prediction": {:?}}}"#,
            generated.join(" ")
        )
        .expect("writing to a string cannot fail");
    }
    text
}

fn bench(criterion: &mut Criterion) {
    let text = rows(5_000);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("room for it");
    let files = [ScoredFile::new(file.path())];
    let mut group = criterion.benchmark_group("predictions");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for threads in [1, 2] {
        let options = ScoreOptions {
            scheme: Scheme::Gner,
            threads: Some(threads),
            worst: 0,
            skip_bad_rows: false,
        };
        group.bench_function(BenchmarkId::new("score_files", threads), |bencher| {
            bencher.iter(|| {
                let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
                score_files(&files, &options, &mut hooks).expect("rows are good")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
