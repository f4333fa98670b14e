//! The joiner: image encoder, prompt encoder and mask decoder as one network, and the predictor that answers to images and
//! prompts in pixels. Reference: `segment_anything/modeling/sam.py` and `predictor.py`; for the instance decoder
//! `micro_sam/instance_segmentation.py`.

use std::{ops::Range, sync::OnceLock};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use cytomask_image::{LogitFrame, LogitMap, Rgb};
use cytomask_segment::{BoxPrompt, Candidate, FieldModel, Fields, PointPrompt, Prompt, PromptModel};

use super::{
    config::{MaskDecoderConfig, PIXEL_MEAN, PIXEL_STD, PromptEncoderConfig, SamConfig},
    image_encoder::ImageEncoder,
    mask_decoder::{DecodedMasks, MaskDecoder, PreparedImage},
    prompt_encoder::PromptEncoder,
};
use crate::{
    batches::each_batch,
    error::{Error, ErrorKind},
    loading::values,
    precision::{Precision, SetPrecision},
    tiny_vit::{TinyVit, TinyVitConfig},
    unetr::Unetr,
};

/// One of the image encoders that share SAM's embedding.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a network; the tensors lie elsewhere")]
pub enum Encoder {
    /// Vision transformer.
    Vit(ImageEncoder),
    /// MobileSAM's.
    TinyVit(TinyVit),
}

impl SetPrecision for Encoder {
    fn set_precision(&mut self, precision: Precision) {
        match self {
            Self::Vit(encoder) => encoder.set_precision(precision),
            Self::TinyVit(encoder) => encoder.set_precision(precision),
        }
    }
}

impl SamPredictor {
    /// See [`crate::Model::released`].
    pub(crate) fn release_weights(&mut self) {
        if let Encoder::Vit(encoder) = &mut self.sam.image_encoder {
            encoder.release_weights();
        }
    }
}

impl SetPrecision for SamPredictor {
    fn set_precision(&mut self, precision: Precision) {
        self.sam.image_encoder.set_precision(precision);
        if let Some(decoder) = &mut self.instance_decoder {
            decoder.set_precision(precision);
        }
    }
}

impl Encoder {
    /// # Shapes
    /// `[N, 3, H, W]` → `[N, 256, H / 16, W / 16]`
    ///
    /// # Errors
    /// `Shape` when the input does not suit the encoder.
    pub fn forward(&self, image: Tensor<4>) -> Result<Tensor<4>, Error> {
        match self {
            Self::Vit(encoder) => encoder.forward(image),
            Self::TinyVit(encoder) => encoder.forward(image),
        }
    }
}

/// Segment Anything. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct Sam {
    /// Image to embedding.
    pub image_encoder: Encoder,
    /// Prompts to tokens.
    pub prompt_encoder: PromptEncoder,
    /// Tokens and embedding to masks.
    pub mask_decoder: MaskDecoder,
}

impl Sam {
    /// With a vision transformer; placeholder values, see [`crate::loading`].
    pub fn vit(config: &SamConfig, device: &Device) -> Self {
        Self {
            image_encoder: Encoder::Vit(ImageEncoder::new(&config.encoder, device)),
            prompt_encoder: PromptEncoder::new(&config.prompt_encoder, device),
            mask_decoder: MaskDecoder::new(&config.mask_decoder, device),
        }
    }

    /// MobileSAM; placeholder values, see [`crate::loading`].
    pub fn tiny_vit(config: &TinyVitConfig, device: &Device) -> Self {
        Self {
            image_encoder: Encoder::TinyVit(TinyVit::new(config, device)),
            prompt_encoder: PromptEncoder::new(&PromptEncoderConfig::SAM, device),
            mask_decoder: MaskDecoder::new(&MaskDecoderConfig::SAM, device),
        }
    }

    /// Decodes prompts of one form (see [`PromptEncoder::sparse`]) whose coordinates are in pixels of the network's input.
    /// `masks` takes the place of no mask for all of them; `padded` is the `[h, w]` of the network's input.
    ///
    /// # Shapes
    /// embedding `[1, C, h, w]`, masks `[B, 1, 4 h, 4 w]` → see [`DecodedMasks`]
    ///
    /// # Errors
    /// `Value` when the prompts differ in form, `Shape` when the masks do not fit the embedding.
    pub fn decode(
        &self,
        embedding: Tensor<4>,
        padded: [u32; 2],
        prompts: &[Prompt],
        masks: Option<Tensor<4>>,
    ) -> Result<DecodedMasks, Error> {
        let prepared = match masks {
            Some(masks) => {
                let [_, _, h, w] = embedding.dims();
                let expected = [prompts.len(), 1, 4 * h, 4 * w];
                if masks.dims() != expected {
                    return Err(Error::shape("mask prompts", expected, masks.dims()));
                }
                self.prepare(embedding, padded, Some(masks))
            }
            None => self.prepare(embedding, padded, None),
        };
        let all = 0..self.mask_decoder.output_hypernetworks_mlps.len();
        self.decode_prepared(&prepared, padded, prompts, all)
    }

    /// What decoding needs of an image whatever the prompts; with mask prompts it is an image for each of them.
    ///
    /// # Shapes
    /// embedding `[1, C, h, w]`, masks `[B, 1, 4 h, 4 w]`
    pub fn prepare(&self, embedding: Tensor<4>, padded: [u32; 2], masks: Option<Tensor<4>>) -> PreparedImage {
        let [_, _, h, w] = embedding.dims();
        let extent = padded.map(|side| side as f32);
        let dense = masks.map_or_else(|| self.prompt_encoder.no_mask(), |masks| self.prompt_encoder.masks(masks));
        let positions = self.prompt_encoder.dense_positions([h, w], padded[0] as usize / h, extent);
        self.mask_decoder.prepare(embedding, positions, dense)
    }

    /// As [`Sam::decode`], giving only the masks asked for.
    ///
    /// # Errors
    /// `Value` when the prompts differ in form.
    pub fn decode_prepared(
        &self,
        image: &PreparedImage,
        padded: [u32; 2],
        prompts: &[Prompt],
        masks: Range<usize>,
    ) -> Result<DecodedMasks, Error> {
        let sparse = self.prompt_encoder.sparse(prompts, padded.map(|side| side as f32))?;
        let image_of: Vec<usize> = (0..prompts.len()).map(|index| index.min(image.images() - 1)).collect();
        Ok(self.mask_decoder.decode(image, &image_of, sparse, masks))
    }
}

/// How images are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamOptions {
    /// Images are scaled so that their longest side measures this, and padded to a square of it. SAM's is 1024; a multiple of
    /// 16 (of 32 for TinyViT) is possible, faster and not what the network was trained for.
    pub input_side: u32,
    /// Prompts decoded at once. On a CPU small batches are faster (their activations stay in the cache); on a GPU take 32 or more.
    pub prompt_batch: usize,
}

impl Default for SamOptions {
    /// SAM's side; 4 prompts, for a CPU of few cores.
    fn default() -> Self {
        Self { input_side: 1024, prompt_batch: 4 }
    }
}

/// A SAM that takes images and prompts in pixels, with µSAM's instance decoder if the checkpoint has one.
#[derive(Clone, Debug)]
pub struct SamPredictor {
    sam: Sam,
    instance_decoder: Option<Unetr>,
    options: SamOptions,
    device: Device,
}

/// An encoded image.
#[derive(Clone, Debug)]
pub struct SamEmbedding {
    /// `[1, 256, h, w]`, where the encoder left it.
    pub features: Tensor<4>,
    /// How the network's frame lies over the image.
    pub frame: LogitFrame,
    /// For prompts without masks; computed with the first of them.
    prepared: OnceLock<PreparedImage>,
}

impl SamPredictor {
    /// `device` is the one the networks were loaded to.
    ///
    /// # Errors
    /// `Value` when an option is 0 or the input side is not a multiple of 16.
    pub fn new(sam: Sam, instance_decoder: Option<Unetr>, options: SamOptions, device: Device) -> Result<Self, Error> {
        let multiple = match &sam.image_encoder {
            Encoder::Vit(encoder) => encoder.patch_size(),
            Encoder::TinyVit(_) => TinyVitConfig::INPUT_MULTIPLE,
        };
        let side = options.input_side as usize;
        if side == 0 || !side.is_multiple_of(multiple) {
            let message = format!("input side: expected a positive multiple of {multiple}, found {side}");
            return Err(Error::new(ErrorKind::Value, message));
        }
        if options.prompt_batch == 0 {
            return Err(Error::new(ErrorKind::Value, "prompt batch: expected at least 1, found 0"));
        }
        Ok(Self { sam, instance_decoder, options, device })
    }

    /// The network and its instance decoder.
    pub fn into_parts(self) -> (Sam, Option<Unetr>) {
        (self.sam, self.instance_decoder)
    }

    /// The network.
    pub fn sam(&self) -> &Sam {
        &self.sam
    }

    /// The instance decoder, where the checkpoint has one.
    pub fn instance_decoder(&self) -> Option<&Unetr> {
        self.instance_decoder.as_ref()
    }

    /// Whether [`FieldModel::fields`] can answer.
    pub fn has_instance_decoder(&self) -> bool {
        self.instance_decoder.is_some()
    }

    /// What prompts without masks share.
    fn prepared<'a>(&self, embedding: &'a SamEmbedding) -> &'a PreparedImage {
        let SamEmbedding { features, frame, prepared } = embedding;
        prepared.get_or_init(|| self.sam.prepare(features.clone(), frame.padded, None))
    }

    /// Decodes prompts of one form whose coordinates are already in pixels of the network's input.
    fn decode_batch(
        &self,
        embedding: &SamEmbedding,
        prompts: &[Prompt],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        let frame = embedding.frame;
        let [_, _, h, w] = embedding.features.dims();
        let of_prompts = mask_prompts(prompts, [4 * h, 4 * w], &self.device)?
            .map(|masks| self.sam.prepare(embedding.features.clone(), frame.padded, Some(masks)));
        let image = of_prompts.as_ref().unwrap_or_else(|| self.prepared(embedding));
        // Mask 0 is trained for clear prompts, the others for ambiguous ones.
        let chosen = if multimask { 1..self.sam.mask_decoder.output_hypernetworks_mlps.len() } else { 0..1 };
        let per_prompt = chosen.len();
        let decoded = self.sam.decode_prepared(image, frame.padded, prompts, chosen)?;
        let [_, _, grid_h, grid_w] = decoded.logits.dims();
        let (logits, predicted_iou) = (values(decoded.logits), values(decoded.predicted_iou));
        let candidates = logits.chunks_exact(grid_h * grid_w).zip(predicted_iou).map(|(values, predicted_iou)| {
            let grid = [grid_h as u32, grid_w as u32];
            Candidate { logits: LogitMap { grid, values: values.to_vec(), frame }, predicted_iou }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        Ok(candidates.chunks_exact(per_prompt).map(<[Candidate]>::to_vec).collect())
    }
}

/// `[B, 1, grid_h, grid_w]` when the prompts have masks.
fn mask_prompts(prompts: &[Prompt], grid: [usize; 2], device: &Device) -> Result<Option<Tensor<4>>, Error> {
    let mut stacked = Vec::new();
    let mut found = 0;
    for mask in prompts.iter().filter_map(|prompt| prompt.mask.as_ref()) {
        let size = mask.grid.map(|side| side as usize);
        if size != grid || mask.values.len() != grid[0] * grid[1] {
            return Err(Error::shape("mask prompt", grid, size));
        }
        stacked.extend_from_slice(&mask.values);
        found += 1;
    }
    if found == 0 {
        return Ok(None);
    }
    let shape = [found, 1, grid[0], grid[1]];
    Ok(Some(Tensor::from_data(TensorData::new(stacked, shape), device)))
}

/// A prompt in the image frame → the same in the resized image.
fn scale_prompt(prompt: &Prompt, frame: &LogitFrame) -> Prompt {
    let [scale_y, scale_x] = [0, 1].map(|axis| frame.input[axis] as f32 / frame.image[axis] as f32);
    let point = |point: &PointPrompt| PointPrompt { y: point.y * scale_y, x: point.x * scale_x, ..*point };
    Prompt {
        points: prompt.points.iter().map(point).collect(),
        bounds: prompt.bounds.map(|bounds| BoxPrompt {
            y0: bounds.y0 * scale_y,
            x0: bounds.x0 * scale_x,
            y1: bounds.y1 * scale_y,
            x1: bounds.x1 * scale_x,
        }),
        mask: prompt.mask.clone(),
    }
}

/// Cuts `prompts` into batches of one form (number of points, box, mask), each at most `size` long; gives indices. Prompts of
/// different form cannot share a batch without padding points, which would change the answer.
fn batches(prompts: &[Prompt], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    let form = |&index: &usize| {
        let prompt = &prompts[index];
        (prompt.points.len(), prompt.bounds.is_some(), prompt.mask.is_some())
    };
    order.sort_by_key(form);
    order.chunk_by(|a, b| form(a) == form(b)).flat_map(|same| same.chunks(size)).map(<[usize]>::to_vec).collect()
}

impl PromptModel for SamPredictor {
    type Embedding = SamEmbedding;
    type Error = Error;

    fn encode(&self, image: &Rgb) -> Result<SamEmbedding, Error> {
        let [h, w] = image.size;
        if h == 0 || w == 0 || image.samples.len() != h as usize * w as usize * 3 {
            return Err(Error::shape("image", "[H, W, 3], not empty", [h as usize, w as usize, image.samples.len()]));
        }
        let side = self.options.input_side;
        let resized = image.resize_longest_side(side);
        let frame = LogitFrame { padded: [side, side], input: resized.size, image: image.size };
        let pixels = resized.normalize_and_pad(frame.padded, PIXEL_MEAN, PIXEL_STD);
        let shape = [1, 3, side as usize, side as usize];
        let input = Tensor::from_data(TensorData::new(pixels, shape), &self.device);
        let features = self.sam.image_encoder.forward(input)?;
        Ok(SamEmbedding { features, frame, prepared: OnceLock::new() })
    }

    fn decode(
        &self,
        embedding: &SamEmbedding,
        prompts: &[Prompt],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        let scaled: Vec<Prompt> = prompts.iter().map(|prompt| scale_prompt(prompt, &embedding.frame)).collect();
        let batches = batches(prompts, self.options.prompt_batch);
        if prompts.iter().any(|prompt| prompt.mask.is_none()) {
            // Now: a thread that waits for it within a batch would wait for itself.
            self.prepared(embedding);
        }
        let decoded = each_batch(&embedding.features, &batches, |batch| {
            let of_one_form: Vec<Prompt> = batch.iter().map(|&index| scaled[index].clone()).collect();
            self.decode_batch(embedding, &of_one_form, multimask)
        })?;
        let mut answers: Vec<Vec<Candidate>> = prompts.iter().map(|_| Vec::new()).collect();
        for (index, answer) in batches.into_iter().flatten().zip(decoded.into_iter().flatten()) {
            answers[index] = answer;
        }
        Ok(answers)
    }
}

impl FieldModel for SamPredictor {
    fn fields(&self, embedding: &SamEmbedding) -> Result<Fields, Error> {
        let Some(decoder) = &self.instance_decoder else {
            let message = "this checkpoint has no instance decoder: AIS and APG need one (µSAM's generalist models carry it); \
                           choose another model, or AMG or prompts";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let maps = decoder.forward(embedding.features.clone())?;
        let [_, channels, h, w] = maps.dims();
        if channels != 3 {
            return Err(Error::shape("instance decoder output", "[1, 3, H, W]", maps.dims()));
        }
        let maps = values(maps);
        let map = |index: usize| {
            embedding.frame.map_to_image([h as u32, w as u32], &maps[index * h * w..(index + 1) * h * w])
        };
        Ok(Fields {
            size: embedding.frame.image,
            foreground: map(0),
            center_distance: map(1),
            boundary_distance: map(2),
        })
    }
}
