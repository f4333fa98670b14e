//! The innermost loop of every product: a few rows of `A` times a strip of columns of `B`, sums held in registers.
//!
//! `C = start + A · B` with `A` and `C` row-major. For each `k` the strip of `B` lies together in memory; where, [`Strip`] says: in a
//! packed panel, or anywhere (which makes a convolution a product without copying its input nine times). The sums start from
//! what `C` holds or from a bias ([`Start`]). With AVX-512 8 × 48, 12 × 32 or 6 × 64 sums stay in 24 registers, with AVX2 4 × 24 or
//! 6 × 16 in 12, with NEON 8 × 8 in 16 (`registers.rs`).

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod registers;

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
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
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
            registers::Operands { k, a, a_stride, b, step, offsets, width, start, start_stride, c, c_stride, columns };
        match level {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: the level was found on this machine; the lengths were checked above.
            Level::Avx512 => return unsafe { registers::x86::avx512(rows, operands) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: as above.
            Level::Avx2 => return unsafe { registers::x86::avx2(rows, operands) },
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: as above.
            Level::Neon => return unsafe { registers::neon::neon(rows, operands) },
            _ => {}
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
                registers::x86::transpose16(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride);
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
