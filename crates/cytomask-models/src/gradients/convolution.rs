//! Convolutions.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use cytomask_kernels::{
    Activation, Conv2dShape, SplitWeight, backward, conv_transpose2x2 as split, conv2d as full, depthwise2d,
};

use super::{
    operation::{Operation, absent, flex, record},
    recorded, strategy, tensor,
};
use crate::cpu::{Values, conv_shape};

#[derive(Clone, Debug)]
struct Convolution {
    x: Values,
    weight: Values,
    shape: Conv2dShape,
    depthwise: bool,
}

impl Operation<3> for Convolution {
    fn back(self, dy: Values, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, shape, depthwise } = self;
        let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], .. } = shape;
        let [out_h, out_w] = shape.out_size();
        let of_input = if depthwise { backward::depthwise2d_input_gradient } else { backward::conv2d_input_gradient };
        let of_filters =
            if depthwise { backward::depthwise2d_weight_gradient } else { backward::conv2d_weight_gradient };
        let weight_shape = [c_out, if depthwise { 1 } else { c_in }, kernel_h, kernel_w];
        let found = [
            of_x.then(|| flex(of_input(dy.slice(), &shape, weight.slice()), [n, c_in, h, w])),
            of_weight.then(|| flex(of_filters(x.slice(), dy.slice(), &shape), weight_shape)),
            of_bias.then(|| flex(backward::map_sums(dy.slice(), c_out, out_h * out_w), [c_out])),
        ];
        x.release();
        dy.release();
        found
    }
}

/// Whether [`conv2d`] takes a kernel.
pub(crate) fn holds([kernel_h, kernel_w]: [usize; 2], padding: usize) -> bool {
    kernel_h == kernel_w && padding < kernel_h
}

/// See [`crate::layers::conv2d`]; without activation.
pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    depthwise: bool,
) -> Tensor<4> {
    let strategy = strategy(&x);
    let (shape, has_bias) = (conv_shape(&x, &weight, stride, padding), bias.is_some());
    let inputs = [recorded(x), recorded(weight), bias.map_or_else(absent, recorded)];
    tensor(
        record(inputs, |inputs| {
            let [x, weight, bias] = inputs.map(Values::from);
            let run = if depthwise { depthwise2d } else { full };
            let y = run(x.slice(), &shape, weight.slice(), has_bias.then(|| bias.slice()), Activation::None);
            let [out_h, out_w] = shape.out_size();
            (flex(y, [shape.n, shape.c_out, out_h, out_w]), Convolution { x, weight, shape, depthwise })
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct Split {
    x: Values,
    weight: Values,
    /// Of the convolution that goes the other way.
    shape: Conv2dShape,
}

impl Operation<3> for Split {
    fn back(self, dy: Values, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, shape } = self;
        let Conv2dShape { n, c_in, size: [h, w], c_out, .. } = shape;
        let input = || full(dy.slice(), &shape, weight.slice(), None, Activation::None);
        let found = [
            of_x.then(|| flex(input(), [n, c_out, h / 2, w / 2])),
            of_weight
                .then(|| flex(backward::conv2d_weight_gradient(dy.slice(), x.slice(), &shape), [c_out, c_in, 2, 2])),
            of_bias.then(|| flex(backward::map_sums(dy.slice(), c_in, h * w), [c_in])),
        ];
        x.release();
        dy.release();
        found
    }
}

/// See [`crate::layers::ConvTranspose2d`]: kernel and stride 2.
pub(crate) fn conv_transpose2x2(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let strategy = strategy(&x);
    let ([n, c_in, h, w], [_, c_out, _, _], has_bias) = (x.dims(), weight.dims(), bias.is_some());
    let shape =
        Conv2dShape { n, c_in: c_out, size: [2 * h, 2 * w], c_out: c_in, kernel: [2, 2], stride: 2, padding: 0 };
    let inputs = [recorded(x), recorded(weight), bias.map_or_else(absent, recorded)];
    tensor(
        record(inputs, |inputs| {
            let [x, weight, bias] = inputs.map(Values::from);
            let form = SplitWeight::new(weight.slice(), [c_in, c_out]);
            let bias = has_bias.then(|| bias.slice());
            let y = split(x.slice(), [n, c_in, h, w], &form, bias, Activation::None);
            (flex(y, [n, c_out, 2 * h, 2 * w]), Split { x, weight, shape })
        }),
        strategy,
    )
}
