//! What a schedule, its neighbours, and the draws of a batch cost.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lmcore::schedule::{
    Batch, Schedule, add_losses, draw_by_loss, draw_neighbours, draw_timesteps, find_neighbours,
    make_betas,
};

const TOTAL: usize = 2000;
const ROWS: usize = 2048;
const BATCH: Batch = Batch { seed: 1, step: 0, first_row: 0 };

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule");
    group.throughput(Throughput::Elements(TOTAL as u64));
    group.bench_function("betas", |bencher| {
        bencher.iter(|| make_betas(Schedule::Sqrt, TOTAL));
    });
    let Ok(betas) = make_betas(Schedule::Sqrt, TOTAL) else { return };
    group.bench_function("neighbours", |bencher| {
        bencher.iter(|| find_neighbours(&betas, 0.05));
    });
    let Ok(near) = find_neighbours(&betas, 0.05) else { return };
    let Ok(timesteps) = draw_timesteps(TOTAL, ROWS, BATCH) else { return };
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("draw neighbours", |bencher| {
        bencher.iter(|| draw_neighbours(&timesteps, &near.up, &near.down, false, BATCH));
    });
    let (mut history, mut counts) = (vec![0.5; 10 * TOTAL], vec![10; TOTAL]);
    group.bench_function("draw by loss", |bencher| {
        bencher.iter(|| draw_by_loss(&history, &counts, 0.001, ROWS, BATCH));
    });
    let losses = vec![0.25; ROWS];
    group.bench_function("add losses", |bencher| {
        bencher.iter(|| add_losses(&mut history, &mut counts, &timesteps, &losses));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
