//! LoRA (Hu et al., ICLR 2022) as µSAM applies it to attention: the query and value projections of a block gain a product of two narrow
//! matrices, `W + alpha · B · A`.
//!
//! The sum is made on the weights, not on what they are multiplied with: the same numbers, no change to the networks, and merging for
//! export is the same code as running. Reference: `micro_sam/models/peft_sam.py`.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::layers::QkvOrder;
use cytomask_models::loading::{NamedTensor, values};
use rand::{Rng, RngExt};

/// The updates of one block's query and value projections.
#[derive(Module, Debug)]
pub(crate) struct Adapter {
    /// `[rank, C]`
    query_a: Param<Tensor<2>>,
    /// `[C, rank]`
    query_b: Param<Tensor<2>>,
    /// `[rank, C]`
    value_a: Param<Tensor<2>>,
    /// `[C, rank]`
    value_b: Param<Tensor<2>>,
    #[module(skip)]
    place: Place,
}

/// What an adapter changes.
#[derive(Clone, Debug)]
struct Place {
    /// Which parameter, in the network's order.
    index: usize,
    /// Its name.
    name: String,
    alpha: f32,
    /// How its rows lie.
    order: QkvOrder,
    heads: usize,
}

/// A projection to queries, keys and values that an adapter is made for.
pub(crate) struct Projection {
    /// Which parameter, in the network's order.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) name: String,
    /// `C`: it is `[3 C, C]`.
    pub(crate) channels: usize,
    /// How its rows lie.
    pub(crate) order: QkvOrder,
    /// Attention heads.
    pub(crate) heads: usize,
}

impl Adapter {
    /// A as PyTorch fills a linear layer (Kaiming, a = √5), B zero: the network is what it was.
    pub(crate) fn new(at: Projection, [rank, alpha]: [f32; 2], rng: &mut impl Rng, device: &Device) -> Self {
        let Projection { index, name, channels, order, heads } = at;
        let rank = rank as usize;
        let bound = (channels as f32).sqrt().recip();
        let mut narrow = || {
            let values: Vec<f32> = (0..rank * channels).map(|_| rng.random_range(-1.0..=1.0_f32) * bound).collect();
            parameter(Tensor::from_data(TensorData::new(values, [rank, channels]), device))
        };
        let (query_a, value_a) = (narrow(), narrow());
        let wide = || parameter(Tensor::zeros([channels, rank], device));
        let place = Place { index, name, alpha, order, heads };
        Self { query_a, query_b: wide(), value_a, value_b: wide(), place }
    }

    /// What is added to the weight, `[3 C, C]`.
    fn update(&self) -> Tensor<2> {
        let product = |a: &Param<Tensor<2>>, b: &Param<Tensor<2>>| b.val().matmul(a.val()) * self.place.alpha;
        let (query, value) = (product(&self.query_a, &self.query_b), product(&self.value_a, &self.value_b));
        let [channels, _] = query.dims();
        let key = Tensor::zeros([channels, channels], &query.device());
        match self.place.order {
            QkvOrder::PartsFirst => Tensor::cat(vec![query, key, value], 0),
            QkvOrder::HeadsFirst => {
                let heads = self.place.heads;
                let by_head = |x: Tensor<2>| x.reshape([heads, 1, channels / heads, channels]);
                Tensor::cat([query, key, value].map(by_head).to_vec(), 1).reshape([3 * channels, channels])
            }
        }
    }

    /// Both products by µSAM's names.
    pub(crate) fn tensors(&self) -> Vec<NamedTensor> {
        let name = self.place.name.strip_prefix("network.").unwrap_or(&self.place.name);
        let base = name.strip_prefix("sam.").unwrap_or(name).trim_end_matches("weight");
        [
            ("w_a_linear_q", &self.query_a),
            ("w_b_linear_q", &self.query_b),
            ("w_a_linear_v", &self.value_a),
            ("w_b_linear_v", &self.value_b),
        ]
        .map(|(key, param)| {
            let tensor = param.val();
            (format!("{base}{key}.weight"), tensor.dims().to_vec(), values(tensor))
        })
        .to_vec()
    }
}

fn parameter(tensor: Tensor<2>) -> Param<Tensor<2>> {
    // Whether it is trained is configured state, kept on a device without gradients too.
    Param::initialized(ParamId::new(), tensor).set_require_grad(true)
}

/// The network with the adapters' updates in its weights; gradients flow to the adapters.
pub(crate) fn merged<M: Module>(network: M, adapters: &[Adapter]) -> M {
    if adapters.is_empty() {
        return network;
    }
    network.map(&mut Merge { adapters, next: 0 })
}

struct Merge<'a> {
    adapters: &'a [Adapter],
    next: usize,
}

impl ModuleMapper for Merge<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.next;
        self.next += 1;
        match self.adapters.iter().find(|adapter| adapter.place.index == index) {
            Some(adapter) => param.map(|weight| {
                let shape = weight.dims();
                weight + adapter.update().reshape(shape)
            }),
            None => param,
        }
    }
}
