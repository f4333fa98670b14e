//! Activations and ×2.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use cytomask_kernels::{backward, buffers, gelu as smooth, relu as rectify, upsample2 as double};

use super::{
    operation::{Operation, flex, record},
    recorded, strategy, tensor,
};
use crate::cpu::Values;

#[derive(Clone, Debug)]
struct Gelu<const D: usize> {
    x: Values,
    dims: [usize; D],
}

impl<const D: usize> Operation<1> for Gelu<D> {
    fn back(self, dy: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut gradient = dy.into_vec();
        backward::gelu_gradient(self.x.slice(), &mut gradient);
        self.x.release();
        [Some(flex(gradient, self.dims))]
    }
}

/// See [`crate::layers::gelu`].
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let strategy = strategy(&x);
    let dims = x.dims();
    tensor(
        record([recorded(x)], |[x]| {
            let x = Values::from(x);
            let mut y = buffers::take(x.slice().len());
            y.copy_from_slice(x.slice());
            smooth(&mut y);
            (flex(y, dims), Gelu { x, dims })
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct Relu<const D: usize> {
    y: FlexTensor,
    dims: [usize; D],
}

impl<const D: usize> Operation<1> for Relu<D> {
    fn back(self, dy: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut gradient = dy.into_vec();
        backward::relu_gradient(Values::from(self.y).slice(), &mut gradient);
        [Some(flex(gradient, self.dims))]
    }
}

/// See [`crate::layers::relu`].
pub(crate) fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let strategy = strategy(&x);
    let dims = x.dims();
    tensor(
        record([recorded(x)], |[x]| {
            // In place where nobody else needs the input.
            let mut values = Values::from(x).into_vec();
            rectify(&mut values);
            let y = flex(values, dims);
            (y.clone(), Relu { y, dims })
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct Double {
    dims: [usize; 4],
}

impl Operation<1> for Double {
    fn back(self, dy: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let [_, _, h, w] = self.dims;
        let found = backward::upsample2_gradient(dy.slice(), [h, w]);
        dy.release();
        [Some(flex(found, self.dims))]
    }
}

/// See [`crate::layers::upsample2`].
pub(crate) fn upsample2(x: Tensor<4>) -> Tensor<4> {
    let strategy = strategy(&x);
    let dims = x.dims();
    tensor(
        record([recorded(x)], |[x]| {
            let [n, c, h, w] = dims;
            let y = double(Values::from(x).slice(), [h, w]);
            (flex(y, [n, c, 2 * h, 2 * w]), Double { dims })
        }),
        strategy,
    )
}
