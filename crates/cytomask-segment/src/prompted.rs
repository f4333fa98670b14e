//! Objects for prompts given by the user: points, boxes, masks, one object each.
//!
//! Of the masks a network proposes for a prompt the one with the highest predicted IoU is taken; where the masks of two prompts
//! overlap, the pixel goes to the higher score (predicted IoU × stability), of equal scores to the earlier prompt. µSAM's
//! `batched_inference` gives it to the larger mask instead. Objects keep to their prompts: a mask cut in two by another stays one
//! object, and a prompt whose mask is empty or fully covered yields none.

use cytomask_image::{Labels, Mask, Rgb, Tile};
use rayon::prelude::*;

use crate::model::{Candidate, Prompt, PromptModel};
use crate::ops::stability::stability_and_mask;
use crate::segmentation::{ObjectOrigin, Segmentation};
use crate::stitch::Found;

/// How far the mask threshold moves up and down for the stability, in logits, as in SAM.
const STABILITY_SCORE_OFFSET: f32 = 1.0;

/// Settings for given prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompted {
    /// Whether three masks are proposed per prompt, of which the best is taken; SAM advises it for single points, which are
    /// ambiguous. µSAM: off.
    pub multimask: bool,
    /// A logit above this is inside. SAM: 0.
    pub mask_threshold: f32,
    /// Prompts decoded together. µSAM: 32.
    pub batch_size: usize,
}

impl Default for Prompted {
    fn default() -> Self {
        Self { multimask: false, mask_threshold: 0.0, batch_size: 32 }
    }
}

/// What can go wrong in a strategy that is given prompts.
#[derive(Debug)]
#[non_exhaustive]
pub enum StrategyError<E> {
    /// The network reports an error.
    Model(E),
    /// A prompt cannot be used.
    Prompt {
        /// Which prompt, counted from 0.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl<E: std::fmt::Display> std::fmt::Display for StrategyError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Prompt { index, message } => write!(f, "prompt {index}: {message}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for StrategyError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Model(error) => error.source(),
            Self::Prompt { .. } => None,
        }
    }
}

/// The mask taken for one prompt.
struct Answer {
    mask: Mask,
    predicted_iou: f32,
    stability_score: f32,
}

impl Answer {
    fn score(&self) -> f32 {
        self.predicted_iou * self.stability_score
    }

    fn origin(&self, prompt: &Prompt) -> ObjectOrigin {
        ObjectOrigin {
            score: self.score(),
            predicted_iou: Some(self.predicted_iou),
            stability_score: Some(self.stability_score),
            prompt: prompt.points.iter().find(|point| point.positive).map(|point| [point.y, point.x]),
            cut: false,
        }
    }
}

impl Prompted {
    /// Segments what the prompts mark. Positions are in the frame of `image`. Ids follow the order of the prompts, without gaps:
    /// a prompt that yields no pixel gets no id. `progress` is called with the prompts done and their total.
    ///
    /// # Errors
    /// `Prompt` when a prompt is empty, not finite or outside the image; `Model` with what the network reports.
    pub fn run<M: PromptModel>(
        &self,
        model: &M,
        image: &Rgb,
        prompts: &[Prompt],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Segmentation, StrategyError<M::Error>> {
        for (index, prompt) in prompts.iter().enumerate() {
            check(prompt, image.size).map_err(|message| StrategyError::Prompt { index, message })?;
        }
        if prompts.is_empty() {
            return Ok(Segmentation::empty(image.size));
        }
        let embedding = model.encode(image).map_err(StrategyError::Model)?;
        self.run_encoded(model, &embedding, image.size, prompts, progress)
    }

    /// As [`Prompted::run`], for an image of `[h, w]` that is encoded already.
    ///
    /// # Errors
    /// As [`Prompted::run`].
    pub fn run_encoded<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        size: [u32; 2],
        prompts: &[Prompt],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Segmentation, StrategyError<M::Error>> {
        for (index, prompt) in prompts.iter().enumerate() {
            check(prompt, size).map_err(|message| StrategyError::Prompt { index, message })?;
        }
        let mut answers: Vec<Answer> = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(self.batch_size.max(1)) {
            let candidates = model.decode(embedding, batch, self.multimask).map_err(StrategyError::Model)?;
            answers.par_extend(candidates.into_par_iter().map(|of_prompt| self.best(of_prompt)));
            progress(answers.len(), prompts.len());
        }
        Ok(merge(size, prompts, &answers))
    }

    /// Looks at all prompts of an image of `size` before any work.
    ///
    /// # Errors
    /// Which prompt cannot be used, and why.
    pub fn check(prompts: &[Prompt], size: [u32; 2]) -> Result<(), (usize, String)> {
        prompts
            .iter()
            .enumerate()
            .try_for_each(|(index, prompt)| check(prompt, size).map_err(|message| (index, message)))
    }

    /// The tile that owns a prompt is the one whose inner part holds this `[y, x]`: the first positive point, else the first point,
    /// else the middle of the box, inside an image of `[h, w]`. `None` for a prompt of a mask alone.
    pub fn anchor(prompt: &Prompt, [h, w]: [u32; 2]) -> Option<[u32; 2]> {
        let point = prompt.points.iter().find(|point| point.positive).or(prompt.points.first());
        let [y, x] = match (point, prompt.bounds) {
            (Some(point), _) => [point.y, point.x],
            (None, Some(bounds)) => [(bounds.y0 + bounds.y1) / 2.0, (bounds.x0 + bounds.x1) / 2.0],
            (None, None) => return None,
        };
        Some([
            (y.round().max(0.0) as u32).min(h.saturating_sub(1)),
            (x.round().max(0.0) as u32).min(w.saturating_sub(1)),
        ])
    }

    /// One object for each prompt that a tile owns, in the image's frame; `chosen` are their indices among `prompts`, which are in
    /// the image's frame too.
    ///
    /// # Errors
    /// What the network reports.
    pub fn tile<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        tile: &Tile,
        prompts: &[Prompt],
        chosen: &[usize],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Found>, M::Error> {
        let (dy, dx) = (tile.outer.y0, tile.outer.x0);
        let whole_image = [u32::MAX; 2];
        let mut found = Vec::with_capacity(chosen.len());
        for batch in chosen.chunks(self.batch_size.max(1)) {
            let moved: Vec<Prompt> = batch.iter().map(|&index| moved(&prompts[index], dy as f32, dx as f32)).collect();
            let candidates = model.decode(embedding, &moved, self.multimask)?;
            let answers: Vec<Answer> = candidates.into_par_iter().map(|of_prompt| self.best(of_prompt)).collect();
            found.extend(answers.into_iter().zip(batch).map(|(answer, &index)| Found {
                grown: None,
                origin: answer.origin(&prompts[index]),
                mask: answer.mask.translate(dy, dx),
                anchor: Self::anchor(&prompts[index], whole_image).unwrap_or_default(),
                prompt: index,
                tile: *tile,
            }));
            progress(found.len(), chosen.len());
        }
        Ok(found)
    }

    /// The image of `size` from the objects of all its tiles, painted as [`Prompted::run`] paints.
    pub fn paint_found(&self, size: [u32; 2], found: &[Found]) -> Segmentation {
        let mut order: Vec<&Found> = found.iter().collect();
        order.sort_by(|a, b| b.origin.score.total_cmp(&a.origin.score).then(a.prompt.cmp(&b.prompt)));
        let mut labels = Labels::zeros(size);
        for object in order {
            labels.paint_where_empty(&object.mask, object.prompt as u32 + 1);
        }
        let of_prompt = |id: u32| found.iter().find(|object| object.prompt as u32 + 1 == id);
        Segmentation::from_labels(labels, |id| of_prompt(id).map_or_else(ObjectOrigin::default, |object| object.origin))
    }

    /// The candidate with the highest predicted IoU, the first of equals.
    fn best(&self, candidates: Vec<Candidate>) -> Answer {
        let best = candidates.into_iter().reduce(|a, b| if b.predicted_iou > a.predicted_iou { b } else { a });
        match best {
            Some(Candidate { logits, predicted_iou }) => {
                let (mask, stability_score) = stability_and_mask(&logits, self.mask_threshold, STABILITY_SCORE_OFFSET);
                Answer { mask, predicted_iou, stability_score }
            }
            None => Answer { mask: Mask::default(), predicted_iou: 0.0, stability_score: 0.0 },
        }
    }
}

/// Paints the answers from the highest score down, each where nothing is painted yet.
fn merge(size: [u32; 2], prompts: &[Prompt], answers: &[Answer]) -> Segmentation {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    order.sort_by(|&a, &b| answers[b].score().total_cmp(&answers[a].score()));
    let mut labels = Labels::zeros(size);
    for index in order {
        labels.paint_where_empty(&answers[index].mask, index as u32 + 1);
    }
    Segmentation::from_labels(labels, |id| answers[id as usize - 1].origin(&prompts[id as usize - 1]))
}

/// The same prompt in a frame whose origin lies `dy` rows below and `dx` columns to the right.
fn moved(prompt: &Prompt, dy: f32, dx: f32) -> Prompt {
    let mut moved = prompt.clone();
    for point in &mut moved.points {
        (point.y, point.x) = (point.y - dy, point.x - dx);
    }
    if let Some(bounds) = &mut moved.bounds {
        (bounds.y0, bounds.x0, bounds.y1, bounds.x1) = (bounds.y0 - dy, bounds.x0 - dx, bounds.y1 - dy, bounds.x1 - dx);
    }
    moved
}

/// Whether a prompt can be used on an image of `[h, w]`; what is wrong if not.
fn check(prompt: &Prompt, [h, w]: [u32; 2]) -> Result<(), String> {
    if prompt.points.is_empty() && prompt.bounds.is_none() && prompt.mask.is_none() {
        return Err("expected a point, a box or a mask, found none".to_owned());
    }
    let (height, width) = (h as f32, w as f32);
    for point in &prompt.points {
        // Not `<`: NaN must fail too. Half a pixel around the centres of the border pixels still belongs to the image.
        if !((-0.5..height).contains(&point.y) && (-0.5..width).contains(&point.x)) {
            return Err(format!("expected a point inside the {h} × {w} image, found y {}, x {}", point.y, point.x));
        }
    }
    if let Some(bounds) = prompt.bounds {
        let crate::model::BoxPrompt { y0, x0, y1, x1 } = bounds;
        let found = format!("found y {y0} to {y1}, x {x0} to {x1}");
        if ![y0, x0, y1, x1].iter().all(|side| side.is_finite()) || y0 > y1 || x0 > x1 {
            return Err(format!("expected a box whose first corner is its top left, {found}"));
        }
        if y1 < 0.0 || x1 < 0.0 || y0 >= height || x0 >= width {
            return Err(format!("expected a box that meets the {h} × {w} image, {found}"));
        }
    }
    if let Some(mask) = &prompt.mask {
        if mask.frame.image != [h, w] {
            let [found_h, found_w] = mask.frame.image;
            return Err(format!("expected mask logits of the {h} × {w} image, found those of {found_h} × {found_w}"));
        }
        let expected = mask.grid[0] as usize * mask.grid[1] as usize;
        if mask.values.len() != expected {
            return Err(format!("mask logits: expected {expected} for {:?}, found {}", mask.grid, mask.values.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BoxPrompt, PointPrompt};
    use crate::scripted::ScriptedModel;

    const SIZE: [u32; 2] = [97, 131];

    fn quiet(_: usize, _: usize) {}

    fn model() -> ScriptedModel {
        ScriptedModel::new(SIZE, &[(20.3, 30.2, 12.0), (70.2, 100.3, 20.0), (70.1, 75.3, 12.0)])
    }

    #[test]
    fn one_object_per_prompt_in_their_order() {
        let model = model();
        let bounds = BoxPrompt { y0: 8.0, x0: 18.0, y1: 32.0, x1: 42.0 };
        let prompts = [Prompt::point(70.0, 110.0), Prompt::bounds(bounds), model.mask_prompt(2)];
        let mut calls = Vec::new();
        let strategy = Prompted { batch_size: 2, ..Prompted::default() };
        let found =
            strategy.run(&model, &model.image(), &prompts, &mut |done, total| calls.push((done, total))).unwrap();
        assert_eq!(calls, [(2, 3), (3, 3)]);
        let areas: Vec<u64> = found.objects.iter().map(|object| object.area_px).collect();
        let discs: Vec<u64> = model.discs.iter().map(|disc| disc.mask(SIZE).area()).collect();
        // Discs 1 and 2 overlap; 1 has the higher score and keeps the common pixels.
        assert_eq!(areas[..2], [discs[1], discs[0]]);
        assert!(areas[2] < discs[2]);
        assert_eq!(found.objects[0].prompt, Some([70.0, 110.0]));
        assert_eq!((found.objects[1].prompt, found.objects[2].prompt), (None, None));
        assert_eq!(found.objects[1].predicted_iou, Some(0.99));
    }

    #[test]
    fn the_higher_score_wins_and_a_covered_prompt_gets_no_id() {
        // A small disc inside a large one; the first disc has the higher score.
        let run = |discs: &[(f32, f32, f32)], prompts: &[Prompt]| {
            // So sharp that stability hardly differs and the predicted IoU decides.
            let model = ScriptedModel { sharpness: 1000.0, ..ScriptedModel::new(SIZE, discs) };
            let found = Prompted::default().run(&model, &model.image(), prompts, &mut quiet).unwrap();
            found.objects.iter().map(|object| object.area_px).collect::<Vec<_>>()
        };
        let (small, large) = ((50.0, 60.0, 8.3), (50.0, 60.0, 30.3));
        let bounds = |r: f32| Prompt::bounds(BoxPrompt { y0: 50.0 - r, x0: 60.0 - r, y1: 50.0 + r, x1: 60.0 + r });
        let both = run(&[small, large], &[bounds(30.0), bounds(8.0)]);
        assert_eq!(both.len(), 2);
        assert_eq!(run(&[large, small], &[bounds(30.0), bounds(8.0)]).len(), 1);
    }

    #[test]
    fn multimask_takes_the_best_of_three() {
        let model = model();
        let strategy = Prompted { multimask: true, ..Prompted::default() };
        let found = strategy.run(&model, &model.image(), &[Prompt::point(20.0, 30.0)], &mut quiet).unwrap();
        assert_eq!(found.objects[0].area_px, model.discs[0].mask(SIZE).area());
    }

    #[test]
    fn prompts_that_cannot_be_used_are_named() {
        let model = model();
        let message = |prompt: Prompt| {
            let prompts = [Prompt::point(1.0, 1.0), prompt];
            Prompted::default().run(&model, &model.image(), &prompts, &mut quiet).unwrap_err().to_string()
        };
        assert_eq!(message(Prompt::default()), "prompt 1: expected a point, a box or a mask, found none");
        assert_eq!(
            message(Prompt::point(97.0, 3.0)),
            "prompt 1: expected a point inside the 97 × 131 image, found y 97, x 3"
        );
        assert!(message(Prompt::point(f32::NAN, 3.0)).contains("found y NaN"));
        let bounds = |y0, x0, y1, x1| message(Prompt::bounds(BoxPrompt { y0, x0, y1, x1 }));
        assert!(bounds(9.0, 9.0, 3.0, 20.0).contains("top left"));
        assert!(bounds(200.0, 9.0, 203.0, 20.0).contains("meets the 97 × 131 image"));
        let mut small = ScriptedModel::new([5, 5], &[(2.0, 2.0, 2.0)]);
        small.stride = 1;
        assert!(message(small.mask_prompt(0)).contains("found those of 5 × 5"));
        assert_eq!(model.encode_calls(), 0, "checked before any work");
    }

    #[test]
    fn negative_points_and_failures() {
        let mut model = model();
        let negative = PointPrompt { y: 70.0, x: 110.0, positive: false };
        // (70, 84) lies in both overlapping discs; the negative point excludes the larger.
        let prompt =
            Prompt { points: vec![PointPrompt { y: 70.0, x: 84.0, positive: true }, negative], ..Prompt::default() };
        let found = Prompted::default().run(&model, &model.image(), &[prompt], &mut quiet).unwrap();
        assert_eq!(found.objects[0].area_px, model.discs[2].mask(SIZE).area());
        model.decode_fails_after = Some(0);
        let error =
            Prompted::default().run(&model, &model.image(), &[Prompt::point(1.0, 1.0)], &mut quiet).unwrap_err();
        assert!(matches!(error, StrategyError::Model(_)));
        assert!(Prompted::default().run(&model, &model.image(), &[], &mut quiet).unwrap().objects.is_empty());
    }
}
