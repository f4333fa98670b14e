//! Networks as the loop sees them: what joint training asks of one ([`Trainable`]), and the ones there are.

mod cytomask_t;
pub(crate) mod flows;
mod sam;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use cytomask_image::Rgb;
use cytomask_models::BareNetwork;
use cytomask_models::cpsam::CpSam;
use cytomask_models::cytomask_t::CytomaskT;
use cytomask_models::loading::{NamedTensor, state_dict, state_shapes};
use cytomask_segment::Prompt;
use cytomask_weights::DECODER_PREFIX;

use crate::adapters::{Adapters, Place};
use crate::parameters::Plan;
use crate::settings::Peft;
use crate::{Error, ErrorKind};

pub(crate) use sam::SamUnetr;

/// A promptable network with an instance decoder.
///
/// Its parameters' names (`loading::state_shapes`) tell their parts, see [`crate::parameters::part_of`].
pub(crate) trait Trainable: Module {
    /// What is computed once for a batch of crops.
    type Features;

    /// Encodes crops of one size. With `encoder_is_fixed` the image encoder runs without a graph.
    fn features(&self, crops: &[&Rgb], encoder_is_fixed: bool, device: &Device) -> Result<Self::Features, Error>;

    /// The maps of the instance decoder, 0–1, `[N, 3, H, W]` at the crops' size: foreground, centre distance, boundary distance.
    fn maps(&self, features: &Self::Features) -> Result<Tensor<4>, Error>;

    /// What a box decoder gives, `[N, 5, h, w]`; `None` for a network without.
    fn boxes(&self, _features: &Self::Features) -> Option<Tensor<4>> {
        None
    }

    /// Masks for prompts on crop `image` of the batch.
    fn decode(&self, features: &Self::Features, image: usize, query: &Query<'_>) -> Result<Decoded, Error>;

    /// The largest [`Query::offset`] for crops of `side` pixels.
    fn largest_offset(&self, side: u32) -> usize;
}

/// Prompts of one form: as many points each, all or none with a box.
pub(crate) struct Query<'a> {
    /// In pixels of the crop.
    pub(crate) prompts: &'a [Prompt],
    /// Logits to go on from, `[prompts, 1, 4 h, 4 w]` for an embedding of `[h, w]`.
    pub(crate) masks: Option<Tensor<4>>,
    /// Whether three masks are asked for, or one.
    pub(crate) multimask: bool,
    /// `[y, x]` tokens that crop and prompts are moved by in the frame of positions, where a network has a frame larger than its crops.
    pub(crate) offset: [usize; 2],
}

/// Answers to a [`Query`].
pub(crate) struct Decoded {
    /// `[prompts, outputs, H, W]` at the crop's size.
    pub(crate) logits: Tensor<4>,
    /// `[prompts, outputs, 4 h, 4 w]`: what can be given as masks next time.
    pub(crate) coarse: Tensor<4>,
    /// `[prompts, outputs]`
    pub(crate) predicted_iou: Tensor<2>,
}

/// The networks that can be trained.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a program; the tensors lie elsewhere")]
pub(crate) enum Network {
    /// The built-in model.
    CytomaskT(CytomaskT),
    /// SAM with µSAM's instance decoder.
    Sam(SamUnetr),
    /// Cellpose-SAM.
    CpSam(CpSam),
}

impl Network {
    /// Takes a network for training. A SAM without instance decoder gets a new one where maps are trained.
    pub(crate) fn new(bare: BareNetwork, maps: bool, input_side: u32, seed: u64, device: &Device) -> Self {
        match bare {
            BareNetwork::CytomaskT(network) => Self::CytomaskT(network),
            BareNetwork::CpSam(network) => Self::CpSam(network),
            BareNetwork::Sam(sam, decoder) => Self::Sam(SamUnetr::new(sam, decoder, maps, input_side, seed, device)),
        }
    }

    /// Whether it predicts flows instead of answering prompts.
    pub(crate) fn predicts_flows(&self) -> bool {
        matches!(self, Self::CpSam(_))
    }

    /// What it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CytomaskT(_) => "cytomask-t",
            Self::Sam(_) => "a SAM",
            Self::CpSam(_) => "Cellpose-SAM",
        }
    }

    /// New adapters for the parameters of the plan; none where the method has none.
    pub(crate) fn adapters(&self, plan: &Plan, peft: Option<&Peft>, seed: u64, device: &Device) -> Option<Adapters> {
        use rand::SeedableRng;
        let shapes = state_shapes(self, "");
        // A stream that no step draws from.
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::MAX);
        // The rows of a TinyViT lie by heads; its table of biases tells it and has a row for each.
        let heads_of = |name: &str| {
            let table = format!("{}attention_biases", name.strip_suffix("qkv.weight")?);
            shapes.iter().find(|(name, _)| *name == table).map(|(_, shape)| shape[0])
        };
        let place = |&index: &usize| {
            let (name, shape) = &shapes[index];
            Place { index, name: name.clone(), shape: shape.clone(), heads: heads_of(name) }
        };
        Adapters::new(peft?, plan.adapted.iter().map(place).collect(), &mut rng, device)
    }

    /// Tensors as a checkpoint names them.
    pub(crate) fn export(&self) -> Vec<NamedTensor> {
        match self {
            Self::CytomaskT(network) => state_dict(network, ""),
            Self::CpSam(network) => state_dict(network, ""),
            Self::Sam(network) => {
                let mut tensors = state_dict(&network.sam, "");
                tensors.extend(network.decoder.iter().flat_map(|decoder| state_dict(decoder, DECODER_PREFIX)));
                tensors
            }
        }
    }

    /// Writes a checkpoint that every command opens.
    pub(crate) fn write(&self, path: &Path, step: u64) -> Result<(), Error> {
        let metadata = [("step".to_owned(), step.to_string())].into_iter().collect();
        cytomask_weights::write_safetensors(path, &self.export(), &metadata).map_err(|error| {
            Error::new(ErrorKind::Checkpoint, format!("{}: cannot write", path.display())).with_source(error)
        })
    }
}

fn failed(error: cytomask_models::Error) -> Error {
    Error::new(ErrorKind::Model, "a training step failed").with_source(error)
}
