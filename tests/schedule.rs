//! `lmcore::schedule`: betas, neighbours and draws against plain loops.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::error::Kind;
use lmcore::philox::{Stream, fill, to_below, to_uniform};
use lmcore::schedule::{
    Batch, LARGEST_LOSS, MOST_STEPS, Schedule, add_losses, draw_by_loss, draw_neighbours,
    draw_timesteps, find_neighbours, make_betas, shift_timesteps, weigh_timesteps,
};
use proptest::prelude::*;

const BATCH: Batch = Batch { seed: 1, step: 2, first_row: 0 };

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn levels(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    let next = |beta: &f64| {
        product *= 1.0 - beta;
        (1.0_f64 - product).sqrt()
    };
    betas.iter().map(next).collect()
}

#[test]
fn betas_are_above_0_and_below_1_for_any_number_of_timesteps() {
    for name in Schedule::NAMES {
        let schedule = Schedule::from_name(name).unwrap();
        for steps in (0..60).chain([999, 2000, 9999, 10_000, 100_000]) {
            match make_betas(schedule, steps) {
                Ok(betas) => {
                    assert_eq!(betas.len(), steps);
                    assert!(betas.iter().all(|&beta| 0.0 < beta && beta < 1.0), "{name} {steps}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Value);
                    assert!(steps < 21 || (name == "sqrt" && steps > 9999), "{error}");
                }
            }
        }
        assert_eq!(make_betas(schedule, MOST_STEPS + 1).unwrap_err().kind(), Kind::Value);
    }
    assert!(Schedule::from_name("square").is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn neighbours_are_those_of_a_loop(
        betas in prop::collection::vec(1e-6_f64..0.5, 1..60),
        tolerance in 1e-4_f64..0.9,
    ) {
        let found = find_neighbours(&betas, tolerance).unwrap();
        let levels = levels(&betas);
        let as_i64 = |place: usize| i64::try_from(place).unwrap();
        for (t, here) in levels.iter().enumerate() {
            let far = levels.iter().position(|other| other - here > tolerance);
            prop_assert_eq!(found.up[t], far.map_or(-1, |far| as_i64(far) - 1));
            let first = levels.iter().position(|other| here - other <= tolerance).unwrap();
            prop_assert_eq!(found.down[t], if first == 0 { -1 } else { as_i64(first) });
        }
    }

    #[test]
    fn draws_stay_in_the_window_and_a_part_of_a_batch_draws_the_same(
        betas in prop::collection::vec(1e-6_f64..0.5, 1..40),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
        cut in any::<prop::sample::Index>(),
        far in any::<bool>(),
    ) {
        let found = find_neighbours(&betas, 0.1).unwrap();
        let timesteps: Vec<i64> =
            chosen.iter().map(|index| i64::try_from(index.index(betas.len())).unwrap()).collect();
        let draw = |timesteps: &[i64], first_row| {
            let batch = Batch { first_row, ..BATCH };
            draw_neighbours(timesteps, &found.up, &found.down, far, batch).unwrap()
        };
        let drawn = draw(&timesteps, 0);
        for (&t, &other) in timesteps.iter().zip(&drawn) {
            let here = usize::try_from(t).unwrap();
            let (up, down) = (found.up[here], found.down[here]);
            let ends = if far { other == up || other == down } else { true };
            prop_assert!(other == t || (ends && (t < other && other <= up))
                || (ends && (down != -1 && down <= other && other < t)));
        }
        let cut = cut.index(timesteps.len() + 1);
        let (before, after) = timesteps.split_at(cut);
        let parts = [draw(before, 0), draw(after, cut as u64)].concat();
        prop_assert_eq!(parts, drawn);
    }

    #[test]
    fn losses_are_kept_as_a_list_keeps_them(
        losses in prop::collection::vec((0_usize..3, -9.0_f64..9.0), 0..40),
        length in 1_usize..5,
    ) {
        let (mut history, mut counts) = (vec![0.0; 3 * length], vec![0; 3]);
        let timesteps: Vec<i64> =
            losses.iter().map(|&(t, _)| i64::try_from(t).unwrap()).collect();
        let values: Vec<f64> = losses.iter().map(|&(_, loss)| loss).collect();
        add_losses(&mut history, &mut counts, &timesteps, &values).unwrap();
        for t in 0..3 {
            let all: Vec<f64> =
                losses.iter().filter(|&&(other, _)| other == t).map(|&(_, loss)| loss).collect();
            let kept = &all[all.len().saturating_sub(length)..];
            prop_assert_eq!(counts[t], i64::try_from(kept.len()).unwrap());
            prop_assert_eq!(&history[t * length..][..kept.len()], kept);
        }
        let is_full = counts.iter().all(|&count| count == i64::try_from(length).unwrap());
        let weights = weigh_timesteps(&history, &counts, 0.001).unwrap();
        prop_assert_eq!(weights.is_some(), is_full);
        let (drawn, scales) = draw_by_loss(&history, &counts, 0.001, 20, BATCH).unwrap();
        let Some(weights) = weights else {
            prop_assert_eq!(drawn, draw_timesteps(3, 20, BATCH).unwrap());
            prop_assert_eq!(scales, vec![1.0; 20]);
            return Ok(());
        };
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let numbers = fill(1, Stream::Timesteps.into(), &[2], 0, 20, to_uniform).unwrap();
        for ((&t, &scale), number) in drawn.iter().zip(&scales).zip(numbers) {
            let t = usize::try_from(t).unwrap();
            let p = weights[t];
            let before: f64 = weights[..t].iter().sum();
            prop_assert!(before - 1e-12 <= number && number <= before + p + 1e-12);
            prop_assert!((scale * 3.0 * p - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn shifted_timesteps_stay_between_the_ends() {
    let timesteps: Vec<i64> = (0..1000).collect();
    let shifted = shift_timesteps(&timesteps, 1000, 30, BATCH).unwrap();
    let bits = fill(1, Stream::Neighbours.into(), &[2], 0, 2000, |bits| bits).unwrap();
    for (t, (&other, bits)) in timesteps.iter().zip(shifted.iter().zip(bits.chunks(2))) {
        let expected = if to_below(bits[0], 2) == 1 { (t + 30).min(999) } else { (t - 30).max(0) };
        assert_eq!(other, expected);
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let text = |result: Result<Vec<i64>, _>| {
        let error: lmcore::error::Error = result.unwrap_err();
        (error.kind(), error.to_string())
    };
    let draw = |timesteps: &[i64], up: &[i64], down: &[i64]| {
        text(draw_neighbours(timesteps, up, down, true, BATCH))
    };
    let index = |text: &str| (Kind::Index, text.to_owned());
    let value = |text: &str| (Kind::Value, text.to_owned());
    assert_eq!(
        draw(&[0, 3], &[-1; 3], &[-1; 3]),
        index("timesteps[1] must be at least 0 and below 3: got 3")
    );
    assert_eq!(
        draw(&[2; 64], &[-1, -1, 1], &[2, 2, 2]),
        index("up[2] must be at least 2 and below 3: got 1")
    );
    assert_eq!(
        draw(&[1; 64], &[1, 1, 1], &[0, 2, 2]),
        index("down[1] must be at least 0 and at most 1: got 2")
    );
    assert_eq!(draw(&[], &[0], &[]), value("up and down must have the same length: got 1 and 0"));
    let batch = Batch { first_row: u64::MAX, ..BATCH };
    assert_eq!(
        text(draw_timesteps(5, 1, batch)),
        value("first_row must be at least 0 and at most 4294967295: got 18446744073709551615")
    );
    let (mut history, mut counts) = (vec![0.5; 4], vec![2, 1]);
    for (timesteps, losses) in [
        (&[0, 2][..], &[1.0, 1.0][..]),
        (&[0, -1], &[1.0, 1.0]),
        (&[0, 0], &[1.0, f64::NAN]),
        (&[0, 0], &[1.0, 2.0 * LARGEST_LOSS]),
        (&[0, 0], &[1.0]),
    ] {
        assert!(add_losses(&mut history, &mut counts, timesteps, losses).is_err());
        assert_eq!(
            (history.as_slice(), counts.as_slice()),
            ([0.5; 4].as_slice(), [2, 1].as_slice())
        );
    }
    for (history, counts) in [
        (&[0.0; 3][..], &[1, 1][..]),
        (&[], &[1, 1]),
        (&[1.0; 2], &[]),
        (&[1.0; 2], &[2, 1]),
        (&[1.0; 2], &[-1, 1]),
        (&[1.0, f64::NAN], &[1, 1]),
    ] {
        assert_eq!(weigh_timesteps(history, counts, 0.5).unwrap_err().kind(), Kind::Value);
    }
    for share in [-0.1, 1.1, f64::NAN] {
        assert!(weigh_timesteps(&[1.0], &[1], share).is_err());
    }
    for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(find_neighbours(&[0.5], tolerance).is_err());
    }
    for beta in [0.0, 1.0, -0.5, f64::NAN] {
        let error = find_neighbours(&[0.5, beta], 0.1).unwrap_err();
        assert!(error.to_string().starts_with("betas[1] must be above 0 and below 1: got "));
    }
}
