//! SSF (Lian et al., NeurIPS 2022): what layers give is scaled and shifted by channel, `scale ∘ y + shift`. For a linear layer, a layer norm or a
//! batch norm with fixed statistics that is the same layer with `scale ∘ W` and `scale ∘ b + shift`.
//!
//! µSAM draws scales around 1 and shifts around 0, so that training begins at another network than the one given:
//! docs/decisions/0049-other-adapters.md.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use cytomask_models::loading::NamedTensor;

use super::{Change, Method, Place, named, trained};

/// Scales and shifts of layers.
#[derive(Module, Debug)]
pub(crate) struct Ssf {
    layers: Vec<ScaleShift>,
}

/// Of one layer with weight and bias.
#[derive(Module, Debug)]
struct ScaleShift {
    /// The scale less 1, so that weight decay draws it to the network given, `[C]`.
    growth: Param<Tensor<1>>,
    /// `[C]`
    shift: Param<Tensor<1>>,
    #[module(skip)]
    weight: Place,
    #[module(skip)]
    bias: Place,
}

impl Ssf {
    /// Scales 1, shifts 0: the network is what it was. Weights without a bias are left as they are.
    pub(super) fn new(places: Vec<Place>, device: &Device) -> Self {
        let mut layers = Vec::new();
        for weight in places.iter().filter(|place| place.name.ends_with(".weight")) {
            let name = format!("{}bias", weight.name.trim_end_matches("weight"));
            let Some(bias) = places.iter().find(|place| place.name == name) else { continue };
            let [growth, shift] = [(); 2].map(|()| trained(Tensor::zeros([weight.shape[0]], device)));
            layers.push(ScaleShift { growth, shift, weight: weight.clone(), bias: bias.clone() });
        }
        Self { layers }
    }
}

impl ScaleShift {
    fn scale(&self) -> Tensor<1> {
        self.growth.val() + 1.0
    }
}

impl Method for Ssf {
    fn changes(&self) -> BTreeMap<usize, Change> {
        let of_layer = |layer: &ScaleShift| {
            let (factor, shift) = (Some(layer.scale()), layer.shift.val().unsqueeze::<2>());
            [
                (layer.weight.index, Change { factor: factor.clone(), term: None }),
                (layer.bias.index, Change { factor, term: Some(shift) }),
            ]
        };
        self.layers.iter().flat_map(of_layer).collect()
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let of_layer = |layer: &ScaleShift| {
            let name = |what: &str| format!("{}{what}", layer.weight.layer());
            [named(name("scale"), layer.scale()), named(name("shift"), layer.shift.val())]
        };
        self.layers.iter().flat_map(of_layer).collect()
    }
}
