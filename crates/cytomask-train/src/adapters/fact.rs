//! FacT (Jie and Deng, AAAI 2023, "FacT-TT"): queries and values of all blocks gain `alpha · V Σ U` with outer matrices that the blocks share
//! and a small inner one for each. TinyViT's stages have widths of their own and so share by width.
//!
//! µSAM's has outer matrices of its own in every block, none of them zero at first, and dropout: docs/decisions/0049-other-adapters.md.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use cytomask_models::loading::NamedTensor;
use rand::Rng;

use super::{Change, Method, Place, drawn, named, trained};

/// All updates.
#[derive(Module, Debug)]
pub(crate) struct Fact {
    shared: Vec<Outer>,
    blocks: Vec<Inner>,
    #[module(skip)]
    alpha: f32,
}

/// What blocks of one width share.
#[derive(Module, Debug)]
struct Outer {
    /// `[rank, C]`
    u: Param<Tensor<2>>,
    /// `[C, rank]`
    v: Param<Tensor<2>>,
}

/// One block's.
#[derive(Module, Debug)]
struct Inner {
    /// `[rank, rank]`
    query: Param<Tensor<2>>,
    /// `[rank, rank]`
    value: Param<Tensor<2>>,
    /// Index into [`Fact::shared`].
    #[module(skip)]
    outer: usize,
    #[module(skip)]
    place: Place,
}

impl Fact {
    /// U and Σ as PyTorch fills a linear layer, V zero: the network is what it was.
    pub(super) fn new((rank, alpha): (usize, f32), places: Vec<Place>, rng: &mut impl Rng, device: &Device) -> Self {
        let mut widths: Vec<usize> = places.iter().map(|place| place.shape[1]).collect();
        widths.sort_unstable();
        widths.dedup();
        let mut shared = Vec::new();
        for &width in &widths {
            let v = trained(Tensor::zeros([width, rank], device));
            shared.push(Outer { u: drawn([rank, width], rng, device), v });
        }
        let mut blocks = Vec::new();
        for place in places {
            let outer = widths.iter().position(|&width| width == place.shape[1]).unwrap_or_default();
            let [query, value] = [(); 2].map(|()| drawn([rank; 2], rng, device));
            blocks.push(Inner { query, value, outer, place });
        }
        Self { shared, blocks, alpha }
    }
}

impl Method for Fact {
    fn changes(&self) -> BTreeMap<usize, Change> {
        let change = |Inner { query, value, outer, place }: &Inner| {
            let Outer { u, v } = &self.shared[*outer];
            let product = |inner: &Param<Tensor<2>>| v.val().matmul(inner.val().matmul(u.val())) * self.alpha;
            let term = place.joined([Some(product(query)), None, Some(product(value))], &u.val().device());
            (place.index, Change { factor: None, term: Some(term) })
        };
        self.blocks.iter().map(change).collect()
    }

    /// The outer matrices again for every block, as µSAM has them.
    fn tensors(&self) -> Vec<NamedTensor> {
        let of_block = |Inner { query, value, outer, place }: &Inner| {
            let Outer { u, v } = &self.shared[*outer];
            [("FacTu", u), ("FacTv", v), ("q_FacTs", query), ("v_FacTs", value)]
                .map(|(key, param)| named(format!("{}{key}.weight", place.layer()), param.val()))
        };
        self.blocks.iter().flat_map(of_block).collect()
    }
}
