//! The work itself, with what is already done left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cytomask_eval::{BothEmpty, ScoreOptions};
use cytomask_image::{Image, Labels, output};
use cytomask_report::{ComparedImage, Comparison, Method, Scores};
use serde_json::{Value, json};

use super::cases::Case;
use super::records::{Places, Record, Seconds, key};
use crate::{Error, ErrorKind, Segmenter, Selection, Strategy, model_sha256, read_labels};

/// Where a method's labels come from.
pub enum Source {
    /// A model with a strategy, run here.
    Run(Box<Segmenter>),
    /// Label images made elsewhere, one a case, in their order.
    Files(Vec<PathBuf>),
}

/// A method that takes part.
pub struct Contestant {
    /// What it is called; unique.
    pub name: String,
    /// Where its labels come from.
    pub source: Source,
}

/// How images are read and scored.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// Scoring.
    pub score: ScoreOptions,
    /// Which part of every image is segmented.
    pub selection: Selection,
}

/// What [`run`] tells while it works.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// `done` of `total` images times methods.
    Done {
        /// Finished, computed or found.
        done: usize,
        /// All.
        total: usize,
    },
    /// A method failed on an image.
    Failed(&'a Failure),
}

/// A method that could not be scored on an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The image.
    pub case: String,
    /// The method; `None` when the image or its truth cannot be read.
    pub method: Option<String>,
    /// What happened.
    pub message: String,
}

/// What came out.
#[derive(Debug)]
pub struct Results {
    /// The scores of the images on which no method failed.
    pub comparison: Comparison,
    /// Indices of these images among the cases.
    pub kept: Vec<usize>,
    /// For each of them the label file of each method.
    pub labels: Vec<Vec<PathBuf>>,
    /// What failed; those images are left out for all methods, as paired tests need all scores.
    pub failures: Vec<Failure>,
    /// Pairs of image and method computed now.
    pub computed: usize,
    /// Pairs taken from an earlier call.
    pub reused: usize,
}

/// A contestant with what its results depend on.
struct Prepared<'c> {
    contestant: &'c Contestant,
    /// Shown in the report and part of the key.
    record: Value,
    /// Contestants with equal ones can share an encoded image.
    encoder: Option<String>,
}

/// Runs every contestant on every case, or takes what `folder` already holds, and scores all of it.
///
/// # Errors
/// `Setting` for no cases, no contestants, two of one name or a wrong number of files; `Weights` when a model cannot be hashed;
/// `Image` when `folder` cannot be written. What fails on single images is in the results.
pub fn run(
    cases: &[Case],
    contestants: &[Contestant],
    folder: &Path,
    options: &CompareOptions,
    report: &mut dyn FnMut(Step<'_>),
) -> Result<Results, Error> {
    check(cases, contestants)?;
    let prepared = contestants.iter().map(Prepared::new).collect::<Result<Vec<_>, _>>()?;
    let mut results = Results {
        comparison: Comparison {
            methods: prepared
                .iter()
                .map(|own| Method { name: own.contestant.name.clone(), record: own.record.clone() })
                .collect(),
            images: Vec::new(),
        },
        kept: Vec::new(),
        labels: Vec::new(),
        failures: Vec::new(),
        computed: 0,
        reused: 0,
    };
    let total = cases.len() * contestants.len();
    for (index, case) in cases.iter().enumerate() {
        report(Step::Done { done: index * contestants.len(), total });
        let before = results.failures.len();
        let mut work = match Work::new(case, index, folder, options, &prepared) {
            Ok(work) => work,
            Err(error) => {
                results.failures.push(Failure { case: case.name.clone(), method: None, message: error.to_string() });
                report(Step::Failed(&results.failures[before]));
                continue;
            }
        };
        let scores = work.all(&prepared, &mut results, &mut |own| {
            report(Step::Done { done: index * contestants.len() + own, total });
        })?;
        results.failures[before..].iter().for_each(|failure| report(Step::Failed(failure)));
        if let Some(scores) = scores {
            results.comparison.images.push(ComparedImage {
                name: case.name.clone(),
                group: case.group.clone(),
                scores,
            });
            results.kept.push(index);
            results.labels.push(work.label_files(&prepared));
        }
    }
    report(Step::Done { done: total, total });
    Ok(results)
}

fn check(cases: &[Case], contestants: &[Contestant]) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Setting, message));
    if cases.is_empty() || contestants.is_empty() {
        return wrong(format!("expected images and methods, found {} and {}", cases.len(), contestants.len()));
    }
    for (index, contestant) in contestants.iter().enumerate() {
        if contestants[..index].iter().any(|other| other.name == contestant.name) {
            return wrong(format!("two methods are called {:?}; name them NAME=MODEL:STRATEGY", contestant.name));
        }
        if let Source::Files(files) = &contestant.source
            && files.len() != cases.len()
        {
            return wrong(format!("{}: expected {} label files, found {}", contestant.name, cases.len(), files.len()));
        }
    }
    Ok(())
}

impl<'c> Prepared<'c> {
    fn new(contestant: &'c Contestant) -> Result<Self, Error> {
        let Source::Run(segmenter) = &contestant.source else {
            return Ok(Self { contestant, record: json!({ "predictions": "made elsewhere" }), encoder: None });
        };
        let model = segmenter.model();
        // Sides that every model cuts into tiles, so that another choice of tiles is another plan.
        let plan = segmenter.plan([5000, 5003], 1.0)?;
        let encoder = json!({
            "model": {
                "name": model.name(),
                "family": model.family().name(),
                "sha256": model_sha256(model)?,
                "licence": model.licence(),
            },
            "normalization": format!("{:?}", segmenter.chosen_normalization()),
            "scale": model.scale().map(|scale| format!("{scale:?}")),
            "flows": model.flow_predictor().map(|predictor| format!("{:?}", predictor.options)),
            "tiles": plan.first().map_or_else(String::new, |tile| {
                let ([inner_h, inner_w], [h, w]) = (tile.inner.size(), tile.outer.size());
                if plan.len() == 1 { "none".into() } else { format!("{inner_h} × {inner_w} in {h} × {w}") }
            }),
        });
        let mut record = encoder.clone();
        record["strategy"] = json!(segmenter.chosen_strategy().name());
        record["settings"] = segmenter.chosen_strategy().settings();
        Ok(Self { contestant, record, encoder: Some(encoder.to_string()) })
    }
}

/// All that concerns one image.
struct Work<'a> {
    case: &'a Case,
    index: usize,
    options: &'a CompareOptions,
    truth: Option<Labels>,
    image: Option<Image>,
    image_sha256: String,
    truth_sha256: String,
    places: Vec<Places>,
}

impl<'a> Work<'a> {
    fn new(
        case: &'a Case,
        index: usize,
        folder: &Path,
        options: &'a CompareOptions,
        contestants: &[Prepared<'_>],
    ) -> Result<Self, Error> {
        let places = contestants.iter().map(|own| Places::new(folder, &own.contestant.name, &case.name)).collect();
        Ok(Self {
            case,
            index,
            options,
            truth: None,
            image: None,
            image_sha256: cytomask_weights::sha256_file(&case.image)?,
            truth_sha256: cytomask_weights::sha256_file(&case.truth)?,
            places,
        })
    }

    fn label_files(&self, contestants: &[Prepared<'_>]) -> Vec<PathBuf> {
        let file = |(own, places): (&Prepared<'_>, &Places)| match &own.contestant.source {
            Source::Run(_) => places.labels.clone(),
            Source::Files(files) => files[self.index].clone(),
        };
        contestants.iter().zip(&self.places).map(file).collect()
    }

    /// Scores of all contestants in their order; `None` when one failed, which is then among the failures.
    fn all(
        &mut self,
        contestants: &[Prepared<'_>],
        results: &mut Results,
        done: &mut dyn FnMut(usize),
    ) -> Result<Option<Vec<Scores>>, Error> {
        let mut scores: Vec<Option<Scores>> = vec![None; contestants.len()];
        let mut open: Vec<usize> = Vec::new();
        for (at, own) in contestants.iter().enumerate() {
            match self.earlier(at, own) {
                Some(found) => {
                    results.reused += 1;
                    scores[at] = Some(found);
                }
                None => open.push(at),
            }
        }
        let mut finished = contestants.len() - open.len();
        while let Some(&first) = open.first() {
            // All that can share the first one's encoded image.
            let encoder = &contestants[first].encoder;
            let (together, rest): (Vec<usize>, Vec<usize>) = open
                .into_iter()
                .partition(|&at| at == first || (encoder.is_some() && contestants[at].encoder == *encoder));
            open = rest;
            let mut shared = None;
            for at in together {
                match self.one(at, &contestants[at], &mut shared) {
                    Ok(found) => {
                        results.computed += 1;
                        scores[at] = Some(found);
                    }
                    Err(error) => results.failures.push(Failure {
                        case: self.case.name.clone(),
                        method: Some(contestants[at].contestant.name.clone()),
                        message: error.to_string(),
                    }),
                }
                finished += 1;
                done(finished);
            }
        }
        Ok(scores.into_iter().collect())
    }

    fn prediction_key(&self, own: &Prepared<'_>) -> Result<String, Error> {
        Ok(match &own.contestant.source {
            Source::Files(files) => cytomask_weights::sha256_file(&files[self.index])?,
            Source::Run(_) => key(&json!({
                "image": self.image_sha256,
                "selection": format!("{:?}", self.options.selection),
                "method": own.record,
                "version": env!("CARGO_PKG_VERSION"),
            })),
        })
    }

    fn score_key(&self, labels_sha256: &str) -> String {
        key(&json!({
            "labels": labels_sha256,
            "truth": self.truth_sha256,
            "both_empty": match self.options.score.both_empty {
                BothEmpty::One => "one",
                BothEmpty::Zero => "zero",
                BothEmpty::Undefined => "undefined",
            },
            "boundary_tolerance_px": self.options.score.boundary_tolerance_px,
            "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    /// Scores that an earlier call left, if they are of the same image, truth, method and conventions.
    fn earlier(&self, at: usize, own: &Prepared<'_>) -> Option<Scores> {
        let record = Record::read(&self.places[at].record)?;
        let same = record.prediction_key == self.prediction_key(own).ok()?
            && record.score_key == self.score_key(&record.labels_sha256)
            && self.labels_sha256(at, own).ok()? == record.labels_sha256;
        same.then_some(record.scores)
    }

    fn labels_sha256(&self, at: usize, own: &Prepared<'_>) -> Result<String, Error> {
        Ok(match &own.contestant.source {
            Source::Run(_) => cytomask_weights::sha256_file(&self.places[at].labels)?,
            Source::Files(files) => cytomask_weights::sha256_file(&files[self.index])?,
        })
    }

    /// Segments (unless the labels of an earlier call can be kept), scores and records.
    fn one(&mut self, at: usize, own: &Prepared<'_>, shared: &mut Option<Shared>) -> Result<Scores, Error> {
        self.places[at].make_folders()?;
        let prediction_key = self.prediction_key(own)?;
        let earlier = Record::read(&self.places[at].record).filter(|record| {
            record.prediction_key == prediction_key
                && self.labels_sha256(at, own).is_ok_and(|found| found == record.labels_sha256)
        });
        let (labels, seconds) = match (&own.contestant.source, earlier) {
            (Source::Files(files), _) => (read_labels(&files[self.index])?, None),
            (Source::Run(_), Some(record)) => (read_labels(&self.places[at].labels)?, record.seconds),
            (Source::Run(segmenter), None) => {
                let (labels, seconds) = self.segment(segmenter, shared)?;
                output::write_labels_tiff(&self.places[at].labels, &labels)?;
                (labels, Some(seconds))
            }
        };
        if self.truth.is_none() {
            self.truth = Some(read_labels(&self.case.truth)?);
        }
        let truth = self.truth.as_ref().ok_or_else(|| Error::new(ErrorKind::Image, "no truth"))?;
        let found = cytomask_eval::score(truth, &labels, &self.options.score)
            .map_err(|error| Error::new(ErrorKind::Image, format!("{}: {error}", self.case.truth.display())))?;
        let scores = Scores { seconds: seconds.map(Seconds::total), ..Scores::from(&found) };
        let labels_sha256 = self.labels_sha256(at, own)?;
        let score_key = self.score_key(&labels_sha256);
        let record = Record { prediction_key, score_key, labels_sha256, seconds, scores };
        record.write(&self.places[at].record)?;
        // As a later call will read them: JSON may change the last bit of a number, and reports must not differ by that.
        Ok(Record::read(&self.places[at].record).unwrap_or(record).scores)
    }

    fn segment(&mut self, segmenter: &Segmenter, shared: &mut Option<Shared>) -> Result<(Labels, Seconds), Error> {
        if self.image.is_none() {
            self.image = Some(self.options.selection.read(&self.case.image)?.image);
        }
        let image = self.image.as_ref().ok_or_else(|| Error::new(ErrorKind::Image, "no image"))?;
        if shared.is_none() {
            let start = Instant::now();
            let rgb = image.to_rgb(segmenter.chosen_normalization())?;
            *shared = Some(Shared {
                prepared: crate::Prepared::new(segmenter, Arc::new(rgb)),
                conversion: start.elapsed().as_secs_f64(),
                made: [None; 2],
            });
        }
        let shared = shared.as_mut().ok_or_else(|| Error::new(ErrorKind::Model, "no prepared image"))?;
        let strategy = segmenter.chosen_strategy();
        let [encoder, decoder_maps] = shared.make(strategy)?;
        let start = Instant::now();
        let found = shared.prepared.segment(strategy, &mut |_| {})?;
        Ok((found.labels, Seconds { encoder, decoder_maps, strategy: start.elapsed().as_secs_f64() }))
    }
}

/// What the strategies of one model share of an image, with the seconds that making it took.
struct Shared {
    prepared: crate::Prepared,
    conversion: f64,
    /// Of what is seen at one scale, and at several: encoding; decoder maps, once made.
    made: [Option<(f64, Option<f64>)>; 2],
}

impl Shared {
    /// Makes what the strategy will then find made, and says how long that took when it was made: conversion and encoding; decoder maps.
    fn make(&mut self, strategy: &Strategy) -> Result<[f64; 2], Error> {
        let made = &mut self.made[usize::from(self.prepared.is_seen_at_several_scales(strategy))];
        let start = Instant::now();
        let seen = self.prepared.seen_by(strategy, &mut |_| {})?;
        let (encoder, decoder_maps) = made.get_or_insert_with(|| (start.elapsed().as_secs_f64(), None));
        let encoder = self.conversion + *encoder;
        if !matches!(strategy, Strategy::Ais(_) | Strategy::Apg(_)) {
            return Ok([encoder, 0.0]);
        }
        let start = Instant::now();
        for scale in seen {
            let encoded = scale.encoded()?;
            encoded.tiles.iter().try_for_each(|features| features.fields(&encoded.model).map(|_| ()))?;
        }
        Ok([encoder, *decoder_maps.get_or_insert_with(|| start.elapsed().as_secs_f64())])
    }
}
