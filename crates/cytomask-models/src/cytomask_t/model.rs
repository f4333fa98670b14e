//! The joiner: encoder, prompt encoder, mask decoder, instance decoder, mask refiner and box decoder as one promptable network.

use std::sync::OnceLock;

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData, activation::sigmoid},
};
use cytomask_image::{LogitFrame, LogitMap, Rgb};
use cytomask_segment::object_size::object_areas;
use cytomask_segment::{BoxPrompt, Candidate, FieldModel, Fields, PointPrompt, Prompt, PromptModel, ProposedBox};

use super::{
    box_decoder::{BoxDecoder, BoxTaps, proposed_boxes},
    config::{CytomaskTConfig, CytomaskTOptions, PIXEL_MEAN, PIXEL_STD},
    instance_decoder::InstanceDecoder,
    mask_refiner::MaskRefiner,
    scale::{ScaleChoice, automatic_scale},
    window::{Window, window_for},
};
use crate::{
    batches::each_batch,
    error::{Error, ErrorKind},
    loading::{TensorSource, load_into, values},
    sam::{MaskDecoder, MaskDecoderConfig, PreparedImage, PromptEncoder, PromptEncoderConfig},
    tiny_vit::{TinyVit, TinyVitConfig, UNUSED_PREFIXES},
};

/// Coordinates are divided by this, whatever the input size: height and width in input pixels.
const COORDINATE_EXTENT: [f32; 2] = [1024.0; 2];

/// Pixels from one token of the embedding to the next.
const EMBEDDING_STRIDE: usize = 16;

/// Refined mask logits along the side of one token.
const REFINED: usize = 8;

/// The logit of pixels outside the window a prompt is decoded in: surely not the object.
const OUTSIDE: f32 = -32.0;

/// The compact default model. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct CytomaskT {
    /// TinyViT.
    pub image_encoder: TinyVit,
    /// SAM's.
    pub prompt_encoder: PromptEncoder,
    /// SAM's.
    pub mask_decoder: MaskDecoder,
    /// The three maps.
    pub instance_decoder: InstanceDecoder,
    /// Masks at stride 2.
    pub mask_refiner: MaskRefiner,
    /// Boxes of objects; models of earlier versions have none.
    pub box_decoder: Option<BoxDecoder>,
    #[module(skip)]
    options: CytomaskTOptions,
}

/// Everything that is computed once for an image.
#[derive(Clone, Debug)]
pub struct CytomaskTEmbedding {
    /// `[1, 256, H / 16, W / 16]` of the padded input.
    pub features: Tensor<4>,
    /// `[1, 256, H / 16, W / 16]`, where the features lie, for the mask decoder.
    pub positions: Tensor<4>,
    /// `[1, C, H / 2, W / 2]`, what the mask refiner weighs.
    pub refiner_features: Tensor<4>,
    /// `[1, 3, H, W]`, 0–1.
    pub maps: Tensor<4>,
    /// What the box decoder starts from; it runs when it is asked.
    pub box_taps: BoxTaps,
    /// Where the padded input lies over the image.
    pub frame: LogitFrame,
    /// For prompts without masks; computed with the first of them.
    prepared: OnceLock<PreparedImage>,
}

impl CytomaskT {
    /// Placeholder values; see [`CytomaskT::load`].
    pub fn new(config: &CytomaskTConfig, device: &Device) -> Self {
        Self {
            image_encoder: TinyVit::new(&config.encoder, device),
            prompt_encoder: PromptEncoder::new(&PromptEncoderConfig::SAM, device),
            mask_decoder: MaskDecoder::new(&MaskDecoderConfig::SAM, device),
            instance_decoder: InstanceDecoder::new(config, device),
            mask_refiner: MaskRefiner::new(config, device),
            box_decoder: Some(BoxDecoder::new(config, device)),
            options: CytomaskTOptions::default(),
        }
    }

    /// Reads all tensors. MobileSAM's classifier may be present and is left out; a box decoder may be absent.
    ///
    /// # Errors
    /// `MissingTensor` or `Shape` for the first tensor that is absent or does not fit, `Format` for one that has no place.
    pub fn load(config: &CytomaskTConfig, source: &dyn TensorSource, device: &Device) -> Result<Self, Error> {
        let mut network = Self::new(config, device);
        if !source.names().iter().any(|name| name.starts_with("box_decoder.")) {
            network.box_decoder = None;
        }
        let loaded = load_into(network, source, "")?;
        let classifier = |name: &str| {
            name.strip_prefix("image_encoder.")
                .is_some_and(|name| UNUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        };
        match loaded.unused.iter().find(|name| !classifier(name)) {
            Some(name) => Err(Error::new(ErrorKind::Format, format!("tensor `{name}` has no place in cytomask-t"))),
            None => Ok(loaded.module),
        }
    }

    /// With other options.
    #[must_use]
    pub fn with_options(mut self, options: CytomaskTOptions) -> Self {
        self.options = options;
        self
    }

    /// The options in use.
    pub fn options(&self) -> &CytomaskTOptions {
        &self.options
    }

    /// The scale [`ScaleChoice::Auto`] takes for an image, and the embedding at 1× that was computed to find out. Callers that
    /// tile ask once for the whole image (or a part of it) and encode every tile at that scale.
    ///
    /// # Errors
    /// As [`CytomaskT::encode_at`].
    pub fn automatic_scale(&self, image: &Rgb) -> Result<(f32, CytomaskTEmbedding), Error> {
        let embedding = self.encode_at(image, 1.0)?;
        let scale = automatic_scale(&object_areas(&self.fields(&embedding)?));
        Ok((scale, embedding))
    }

    /// Encodes an image at a scale of its own.
    ///
    /// # Errors
    /// `Value` when the scale is not a positive number, `Shape` when the image has no pixels or not as many samples as its size
    /// says, `Unsupported` when it is larger than [`CytomaskTOptions::max_side`] at that scale.
    pub fn encode_at(&self, image: &Rgb, scale: f32) -> Result<CytomaskTEmbedding, Error> {
        let input = self.input_size(image, scale)?;
        let multiple = TinyVitConfig::INPUT_MULTIPLE as u32;
        let padded = input.map(|side| side.next_multiple_of(multiple));
        let pixels = if input == image.size {
            image.normalize_and_pad(padded, PIXEL_MEAN, PIXEL_STD)
        } else {
            image.resize(input).normalize_and_pad(padded, PIXEL_MEAN, PIXEL_STD)
        };
        let shape = [1, 3, padded[0] as usize, padded[1] as usize];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), &self.device());
        self.encode_tensor(pixels, LogitFrame { padded, input, image: image.size })
    }

    /// Encodes a normalised, padded input.
    ///
    /// # Shapes
    /// `pixels` `[1, 3, H, W]`, `H` and `W` multiples of 32 and equal to `frame.padded`
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub fn encode_tensor(&self, pixels: Tensor<4>, frame: LogitFrame) -> Result<CytomaskTEmbedding, Error> {
        let taps = self.image_encoder.forward_with_taps(pixels.clone())?;
        let decoded = self.instance_decoder.forward(&taps, pixels);
        let box_taps = BoxTaps::new(&taps, &decoded.f4);
        let refiner_features = self.mask_refiner.features(decoded.f4, decoded.f2);
        let [_, _, h, w] = taps.embedding.dims();
        Ok(CytomaskTEmbedding {
            features: taps.embedding,
            positions: self.prompt_encoder.dense_positions([h, w], EMBEDDING_STRIDE, COORDINATE_EXTENT),
            refiner_features,
            maps: sigmoid(decoded.map_logits),
            box_taps,
            frame,
            prepared: OnceLock::new(),
        })
    }

    /// Decodes prompts of one form (see [`PromptEncoder::sparse`]), each in its window of the embedding; windows are of one size, and
    /// equal ones follow each other. `inputs` are `prompts` in pixels of the network's input.
    fn decode_batch(
        &self,
        embedding: &CytomaskTEmbedding,
        windows: &[Window],
        inputs: &[Prompt],
        masks: &[Option<&LogitMap>],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        let Window { h, w, .. } = windows[0];
        let part = |tensor: &Tensor<4>, scale: usize, window: &Window| {
            tensor.clone().narrow(2, scale * window.y, scale * h).narrow(3, scale * window.x, scale * w)
        };
        let sparse = self.prompt_encoder.sparse(inputs, COORDINATE_EXTENT)?;
        let (image, image_of) = match masks.iter().copied().collect::<Option<Vec<_>>>() {
            Some(masks) => {
                let all = self.mask_logits(&masks, &embedding.frame)?;
                let of_each = |(index, window)| part(&all.clone().narrow(0, index, 1), 4, window);
                let dense =
                    self.prompt_encoder.masks(Tensor::cat(windows.iter().enumerate().map(of_each).collect(), 0));
                let of_each = |map| Tensor::cat(windows.iter().map(|window| part(map, 1, window)).collect(), 0);
                let [features, positions] = [of_each(&embedding.features), of_each(&embedding.positions)];
                (self.mask_decoder.prepare(features, positions, dense), (0..inputs.len()).collect())
            }
            None => {
                let mut distinct = windows.to_vec();
                distinct.dedup();
                let image_of = windows.iter().scan(0, |index, window| {
                    *index += usize::from(distinct[*index] != *window);
                    Some(*index)
                });
                let starts: Vec<[usize; 2]> = distinct.iter().map(|window| [window.y, window.x]).collect();
                (self.prepared(embedding).windows(&starts, [h, w]), image_of.collect::<Vec<usize>>())
            }
        };
        let all = self.mask_decoder.output_hypernetworks_mlps.len();
        let decoded = self.mask_decoder.decode(&image, &image_of, sparse, if multimask { 1..all } else { 0..1 });
        let mut first = 0;
        let refined = windows.chunk_by(|a, b| a == b).map(|run| {
            let of_run = first..first + run.len();
            first = of_run.end;
            self.mask_refiner.refine(
                part(&embedding.refiner_features, REFINED, &run[0]),
                decoded.logits.clone().slice_dim(0, of_run.clone()),
                decoded.mask_tokens.clone().slice_dim(0, of_run),
            )
        });
        let logits = Tensor::cat(refined.collect(), 0);
        let [_, masks, part_h, part_w] = logits.dims();
        let scores = values(decoded.predicted_iou);
        let grid = embedding.frame.padded.map(|side| side as usize / (EMBEDDING_STRIDE / REFINED));
        let whole = |part: &[f32], window: &Window| {
            if [part_h, part_w] == grid {
                return part.to_vec();
            }
            // Nothing is known outside the window, and the object does not reach there.
            let mut all = vec![OUTSIDE; grid[0] * grid[1]];
            for (row, values) in part.chunks_exact(part_w).enumerate() {
                let start = (REFINED * window.y + row) * grid[1] + REFINED * window.x;
                all[start..start + part_w].copy_from_slice(values);
            }
            all
        };
        let candidates: Vec<Candidate> = values(logits)
            .chunks_exact(part_h * part_w)
            .zip(scores)
            .enumerate()
            .map(|(index, (values, predicted_iou))| Candidate {
                logits: LogitMap {
                    grid: grid.map(|side| side as u32),
                    values: whole(values, &windows[index / masks]),
                    frame: embedding.frame,
                },
                predicted_iou,
            })
            .collect();
        Ok(candidates.chunks_exact(masks).map(<[Candidate]>::to_vec).collect())
    }

    /// What prompts without masks share.
    fn prepared<'a>(&self, embedding: &'a CytomaskTEmbedding) -> &'a PreparedImage {
        embedding.prepared.get_or_init(|| {
            let (features, positions) = (embedding.features.clone(), embedding.positions.clone());
            self.mask_decoder.prepare(features, positions, self.prompt_encoder.no_mask())
        })
    }

    /// Mask prompts at stride 4, `[B, 1, H / 4, W / 4]`. Logits at stride 2, as this network gives them, are averaged.
    fn mask_logits(&self, masks: &[&LogitMap], frame: &LogitFrame) -> Result<Tensor<4>, Error> {
        let coarse = frame.padded.map(|side| side / 4);
        let fine = frame.padded.map(|side| side / 2);
        let mut rows = Vec::with_capacity(masks.len() * (coarse[0] * coarse[1]) as usize);
        for mask in masks {
            let fits = mask.values.len() as u64 == u64::from(mask.grid[0]) * u64::from(mask.grid[1]);
            if mask.frame != *frame || !fits || (mask.grid != coarse && mask.grid != fine) {
                let expected = format_args!("logits of this embedding on a grid of {fine:?} or {coarse:?}").to_string();
                let found = format!("grid {:?}, {} values, {:?}", mask.grid, mask.values.len(), mask.frame);
                return Err(Error::new(ErrorKind::Shape, format!("mask prompt: expected {expected}, found {found}")));
            }
            if mask.grid == coarse {
                rows.extend_from_slice(&mask.values);
            } else {
                let width = fine[1] as usize;
                for pair in mask.values.chunks_exact(2 * width) {
                    let (upper, lower) = pair.split_at(width);
                    let cells = upper.chunks_exact(2).zip(lower.chunks_exact(2));
                    rows.extend(cells.map(|(upper, lower)| (upper[0] + upper[1] + lower[0] + lower[1]) / 4.0));
                }
            }
        }
        let shape = [masks.len(), 1, coarse[0] as usize, coarse[1] as usize];
        Ok(Tensor::from_data(TensorData::new(rows, shape), &self.device()))
    }

    /// `[h, w]` of an image at a scale.
    fn input_size(&self, image: &Rgb, scale: f32) -> Result<[u32; 2], Error> {
        let pixels = u64::from(image.size[0]) * u64::from(image.size[1]);
        if pixels == 0 || image.samples.len() as u64 != 3 * pixels {
            let found = format!("{:?} with {} samples", image.size, image.samples.len());
            return Err(Error::new(ErrorKind::Shape, format!("image: expected [h, w, 3] with pixels, found {found}")));
        }
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::new(ErrorKind::Value, format!("scale: expected a positive number, found {scale}")));
        }
        let input = image.size.map(|side| (f64::from(side) * f64::from(scale)).round().max(1.0));
        let limit = self.options.max_side;
        if input.iter().any(|&side| side > f64::from(limit)) {
            let message = format!(
                "image of {} × {} pixels at scale {scale}: cytomask-t takes at most {limit} pixels a side; cut it into tiles",
                image.size[0], image.size[1]
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(input.map(|side| side as u32))
    }

    fn device(&self) -> Device {
        self.mask_refiner.conv3.weight.lazy_device()
    }
}

impl PromptModel for CytomaskT {
    type Embedding = CytomaskTEmbedding;
    type Error = Error;

    /// At the scale of [`CytomaskTOptions::scale`]. An image that would be too large at 2× stays at 1×.
    fn encode(&self, image: &Rgb) -> Result<CytomaskTEmbedding, Error> {
        match self.options.scale {
            ScaleChoice::Fixed(scale) => self.encode_at(image, scale),
            ScaleChoice::Auto => {
                let (scale, embedding) = self.automatic_scale(image)?;
                if scale == 1.0 || self.input_size(image, scale).is_err() {
                    Ok(embedding)
                } else {
                    self.encode_at(image, scale)
                }
            }
        }
    }

    fn decode(
        &self,
        embedding: &CytomaskTEmbedding,
        prompts: &[Prompt],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        for (index, prompt) in prompts.iter().enumerate() {
            check(prompt).map_err(|what| Error::new(ErrorKind::Value, format!("prompt {index}: {what}")))?;
        }
        let [_, _, h, w] = embedding.features.dims();
        let inputs: Vec<Prompt> = prompts.iter().map(|prompt| in_input_frame(prompt, &embedding.frame)).collect();
        let windows: Vec<Window> = inputs.iter().map(|input| window_for(input.bounds.as_ref(), [h, w])).collect();
        // Prompts of one form and size of window go together, those of one window side by side.
        let size = |index: usize| [windows[index].h, windows[index].w];
        let key = |&index: &usize| (form(&prompts[index]), size(index), windows[index]);
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(key);
        let batches: Vec<&[usize]> = order
            .chunk_by(|&a, &b| form(&prompts[a]) == form(&prompts[b]) && size(a) == size(b))
            .flat_map(|run| run.chunks(self.options.prompt_batch.max(1)))
            .collect();
        if prompts.iter().any(|prompt| prompt.mask.is_none()) {
            // Now: a thread that waits for it within a batch would wait for itself.
            self.prepared(embedding);
        }
        let answers = each_batch(&embedding.features, &batches, |batch| {
            let of_batch: Vec<Prompt> = batch.iter().map(|&index| inputs[index].clone()).collect();
            let masks: Vec<_> = batch.iter().map(|&index| prompts[index].mask.as_deref()).collect();
            let of_windows: Vec<Window> = batch.iter().map(|&index| windows[index]).collect();
            self.decode_batch(embedding, &of_windows, &of_batch, &masks, multimask)
        })?;
        let mut decoded: Vec<Vec<Candidate>> = vec![Vec::new(); prompts.len()];
        for (&index, answer) in batches.into_iter().flatten().zip(answers.into_iter().flatten()) {
            decoded[index] = answer;
        }
        Ok(decoded)
    }
}

impl FieldModel for CytomaskT {
    fn fields(&self, embedding: &CytomaskTEmbedding) -> Result<Fields, Error> {
        let frame = embedding.frame;
        let pixels = frame.padded[0] as usize * frame.padded[1] as usize;
        let maps = values(embedding.maps.clone());
        let mut maps = maps.chunks_exact(pixels).map(|map| frame.map_to_image(frame.padded, map));
        let mut next =
            || maps.next().ok_or_else(|| Error::shape("maps", [1, 3, frame.padded[0], frame.padded[1]], pixels));
        Ok(Fields { size: frame.image, foreground: next()?, center_distance: next()?, boundary_distance: next()? })
    }

    fn boxes(&self, embedding: &CytomaskTEmbedding) -> Result<Option<Vec<ProposedBox>>, Error> {
        let raw = self.box_decoder.as_ref().map(|decoder| decoder.forward(&embedding.box_taps));
        Ok(raw.map(|raw| proposed_boxes(raw, &embedding.frame)))
    }
}

/// What must agree within a batch.
fn form(prompt: &Prompt) -> (usize, bool, bool) {
    (prompt.points.len(), prompt.bounds.is_some(), prompt.mask.is_some())
}

/// What is wrong with a prompt, if anything.
fn check(prompt: &Prompt) -> Result<(), &'static str> {
    if prompt.points.is_empty() && prompt.bounds.is_none() && prompt.mask.is_none() {
        return Err("expected points, a box or a mask, found none of them");
    }
    let points = prompt.points.iter().flat_map(|point| [point.y, point.x]);
    let corners = prompt.bounds.iter().flat_map(|bounds| [bounds.y0, bounds.x0, bounds.y1, bounds.x1]);
    if points.chain(corners).all(f32::is_finite) { Ok(()) } else { Err("expected finite coordinates") }
}

/// A row (axis 0) or column from pixels of the resized input to image pixels: the inverse of what [`in_input_frame`] does to each.
pub(super) fn in_image_frame(at: f32, axis: usize, frame: &LogitFrame) -> f32 {
    let factor = frame.image[axis] as f32 / frame.input[axis] as f32;
    (at + 0.5) * factor - 0.5
}

/// Points and box from image pixels to pixels of the resized input. Pixel centres are at whole numbers on both sides and centres
/// map to centres, which SAM's plain multiplication misses by up to half an input pixel.
pub(super) fn in_input_frame(prompt: &Prompt, frame: &LogitFrame) -> Prompt {
    let factor = |axis: usize| frame.input[axis] as f32 / frame.image[axis] as f32;
    let y = |y: f32| (y + 0.5) * factor(0) - 0.5;
    let x = |x: f32| (x + 0.5) * factor(1) - 0.5;
    let points = prompt.points.iter().map(|point| PointPrompt { y: y(point.y), x: x(point.x), ..*point }).collect();
    let bounds = prompt.bounds.map(|bounds| BoxPrompt {
        y0: y(bounds.y0),
        x0: x(bounds.x0),
        y1: y(bounds.y1),
        x1: x(bounds.x1),
    });
    Prompt { points, bounds, mask: None }
}
