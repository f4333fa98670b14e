//! The settings that suit somebody's images: tried on labelled ones, checked on others.
//!
//! µSAM's and the paper's grid search, with the network asked once an image ([`Prepared::segment_each`](crate::Prepared)), a search
//! that needs fewer trials, and the gain measured on images that had no part in the choice. The best of hundreds of settings is the
//! best on the images searched partly by luck; only the second number says what to expect.

mod report;
mod scores;
mod search;
mod space;

use cytomask_eval::BothEmpty;
use cytomask_eval::statistics::{Interval, WilcoxonOptions, bootstrap_mean, wilcoxon};
use cytomask_image::{Labels, Rgb};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

pub use report::{html, images_csv, summary, trials_csv};
pub use space::{Parameter, Space};

use crate::{Error, ErrorKind, Segmenter};
use scores::ScoreTable;
use search::{Axis, Scored};

/// Resamples of the interval of the gain.
const RESAMPLES: usize = 10_000;
const CONFIDENCE: f64 = 0.95;
/// Fewer differences than this cannot be significant at 0.05 whatever they are (the exact Wilcoxon test of five has p ≥ 0.0625).
const FEWEST_IMAGES: usize = 6;
const SIGNIFICANT: f64 = 0.05;
/// Scores nearer than this are equal: sums of the same numbers in another order.
const TIE: f64 = 1e-12;
/// The sampler counts as arrived within this of the grid's best score.
pub const NEAR: f64 = 0.002;
/// Seeds the sampler is replayed with on a grid's scores.
const REPLAYS: u64 = 20;
/// Larger grids are refused: they would take days.
const LARGEST_GRID: usize = 200_000;

/// Labelled images, read when they are needed.
pub trait LabelledImages {
    /// Names, one an image.
    fn names(&self) -> Vec<String>;

    /// The converted pixels and the true objects of an image.
    ///
    /// # Errors
    /// When a file cannot be read or the two differ in size.
    fn load(&self, index: usize) -> Result<(Rgb, Labels), Error>;
}

/// Which candidates are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All.
    Grid,
    /// This many, see `search.rs`.
    Sample(usize),
}

/// Which images check the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// So many parts; each is scored with settings chosen on the others. The final choice uses all images.
    Folds(usize),
    /// This share of the images has no part in the choice.
    HeldOut(f64),
}

/// How to tune.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Which candidates are tried.
    pub method: Method,
    /// Which images check the choice.
    pub check: Check,
    /// Of the split, the sampler and the resampling.
    pub seed: u64,
    /// The score of an image without true and found objects.
    pub both_empty: BothEmpty,
    /// Encoded images are kept up to this much memory; beyond it an image is encoded again when the sampler comes back to it.
    pub memory_bytes: u64,
}

impl Default for TuneOptions {
    fn default() -> Self {
        Self {
            method: Method::Grid,
            check: Check::Folds(5),
            seed: 0,
            both_empty: BothEmpty::default(),
            memory_bytes: 2 << 30,
        }
    }
}

/// One candidate that was tried in the search for the final choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number in the space.
    pub candidate: usize,
    /// The values of what was varied.
    pub settings: Map<String, Value>,
    /// Mean mSA over the images searched.
    pub score: f64,
}

/// One image with and without tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageScores {
    /// Its name.
    pub name: String,
    /// The part of the check it belongs to, from 0; none for an image that chose the settings it is scored with.
    pub part: Option<usize>,
    /// mSA with the defaults.
    pub default: f64,
    /// mSA with the settings chosen without it; with the final choice where `part` is none.
    pub tuned: f64,
}

/// One part of the check.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What the other images chose.
    pub choice: Trial,
    /// Images of this part.
    pub images: usize,
    /// Their mean mSA with the defaults.
    pub default: f64,
    /// Their mean mSA with the choice.
    pub tuned: f64,
}

/// Whether tuning helps on images that had no part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval of the gain lies above 0 and the Wilcoxon test says so too.
    Real,
    /// There may be a gain, but these images do not show it.
    NotShown,
    /// The interval lies below 0.
    Worse,
    /// The defaults were the best.
    DefaultIsBest,
    /// There were too few images to check with.
    TooFewImages,
}

/// The gain on images that had no part in the choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Gain {
    /// Images.
    pub images: usize,
    /// Mean mSA with the defaults.
    pub default: f64,
    /// Mean mSA with the settings chosen without the image.
    pub tuned: f64,
    /// Of the mean difference, by bootstrap over images.
    pub interval: Interval,
    /// Two-sided, Wilcoxon's signed-rank test.
    pub p: f64,
}

/// How many trials the sampler would have needed on a grid whose scores are all known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplerTrials {
    /// The middle one of 20 seeds.
    pub median: usize,
    /// The worst of them.
    pub most: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// What was tried.
    pub space: Space,
    /// How.
    pub options: TuneOptions,
    /// In the order they were tried; the first is the default.
    pub trials: Vec<Trial>,
    /// The best of them; of equals the one nearest to the default.
    pub best: Trial,
    /// The default.
    pub default: Trial,
    /// Every image.
    pub images: Vec<ImageScores>,
    /// Parts of the check.
    pub parts: Vec<Part>,
    /// None without images to check with.
    pub gain: Option<Gain>,
    /// Whether the gain is real.
    pub verdict: Verdict,
    /// After a grid search of some size.
    pub sampler: Option<SamplerTrials>,
}

/// Searches `space` for the settings with the highest mean mSA over `images`. `report` is told the share that is done.
///
/// # Errors
/// `Setting` for no images or options that do not fit; whatever reading and segmenting the images report.
pub fn tune(
    segmenter: &Segmenter,
    space: &Space,
    images: &dyn LabelledImages,
    options: &TuneOptions,
    report: &mut dyn FnMut(f64),
) -> Result<Tuning, Error> {
    let names = images.names();
    check_options(space, names.len(), options)?;
    let (searched, parts) = split(names.len(), options);
    // What a part is scored with is chosen on the images searched that are not in it.
    let others = |part: &[usize]| searched.iter().copied().filter(|image| !part.contains(image)).collect::<Vec<_>>();
    let held_out = matches!(options.check, Check::HeldOut(_));

    let mut table = ScoreTable::new(segmenter, space, images, options);
    table.expect_work(expected_work(space, &searched, &parts, options), report);
    let mut run = Search { space, options, table: &mut table };
    let (trials, best) = run.search(&searched)?;
    let default = trials[0].clone();

    let mut part_results = Vec::new();
    let mut part_of = vec![None; names.len()];
    for (index, part) in parts.iter().enumerate() {
        let choice = if held_out { best.clone() } else { run.search(&others(part))?.1 };
        let [default, tuned] = [0, choice.candidate].map(|candidate| run.table.mean(candidate, part));
        for &image in part {
            part_of[image] = Some((index, choice.candidate));
        }
        part_results.push(Part { choice, images: part.len(), default: default?, tuned: tuned? });
    }
    let mut image_scores = Vec::new();
    for (image, name) in names.into_iter().enumerate() {
        let (part, candidate) = part_of[image].map_or((None, best.candidate), |(part, choice)| (Some(part), choice));
        let [default, tuned] = [0, candidate].map(|candidate| run.table.mean(candidate, &[image]));
        image_scores.push(ImageScores { name, part, default: default?, tuned: tuned? });
    }
    let gain = gain(&image_scores, options.seed)?;
    let verdict = verdict(&best, &part_results, gain.as_ref());
    let sampler = match options.method {
        Method::Grid if space.combinations() >= 20 => Some(replay(space, &trials, &best)?),
        _ => None,
    };
    Ok(Tuning {
        space: space.clone(),
        options: options.clone(),
        trials,
        best,
        default,
        images: image_scores,
        parts: part_results,
        gain,
        verdict,
        sampler,
    })
}

fn check_options(space: &Space, images: usize, options: &TuneOptions) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Setting, message));
    if images == 0 {
        return wrong("expected labelled images, found none".into());
    }
    match options.check {
        Check::Folds(folds) if folds < 2 => return wrong(format!("folds: expected at least 2, found {folds}")),
        Check::HeldOut(share) if !(share > 0.0 && share < 1.0) => {
            return wrong(format!("held_out: expected a share between 0 and 1, found {share}"));
        }
        _ => {}
    }
    match options.method {
        Method::Grid if space.combinations() > LARGEST_GRID => wrong(format!(
            "a grid of {} combinations: expected at most {LARGEST_GRID}; try fewer values or sample",
            space.combinations()
        )),
        Method::Sample(0) => wrong("trials: expected at least 1, found 0".into()),
        _ => Ok(()),
    }
}

/// The images searched for the final choice, and the parts of the check; no part where there is only one image.
fn split(images: usize, options: &TuneOptions) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut order: Vec<usize> = (0..images).collect();
    search::shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(options.seed));
    let sorted = |mut part: Vec<usize>| {
        part.sort_unstable();
        part
    };
    if images < 2 {
        return (order, Vec::new());
    }
    match options.check {
        Check::Folds(folds) => {
            let folds = folds.min(images);
            let part = |fold: usize| sorted(order.iter().copied().skip(fold).step_by(folds).collect());
            ((0..images).collect(), (0..folds).map(part).collect())
        }
        Check::HeldOut(share) => {
            let held = ((images as f64 * share).round() as usize).clamp(1, images - 1);
            (sorted(order[held..].to_vec()), vec![sorted(order[..held].to_vec())])
        }
    }
}

/// Scores of one candidate on one image that will be needed, about.
fn expected_work(space: &Space, searched: &[usize], parts: &[Vec<usize>], options: &TuneOptions) -> usize {
    let held: usize = parts.iter().map(Vec::len).sum();
    match (options.method, options.check) {
        (Method::Grid, Check::Folds(_)) => (space.combinations() + 1) * searched.len(),
        (Method::Grid, Check::HeldOut(_)) => (space.combinations() + 1) * searched.len() + 2 * held,
        // The searches of the folds share about half of their trials.
        (Method::Sample(trials), Check::Folds(_)) => trials * searched.len() * parts.len().div_ceil(2).max(1),
        (Method::Sample(trials), Check::HeldOut(_)) => trials * searched.len() + 2 * held,
    }
}

struct Search<'a, 'b> {
    space: &'a Space,
    options: &'a TuneOptions,
    table: &'a mut ScoreTable<'b>,
}

impl Search<'_, '_> {
    /// The trials, the default first, and the best of them on these images.
    fn search(&mut self, images: &[usize]) -> Result<(Vec<Trial>, Trial), Error> {
        let candidates = match self.options.method {
            Method::Grid => (0..=self.space.combinations()).collect(),
            Method::Sample(trials) => self.sample(images, trials)?,
        };
        self.table.fill(&candidates, images)?;
        let mut trials = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let score = self.table.mean(candidate, images)?;
            trials.push(Trial { candidate, settings: self.space.settings(candidate), score });
        }
        let best = best_of(self.space, &trials).clone();
        Ok((trials, best))
    }

    fn sample(&mut self, images: &[usize], trials: usize) -> Result<Vec<usize>, Error> {
        let space = self.space;
        let mut candidates = vec![0];
        self.table.fill(&candidates, images)?;
        let table = &mut *self.table;
        let mut evaluate = |places: &[Vec<usize>]| {
            let batch: Vec<usize> = places.iter().map(|place| space.candidate(place)).collect();
            table.fill(&batch, images)?;
            candidates.extend(&batch);
            batch.iter().map(|&candidate| table.mean(candidate, images)).collect()
        };
        // The default is one of the trials.
        let rest = trials.saturating_sub(1);
        search::sample(&axes(space), space.nearest_to_base(), rest, self.options.seed, &mut evaluate)?;
        Ok(candidates)
    }
}

fn axes(space: &Space) -> Vec<Axis> {
    let axis = |parameter: &Parameter| Axis { len: parameter.values.len(), ordered: parameter.is_ordered() };
    space.parameters().iter().map(axis).collect()
}

/// The highest score; of equals the one nearest to the default, then the first.
fn best_of<'a>(space: &Space, trials: &'a [Trial]) -> &'a Trial {
    let top = trials.iter().map(|trial| trial.score).fold(f64::NEG_INFINITY, f64::max);
    let equals = trials.iter().filter(|trial| trial.score >= top - TIE);
    let nearest = equals.min_by(|a, b| {
        let (a, b) = (space.distance(a.candidate), space.distance(b.candidate));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    nearest.unwrap_or(&trials[0])
}

/// The gain over the images that had no part in the choice they are scored with.
fn gain(images: &[ImageScores], seed: u64) -> Result<Option<Gain>, Error> {
    let held: Vec<&ImageScores> = images.iter().filter(|image| image.part.is_some()).collect();
    if held.is_empty() {
        return Ok(None);
    }
    let mean = |of: fn(&ImageScores) -> f64| held.iter().map(|image| of(image)).sum::<f64>() / held.len() as f64;
    let differences: Vec<f64> = held.iter().map(|image| image.tuned - image.default).collect();
    Ok(Some(Gain {
        images: held.len(),
        default: mean(|image| image.default),
        tuned: mean(|image| image.tuned),
        interval: bootstrap_mean(&differences, CONFIDENCE, RESAMPLES, seed)?,
        p: wilcoxon(&differences, &WilcoxonOptions::default())?.p,
    }))
}

fn verdict(best: &Trial, parts: &[Part], gain: Option<&Gain>) -> Verdict {
    if best.candidate == 0 && parts.iter().all(|part| part.choice.candidate == 0) {
        return Verdict::DefaultIsBest;
    }
    match gain {
        None => Verdict::TooFewImages,
        Some(gain) if gain.images < FEWEST_IMAGES => Verdict::TooFewImages,
        Some(gain) if gain.interval.low > 0.0 && gain.p < SIGNIFICANT => Verdict::Real,
        Some(gain) if gain.interval.high < 0.0 => Verdict::Worse,
        Some(_) => Verdict::NotShown,
    }
}

/// Replays the sampler on a grid's scores: how many trials it takes to come within [`NEAR`] of the best.
fn replay(space: &Space, trials: &[Trial], best: &Trial) -> Result<SamplerTrials, Error> {
    let axes = axes(space);
    let mut needed = Vec::new();
    for seed in 0..REPLAYS {
        // Trials of the grid are in the order of their candidates.
        let mut evaluate =
            |places: &[Vec<usize>]| Ok(places.iter().map(|place| trials[space.candidate(place)].score).collect());
        let arrived = |score: f64| score >= best.score - NEAR;
        let all = search::sample(&axes, space.nearest_to_base(), space.combinations(), seed, &mut evaluate)?;
        let first = all.iter().position(|(_, score): &Scored| arrived(*score)).unwrap_or(all.len());
        // The default comes before all others.
        needed.push(if arrived(trials[0].score) { 1 } else { first + 2 });
    }
    needed.sort_unstable();
    Ok(SamplerTrials { median: needed[needed.len() / 2], most: needed[needed.len() - 1] })
}

impl Verdict {
    /// A plain sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Real => "The gain is real: it holds on images that had no part in the choice.",
            Self::NotShown => {
                "The gain is not shown to be real: on images that had no part in the choice it may be chance. Keep the \
                 defaults, or label more images."
            }
            Self::Worse => "The tuned settings are worse on images that had no part in the choice. Keep the defaults.",
            Self::DefaultIsBest => "The defaults are the best of all that was tried. Keep them.",
            Self::TooFewImages => {
                "Too few images to tell whether the gain is real (at least 6 are needed for the check). Keep the defaults, or \
                 label more images."
            }
        }
    }

    /// One word, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::NotShown => "not shown",
            Self::Worse => "worse",
            Self::DefaultIsBest => "default is best",
            Self::TooFewImages => "too few images",
        }
    }
}

/// What a settings file says of its making.
pub fn record(tuning: &Tuning) -> Value {
    let gain = tuning.gain.as_ref().map(|gain| {
        json!({
            "images": gain.images, "default_msa": gain.default, "tuned_msa": gain.tuned,
            "gain": gain.interval.value, "low": gain.interval.low, "high": gain.interval.high, "p": gain.p,
        })
    });
    let (check, value) = match tuning.options.check {
        Check::Folds(_) => ("folds", json!(tuning.parts.len())),
        Check::HeldOut(share) => ("held_out", json!(share)),
    };
    json!({
        "method": if tuning.options.method == Method::Grid { "grid" } else { "sample" },
        "trials": tuning.trials.len(),
        "images": tuning.images.len(),
        check: value,
        "seed": tuning.options.seed,
        "searched": { "default_msa": tuning.default.score, "tuned_msa": tuning.best.score },
        "check": gain,
        "verdict": tuning.verdict.name(),
    })
}

#[cfg(test)]
mod tests;
