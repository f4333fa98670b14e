//! The mSA of candidates on images, computed when first asked for.

use std::collections::BTreeMap;

use cytomask_eval::{contingency, mean_segmentation_accuracy};
use cytomask_image::Labels;
use cytomask_segment::Segmentation;

use super::{LabelledImages, Method, Space, TuneOptions};
use crate::{Error, ErrorKind, Prepared, Segmenter};

/// Scores by image and candidate. An image is encoded when one of its scores is missing; for a sampler, which comes back to it,
/// it is kept while there is room.
pub(super) struct ScoreTable<'a> {
    segmenter: &'a Segmenter,
    space: &'a Space,
    images: &'a dyn LabelledImages,
    options: &'a TuneOptions,
    known: BTreeMap<usize, BTreeMap<usize, f64>>,
    kept: BTreeMap<usize, (Prepared, Labels)>,
    done: usize,
    expected: usize,
    report: Option<&'a mut dyn FnMut(f64)>,
}

impl<'a> ScoreTable<'a> {
    pub(super) fn new(
        segmenter: &'a Segmenter,
        space: &'a Space,
        images: &'a dyn LabelledImages,
        options: &'a TuneOptions,
    ) -> Self {
        let (known, kept) = (BTreeMap::new(), BTreeMap::new());
        Self { segmenter, space, images, options, known, kept, done: 0, expected: 1, report: None }
    }

    /// Tells `report` the share of so many scores that is done.
    pub(super) fn expect_work(&mut self, scores: usize, report: &'a mut dyn FnMut(f64)) {
        self.expected = scores.max(1);
        self.report = Some(report);
    }

    /// Computes what is missing, image by image.
    pub(super) fn fill(&mut self, candidates: &[usize], images: &[usize]) -> Result<(), Error> {
        for &image in images {
            let known = self.known.entry(image).or_default();
            let missing: Vec<usize> =
                candidates.iter().copied().filter(|candidate| !known.contains_key(candidate)).collect();
            if missing.is_empty() {
                continue;
            }
            let (prepared, truth) = match self.kept.remove(&image) {
                Some(kept) => kept,
                None => self.prepare(image)?,
            };
            let scores = self.score(&prepared, &truth, &missing)?;
            self.known.entry(image).or_default().extend(missing.iter().copied().zip(scores));
            if matches!(self.options.method, Method::Sample(_)) {
                self.keep(image, prepared, truth);
            }
            self.done += missing.len();
            let share = (self.done as f64 / self.expected as f64).min(1.0);
            if let Some(report) = &mut self.report {
                report(share);
            }
        }
        Ok(())
    }

    /// Mean score of a candidate over images.
    pub(super) fn mean(&mut self, candidate: usize, images: &[usize]) -> Result<f64, Error> {
        self.fill(&[candidate], images)?;
        let score = |image: &usize| self.known.get(image).and_then(|scores| scores.get(&candidate)).copied();
        let scores: Vec<f64> = images.iter().filter_map(score).collect();
        Ok(scores.iter().sum::<f64>() / scores.len().max(1) as f64)
    }

    fn prepare(&self, image: usize) -> Result<(Prepared, Labels), Error> {
        let (pixels, truth) = self.images.load(image)?;
        if pixels.size != truth.size() {
            let message = format!("labels: expected {:?} as the image has, found {:?}", pixels.size, truth.size());
            return Err(Error::new(ErrorKind::Setting, message));
        }
        Ok((self.segmenter.prepare(pixels, &mut |_| {})?, truth))
    }

    fn score(&self, prepared: &Prepared, truth: &Labels, candidates: &[usize]) -> Result<Vec<f64>, Error> {
        let strategies =
            candidates.iter().map(|&candidate| self.space.strategy(candidate)).collect::<Result<Vec<_>, _>>()?;
        let loosest =
            strategies.iter().map(|strategy| self.space.loosest(strategy.clone())).collect::<Result<Vec<_>, _>>()?;
        prepared.expect(&loosest)?;
        let score = |_, found: Segmentation| -> Result<f64, Error> {
            Ok(mean_segmentation_accuracy(&contingency(truth, &found.labels)?, self.options.both_empty).msa)
        };
        prepared.segment_each(&strategies, &score)?.into_iter().collect()
    }

    fn keep(&mut self, image: usize, prepared: Prepared, truth: Labels) {
        let held: u64 = self.kept.values().map(|(prepared, _)| prepared.memory_bytes()).sum();
        if held + prepared.memory_bytes() <= self.options.memory_bytes {
            self.kept.insert(image, (prepared, truth));
        }
    }
}
