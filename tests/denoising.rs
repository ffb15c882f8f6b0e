//! `lmcore::denoising`: the laws of samples, for any settings and texts.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::denoising::{Denoiser, Denoising, Excess, Noise, Plan, Samples, SpecialIds, Texts};
use lmcore::error::{Error, Kind};
use proptest::prelude::*;

const IDS: SpecialIds = SpecialIds {
    vocabulary_size: 1_200,
    first_sentinel: 1_099,
    sentinel_count: 100,
    eos: 1,
    bos: 2,
    pad: 0,
    label_padding: -100,
};
const PLAIN: Denoiser = Denoiser {
    noise: Noise::Spans,
    density: 0.5,
    mean_span: 3.0,
    prefix: Some(1_100),
    weight: 1.0,
    max_length: None,
    excess: Excess::Cap,
};

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Debug, Clone, PartialEq)]
struct Batch {
    tasks: Vec<i64>,
    encoder: Vec<Vec<i64>>,
    decoder: Vec<Vec<i64>>,
    labels: Vec<Vec<i64>>,
}

fn as_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap()
}

fn offsets_of(lengths: &[i64], extra: i64) -> Vec<i64> {
    let mut offsets = vec![0];
    for length in lengths {
        offsets.push(offsets.last().unwrap() + length + extra);
    }
    offsets
}

fn cut(values: &[i64], offsets: &[i64]) -> Vec<Vec<i64>> {
    let at = |offset: i64| usize::try_from(offset).unwrap();
    offsets.windows(2).map(|pair| values[at(pair[0])..at(pair[1])].to_vec()).collect()
}

/// Plans and writes samples of texts, with some padding behind each row.
fn run(
    denoising: &Denoising,
    texts: &[Vec<i32>],
    indices: &[u64],
    tasks: Option<&[i64]>,
    extra: i64,
    threads: usize,
) -> Result<Batch, Error> {
    let lengths: Vec<i64> = texts.iter().map(|text| as_i64(text.len())).collect();
    let [mut found, mut sources, mut targets] = [(); 3].map(|()| vec![0; texts.len()]);
    let mut plan =
        Plan { tasks: &mut found, encoder_lengths: &mut sources, decoder_lengths: &mut targets };
    denoising.plan(&lengths, indices, 3, tasks, &mut plan)?;
    let starts = offsets_of(&lengths, 0);
    let texts =
        Texts { tokens: &texts.concat(), starts: &starts[..indices.len()], ends: &starts[1..] };
    let (encoder_offsets, decoder_offsets) =
        (offsets_of(&sources, extra), offsets_of(&targets, extra));
    let size = |offsets: &[i64]| usize::try_from(*offsets.last().unwrap()).unwrap();
    let mut encoder = vec![-7; size(&encoder_offsets)];
    let [mut decoder, mut labels] = [(); 2].map(|()| vec![-7; size(&decoder_offsets)]);
    let samples = Samples {
        encoder: &mut encoder,
        encoder_offsets: &encoder_offsets,
        decoder: &mut decoder,
        labels: &mut labels,
        decoder_offsets: &decoder_offsets,
    };
    denoising.write(texts, indices, 3, &found, samples, Some(threads))?;
    Ok(Batch {
        tasks: found,
        encoder: cut(&encoder, &encoder_offsets),
        decoder: cut(&decoder, &decoder_offsets),
        labels: cut(&labels, &decoder_offsets),
    })
}

/// The text of a sample: each sentinel of the encoder stands for what follows it in the labels.
fn reconstruct(encoder: &[i64], labels: &[i64], prefix: Option<u32>) -> Vec<i64> {
    let is_sentinel = |id: &i64| (1_000..=1_099).contains(id);
    let start = usize::from(prefix.is_some());
    assert_eq!(prefix.map(i64::from), encoder.first().copied().filter(|_| start == 1));
    assert_eq!((encoder.last(), labels.last()), (Some(&1), Some(&1)));
    let mut spans = labels[..labels.len() - 1].split(is_sentinel);
    assert!(spans.next().unwrap().is_empty());
    let mut text = Vec::new();
    for id in &encoder[start..encoder.len() - 1] {
        if is_sentinel(id) { text.extend(spans.next().unwrap()) } else { text.push(*id) }
    }
    assert!(spans.next().is_none());
    text
}

prop_compose! {
    fn denoisers()(
        noise in prop::sample::select(
            vec![Noise::Spans, Noise::Suffix, Noise::FixedSuffix, Noise::Mix]
        ),
        density in prop_oneof![Just(0.15), Just(0.5), 1e-9..0.999_999],
        mean_span in prop_oneof![Just(1.0), Just(3.0), Just(64.0), 1.0..1e300],
        prefix in prop::option::of(1_100_u32..1_103),
        weight in prop_oneof![Just(1.0), Just(0.5), 1e-300..1e300],
        max_length in prop::option::of(2_usize..300),
    ) -> Denoiser {
        Denoiser { noise, density, mean_span, prefix, weight, max_length, excess: Excess::Cap }
    }
}

prop_compose! {
    fn texts()(
        rows in prop::collection::vec(
            prop_oneof![2_usize..9, 60_usize..70, 120_usize..140, 500_usize..900], 1..6
        ),
        first in 3_i32..900,
    ) -> Vec<Vec<i32>> {
        rows.into_iter().map(|length| (first..).take(length).map(|id| id % 990 + 3).collect()).collect()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn texts_come_back(
        mixture in prop::collection::vec(denoisers(), 1..4),
        texts in texts(),
        first in any::<u32>(),
        extra in prop_oneof![Just(0_i64), 1_i64..20],
    ) {
        let denoising = Denoising::new(mixture.clone(), IDS).unwrap();
        let indices: Vec<u64> = (first.into()..).take(texts.len()).collect();
        let batch = run(&denoising, &texts, &indices, None, extra, 1).unwrap();
        let padding = usize::try_from(extra).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let denoiser = &mixture[usize::try_from(batch.tasks[row]).unwrap()];
            let (encoder, rest) = batch.encoder[row].split_at(batch.encoder[row].len() - padding);
            prop_assert!(rest.iter().all(|&id| id == 0));
            let width = batch.labels[row].len() - padding;
            let (labels, rest) = batch.labels[row].split_at(width);
            prop_assert!(rest.iter().all(|&id| id == -100));
            let (decoder, rest) = batch.decoder[row].split_at(width);
            prop_assert!(rest.iter().all(|&id| id == 0));
            prop_assert_eq!(decoder[0], 2);
            prop_assert_eq!(&decoder[1..], &labels[..width - 1]);
            let taken = denoiser.max_length.map_or(text.len(), |most| most.min(text.len()));
            let expected: Vec<i64> = text[..taken].iter().copied().map(i64::from).collect();
            prop_assert_eq!(reconstruct(encoder, labels, denoiser.prefix), expected);
            // The text begins with what is kept and ends with noise.
            let start = usize::from(denoiser.prefix.is_some());
            prop_assert_eq!(encoder[start], i64::from(text[0]));
            prop_assert_eq!(labels[width - 2], i64::from(text[taken - 1]));
        }
        let alone = run(&denoising, &texts[..1], &indices[..1], None, extra, 1).unwrap();
        prop_assert_eq!(&alone.encoder[0], &batch.encoder[0]);
        let forced = run(&denoising, &texts, &indices, Some(&batch.tasks), extra, 2).unwrap();
        prop_assert_eq!(forced, batch);
    }

    #[test]
    fn any_lengths_are_an_answer(
        tokens in prop::collection::vec(-1_i64..1_201, 0..40),
        lengths in prop::collection::vec(prop_oneof![0_i64..9, Just(-1), Just(i64::MAX)], 0..9),
        prefix in prop::option::of(0_u32..1_300),
    ) {
        let denoising = Denoising::new(vec![PLAIN], IDS).unwrap();
        let sample = denoising.apply_spans::<i64, i32>(&tokens, &lengths, prefix);
        match sample {
            Ok([encoder, decoder, labels]) => {
                let noise: i64 = lengths.iter().skip(1).step_by(2).sum();
                let spans = lengths.len() / 2;
                prop_assert_eq!(as_i64(labels.len()), noise + as_i64(spans) + 1);
                prop_assert_eq!(decoder.len(), labels.len());
                let start = usize::from(prefix.is_some());
                prop_assert_eq!(encoder.len() + labels.len(), start + tokens.len() + 2 * spans + 2);
            }
            Err(error) => prop_assert!(matches!(error.kind(), Kind::Value | Kind::Index)),
        }
    }

    #[test]
    fn any_offsets_are_an_answer(
        starts in prop::collection::vec(-1_i64..12, 0..4),
        ends in prop::collection::vec(-1_i64..12, 0..4),
        offsets in prop::collection::vec(-1_i64..40, 0..6),
        tasks in prop::collection::vec(-1_i64..2, 0..4),
        size in 0_usize..40,
    ) {
        let denoising = Denoising::new(vec![PLAIN], IDS).unwrap();
        let tokens = [5_u16; 10];
        let [mut encoder, mut decoder, mut labels] = [(); 3].map(|()| vec![0_i32; size]);
        let indices = vec![0; tasks.len()];
        let texts = Texts { tokens: &tokens, starts: &starts, ends: &ends };
        let samples = Samples {
            encoder: &mut encoder,
            encoder_offsets: &offsets,
            decoder: &mut decoder,
            labels: &mut labels,
            decoder_offsets: &offsets,
        };
        if let Err(error) = denoising.write(texts, &indices, 0, &tasks, samples, None) {
            prop_assert!(matches!(error.kind(), Kind::Value | Kind::Index));
        }
        let samples = Samples {
            encoder: &mut encoder,
            encoder_offsets: &offsets,
            decoder: &mut decoder,
            labels: &mut labels,
            decoder_offsets: &offsets,
        };
        let [mut found, mut wanted, mut dropped] =
            [starts.len(), starts.len(), 2 * starts.len()].map(|size| vec![0; size]);
        let lengths = [&mut found[..], &mut wanted[..], &mut dropped[..]];
        if let Err(error) = denoising.write_pairs([texts, texts], Some(3), samples, lengths) {
            prop_assert!(matches!(error.kind(), Kind::Value | Kind::Index));
        }
    }
}

#[test]
fn threads_write_the_same() {
    let texts: Vec<Vec<i32>> = (0..700).map(|row| vec![row % 900 + 3; 568]).collect();
    let indices: Vec<u64> = (0..700).collect();
    let denoising = Denoising::new(vec![PLAIN; 3], IDS).unwrap();
    let one = run(&denoising, &texts, &indices, None, 3, 1).unwrap();
    for threads in [2, 3, 8] {
        assert!(run(&denoising, &texts, &indices, None, 3, threads).unwrap() == one);
    }
}

#[test]
fn long_texts_take_many_groups_of_words() {
    let texts = vec![vec![7; 200_000]; 2];
    for noise in [Noise::Spans, Noise::Mix] {
        let denoiser = Denoiser { noise, excess: Excess::Refuse, ..PLAIN };
        let denoising = Denoising::new(vec![denoiser], IDS).unwrap();
        let error = run(&denoising, &texts, &[0, 1], None, 0, 1).unwrap_err();
        assert!(error.to_string().starts_with("tokens[0] must be at most 100 noise spans"));
        let ids = SpecialIds {
            vocabulary_size: 300_000,
            first_sentinel: 299_999,
            sentinel_count: 100_000,
            ..IDS
        };
        let denoising = Denoising::new(vec![denoiser], ids).unwrap();
        let batch = run(&denoising, &texts, &[0, 1], None, 0, 1).unwrap();
        assert_ne!(batch.labels[0], batch.labels[1]);
        for (encoder, labels) in batch.encoder.iter().zip(&batch.labels) {
            let tokens = |ids: &[i64]| ids.iter().filter(|&&id| id == 7).count();
            assert_eq!((tokens(encoder), tokens(labels)), (100_000, 100_000));
        }
    }
}

#[test]
fn wrong_settings_are_named() {
    let text = |denoiser, ids| Denoising::new(vec![denoiser], ids).unwrap_err().to_string();
    for (changed, expected) in [
        (Denoiser { density: 1.0, ..PLAIN }, "density must be above 0 and below 1: got 1.0"),
        (Denoiser { density: f64::NAN, ..PLAIN }, "density must be above 0 and below 1: got nan"),
        (Denoiser { mean_span: 0.5, ..PLAIN }, "mean_span must be finite and at least 1: got 0.5"),
        (Denoiser { weight: -1.0, ..PLAIN }, "weight must be finite and at least 0: got -1.0"),
        (Denoiser { weight: 0.0, ..PLAIN }, "weights must be finite and above 0 in sum: got 0.0"),
        (
            Denoiser { prefix: Some(1_200), ..PLAIN },
            "prefix must be at least 0 and below 1200: got 1200",
        ),
        (
            Denoiser { max_length: Some(1), ..PLAIN },
            "max_length must be at least 2 and below 2**31: got 1",
        ),
    ] {
        assert_eq!(text(changed, IDS), expected);
    }
    for (ids, expected) in [
        (SpecialIds { eos: 1_200, ..IDS }, "eos must be at least 0 and below 1200: got 1200"),
        (
            SpecialIds { sentinel_count: 1_101, ..IDS },
            "sentinel_count must be at least 1 and at most 1100: got 1101",
        ),
        (
            SpecialIds { vocabulary_size: u32::MAX, ..IDS },
            "vocabulary_size must be at least 1 and below 2**31: got 4294967295",
        ),
    ] {
        assert_eq!(text(PLAIN, ids), expected);
    }
    assert!(Denoising::new(Vec::new(), IDS).is_err());
}

#[test]
fn texts_without_enough_tokens_are_refused() {
    for noise in [Noise::Spans, Noise::Suffix, Noise::FixedSuffix, Noise::Mix] {
        let denoising = Denoising::new(vec![Denoiser { noise, ..PLAIN }], IDS).unwrap();
        for length in [0, 1] {
            let error =
                run(&denoising, &[vec![5; 4], vec![5; length]], &[0, 1], None, 0, 1).unwrap_err();
            let expected =
                format!("tokens[1] must be at least 2 and below 2**31 ids long: got {length}");
            assert_eq!(error.to_string(), expected);
        }
        let batch = run(&denoising, &[vec![5, 6]], &[0], None, 0, 1).unwrap();
        assert_eq!(batch.encoder, [[1_100, 5, 1_099, 1]]);
        assert_eq!(batch.decoder, [[2, 1_099, 6]]);
        assert_eq!(batch.labels, [[1_099, 6, 1]]);
    }
}

#[test]
fn rows_without_room_are_refused() {
    let denoising = Denoising::new(vec![PLAIN], IDS).unwrap();
    let texts = Texts { tokens: &[5_i64, 6, 7, 8], starts: &[0], ends: &[4] };
    for (source, target, expected) in [
        (4, 9, "encoder[0] must be at least 5 ids wide: got 4"),
        (9, 3, "decoder[0] must be at least 4 ids wide: got 3"),
    ] {
        let (mut encoder, mut decoder, mut labels) =
            (vec![0_i64; source], vec![0; target], vec![0; target]);
        let samples = Samples {
            encoder: &mut encoder,
            encoder_offsets: &[0, as_i64(source)],
            decoder: &mut decoder,
            labels: &mut labels,
            decoder_offsets: &[0, as_i64(target)],
        };
        let error = denoising.write(texts, &[0], 0, &[0], samples, None).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
