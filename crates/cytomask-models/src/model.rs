//! Any supported network behind one type: opened from a checkpoint, run by the strategies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use cytomask_image::{Normalization, Rect, Rgb};
use cytomask_segment::{Candidate, FieldModel, Fields, FlowFields, Prompt, PromptModel, ProposedBox};
pub use cytomask_weights::Family;
use cytomask_weights::{Checkpoint, ContentHash, TensorMap};

use crate::cpsam::CpSam;
use crate::cyto3::CpNet;
use crate::cytomask_t::scale::{automatic_scale, scales};
use crate::cytomask_t::{
    COMMON_SIDE_PX, CYTOMASK_T, CytomaskT, CytomaskTEmbedding, CytomaskTOptions, PIXEL_MEAN, PIXEL_STD, ScaleChoice,
};
use crate::flows::{FlowDiameter, FlowOptions, FlowPredictor, FlowRow};
use crate::loading::{NamedTensor, load_into, state_dict, values};
use crate::precision::SetPrecision;
use crate::sam::{Sam, SamConfig, SamEmbedding, SamOptions, SamPredictor, VIT_B, VIT_H, VIT_L};
use crate::times::{Clock, NetworkSeconds};
use crate::tiny_vit::{UNUSED_PREFIXES, VIT_T};
use crate::unetr::{Unetr, UnetrConfig};
use crate::{DeviceChoice, Error, ErrorKind, Precision};

/// Outputs of MobileSAM's unused classifier.
const CLASSES: usize = 1000;

/// An opened network with what is known of its weights.
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    family: Family,
    hash: ContentHash,
    path: Option<PathBuf>,
    licence: String,
    device: Device,
    precision: Precision,
    released: bool,
    network: Network,
    clock: Arc<Clock>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a program; the tensors lie elsewhere")]
enum Network {
    Sam(SamPredictor),
    CytomaskT(CytomaskT),
    Flows(FlowPredictor),
}

/// A network without what runs whole images through it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a program; the tensors lie elsewhere")]
pub enum BareNetwork {
    /// SAM, MobileSAM, µSAM, PathoSAM; with an instance decoder where the checkpoint has one.
    Sam(Sam, Option<Unetr>),
    /// The built-in model.
    CytomaskT(CytomaskT),
    /// Cellpose-SAM.
    CpSam(CpSam),
}

/// Named weights: the network's, and those of a separate instance decoder.
pub type WeightTensors = (Vec<NamedTensor>, Option<Vec<NamedTensor>>);

/// Features of an encoded image.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "few values; the tensors lie elsewhere")]
pub enum Embedding {
    /// Of SAM, MobileSAM, µSAM, PathoSAM.
    Sam(SamEmbedding),
    /// Of the built-in model.
    CytomaskT(CytomaskTEmbedding),
    /// Of a network that predicts flows: the maps themselves.
    Flows(Arc<FlowFields>),
}

/// What running a network costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Billions of multiply–accumulate operations of the encoder.
    pub encoder_gmac: f64,
    /// The same for the instance decoder.
    pub decoder_gmac: f64,
    /// The same for the decoder of boxes; 0 without one.
    pub box_gmac: f64,
    /// The same for one prompt.
    pub prompt_gmac: f64,
    /// The same for one prompt with the box of a small object, which the built-in network decodes in a part of the image.
    pub box_prompt_gmac: f64,
    /// Weights and the largest activations, bytes.
    pub memory_bytes: u64,
}

impl Model {
    /// Builds the network a checkpoint belongs to, on the chosen device. `decoder` is a separate instance decoder; without one a
    /// decoder inside the checkpoint is taken.
    ///
    /// # Errors
    /// `Unsupported` for a family that cannot be run (yet) or a decoder given as the model; `MissingTensor`, `Shape` or `Format`
    /// for tensors that do not fit.
    pub fn open(
        name: &str,
        checkpoint: &Checkpoint,
        decoder: Option<&Checkpoint>,
        device: DeviceChoice,
    ) -> Result<Self, Error> {
        let device = device.open()?;
        let family = checkpoint.family().map_err(|error| Error::new(ErrorKind::Unsupported, error.to_string()))?;
        let tensors = checkpoint.model();
        let located = |error: Error| match checkpoint.path() {
            Some(path) => error.with_path(path),
            None => error,
        };
        let sam = |config: &SamConfig| load_sam(Sam::vit(config, &device), tensors);
        let sam = match family {
            Family::VitB => sam(&VIT_B),
            Family::VitL => sam(&VIT_L),
            Family::VitH => sam(&VIT_H),
            Family::VitT => load_sam(Sam::tiny_vit(&VIT_T, &device), tensors),
            Family::CytomaskT => {
                if decoder.is_some() {
                    let message = "cytomask-t has its own instance decoder: expected no separate one";
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                let network = CytomaskT::load(&CYTOMASK_T, tensors, &device).map_err(located)?;
                let network = Network::CytomaskT(network);
                return Ok(Self::described(name, family, checkpoint, device, network));
            }
            Family::CellposeSam | Family::Cellpose => {
                if decoder.is_some() {
                    let message = format!("{}: expected no separate instance decoder", family.name());
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                let predictor = match family {
                    Family::CellposeSam => {
                        CpSam::load(tensors, &device).map(|network| FlowPredictor::cpsam(network, device.clone()))
                    }
                    _ => CpNet::load(tensors, &device)
                        .and_then(|network| FlowPredictor::cyto(network, checkpoint.path(), device.clone())),
                };
                let network = Network::Flows(predictor.map_err(located)?);
                return Ok(Self::described(name, family, checkpoint, device, network));
            }
            other => {
                let message = format!("{}: expected a SAM, µSAM, Cellpose or cytomask checkpoint to run", other.name());
                return Err(located(Error::new(ErrorKind::Unsupported, message)));
            }
        };
        let sam = sam.map_err(located)?;
        let decoder_tensors = match decoder {
            Some(separate) => Some(decoder_of(separate)?),
            None => checkpoint.decoder(),
        };
        let decoder = decoder_tensors.map(|tensors| load_unetr(tensors, &device)).transpose().map_err(located)?;
        let predictor = SamPredictor::new(sam, decoder, SamOptions::default(), device.clone())?;
        Ok(Self::described(name, family, checkpoint, device, Network::Sam(predictor)))
    }

    fn described(name: &str, family: Family, checkpoint: &Checkpoint, device: Device, network: Network) -> Self {
        let registered = cytomask_weights::registry::find(name).map(|entry| entry.licence.to_owned());
        let licence = registered.unwrap_or_else(|| "unknown: a checkpoint given by path".into());
        let clock = match &network {
            Network::Flows(predictor) => Clock { flow_network: predictor.time.clone(), ..Clock::default() },
            Network::Sam(_) | Network::CytomaskT(_) => Clock::default(),
        };
        Self {
            name: name.to_owned(),
            family,
            hash: checkpoint.hash().clone(),
            path: checkpoint.path().map(Path::to_path_buf),
            licence,
            device,
            precision: Precision::F32,
            released: false,
            clock: Arc::new(clock),
            network,
        }
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of network it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The checkpoint's file; none for weights inside the program.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The SHA-256 of the checkpoint it was opened from.
    pub fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// Under which terms the weights may be used, as far as known.
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// How long its networks have run so far, clones of it included.
    pub fn seconds(&self) -> NetworkSeconds {
        self.clock.seconds()
    }

    /// The number format of its layers.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The format for who does not choose: `f32` for every network on every machine. What fewer bits change in masks and scores,
    /// and in time, is measured in docs/benchmarks.md; only a format that changes neither could be chosen unasked.
    pub fn automatic_precision(&self) -> Precision {
        Precision::F32
    }

    /// The same model with its encoder and instance decoder in another number format; prompts and masks stay in `f32`.
    ///
    /// # Errors
    /// `Unsupported` for another format than `f32` on a GPU or for Cellpose 3, and after [`Model::released`].
    pub fn with_precision(mut self, precision: Precision) -> Result<Self, Error> {
        precision.check(is_cpu(&self.device))?;
        if self.released && precision != self.precision {
            let message = format!("precision: weights are held in {} only, not in {precision}", self.precision);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        match &mut self.network {
            Network::Sam(predictor) => predictor.set_precision(precision),
            Network::CytomaskT(network) => network.set_precision(precision),
            Network::Flows(predictor) => predictor.set_precision(precision)?,
        }
        self.precision = precision;
        Ok(self)
    }

    /// The same model for running only: the vision transformers' weights are held once, in the order the CPU reads them. It can no longer
    /// be written, trained or given another format. On other devices nothing changes.
    #[must_use]
    pub fn released(mut self) -> Self {
        match &mut self.network {
            Network::Sam(predictor) => predictor.release_weights(),
            Network::Flows(predictor) => predictor.release_weights(),
            Network::CytomaskT(_) => return self,
        }
        self.released = true;
        self
    }

    fn check_whole(&self) -> Result<(), Error> {
        if self.released {
            let message = format!("{}: the weights were given up for running: open the model again", self.name);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(())
    }

    /// Whether decoder maps can be had, as AIS and APG need them.
    pub fn has_decoder(&self) -> bool {
        match &self.network {
            Network::Sam(predictor) => predictor.has_instance_decoder(),
            Network::CytomaskT(_) => true,
            Network::Flows(_) => false,
        }
    }

    /// Whether the network proposes boxes of objects itself ([`FieldModel::boxes`]).
    pub fn proposes_boxes(&self) -> bool {
        matches!(&self.network, Network::CytomaskT(network) if network.box_decoder.is_some())
    }

    /// How flows are predicted, for networks that predict them.
    pub fn flow_predictor(&self) -> Option<&FlowPredictor> {
        match &self.network {
            Network::Flows(predictor) => Some(predictor),
            _ => None,
        }
    }

    /// The same model running images in another way; a network that predicts no flows stays as it is.
    #[must_use]
    pub fn with_flow_options(&self, options: FlowOptions) -> Self {
        let mut changed = self.clone();
        if let Network::Flows(predictor) = &mut changed.network {
            predictor.options = options;
        }
        changed
    }

    /// The same model told the diameter of the objects, pixels, if it predicts flows.
    #[must_use]
    pub fn with_diameter(&self, pixels: f64) -> Self {
        let options = self.flow_predictor().map(|predictor| predictor.options).unwrap_or_default();
        self.with_flow_options(FlowOptions { diameter: FlowDiameter::Pixels(pixels), ..options })
    }

    /// The maps of an encoded image.
    ///
    /// # Errors
    /// `Unsupported` for a network that predicts no flows.
    pub fn flows<'a>(&self, embedding: &'a Embedding) -> Result<&'a FlowFields, Error> {
        match embedding {
            Embedding::Flows(fields) => Ok(fields),
            _ => Err(self.predicts_no_flows()),
        }
    }

    /// The maps of an image that is read in rectangles, row by row; see [`FlowPredictor::rows`].
    ///
    /// # Errors
    /// As [`FlowPredictor::rows`]; `Unsupported` for a network that predicts no flows.
    pub fn flow_rows<E: From<Error>>(
        &self,
        size: [u32; 2],
        read: &mut dyn FnMut(Rect) -> Result<Rgb, E>,
        keep: &mut dyn FnMut(u32, FlowRow<'_>) -> Result<(), E>,
    ) -> Result<f64, E> {
        self.flow_predictor().ok_or_else(|| self.predicts_no_flows())?.rows(size, read, keep)
    }

    fn takes_no_prompts(&self) -> Error {
        let message = format!("{} takes no prompts and has no instance decoder: its mode is flows", self.name);
        Error::new(ErrorKind::Unsupported, message)
    }

    fn predicts_no_flows(&self) -> Error {
        let message = format!("{} predicts no flows: expected a Cellpose network (cpsam, cyto3)", self.name);
        Error::new(ErrorKind::Unsupported, message)
    }

    /// How images must be converted before they are encoded.
    pub fn normalization(&self) -> Normalization {
        match &self.network {
            Network::Sam(_) => Normalization::MicroSam,
            // As in training: docs/default-model.md.
            Network::CytomaskT(_) => Normalization::Percentile { low: 0.1, high: 99.9 },
            // Cellpose 3 sees the mean of all channels unless two are chosen.
            Network::Flows(predictor) => Normalization::Cellpose { low: 1.0, high: 99.0, grey: predictor.sees_roles() },
        }
    }

    /// The scale images are run at, for networks that have a choice.
    pub fn scale(&self) -> Option<ScaleChoice> {
        match &self.network {
            Network::Sam(_) | Network::Flows(_) => None,
            Network::CytomaskT(network) => Some(network.options().scale),
        }
    }

    /// The same model running at another scale; a network without a choice stays as it is.
    #[must_use]
    pub fn with_scale(&self, scale: ScaleChoice) -> Self {
        let mut changed = self.clone();
        if let Network::CytomaskT(network) = &mut changed.network {
            let options = CytomaskTOptions { scale, ..network.options().clone() };
            *network = network.clone().with_options(options);
        }
        changed
    }

    /// The scale that suits objects of these areas, measured at 1× ([`cytomask_segment::object_size::object_areas`]).
    pub fn scale_for(areas: &[u64]) -> f32 {
        automatic_scale(areas)
    }

    /// The scales at which a strategy that rates its objects looks for objects of these areas, measured at 1×. If 1 is among them it
    /// is the first.
    pub fn scales_for(areas: &[u64]) -> Vec<f32> {
        scales(areas)
    }

    /// Takes the network and its device out, to train it.
    ///
    /// # Errors
    /// `Unsupported` for a network that cannot be trained here, and after [`Model::released`].
    pub fn into_bare(self) -> Result<(BareNetwork, Device), Error> {
        self.check_whole()?;
        let network = match self.network {
            Network::CytomaskT(network) => BareNetwork::CytomaskT(network),
            Network::Sam(predictor) => {
                let (sam, decoder) = predictor.into_parts();
                BareNetwork::Sam(sam, decoder)
            }
            Network::Flows(predictor) => match predictor.into_cpsam() {
                Some(network) => BareNetwork::CpSam(network),
                None => {
                    let message = format!(
                        "training {}: expected cytomask-t, a SAM (ViT-T, B, L, H) or Cellpose-SAM; its batch norms have no \
                         training mode here",
                        self.family.name()
                    );
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
            },
        };
        Ok((network, self.device))
    }

    /// All weights by their checkpoint names: the network's, and those of a separate instance decoder.
    ///
    /// # Errors
    /// `Unsupported` after [`Model::released`].
    pub fn tensors(&self) -> Result<WeightTensors, Error> {
        self.check_whole()?;
        Ok(match &self.network {
            Network::Sam(predictor) => {
                let decoder = predictor.instance_decoder().map(|decoder| state_dict(decoder, ""));
                (state_dict(predictor.sam(), ""), decoder)
            }
            Network::CytomaskT(network) => (state_dict(network, ""), None),
            Network::Flows(predictor) => (predictor.tensors(), None),
        })
    }

    /// The weights as µSAM's Python expects them: without the tensors its networks have no place for (their count is returned), and
    /// with the classifier MobileSAM's state dict must hold although nothing uses it (zeros).
    ///
    /// # Errors
    /// `Unsupported` after [`Model::released`].
    pub fn micro_sam_tensors(&self) -> Result<(WeightTensors, usize), Error> {
        let (mut tensors, decoder) = self.tensors()?;
        let all = tensors.len();
        let own = ["instance_decoder.", "mask_refiner.", "box_decoder."];
        tensors.retain(|(name, ..)| !own.iter().any(|part| name.starts_with(part)));
        let left_out = all - tensors.len();
        if matches!(self.family, Family::VitT | Family::CytomaskT) {
            let [channels, classes] = [*VIT_T.embed_dims.last().unwrap_or(&0), CLASSES];
            for (name, shape) in [
                ("image_encoder.norm_head.weight", vec![channels]),
                ("image_encoder.norm_head.bias", vec![channels]),
                ("image_encoder.head.weight", vec![classes, channels]),
                ("image_encoder.head.bias", vec![classes]),
            ] {
                let count = shape.iter().product();
                tensors.push((name.to_owned(), shape, vec![0.0; count]));
            }
        }
        Ok(((tensors, decoder), left_out))
    }

    /// Intermediate tensors for comparisons with other implementations: `normalized` `[3, H, W]` and `embedding`.
    ///
    /// # Errors
    /// Whatever the device reports.
    pub fn stages(&self, image: &Rgb, embedding: &Embedding) -> Result<Vec<NamedTensor>, Error> {
        let (features, frame) = match embedding {
            Embedding::Sam(embedding) => (&embedding.features, embedding.frame),
            Embedding::CytomaskT(embedding) => (&embedding.features, embedding.frame),
            Embedding::Flows(fields) => {
                let maps =
                    [&fields.flow_y, &fields.flow_x, &fields.cell_probability].map(|map| map.as_slice()).concat();
                let [h, w] = fields.size.map(|side| side as usize);
                return Ok(vec![("maps".into(), vec![3, h, w], maps)]);
            }
        };
        let resized = match &self.network {
            Network::Sam(_) => image.resize_longest_side(frame.padded[0].max(frame.padded[1])),
            Network::CytomaskT(_) | Network::Flows(_) => image.resize(frame.input),
        };
        let normalized = resized.normalize_and_pad(frame.padded, PIXEL_MEAN, PIXEL_STD);
        let [h, w] = frame.padded.map(|side| side as usize);
        let shape = features.dims().to_vec();
        Ok(vec![
            ("normalized".into(), vec![3, h, w], normalized),
            ("embedding".into(), shape, values(features.clone())),
        ])
    }

    /// What an image of `size` costs. Counts of operations are those of the published architectures; memory is a rough measure.
    pub fn cost(&self, size: [u32; 2]) -> Cost {
        let gigabytes = |share: f64| (share * 1e9) as u64;
        // From the architectures at 1024²; the UNETR decoder and a prompt cost the same for every encoder.
        let (encoder_gmac, memory) = match self.family {
            Family::VitB => (486.0, 1.5),
            Family::VitL => (1492.8, 2.8),
            Family::VitH => (2980.5, 4.6),
            Family::VitT => (38.8, 0.8),
            Family::CellposeSam | Family::Cellpose => {
                let tiles = self.flow_predictor().map_or(1, |predictor| predictor.tiles(size)) as f64;
                // A tile of 256 × 256 and of 224 × 224.
                let (gmac, memory) = if self.family == Family::CellposeSam { (363.6, 2.4) } else { (15.5, 0.4) };
                let pixels = f64::from(size[0]) * f64::from(size[1]);
                // Image, maps, paths and labels.
                let memory_bytes = gigabytes(memory) + (pixels * 60.0) as u64;
                return Cost {
                    encoder_gmac: gmac * tiles,
                    decoder_gmac: 0.0,
                    box_gmac: 0.0,
                    prompt_gmac: 0.0,
                    box_prompt_gmac: 0.0,
                    memory_bytes,
                };
            }
            _ => {
                let megapixels = f64::from(size[0]) * f64::from(size[1]) / 1024.0_f64.powi(2);
                let window_megapixels = megapixels.min((COMMON_SIDE_PX / 1024.0).powi(2));
                // The encoder again, and the slim decoder and that of boxes: 0.73 GMAC each for 224².
                let encoder_gmac = 38.8 * megapixels;
                let decoder_gmac = 15.3 * megapixels;
                let box_gmac = if self.proposes_boxes() { 15.2 } else { 0.0 } * megapixels;
                // Tokens, and what every pixel of the window is asked.
                let prompt_gmac = |megapixels: f64| 0.03 + 1.81 * megapixels;
                return Cost {
                    encoder_gmac,
                    decoder_gmac,
                    box_gmac,
                    prompt_gmac: prompt_gmac(megapixels),
                    box_prompt_gmac: prompt_gmac(window_megapixels),
                    memory_bytes: gigabytes(0.3 + 0.9 * megapixels),
                };
            }
        };
        let memory = memory + if self.has_decoder() { 1.2 } else { 0.0 };
        Cost {
            encoder_gmac,
            decoder_gmac: 410.9,
            box_gmac: 0.0,
            prompt_gmac: 1.81,
            box_prompt_gmac: 1.81,
            memory_bytes: gigabytes(memory),
        }
    }
}

/// Fills a SAM; MobileSAM's unused classifier and tensors of a training checkpoint beside the network are left out.
fn load_sam(sam: Sam, tensors: &TensorMap) -> Result<Sam, Error> {
    let loaded = load_into(sam, tensors, "")?;
    let known = |name: &str| {
        name.strip_prefix("image_encoder.")
            .is_some_and(|name| UNUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            || name == "pixel_mean"
            || name == "pixel_std"
    };
    match loaded.unused.iter().find(|name| !known(name)) {
        Some(name) => Err(Error::new(ErrorKind::Format, format!("tensor `{name}` has no place in this network"))),
        None => Ok(loaded.module),
    }
}

fn decoder_of(separate: &Checkpoint) -> Result<&TensorMap, Error> {
    separate.decoder().ok_or_else(|| {
        let error =
            Error::new(ErrorKind::Unsupported, "expected an instance decoder checkpoint (keys base.*, deconv1.*, …)");
        match separate.path() {
            Some(path) => error.with_path(path),
            None => error,
        }
    })
}

fn load_unetr(tensors: &TensorMap, device: &Device) -> Result<Unetr, Error> {
    let config = UnetrConfig::detect(TensorMap::names(tensors));
    let loaded = load_into(Unetr::new(&config, device), tensors, "")?;
    match loaded.unused.first() {
        Some(name) => {
            Err(Error::new(ErrorKind::Format, format!("tensor `{name}` has no place in the instance decoder")))
        }
        None => Ok(loaded.module),
    }
}

impl PromptModel for Model {
    type Embedding = Embedding;
    type Error = Error;

    fn encode(&self, image: &Rgb) -> Result<Embedding, Error> {
        let timed = &self.clock.encoder;
        match &self.network {
            Network::Sam(predictor) => timed.time(|| predictor.encode(image)).map(Embedding::Sam),
            Network::CytomaskT(network) => timed.time(|| network.encode(image)).map(Embedding::CytomaskT),
            // Timed where it runs.
            Network::Flows(predictor) => Ok(Embedding::Flows(Arc::new(predictor.fields(image)?))),
        }
    }

    fn decode(&self, embedding: &Embedding, prompts: &[Prompt], multimask: bool) -> Result<Vec<Vec<Candidate>>, Error> {
        self.clock.mask_decoder.time(|| match (&self.network, embedding) {
            (Network::Sam(predictor), Embedding::Sam(embedding)) => predictor.decode(embedding, prompts, multimask),
            (Network::CytomaskT(network), Embedding::CytomaskT(embedding)) => {
                network.decode(embedding, prompts, multimask)
            }
            (Network::Flows(_), _) => Err(self.takes_no_prompts()),
            _ => Err(foreign()),
        })
    }
}

impl FieldModel for Model {
    fn fields(&self, embedding: &Embedding) -> Result<Fields, Error> {
        self.clock.instance_decoder.time(|| match (&self.network, embedding) {
            (Network::Sam(predictor), Embedding::Sam(embedding)) => predictor.fields(embedding),
            (Network::CytomaskT(network), Embedding::CytomaskT(embedding)) => network.fields(embedding),
            (Network::Flows(_), _) => Err(self.takes_no_prompts()),
            _ => Err(foreign()),
        })
    }

    fn boxes(&self, embedding: &Embedding) -> Result<Option<Vec<ProposedBox>>, Error> {
        self.clock.instance_decoder.time(|| match (&self.network, embedding) {
            (Network::CytomaskT(network), Embedding::CytomaskT(embedding)) => network.boxes(embedding),
            (Network::CytomaskT(_), _) => Err(foreign()),
            _ => Ok(None),
        })
    }
}

fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Value, "the embedding was made by a network of another kind")
}

/// Billions of multiply–accumulate operations a second that networks reach on a device, from a short matrix product.
///
/// Networks reach about half of the product's rate (docs/benchmarks.md).
pub fn machine_rate(device: DeviceChoice) -> f64 {
    const SIDE: usize = 512;
    const SHARE: f64 = 0.5;
    const RUNS: usize = 8;
    let Ok(device) = device.open() else { return 0.0 };
    let matrix = || Tensor::<2>::ones([SIDE, SIDE], &device);
    let product = || wait_for(matrix().matmul(matrix()));
    product();
    let timed = || {
        let start = std::time::Instant::now();
        product();
        start.elapsed().as_secs_f64()
    };
    // The fastest: a single product of a millisecond is easily held up.
    let seconds = (0..RUNS).map(|_| timed()).fold(f64::INFINITY, f64::min).max(1e-6);
    SHARE * (SIDE as f64).powi(3) / seconds / 1e9
}

fn wait_for(product: Tensor<2>) -> usize {
    // Reading a value waits for the device.
    product.into_data().num_elements()
}
