//! What reading columns of interactions and bringing rows to their users cost.

use std::fmt::Write;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::interactions::{Layout, group_by_user, read_columns};
use lmcore::philox::{fill, to_uniform};

const ROWS: usize = 200_000;
const USERS: usize = 3_000;
const ITEMS: usize = 900;

/// A number from 1 to `count`.
#[expect(clippy::cast_possible_truncation, reason = "below the count")]
fn choose(draw: f64, count: usize) -> i32 {
    1 + (draw * count as f64) as i32
}

fn bench(criterion: &mut Criterion) {
    let Ok(draws) = fill(1, 3, &[0], 0, 3 * ROWS, to_uniform) else { return };
    let column = |index: usize, count: usize| -> Vec<i32> {
        draws[index * ROWS..(index + 1) * ROWS].iter().map(|draw| choose(*draw, count)).collect()
    };
    let (users, items, times) = (column(0, USERS), column(1, ITEMS), column(2, 1 << 30));
    let mut text = String::new();
    for row in 0..ROWS {
        let _ = writeln!(text, "{},{},{}", users[row], items[row], times[row]);
    }
    let layout =
        Layout { separator: ",", quoted: true, width: 3, labels: &[0, 1], number: Some(2) };
    let mut group = criterion.benchmark_group("interactions");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| read_columns(text.as_bytes(), layout, Some(1)));
    });
    let times: Vec<i64> = times.into_iter().map(i64::from).collect();
    group.bench_function("group", |bencher| {
        bencher.iter(|| group_by_user(&users, &items, Some(&times), (USERS, ITEMS)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
