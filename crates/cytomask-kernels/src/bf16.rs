//! Linear layers in bf16 (the upper half of an `f32`: its range, 8 bits of precision): weights rounded once, inputs at each call, both
//! to nearest, ties to even; sums in `f32`.
//!
//! `vdpbf16ps` multiplies two pairs and adds both products to one `f32`. AMD's cores since Zen 4 do that twice as fast as `f32`;
//! Intel's, where AMX is missing, at half the speed of `f32` (measured: `examples/peaks.rs`). The instruction takes and gives
//! denormals as zeros and rounds in its own order, so results differ from the portable loop's by rounding.

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::{
    Activation, Around, Level, buffers,
    gemm::{finish, panel_width},
    level::for_each_level,
};

/// Bytes of rounded rows one thread works on at a time.
const BLOCK: usize = 1 << 18;

/// Most columns of a panel.
const WIDEST: usize = 48;

/// Whether this machine multiplies bf16 by itself (AVX-512 BF16). Without, the products are computed by plain loops.
pub fn bf16_is_native() -> bool {
    static NATIVE: OnceLock<bool> = OnceLock::new();
    #[cfg(target_arch = "x86_64")]
    let found = || Level::best() == Level::Avx512 && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let found = || false;
    *NATIVE.get_or_init(found)
}

/// To nearest, ties to even; a NaN stays one.
#[inline(always)]
fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Adding to a NaN's bits could make them an infinity's.
    let kept = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
    (kept >> 16) as u16
}

fn widen(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

#[inline(always)]
fn round_row_body(row: &[f32], out: &mut [u16]) {
    for (out, &value) in out.iter_mut().zip(row) {
        *out = round(value);
    }
}

for_each_level! {
    fn round_row = round_row_body(row: &[f32], out: &mut [u16])
}

/// A matrix `B` `[k, columns]` in bf16, cut into panels `[k / 2, width, 2]`, padded with zeros.
#[derive(Clone, Debug)]
pub struct Packed16 {
    panels: Vec<u16>,
    k: usize,
    columns: usize,
    width: usize,
}

impl Packed16 {
    /// From the transpose, `[columns, k]` row-major, as a linear layer stores its weight.
    pub fn from_rows(rows: &[f32], [columns, k]: [usize; 2]) -> Self {
        assert_eq!(rows.len(), columns * k, "a matrix of {columns} rows of {k}");
        let (width, pairs) = (panel_width(columns), k.div_ceil(2));
        let mut panels = vec![0_u16; columns.div_ceil(width) * width * pairs * 2];
        if k > 0 && columns > 0 {
            let sources = rows.par_chunks(width * k);
            panels.par_chunks_exact_mut(width * pairs * 2).zip(sources).for_each(|(panel, rows)| {
                for (column, row) in rows.chunks_exact(k).enumerate() {
                    for (at, value) in row.iter().enumerate() {
                        panel[(at / 2 * width + column) * 2 + at % 2] = round(*value);
                    }
                }
            });
        }
        Self { panels, k, columns, width }
    }

    /// `C += A · B` on this thread; `a` rows `stride` apart.
    fn accumulate(&self, native: bool, rows: usize, (a, stride): (&[u16], usize), c: &mut [f32]) {
        let (width, pairs) = (self.width, self.k.div_ceil(2));
        for (index, panel) in self.panels.chunks_exact(width * pairs * 2).enumerate() {
            let first = index * width;
            let columns = width.min(self.columns - first);
            accumulate(native, [rows, pairs, columns], (a, stride), (panel, width), (&mut c[first..], self.columns));
        }
    }
}

/// `activation(x · B + bias)` in bf16.
///
/// # Shapes
/// `x` `[rows, k]`, `bias` `[columns]` → `[rows, columns]`
pub fn multiply16(x: &[f32], packed: &Packed16, bias: Option<&[f32]>, activation: Activation) -> Vec<f32> {
    multiply16_around(x, packed, &Around { bias, activation, ..Around::default() })
}

/// `activation(norm(x) · B + bias) + residual`, the product in bf16, with rows spread over threads.
///
/// # Shapes
/// `x` `[rows, k]` → `[rows, columns]`
pub fn multiply16_around(x: &[f32], packed: &Packed16, around: &Around<'_>) -> Vec<f32> {
    multiply16_with(bf16_is_native(), x, packed, around)
}

fn multiply16_with(native: bool, x: &[f32], packed: &Packed16, around: &Around<'_>) -> Vec<f32> {
    let (k, columns) = (packed.k, packed.columns);
    if x.is_empty() || k == 0 || columns == 0 {
        return Vec::new();
    }
    assert_eq!(x.len() % k, 0, "rows of {k}");
    let (level, rows, stride) = (Level::best(), x.len() / k, k.next_multiple_of(2));
    around.check([rows, k, columns]);
    // Multiples of 24 fill the tiles of all widths.
    let by_cache = (BLOCK / 2 / k).clamp(24, 192);
    let block = by_cache.min(rows.div_ceil(2 * rayon::current_num_threads())).next_multiple_of(24);
    let mut out = buffers::take(rows * columns);
    let blocks = out.par_chunks_mut(block * columns).zip(x.par_chunks(block * k)).enumerate();
    blocks.for_each_init(<(Vec<u16>, Vec<f32>)>::default, |(rounded, normed), (index, (out, x))| {
        let rows = x.len() / k;
        rounded.clear();
        rounded.resize(rows * stride, 0);
        let x = around.rows(level, x, normed);
        for (row, rounded) in x.chunks_exact(k).zip(rounded.chunks_exact_mut(stride)) {
            round_row(level, row, &mut rounded[..k]);
        }
        match around.bias {
            Some(bias) => out.chunks_exact_mut(columns).for_each(|row| row.copy_from_slice(bias)),
            None => out.fill(0.0),
        }
        packed.accumulate(native, rows, (rounded, stride), out);
        let residual = around.residual.map(|residual| &residual[index * block * columns..]);
        finish(level, out, [columns, columns], around.activation, residual);
    });
    out
}

/// `C[.., ..columns] += A · B` for one panel `[pairs, width, 2]`.
fn accumulate(
    native: bool,
    [rows, pairs, columns]: [usize; 3],
    (a, stride): (&[u16], usize),
    (panel, width): (&[u16], usize),
    (c, c_stride): (&mut [f32], usize),
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(stride >= 2 * pairs && a.len() >= (rows - 1) * stride + 2 * pairs, "rows of A within their slice");
    assert!(matches!(width, 16 | 32 | WIDEST) && columns <= width, "columns of one panel");
    assert!(panel.len() >= pairs * width * 2, "a panel as long as the rows");
    assert!(c_stride >= columns && c.len() >= (rows - 1) * c_stride + columns, "rows of C within its slice");
    #[cfg(target_arch = "x86_64")]
    if native {
        let (a, b, c) = (a.as_ptr(), panel.as_ptr(), c.as_mut_ptr());
        let operands = x86::Operands { pairs, a, stride, b, width, c, c_stride, columns };
        #[expect(unsafe_code, reason = "loads and stores of registers")]
        // SAFETY: the instructions were found on this machine; the lengths were checked above.
        return unsafe { x86::avx512(rows, operands) };
    }
    let _ = native;
    for row in 0..rows {
        let mut sums = [0.0_f32; WIDEST];
        let row_of_a = a[row * stride..][..2 * pairs].as_chunks::<2>().0;
        for (pair, strip) in row_of_a.iter().zip(panel.chunks_exact(width * 2)) {
            let pair = pair.map(widen);
            for (sum, weight) in sums.iter_mut().zip(strip.as_chunks::<2>().0) {
                *sum += pair[0] * widen(weight[0]) + pair[1] * widen(weight[1]);
            }
        }
        for (c, sum) in c[row * c_stride..][..columns].iter_mut().zip(sums) {
            *c += sum;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads and stores through pointers; the one caller checks all lengths")]
mod x86 {
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(super) struct Operands {
        pub(super) pairs: usize,
        pub(super) a: *const u16,
        pub(super) stride: usize,
        pub(super) b: *const u16,
        pub(super) width: usize,
        pub(super) c: *mut f32,
        pub(super) c_stride: usize,
        pub(super) columns: usize,
    }

    macro_rules! by_rows {
        ($rows:expr, $operands:expr, $vectors:literal: $($count:literal)*) => {
            match $rows {
                $($count => unsafe { rows_of::<$count, $vectors>($operands) },)*
                _ => unreachable!("fewer rows than a tile has"),
            }
        };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn avx512(rows: usize, operands: Operands) {
        let most = if operands.width == 48 { 8 } else { 12 };
        for row in (0..rows).step_by(most) {
            let these = (rows - row).min(most);
            // SAFETY: within the caller's rows.
            let part = unsafe {
                let (a, c) = (operands.a.add(row * operands.stride), operands.c.add(row * operands.c_stride));
                Operands { a, c, ..operands }
            };
            // SAFETY: as above.
            match operands.width {
                48 => by_rows!(these, part, 3: 1 2 3 4 5 6 7 8),
                32 => by_rows!(these, part, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
                _ => by_rows!(these, part, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows_of<const ROWS: usize, const VECTORS: usize>(operands: Operands) {
        let Operands { pairs, a, stride, b, width, c, c_stride, columns } = operands;
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for at in 0..pairs {
            // SAFETY: the panel holds a strip for each pair; each row holds all pairs. Any 64 bytes are 32 values.
            unsafe {
                let strip = b.add(at * width * 2);
                let mut weights = [_mm512_setzero_si512(); VECTORS];
                for (vector, weights) in weights.iter_mut().enumerate() {
                    *weights = _mm512_loadu_si512(strip.add(vector * 32).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let pair = _mm512_set1_epi32(a.add(row * stride + at * 2).cast::<i32>().read_unaligned());
                    let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        let weights = std::mem::transmute::<__m512i, __m512bh>(weights);
                        *sum = _mm512_dpbf16_ps(*sum, pair, weights);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                let kept = columns.saturating_sub(vector * 16).min(16);
                let mask = ((1_u32 << kept) - 1) as __mmask16;
                let to = c.wrapping_add(row * c_stride + vector * 16);
                // SAFETY: masked lanes lie within the rows of C.
                unsafe { _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(mask, to))) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    #[test]
    fn rounding_is_to_nearest_even() {
        for (value, expected) in [
            (1.0, 1.0),
            (-2.5, -2.5),
            // Halfway between 1 and 1 + 2⁻⁷: to even; one step on: up.
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 1.0 / 256.0 + f32::EPSILON, 1.0 + 1.0 / 128.0),
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (0.0, 0.0),
        ] {
            assert_eq!(widen(round(value)), expected, "{value}");
        }
        assert!(widen(round(f32::NAN)).is_nan());
        assert!(widen(round(f32::from_bits(0x7fff_ffff))).is_nan());
    }

    #[test]
    fn products_equal_the_obvious_loops() {
        let ways = if bf16_is_native() { vec![false, true] } else { vec![false] };
        for [rows, columns, k] in
            [[1, 1, 1], [3, 50, 17], [24, 33, 40], [131, 97, 64], [60, 256, 3], [7, 5, 16], [400, 48, 66], [13, 16, 9]]
        {
            let (x, weight, bias) = (wave(1, rows * k), wave(2, columns * k), wave(3, columns));
            let packed = Packed16::from_rows(&weight, [columns, k]);
            for &native in &ways {
                for activation in [Activation::None, Activation::Relu] {
                    let found = multiply16_with(
                        native,
                        &x,
                        &packed,
                        &Around { bias: Some(&bias), activation, ..Around::default() },
                    );
                    assert_eq!(found.len(), rows * columns);
                    for (index, &found) in found.iter().enumerate() {
                        let (row, column) = (index / columns, index % columns);
                        let rounded = |value: f32| f64::from(widen(round(value)));
                        let product = |at: usize| rounded(x[row * k + at]) * rounded(weight[column * k + at]);
                        let sum = (0..k).map(product).sum::<f64>() + f64::from(bias[column]);
                        let expected = if activation == Activation::Relu { sum.max(0.0) } else { sum };
                        let error = (f64::from(found) - expected).abs();
                        assert!(error < 2e-5, "native {native}, {rows} × {k} · {k} × {columns} at {index}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row() {
        let weight = wave(2, 2 * 19);
        for native in [false, bf16_is_native()] {
            let mut x = wave(1, 3 * 19);
            x[19 + 4] = f32::NAN;
            let packed = Packed16::from_rows(&weight, [2, 19]);
            let found = multiply16_with(native, &x, &packed, &Around::default());
            let finite: Vec<bool> = found.iter().map(|value| value.is_finite()).collect();
            assert_eq!(finite, [true, true, false, false, true, true]);
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(multiply16(&[], &Packed16::from_rows(&[1.0, 2.0], [1, 2]), None, Activation::Gelu).is_empty());
        assert!(multiply16(&[], &Packed16::from_rows(&[], [0, 2]), None, Activation::None).is_empty());
    }
}
