//! The sums of a tile in the registers of AVX-512, AVX2 and NEON.
#![expect(unsafe_code, reason = "vector loads and stores through pointers; the one caller checks all lengths")]

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
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "one tile fits strips of all widths"))]
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

/// Calls `$body::<ROWS, VECTORS, SCATTERED>` for a number of rows known at compile time.
macro_rules! by_rows {
    ($rows:expr, $operands:expr, $body:ident, $vectors:literal, $scattered:literal: $($count:literal)*) => {
        match $rows {
            $($count => unsafe { $body::<$count, $vectors, $scattered>($operands) },)*
            _ => unreachable!("fewer rows than a tile has"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::Operands;

    /// Sixteen rows of sixteen values, transposed: pairs, then fours within each quarter of a register, then the quarters.
    #[target_feature(enable = "avx512f")]
    pub(in crate::tile) unsafe fn transpose16(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
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

    #[target_feature(enable = "avx512f")]
    pub(in crate::tile) unsafe fn avx512(rows: usize, operands: Operands) {
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
    pub(in crate::tile) unsafe fn avx2(rows: usize, operands: Operands) {
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

#[cfg(target_arch = "aarch64")]
pub(super) mod neon {
    use std::arch::aarch64::*;

    use super::Operands;

    /// Rows, and columns in two registers: with four values of each row of `A` and a strip of `B` 26 of 32 registers.
    const ROWS: usize = 8;
    const COLUMNS: usize = 8;

    #[target_feature(enable = "neon")]
    pub(in crate::tile) unsafe fn neon(rows: usize, operands: Operands) {
        for row in (0..rows).step_by(ROWS) {
            let these = (rows - row).min(ROWS);
            for column in (0..operands.columns).step_by(COLUMNS) {
                // SAFETY: within the caller's rows and columns.
                let part = unsafe { operands.below(row).right(column, COLUMNS) };
                // SAFETY: as above.
                match operands.offsets.is_null() {
                    false => by_rows!(these, part, neon_rows, 2, true: 1 2 3 4 5 6 7 8),
                    true => by_rows!(these, part, neon_rows, 2, false: 1 2 3 4 5 6 7 8),
                }
            }
        }
    }

    /// The values of `A` come four at a time and each multiplies from its lane: a load that fills all lanes with one would keep a
    /// multiplier busy (decision 0024).
    #[target_feature(enable = "neon")]
    unsafe fn neon_rows<const ROWS: usize, const VECTORS: usize, const SCATTERED: bool>(operands: Operands) {
        let Operands { k, a, a_stride, start, start_stride, c, c_stride, columns, .. } = operands;
        let mut sums = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
        let fours = k & !3;
        for at in (0..fours).step_by(4) {
            // SAFETY: every strip lies within its slice; each row of A holds k.
            unsafe {
                let mut values = [vdupq_n_f32(0.0); ROWS];
                for (row, values) in values.iter_mut().enumerate() {
                    *values = vld1q_f32(a.add(row * a_stride + at));
                }
                add_products::<0, ROWS, VECTORS>(operands.strip::<SCATTERED>(at), &values, &mut sums);
                add_products::<1, ROWS, VECTORS>(operands.strip::<SCATTERED>(at + 1), &values, &mut sums);
                add_products::<2, ROWS, VECTORS>(operands.strip::<SCATTERED>(at + 2), &values, &mut sums);
                add_products::<3, ROWS, VECTORS>(operands.strip::<SCATTERED>(at + 3), &values, &mut sums);
            }
        }
        for at in fours..k {
            // SAFETY: as above.
            unsafe {
                let mut values = [vdupq_n_f32(0.0); ROWS];
                for (row, values) in values.iter_mut().enumerate() {
                    *values = vld1q_dup_f32(a.add(row * a_stride + at));
                }
                add_products::<0, ROWS, VECTORS>(operands.strip::<SCATTERED>(at), &values, &mut sums);
            }
        }
        let mut whole = [[0.0_f32; 4]; VECTORS];
        for (row, sums) in sums.iter().enumerate() {
            for (values, sum) in whole.iter_mut().zip(sums) {
                // SAFETY: four values.
                unsafe { vst1q_f32(values.as_mut_ptr(), *sum) };
            }
            for (column, sum) in whole.as_flattened().iter().enumerate().take(columns) {
                // SAFETY: within the row of C, and the one to start from.
                unsafe { *c.add(row * c_stride + column) = *start.add(row * start_stride + column) + sum };
            }
        }
    }

    /// Adds the products of one lane of each row's values with a strip.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add_products<const LANE: i32, const ROWS: usize, const VECTORS: usize>(
        strip: *const f32,
        values: &[float32x4_t; ROWS],
        sums: &mut [[float32x4_t; VECTORS]; ROWS],
    ) {
        let mut b = [vdupq_n_f32(0.0); VECTORS];
        for (vector, b) in b.iter_mut().enumerate() {
            // SAFETY: the caller's strip has that many registers.
            *b = unsafe { vld1q_f32(strip.add(vector * 4)) };
        }
        for (sums, &a) in sums.iter_mut().zip(values) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = vfmaq_laneq_f32::<LANE>(*sum, b, a);
            }
        }
    }
}
