//! Products of row-major matrices with a packed one, and the linear layer.

use rayon::prelude::*;

use crate::{
    Activation, Level, buffers,
    level::for_each_level,
    norm::layer_norm_rows,
    pointwise::{gelu_body, relu_body},
    tile::{Start, Strip, accumulate, transpose},
};

/// Up to this many rows a product with an unpacked weight is a set of dot products: packing would cost more.
const FEW_ROWS: usize = 24;

/// Rows one thread multiplies by a panel before the next one: they, the panel and the sums stay in its second-level cache.
const ROWS: usize = 192;

/// Products in a sum before the next part of it: a panel of so many rows comes from the second-level cache as fast as the registers
/// take it.
const DEPTH: usize = 768;

/// A matrix `B` `[k, columns]` cut into panels `[k, width]`, the last padded with zeros.
#[derive(Clone, Debug)]
pub struct Packed {
    panels: Vec<f32>,
    k: usize,
    columns: usize,
    width: usize,
}

/// Width of the panels of a matrix: widths without waste are better than wide ones.
pub(crate) fn panel_width(columns: usize) -> usize {
    let padded = |width: usize| columns.div_ceil(width) * width;
    [48, 32, 16].into_iter().min_by_key(|&width| (padded(width), usize::MAX - width)).unwrap_or(48)
}

impl Packed {
    /// From the transpose, `[columns, k]` row-major, as a linear layer stores its weight.
    pub fn from_rows(rows: &[f32], [columns, k]: [usize; 2]) -> Self {
        assert_eq!(rows.len(), columns * k, "a matrix of {columns} rows of {k}");
        let width = panel_width(columns);
        let mut panels = vec![0.0; columns.div_ceil(width) * width * k];
        if k > 0 {
            let sources = rows.par_chunks(width * k);
            panels
                .par_chunks_exact_mut(width * k)
                .zip(sources)
                .for_each(|(panel, rows)| transpose(Level::best(), (rows, k), [rows.len() / k, k], (panel, width)));
        }
        Self { panels, k, columns, width }
    }

    /// From `[k, columns]` row-major.
    pub fn from_columns(values: &[f32], [k, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), columns * k, "a matrix of {k} rows of {columns}");
        let width = panel_width(columns);
        let mut panels = vec![0.0; columns.div_ceil(width) * width * k];
        panels.par_chunks_exact_mut((width * k).max(1)).enumerate().for_each(|(index, panel)| {
            let first = index * width;
            let kept = width.min(columns - first);
            for (to, from) in panel.chunks_exact_mut(width).zip(values.chunks_exact(columns)) {
                to[..kept].copy_from_slice(&from[first..first + kept]);
            }
        });
        Self { panels, k, columns, width }
    }

    /// `C += A · B` on this thread; `a` `[rows, k]` with rows `a_stride` apart, `c` `[rows, columns]` with rows `c_stride` apart.
    pub(crate) fn accumulate(
        &self,
        level: Level,
        rows: usize,
        (a, a_stride): (&[f32], usize),
        (c, c_stride): (&mut [f32], usize),
    ) {
        for first in (0..self.columns).step_by(self.width) {
            self.panel(level, [rows, first, 0, self.k], (a, a_stride), Start::Held, (&mut c[first..], c_stride));
        }
    }

    /// One panel, the one that starts at column `first`, and of the sums the products `from..from + count`; `a` is all of `A`, `c`
    /// begins at column `first`.
    fn panel(
        &self,
        level: Level,
        [rows, first, from, count]: [usize; 4],
        (a, a_stride): (&[f32], usize),
        start: Start<'_>,
        (c, c_stride): (&mut [f32], usize),
    ) {
        if rows == 0 || count == 0 {
            return;
        }
        let panel = &self.panels[(first * self.k + from * self.width)..][..count * self.width];
        let columns = self.width.min(self.columns - first);
        let strip = Strip::Panel(panel, self.width);
        accumulate(level, [rows, count, columns], (&a[from..], a_stride), strip, start, (c, c_stride));
    }
}

/// What happens before and after a product, in the same pass over its rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// First, the layer norm of each row of `x`.
    pub norm: Option<LayerNorm<'a>>,
    /// `[columns]`, added to the product.
    pub bias: Option<&'a [f32]>,
    /// Then applied.
    pub activation: Activation,
    /// `[rows, columns]`, added last.
    pub residual: Option<&'a [f32]>,
}

impl Around<'_> {
    /// Panics unless everything fits a product of that size.
    pub(crate) fn check(&self, [rows, k, columns]: [usize; 3]) {
        let Self { norm, bias, residual, .. } = self;
        assert!(bias.is_none_or(|bias| bias.len() == columns), "a bias for each of {columns} columns");
        assert!(residual.is_none_or(|residual| residual.len() == rows * columns), "a residual of {rows} × {columns}");
        assert!(norm.is_none_or(|norm| [norm.weight.len(), norm.bias.len()] == [k; 2]), "a norm of {k} channels");
    }

    /// The rows of `x` after the norm; `normed` holds them if there is one.
    pub(crate) fn rows<'b>(&self, level: Level, x: &'b [f32], normed: &'b mut Vec<f32>) -> &'b [f32] {
        match self.norm {
            Some(LayerNorm { weight, bias, eps }) => {
                normed.resize(x.len(), 0.0);
                layer_norm_rows(level, x, weight, bias, eps, normed);
                normed
            }
            None => x,
        }
    }
}

/// A layer norm over the last axis.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// `[C]`
    pub weight: &'a [f32],
    /// `[C]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// `activation(x · B + bias)`.
///
/// # Shapes
/// `x` `[rows, k]`, `bias` `[columns]` → `[rows, columns]`
pub fn multiply(x: &[f32], packed: &Packed, bias: Option<&[f32]>, activation: Activation) -> Vec<f32> {
    multiply_around(x, packed, &Around { bias, activation, ..Around::default() })
}

/// `activation(norm(x) · B + bias) + residual` with rows spread over threads.
///
/// # Shapes
/// `x` `[rows, k]` → `[rows, columns]`
pub fn multiply_around(x: &[f32], packed: &Packed, around: &Around<'_>) -> Vec<f32> {
    let (k, columns) = (packed.k, packed.columns);
    if k == 0 || columns == 0 {
        return Vec::new();
    }
    assert_eq!(x.len() % k, 0, "rows of {k}");
    let rows = x.len() / k;
    let Around { bias, activation, residual, .. } = *around;
    around.check([rows, k, columns]);
    let level = Level::best();
    let mut start = vec![0.0_f32; columns];
    if let Some(bias) = bias {
        start.copy_from_slice(bias);
    }
    let mut out = buffers::take(rows * columns);
    let block = block_of_rows(rows);
    let blocks = out.par_chunks_mut(block * columns).zip(x.par_chunks(block * k)).enumerate();
    blocks.for_each_init(Vec::new, |normed: &mut Vec<f32>, (index, (out, x))| {
        let rows = x.len() / k;
        let a = around.rows(level, x, normed);
        for from in (0..k).step_by(DEPTH) {
            let count = DEPTH.min(k - from);
            for first in (0..columns).step_by(packed.width) {
                let start = if from == 0 { Start::Row(&start[first..]) } else { Start::Held };
                packed.panel(level, [rows, first, from, count], (a, k), start, (&mut out[first..], columns));
                if from + count == k {
                    let width = packed.width.min(columns - first);
                    let residual = residual.map(|residual| &residual[index * block * columns + first..]);
                    finish(level, &mut out[first..], [columns, width], activation, residual);
                }
            }
        }
    });
    out
}

/// Rows of a task: as many as fit the cache, in equal parts for all threads, in whole tiles of the common widths.
fn block_of_rows(rows: usize) -> usize {
    let threads = rayon::current_num_threads();
    let tasks = rows.div_ceil(ROWS).next_multiple_of(2 * threads).max(1);
    rows.div_ceil(tasks).next_multiple_of(24).max(24)
}

/// Activation and residual of `width` columns of rows `stride` apart.
#[inline(always)]
pub(crate) fn finish_body<const FUSED: bool>(
    rows: &mut [f32],
    [stride, width]: [usize; 2],
    activation: Activation,
    residual: Option<&[f32]>,
) {
    if activation == Activation::None && residual.is_none() {
        return;
    }
    for (index, row) in rows.chunks_mut(stride).enumerate() {
        let row = &mut row[..width];
        match activation {
            Activation::None => {}
            Activation::Relu => relu_body(row),
            Activation::Gelu => gelu_body::<FUSED>(row),
        }
        if let Some(residual) = residual {
            for (value, residual) in row.iter_mut().zip(&residual[index * stride..][..width]) {
                *value += residual;
            }
        }
    }
}

for_each_level! {
    /// Activation and residual of `width` columns of rows `stride` apart, in place.
    pub(crate) fn finish = fused finish_body(rows: &mut [f32], sizes: [usize; 2], activation: Activation, residual: Option<&[f32]>)
}

/// `activation(x · weightᵀ + bias)`. Packs the weight unless there are few rows.
///
/// # Shapes
/// `x` `[rows, C_in]`, `weight` `[C_out, C_in]`, `bias` `[C_out]` → `[rows, C_out]`
pub fn linear(
    x: &[f32],
    weight: &[f32],
    [c_out, c_in]: [usize; 2],
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    assert_eq!(weight.len(), c_out * c_in, "a weight of {c_out} × {c_in}");
    if c_in == 0 || x.len() / c_in > FEW_ROWS {
        return multiply(x, &Packed::from_rows(weight, [c_out, c_in]), bias, activation);
    }
    assert_eq!(x.len() % c_in, 0, "rows of {c_in}");
    assert!(bias.is_none_or(|bias| bias.len() == c_out), "a bias for each of {c_out} columns");
    let level = Level::best();
    let rows = x.len() / c_in;
    // Computed as [C_out, rows], so that each thread reads its part of the weight once.
    let mut turned = vec![0.0_f32; rows * c_out];
    let block = ((1 << 15) / c_in).max(1);
    turned.par_chunks_mut(block * rows.max(1)).zip(weight.par_chunks(block * c_in)).for_each(|(turned, weight)| {
        for (sums, weight) in turned.chunks_exact_mut(rows).zip(weight.chunks_exact(c_in)) {
            for (sums, x) in sums.chunks_mut(4).zip(x.chunks(4 * c_in)) {
                dots(level, weight, x, sums);
            }
        }
    });
    let mut out = vec![0.0_f32; rows * c_out];
    for (row, out) in out.chunks_exact_mut(c_out).enumerate() {
        for (column, out) in out.iter_mut().enumerate() {
            *out = turned[column * rows + row] + bias.map_or(0.0, |bias| bias[column]);
        }
    }
    activation.apply(level, &mut out);
    out
}

/// Dot products of `weight` with up to four rows of `x`.
#[inline(always)]
fn dots_body(weight: &[f32], x: &[f32], sums: &mut [f32]) {
    const LANES: usize = 16;
    let k = weight.len();
    let mut parts = [[0.0_f32; LANES]; 4];
    let (chunks, rest) = weight.as_chunks::<LANES>();
    for (parts, x) in parts.iter_mut().zip(x.chunks_exact(k)) {
        for (weight, x) in chunks.iter().zip(x.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                parts[lane] += weight[lane] * x[lane];
            }
        }
    }
    for ((sum, parts), x) in sums.iter_mut().zip(parts).zip(x.chunks_exact(k)) {
        let tail: f32 = rest.iter().zip(&x[k - rest.len()..]).map(|(weight, x)| weight * x).sum();
        *sum = parts.iter().sum::<f32>() + tail;
    }
}

for_each_level! {
    fn dots = dots_body(weight: &[f32], x: &[f32], sums: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    #[test]
    fn linear_equals_the_obvious_loops() {
        for [rows, c_out, c_in] in
            [[1, 1, 1], [3, 50, 17], [24, 33, 40], [25, 33, 40], [131, 97, 64], [60, 256, 3], [7, 5, 16]]
        {
            let (x, weight, bias) = (wave(1, rows * c_in), wave(2, c_out * c_in), wave(3, c_out));
            for activation in [Activation::None, Activation::Relu] {
                let found = linear(&x, &weight, [c_out, c_in], Some(&bias), activation);
                assert_eq!(found.len(), rows * c_out);
                for (index, &found) in found.iter().enumerate() {
                    let (row, column) = (index / c_out, index % c_out);
                    let product = |at: usize| f64::from(x[row * c_in + at]) * f64::from(weight[column * c_in + at]);
                    let sum = (0..c_in).map(product).sum::<f64>() + f64::from(bias[column]);
                    let expected = if activation == Activation::Relu { sum.max(0.0) } else { sum };
                    assert!(
                        (f64::from(found) - expected).abs() < 2e-5,
                        "{rows} × {c_in} · {c_in} × {c_out} at {index}"
                    );
                }
            }
        }
    }

    #[test]
    fn packing_either_way_gives_the_same_product() {
        for [rows, k, columns] in [[5, 7, 3], [30, 20, 64], [26, 9, 100]] {
            let (x, columns_first) = (wave(4, rows * k), wave(5, k * columns));
            let turned: Vec<f32> =
                (0..columns * k).map(|index| columns_first[index % k * columns + index / k]).collect();
            let one = multiply(&x, &Packed::from_columns(&columns_first, [k, columns]), None, Activation::None);
            let other = multiply(&x, &Packed::from_rows(&turned, [columns, k]), None, Activation::None);
            assert_eq!(one, other);
        }
    }

    #[test]
    fn what_is_around_a_product_equals_separate_steps() {
        // More than one part of a sum, more than one block of rows, a last panel that is not full.
        for [rows, k, columns] in [[5, 7, 3], [131, 1100, 97], [700, 16, 64]] {
            let (x, weight, bias) = (wave(1, rows * k), wave(2, columns * k), wave(3, columns));
            let (scale, shift, residual) = (wave(4, k), wave(5, k), wave(6, rows * columns));
            let packed = Packed::from_rows(&weight, [columns, k]);
            let norm = LayerNorm { weight: &scale, bias: &shift, eps: 1e-5 };
            let normed = crate::layer_norm(&x, &scale, &shift, 1e-5);
            for activation in [Activation::None, Activation::Relu, Activation::Gelu] {
                let around = Around { norm: Some(norm), bias: Some(&bias), activation, residual: Some(&residual) };
                let found = multiply_around(&x, &packed, &around);
                for (index, &found) in found.iter().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    let product = |at: usize| f64::from(normed[row * k + at]) * f64::from(weight[column * k + at]);
                    let mut expected = [((0..k).map(product).sum::<f64>() + f64::from(bias[column])) as f32];
                    activation.apply(Level::Portable, &mut expected);
                    let expected = expected[0] + residual[index];
                    let tolerance = 1e-5 * (1.0 + expected.abs());
                    assert!(
                        (found - expected).abs() < tolerance,
                        "{activation:?} {rows} × {k} → {columns} at {index}: {found} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(linear(&[], &[1.0, 2.0], [1, 2], None, Activation::Gelu).is_empty());
    }
}
