//! The innermost loop of every product: a few rows of `A` times a strip of columns of `B`, sums held in registers.
//!
//! `C = start + A · B` with `A` and `C` row-major. For each `k` the strip of `B` lies together in memory; where, [`Strip`] says: in a
//! packed panel, or anywhere (which makes a convolution a product without copying its input nine times). The sums start from
//! what `C` holds or from a bias ([`Start`]). With AVX-512 8 × 48, 12 × 32 or 6 × 64 sums stay in 24 registers, with AVX2 4 × 24 or
//! 6 × 16 in 12.

use crate::Level;

/// Widest strip.
pub(crate) const WIDEST: usize = 48;

/// Starts of the strips of a scattered `B`, and the last of them.
pub(crate) struct Offsets {
    starts: Vec<usize>,
    last: usize,
}

impl Offsets {
    pub(crate) fn new(starts: Vec<usize>) -> Self {
        let last = starts.iter().copied().max().unwrap_or(0);
        Self { starts, last }
    }

    /// Whether the first `count` strips lie within a slice of this length.
    pub(crate) fn hold(&self, count: usize, length: usize) -> bool {
        self.starts.len() >= count && self.last.saturating_add(WIDEST) <= length
    }

    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// What `C` holds.
    Held,
    /// The same value for all rows of a column.
    Row(&'a [f32]),
}

/// Where the columns of `B` lie. Strips are 16, 32, 48 or 64 wide; columns past the wanted ones are read but not used.
#[derive(Clone, Copy)]
pub(crate) enum Strip<'a> {
    /// `[k, width]`, packed.
    Panel(&'a [f32], usize),
    /// Of a matrix with rows so many values apart, a part of the columns that is so wide: `(values, stride, width)`.
    Rows(&'a [f32], usize, usize),
    /// The strip of `k` starts at `offsets[k]`; width [`WIDEST`].
    Scattered(&'a [f32], &'a Offsets),
}

impl Strip<'_> {
    fn width(&self) -> usize {
        match self {
            Self::Panel(_, width) | Self::Rows(_, _, width) => *width,
            Self::Scattered(..) => WIDEST,
        }
    }

    /// Whether `k` strips lie within the slice.
    fn holds(&self, k: usize) -> bool {
        match self {
            Self::Panel(values, width) => values.len() >= k * width,
            Self::Rows(values, stride, width) => k == 0 || values.len() >= (k - 1) * stride + width,
            Self::Scattered(values, offsets) => offsets.hold(k, values.len()),
        }
    }

    fn at(&self, k: usize) -> &[f32] {
        match self {
            Self::Panel(values, width) => &values[k * width..][..*width],
            Self::Rows(values, stride, width) => &values[k * stride..][..*width],
            Self::Scattered(values, offsets) => &values[offsets.starts[k]..][..WIDEST],
        }
    }
}

/// `C[.., ..columns] = start + A · B` for one strip.
///
/// `a` `[rows, k]` with rows `a_stride` apart, `c` `[rows, columns]` with rows `c_stride` apart.
pub(crate) fn accumulate(
    level: Level,
    [rows, k, columns]: [usize; 3],
    (a, a_stride): (&[f32], usize),
    strip: Strip<'_>,
    start: Start<'_>,
    (c, c_stride): (&mut [f32], usize),
) {
    if rows == 0 || columns == 0 || k == 0 {
        return;
    }
    assert!(a_stride >= k && a.len() >= (rows - 1) * a_stride + k, "rows of A within its slice");
    assert!(strip.holds(k), "strips of B within their slice");
    assert!(matches!(strip.width(), 16 | 32 | 48 | 64) && columns <= strip.width(), "columns of one strip");
    assert!(c_stride >= columns && c.len() >= (rows - 1) * c_stride + columns, "rows of C within its slice");
    if let Start::Row(values) = start {
        assert!(values.len() >= columns, "a start for each column");
    }
    #[cfg(target_arch = "x86_64")]
    {
        let width = strip.width();
        let (b, step, offsets) = match strip {
            Strip::Panel(values, width) => (values.as_ptr(), width, std::ptr::null()),
            Strip::Rows(values, stride, _) => (values.as_ptr(), stride, std::ptr::null()),
            Strip::Scattered(values, offsets) => (values.as_ptr(), 0, offsets.starts.as_ptr()),
        };
        let c = c.as_mut_ptr();
        let (start, start_stride) = match start {
            Start::Held => (c.cast_const(), c_stride),
            Start::Row(values) => (values.as_ptr(), 0),
        };
        let a = a.as_ptr();
        let operands =
            x86::Operands { k, a, a_stride, b, step, offsets, width, start, start_stride, c, c_stride, columns };
        match level {
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: the level was found on this machine; the lengths were checked above.
            Level::Avx512 => return unsafe { x86::avx512(rows, operands) },
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: as above.
            Level::Avx2 => return unsafe { x86::avx2(rows, operands) },
            Level::Portable => {}
        }
    }
    let _ = level;
    portable([rows, k, columns], (a, a_stride), strip, start, (c, c_stride));
}

/// `to[column][row] = from[row][column]` for `[rows, columns]` of `from`; both with lines that many values apart.
pub(crate) fn transpose(
    level: Level,
    (from, from_stride): (&[f32], usize),
    [rows, columns]: [usize; 2],
    (to, to_stride): (&mut [f32], usize),
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from_stride >= columns && from.len() >= (rows - 1) * from_stride + columns, "rows within their slice");
    assert!(to_stride >= rows && to.len() >= (columns - 1) * to_stride + rows, "columns within their slice");
    // Sixteen by sixteen in registers; the edges one value at a time.
    let whole =
        if cfg!(target_arch = "x86_64") && level == Level::Avx512 { [rows & !15, columns & !15] } else { [0; 2] };
    #[cfg(target_arch = "x86_64")]
    for row in (0..whole[0]).step_by(16) {
        for column in (0..whole[1]).step_by(16) {
            let from = &from[row * from_stride + column..];
            let to = &mut to[column * to_stride + row..];
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: the level was found on this machine; the lengths were checked above, and these sixteen lie within them.
            unsafe {
                x86::transpose16(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride);
            }
        }
    }
    for row in 0..rows {
        let first = if row < whole[0] { whole[1] } else { 0 };
        for column in first..columns {
            to[column * to_stride + row] = from[row * from_stride + column];
        }
    }
}

/// Columns of the sums the portable loop holds; with four rows they fill 8 registers of four, half of the smallest machines'.
const PORTABLE: usize = 8;

fn portable(
    [rows, k, columns]: [usize; 3],
    (a, a_stride): (&[f32], usize),
    strip: Strip<'_>,
    start: Start<'_>,
    (c, c_stride): (&mut [f32], usize),
) {
    if let Start::Row(values) = start {
        c.chunks_mut(c_stride).take(rows).for_each(|row| row[..columns].copy_from_slice(&values[..columns]));
    }
    for first in (0..rows).step_by(4) {
        let (a, c) = (&a[first * a_stride..], &mut c[first * c_stride..]);
        for column in (0..columns).step_by(PORTABLE) {
            let kept = PORTABLE.min(columns - column);
            let target = (&mut c[column..], c_stride, kept);
            match rows - first {
                1 => portable_rows::<1>(k, (a, a_stride), strip, column, target),
                2 => portable_rows::<2>(k, (a, a_stride), strip, column, target),
                3 => portable_rows::<3>(k, (a, a_stride), strip, column, target),
                _ => portable_rows::<4>(k, (a, a_stride), strip, column, target),
            }
        }
    }
}

fn portable_rows<const ROWS: usize>(
    k: usize,
    (a, a_stride): (&[f32], usize),
    strip: Strip<'_>,
    column: usize,
    (c, c_stride, kept): (&mut [f32], usize, usize),
) {
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &a[row * a_stride..][..k]);
    let mut sums = [[0.0_f32; PORTABLE]; ROWS];
    for at in 0..k {
        let Some(b) = strip.at(at)[column..].first_chunk::<PORTABLE>() else {
            unreachable!("a strip is a multiple wide")
        };
        for (sums, row) in sums.iter_mut().zip(rows) {
            let a = row[at];
            for (sum, &b) in sums.iter_mut().zip(b) {
                // ARM has it in the base set; elsewhere it would be a call.
                *sum = if cfg!(target_arch = "aarch64") { a.mul_add(b, *sum) } else { a * b + *sum };
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (c, sum) in c[row * c_stride..][..kept].iter_mut().zip(sums) {
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
        pub(super) k: usize,
        pub(super) a: *const f32,
        pub(super) a_stride: usize,
        pub(super) b: *const f32,
        /// From one strip to the next.
        pub(super) step: usize,
        /// Null where strips are `step` apart.
        pub(super) offsets: *const usize,
        pub(super) width: usize,
        pub(super) start: *const f32,
        /// 0: the same row for all.
        pub(super) start_stride: usize,
        pub(super) c: *mut f32,
        pub(super) c_stride: usize,
        pub(super) columns: usize,
    }

    impl Operands {
        /// The same product from a later row.
        unsafe fn below(self, rows: usize) -> Self {
            // SAFETY: the caller has that many rows.
            unsafe {
                Self {
                    a: self.a.add(rows * self.a_stride),
                    start: self.start.add(rows * self.start_stride),
                    c: self.c.add(rows * self.c_stride),
                    ..self
                }
            }
        }

        /// The same product from a later column.
        unsafe fn right(self, columns: usize, width: usize) -> Self {
            // SAFETY: the caller has that many columns.
            unsafe {
                Self {
                    b: self.b.add(columns),
                    start: self.start.add(columns),
                    c: self.c.add(columns),
                    columns: (self.columns - columns).min(width),
                    ..self
                }
            }
        }

        /// The strip of one `k`.
        #[inline(always)]
        unsafe fn strip<const SCATTERED: bool>(&self, at: usize) -> *const f32 {
            // SAFETY: the caller checked that all strips lie within their slice.
            unsafe { if SCATTERED { self.b.add(*self.offsets.add(at)) } else { self.b.add(at * self.step) } }
        }
    }

    /// Sixteen rows of sixteen values, transposed: pairs, then fours within each quarter of a register, then the quarters.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose16(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller has sixteen rows of sixteen values on both sides.
        let r: [__m512; 16] = std::array::from_fn(|row| unsafe { _mm512_loadu_ps(from.add(row * from_stride)) });
        let pairs: [__m512; 16] = std::array::from_fn(|index| {
            let (a, b) = (r[index & !1], r[index | 1]);
            if index & 1 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
        });
        // fours[4 g + i]: columns i, i + 4, i + 8, i + 12 of rows 4 g..4 g + 4.
        let fours: [__m512; 16] = std::array::from_fn(|index| {
            let (group, column) = (index & !3, index & 3);
            let high = column >> 1;
            let a = _mm512_castps_pd(pairs[group + high]);
            let b = _mm512_castps_pd(pairs[group + 2 + high]);
            let joined = if column & 1 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) };
            _mm512_castpd_ps(joined)
        });
        for column in 0..4 {
            let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
            let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d)];
            let odd = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d)];
            let lines = [
                _mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
                _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
            ];
            for (quarter, line) in lines.into_iter().enumerate() {
                // SAFETY: as for the loads.
                unsafe { _mm512_storeu_ps(to.add((4 * quarter + column) * to_stride), line) };
            }
        }
    }

    /// Calls `$body::<ROWS, VECTORS, SCATTERED>` for a number of rows known at compile time.
    macro_rules! by_rows {
        ($rows:expr, $operands:expr, $body:ident, $vectors:literal, $scattered:literal: $($count:literal)*) => {
            match $rows {
                $($count => unsafe { $body::<$count, $vectors, $scattered>($operands) },)*
                _ => unreachable!("fewer rows than a tile has"),
            }
        };
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512(rows: usize, operands: Operands) {
        let most = match operands.width {
            64 => 6,
            48 => 8,
            _ => 12,
        };
        let mut row = 0;
        while row < rows {
            let these = (rows - row).min(most);
            // SAFETY: within the caller's rows.
            let part = unsafe { operands.below(row) };
            // SAFETY: as above.
            match (operands.width, operands.offsets.is_null()) {
                (48, false) => by_rows!(these, part, avx512_rows, 3, true: 1 2 3 4 5 6 7 8),
                (64, _) => by_rows!(these, part, avx512_rows, 4, false: 1 2 3 4 5 6),
                (48, true) => by_rows!(these, part, avx512_rows, 3, false: 1 2 3 4 5 6 7 8),
                (32, _) => by_rows!(these, part, avx512_rows, 2, false: 1 2 3 4 5 6 7 8 9 10 11 12),
                _ => by_rows!(these, part, avx512_rows, 1, false: 1 2 3 4 5 6 7 8 9 10 11 12),
            }
            row += these;
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn avx512_rows<const ROWS: usize, const VECTORS: usize, const SCATTERED: bool>(operands: Operands) {
        let Operands { k, a, a_stride, start, start_stride, c, c_stride, columns, .. } = operands;
        // Lanes that hold columns of C; loads and stores outside of them do not happen.
        let masks: [__mmask16; VECTORS] = std::array::from_fn(|vector| {
            let kept = columns.saturating_sub(vector * 16).min(16);
            ((1_u32 << kept) - 1) as __mmask16
        });
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let from = start.wrapping_add(row * start_stride + vector * 16);
                // SAFETY: masked lanes lie within the rows of C, or within the one row to start from.
                *sum = unsafe { _mm512_maskz_loadu_ps(masks[vector], from) };
            }
        }
        for at in 0..k {
            // SAFETY: every strip lies within its slice; each row of A holds k.
            unsafe {
                let strip = operands.strip::<SCATTERED>(at);
                let mut b = [_mm512_setzero_ps(); VECTORS];
                for (vector, b) in b.iter_mut().enumerate() {
                    *b = _mm512_loadu_ps(strip.add(vector * 16));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*a.add(row * a_stride + at));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm512_fmadd_ps(a, b, *sum);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                // SAFETY: as for the loads.
                unsafe { _mm512_mask_storeu_ps(c.wrapping_add(row * c_stride + vector * 16), masks[vector], *sum) };
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(rows: usize, operands: Operands) {
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
                match (operands.width, operands.offsets.is_null()) {
                    (48, false) => by_rows!(these, part, avx2_rows, 3, true: 1 2 3 4),
                    (48, true) => by_rows!(these, part, avx2_rows, 3, false: 1 2 3 4),
                    _ => by_rows!(these, part, avx2_rows, 2, false: 1 2 3 4 5 6),
                }
                column += width;
            }
            row += these;
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_rows<const ROWS: usize, const VECTORS: usize, const SCATTERED: bool>(operands: Operands) {
        let Operands { k, a, a_stride, start, start_stride, c, c_stride, columns, .. } = operands;
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        for at in 0..k {
            // SAFETY: every strip lies within its slice; each row of A holds k.
            unsafe {
                let strip = operands.strip::<SCATTERED>(at);
                let mut b = [_mm256_setzero_ps(); VECTORS];
                for (vector, b) in b.iter_mut().enumerate() {
                    *b = _mm256_loadu_ps(strip.add(vector * 8));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_set1_ps(*a.add(row * a_stride + at));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm256_fmadd_ps(a, b, *sum);
                    }
                }
            }
        }
        let mut whole = [[0.0_f32; 8]; VECTORS];
        for (row, sums) in sums.iter().enumerate() {
            for (values, sum) in whole.iter_mut().zip(sums) {
                // SAFETY: eight values.
                unsafe { _mm256_storeu_ps(values.as_mut_ptr(), *sum) };
            }
            for (column, sum) in whole.as_flattened().iter().enumerate().take(columns) {
                // SAFETY: within the row of C, and the one to start from.
                unsafe { *c.add(row * c_stride + column) = *start.add(row * start_stride + column) + sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    /// Every number of rows and edge of columns, packed and scattered, against the obvious loops.
    #[test]
    fn every_edge_equals_the_obvious_loops() {
        for level in Level::all() {
            for rows in 1..=19 {
                for width in [16, 32, 48, 64] {
                    for columns in
                        [1, 7, 15, 16, 17, 23, 24, 25, 31, 32, 40, 47, 48, 49, 64].into_iter().filter(|&c| c <= width)
                    {
                        let k = 5 + rows;
                        let (a_stride, c_stride) = (k + 3, columns + 2);
                        let (a, values) = (wave(1, rows * a_stride), wave(2, k * width + 100));
                        let offsets = Offsets::new((0..k).map(|at| (at * 31) % (k * width + 52)).collect());
                        let mut strips = vec![Strip::Panel(&values, width), Strip::Rows(&values, width + 3, width)];
                        if width == WIDEST {
                            strips.push(Strip::Scattered(&values, &offsets));
                        }
                        for strip in strips {
                            let before = wave(3, rows * c_stride);
                            let mut c = before.clone();
                            let last = (rows - 1) * c_stride + columns;
                            let target = (&mut c[..last], c_stride);
                            accumulate(level, [rows, k, columns], (&a, a_stride), strip, Start::Held, target);
                            let mut fresh = before.clone();
                            let (bias, target) = (wave(4, columns), (&mut fresh[..last], c_stride));
                            accumulate(level, [rows, k, columns], (&a, a_stride), strip, Start::Row(&bias), target);
                            for index in 0..before.len() {
                                let (row, column) = (index / c_stride, index % c_stride);
                                let product = |at: usize| a[row * a_stride + at] * strip.at(at)[column];
                                let inside = column < columns;
                                let sum: f32 = if inside { (0..k).map(product).sum() } else { 0.0 };
                                let start = if inside { bias[column] } else { before[index] };
                                for (found, start) in [(c[index], before[index]), (fresh[index], start)] {
                                    let error = (found - start - sum).abs();
                                    assert!(
                                        error < 1e-4,
                                        "{level:?} {rows} × {columns} of {width} at {index}: {error}"
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn transposing_puts_each_value_in_its_place() {
        for level in Level::all() {
            for [rows, columns] in [[1, 1], [16, 16], [17, 35], [48, 64], [40, 7]] {
                let (from_stride, to_stride) = (columns + 3, rows + 5);
                let from: Vec<f32> = (0..rows * from_stride).map(|index| index as f32).collect();
                let mut to = vec![-1.0; columns * to_stride];
                transpose(level, (&from, from_stride), [rows, columns], (&mut to, to_stride));
                for (index, &found) in to.iter().enumerate() {
                    let (column, row) = (index / to_stride, index % to_stride);
                    let expected = if row < rows { from[row * from_stride + column] } else { -1.0 };
                    assert_eq!(found, expected, "{level:?} {rows} × {columns} at {row}, {column}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "rows of A within its slice")]
    fn a_short_slice_is_refused() {
        accumulate(
            Level::best(),
            [2, 4, 3],
            (&[0.0; 7], 4),
            Strip::Panel(&[0.0; 64], 16),
            Start::Held,
            (&mut [0.0; 6], 3),
        );
    }

    #[test]
    #[should_panic(expected = "strips of B within their slice")]
    fn a_strip_past_the_end_is_refused() {
        let offsets = Offsets::new(vec![0, 13]);
        let strip = Strip::Scattered(&[0.0; 60], &offsets);
        accumulate(Level::best(), [1, 2, 3], (&[0.0; 2], 2), strip, Start::Held, (&mut [0.0; 3], 3));
    }
}
