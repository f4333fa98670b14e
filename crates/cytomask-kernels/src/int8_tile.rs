//! The innermost loop of every 8-bit product: sums of four neighbouring bytes at a time, held in registers as `i32`, turned into
//! `f32` once at the end.
//!
//! `vpdpbusd` multiplies an unsigned by a signed byte and adds four such products to one `i32` without saturating, so the result is
//! exact and the same on every machine as long as no sum leaves `i32` ([`MOST_K`] sees to that). A row of `A` may lie in several
//! pieces: the three lines under the window of a 3 × 3 convolution are three pieces, one after another in memory each.

use std::sync::OnceLock;

use crate::Level;

/// Longest sum: 255 · 127 · this stays below 2³¹.
pub(crate) const MOST_K: usize = 1 << 16;

/// Instructions for products of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dots {
    /// Plain loops.
    Portable,
    /// AVX-VNNI: 8 sums at a time.
    AvxVnni,
    /// AVX-512 VNNI: 16 sums at a time.
    Avx512Vnni,
}

impl Dots {
    /// The best this machine has, not above [`Level::best`].
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Dots> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().filter(|dots| dots.level() <= Level::best()).max().unwrap_or(Self::Portable))
    }

    /// All that this machine has.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::AvxVnni, Self::Avx512Vnni].into_iter().filter(|dots| dots.found())
    }

    fn level(self) -> Level {
        match self {
            Self::Portable => Level::Portable,
            Self::AvxVnni => Level::Avx2,
            Self::Avx512Vnni => Level::Avx512,
        }
    }

    fn found(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            match self {
                Self::Portable => true,
                Self::AvxVnni => has!("avx2") && has!("fma") && has!("avxvnni"),
                Self::Avx512Vnni => Level::all().any(|level| level == Level::Avx512) && has!("avx512vnni"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }
}

/// Rows of unsigned bytes: row `r` is, for each start in `pieces`, the `length` bytes from `r · stride + start` on.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) pieces: &'a [usize],
    /// A multiple of 4.
    pub(crate) length: usize,
}

/// A packed strip of signed bytes, `[k / 4, width, 4]`, `width` 16, 32 or 48.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) values: &'a [i8],
    pub(crate) width: usize,
}

/// How sums become values: `sum · scale[row] · factor[column] + offset[row] · weight_sum[column] + bias[column]`. The slices for
/// columns are as long as the panel is wide.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) offset: &'a [f32],
    pub(crate) factor: &'a [f32],
    pub(crate) weight_sum: &'a [f32],
    pub(crate) bias: &'a [f32],
}

/// Writes (`add` false) or adds to `c` the finished product of `rows` rows and `columns` columns of one panel.
///
/// `c` `[rows, columns]` with rows `c_stride` apart.
pub(crate) fn product(
    dots: Dots,
    [rows, columns]: [usize; 2],
    a: Rows<'_>,
    panel: Panel<'_>,
    finish: Finish<'_>,
    (c, c_stride): (&mut [f32], usize),
    add: bool,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    let (width, quads) = (panel.width, a.length / 4);
    let last = a.pieces.iter().max().map_or(0, |piece| piece + (rows - 1) * a.stride + a.length);
    assert!(a.length.is_multiple_of(4) && a.values.len() >= last, "rows of A within their slice");
    assert!(matches!(width, 16 | 32 | 48) && columns <= width, "columns of one panel");
    assert!(panel.values.len() >= a.pieces.len() * quads * width * 4, "a panel as long as the rows");
    assert!(a.pieces.len() * a.length <= MOST_K, "sums that fit an i32");
    assert!(finish.scale.len() >= rows && finish.offset.len() >= rows, "a scale and an offset for each row");
    let of_columns = [finish.factor.len(), finish.weight_sum.len(), finish.bias.len()];
    assert!(of_columns.iter().all(|&length| length >= width), "a factor for each column");
    assert!(c_stride >= columns && c.len() >= (rows - 1) * c_stride + columns, "rows of C within its slice");
    #[cfg(target_arch = "x86_64")]
    {
        let operands = x86::Operands {
            a: a.values.as_ptr(),
            a_stride: a.stride,
            pieces: a.pieces,
            quads,
            b: panel.values.as_ptr(),
            width,
            scale: finish.scale.as_ptr(),
            offset: finish.offset.as_ptr(),
            factor: finish.factor.as_ptr(),
            weight_sum: finish.weight_sum.as_ptr(),
            bias: finish.bias.as_ptr(),
            c: c.as_mut_ptr(),
            c_stride,
            columns,
            add,
        };
        match dots {
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: the instructions were found on this machine; the lengths were checked above.
            Dots::Avx512Vnni => return unsafe { x86::avx512(rows, operands) },
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: as above.
            Dots::AvxVnni => return unsafe { x86::avx(rows, operands) },
            Dots::Portable => {}
        }
    }
    let _ = dots;
    portable([rows, columns], a, panel, finish, (c, c_stride), add);
}

fn portable(
    [rows, columns]: [usize; 2],
    a: Rows<'_>,
    panel: Panel<'_>,
    finish: Finish<'_>,
    (c, c_stride): (&mut [f32], usize),
    add: bool,
) {
    let (width, quads) = (panel.width, a.length / 4);
    for row in 0..rows {
        let mut sums = [0_i32; 48];
        for (piece, &start) in a.pieces.iter().enumerate() {
            let bytes = &a.values[row * a.stride + start..][..a.length];
            let strips = panel.values[piece * quads * width * 4..].chunks_exact(width * 4);
            for (quad, strip) in bytes.as_chunks::<4>().0.iter().zip(strips) {
                let quad = quad.map(i32::from);
                for (sum, weight) in sums.iter_mut().zip(strip.as_chunks::<4>().0) {
                    let weight = weight.map(i32::from);
                    *sum += quad[0] * weight[0] + quad[1] * weight[1] + quad[2] * weight[2] + quad[3] * weight[3];
                }
            }
        }
        for (column, c) in c[row * c_stride..][..columns].iter_mut().enumerate() {
            let fixed = finish.offset[row] * finish.weight_sum[column] + finish.bias[column];
            let value = sums[column] as f32 * (finish.scale[row] * finish.factor[column]) + fixed;
            *c = if add { *c + value } else { value };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads and stores through pointers; the one caller checks all lengths")]
mod x86 {
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(super) struct Operands<'a> {
        pub(super) a: *const u8,
        pub(super) a_stride: usize,
        pub(super) pieces: &'a [usize],
        pub(super) quads: usize,
        pub(super) b: *const i8,
        pub(super) width: usize,
        pub(super) scale: *const f32,
        pub(super) offset: *const f32,
        pub(super) factor: *const f32,
        pub(super) weight_sum: *const f32,
        pub(super) bias: *const f32,
        pub(super) c: *mut f32,
        pub(super) c_stride: usize,
        pub(super) columns: usize,
        pub(super) add: bool,
    }

    impl Operands<'_> {
        /// The same product from a later row.
        unsafe fn below(self, rows: usize) -> Self {
            // SAFETY: the caller has that many rows.
            unsafe {
                Self {
                    a: self.a.add(rows * self.a_stride),
                    c: self.c.add(rows * self.c_stride),
                    scale: self.scale.add(rows),
                    offset: self.offset.add(rows),
                    ..self
                }
            }
        }

        /// The same product from a later column.
        unsafe fn right(self, columns: usize, width: usize) -> Self {
            // SAFETY: the caller has that many columns.
            unsafe {
                Self {
                    b: self.b.add(columns * 4),
                    c: self.c.add(columns),
                    factor: self.factor.add(columns),
                    weight_sum: self.weight_sum.add(columns),
                    bias: self.bias.add(columns),
                    columns: (self.columns - columns).min(width),
                    ..self
                }
            }
        }
    }

    /// Calls `$body::<ROWS, VECTORS>` for a number of rows known at compile time.
    macro_rules! by_rows {
        ($rows:expr, $operands:expr, $body:ident, $vectors:literal: $($count:literal)*) => {
            match $rows {
                $($count => unsafe { $body::<$count, $vectors>($operands) },)*
                _ => unreachable!("fewer rows than a tile has"),
            }
        };
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn avx512(rows: usize, operands: Operands<'_>) {
        let most = if operands.width == 48 { 8 } else { 12 };
        let mut row = 0;
        while row < rows {
            let these = (rows - row).min(most);
            // SAFETY: within the caller's rows.
            let part = unsafe { operands.below(row) };
            // SAFETY: as above.
            match operands.width {
                48 => by_rows!(these, part, avx512_rows, 3: 1 2 3 4 5 6 7 8),
                32 => by_rows!(these, part, avx512_rows, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
                _ => by_rows!(these, part, avx512_rows, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
            }
            row += these;
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn avx512_rows<const ROWS: usize, const VECTORS: usize>(operands: Operands<'_>) {
        let Operands { a, a_stride, pieces, quads, width, c, c_stride, columns, .. } = operands;
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
        let mut strip = operands.b;
        for &start in pieces {
            let mut bytes = a.wrapping_add(start);
            for _ in 0..quads {
                // SAFETY: the panel holds a strip for each quad of each piece; each row holds all pieces.
                unsafe {
                    let mut b = [_mm512_setzero_si512(); VECTORS];
                    for (vector, b) in b.iter_mut().enumerate() {
                        *b = _mm512_loadu_si512(strip.add(vector * 64).cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let quad = bytes.add(row * a_stride).cast::<i32>().read_unaligned();
                        let quad = _mm512_set1_epi32(quad);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = _mm512_dpbusd_epi32(*sum, quad, b);
                        }
                    }
                    strip = strip.add(width * 4);
                    bytes = bytes.add(4);
                }
            }
        }
        // SAFETY: factors for all columns of the panel, scales for all rows; masked lanes lie within the rows of C.
        unsafe {
            let column = |values: *const f32| -> [__m512; VECTORS] {
                std::array::from_fn(|vector| _mm512_loadu_ps(values.add(vector * 16)))
            };
            let (factor, weight_sum, bias) =
                (column(operands.factor), column(operands.weight_sum), column(operands.bias));
            for (row, sums) in sums.iter().enumerate() {
                let (scale, offset) =
                    (_mm512_set1_ps(*operands.scale.add(row)), _mm512_set1_ps(*operands.offset.add(row)));
                for (vector, sum) in sums.iter().enumerate() {
                    let kept = columns.saturating_sub(vector * 16).min(16);
                    let mask = ((1_u32 << kept) - 1) as __mmask16;
                    let fixed = _mm512_fmadd_ps(offset, weight_sum[vector], bias[vector]);
                    let scale = _mm512_mul_ps(scale, factor[vector]);
                    let mut value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*sum), scale, fixed);
                    let to = c.wrapping_add(row * c_stride + vector * 16);
                    if operands.add {
                        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
                    }
                    _mm512_mask_storeu_ps(to, mask, value);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,avxvnni")]
    pub(super) unsafe fn avx(rows: usize, operands: Operands<'_>) {
        let (most, width) = if operands.width == 48 { (4, 24) } else { (6, 16) };
        let mut row = 0;
        while row < rows {
            let these = (rows - row).min(most);
            // SAFETY: within the caller's rows.
            let part = unsafe { operands.below(row) };
            let mut column = 0;
            while column < operands.columns {
                // SAFETY: within the caller's columns.
                let part = unsafe { part.right(column, width) };
                // SAFETY: as above.
                match operands.width {
                    48 => by_rows!(these, part, avx_rows, 3: 1 2 3 4),
                    _ => by_rows!(these, part, avx_rows, 2: 1 2 3 4 5 6),
                }
                column += width;
            }
            row += these;
        }
    }

    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn avx_rows<const ROWS: usize, const VECTORS: usize>(operands: Operands<'_>) {
        let Operands { a, a_stride, pieces, quads, width, c, c_stride, columns, .. } = operands;
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; ROWS];
        let mut strip = operands.b;
        for &start in pieces {
            let mut bytes = a.wrapping_add(start);
            for _ in 0..quads {
                // SAFETY: the panel holds a strip for each quad of each piece; each row holds all pieces.
                unsafe {
                    let mut b = [_mm256_setzero_si256(); VECTORS];
                    for (vector, b) in b.iter_mut().enumerate() {
                        *b = _mm256_loadu_si256(strip.add(vector * 32).cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let quad = bytes.add(row * a_stride).cast::<i32>().read_unaligned();
                        let quad = _mm256_set1_epi32(quad);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = _mm256_dpbusd_avx_epi32(*sum, quad, b);
                        }
                    }
                    strip = strip.add(width * 4);
                    bytes = bytes.add(4);
                }
            }
        }
        let mut whole = [[0.0_f32; 8]; VECTORS];
        for (row, sums) in sums.iter().enumerate() {
            // SAFETY: factors for all columns of the panel, scales for all rows; only kept columns of C are touched.
            unsafe {
                let (scale, offset) =
                    (_mm256_set1_ps(*operands.scale.add(row)), _mm256_set1_ps(*operands.offset.add(row)));
                for (vector, (values, sum)) in whole.iter_mut().zip(sums).enumerate() {
                    let column = |values: *const f32| _mm256_loadu_ps(values.add(vector * 8));
                    let fixed = _mm256_fmadd_ps(offset, column(operands.weight_sum), column(operands.bias));
                    let scale = _mm256_mul_ps(scale, column(operands.factor));
                    let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, fixed);
                    _mm256_storeu_ps(values.as_mut_ptr(), value);
                }
                for (column, value) in whole.as_flattened().iter().enumerate().take(columns) {
                    let to = c.add(row * c_stride + column);
                    *to = if operands.add { *to + value } else { *value };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes from a linear congruential generator, extremes included often.
    pub(crate) fn bytes(seed: u32, count: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match state >> 29 {
                    0 => 255,
                    1 => 0,
                    _ => (state >> 16) as u8,
                }
            })
            .collect()
    }

    /// Every number of rows and edge of columns, one piece and three, against the obvious loops. The integer part is exact.
    #[test]
    fn every_edge_equals_the_obvious_loops() {
        for dots in Dots::all() {
            for rows in 1..=17 {
                for (width, columns) in
                    [(16, 1), (16, 16), (32, 17), (32, 31), (32, 32), (48, 3), (48, 24), (48, 25), (48, 47), (48, 48)]
                {
                    for (pieces, length) in [(vec![0], 4 + 4 * rows), (vec![3, 90, 41], 12)] {
                        let stride = 5 + 4 * rows;
                        let k = pieces.len() * length;
                        let values = bytes(1, 200 + rows * stride);
                        // −128 never comes out of the packing, and would be exact too.
                        let weights: Vec<i8> =
                            bytes(2, k * width).into_iter().map(|byte| (byte as i8).max(-127)).collect();
                        let wave = |seed: usize, count: usize| -> Vec<f32> {
                            (0..count).map(|at| ((at * 7 + seed) % 11) as f32 / 8.0 - 0.5).collect()
                        };
                        let per_row = [wave(1, rows), wave(2, rows)];
                        let per_column = [wave(3, width), wave(4, width), wave(5, width)];
                        let finish = Finish {
                            scale: &per_row[0],
                            offset: &per_row[1],
                            factor: &per_column[0],
                            weight_sum: &per_column[1],
                            bias: &per_column[2],
                        };
                        let c_stride = columns + 3;
                        let last = (rows - 1) * c_stride + columns;
                        for add in [false, true] {
                            let before = wave(6, rows * c_stride);
                            let mut c = before.clone();
                            let a = Rows { values: &values, stride, pieces: &pieces, length };
                            let panel = Panel { values: &weights, width };
                            product(dots, [rows, columns], a, panel, finish, (&mut c[..last], c_stride), add);
                            for (index, &found) in c.iter().enumerate() {
                                let (row, column) = (index / c_stride, index % c_stride);
                                if column >= columns {
                                    assert_eq!(found, before[index], "outside of C");
                                    continue;
                                }
                                let sum: i64 = (0..k)
                                    .map(|at| {
                                        let byte = values[row * stride + pieces[at / length] + at % length];
                                        let weight = weights[(at / 4 * width + column) * 4 + at % 4];
                                        i64::from(byte) * i64::from(weight)
                                    })
                                    .sum();
                                let expected =
                                    sum as f64 * f64::from(per_row[0][row]) * f64::from(per_column[0][column])
                                        + f64::from(per_row[1][row]) * f64::from(per_column[1][column])
                                        + f64::from(per_column[2][column])
                                        + if add { f64::from(before[index]) } else { 0.0 };
                                let error = (f64::from(found) - expected).abs();
                                let near = 1e-6 * expected.abs().max(1.0);
                                assert!(error <= near, "{dots:?} {rows} × {columns} of {width} at {index}: {error}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// The largest sums there can be do not overflow.
    #[test]
    fn the_longest_sum_of_extremes_is_exact() {
        let (values, ones) = (vec![255_u8; MOST_K], [1.0_f32; 16]);
        for dots in Dots::all() {
            for weight in [-127_i8, 127] {
                let weights = vec![weight; MOST_K * 16];
                let a = Rows { values: &values, stride: 0, pieces: &[0], length: MOST_K };
                let zeros = [0.0; 16];
                let finish = Finish { scale: &ones, offset: &zeros, factor: &ones, weight_sum: &zeros, bias: &zeros };
                let mut c = [0.0_f32; 16];
                product(dots, [1, 16], a, Panel { values: &weights, width: 16 }, finish, (&mut c, 16), false);
                let expected = (255 * i64::from(weight) * MOST_K as i64) as f32;
                assert_eq!(c, [expected; 16], "{dots:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "rows of A within their slice")]
    fn a_short_slice_is_refused() {
        let ones = [1.0_f32; 16];
        let finish = Finish { scale: &ones, offset: &ones, factor: &ones, weight_sum: &ones, bias: &ones };
        let a = Rows { values: &[0; 11], stride: 4, pieces: &[0, 4], length: 4 };
        product(Dots::best(), [2, 16], a, Panel { values: &[0; 128], width: 16 }, finish, (&mut [0.0; 32], 16), false);
    }
}
