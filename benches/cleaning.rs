//! What each rule of cleaning costs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::cleaning::{Rules, clean_batch};
use lmcore::text::Strings;

const TEXTS: usize = 2000;
const ENGLISH: &str = "It rains in the north today, and 3 of us stay at home with a book. ";
const CHINESE: &str = "今天北方下雨，我们三个人都在家里看书，没有人出去。";

fn make_texts(sentence: &str) -> Strings {
    let text = |number: usize| match number % 10 {
        0 => format!("<p>{}</p> https://a.org/{number}", sentence.repeat(8)),
        _ => sentence.repeat(8),
    };
    (0..TEXTS).map(text).collect()
}

fn bench(criterion: &mut Criterion) {
    let off = Rules {
        html: false,
        links: false,
        emails: false,
        phone_numbers: false,
        most_repeats: 0,
        minimum_words: 0,
    };
    let all = Rules {
        html: true,
        links: true,
        emails: true,
        phone_numbers: true,
        most_repeats: 3,
        minimum_words: 10,
    };
    let rules = [
        ("html", Rules { html: true, ..off }),
        ("links", Rules { links: true, ..off }),
        ("emails", Rules { emails: true, ..off }),
        ("phone_numbers", Rules { phone_numbers: true, ..off }),
        ("repeats", Rules { most_repeats: 3, ..off }),
        ("short_sentences", Rules { minimum_words: 10, ..off }),
        ("all", all),
    ];
    for (language, sentence) in [("english", ENGLISH), ("chinese", CHINESE)] {
        let texts = make_texts(sentence);
        let mut group = criterion.benchmark_group(format!("cleaning {language}"));
        group.throughput(Throughput::Bytes(texts.all().region().len() as u64));
        for (name, rules) in &rules {
            group.bench_function(*name, |bencher| {
                bencher.iter(|| clean_batch(texts.all(), rules, Some(1)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
