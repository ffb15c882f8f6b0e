//! What writing rows of examples costs, without the interpreter.

#![expect(clippy::expect_used, reason = "a bench may panic")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::examples::{Sentences, write_examples_batch};
use lmcore::text::{StringRows, Strings};

const ROWS: usize = 256;

fn repeat(items: &[&str]) -> StringRows {
    let mut rows = StringRows::default();
    for _ in 0..ROWS {
        for item in items {
            rows.open().push(item);
        }
        rows.end_row();
    }
    rows
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("examples");
    let template: Strings =
        ["Label each word. Use: ", "types", " and O.\nSentence: ", "sentence", ""]
            .into_iter()
            .collect();
    for (name, word) in [("English", "minister"), ("Chinese", "北"), ("quotes", "\"said\"")] {
        let mut words = vec![word; 24];
        let mut labels = vec!["O"; 24];
        (words[3], labels[3]) = ("Ada", "B-person");
        let (words, labels) = (repeat(&words), repeat(&labels));
        let types = repeat(&["person", "city", "organisation"]);
        let heads: Strings = std::iter::repeat_n("\"dataset\": \"d\"", ROWS).collect();
        let sentences = Sentences {
            heads: heads.all(),
            types: &types,
            words: &words,
            labels: &labels,
            target_labels: None,
            datasets: None,
        };
        group.throughput(Throughput::Elements(ROWS as u64));
        for (case, context) in [("all words", None), ("one word around", Some(1))] {
            group.bench_function(BenchmarkId::new(case, name), |bencher| {
                bencher.iter(|| {
                    write_examples_batch(sentences, template.all(), context, Some(1))
                        .expect("memory is there")
                        .lines
                        .len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
