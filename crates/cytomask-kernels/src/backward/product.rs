//! Products of two row-major matrices as the ways back need them, and the linear layer's.

use rayon::prelude::*;

use crate::{
    Activation, Level, Packed,
    level::for_each_level,
    multiply,
    tile::{Start, Strip, accumulate, transpose},
};

/// Products in a sum at a time: as many rows of a strip of `B` as stay in the first-level cache.
const DEPTH: usize = 192;

/// Rows of `C` a task computes, at least.
const ROWS: usize = 24;

/// Rows that are summed to one partial sum.
const SUMMED: usize = 512;

/// Widths of the strips of a row-major matrix, and their first columns: the widest that leave no rest.
fn strips(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let padded = columns.next_multiple_of(16);
    let widest = [48, 64, 32].into_iter().find(|&width| padded.is_multiple_of(width)).unwrap_or(48);
    (0..columns).step_by(widest).map(move |first| (first, (padded - first).min(widest)))
}

/// `C += A · B` on this thread for matrices that lie as they are: `a` `[m, k]`, `b` `[k, n]`, `c` `[m, n]`, all with rows that many
/// values apart. `edge` holds the last columns of `B` where a whole strip would reach past its end.
pub(super) fn accumulate_rows(
    level: Level,
    [m, k, n]: [usize; 3],
    (a, a_stride): (&[f32], usize),
    (b, b_stride): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    edge: &mut Vec<f32>,
) {
    for from in (0..k).step_by(DEPTH) {
        let count = DEPTH.min(k - from);
        let (a, b) = (&a[from..], &b[from * b_stride..]);
        for (first, width) in strips(n) {
            let columns = width.min(n - first);
            let strip = if (count - 1) * b_stride + first + width <= b.len() {
                Strip::Rows(&b[first..], b_stride, width)
            } else {
                edge.clear();
                edge.resize(count * width, 0.0);
                for (to, from) in edge.chunks_exact_mut(width).zip(b.chunks(b_stride)) {
                    to[..columns].copy_from_slice(&from[first..first + columns]);
                }
                Strip::Panel(edge, width)
            };
            accumulate(level, [m, count, columns], (a, a_stride), strip, Start::Held, (&mut c[first..], c_stride));
        }
    }
}

/// The gradient of a linear layer's input: `dy · weight`.
///
/// # Shapes
/// `dy` `[rows, C_out]`, `weight` `[C_out, C_in]` → `[rows, C_in]`
pub fn linear_input_gradient(dy: &[f32], weight: &[f32], [c_out, c_in]: [usize; 2]) -> Vec<f32> {
    multiply(dy, &Packed::from_columns(weight, [c_out, c_in]), None, Activation::None)
}

/// The gradient of a linear layer's weight: `dyᵀ · x`.
///
/// # Shapes
/// `dy` `[rows, C_out]`, `x` `[rows, C_in]` → `[C_out, C_in]`
pub fn linear_weight_gradient(dy: &[f32], x: &[f32], [c_out, c_in]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0_f32; c_out * c_in];
    if out.is_empty() {
        return out;
    }
    let rows = x.len() / c_in;
    assert_eq!([dy.len(), x.len()], [rows * c_out, rows * c_in], "rows of {c_out} and of {c_in}");
    let level = Level::best();
    // Equal parts in whole tiles.
    let block = c_out.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(ROWS);
    out.par_chunks_mut(block * c_in).enumerate().for_each_init(
        || (Vec::new(), Vec::new()),
        |(turned, edge): &mut (Vec<f32>, Vec<f32>), (index, out)| {
            let (first, count) = (index * block, out.len() / c_in);
            for from in (0..rows).step_by(DEPTH) {
                let these = DEPTH.min(rows - from);
                turned.resize(count * these, 0.0);
                transpose(level, (&dy[from * c_out + first..], c_out), [these, count], (turned, these));
                accumulate_rows(
                    level,
                    [count, these, c_in],
                    (turned, these),
                    (&x[from * c_in..], c_in),
                    (out, c_in),
                    edge,
                );
            }
        },
    );
    out
}

/// Sums over the rows.
///
/// # Shapes
/// `[rows, columns]` → `[columns]`
pub fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    if columns == 0 {
        return Vec::new();
    }
    let level = Level::best();
    let parts: Vec<Vec<f32>> = values
        .par_chunks(SUMMED * columns)
        .map(|rows| {
            let mut sums = vec![0.0_f32; columns];
            add_rows(level, rows, &mut sums);
            sums
        })
        .collect();
    total(parts, columns)
}

/// The sum of equally long vectors, in their order.
pub(super) fn total(parts: Vec<Vec<f32>>, length: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_else(|| vec![0.0; length]);
    parts.fold(first, |mut sums, part| {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        sums
    })
}

#[inline(always)]
fn add_rows_body(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

for_each_level! {
    /// Adds each row to the sums.
    fn add_rows = add_rows_body(rows: &[f32], sums: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, wave};

    #[test]
    fn linear_gradients_equal_the_obvious_loops() {
        for [rows, c_out, c_in] in [[1, 1, 1], [7, 5, 3], [131, 97, 50], [600, 33, 64], [200, 16, 47], [40, 130, 48]] {
            let (x, dy, weight) = (wave(1, rows * c_in), wave(2, rows * c_out), wave(3, c_out * c_in));
            let what = format!("{rows} × {c_in} → {c_out}");
            let product = |count: usize, values: &dyn Fn(usize) -> [f32; 2]| -> f64 {
                (0..count).map(values).map(|[a, b]| f64::from(a) * f64::from(b)).sum()
            };
            let dx: Vec<f64> = (0..rows * c_in)
                .map(|i| product(c_out, &|at| [dy[i / c_in * c_out + at], weight[at * c_in + i % c_in]]))
                .collect();
            assert_close(&linear_input_gradient(&dy, &weight, [c_out, c_in]), &dx, &what);
            let dw: Vec<f64> = (0..c_out * c_in)
                .map(|i| product(rows, &|at| [dy[at * c_out + i / c_in], x[at * c_in + i % c_in]]))
                .collect();
            assert_close(&linear_weight_gradient(&dy, &x, [c_out, c_in]), &dw, &what);
            let sums: Vec<f64> = (0..c_out).map(|i| product(rows, &|at| [dy[at * c_out + i], 1.0])).collect();
            assert_close(&column_sums(&dy, c_out), &sums, &what);
        }
    }
}
