//! Norms.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use cytomask_kernels::{
    Activation, backward, batch_norm as over_batch, buffers, instance_norm as over_map, layer_norm as over_row,
};

use super::{
    operation::{Operation, flex, record},
    recorded, strategy, tensor,
};
use crate::cpu::Values;

#[derive(Clone, Debug)]
struct LayerNorm<const D: usize> {
    x: Values,
    weight: Values,
    dims: [usize; D],
    eps: f32,
}

impl<const D: usize> Operation<3> for LayerNorm<D> {
    fn back(self, dy: Values, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, dims, eps } = self;
        let found = backward::layer_norm_gradients(x.slice(), dy.slice(), weight.slice(), eps);
        x.release();
        dy.release();
        three(found, dims, wanted)
    }
}

/// Gradients of an input, a weight and a bias.
fn three<const D: usize>(
    [of_x, of_weight, of_bias]: [Vec<f32>; 3],
    dims: [usize; D],
    wanted: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let channels = of_weight.len();
    [
        wanted[0].then(|| flex(of_x, dims)),
        wanted[1].then(|| flex(of_weight, [channels])),
        wanted[2].then(|| flex(of_bias, [channels])),
    ]
}

/// See [`crate::layers::layer_norm`].
pub(crate) fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let strategy = strategy(&x);
    let (dims, eps) = (x.dims(), eps as f32);
    tensor(
        record([recorded(x), recorded(weight), recorded(bias)], |inputs| {
            let [x, weight, bias] = inputs.map(Values::from);
            let y = over_row(x.slice(), weight.slice(), bias.slice(), eps);
            (flex(y, dims), LayerNorm { x, weight, dims, eps })
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct BatchNorm {
    x: Values,
    weight: Values,
    dims: [usize; 4],
    eps: f32,
}

impl Operation<3> for BatchNorm {
    fn back(self, dy: Values, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, dims, eps } = self;
        let pixels = dims[2] * dims[3];
        let found = backward::batch_norm_gradients(x.slice(), dy.slice(), pixels, weight.slice(), eps);
        x.release();
        dy.release();
        three(found, dims, wanted)
    }
}

/// See [`crate::layers::BatchNorm2d::forward_batch_statistics`]; without activation.
pub(crate) fn batch_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<4> {
    let strategy = strategy(&x);
    let (dims, eps) = (x.dims(), eps as f32);
    tensor(
        record([recorded(x), recorded(weight), recorded(bias)], |inputs| {
            let [x, weight, bias] = inputs.map(Values::from);
            let mut y = buffers::take(x.slice().len());
            y.copy_from_slice(x.slice());
            over_batch(&mut y, dims[2] * dims[3], weight.slice(), bias.slice(), eps, Activation::None);
            (flex(y, dims), BatchNorm { x, weight, dims, eps })
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct InstanceNorm {
    x: Values,
    dims: [usize; 4],
    eps: f32,
}

impl Operation<1> for InstanceNorm {
    fn back(self, dy: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { x, dims, eps } = self;
        let found = backward::instance_norm_gradient(x.slice(), dy.slice(), dims[2] * dims[3], eps);
        x.release();
        dy.release();
        [Some(flex(found, dims))]
    }
}

/// See [`crate::layers::instance_norm`].
pub(crate) fn instance_norm(x: Tensor<4>, eps: f64) -> Tensor<4> {
    let strategy = strategy(&x);
    let (dims, eps) = (x.dims(), eps as f32);
    tensor(
        record([recorded(x)], |[x]| {
            let x = Values::from(x);
            let mut y = buffers::take(x.slice().len());
            over_map(x.slice(), dims[2] * dims[3], eps, &mut y);
            (flex(y, dims), InstanceNorm { x, dims, eps })
        }),
        strategy,
    )
}
