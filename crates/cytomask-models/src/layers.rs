//! Layers whose parameter names and layouts are those of the checkpoints, and the plain functions they call.
//!
//! Weights stay as PyTorch stores them (linear `[C_out, C_in]`, convolution `[C_out, C_in / groups, kH, kW]`), so that a
//! checkpoint is copied without a map and written back the same way. A new layer holds placeholder values (zeros; ones for
//! the weights of norms) that are not allocated before they are read: loading ViT-H never holds two copies.
//!
//! Every network of this crate computes through the functions of this file and no other. A faster implementation on one
//! device goes in here.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{
        Device, Tensor, TensorData, module as ops,
        ops::{
            AttentionModuleOptions, ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions, PadMode,
        },
    },
};

#[cfg(feature = "autodiff")]
use crate::gradients;
use crate::precision::Precision;
#[cfg(feature = "flex")]
use crate::{
    cpu,
    prepared::{ConvForm, LinearForm, Prepared},
};

/// Epsilon of the layer norms of SAM's image encoder and of all two-dimensional layer norms.
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// Epsilon of batch norms everywhere, and of PyTorch's layer norm where a network does not choose one.
pub const TORCH_NORM_EPS: f64 = 1e-5;

/// A trainable tensor filled with `value` when first read; loading replaces it before that.
pub fn parameter<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| Tensor::full(shape, value, device).set_require_grad(require_grad),
        device.clone(),
        true,
        shape.into(),
    )
}

/// A tensor that is stored with the weights but not trained (running statistics, fixed random projections).
pub fn buffer<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| Tensor::full(shape, value, device).set_require_grad(require_grad),
        device.clone(),
        false,
        shape.into(),
    )
}

/// What follows a linear map or a convolution, in the same pass where the device can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// [`relu`]
    Relu,
    /// [`gelu`]
    Gelu,
}

impl Activation {
    /// As a pass of its own.
    fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => x,
            Self::Relu => relu(x),
            Self::Gelu => gelu(x),
        }
    }
}

/// What surrounds a linear layer, in the same pass where the device can; see [`Linear::forward_around`].
#[derive(Clone, Debug)]
pub struct Around<'a, const D: usize> {
    /// Before it.
    pub norm: Option<&'a LayerNorm>,
    /// After it.
    pub activation: Activation,
    /// Added last.
    pub residual: Option<Tensor<D>>,
}

impl<const D: usize> Default for Around<'_, D> {
    fn default() -> Self {
        Self { norm: None, activation: Activation::None, residual: None }
    }
}

/// `x · weightᵀ + bias` over the last axis.
///
/// # Shapes
/// `x` `[..., C_in]`, `weight` `[C_out, C_in]`, `bias` `[C_out]` → `[..., C_out]`
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut dims = x.dims();
    let [c_out, c_in] = weight.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    #[cfg(feature = "flex")]
    if cpu::takes(&x, &weight) {
        return cpu::linear(x, weight, bias);
    }
    #[cfg(feature = "autodiff")]
    if gradients::takes(&x) && gradients::takes(&weight) {
        return gradients::linear(x, weight, bias);
    }
    // One product over all rows; a batched one would be cut into small pieces.
    let y = ops::linear(x.reshape([rows, c_in]), weight.transpose(), bias);
    dims[D - 1] = c_out;
    y.reshape(dims)
}

/// Two-dimensional convolution (cross-correlation), padded with zeros, and what follows it.
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `weight` `[C_out, C_in / groups, kH, kW]`, `bias` `[C_out]` → `[N, C_out, H', W']`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    groups: usize,
    activation: Activation,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    {
        let ([_, c_in, _, _], [c_out, _, _, _]) = (x.dims(), weight.dims());
        let depthwise = groups == c_in && groups == c_out;
        if (groups == 1 || depthwise) && cpu::takes(&x, &weight) {
            return cpu::conv2d(x, weight, bias, stride, padding, depthwise && groups > 1, activation);
        }
        #[cfg(feature = "autodiff")]
        if (groups == 1 || depthwise)
            && gradients::takes(&x)
            && gradients::takes(&weight)
            && gradients::holds([weight.dims()[2], weight.dims()[3]], padding)
        {
            return activation.apply(gradients::conv2d(x, weight, bias, stride, padding, depthwise && groups > 1));
        }
    }
    activation.apply(ops::conv2d(x, weight, bias, ConvOptions::new([stride; 2], [padding; 2], [1, 1], groups)))
}

/// Transposed convolution without padding.
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `weight` `[C_in, C_out, kH, kW]`, `bias` `[C_out]` → `[N, C_out, H', W']`
pub fn conv_transpose2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, stride: usize) -> Tensor<4> {
    ops::conv_transpose2d(x, weight, bias, ConvTransposeOptions::new([stride; 2], [0, 0], [0, 0], [1, 1], 1))
}

/// Layer norm over the last axis (biased variance).
///
/// # Shapes
/// `x` `[..., C]`, `weight` and `bias` `[C]` → `[..., C]`
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if cpu::is_plain(&x) && cpu::is_plain(&weight) {
        return cpu::layer_norm(x, weight, bias, eps);
    }
    #[cfg(feature = "autodiff")]
    if gradients::takes(&x) && gradients::takes(&weight) {
        return gradients::layer_norm(x, weight, bias, eps);
    }
    ops::layer_norm(x, weight, Some(bias), eps)
}

/// Layer norm over the channels of each pixel.
///
/// # Shapes
/// `x` `[N, C, H, W]`, `weight` and `bias` `[C]` → `[N, C, H, W]`
pub fn layer_norm2d(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<4> {
    layer_norm(x.permute([0, 2, 3, 1]), weight, bias, eps).permute([0, 3, 1, 2])
}

/// Norm of each channel of each image over its pixels (biased variance), without weights, epsilon [`TORCH_NORM_EPS`], of several
/// maps joined along the channels.
///
/// # Shapes
/// `[N, C_i, H, W]`, at least one → `[N, Σ C_i, H, W]`
pub fn instance_norm(parts: Vec<Tensor<4>>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if parts.iter().all(cpu::is_plain) {
        return cpu::instance_norm(parts, TORCH_NORM_EPS);
    }
    let x = Tensor::cat(parts, 1);
    #[cfg(feature = "autodiff")]
    if gradients::takes(&x) {
        return gradients::instance_norm(x, TORCH_NORM_EPS);
    }
    let [n, c, h, w] = x.dims();
    let gamma = Tensor::ones([h * w], &x.device());
    ops::layer_norm(x.reshape([n, c, h * w]), gamma, None, TORCH_NORM_EPS).reshape([n, c, h, w])
}

/// The exact GELU, `x · Φ(x)` by the error function (not its tanh approximation).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if cpu::is_plain(&x) {
        return cpu::gelu(x);
    }
    #[cfg(feature = "autodiff")]
    if gradients::takes(&x) {
        return gradients::gelu(x);
    }
    burn::tensor::activation::gelu(x)
}

/// `max(x, 0)`.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "autodiff")]
    if gradients::takes(&x) {
        return gradients::relu(x);
    }
    burn::tensor::activation::relu(x)
}

/// `run(part, inputs)`, a part of a network. Where gradients are recorded and the framework's balanced checkpointing is on
/// (`Device::gradient_checkpointing`), nothing is kept but its inputs, and it is run again on the way back; on the CPU.
///
/// `run` must give the same when it is run again, and use no tensors but its arguments': gradients reach those alone.
pub(crate) fn recomputed<M: Module + 'static, const I: usize, const D: usize>(
    part: &M,
    inputs: [Tensor<D>; I],
    run: impl Fn(&M, [Tensor<D>; I]) -> Tensor<D> + Clone + Send + 'static,
) -> Tensor<D> {
    #[cfg(feature = "autodiff")]
    if recomputes(&inputs) {
        return gradients::recomputed(part, inputs, run);
    }
    run(part, inputs)
}

/// Whether [`recomputed`] runs a part with these inputs again.
pub(crate) fn recomputes<const D: usize>(inputs: &[Tensor<D>]) -> bool {
    #[cfg(feature = "autodiff")]
    return gradients::recomputes(inputs);
    #[cfg(not(feature = "autodiff"))]
    {
        let _ = inputs;
        false
    }
}

/// Softmax over the last axis.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    burn::tensor::activation::softmax(x, D - 1)
}

/// Scaled dot-product attention, scale head^-1/2; `bias` is added to the scaled logits.
///
/// # Shapes
/// `q` `[N, heads, Q, head]`, `k` and `v` `[N, heads, K, head]`, `bias` `[1, heads, Q, K]` → `[N, heads, Q, head]`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if cpu::takes(&q, &k) && bias.as_ref().is_none_or(cpu::is_plain) {
        return cpu::attention(q, k, v, bias);
    }
    #[cfg(feature = "autodiff")]
    if bias.is_none() && gradients::takes(&q) && gradients::takes(&k) {
        return gradients::attention(q, k, v);
    }
    ops::attention(q, k, v, None, bias, AttentionModuleOptions::default())
}

/// Scaled dot-product attention over a map of `h · w` tokens with decomposed relative positions (Li et al. 2022, ViTDet): the
/// logit of a query at `(y, x)` and a key at `(y', x')` gains `q · table_h[y, y'] + q · table_w[x, x']`, with `q` not scaled.
///
/// # Shapes
/// `q`, `k`, `v` `[N, heads, h · w, head]`, `table_h` `[h, h, head]`, `table_w` `[w, w, head]` → `[N, heads, h · w, head]`
pub fn relative_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    table_h: Tensor<3>,
    table_w: Tensor<3>,
) -> Tensor<4> {
    let [n, heads, tokens, head] = q.dims();
    let ([h, _, _], [w, _, _]) = (table_h.dims(), table_w.dims());
    let scale = (head as f64).sqrt().recip();
    let map = q.clone().reshape([n * heads, h, w, head]);
    // [n · heads, h, w, head] · [1, h, head, h], one product for each query row; columns likewise with the axes swapped.
    let relative_h = map.clone().matmul(table_h.swap_dims(1, 2).unsqueeze());
    let relative_w = map.swap_dims(1, 2).matmul(table_w.swap_dims(1, 2).unsqueeze()).swap_dims(1, 2);
    let rows = |x: Tensor<4>| -> Tensor<3> {
        let channels = x.dims()[3];
        x.reshape([n * heads, tokens, channels])
    };
    let (parts, terms) = ([rows(q), rows(k), rows(v)], [rows(relative_h), rows(relative_w)]);
    #[cfg(feature = "flex")]
    if cpu::takes(&parts[0], &parts[1]) {
        return cpu::relative_attention(parts, terms, scale).reshape([n, heads, tokens, head]);
    }
    relative_attention_by_channels(parts, terms, scale).reshape([n, heads, tokens, head])
}

/// [`relative_attention`] from the relative terms on, for GPUs and gradients. The terms ride along as further channels of the
/// queries, against keys that name their row and column: the sum of the three terms is one product, and a fused attention never
/// holds a map of logits as large as h² · w².
///
/// # Shapes
/// `q`, `k`, `v` `[B, h · w, head]`, relative terms `[B, h · w, h]` and `[B, h · w, w]` → `[B, h · w, head]`
pub(crate) fn relative_attention_by_channels(
    [q, k, v]: [Tensor<3>; 3],
    [relative_h, relative_w]: [Tensor<3>; 2],
    scale: f64,
) -> Tensor<3> {
    let [batch, tokens, _] = q.dims();
    let (h, w) = (relative_h.dims()[2], relative_w.dims()[2]);
    let places = row_and_column(h, w, &q.device()).expand([batch, tokens, h + w]);
    let q = Tensor::cat(vec![q * scale, relative_h, relative_w], 2).unsqueeze_dim::<4>(1);
    let k = Tensor::cat(vec![k, places], 2).unsqueeze_dim::<4>(1);
    let options = AttentionModuleOptions { scale: Some(1.0), ..Default::default() };
    ops::attention(q, k, v.unsqueeze_dim::<4>(1), None, None, options).squeeze_dim::<3>(1)
}

/// For each token of a map, its row and its column as one-hot vectors side by side.
///
/// # Shapes
/// → `[1, h · w, h + w]`
fn row_and_column(h: usize, w: usize, device: &Device) -> Tensor<3> {
    let mut ones = vec![0.0_f32; h * w * (h + w)];
    for (token, channels) in ones.chunks_exact_mut(h + w).enumerate() {
        channels[token / w] = 1.0;
        channels[h + token % w] = 1.0;
    }
    Tensor::from_data(TensorData::new(ones, [1, h * w, h + w]), device)
}

/// In which order the channels of a token's queries, keys and values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvOrder {
    /// `[3, heads, head]`, as in SAM.
    PartsFirst,
    /// `[heads, 3, head]`, as in TinyViT.
    HeadsFirst,
}

/// What is added to the scaled logits of an attention among the tokens of a map.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a call; the tensors lie elsewhere")]
pub enum Positions {
    /// Decomposed relative positions; see [`relative_attention`] and `relative_table`.
    Relative {
        /// `[2 h − 1, head]` for windows of `h` rows.
        rows: Tensor<2>,
        /// `[2 w − 1, head]`
        columns: Tensor<2>,
    },
    /// `[heads, tokens, tokens]` of a window.
    Table(Tensor<3>),
}

/// An attention among the tokens of a map.
#[derive(Clone, Debug)]
pub struct MapAttention {
    /// Heads.
    pub heads: usize,
    /// Of the channels.
    pub order: QkvOrder,
    /// Side of the windows; `None`: the whole map.
    pub window: Option<usize>,
    /// `[3 C]`, what the tokens of a window beyond the map's edge hold: they are attended to. Zeros if absent.
    pub outside: Option<Tensor<1>>,
    /// Added to the logits.
    pub positions: Positions,
    /// Of the products, where [`MapAttention::in_8_bits`]; `f32` elsewhere.
    pub precision: Precision,
}

impl MapAttention {
    /// Whether the products are taken in 8 bits: over the whole map only. In windows of at most a few hundred tokens rounding takes
    /// the time that the products save (docs/decisions/0047-attention-in-8-bits.md).
    pub fn in_8_bits(&self) -> bool {
        self.precision == Precision::Int8 && self.window.is_none()
    }
}

/// Scaled dot-product attention of each head in each window of a map, scale head^-1/2.
///
/// # Shapes
/// `[N, h, w, 3 C]` → `[N, h, w, C]`
pub fn map_attention(qkv: Tensor<4>, attention: MapAttention) -> Tensor<4> {
    #[cfg(feature = "flex")]
    {
        let plain = attention.outside.as_ref().is_none_or(cpu::is_plain)
            && match &attention.positions {
                Positions::Relative { rows, columns } => cpu::is_plain(rows) && cpu::is_plain(columns),
                Positions::Table(table) => cpu::is_plain(table),
            };
        if plain && cpu::takes(&qkv, &qkv) {
            return cpu::map_attention(qkv, attention);
        }
    }
    #[cfg(feature = "autodiff")]
    if gradients::takes(&qkv) {
        return gradients::map_attention(qkv, attention);
    }
    map_attention_by_windows(qkv, attention)
}

/// [`map_attention`] by the framework's operations: windows are cut out, and heads brought together.
pub(crate) fn map_attention_by_windows(qkv: Tensor<4>, attention: MapAttention) -> Tensor<4> {
    let MapAttention { heads, order, window, outside, positions, precision: _ } = attention;
    let [_, h, w, channels] = qkv.dims();
    let (c, head) = (channels / 3, channels / 3 / heads);
    let windows = match window {
        Some(size) => partition_windows(pad_to_windows(qkv, size, outside), size),
        None => qkv,
    };
    let [count, window_h, window_w, _] = windows.dims();
    let tokens = window_h * window_w;
    let parts = match order {
        QkvOrder::PartsFirst => windows.reshape([count, tokens, 3, heads, head]).permute([2, 0, 3, 1, 4]),
        QkvOrder::HeadsFirst => windows.reshape([count, tokens, heads, 3, head]).permute([3, 0, 2, 1, 4]),
    };
    // Views of one tensor, [B, heads, tokens, head].
    let [q, k, v] = [0, 1, 2].map(|part| parts.clone().slice_dim(0, part..part + 1).squeeze_dim::<4>(0));
    let y = match positions {
        Positions::Relative { rows, columns } => {
            let (table_h, table_w) = (relative_table(rows, window_h), relative_table(columns, window_w));
            relative_attention(q, k, v, table_h, table_w)
        }
        Positions::Table(table) => crate::layers::attention(q, k, v, Some(table.unsqueeze::<4>())),
    };
    let y = y.swap_dims(1, 2).reshape([count, window_h, window_w, c]);
    match window {
        Some(_) => join_windows(y, [h, w]),
        None => y,
    }
}

/// A map extended below and to the right to whole windows by a token `[C]`, or by zeros.
fn pad_to_windows(x: Tensor<4>, size: usize, token: Option<Tensor<1>>) -> Tensor<4> {
    let [n, h, w, c] = x.dims();
    let (bottom, right) = (h.next_multiple_of(size) - h, w.next_multiple_of(size) - w);
    let Some(token) = token else { return pad_bottom_right(x, bottom, right) };
    let copies = |h: usize, w: usize| token.clone().reshape([1, 1, 1, c]).expand([n, h, w, c]);
    let x = if right == 0 { x } else { Tensor::cat(vec![x, copies(h, right)], 2) };
    if bottom == 0 { x } else { Tensor::cat(vec![x, copies(bottom, w + right)], 1) }
}

/// A table of relative positions at the length that a side needs: resampled linearly if it has another.
///
/// # Shapes
/// `[L, head]` → `[2 · side − 1, head]`
pub fn resampled_table(table: Tensor<2>, side: usize) -> Tensor<2> {
    let [length, head] = table.dims();
    if length == 2 * side - 1 {
        return table;
    }
    let row = table.transpose().reshape([1, head, 1, length]);
    resize_bilinear(row, [1, 2 * side - 1]).reshape([head, 2 * side - 1]).transpose()
}

/// The rows of a relative table that each pair of positions on one axis uses: `out[q, k] = table[q − k + side − 1]`.
///
/// # Shapes
/// `[2 · side − 1, head]` → `[side, side, head]`
fn relative_table(table: Tensor<2>, side: usize) -> Tensor<3> {
    let head = table.dims()[1];
    let rows: Vec<i32> = (0..side).flat_map(|q| (0..side).map(move |k| (q + side - 1 - k) as i32)).collect();
    let rows = Tensor::from_data(rows.as_slice(), &table.device());
    table.select(0, rows).reshape([side, side, head])
}

/// Bilinear resize with pixel centres at half-integers (`align_corners = False`), not antialiased.
///
/// # Shapes
/// `[N, C, H, W]` → `[N, C, size[0], size[1]]`
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    if [h, w] == size {
        return x;
    }
    #[cfg(feature = "autodiff")]
    if [2 * h, 2 * w] == size && gradients::takes(&x) {
        return gradients::upsample2(x);
    }
    let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false).with_output_size(size);
    ops::interpolate(x, options)
}

/// Bilinear ×2, [`resize_bilinear`].
///
/// # Shapes
/// `[N, C, H, W]` → `[N, C, 2H, 2W]`
pub fn upsample2(x: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if cpu::is_plain(&x) {
        return cpu::upsample2(x);
    }
    let [_, _, h, w] = x.dims();
    resize_bilinear(x, [2 * h, 2 * w])
}

/// Zeros added below and to the right of axes 1 and 2.
///
/// # Shapes
/// `[N, H, W, C]` → `[N, H + bottom, W + right, C]`
pub fn pad_bottom_right(x: Tensor<4>, bottom: usize, right: usize) -> Tensor<4> {
    if bottom == 0 && right == 0 {
        return x;
    }
    x.pad([(0, 0), (0, bottom), (0, right), (0, 0)], PadMode::Constant(0.0))
}

/// Cuts a token map into square windows, row by row; the map is first padded with zeros below and to the right.
///
/// # Shapes
/// `[N, H, W, C]` → `[N · ⌈H / size⌉ · ⌈W / size⌉, size, size, C]`
pub fn partition_windows(x: Tensor<4>, size: usize) -> Tensor<4> {
    let [n, h, w, c] = x.dims();
    let (rows, columns) = (h.div_ceil(size), w.div_ceil(size));
    pad_bottom_right(x, rows * size - h, columns * size - w)
        .reshape([n, rows, size, columns, size, c])
        .swap_dims(2, 3)
        .reshape([n * rows * columns, size, size, c])
}

/// The way back from [`partition_windows`]: joins the windows and crops the padding.
///
/// # Shapes
/// `[N · ⌈H / size⌉ · ⌈W / size⌉, size, size, C]` → `[N, H, W, C]` with `[H, W] = map`
pub fn join_windows(windows: Tensor<4>, map: [usize; 2]) -> Tensor<4> {
    let [total, size, _, c] = windows.dims();
    let (rows, columns) = (map[0].div_ceil(size), map[1].div_ceil(size));
    let n = total / (rows * columns);
    windows
        .reshape([n, rows, columns, size, size, c])
        .swap_dims(2, 3)
        .reshape([n, rows * size, columns * size, c])
        .slice([0..n, 0..map[0], 0..map[1], 0..c])
}

/// A linear map of the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[C_out, C_in]`
    pub weight: Param<Tensor<2>>,
    /// `[C_out]`
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    precision: Precision,
    /// The weight as the CPU's loops read it.
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<LinearForm>,
}

impl Linear {
    /// With bias.
    pub fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        Self {
            weight: parameter([c_out, c_in], 0.0, device),
            bias: Some(parameter([c_out], 0.0, device)),
            precision: Precision::default(),
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
        }
    }

    /// The number format of the product.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Another format for the CPU.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        // Clones share what is kept, and may stay as they are.
        #[cfg(feature = "flex")]
        {
            self.prepared = Prepared::default();
        }
    }

    /// Keeps the weight in the CPU's order only, which halves its memory: the parameter becomes a tensor of its shape without memory of
    /// its own whose values are no numbers, so that nothing computes with it unnoticed. The layer can then be neither written nor
    /// trained nor given another format. Where the kernels do not run, nothing happens.
    pub(crate) fn release_weight(&mut self) {
        #[cfg(feature = "flex")]
        {
            let weight = self.weight.val();
            if cpu::takes(&weight, &weight) {
                let (placeholder, prepared) = cpu::released_linear(weight, &self.prepared, self.precision);
                self.weight = Param::initialized(self.weight.id, placeholder);
                self.prepared = prepared;
            }
        }
    }

    /// # Shapes
    /// `[..., C_in]` → `[..., C_out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        #[cfg(feature = "flex")]
        if cpu::takes(&x, &weight) {
            return cpu::prepared_linear(x, weight, bias, (&self.prepared, self.precision), Around::default());
        }
        linear(x, weight, bias)
    }

    /// `activation(linear(norm(x))) + residual`.
    ///
    /// # Shapes
    /// `[..., C_in]` → `[..., C_out]`, as the residual
    pub fn forward_around<const D: usize>(&self, x: Tensor<D>, around: Around<'_, D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        {
            let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
            let plain = around.norm.is_none_or(|norm| cpu::is_plain(&norm.weight.val()))
                && around.residual.as_ref().is_none_or(cpu::is_plain);
            if plain && cpu::takes(&x, &weight) {
                return cpu::prepared_linear(x, weight, bias, (&self.prepared, self.precision), around);
            }
        }
        let x = match around.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let y = around.activation.apply(self.forward(x));
        match around.residual {
            Some(residual) => residual + y,
            None => y,
        }
    }
}

/// A two-dimensional convolution with a square kernel.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[C_out, C_in / groups, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[C_out]`
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    groups: usize,
    #[module(skip)]
    precision: Precision,
    /// The weight as the CPU's loops read it, where that is not as it is stored.
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<ConvForm>,
}

impl Conv2d {
    /// With bias, stride 1, no padding, one group.
    pub fn new(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        Self {
            weight: parameter([c_out, c_in, kernel, kernel], 0.0, device),
            bias: Some(parameter([c_out], 0.0, device)),
            stride: 1,
            padding: 0,
            groups: 1,
            precision: Precision::default(),
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
        }
    }

    /// Another format for the CPU. Convolutions that are strided or in groups, and all in bf16, stay in `f32`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        #[cfg(feature = "flex")]
        {
            self.prepared = Prepared::default();
        }
    }

    /// With another stride, the same on both axes.
    #[must_use]
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// With zeros around the input.
    #[must_use]
    pub fn with_padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// One filter for each channel (`C_out = C_in = groups`).
    #[must_use]
    pub fn depthwise(mut self) -> Self {
        let [c_out, _, kernel, _] = self.weight.lazy_shape().dims();
        let device = self.weight.lazy_device();
        self.weight = parameter([c_out, 1, kernel, kernel], 0.0, &device);
        self.groups = c_out;
        self
    }

    /// Without bias.
    #[must_use]
    pub fn without_bias(mut self) -> Self {
        self.bias = None;
        self
    }

    /// # Shapes
    /// `[N, C_in, H, W]` → `[N, C_out, H', W']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_then(x, Activation::None)
    }

    /// # Shapes
    /// `[N, C_in, H, W]` → `[N, C_out, H', W']`
    pub fn forward_then(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        self.forward_with(x, self.weight.val(), self.bias.as_ref().map(Param::val), activation)
    }

    /// Of the [`instance_norm`] of several maps joined along the channels.
    ///
    /// # Shapes
    /// `[N, C_i, H, W]`, at least one, `Σ C_i = C_in` → `[N, C_out, H', W']`
    pub fn forward_normed(&self, parts: Vec<Tensor<4>>, activation: Activation) -> Tensor<4> {
        #[cfg(feature = "flex")]
        {
            let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
            if parts.iter().all(|part| self.is_prepared(part, &weight)) {
                let form = (&self.prepared, self.precision);
                return cpu::normed_conv2d(parts, TORCH_NORM_EPS, weight, bias, self.padding, form, activation);
            }
        }
        self.forward_then(instance_norm(parts), activation)
    }

    /// Whether the CPU's loops take this layer with a weight in their own order.
    #[cfg(feature = "flex")]
    fn is_prepared(&self, x: &Tensor<4>, weight: &Tensor<4>) -> bool {
        self.stride == 1 && self.groups == 1 && cpu::takes(x, weight) && cpu::conv_is_prepared(weight, self.precision)
    }

    /// This layer's geometry with other values, as [`ConvBn`] needs it.
    fn forward_with(
        &self,
        x: Tensor<4>,
        weight: Tensor<4>,
        bias: Option<Tensor<1>>,
        activation: Activation,
    ) -> Tensor<4> {
        #[cfg(feature = "flex")]
        if self.is_prepared(&x, &weight) {
            return cpu::prepared_conv2d(x, weight, bias, self.padding, (&self.prepared, self.precision), activation);
        }
        conv2d(x, weight, bias, self.stride, self.padding, self.groups, activation)
    }
}

/// A transposed convolution with a square kernel, no padding, with bias.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// `[C_in, C_out, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[C_out]`
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    /// The weight as the CPU's loop reads it.
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<cytomask_kernels::SplitWeight>,
}

impl ConvTranspose2d {
    /// Kernel and stride 2 double the size.
    pub fn new(c_in: usize, c_out: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        Self {
            weight: parameter([c_in, c_out, kernel, kernel], 0.0, device),
            bias: Some(parameter([c_out], 0.0, device)),
            stride,
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
        }
    }

    /// # Shapes
    /// `[N, C_in, H, W]` → `[N, C_out, (H − 1) · stride + k, (W − 1) · stride + k]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        #[cfg(feature = "flex")]
        if self.stride == 2 && weight.dims()[2..] == [2, 2] && cpu::takes(&x, &weight) {
            return cpu::conv_transpose2x2(x, weight, bias, &self.prepared);
        }
        #[cfg(feature = "autodiff")]
        if self.stride == 2 && weight.dims()[2..] == [2, 2] && gradients::takes(&x) && gradients::takes(&weight) {
            return gradients::conv_transpose2x2(x, weight, bias);
        }
        conv_transpose2d(x, weight, bias, self.stride)
    }
}

/// Layer norm over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[C]`
    pub weight: Param<Tensor<1>>,
    /// `[C]`
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// Over `channels`; [`LAYER_NORM_EPS`] and [`TORCH_NORM_EPS`] are the two epsilons in use.
    pub fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self { weight: parameter([channels], 1.0, device), bias: parameter([channels], 0.0, device), eps }
    }

    /// Added to the variance.
    pub fn epsilon(&self) -> f64 {
        self.eps
    }

    /// # Shapes
    /// `[..., C]` → `[..., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Layer norm over the channels of each pixel, epsilon [`LAYER_NORM_EPS`].
#[derive(Module, Debug)]
pub struct LayerNorm2d {
    /// `[C]`
    pub weight: Param<Tensor<1>>,
    /// `[C]`
    pub bias: Param<Tensor<1>>,
}

impl LayerNorm2d {
    /// Over `channels`.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self { weight: parameter([channels], 1.0, device), bias: parameter([channels], 0.0, device) }
    }

    /// # Shapes
    /// `[N, C, H, W]` → `[N, C, H, W]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        layer_norm2d(x, self.weight.val(), self.bias.val(), LAYER_NORM_EPS)
    }
}

/// Batch norm, epsilon [`TORCH_NORM_EPS`]. The running statistics are never updated here.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    /// `[C]`
    pub weight: Param<Tensor<1>>,
    /// `[C]`
    pub bias: Param<Tensor<1>>,
    /// `[C]`
    pub running_mean: Param<Tensor<1>>,
    /// `[C]`
    pub running_var: Param<Tensor<1>>,
}

impl BatchNorm2d {
    /// Over `channels`.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self {
            weight: parameter([channels], 1.0, device),
            bias: parameter([channels], 0.0, device),
            running_mean: buffer([channels], 0.0, device),
            running_var: buffer([channels], 1.0, device),
        }
    }

    /// Factor and offset `[C]` of the frozen norm: `y = x · factor + offset`. Differentiable in weight and bias.
    pub fn affine(&self) -> (Tensor<1>, Tensor<1>) {
        let factor = self.weight.val() / (self.running_var.val().detach() + TORCH_NORM_EPS).sqrt();
        let offset = self.bias.val() - self.running_mean.val().detach() * factor.clone();
        (factor, offset)
    }

    /// With the running statistics (PyTorch's `eval()`).
    ///
    /// # Shapes
    /// `[N, C, H, W]` → `[N, C, H, W]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (factor, offset) = self.affine();
        let c = factor.dims()[0];
        x * factor.reshape([1, c, 1, 1]) + offset.reshape([1, c, 1, 1])
    }

    /// With the mean and biased variance of this batch over `N, H, W` (PyTorch's `train()`, which µSAM's instance decoder is
    /// left in at inference).
    ///
    /// # Shapes
    /// `[N, C, H, W]` → `[N, C, H, W]`
    pub fn forward_batch_statistics(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        #[cfg(feature = "flex")]
        if cpu::takes(&x, &self.weight.val()) {
            return cpu::batch_norm(x, self.weight.val(), self.bias.val(), TORCH_NORM_EPS, activation);
        }
        #[cfg(feature = "autodiff")]
        if gradients::takes(&x) && gradients::takes(&self.weight.val()) {
            return activation.apply(gradients::batch_norm(x, self.weight.val(), self.bias.val(), TORCH_NORM_EPS));
        }
        activation.apply(ops::batch_norm_train(x, self.weight.val(), self.bias.val(), TORCH_NORM_EPS).output)
    }
}

/// A convolution without bias followed by a frozen batch norm. Both run as one convolution; for training the folded weight is
/// computed on the fly, so that gradients reach the convolution's weight and the norm's weight and bias.
#[derive(Module, Debug)]
pub struct ConvBn {
    /// The convolution.
    pub c: Conv2d,
    /// The norm.
    pub bn: BatchNorm2d,
    /// The folded weight `[C_out, C_in / groups, k, k]` and bias `[C_out]`, where no gradient is wanted.
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<(Tensor<4>, Tensor<1>)>,
    /// The folded weight of a 1 × 1 convolution as the loops of linear layers read it.
    #[cfg(feature = "flex")]
    #[module(skip)]
    linear: Prepared<LinearForm>,
}

impl ConvBn {
    /// Takes the geometry of `convolution` and drops its bias.
    pub fn new(convolution: Conv2d) -> Self {
        let channels = convolution.weight.lazy_shape()[0];
        let device = convolution.weight.lazy_device();
        Self {
            c: convolution.without_bias(),
            bn: BatchNorm2d::new(channels, &device),
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
            #[cfg(feature = "flex")]
            linear: Prepared::default(),
        }
    }

    /// # Shapes
    /// `[N, C_in, H, W]` → `[N, C_out, H', W']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_then(x, Activation::None)
    }

    /// # Shapes
    /// `[N, C_in, H, W]` → `[N, C_out, H', W']`
    pub fn forward_then(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        #[cfg(feature = "flex")]
        if cpu::takes(&x, &self.c.weight.val()) {
            let (weight, bias) = self.kept();
            return self.c.forward_with(x, weight, Some(bias), activation);
        }
        let (weight, bias) = self.folded();
        self.c.forward_with(x, weight, Some(bias), activation)
    }

    /// Of maps whose channels lie last: `last(activation(y) + residual)`. On the CPU a 1 × 1 convolution is then a linear layer, and
    /// one of each channel on its own needs no copy.
    ///
    /// # Shapes
    /// `[N, H, W, C_in]` → `[N, H', W', C_out]`, as the residual
    pub fn forward_last(
        &self,
        x: Tensor<4>,
        activation: Activation,
        residual: Option<Tensor<4>>,
        last: Activation,
    ) -> Tensor<4> {
        #[cfg(feature = "flex")]
        if cpu::takes(&x, &self.c.weight.val()) && residual.as_ref().is_none_or(cpu::is_plain) {
            let ([c_out, c_in, kernel_h, kernel_w], Conv2d { stride, padding, groups, .. }) =
                (self.c.weight.val().dims(), &self.c);
            if [kernel_h, kernel_w, *stride, *padding, *groups] == [1, 1, 1, 0, 1] {
                let (weight, bias) = self.kept();
                let (weight, form) = (weight.reshape([c_out, c_in]), (&self.linear, self.c.precision));
                let around = Around { norm: None, activation, residual };
                return last.apply(cpu::prepared_linear(x, weight, Some(bias), form, around));
            }
            if *groups == c_out && c_in == 1 {
                let (weight, bias) = self.kept();
                let y = cpu::depthwise2d_last(x, weight, Some(bias), *stride, *padding, activation);
                return last.apply(match residual {
                    Some(residual) => y + residual,
                    None => y,
                });
            }
        }
        // The values lie with the channels first, and stay so; only views of them are turned.
        let y = self.forward_then(x.permute([0, 3, 1, 2]), activation);
        let y = match residual {
            Some(residual) => y + residual.permute([0, 3, 1, 2]),
            None => y,
        };
        last.apply(y).permute([0, 2, 3, 1])
    }

    /// The folded weight and bias, computed once.
    #[cfg(feature = "flex")]
    fn kept(&self) -> (Tensor<4>, Tensor<1>) {
        let norm = [&self.bn.weight, &self.bn.bias, &self.bn.running_mean, &self.bn.running_var].map(Param::val);
        cpu::prepared(&self.prepared, &self.c.weight.val(), norm, || self.folded())
    }

    /// One weight and bias for both.
    fn folded(&self) -> (Tensor<4>, Tensor<1>) {
        let (factor, offset) = self.bn.affine();
        let c_out = factor.dims()[0];
        (self.c.weight.val() * factor.reshape([c_out, 1, 1, 1]), offset)
    }
}

/// Two or more linear maps with ReLU between them (SAM's `MLP`).
#[derive(Module, Debug)]
pub struct Mlp {
    /// In order.
    pub layers: Vec<Linear>,
}

impl Mlp {
    /// Through the widths given, input first.
    pub fn new(widths: &[usize], device: &Device) -> Self {
        Self { layers: widths.windows(2).map(|pair| Linear::new(pair[0], pair[1], device)).collect() }
    }

    /// # Shapes
    /// `[..., C_in]` → `[..., C_out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let last = self.layers.len().saturating_sub(1);
        self.layers.iter().enumerate().fold(x, |x, (index, layer)| {
            let x = layer.forward(x);
            if index < last { relu(x) } else { x }
        })
    }
}

/// An embedding table of which all rows are used.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, C]`
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// `rows` of `channels`.
    pub fn new(rows: usize, channels: usize, device: &Device) -> Self {
        Self { weight: parameter([rows, channels], 0.0, device) }
    }
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use burn::module::ModuleMapper;

    use super::*;
    use crate::loading::values;

    /// Replaces each parameter by itself times `factor`.
    struct Scale {
        factor: f32,
    }

    impl ModuleMapper for Scale {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let factor = self.factor;
            param.map(|tensor| {
                let (trained, plain) = (tensor.is_require_grad(), (tensor * factor).detach());
                if trained { plain.require_grad() } else { plain }
            })
        }
    }

    fn wave<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let numbers = (0..shape.iter().product()).map(|index: usize| ((index * 37) % 23) as f32 / 11.0 - 1.0).collect();
        Tensor::from_data(TensorData::new::<f32, _>(numbers, shape), device)
    }

    #[derive(Module, Debug)]
    struct Network {
        linear: Linear,
        folded: ConvBn,
        split: ConvTranspose2d,
    }

    impl Network {
        /// All weights 1.
        fn new(device: &Device) -> Self {
            Self {
                linear: Linear::new(4, 3, device),
                folded: ConvBn::new(Conv2d::new(2, 3, 3, device)),
                split: ConvTranspose2d::new(3, 2, 2, 2, device),
            }
            .map(&mut Ones)
        }

        fn run(&self, device: &Device) -> Vec<f32> {
            let x = self.folded.forward(wave([1, 2, 5, 7], device));
            let x = self.split.forward(x); // [1, 2, 6, 10]
            values(self.linear.forward(x.reshape([30, 4])))
        }

        /// What [`Network::run`] gives for weights that are all `factor`; by a new network, where nothing is kept.
        fn fresh(factor: f32, device: &Device) -> Vec<f32> {
            Self::new(device).map(&mut Scale { factor }).run(device)
        }
    }

    #[test]
    fn relative_table_is_indexed_by_query_minus_key() {
        let table = Tensor::<2>::from_data([[0.0], [1.0], [2.0], [3.0], [4.0]], &Device::flex());
        assert_eq!(values(relative_table(table.clone(), 3)), [2.0, 1.0, 0.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0]);
        // Five rows resampled to three: centres at 1/3, 2 and 11/3 of the stored rows.
        let resampled = values(relative_table(resampled_table(table, 2), 2));
        for (found, expected) in resampled.iter().zip([2.0, 1.0 / 3.0, 11.0 / 3.0, 2.0]) {
            assert!((found - expected).abs() < 1e-5, "{resampled:?}");
        }
    }

    #[test]
    fn both_ways_of_attention_on_a_map_agree() {
        let device = Device::flex();
        let (heads, head) = (3, 8);
        for (window, order) in
            [(None, QkvOrder::PartsFirst), (Some(4), QkvOrder::PartsFirst), (Some(5), QkvOrder::HeadsFirst)]
        {
            let (h, w) = (9, 13);
            let [window_h, window_w] = window.map_or([h, w], |side| [side; 2]);
            let tokens = window_h * window_w;
            let relative = Positions::Relative {
                rows: wave([2 * window_h - 1, head], &device),
                columns: wave([2 * window_w - 1, head], &device) * 0.5,
            };
            for positions in [relative, Positions::Table(wave([heads, tokens, tokens], &device))] {
                let outside = Some(wave([3 * heads * head], &device));
                let precision = Precision::F32;
                let attention = MapAttention { heads, order, window, outside, positions, precision };
                let qkv = wave([2, h, w, 3 * heads * head], &device);
                let fast = values(map_attention(qkv.clone(), attention.clone()));
                let plain = values(map_attention_by_windows(qkv, attention));
                for (index, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                    assert!((fast - plain).abs() < 1e-5, "{window:?} {order:?} at {index}: {fast}, {plain}");
                }
            }
        }
    }

    #[test]
    fn both_orders_of_channels_agree() {
        let device = Device::flex();
        let depthwise = Conv2d::new(4, 4, 3, &device).depthwise().with_padding(1);
        let layers = [
            ConvBn::new(Conv2d::new(4, 6, 1, &device)),
            ConvBn::new(depthwise.clone()),
            ConvBn::new(depthwise.with_stride(2)),
            ConvBn::new(Conv2d::new(4, 5, 3, &device)),
        ];
        for (index, layer) in layers.into_iter().enumerate() {
            // Weights that differ by place.
            let mut layer = layer.map(&mut Ones);
            let shape = layer.c.weight.val().dims();
            layer.c.weight = layer.c.weight.map(|_| wave(shape, &device));
            let x = wave([2, 4, 9, 13], &device);
            let plain = layer.forward_then(x.clone(), Activation::Relu);
            let residual: Tensor<4> = wave(plain.dims(), &device) * 0.5;
            let expected = values(gelu(plain + residual.clone()));
            let last = |x: Tensor<4>| x.permute([0, 2, 3, 1]);
            let found = layer.forward_last(last(x), Activation::Relu, Some(last(residual)), Activation::Gelu);
            let found = values(found.permute([0, 3, 1, 2]));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "layer {index}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn a_convolution_of_normed_parts_equals_its_steps() {
        let device = Device::flex();
        for (channels, precision) in
            [(8, Precision::F32), (8, Precision::Int8), (2, Precision::F32), (2, Precision::Int8)]
        {
            let mut layer = Conv2d::new(channels + 4, 9, 3, &device).with_padding(1).map(&mut Ones);
            layer.weight = layer.weight.map(|_| wave([9, channels + 4, 3, 3], &device));
            layer.set_precision(precision);
            // The second part is a view of the middle channels of another map.
            let parts = || -> Vec<Tensor<4>> {
                vec![wave([2, channels, 9, 13], &device) + 3.0, wave([2, 6, 9, 13], &device).slice_dim(1, 1..5)]
            };
            let expected = values(layer.forward_then(instance_norm(parts()), Activation::Relu));
            let found = values(layer.forward_normed(parts(), Activation::Relu));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{channels} {precision}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn a_layer_around_equals_its_parts() {
        let device = Device::flex();
        let layer = Linear::new(6, 5, &device).map(&mut Ones);
        let norm = LayerNorm::new(6, TORCH_NORM_EPS, &device);
        let (x, residual) = (wave([2, 7, 6], &device), wave([2, 7, 5], &device));
        let expected = values(gelu(layer.forward(norm.forward(x.clone()))) + residual.clone());
        let around = Around { norm: Some(&norm), activation: Activation::Gelu, residual: Some(residual.clone()) };
        let found = values(layer.forward_around(x.clone(), around));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
        }
        assert_eq!(values(x), values(wave([2, 7, 6], &device)), "what others hold is not handed on");
        assert_eq!(values(residual), values(wave([2, 7, 5], &device)));
    }

    struct Ones;

    impl ModuleMapper for Ones {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let (trained, ones) = (tensor.is_require_grad(), (tensor * 0.0 + 1.0).detach());
                if trained { ones.require_grad() } else { ones }
            })
        }
    }

    #[test]
    fn what_is_prepared_follows_the_weights() {
        let device = Device::flex();
        let network = Network::new(&device);
        let first = network.run(&device);
        assert_eq!(network.run(&device), first, "again");
        // Loading, an optimizer's step and a clone that changes all go through the mapper.
        let other = network.clone().map(&mut Scale { factor: 2.0 });
        assert_eq!(other.run(&device), Network::fresh(2.0, &device));
        assert_ne!(other.run(&device), first);
        assert_eq!(network.run(&device), first, "the clone left it alone");
        let again = other.map(&mut Scale { factor: 0.5 });
        assert_eq!(again.run(&device), first);
    }

    #[test]
    fn a_module_in_training_is_valid_with_its_newest_weights() {
        let (device, training) = (Device::flex(), Device::flex().autodiff());
        let mut network = Network::new(&training);
        for step in 1..4 {
            let factor = 0.5_f32.powi(step - 1);
            assert_eq!(network.valid().run(&device), Network::fresh(factor, &device), "step {step}");
            network = network.map(&mut Scale { factor: 0.5 });
        }
    }
}
