//! The linear map.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use cytomask_kernels::{Activation, backward, linear as forward};

use super::{
    operation::{Operation, absent, flex, record},
    recorded, strategy, tensor,
};
use crate::cpu::Values;

#[derive(Clone, Debug)]
struct Linear<const D: usize> {
    x: Values,
    weight: Values,
    dims: [usize; D],
    /// `[C_out, C_in]`
    shape: [usize; 2],
}

impl<const D: usize> Operation<3> for Linear<D> {
    fn back(self, dy: Values, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, dims, shape } = self;
        let found = [
            of_x.then(|| flex(backward::linear_input_gradient(dy.slice(), weight.slice(), shape), dims)),
            of_weight.then(|| flex(backward::linear_weight_gradient(dy.slice(), x.slice(), shape), shape)),
            of_bias.then(|| flex(backward::column_sums(dy.slice(), shape[0]), [shape[0]])),
        ];
        x.release();
        dy.release();
        found
    }
}

/// See [`crate::layers::linear`].
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let strategy = strategy(&x);
    let (dims, shape, has_bias) = (x.dims(), weight.dims(), bias.is_some());
    let inputs = [recorded(x), recorded(weight), bias.map_or_else(absent, recorded)];
    tensor(
        record(inputs, |inputs| {
            let [x, weight, bias] = inputs.map(Values::from);
            let y = forward(x.slice(), weight.slice(), shape, has_bias.then(|| bias.slice()), Activation::None);
            let mut out = dims;
            out[D - 1] = shape[0];
            (flex(y, out), Linear { x, weight, dims, shape })
        }),
        strategy,
    )
}
