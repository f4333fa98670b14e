//! What a run's scores decide: the learning rate on a plateau, and when to stop.

use serde::{Deserialize, Serialize};

use crate::settings::{Decay, TrainSettings};

/// The learning rate falls to zero as `(1 − t)` to this power.
const DECAY_POWER: f64 = 0.9;

/// Of `ReduceLROnPlateau` as µSAM sets it.
const PLATEAU_FACTOR: f64 = 0.9;
/// Validations without a better score that are borne; at the next one the rate falls.
const PLATEAU_PATIENCE: u64 = 3;
/// A score must be better by this share to count there.
const PLATEAU_THRESHOLD: f64 = 1e-4;

/// What is remembered of the scores so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Course {
    /// The score of the weights the run began with, where they count.
    #[serde(default)]
    pub(crate) start: Option<f64>,
    /// The best score since.
    pub(crate) best: Option<f64>,
    /// Validations since.
    pub(crate) since_best: u64,
    plateau_best: Option<f64>,
    plateau_bad: u64,
    plateau_falls: u32,
}

impl Course {
    /// Whether a score is the best of all, the start's included.
    pub(crate) fn is_best(&self, score: f64) -> bool {
        [self.start, self.best].into_iter().flatten().all(|earlier| score > earlier)
    }

    /// Takes a score in. The start has no part in what follows from it: a run that begins below its start may still rise.
    pub(crate) fn observe(&mut self, score: f64) {
        if self.best.is_none_or(|best| score > best) {
            self.best = Some(score);
            self.since_best = 0;
        } else {
            self.since_best += 1;
        }
        if self.plateau_best.is_none_or(|best| score > best + PLATEAU_THRESHOLD * best.abs()) {
            self.plateau_best = Some(score);
            self.plateau_bad = 0;
        } else {
            self.plateau_bad += 1;
            if self.plateau_bad > PLATEAU_PATIENCE {
                self.plateau_bad = 0;
                self.plateau_falls += 1;
            }
        }
    }

    /// Whether the run has gone on for long enough without a better score.
    pub(crate) fn is_over(&self, settings: &TrainSettings) -> bool {
        settings.patience.is_some_and(|patience| self.since_best >= patience)
    }

    /// The learning rate of step `step` (from 0).
    pub(crate) fn learning_rate(&self, settings: &TrainSettings, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / settings.warm_up.max(1) as f64).min(1.0);
        let done = (step as f64 / settings.iterations as f64).min(1.0);
        let share = match settings.decay {
            Decay::Polynomial => (1.0 - done).powf(DECAY_POWER),
            Decay::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * done).cos()),
            Decay::Plateau => PLATEAU_FACTOR.powi(self.plateau_falls as i32),
            Decay::Constant => 1.0,
        };
        settings.learning_rate * warm * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(decay: Decay) -> TrainSettings {
        TrainSettings { decay, learning_rate: 1e-2, warm_up: 2, iterations: 10, ..TrainSettings::default() }
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let course = Course::default();
        for (decay, at_five) in
            [(Decay::Constant, 1e-2), (Decay::Cosine, 5e-3), (Decay::Polynomial, 1e-2 * 0.5_f64.powf(0.9))]
        {
            let settings = settings(decay);
            assert!(course.learning_rate(&settings, 0) <= 5e-3);
            assert!((course.learning_rate(&settings, 5) - at_five).abs() < 1e-12, "{decay:?}");
        }
    }

    #[test]
    fn a_plateau_lowers_the_rate_after_the_fourth_bad_score() {
        // As torch's ReduceLROnPlateau(mode="max", factor=0.9, patience=3) does with these scores.
        let mut course = Course::default();
        let settings = settings(Decay::Plateau);
        for (score, falls) in [(0.5, 0), (0.5, 0), (0.4, 0), (0.500_01, 0), (0.5, 1), (0.6, 1), (0.1, 1), (0.1, 1)] {
            course.observe(score);
            let expected = 1e-2 * 0.9_f64.powi(falls);
            assert!((course.learning_rate(&settings, 5) - expected).abs() < 1e-12, "{score}");
        }
        assert_eq!(course.best, Some(0.6));
    }

    #[test]
    fn patience_counts_scores_that_are_not_better() {
        let settings = TrainSettings { patience: Some(2), ..TrainSettings::default() };
        let mut course = Course::default();
        for (score, over) in [(0.3, false), (0.2, false), (0.4, false), (0.4, false), (0.1, true)] {
            course.observe(score);
            assert_eq!(course.is_over(&settings), over, "{score}");
        }
        assert!(!course.is_over(&TrainSettings::default()));
    }

    #[test]
    fn the_start_counts_for_the_best_and_for_nothing_else() {
        let settings = TrainSettings { patience: Some(2), ..settings(Decay::Plateau) };
        let (mut without, mut with) = (Course::default(), Course { start: Some(0.35), ..Course::default() });
        for (score, best, best_of_all) in
            [(0.3, true, false), (0.2, false, false), (0.35, true, false), (0.4, true, true)]
        {
            assert_eq!((without.is_best(score), with.is_best(score)), (best, best_of_all), "{score}");
            without.observe(score);
            with.observe(score);
            assert_eq!(without, Course { start: None, ..with.clone() });
            assert!(!with.is_over(&settings));
        }
    }
}
