//! Adapters: few values beside a network that change its image encoder, the network itself being held.
//!
//! Each method is a [`Method`]: it says what becomes of the network's parameters. The change is made to the weights, not to what they
//! are multiplied with: the same numbers, no change to the networks, and merging for export is the same code as running
//! (docs/decisions/0035-lora-on-weights.md, 0049-other-adapters.md). Reference: `micro_sam/models/peft_sam.py`.

mod fact;
mod lora;
mod ssf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::loading::{NamedTensor, values};
use rand::{Rng, RngExt};

use crate::settings::Peft;
use fact::Fact;
use lora::Lora;
use ssf::Ssf;

/// The weight of a projection to queries, keys and values, `[3 C, C]`.
const QKV: &str = ".attn.qkv.weight";

/// What becomes of one parameter: `factor ∘ w + term`.
struct Change {
    /// Of each row (the first axis), `[rows]`.
    factor: Option<Tensor<1>>,
    /// As many values as the parameter, in its order.
    term: Option<Tensor<2>>,
}

/// What the methods have in common.
trait Method {
    /// What becomes of parameters, by their number in the network's order.
    fn changes(&self) -> BTreeMap<usize, Change>;

    /// What is trained, by µSAM's names.
    fn tensors(&self) -> Vec<NamedTensor>;
}

/// The values beside a network.
#[derive(Module, Debug)]
pub(crate) enum Adapters {
    /// Low-rank updates.
    Lora(Lora),
    /// Low-rank updates that share their outer matrices.
    Fact(Fact),
    /// Scales and shifts.
    Ssf(Ssf),
}

impl Adapters {
    /// New ones that change nothing yet, for the parameters of which [`adapts`] is true; none for methods that train the network's own
    /// parameters.
    pub(crate) fn new(peft: &Peft, places: Vec<Place>, rng: &mut impl Rng, device: &Device) -> Option<Self> {
        match peft {
            Peft::Lora { rank, alpha, matrices } => {
                Some(Self::Lora(Lora::new((*rank, *alpha), matrices, places, rng, device)))
            }
            Peft::Fact { rank, alpha } => Some(Self::Fact(Fact::new((*rank, *alpha), places, rng, device))),
            Peft::Ssf => Some(Self::Ssf(Ssf::new(places, device))),
            Peft::Attention | Peft::Bias | Peft::LayerNorm | Peft::Blocks => None,
        }
    }

    fn method(&self) -> &dyn Method {
        match self {
            Self::Lora(lora) => lora,
            Self::Fact(fact) => fact,
            Self::Ssf(ssf) => ssf,
        }
    }

    /// What is trained, by µSAM's names.
    pub(crate) fn tensors(&self) -> Vec<NamedTensor> {
        self.method().tensors()
    }

    /// The network changed; gradients flow to the adapters.
    pub(crate) fn merged<M: Module>(&self, network: M) -> M {
        network.map(&mut Merge { changes: self.method().changes(), next: 0 })
    }
}

/// Whether a method changes a parameter of the image encoder by adapters. `in_blocks`: it lies in a block that was chosen; `all_blocks`:
/// every block was.
pub(crate) fn adapts(peft: &Peft, name: &str, in_blocks: bool, all_blocks: bool) -> bool {
    match peft {
        Peft::Lora { matrices, .. } => {
            let Some(of) = name.strip_suffix(".weight") else { return false };
            in_blocks && matrices.iter().flat_map(|matrix| matrix.layers()).any(|layer| of.ends_with(layer))
        }
        Peft::Fact { .. } => in_blocks && name.ends_with(QKV),
        // Layers without a bias are left out where the layers are made.
        Peft::Ssf => {
            let of_layer = name.ends_with(".weight") || name.ends_with(".bias");
            of_layer && (in_blocks || (all_blocks && name.contains(".patch_embed.")))
        }
        Peft::Attention | Peft::Bias | Peft::LayerNorm | Peft::Blocks => false,
    }
}

/// A parameter of the network that a method changes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Which one, in the network's order.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) name: String,
    /// Its shape, rows first.
    pub(crate) shape: Vec<usize>,
    /// Of a projection to queries, keys and values whose rows lie by heads (TinyViT): how many heads. None: all queries, all keys, all
    /// values.
    pub(crate) heads: Option<usize>,
}

impl Place {
    /// The name of the layer as µSAM has it, with the dot after it.
    fn layer(&self) -> &str {
        let name = self.name.strip_prefix("network.").unwrap_or(&self.name);
        let name = name.strip_prefix("sam.").unwrap_or(name);
        name.strip_suffix("weight").unwrap_or(name)
    }

    /// Updates of queries, keys and values, each `[C, C]`, as their rows lie in the weight, `[3 C, C]`; zeros where there is none.
    fn joined(&self, parts: [Option<Tensor<2>>; 3], device: &Device) -> Tensor<2> {
        let channels = self.shape[1];
        let parts = parts.map(|part| part.unwrap_or_else(|| Tensor::zeros([channels, channels], device)));
        match self.heads {
            None => Tensor::cat(parts.to_vec(), 0),
            Some(heads) => {
                let by_head = |x: Tensor<2>| x.reshape([heads, 1, channels / heads, channels]);
                Tensor::cat(parts.map(by_head).to_vec(), 1).reshape([3 * channels, channels])
            }
        }
    }
}

/// As PyTorch fills a linear layer (Kaiming, a = √5): uniform within `columns^-1/2`.
fn drawn([rows, columns]: [usize; 2], rng: &mut impl Rng, device: &Device) -> Param<Tensor<2>> {
    let bound = (columns as f32).sqrt().recip();
    let values: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-1.0..=1.0_f32) * bound).collect();
    trained(Tensor::from_data(TensorData::new(values, [rows, columns]), device))
}

fn trained<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    // Whether it is trained is configured state, kept on a device without gradients too.
    Param::initialized(ParamId::new(), tensor).set_require_grad(true)
}

fn named<const D: usize>(name: String, tensor: Tensor<D>) -> NamedTensor {
    (name, tensor.dims().to_vec(), values(tensor))
}

struct Merge {
    changes: BTreeMap<usize, Change>,
    next: usize,
}

impl ModuleMapper for Merge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let change = self.changes.remove(&self.next);
        self.next += 1;
        let Some(Change { factor, term }) = change else { return param };
        param.map(|weight| {
            let shape = weight.dims();
            let scaled = match factor {
                Some(factor) => {
                    let mut by_rows = [1; D];
                    by_rows[0] = shape[0];
                    weight * factor.reshape(by_rows)
                }
                None => weight,
            };
            match term {
                Some(term) => scaled + term.reshape(shape),
                None => scaled,
            }
        })
    }
}
