//! What a batch costs, by mixture.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lmcore::denoising::{Denoiser, Denoising, Excess, Noise, Plan, Samples, SpecialIds, Texts};
use lmcore::philox::{fill, to_below};

const ROWS: usize = 256;
const IDS: SpecialIds = SpecialIds {
    vocabulary_size: 250_203,
    first_sentinel: 250_199,
    sentinel_count: 100,
    eos: 1,
    bos: 0,
    pad: 0,
    label_padding: -100,
};

fn denoiser(noise: Noise, density: f64, mean_span: f64) -> Denoiser {
    let prefix = Some(250_202);
    let (weight, max_length, excess) = (1.0, None, Excess::Cap);
    Denoiser { noise, density, mean_span, prefix, weight, max_length, excess }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("denoising");
    let ul2 = [(0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0)];
    let mut all: Vec<_> =
        ul2.into_iter().map(|(density, mean)| denoiser(Noise::Spans, density, mean)).collect();
    all.push(denoiser(Noise::Suffix, 0.25, 3.0));
    for (name, denoisers, length) in [
        ("ul2", all, 568),
        ("suffix", vec![denoiser(Noise::FixedSuffix, 0.5, 3.0)], 2_048),
        ("mix", vec![denoiser(Noise::Mix, 0.5, 3.0)], 1_700),
    ] {
        let denoising = Denoising::new(denoisers, IDS).unwrap();
        let texts: Vec<u64> = (0..ROWS as u64).collect();
        let tokens = fill(1, 2, &texts, 0, length, |bits| to_below(bits, 250_000)).unwrap();
        let tokens: Vec<i32> =
            tokens.iter().map(|&token| i32::try_from(token).unwrap() + 3).collect();
        let at = |row: usize, width: usize| i64::try_from(row * width).unwrap();
        let bounds: Vec<i64> = (0..=ROWS).map(|row| at(row, length)).collect();
        let offsets: Vec<i64> = (0..=ROWS).map(|row| at(row, length + 200)).collect();
        let texts = Texts { tokens: &tokens, starts: &bounds[..ROWS], ends: &bounds[1..] };
        let lengths = vec![at(1, length); ROWS];
        let [mut tasks, mut sources, mut targets] = [(); 3].map(|()| vec![0; ROWS]);
        let [mut encoder, mut decoder, mut labels] =
            [(); 3].map(|()| vec![0_i64; ROWS * (length + 200)]);
        let mut first = 0;
        group.throughput(Throughput::Elements((ROWS * length) as u64));
        group.bench_function(BenchmarkId::new(name, length), |bencher| {
            bencher.iter(|| {
                first += ROWS as u64;
                let indices: Vec<u64> = (first..).take(ROWS).collect();
                let mut plan = Plan {
                    tasks: &mut tasks,
                    encoder_lengths: &mut sources,
                    decoder_lengths: &mut targets,
                };
                denoising.plan(&lengths, &indices, 1, None, &mut plan).unwrap();
                let samples = Samples {
                    encoder: &mut encoder,
                    encoder_offsets: &offsets,
                    decoder: &mut decoder,
                    labels: &mut labels,
                    decoder_offsets: &offsets,
                };
                denoising.write(texts, &indices, 1, &tasks, samples, Some(1)).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
