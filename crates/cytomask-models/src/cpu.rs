//! Tensors of the CPU backend as plain slices, for the loops of `cytomask-kernels`. [`crate::layers`] asks [`takes`] first; what
//! it refuses (GPUs, gradients, machines without wide vectors) runs on the framework's own operations.

use std::sync::Arc;

use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, Device, Tensor, TensorData},
};
use cytomask_kernels::{
    self as kernels, Activation, AttentionShape, Conv2dShape, Level, Map, Packed, Packed8, Packed16, SplitWeight,
    Weight3x3, Weight8,
};

use crate::{
    layers::{self, Around, MapAttention, Positions, QkvOrder},
    precision::Precision,
    prepared::{ConvForm, LinearForm, Prepared},
};

/// Whether a tensor can be handed to a plain loop: `f32` in main memory, and no gradient is wanted.
pub(crate) fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex() && !x.is_autodiff()
}

/// Whether the kernels compute a product of these two. Without AVX2 or NEON the framework's products are the
/// faster ones.
pub(crate) fn takes<const A: usize, const B: usize>(x: &Tensor<A>, weight: &Tensor<B>) -> bool {
    Level::best() > Level::Portable && is_plain(x) && is_plain(weight)
}

/// A plain tensor as the backend holds it.
fn primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    match x.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(error) => unreachable!("device and type were checked: {error:?}"),
    }
}

/// The values of a plain tensor, row-major: the backend's own memory if they lie there in this order, else a copy.
#[derive(Clone, Debug)]
pub(crate) struct Values(FlexTensor);

impl From<FlexTensor> for Values {
    fn from(tensor: FlexTensor) -> Self {
        Self(if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
    }
}

impl Values {
    fn of<const D: usize>(x: Tensor<D>) -> Self {
        primitive(x).into()
    }

    pub(crate) fn slice(&self) -> &[f32] {
        match self.0.as_slice::<f32>() {
            Some(values) => values,
            None => unreachable!("type and order were checked"),
        }
    }

    /// Hands the memory on to a later result, unless someone else still needs it.
    pub(crate) fn release(self) {
        let whole = self.0.bytes().len() == size_of_val(self.slice());
        if whole && self.0.is_unique() {
            kernels::buffers::give(self.into_vec());
        }
    }

    /// As the backend holds them.
    #[cfg(feature = "autodiff")]
    pub(crate) fn into_tensor(self) -> FlexTensor {
        self.0
    }

    /// As a vector: without a copy where nobody else refers to the memory.
    pub(crate) fn into_vec(self) -> Vec<f32> {
        self.0.into_data().try_into_vec().unwrap_or_default()
    }
}

fn activation(activation: layers::Activation) -> Activation {
    match activation {
        layers::Activation::None => Activation::None,
        layers::Activation::Relu => Activation::Relu,
        layers::Activation::Gelu => Activation::Gelu,
    }
}

/// What is kept for a weight and the four vectors of the norm after it.
pub(crate) fn prepared<F: Clone>(
    kept: &Prepared<F>,
    weight: &Tensor<4>,
    norm: [Tensor<1>; 4],
    make: impl FnOnce() -> F,
) -> F {
    let (weight, [a, b, c, d]) = (primitive(weight.clone()), norm.map(primitive));
    F::clone(&kept.of([&weight, &a, &b, &c, &d], make))
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Changes the values of a tensor.
pub(crate) fn in_place<const D: usize>(x: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let mut data = x.into_data();
    match data.as_mut_slice::<f32>() {
        Ok(values) => change(values),
        Err(error) => unreachable!("the type was checked: {error:?}"),
    }
    Tensor::from_data(data, &Device::flex())
}

/// The weight is brought into order for this call.
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let (mut dims, [c_out, c_in]) = (x.dims(), weight.dims());
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let bias = bias.as_ref().map(Values::slice);
    let y = kernels::linear(x.slice(), weight.slice(), [c_out, c_in], bias, Activation::None);
    x.release();
    dims[D - 1] = c_out;
    tensor(y, dims)
}

/// The weight in order, in the format given.
fn linear_form(weight: Tensor<2>, prepared: &Prepared<LinearForm>, precision: Precision) -> Arc<LinearForm> {
    let shape = weight.dims();
    let weight = primitive(weight);
    prepared.of([&weight], || {
        let weight = Values::from(weight.clone());
        match precision {
            Precision::Int8 if Packed8::holds(shape[1]) => LinearForm::Int8(Packed8::from_rows(weight.slice(), shape)),
            Precision::Bf16 => LinearForm::Bf16(Packed16::from_rows(weight.slice(), shape)),
            _ => LinearForm::F32(Packed::from_rows(weight.slice(), shape)),
        }
    })
}

/// A tensor of the weight's shape that holds one value, not a number, and what stands for it: the weight in order.
pub(crate) fn released_linear(
    weight: Tensor<2>,
    prepared: &Prepared<LinearForm>,
    precision: Precision,
) -> (Tensor<2>, Prepared<LinearForm>) {
    let placeholder = Tensor::<2>::full([1, 1], f32::NAN, &Device::flex()).expand(weight.dims());
    let form = linear_form(weight, prepared, precision);
    let prepared = Prepared::standing_for(&primitive(placeholder.clone()), form);
    (placeholder, prepared)
}

/// The weight is brought into order once, in the format given.
pub(crate) fn prepared_linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    (prepared, precision): (&Prepared<LinearForm>, Precision),
    around: Around<'_, D>,
) -> Tensor<D> {
    let (mut dims, shape) = (x.dims(), weight.dims());
    let (x, bias) = (Values::of(x), bias.map(Values::of));
    let form = linear_form(weight, prepared, precision);
    let norm =
        around.norm.map(|norm| (Values::of(norm.weight.val()), Values::of(norm.bias.val()), norm.epsilon() as f32));
    let residual = around.residual.map(Values::of);
    let norm = norm.as_ref().map(|(weight, bias, eps)| kernels::LayerNorm {
        weight: weight.slice(),
        bias: bias.slice(),
        eps: *eps,
    });
    let around = kernels::Around {
        norm,
        bias: bias.as_ref().map(Values::slice),
        activation: activation(around.activation),
        residual: residual.as_ref().map(Values::slice),
    };
    let y = match &*form {
        LinearForm::F32(packed) => kernels::multiply_around(x.slice(), packed, &around),
        LinearForm::Bf16(packed) => kernels::multiply16_around(x.slice(), packed, &around),
        LinearForm::Int8(packed) => kernels::multiply8_around(x.slice(), packed, &around),
    };
    x.release();
    residual.into_iter().for_each(Values::release);
    dims[D - 1] = shape[0];
    tensor(y, dims)
}

/// Sizes of a convolution of `x`.
pub(crate) fn conv_shape(x: &Tensor<4>, weight: &Tensor<4>, stride: usize, padding: usize) -> Conv2dShape {
    let ([n, c_in, h, w], [c_out, _, kernel_h, kernel_w]) = (x.dims(), weight.dims());
    Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding }
}

pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    depthwise: bool,
    after: layers::Activation,
) -> Tensor<4> {
    let shape = conv_shape(&x, &weight, stride, padding);
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let bias = bias.as_ref().map(Values::slice);
    let run = if depthwise { kernels::depthwise2d } else { kernels::conv2d };
    let y = run(x.slice(), &shape, weight.slice(), bias, activation(after));
    x.release();
    let [out_h, out_w] = shape.out_size();
    tensor(y, [shape.n, shape.c_out, out_h, out_w])
}

/// One filter for each channel of maps whose channels lie last.
pub(crate) fn depthwise2d_last(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    after: layers::Activation,
) -> Tensor<4> {
    let ([n, h, w, c], [_, _, kernel_h, kernel_w]) = (x.dims(), weight.dims());
    let shape = Conv2dShape { n, c_in: c, size: [h, w], c_out: c, kernel: [kernel_h, kernel_w], stride, padding };
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let bias = bias.as_ref().map(Values::slice);
    let y = kernels::depthwise2d_last(x.slice(), &shape, weight.slice(), bias, activation(after));
    x.release();
    let [out_h, out_w] = shape.out_size();
    tensor(y, [n, out_h, out_w, c])
}

/// Whether a convolution of stride 1 in this format has a weight of its own order.
pub(crate) fn conv_is_prepared(weight: &Tensor<4>, precision: Precision) -> bool {
    let [c_out, c_in, kernel_h, kernel_w] = weight.dims();
    let shape = Conv2dShape { n: 1, c_in, size: [1; 2], c_out, kernel: [kernel_h, kernel_w], stride: 1, padding: 0 };
    Weight3x3::suits(&shape) || precision == Precision::Int8 && Weight8::holds(c_in, shape.kernel)
}

/// The weight in the order of its loop. With few input channels a quarter of the products in `f32` takes less time than all of them
/// in 8 bits (docs/benchmarks.md).
fn conv_form(weight: &Values, shape: &Conv2dShape, precision: Precision) -> ConvForm {
    let channels = [shape.c_out, shape.c_in];
    let points = Weight3x3::suits(shape) && shape.c_in < 256;
    if precision == Precision::Int8 && !points && Weight8::holds(shape.c_in, shape.kernel) {
        return ConvForm::Int8(Weight8::new(weight.slice(), channels, shape.kernel));
    }
    ConvForm::Points(Weight3x3::new(weight.slice(), channels))
}

/// A convolution of stride 1; the weight is brought into order once, in the format given.
pub(crate) fn prepared_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    padding: usize,
    (prepared, precision): (&Prepared<ConvForm>, Precision),
    after: layers::Activation,
) -> Tensor<4> {
    let shape = conv_shape(&x, &weight, 1, padding);
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let form = prepared.of([&weight.0], || conv_form(&weight, &shape, precision));
    let (bias, after) = (bias.as_ref().map(Values::slice), activation(after));
    let y = match &*form {
        ConvForm::Points(weight) => {
            let maps = Map::all(x.slice(), shape.size[0] * shape.size[1]);
            kernels::conv3x3(&maps, &shape, weight, bias, after)
        }
        ConvForm::Int8(weight) => kernels::conv2d8(x.slice(), &shape, weight, bias, after),
    };
    x.release();
    let [out_h, out_w] = shape.out_size();
    tensor(y, [shape.n, shape.c_out, out_h, out_w])
}

/// [`prepared_conv2d`] of the instance norm of several maps side by side along the channels, which is applied as they are read.
pub(crate) fn normed_conv2d(
    parts: Vec<Tensor<4>>,
    eps: f64,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    padding: usize,
    (prepared, precision): (&Prepared<ConvForm>, Precision),
    after: layers::Activation,
) -> Tensor<4> {
    let mut shape = conv_shape(&parts[0], &weight, 1, padding);
    let pixels = shape.size[0] * shape.size[1];
    let channels: Vec<usize> = parts.iter().map(|part| part.dims()[1]).collect();
    shape.c_in = channels.iter().sum();
    let values = Values::of(weight.clone());
    let form = prepared.of([&values.0], || conv_form(&values, &shape, precision));
    let ConvForm::Points(form) = &*form else {
        return prepared_conv2d(instance_norm(parts, eps), weight, bias, padding, (prepared, precision), after);
    };
    let bias = bias.map(Values::of);
    let parts: Vec<Values> = parts.into_iter().map(Values::of).collect();
    let lines: Vec<Vec<[f32; 2]>> =
        parts.iter().map(|part| kernels::instance_norm_lines(part.slice(), pixels, eps as f32)).collect();
    let mut maps = Vec::with_capacity(shape.n * shape.c_in);
    for image in 0..shape.n {
        for ((part, lines), channels) in parts.iter().zip(&lines).zip(&channels) {
            let values = part.slice().chunks_exact(pixels.max(1)).zip(lines).skip(image * channels).take(*channels);
            maps.extend(values.map(|(values, &[factor, offset])| Map { values, factor, offset }));
        }
    }
    let y = kernels::conv3x3(&maps, &shape, form, bias.as_ref().map(Values::slice), activation(after));
    parts.into_iter().for_each(Values::release);
    let [out_h, out_w] = shape.out_size();
    tensor(y, [shape.n, shape.c_out, out_h, out_w])
}

pub(crate) fn conv_transpose2x2(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    prepared: &Prepared<SplitWeight>,
) -> Tensor<4> {
    let ([n, c_in, h, w], [_, c_out, _, _]) = (x.dims(), weight.dims());
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let split = prepared.of([&weight.0], || SplitWeight::new(weight.slice(), [c_in, c_out]));
    let bias = bias.as_ref().map(Values::slice);
    let y = kernels::conv_transpose2x2(x.slice(), [n, c_in, h, w], &split, bias, Activation::None);
    x.release();
    tensor(y, [n, c_out, 2 * h, 2 * w])
}

pub(crate) fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let dims = x.dims();
    let (x, weight, bias) = (Values::of(x), Values::of(weight), Values::of(bias));
    let y = kernels::layer_norm(x.slice(), weight.slice(), bias.slice(), eps as f32);
    x.release();
    tensor(y, dims)
}

pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    let ([n, heads, queries, head], [_, _, keys, _]) = (q.dims(), k.dims());
    let shape = AttentionShape { batch: n * heads, queries, keys, head };
    let [q, k, v] = [q, k, v].map(Values::of);
    let bias = bias.map(Values::of);
    let scale = (head as f32).sqrt().recip();
    let parts = [q.slice(), k.slice(), v.slice()];
    let y = kernels::attention(parts, &shape, scale, bias.as_ref().map(Values::slice));
    tensor(y, [n, heads, queries, head])
}

pub(crate) fn relative_attention(parts: [Tensor<3>; 3], terms: [Tensor<3>; 2], scale: f64) -> Tensor<3> {
    let [batch, tokens, head] = parts[0].dims();
    let [h, w] = [&terms[0], &terms[1]].map(|term| term.dims()[2]);
    let shape = AttentionShape { batch, queries: tokens, keys: tokens, head };
    let [q, k, v] = parts.map(Values::of);
    let [relative_h, relative_w] = terms.map(Values::of);
    let parts = [q.slice(), k.slice(), v.slice()];
    let y = kernels::relative_attention(parts, &shape, scale as f32, [relative_h.slice(), relative_w.slice()], [h, w]);
    tensor(y, [batch, tokens, head])
}

/// What an attention among the tokens of a map takes beside them.
#[derive(Clone, Debug)]
pub(crate) struct MapParts {
    /// Of queries, keys and values, `[N, h, w, 3 C]`.
    pub(crate) dims: [usize; 4],
    pub(crate) heads: usize,
    pub(crate) order: QkvOrder,
    pub(crate) window: Option<usize>,
    pub(crate) outside: Option<Values>,
    /// A table, or rows and columns.
    pub(crate) terms: [Option<Values>; 2],
}

impl MapParts {
    pub(crate) fn shape(&self) -> kernels::MapAttention<'_> {
        let [n, h, w, channels] = self.dims;
        let head = channels / 3 / self.heads;
        kernels::MapAttention {
            n,
            map: [h, w],
            window: self.window.map_or([h, w], |side| [side; 2]),
            heads: self.heads,
            head,
            order: match self.order {
                QkvOrder::PartsFirst => kernels::QkvOrder::PartsFirst,
                QkvOrder::HeadsFirst => kernels::QkvOrder::HeadsFirst,
            },
            scale: (head as f32).sqrt().recip(),
            outside: self.outside.as_ref().map(Values::slice),
            positions: match &self.terms {
                [Some(rows), Some(columns)] => {
                    kernels::Positions::Relative { rows: rows.slice(), columns: columns.slice() }
                }
                [Some(table), None] => kernels::Positions::Table(table.slice()),
                [None, _] => kernels::Positions::None,
            },
        }
    }
}

/// Attention among the tokens of a map; see [`layers::map_attention`].
pub(crate) fn map_attention(qkv: Tensor<4>, attention: MapAttention) -> Tensor<4> {
    let dims = qkv.dims();
    let product = if attention.in_8_bits() { kernels::map_attention8 } else { kernels::map_attention };
    let MapAttention { heads, order, window, outside, positions, precision: _ } = attention;
    let (qkv, outside) = (Values::of(qkv), outside.map(Values::of));
    let terms = match positions {
        Positions::Relative { rows, columns } => [Some(rows), Some(columns)].map(|table| table.map(Values::of)),
        Positions::Table(table) => [Some(Values::of(table)), None],
    };
    let y = product(qkv.slice(), &MapParts { dims, heads, order, window, outside, terms }.shape());
    qkv.release();
    let [n, h, w, channels] = dims;
    tensor(y, [n, h, w, channels / 3])
}

pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_place(x, kernels::gelu)
}

/// The instance norm of several maps, side by side along the channels.
pub(crate) fn instance_norm(parts: Vec<Tensor<4>>, eps: f64) -> Tensor<4> {
    let [n, _, h, w] = parts[0].dims();
    let widths: Vec<usize> = parts.iter().map(|part| part.dims()[1] * h * w).collect();
    let all: usize = widths.iter().sum();
    let mut y = kernels::buffers::take(n * all);
    let mut first = 0;
    for (part, width) in parts.into_iter().map(Values::of).zip(widths) {
        for image in 0..n {
            let values = &part.slice()[image * width..][..width];
            kernels::instance_norm(values, h * w, eps as f32, &mut y[image * all + first..][..width]);
        }
        part.release();
        first += width;
    }
    tensor(y, [n, all / (h * w).max(1), h, w])
}

pub(crate) fn batch_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    after: layers::Activation,
) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    let (weight, bias) = (Values::of(weight), Values::of(bias));
    in_place(x, |x| kernels::batch_norm(x, h * w, weight.slice(), bias.slice(), eps as f32, activation(after)))
}

pub(crate) fn upsample2(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x = Values::of(x);
    let y = kernels::upsample2(x.slice(), [h, w]);
    x.release();
    tensor(y, [n, c, 2 * h, 2 * w])
}
