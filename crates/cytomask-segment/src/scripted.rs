//! A network that has learnt its answers by heart: discs. For tests of strategies, here and in other crates.
//!
//! [`ScriptedModel`] stands in for a promptable network with an instance decoder. It needs no weights, answers in
//! microseconds, counts its calls and can be told to fail. Crops and tiles work too: [`ScriptedModel::image`] writes each
//! pixel's row and column into its colour, so that `encode` can tell from the first pixel where a crop was taken. An image of
//! constant zero is taken as the whole image.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cytomask_image::{Labels, LogitFrame, LogitMap, Mask, Rect, Rgb};

use crate::model::{BoxPrompt, Candidate, FieldModel, Fields, Prompt, PromptModel, ProposedBox};

/// A disc in the frame of the whole image: the pixels whose centre lies less than `radius` from `(y, x)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disc {
    /// Row of the centre.
    pub y: f32,
    /// Column of the centre.
    pub x: f32,
    /// Radius in pixels.
    pub radius: f32,
}

impl Disc {
    /// Distance of `(y, x)` from the centre.
    pub fn distance(&self, y: f32, x: f32) -> f32 {
        (y - self.y).hypot(x - self.x)
    }

    /// The disc's pixels inside an `[h, w]` image.
    pub fn mask(&self, [h, w]: [u32; 2]) -> Mask {
        let low = |center: f32| (center - self.radius).floor().max(0.0) as u32;
        let high = |center: f32, end: u32| ((center + self.radius).ceil().max(-1.0) + 1.0).min(end as f32) as u32;
        let rect = Rect { y0: low(self.y).min(h), x0: low(self.x).min(w), y1: high(self.y, h), x1: high(self.x, w) };
        Mask::from_fn(rect, |y, x| self.distance(y as f32, x as f32) < self.radius)
    }
}

/// A [`FieldModel`] that knows a list of discs.
///
/// Point prompts find the disc that contains all positive points and no negative one (the one with the nearest centre if there
/// are several), box prompts the disc with the best box overlap, mask prompts the disc under the centre of mass of the
/// positive logits. A box goes before points, points before a mask. A prompt that finds nothing yields a tiny mask of predicted
/// IoU 0.1. With `multimask` the three candidates are the disc, its core of half the radius, and a halo of 1.3 radii.
#[derive(Debug)]
pub struct ScriptedModel {
    /// `[h, w]` of the whole image.
    pub size: [u32; 2],
    /// The discs, in the frame of the whole image.
    pub discs: Vec<Disc>,
    /// Pixels per cell of the logit grid; 1 is image scale, 4 is what SAM has at 1024².
    pub stride: u32,
    /// Logits are `(radius − distance) · sharpness`.
    pub sharpness: f32,
    /// Predicted IoU of the first disc; each further disc has 0.001 less (down to 0.5 below), so that scores differ.
    pub predicted_iou: f32,
    /// `encode` fails once it has been called this many times.
    pub encode_fails_after: Option<usize>,
    /// `decode` fails once it has been called this many times.
    pub decode_fails_after: Option<usize>,
    /// What it was asked so far. Public so that `..ScriptedModel::new(…)` works elsewhere.
    pub calls: Calls,
}

/// How often a [`ScriptedModel`] was asked.
#[derive(Debug, Default)]
pub struct Calls {
    encode: AtomicUsize,
    decode: AtomicUsize,
    fields: AtomicUsize,
    prompts: AtomicUsize,
}

/// Where the encoded crop lies: what a [`ScriptedModel`] has instead of features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScriptedEmbedding {
    /// `[y, x]` of the crop's first pixel in the whole image.
    pub origin: [f32; 2],
    /// `[h, w]` of the crop.
    pub size: [u32; 2],
}

/// The failure a [`ScriptedModel`] was told to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptedError;

impl std::fmt::Display for ScriptedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the scripted model was told to fail")
    }
}

impl std::error::Error for ScriptedError {}

impl ScriptedModel {
    /// A model of an `[h, w]` image with discs `(y, x, radius)`; stride 1, sharpness 20, predicted IoU 0.99.
    pub fn new(size: [u32; 2], discs: &[(f32, f32, f32)]) -> Self {
        Self {
            size,
            discs: discs.iter().map(|&(y, x, radius)| Disc { y, x, radius }).collect(),
            stride: 1,
            sharpness: 20.0,
            predicted_iou: 0.99,
            encode_fails_after: None,
            decode_fails_after: None,
            calls: Calls::default(),
        }
    }

    /// The whole image: red is the row, green the column, blue zero, so that crops know their place.
    pub fn image(&self) -> Rgb {
        let [h, w] = self.size;
        let samples = (0..h).flat_map(|y| (0..w).flat_map(move |x| [y as f32, x as f32, 0.0])).collect();
        Rgb { size: self.size, samples }
    }

    /// Disc `i` as id `i + 1`; where discs overlap, the pixel goes to the disc it lies deepest in, relative to the radius.
    pub fn truth(&self) -> Labels {
        let mut labels = Labels::zeros(self.size);
        let width = self.size[1] as usize;
        for (index, id) in labels.as_mut_slice().iter_mut().enumerate() {
            if let Some((disc, _)) = self.deepest((index / width) as f32, (index % width) as f32) {
                *id = disc as u32 + 1;
            }
        }
        labels
    }

    /// Calls of `encode` so far.
    pub fn encode_calls(&self) -> usize {
        self.calls.encode.load(Ordering::Relaxed)
    }

    /// Calls of `decode` so far.
    pub fn decode_calls(&self) -> usize {
        self.calls.decode.load(Ordering::Relaxed)
    }

    /// Calls of `fields` so far.
    pub fn fields_calls(&self) -> usize {
        self.calls.fields.load(Ordering::Relaxed)
    }

    /// Prompts decoded so far.
    pub fn prompts_decoded(&self) -> usize {
        self.calls.prompts.load(Ordering::Relaxed)
    }

    /// A mask prompt for disc `index`: its logits over the whole image.
    pub fn mask_prompt(&self, index: usize) -> Prompt {
        let whole = ScriptedEmbedding { origin: [0.0, 0.0], size: self.size };
        Prompt { mask: Some(Arc::new(self.logits(&whole, self.discs[index]))), ..Prompt::default() }
    }

    /// The disc `(y, x)` lies deepest in and `distance / radius` there; positions in the frame of the whole image.
    fn deepest(&self, y: f32, x: f32) -> Option<(usize, f32)> {
        let depth = self.discs.iter().map(|disc| disc.distance(y, x) / disc.radius).enumerate();
        depth.filter(|&(_, depth)| depth < 1.0).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn logits(&self, at: &ScriptedEmbedding, disc: Disc) -> LogitMap {
        let stride = self.stride.max(1);
        let grid = at.size.map(|side| side.div_ceil(stride));
        let position = |index: u32, origin: f32| (index as f32 + 0.5) * stride as f32 - 0.5 + origin;
        let mut values = Vec::with_capacity(grid[0] as usize * grid[1] as usize);
        for row in 0..grid[0] {
            for column in 0..grid[1] {
                let distance = disc.distance(position(row, at.origin[0]), position(column, at.origin[1]));
                values.push((disc.radius - distance) * self.sharpness);
            }
        }
        let padded = grid.map(|side| side * stride);
        LogitMap { grid, values, frame: LogitFrame { padded, input: at.size, image: at.size } }
    }

    /// For each disc whose centre the crop shows the right box, and a worse rated one a pixel off; for the first also a box of
    /// half its side that is rated low.
    fn proposed_boxes(&self, at: &ScriptedEmbedding) -> Vec<ProposedBox> {
        let mut boxes = Vec::new();
        for (index, disc) in self.discs.iter().enumerate() {
            let (y, x) = (disc.y - at.origin[0], disc.x - at.origin[1]);
            let last = at.size.map(|side| side as f32 - 1.0);
            if !(0.0..=last[0]).contains(&y) || !(0.0..=last[1]).contains(&x) {
                continue;
            }
            let mut propose = |off: f32, radius: f32, score: f32| {
                let bounds = BoxPrompt {
                    y0: (y + off - radius).ceil().max(0.0),
                    x0: (x + off - radius).ceil().max(0.0),
                    y1: (y + off + radius).floor().min(last[0]),
                    x1: (x + off + radius).floor().min(last[1]),
                };
                boxes.push(ProposedBox { bounds, point: [y.round() as u32, x.round() as u32], score });
            };
            propose(1.0, disc.radius, 0.8);
            propose(0.0, disc.radius, 0.9);
            if index == 0 {
                propose(0.0, 0.5 * disc.radius, 0.2);
            }
        }
        boxes
    }

    /// The disc a prompt means, and a place near the prompt for the mask of a miss.
    fn find(&self, at: &ScriptedEmbedding, prompt: &Prompt) -> (Option<usize>, [f32; 2]) {
        let [oy, ox] = at.origin;
        if let Some(BoxPrompt { y0, x0, y1, x1 }) = prompt.bounds {
            let place = [(y0 + y1) / 2.0 + oy, (x0 + x1) / 2.0 + ox];
            let overlap = |disc: &Disc| {
                let (low, high) =
                    ([disc.y - disc.radius, disc.x - disc.radius], [disc.y + disc.radius, disc.x + disc.radius]);
                let side = |a0: f32, a1: f32, b0: f32, b1: f32| (a1.min(b1) - a0.max(b0)).max(0.0);
                let common = side(y0 + oy, y1 + oy, low[0], high[0]) * side(x0 + ox, x1 + ox, low[1], high[1]);
                common / ((y1 - y0) * (x1 - x0) + 4.0 * disc.radius * disc.radius - common)
            };
            let best = self.discs.iter().map(overlap).enumerate().filter(|&(_, iou)| iou > 0.0);
            return (best.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index), place);
        }
        if let Some(first) = prompt.points.first() {
            let inside = |disc: &Disc| {
                let hits = |y: f32, x: f32| disc.distance(y + oy, x + ox) < disc.radius;
                prompt.points.iter().all(|point| hits(point.y, point.x) == point.positive)
            };
            let place = [first.y + oy, first.x + ox];
            let nearest = self.discs.iter().enumerate().filter(|(_, disc)| inside(disc));
            let distance = |disc: &Disc| disc.distance(place[0], place[1]);
            return (nearest.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).map(|(index, _)| index), place);
        }
        let Some(map) = &prompt.mask else { return (None, [oy, ox]) };
        let [rows, columns] = map.grid;
        let scale = [map.frame.padded[0] as f32 / rows as f32, map.frame.padded[1] as f32 / columns as f32];
        let (mut sum, mut count) = ([0.0_f64; 2], 0.0_f64);
        for (index, _) in map.values.iter().enumerate().filter(|&(_, &logit)| logit > 0.0) {
            sum[0] += (index as u32 / columns) as f64;
            sum[1] += (index as u32 % columns) as f64;
            count += 1.0;
        }
        let mean = |axis: usize| ((sum[axis] / count.max(1.0)) as f32 + 0.5) * scale[axis] - 0.5 + at.origin[axis];
        let place = [mean(0), mean(1)];
        (self.deepest(place[0], place[1]).map(|(index, _)| index), place)
    }
}

/// Counts a call and fails when the script says so.
fn count(calls: &AtomicUsize, fails_after: Option<usize>) -> Result<(), ScriptedError> {
    let before = calls.fetch_add(1, Ordering::Relaxed);
    if fails_after.is_some_and(|limit| before >= limit) { Err(ScriptedError) } else { Ok(()) }
}

impl PromptModel for ScriptedModel {
    type Embedding = ScriptedEmbedding;
    type Error = ScriptedError;

    fn encode(&self, image: &Rgb) -> Result<Self::Embedding, Self::Error> {
        count(&self.calls.encode, self.encode_fails_after)?;
        let origin = [0, 1].map(|channel| image.samples.get(channel).copied().unwrap_or(0.0));
        Ok(ScriptedEmbedding { origin, size: image.size })
    }

    fn decode(
        &self,
        embedding: &Self::Embedding,
        prompts: &[Prompt],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Self::Error> {
        count(&self.calls.decode, self.decode_fails_after)?;
        self.calls.prompts.fetch_add(prompts.len(), Ordering::Relaxed);
        let decode = |prompt: &Prompt| {
            let (found, place) = self.find(embedding, prompt);
            let (disc, predicted_iou) = match found {
                Some(index) => (self.discs[index], self.predicted_iou - (index as f32 * 0.001).min(0.5)),
                None => (Disc { y: place[0], x: place[1], radius: 0.6 }, 0.1),
            };
            let candidate = |scale: f32, loss: f32| Candidate {
                logits: self.logits(embedding, Disc { radius: disc.radius * scale, ..disc }),
                predicted_iou: predicted_iou - loss,
            };
            if multimask {
                vec![candidate(1.0, 0.0), candidate(0.5, 0.5), candidate(1.3, 0.3)]
            } else {
                vec![candidate(1.0, 0.0)]
            }
        };
        Ok(prompts.iter().map(decode).collect())
    }
}

impl FieldModel for ScriptedModel {
    fn fields(&self, embedding: &Self::Embedding) -> Result<Fields, Self::Error> {
        self.calls.fields.fetch_add(1, Ordering::Relaxed);
        let [h, w] = embedding.size;
        let [oy, ox] = embedding.origin;
        let pixels = (0..h).flat_map(|y| (0..w).map(move |x| (y as f32 + oy, x as f32 + ox)));
        // In a disc the distance to the centre and the inverted distance to the boundary, both divided by their largest value
        // in the object, are the same number.
        let depth: Vec<f32> = pixels.map(|(y, x)| self.deepest(y, x).map_or(1.0, |(_, depth)| depth)).collect();
        Ok(Fields {
            size: embedding.size,
            foreground: depth.iter().map(|&depth| if depth < 1.0 { 1.0 } else { 0.0 }).collect(),
            center_distance: depth.clone(),
            boundary_distance: depth,
        })
    }

    fn boxes(&self, embedding: &Self::Embedding) -> Result<Option<Vec<ProposedBox>>, Self::Error> {
        Ok(Some(self.proposed_boxes(embedding)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u32; 2] = [97, 131];

    fn model() -> ScriptedModel {
        ScriptedModel::new(SIZE, &[(20.0, 30.0, 9.5), (60.0, 100.0, 14.5)])
    }

    fn positive(candidate: &Candidate, size: [u32; 2]) -> Mask {
        assert_eq!(candidate.logits.grid, size);
        Mask::from_bools(size, &candidate.logits.values.iter().map(|&logit| logit > 0.0).collect::<Vec<_>>())
    }

    #[test]
    fn every_kind_of_prompt_finds_its_disc() {
        let model = model();
        let at = model.encode(&model.image()).unwrap();
        let bounds = Prompt::bounds(BoxPrompt { y0: 44.0, x0: 87.0, y1: 73.0, x1: 113.0 });
        let prompts = [Prompt::point(25.0, 28.0), bounds, model.mask_prompt(1), Prompt::point(1.0, 1.0)];
        let found = model.decode(&at, &prompts, false).unwrap();
        for (candidates, disc) in found.iter().zip([0, 1, 1]) {
            assert_eq!(positive(&candidates[0], SIZE), model.discs[disc].mask(SIZE));
        }
        assert_eq!(positive(&found[3][0], SIZE).area(), 1, "a miss is a tiny mask");
        assert!(found[3][0].predicted_iou < 0.2);
        assert_eq!((model.encode_calls(), model.decode_calls(), model.prompts_decoded()), (1, 1, 4));
    }

    #[test]
    fn a_crop_knows_its_place() {
        let model = model();
        let image = model.image();
        let (top, left) = (40, 70);
        let size = [SIZE[0] - top, SIZE[1] - left];
        let mut samples = Vec::new();
        for y in top..SIZE[0] {
            let row = (y * SIZE[1] + left) as usize * 3;
            samples.extend_from_slice(&image.samples[row..row + size[1] as usize * 3]);
        }
        let at = model.encode(&Rgb { size, samples }).unwrap();
        let found = model.decode(&at, &[Prompt::point(20.0, 30.0)], true).unwrap();
        assert_eq!(found[0].len(), 3);
        assert_eq!(positive(&found[0][0], size).translate(top, left), model.discs[1].mask(SIZE));
        let fields = model.fields(&at).unwrap();
        assert_eq!(fields.center_distance[20 * size[1] as usize + 30], 0.0);
        assert_eq!(fields.foreground.iter().sum::<f32>() as u64, model.discs[1].mask(SIZE).area());
    }

    #[test]
    fn failures_come_when_told() {
        let model = ScriptedModel { encode_fails_after: Some(1), decode_fails_after: Some(0), ..model() };
        let at = model.encode(&model.image()).unwrap();
        assert_eq!(model.encode(&model.image()), Err(ScriptedError));
        assert!(model.decode(&at, &[], false).is_err());
    }

    #[test]
    fn truth_has_one_id_per_disc() {
        let model = model();
        let areas: Vec<u64> = model.truth().extents().iter().map(|&(area, _)| area).collect();
        assert_eq!(areas, model.discs.iter().map(|disc| disc.mask(SIZE).area()).collect::<Vec<_>>());
    }
}
