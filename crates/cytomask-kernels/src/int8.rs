//! Linear layers in 8 bits: weights quantised once (a scale for each output channel), inputs at each call (a scale and an offset
//! for each row), sums exact in `i32`.
//!
//! A row `x` becomes bytes `u` with `x ≈ scale · u + least`, its least value at 0 and its greatest at 255; a weight column becomes
//! `w ≈ factor · q`, `q` in −127..=127. Then `Σ x · w ≈ scale · factor · Σ u · q + least · factor · Σ q`, and the last sum is known
//! when the weight is packed. Both roundings are to nearest, ties to even. A constant row has scale 0 and is represented exactly.
//!
//! A row that holds a NaN or an infinity comes out as a row of NaN; so does a column of weights that holds one.

use rayon::prelude::*;

use crate::{
    Activation, Around, Level, buffers, gemm,
    int8_tile::{Dots, Finish, MOST_K, Panel, Rows, product},
    level::{by_halves, for_each_level, larger},
};

/// Bytes of quantised rows one thread works on at a time: they and a panel stay in the second-level cache.
const BLOCK: usize = 1 << 18;

/// Rows a thread multiplies by one panel before the next panel; their results are still in the cache for the activation.
const MOST_ROWS: usize = 192;

/// Whether 8-bit products are fast here (AVX-512 VNNI or AVX-VNNI). Without them they are computed by plain loops, slower than `f32`.
pub fn int8_is_fast() -> bool {
    Dots::best() > Dots::Portable
}

/// A matrix `B` `[k, columns]` in 8 bits, cut into panels `[k / 4, width, 4]`, padded with zeros.
#[derive(Clone, Debug)]
pub struct Packed8 {
    panels: Vec<i8>,
    k: usize,
    columns: usize,
    width: usize,
    /// For each column, padded to whole panels: what one step of its bytes is worth, and `factor · Σ q`.
    factor: Vec<f32>,
    weight_sum: Vec<f32>,
}

impl Packed8 {
    /// Whether sums over `k` products fit.
    pub fn holds(k: usize) -> bool {
        k <= MOST_K
    }

    /// From the transpose, `[columns, k]` row-major, as a linear layer stores its weight.
    pub fn from_rows(rows: &[f32], [columns, k]: [usize; 2]) -> Self {
        assert_eq!(rows.len(), columns * k, "a matrix of {columns} rows of {k}");
        assert!(Self::holds(k), "at most {MOST_K} products in a sum, got {k}");
        let level = Level::best();
        let width = crate::gemm::panel_width(columns);
        let (quads, padded) = (k.div_ceil(4), columns.div_ceil(width) * width);
        let (mut factor, mut weight_sum) = (vec![0.0; padded], vec![0.0; padded]);
        let mut panels = vec![0_i8; padded * quads * 4];
        if k > 0 && columns > 0 {
            let per_column = factor.par_chunks_exact_mut(width).zip(weight_sum.par_chunks_exact_mut(width));
            let panels = panels.par_chunks_exact_mut(width * quads * 4).zip(rows.par_chunks(width * k));
            panels.zip(per_column).for_each(|((panel, rows), (factor, weight_sum))| {
                let mut bytes = vec![0_i8; quads * 4];
                for (column, row) in rows.chunks_exact(k).enumerate() {
                    factor[column] = quantise_symmetric(level, row, &mut bytes[..k]);
                    let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
                    weight_sum[column] = factor[column] * sum as f32;
                    let strips = panel.chunks_exact_mut(width * 4);
                    for (strip, quad) in strips.zip(bytes.as_chunks::<4>().0) {
                        strip[column * 4..][..4].copy_from_slice(quad);
                    }
                }
            });
        }
        Self { panels, k, columns, width, factor, weight_sum }
    }

    /// Products in a sum.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Output channels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.panels.len() + 4 * (self.factor.len() + self.weight_sum.len())
    }

    /// `bias` as long as the panels are wide together.
    pub(crate) fn padded_bias(&self, bias: Option<&[f32]>) -> Vec<f32> {
        assert!(
            bias.is_none_or(|bias| bias.len() == self.columns),
            "a bias for each of {columns} columns",
            columns = self.columns
        );
        let mut padded = vec![0.0; self.factor.len()];
        if let Some(bias) = bias {
            padded[..self.columns].copy_from_slice(bias);
        }
        padded
    }

    /// Finished products with all panels on this thread; `residual` in the layout of `c`; `bias` from [`Packed8::padded_bias`], `c` rows `c_stride` apart.
    pub(crate) fn product(
        &self,
        dots: Dots,
        a: Rows<'_>,
        (scale, offset): (&[f32], &[f32]),
        bias: &[f32],
        (activation, residual): (Activation, Option<&[f32]>),
        (c, c_stride): (&mut [f32], usize),
    ) {
        let (rows, level) = (scale.len(), Level::best());
        let length = (self.k.div_ceil(4) * 4 * self.width).max(1);
        for (index, panel) in self.panels.chunks_exact(length).enumerate() {
            let first = index * self.width;
            let columns = self.width.min(self.columns - first);
            let part = first..first + self.width;
            let finish = Finish {
                scale,
                offset,
                factor: &self.factor[part.clone()],
                weight_sum: &self.weight_sum[part.clone()],
                bias: &bias[part],
            };
            let panel = Panel { values: panel, width: self.width };
            product(dots, [rows, columns], a, panel, finish, (&mut c[first..], c_stride), false);
            let residual = residual.map(|residual| &residual[first..]);
            gemm::finish(level, &mut c[first..], [c_stride, columns], activation, residual);
        }
    }
}

/// Bytes of one weight column, −127..=127, and what a step is worth.
pub(crate) fn quantise_symmetric(level: Level, row: &[f32], bytes: &mut [i8]) -> f32 {
    let range = extent(level, row);
    let most = range.most.max(-range.least);
    let inverse = 127.0 / most;
    if range.poison != 0.0 || !inverse.is_finite() {
        bytes.fill(0);
        // Zeros are exact; a NaN or an infinity has to show.
        return if range.poison == 0.0 && most < 1.0 { 0.0 } else { f32::NAN };
    }
    quantise_signed(level, row, inverse, bytes);
    most / 127.0
}

/// Adding this leaves the nearest whole number in the lowest byte, with its sign.
pub(crate) const ROUND_SIGNED: f32 = 12_582_912.0;

/// The nearest whole number to `value`, which is within −128..=127, as a byte.
#[inline(always)]
pub(crate) fn nearest(value: f32) -> u8 {
    (value + ROUND_SIGNED).to_bits() as u8
}

#[inline(always)]
fn quantise_signed_body(row: &[f32], inverse: f32, bytes: &mut [i8]) {
    for (byte, value) in bytes.iter_mut().zip(row) {
        *byte = nearest(value * inverse) as i8;
    }
}

for_each_level! {
    /// Bytes of `value · inverse`, which the caller keeps within −127..=127.
    fn quantise_signed = quantise_signed_body(row: &[f32], inverse: f32, bytes: &mut [i8])
}

/// Least and greatest value of a row; `poison` is NaN (which is unequal to zero) where a value is not finite.
pub(crate) struct Extent {
    pub(crate) least: f32,
    pub(crate) most: f32,
    pub(crate) poison: f32,
}

const LANES: usize = 16;

impl Extent {
    /// That of `N` columns of values, each by itself.
    #[inline(always)]
    fn of_lanes<const N: usize>(row: &[[f32; N]]) -> [[f32; N]; 3] {
        let [mut least, mut most, mut poison] = [[f32::INFINITY; N], [f32::NEG_INFINITY; N], [0.0; N]];
        for chunk in row {
            for lane in 0..N {
                let value = chunk[lane];
                least[lane] = if value < least[lane] { value } else { least[lane] };
                most[lane] = larger(most[lane], value);
                poison[lane] += value * 0.0;
            }
        }
        [least, most, poison]
    }
}

#[inline(always)]
fn extent_body(row: &[f32]) -> Extent {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    // Four registers take turns, so that none waits for the one before.
    let (fours, rest) = row.as_chunks::<{ 4 * LANES }>();
    let (ones, rest) = rest.as_chunks::<LANES>();
    let [least, most, poison] = Extent::of_lanes(fours);
    let [mut a, mut b, mut c] = Extent::of_lanes(ones);
    for part in 0..4 {
        for lane in 0..LANES {
            a[lane] = smaller(a[lane], least[part * LANES + lane]);
            b[lane] = larger(b[lane], most[part * LANES + lane]);
            c[lane] += poison[part * LANES + lane];
        }
    }
    Extent {
        least: rest.iter().fold(by_halves(a, smaller), |least, &value| smaller(least, value)),
        most: rest.iter().fold(by_halves(b, larger), |most, &value| larger(most, value)),
        poison: rest.iter().fold(by_halves(c, |a, b| a + b), |poison, value| poison + value * 0.0),
    }
}

for_each_level! {
    pub(crate) fn extent = extent_body(row: &[f32]) -> Extent
}

/// Adding this leaves the nearest whole number in the lowest byte.
pub(crate) const ROUND: f32 = 8_388_608.0;

#[inline(always)]
fn quantise_body(row: &[f32], least: f32, inverse: f32, bytes: &mut [u8]) {
    for (byte, value) in bytes.iter_mut().zip(row) {
        *byte = ((value - least) * inverse + ROUND).to_bits() as u8;
    }
}

for_each_level! {
    /// Bytes of `(value − least) · inverse`, which the caller keeps within 0..=255.
    fn quantise = quantise_body(row: &[f32], least: f32, inverse: f32, bytes: &mut [u8])
}

/// Bytes of one row of inputs; returns its scale and its least value. The bytes past the row are left alone: they meet zeros.
fn quantise_row(level: Level, row: &[f32], bytes: &mut [u8]) -> (f32, f32) {
    let Extent { least, most, poison } = extent(level, row);
    let range = most - least;
    let inverse = 255.0 / range;
    if poison != 0.0 || range.is_infinite() {
        bytes[..row.len()].fill(0);
        return (f32::NAN, f32::NAN);
    }
    if !inverse.is_finite() {
        // All the same, or so nearly that a step has no reciprocal.
        bytes[..row.len()].fill(0);
        return (0.0, least);
    }
    quantise(level, row, least, inverse, bytes);
    (range / 255.0, least)
}

/// Quantised rows, `stride` apart.
#[derive(Default)]
pub(crate) struct Quantised {
    pub(crate) bytes: Vec<u8>,
    pub(crate) scale: Vec<f32>,
    pub(crate) least: Vec<f32>,
}

impl Quantised {
    pub(crate) fn fill(&mut self, level: Level, x: &[f32], k: usize) -> usize {
        let (rows, stride) = (x.len() / k, k.next_multiple_of(4));
        self.bytes.clear();
        self.bytes.resize(rows * stride, 0);
        self.scale.clear();
        self.least.clear();
        for (row, bytes) in x.chunks_exact(k).zip(self.bytes.chunks_exact_mut(stride)) {
            let (scale, least) = quantise_row(level, row, bytes);
            self.scale.push(scale);
            self.least.push(least);
        }
        stride
    }
}

/// `activation(x · B + bias)` in 8 bits.
///
/// # Shapes
/// `x` `[rows, k]`, `bias` `[columns]` → `[rows, columns]`
pub fn multiply8(x: &[f32], packed: &Packed8, bias: Option<&[f32]>, activation: Activation) -> Vec<f32> {
    multiply8_around(x, packed, &Around { bias, activation, ..Around::default() })
}

/// `activation(norm(x) · B + bias) + residual`, the product in 8 bits, with rows spread over threads.
///
/// # Shapes
/// `x` `[rows, k]` → `[rows, columns]`
pub fn multiply8_around(x: &[f32], packed: &Packed8, around: &Around<'_>) -> Vec<f32> {
    multiply8_with(Dots::best(), x, packed, around)
}

fn multiply8_with(dots: Dots, x: &[f32], packed: &Packed8, around: &Around<'_>) -> Vec<f32> {
    let (k, columns) = (packed.k, packed.columns);
    if x.is_empty() || k == 0 || columns == 0 {
        return Vec::new();
    }
    assert_eq!(x.len() % k, 0, "rows of {k}");
    let (level, rows) = (Level::best(), x.len() / k);
    around.check([rows, k, columns]);
    let bias = packed.padded_bias(around.bias);
    // Multiples of 24 fill the tiles of all widths.
    let by_cache = (BLOCK / k).clamp(24, MOST_ROWS);
    let block = by_cache.min(rows.div_ceil(2 * rayon::current_num_threads())).next_multiple_of(24);
    let mut out = buffers::take(rows * columns);
    let blocks = out.par_chunks_mut(block * columns).zip(x.par_chunks(block * k)).enumerate();
    blocks.for_each_init(<(Quantised, Vec<f32>)>::default, |(quantised, normed), (index, (out, x))| {
        let stride = quantised.fill(level, around.rows(level, x, normed), k);
        let a = Rows { values: &quantised.bytes, stride, pieces: &[0], length: stride };
        let scales = (&quantised.scale[..], &quantised.least[..]);
        let residual = around.residual.map(|residual| &residual[index * block * columns..]);
        packed.product(dots, a, scales, &bias, (around.activation, residual), (out, columns));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    /// The definition, written without looking at the loops: quantise in `f64`, multiply, scale.
    fn slow(x: &[f32], weight: &[f32], bias: &[f32], k: usize) -> Vec<f64> {
        let columns = bias.len();
        let quantised_weight: Vec<(f64, Vec<f64>)> = weight
            .chunks_exact(k)
            .map(|row| {
                let most = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let step = f64::from(most) / 127.0;
                let steps = |&value: &f32| if most == 0.0 { 0.0 } else { (value * (127.0 / most)).round_ties_even() };
                (step, row.iter().map(|value| f64::from(steps(value))).collect())
            })
            .collect();
        let mut out = Vec::new();
        for row in x.chunks_exact(k) {
            let least = row.iter().copied().fold(f32::INFINITY, f32::min);
            let range = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
            let seen: Vec<f64> = row
                .iter()
                .map(|&value| {
                    let steps = if range == 0.0 { 0.0 } else { ((value - least) * (255.0 / range)).round_ties_even() };
                    f64::from(least) + f64::from(range) / 255.0 * f64::from(steps)
                })
                .collect();
            for column in 0..columns {
                let (step, steps) = &quantised_weight[column];
                let sum: f64 = seen.iter().zip(steps).map(|(x, w)| x * w).sum();
                out.push(sum * step + f64::from(bias[column]));
            }
        }
        out
    }

    #[test]
    fn products_equal_the_slow_twin() {
        for [rows, columns, k] in [
            [1, 1, 1],
            [1, 50, 7],
            [3, 50, 17],
            [24, 33, 40],
            [131, 97, 64],
            [60, 256, 3],
            [7, 5, 16],
            [400, 48, 66],
            [25, 16, 131],
        ] {
            let (x, weight, bias) = (wave(1, rows * k), wave(2, columns * k), wave(3, columns));
            let packed = Packed8::from_rows(&weight, [columns, k]);
            let expected = slow(&x, &weight, &bias, k);
            for dots in Dots::all() {
                for activation in [Activation::None, Activation::Relu] {
                    let found = multiply8_with(
                        dots,
                        &x,
                        &packed,
                        &Around { bias: Some(&bias), activation, ..Around::default() },
                    );
                    assert_eq!(found.len(), expected.len());
                    for (index, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                        let expected = if activation == Activation::Relu { expected.max(0.0) } else { expected };
                        let error = (f64::from(found) - expected).abs();
                        assert!(error < 3e-5, "{dots:?} {rows} × {k} · {k} × {columns} at {index}: {error}");
                    }
                }
            }
        }
    }

    /// 8 bits on either side: each product errs by at most half a step of each.
    #[test]
    fn products_are_near_those_in_full_precision() {
        let [rows, columns, k] = [97, 131, 200];
        let (x, weight) = (wave(4, rows * k), wave(5, columns * k));
        let found = multiply8(&x, &Packed8::from_rows(&weight, [columns, k]), None, Activation::Gelu);
        let exact = crate::linear(&x, &weight, [columns, k], None, Activation::Gelu);
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        let error = squares(&mut found.iter().zip(&exact).map(|(a, b)| a - b));
        let ratio = (error / squares(&mut exact.iter().copied())).sqrt();
        assert!(ratio < 0.01, "relative error {ratio}");
        assert!(ratio > 1e-5, "suspiciously exact: {ratio}");
    }

    #[test]
    fn norm_and_residual_are_those_of_the_product_in_full_precision() {
        let [rows, columns, k] = [61, 70, 34];
        let (x, weight, residual) = (wave(4, rows * k), wave(5, columns * k), wave(6, rows * columns));
        let (scale, shift, bias) = (wave(7, k), wave(8, k), wave(9, columns));
        let norm = crate::LayerNorm { weight: &scale, bias: &shift, eps: 1e-6 };
        let around =
            Around { norm: Some(norm), bias: Some(&bias), activation: Activation::Gelu, residual: Some(&residual) };
        let packed = Packed8::from_rows(&weight, [columns, k]);
        let found = multiply8_around(&x, &packed, &around);
        let normed = crate::layer_norm(&x, &scale, &shift, 1e-6);
        let apart = multiply8(&normed, &packed, Some(&bias), Activation::Gelu);
        for (index, found) in found.iter().enumerate() {
            assert!((found - (apart[index] + residual[index])).abs() < 1e-5, "at {index}");
        }
    }

    #[test]
    fn constant_rows_and_zero_rows_are_exact() {
        let weight = [0.5, -1.0, 0.25, 127.0, -127.0, 3.0];
        let packed = Packed8::from_rows(&weight, [2, 3]);
        let found = multiply8(&[0.0, 0.0, 0.0, 2.0, 2.0, 2.0], &packed, Some(&[1.0, -1.0]), Activation::None);
        // Column 0 is quantised in steps of 1/127, so 0.5 and 0.25 become 64/127 (63.5 to even) and 32/127.
        let expected = [1.0, -1.0, 1.0 + 2.0 * (64.0 - 127.0 + 32.0) / 127.0, -1.0 + 2.0 * 3.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        let zeros = multiply8(&[1.0, 2.0, 3.0], &Packed8::from_rows(&[0.0; 6], [2, 3]), None, Activation::None);
        assert_eq!(zeros, [0.0, 0.0]);
        // A range with no reciprocal is one value.
        let tiny = multiply8(&[1e-42, 2e-42, 0.0], &packed, None, Activation::None);
        assert!(tiny.iter().all(|value| value.abs() < 1e-39), "{tiny:?}");
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row_or_column() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for at in [0, 16, 18] {
                let (mut x, weight) = (wave(1, 3 * 19), wave(2, 2 * 19));
                x[19 + at] = bad;
                x[19 + (at + 1) % 19] = -bad;
                let found = multiply8(&x, &Packed8::from_rows(&weight, [2, 19]), None, Activation::None);
                let finite: Vec<bool> = found.iter().map(|value| value.is_finite()).collect();
                assert_eq!(finite, [true, true, false, false, true, true], "{bad} at {at}");
            }
        }
        let mut weight = wave(2, 2 * 19);
        weight[3] = f32::INFINITY;
        let found = multiply8(&wave(1, 19), &Packed8::from_rows(&weight, [2, 19]), None, Activation::None);
        assert!(found[0].is_nan() && found[1].is_finite());
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(multiply8(&[], &Packed8::from_rows(&[1.0, 2.0], [1, 2]), None, Activation::Gelu).is_empty());
        assert!(multiply8(&[], &Packed8::from_rows(&[], [0, 2]), None, Activation::None).is_empty());
    }

    #[test]
    #[should_panic(expected = "at most 65536 products")]
    fn sums_that_could_overflow_are_refused() {
        Packed8::from_rows(&vec![0.0; MOST_K + 1], [1, MOST_K + 1]);
    }
}
