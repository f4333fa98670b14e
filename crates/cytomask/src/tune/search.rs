//! A search that needs fewer trials than the grid: scattered first trials, then the neighbours of the best.
//!
//! A score over thresholds is smooth and mostly has one summit, so a climb finds it; the scattered trials tell on which slope to
//! begin, and should the summit be a small one, the next best slope is taken after it. There is no model of the surface and nothing
//! to be set but the number of trials and the seed.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Error;

/// Of the trials, the share that is scattered.
const SCATTERED: usize = 4;

/// The values of one setting: how many, and whether only those beside a value are its neighbours (else all others are).
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) len: usize,
    pub(super) ordered: bool,
}

/// For each setting an index into its values.
pub(super) type Place = Vec<usize>;

/// A place in the space and its score.
pub(super) type Scored = (Place, f64);

/// Scores several places at once.
pub(super) type Evaluate<'a> = dyn FnMut(&[Place]) -> Result<Vec<f64>, Error> + 'a;

/// Tries at most `trials` places, in the order it returns them. `evaluate` scores several at once; higher is better.
///
/// 1. `start`, and a quarter of the trials scattered so that each setting takes all its values about equally often (a Latin
///    hypercube; McKay, Beckman, Conover 1979).
/// 2. Again and again all untried neighbours of the best place that still has some; of equal places the one tried first.
pub(super) fn sample(
    axes: &[Axis],
    start: Place,
    trials: usize,
    seed: u64,
    evaluate: &mut Evaluate<'_>,
) -> Result<Vec<Scored>, Error> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = BTreeSet::from([start.clone()]);
    let mut next = vec![start];
    next.extend(
        scattered(axes, trials.div_ceil(SCATTERED), &mut random).into_iter().filter(|at| seen.insert(at.clone())),
    );
    let mut tried: Vec<Scored> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    loop {
        next.truncate(trials - tried.len());
        let scores = evaluate(&next)?;
        open.extend(tried.len()..tried.len() + next.len());
        tried.extend(next.drain(..).zip(scores));
        if tried.len() >= trials {
            return Ok(tried);
        }
        while next.is_empty() {
            let best = (0..open.len()).max_by(|&a, &b| {
                let (a, b) = (open[a], open[b]);
                tried[a].1.total_cmp(&tried[b].1).then(b.cmp(&a))
            });
            let Some(best) = best else { return Ok(tried) };
            let place = &tried[open.swap_remove(best)].0;
            next = neighbours(axes, place).into_iter().filter(|at| seen.insert(at.clone())).collect();
        }
    }
}

/// `count` places; along each axis the values are dealt out evenly and shuffled.
fn scattered(axes: &[Axis], count: usize, random: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::with_capacity(axes.len()); count];
    for axis in axes {
        let mut values: Vec<usize> = (0..count).map(|index| index * axis.len / count).collect();
        shuffle(&mut values, random);
        for (place, value) in places.iter_mut().zip(values) {
            place.push(value);
        }
    }
    places
}

/// Fisher and Yates's shuffle.
pub(super) fn shuffle<T>(values: &mut [T], random: &mut ChaCha8Rng) {
    for end in (1..values.len()).rev() {
        values.swap(end, random.random_range(0..=end));
    }
}

fn neighbours(axes: &[Axis], place: &[usize]) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    for (index, axis) in axes.iter().enumerate() {
        let here = place[index];
        for value in (0..axis.len).filter(|&value| value != here && (!axis.ordered || value.abs_diff(here) == 1)) {
            let mut other = place.to_vec();
            other[index] = value;
            found.push(other);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(lens: &[usize]) -> Vec<Axis> {
        lens.iter().map(|&len| Axis { len, ordered: true }).collect()
    }

    fn run(axes: &[Axis], trials: usize, seed: u64, score: impl Fn(&[usize]) -> f64) -> Vec<Scored> {
        let mut evaluate = |places: &[Vec<usize>]| Ok(places.iter().map(|place| score(place)).collect());
        sample(axes, vec![0; axes.len()], trials, seed, &mut evaluate).unwrap()
    }

    fn hill(place: &[usize]) -> f64 {
        -place.iter().zip([3, 1, 4, 1, 5]).map(|(&at, top)| (at as f64 - f64::from(top)).powi(2)).sum::<f64>()
    }

    #[test]
    fn a_hill_is_climbed_with_few_trials() {
        let axes = axes(&[6, 6, 6, 6, 6]);
        for seed in 0..10 {
            let tried = run(&axes, 120, seed, hill);
            let best = tried.iter().map(|(_, score)| *score).fold(f64::MIN, f64::max);
            assert_eq!(best, 0.0, "120 of 7776 trials, seed {seed}");
        }
        assert_eq!(run(&axes, 60, 4, hill), run(&axes, 60, 4, hill), "one seed, one search");
        assert_ne!(run(&axes, 60, 4, hill), run(&axes, 60, 5, hill));
    }

    #[test]
    fn no_place_is_tried_twice_and_no_more_than_there_are() {
        for (lens, trials) in [(vec![3, 4], 100), (vec![3, 4], 5), (vec![1], 10), (vec![7, 1, 2], 14), (vec![2, 2], 1)]
        {
            let axes = axes(&lens);
            let tried = run(&axes, trials, 1, hill);
            let places: BTreeSet<_> = tried.iter().map(|(place, _)| place.clone()).collect();
            assert_eq!(places.len(), tried.len());
            assert_eq!(tried.len(), trials.min(lens.iter().product()));
            assert!(places.iter().all(|place| place.iter().zip(&lens).all(|(at, len)| at < len)));
        }
    }

    #[test]
    fn words_are_all_neighbours_of_each_other() {
        let words = [Axis { len: 5, ordered: false }, Axis { len: 2, ordered: true }];
        assert_eq!(neighbours(&words, &[2, 0]).len(), 4 + 1);
        assert_eq!(neighbours(&axes(&[5, 2]), &[0, 1]), [[1, 1], [0, 0]]);
    }

    #[test]
    fn scattered_places_use_all_values_evenly() {
        let places = scattered(&axes(&[5, 2]), 10, &mut ChaCha8Rng::seed_from_u64(0));
        for value in 0..5 {
            assert_eq!(places.iter().filter(|place| place[0] == value).count(), 2);
        }
        assert_eq!(places.iter().filter(|place| place[1] == 1).count(), 5);
    }
}
