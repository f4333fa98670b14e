//! LoRA (Hu et al., ICLR 2022): weights gain a product of two narrow matrices, `W + alpha · B · A`. µSAM's are those of queries and values.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use cytomask_models::loading::NamedTensor;
use rand::Rng;

use super::{Change, Method, Place, QKV, drawn, named, trained};
use crate::settings::Matrix;

/// All updates.
#[derive(Module, Debug)]
pub(crate) struct Lora {
    weights: Vec<Updated>,
    #[module(skip)]
    alpha: f32,
}

/// A weight and its updates: of the whole of it one, of a projection to queries, keys and values one for each that was chosen.
#[derive(Module, Debug)]
struct Updated {
    pairs: Vec<Pair>,
    /// Which update each pair is of, in their order: 0, 1, 2 for queries, keys, values.
    #[module(skip)]
    parts: Vec<usize>,
    #[module(skip)]
    place: Place,
}

/// Two narrow matrices.
#[derive(Module, Debug)]
struct Pair {
    /// `[rank, C_in]`
    a: Param<Tensor<2>>,
    /// `[C_out, rank]`
    b: Param<Tensor<2>>,
}

impl Lora {
    /// A as PyTorch fills a linear layer, B zero: the network is what it was.
    pub(super) fn new(
        (rank, alpha): (usize, f32),
        matrices: &[Matrix],
        places: Vec<Place>,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let mut updated = |place: Place| {
            let [c_out, c_in] = [place.shape[0], place.shape[1]];
            let (parts, rows): (Vec<usize>, usize) = if place.name.ends_with(QKV) {
                let chosen = [Matrix::Q, Matrix::K, Matrix::V].map(|part| matrices.contains(&part));
                ((0..3).filter(|&part| chosen[part]).collect(), c_in)
            } else {
                (vec![0], c_out)
            };
            let mut pair = || {
                let a = drawn([rank, c_in], rng, device);
                Pair { a, b: trained(Tensor::zeros([rows, rank], device)) }
            };
            Updated { pairs: parts.iter().map(|_| pair()).collect(), parts, place }
        };
        Self { weights: places.into_iter().map(&mut updated).collect(), alpha }
    }
}

impl Method for Lora {
    fn changes(&self) -> BTreeMap<usize, Change> {
        let term = |Updated { pairs, parts, place }: &Updated| {
            let mut products = pairs.iter().map(|pair| pair.b.val().matmul(pair.a.val()) * self.alpha);
            if !place.name.ends_with(QKV) {
                return products.next();
            }
            let mut joined = [None, None, None];
            parts.iter().zip(products).for_each(|(&part, product)| joined[part] = Some(product));
            let device = pairs.first()?.a.val().device();
            Some(place.joined(joined, &device))
        };
        self.weights.iter().map(|updated| (updated.place.index, Change { factor: None, term: term(updated) })).collect()
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let mut tensors = Vec::new();
        for Updated { pairs, parts, place } in &self.weights {
            for (pair, &part) in pairs.iter().zip(parts) {
                let layer = place.layer();
                // `mlp.lin1.` → `mlp.` and 1; µSAM has no update of `attn.proj`.
                let (base, number) = match layer.trim_end_matches('.').rsplit_once(".mlp.") {
                    Some((block, inner)) => {
                        (format!("{block}.mlp."), Some(inner.trim_start_matches(char::is_alphabetic)))
                    }
                    None => (layer.to_owned(), place.name.ends_with(QKV).then(|| ["q", "k", "v"][part])),
                };
                let suffix = number.map_or_else(String::new, |number| format!("_{number}"));
                tensors.push(named(format!("{base}w_a_linear{suffix}.weight"), pair.a.val()));
                tensors.push(named(format!("{base}w_b_linear{suffix}.weight"), pair.b.val()));
            }
        }
        tensors
    }
}
