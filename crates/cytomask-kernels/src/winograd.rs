//! 3 × 3 convolutions of stride 1 with a quarter of the products: Winograd's minimal filtering F(4 × 4, 3 × 3), after Lavin and Gray,
//! "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
//!
//! Sixteen outputs in a square need the thirty-six inputs around them. Both the inputs and the filter are evaluated at six points on
//! each axis (as polynomials; the last point is infinity), multiplied point by point, summed over the channels, and sixteen outputs are
//! interpolated. At each of the 36 points the sums over channels are a product of matrices, filters by tiles.
//!
//! The points are 0, ±3/4, ±3/2 and ∞: their powers are exact in `f32` and near 1, so that the error (root of the mean square 1.0e-6 of
//! that of the outputs, for 128 channels) is that of plain sums; with the usual 0, ±1, ±2 it is twice that, and its extremes five times.
//!
//! Inputs may be scaled on the way in ([`Map`]), which spares a pass for a norm, and come from several tensors, which spares joining
//! them. 48 tiles at a time go through all three steps, in the second-level cache where the channels are few enough.

use rayon::prelude::*;

use crate::{
    Activation, Conv2dShape, Level, buffers,
    conv::bands,
    level::{fma, for_each_level},
    tile::{Start, Strip, accumulate},
    winograd_lanes::{DEEP, LINE, Lines, deinterleave, interleave, prefetch},
};

/// Outputs of a tile on each axis.
pub(crate) const TILE: usize = 4;

/// Inputs of a tile, and points, on each axis.
pub(crate) const SIDE: usize = TILE + 2;

const POINTS: usize = SIDE * SIDE;

/// Tiles taken through all steps together: the widest strip of a product.
pub(crate) const TILES: usize = 48;

/// Values of a register.
pub(crate) const LANES: usize = 16;

/// The points besides 0 and ∞ are ±A and ±B.
const A: f32 = 0.75;
const B: f32 = 1.5;

/// Values between the planes of two points more than needed: without them all planes would meet in one set of the cache.
const GAP: usize = LANES;

/// A value of each of sixteen tiles.
type Lanes = [f32; LANES];

/// One channel of one image as a convolution reads it: `values · factor + offset`. Zeros outside are not scaled.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// `[H, W]`
    pub values: &'a [f32],
    /// 1 for values as they are.
    pub factor: f32,
    /// 0 for values as they are.
    pub offset: f32,
}

impl<'a> Map<'a> {
    /// The maps of a `[N, C, H, W]` as they are.
    pub fn all(values: &'a [f32], pixels: usize) -> Vec<Self> {
        values.chunks_exact(pixels.max(1)).map(|values| Self { values, factor: 1.0, offset: 0.0 }).collect()
    }
}

/// The weight of a 3 × 3 convolution at the 36 points, in the order in which the products read it:
/// `[C_out / block, 36, block, C_in]`. Four times the memory of the weight.
#[derive(Clone, Debug)]
pub struct Weight3x3 {
    values: Vec<f32>,
    c_in: usize,
    c_out: usize,
}

impl Weight3x3 {
    /// From `[C_out, C_in, 3, 3]`.
    pub fn new(weight: &[f32], [c_out, c_in]: [usize; 2]) -> Self {
        assert_eq!(weight.len(), c_out * c_in * 9, "a weight of {c_out} × {c_in} × 3 × 3");
        let mut values = vec![0.0; c_out * c_in * POINTS];
        let block = block_of_channels(c_in);
        if c_in > 0 {
            let parts = values.par_chunks_mut(block * POINTS * c_in).zip(weight.par_chunks(block * c_in * 9));
            parts.for_each(|(values, weight)| {
                let plane = weight.len() / 9;
                for (index, filter) in weight.as_chunks::<9>().0.iter().enumerate() {
                    for (point, value) in at_points(filter).into_iter().enumerate() {
                        values[point * plane + index] = value;
                    }
                }
            });
        }
        Self { values, c_in, c_out }
    }

    /// Whether a convolution is one that this way is made for, and faster than the plain one.
    pub fn suits(shape: &Conv2dShape) -> bool {
        let Conv2dShape { c_in, c_out, kernel, stride, .. } = *shape;
        kernel == [3, 3] && stride == 1 && c_in >= 8 && c_out >= 8
    }
}

/// Output channels whose products are held at once: few enough that they stay in the cache beside the inputs, many where the inputs
/// do not fit and are read anew for each block.
fn block_of_channels(c_in: usize) -> usize {
    if c_in >= 256 { 64 } else { 32 }
}

/// A 3 × 3 filter at the 36 points: at point p, `(w₀ + p w₁ + p² w₂) / Π (p − other points)`; at infinity `w₂`.
fn at_points(filter: &[f32; 9]) -> [f32; POINTS] {
    let (a, b) = (f64::from(A), f64::from(B));
    let line = |[w0, w1, w2]: [f64; 3]| {
        let pair = |p: f64, other: f64| {
            let factor = 1.0 / (2.0 * p * p * (p * p - other * other));
            let (even, odd) = ((w0 + p * p * w2) * factor, p * w1 * factor);
            [even + odd, even - odd]
        };
        let ([a0, a1], [b0, b1]) = (pair(a, b), pair(b, a));
        [w0 / (a * a * b * b), a0, a1, b0, b1, w2]
    };
    let filter = filter.map(f64::from);
    let columns = [0, 1, 2].map(|x| line([filter[x], filter[3 + x], filter[6 + x]]));
    let mut points = [0.0; POINTS];
    for (y, points) in points.chunks_exact_mut(SIDE).enumerate() {
        for (point, value) in points.iter_mut().zip(line(columns.map(|column| column[y]))) {
            *point = value as f32;
        }
    }
    points
}

/// Six inputs in a line at the six points: the coefficients of Π (x − other points).
#[inline(always)]
fn inputs_at_points<const FUSED: bool>(d: [&Lanes; SIDE]) -> [Lanes; SIDE] {
    let mut out = [[0.0; LANES]; SIDE];
    for lane in 0..LANES {
        let (d0, d1, d2, d3, d4, d5) = (d[0][lane], d[1][lane], d[2][lane], d[3][lane], d[4][lane], d[5][lane]);
        let (even_a, odd_a) = (fma::<FUSED>(-B * B, d2, d4), fma::<FUSED>(-B * B, d1, d3));
        let (even_b, odd_b) = (fma::<FUSED>(-A * A, d2, d4), fma::<FUSED>(-A * A, d1, d3));
        out[0][lane] = fma::<FUSED>(A * A * B * B, d0, fma::<FUSED>(-A * A - B * B, d2, d4));
        out[1][lane] = fma::<FUSED>(A, odd_a, even_a);
        out[2][lane] = fma::<FUSED>(-A, odd_a, even_a);
        out[3][lane] = fma::<FUSED>(B, odd_b, even_b);
        out[4][lane] = fma::<FUSED>(-B, odd_b, even_b);
        out[5][lane] = fma::<FUSED>(A * A * B * B, d1, fma::<FUSED>(-A * A - B * B, d3, d5));
    }
    out
}

/// Four outputs in a line from sums at the six points.
#[inline(always)]
fn outputs_from_points<const FUSED: bool>(m: [&Lanes; SIDE]) -> [Lanes; TILE] {
    let mut out = [[0.0; LANES]; TILE];
    for lane in 0..LANES {
        let (m0, m1, m2, m3, m4, m5) = (m[0][lane], m[1][lane], m[2][lane], m[3][lane], m[4][lane], m[5][lane]);
        let (sum_a, sum_b, odd_a, odd_b) = (m1 + m2, m3 + m4, m1 - m2, m3 - m4);
        out[0][lane] = m0 + sum_a + sum_b;
        out[1][lane] = fma::<FUSED>(B, odd_b, A * odd_a);
        out[2][lane] = fma::<FUSED>(B * B, sum_b, A * A * sum_a);
        out[3][lane] = fma::<FUSED>(B * B * B, odd_b, fma::<FUSED>(A * A * A, odd_a, m5));
    }
    out
}

/// Column `x` of the six rows that `at` finds one after the other.
#[inline(always)]
fn column_at<'a>(at: impl Fn(usize) -> &'a Lanes, x: usize) -> [&'a Lanes; SIDE] {
    [at(x), at(SIDE + x), at(2 * SIDE + x), at(3 * SIDE + x), at(4 * SIDE + x), at(5 * SIDE + x)]
}

/// Line `y` of six columns.
#[inline(always)]
fn column_values<const N: usize>(columns: &[[Lanes; N]; SIDE], y: usize) -> [&Lanes; SIDE] {
    let [a, b, c, d, e, f] = columns;
    [&a[y], &b[y], &c[y], &d[y], &e[y], &f[y]]
}

/// Inputs of `width` tiles at the 36 points; those of a point begin `plane` after those of the one before.
#[inline(always)]
fn transform_inputs_body<const FUSED: bool>(
    lines: &Lines,
    width: usize,
    columns: &mut [[Lanes; SIDE]; SIDE],
    out: &mut [f32],
    plane: usize,
) {
    for group in 0..width / LANES {
        let at = |index: usize| &lines[index].as_chunks::<LANES>().0[group];
        for (x, column) in columns.iter_mut().enumerate() {
            *column = inputs_at_points::<FUSED>(column_at(at, x));
        }
        for y in 0..SIDE {
            let row = inputs_at_points::<FUSED>(column_values(columns, y));
            for (x, values) in row.iter().enumerate() {
                if let Some(out) = out[(y * SIDE + x) * plane + group * LANES..].first_chunk_mut::<LANES>() {
                    *out = *values;
                }
            }
        }
    }
}

for_each_level! {
    fn transform_inputs = fused transform_inputs_body(
        lines: &Lines, width: usize, columns: &mut [[Lanes; SIDE]; SIDE], out: &mut [f32], plane: usize,
    )
}

/// Outputs `[4][4]` of sixteen tiles from the sums at the 36 points, which begin `plane` after each other.
#[inline(always)]
fn transform_outputs_body<const FUSED: bool>(
    sums: &[f32],
    plane: usize,
    bias: f32,
    columns: &mut [[Lanes; TILE]; SIDE],
    out: &mut [[Lanes; TILE]; TILE],
) {
    let zeros = [0.0; LANES];
    let at = |index: usize| sums[index * plane..].first_chunk::<LANES>().unwrap_or(&zeros);
    for (x, column) in columns.iter_mut().enumerate() {
        *column = outputs_from_points::<FUSED>(column_at(at, x));
    }
    for (y, out) in out.iter_mut().enumerate() {
        *out = outputs_from_points::<FUSED>(column_values(columns, y));
        for values in out.iter_mut() {
            for value in values {
                *value += bias;
            }
        }
    }
}

for_each_level! {
    fn transform_outputs = fused transform_outputs_body(
        sums: &[f32], plane: usize, bias: f32, columns: &mut [[Lanes; TILE]; SIDE], out: &mut [[Lanes; TILE]; TILE],
    )
}

/// Tiles next to each other in a row of tiles, from lane `lane` on.
#[derive(Clone, Copy)]
struct Run {
    y: usize,
    x: usize,
    lane: usize,
    count: usize,
}

/// The runs of the tiles `tiles` of a band with so many tiles in a row.
fn runs(tiles: std::ops::Range<usize>, in_a_row: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut tile = tiles.start;
    while tile < tiles.end {
        let count = (in_a_row - tile % in_a_row).min(tiles.end - tile);
        runs.push(Run { y: tile / in_a_row, x: tile % in_a_row, lane: tile - tiles.start, count });
        tile += count;
    }
    runs
}

/// Rows of tiles of a task: so many that whole strips of tiles come out, and tasks for all threads.
fn rows_in_a_band([rows, columns]: [usize; 2], images: usize) -> usize {
    let threads = rayon::current_num_threads();
    let time = |band: usize| {
        let (bands, last) = (rows / band * images, rows % band);
        // Narrower strips than the widest take more than their share.
        let strips = |rows: usize| {
            let tiles = rows * columns;
            tiles / TILES * 10 + [0, 6, 8, 10][(tiles % TILES).div_ceil(LANES)]
        };
        // Bands that are no multiple of the threads leave some waiting; the last one is shorter.
        bands.div_ceil(threads) * strips(band) + if last > 0 { strips(last) } else { 0 }
    };
    (1..=rows.clamp(1, 12)).min_by_key(|&band| time(band)).unwrap_or(1)
}

/// The inputs under a run of tiles.
fn read(level: Level, map: Map<'_>, [h, w]: [usize; 2], padding: usize, run: Run, first: usize, lines: &mut Lines) {
    let mut line = [0.0_f32; LINE];
    let Run { y, x, lane, count } = run;
    for row in 0..SIDE {
        let source = (first + y * TILE + row).checked_sub(padding).filter(|&y| y < h);
        let Some(source) = source else {
            for line in &mut lines[row * SIDE..(row + 1) * SIDE] {
                line[lane..lane + count].fill(0.0);
            }
            continue;
        };
        let values = &map.values[source * w..][..w];
        // Columns of the line before the map's first, and after its last, are zeros.
        let length = count * TILE + SIDE - TILE;
        let from = (x * TILE).saturating_sub(padding).min(w);
        let zeros = padding.saturating_sub(x * TILE).min(length);
        let until = (x * TILE + length).saturating_sub(padding).min(w).max(from);
        line[..zeros].fill(0.0);
        let kept = &mut line[zeros..zeros + until - from];
        if (map.factor, map.offset) == (1.0, 0.0) {
            kept.copy_from_slice(&values[from..until]);
        } else {
            scale(level, &values[from..until], map.factor, map.offset, kept);
        }
        line[zeros + until - from..].fill(0.0);
        deinterleave(level, &line, row, [lane, count], lines);
    }
}

/// Asks for the inputs under a run of tiles.
fn announce(map: &Map<'_>, [h, w]: [usize; 2], padding: usize, run: Run, first: usize) {
    let top = (first + run.y * TILE).saturating_sub(padding);
    let left = (run.x * TILE).saturating_sub(padding).min(w);
    let right = (left + run.count * TILE + SIDE - TILE).min(w);
    for row in map.values.chunks_exact(w).take(h).skip(top).take(SIDE) {
        prefetch(&row[left..right]);
    }
}

#[inline(always)]
fn scale_body<const FUSED: bool>(values: &[f32], factor: f32, offset: f32, out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = fma::<FUSED>(*value, factor, offset);
    }
}

for_each_level! {
    fn scale = fused scale_body(values: &[f32], factor: f32, offset: f32, out: &mut [f32])
}

/// Vectors of a thread, used again.
struct Memory {
    inputs: Vec<f32>,
    sums: Vec<f32>,
    lines: Box<Lines>,
    outputs: Box<[[f32; TILES * TILE]; TILE]>,
}

/// A part of a vector that begins where a line of the cache does.
fn aligned(vector: &mut [f32]) -> &mut [f32] {
    let skip = vector.as_ptr().align_offset(64).min(LANES);
    &mut vector[skip..]
}

/// `activation(conv2d(maps) + bias)` (cross-correlation, zeros outside), kernel 3 × 3, stride 1.
///
/// # Shapes
/// `maps` `[N · C_in]` of `[H, W]`, `bias` `[C_out]` → `[N, C_out, H', W']`
pub fn conv3x3(
    maps: &[Map<'_>],
    shape: &Conv2dShape,
    weight: &Weight3x3,
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let Conv2dShape { n, c_in, size: [h, w], c_out, kernel, stride, padding } = *shape;
    assert_eq!((kernel, stride), ([3, 3], 1), "a kernel of 3 × 3 and stride 1");
    assert_eq!([weight.c_in, weight.c_out], [c_in, c_out], "a weight of this shape");
    assert_eq!(maps.len(), n * c_in, "{n} × {c_in} maps");
    assert!(maps.iter().all(|map| map.values.len() == h * w), "maps of {h} × {w}");
    assert!(bias.is_none_or(|bias| bias.len() == c_out), "a bias for each of {c_out} channels");
    let [out_h, out_w] = shape.out_size();
    let mut out = buffers::take(n * c_out * out_h * out_w);
    if out.is_empty() {
        return out;
    }
    if c_in == 0 {
        out.fill(0.0);
    }
    let level = Level::best();
    let tiles = [out_h, out_w].map(|side| side.div_ceil(TILE));
    let block = block_of_channels(c_in);
    let rows = rows_in_a_band(tiles, n) * TILE;
    let memory = || Memory {
        inputs: vec![0.0; POINTS * (c_in * TILES + GAP) + LANES],
        sums: vec![0.0; POINTS * (block.min(c_out) * TILES + GAP) + LANES],
        lines: Box::new([[0.0; DEEP]; POINTS]),
        outputs: Box::new([[0.0; TILES * TILE]; TILE]),
    };
    bands(&mut out, c_out, [out_h, out_w], rows).into_par_iter().for_each_init(memory, |memory, mut band| {
        let maps = &maps[band.image * c_in..][..c_in];
        let mut squares = [[[0.0; LANES]; TILE]; TILE];
        let (mut columns, mut of_columns) = ([[[0.0; LANES]; SIDE]; SIDE], [[[0.0; LANES]; TILE]; SIDE]);
        let (inputs, sums) = (aligned(&mut memory.inputs), aligned(&mut memory.sums));
        let all = band.rows.div_ceil(TILE) * tiles[1];
        for start in (0..all).step_by(TILES) {
            let runs = runs(start..all.min(start + TILES), tiles[1]);
            let width = (all - start).next_multiple_of(LANES).min(TILES);
            let (plane, sum_plane) = (c_in * width + GAP, block.min(c_out) * width + GAP);
            for (channel, map) in maps.iter().enumerate() {
                for &run in &runs {
                    if let Some(next) = maps.get(channel + 1) {
                        announce(next, [h, w], padding, run, band.first);
                    }
                    read(level, *map, [h, w], padding, run, band.first, &mut memory.lines);
                }
                transform_inputs(level, &memory.lines, width, &mut columns, &mut inputs[channel * width..], plane);
            }
            let weights = weight.values.chunks(block * POINTS * c_in.max(1));
            for (index, (weights, channels)) in weights.zip(band.channels.chunks_mut(block)).enumerate() {
                let length = channels.len() * c_in;
                for point in 0..POINTS {
                    accumulate(
                        level,
                        [channels.len(), c_in, width],
                        (&weights[point * length..][..length], c_in),
                        Strip::Panel(&inputs[point * plane..][..c_in * width], width),
                        Start::Row(&[0.0; TILES]),
                        (&mut sums[point * sum_plane..], width),
                    );
                }
                for (row, channel) in channels.iter_mut().enumerate() {
                    let bias = bias.map_or(0.0, |bias| bias[index * block + row]);
                    let outputs = &mut memory.outputs;
                    for group in 0..width / LANES {
                        transform_outputs(
                            level,
                            &sums[row * width + group * LANES..],
                            sum_plane,
                            bias,
                            &mut of_columns,
                            &mut squares,
                        );
                        for (outputs, squares) in outputs.iter_mut().zip(&squares) {
                            interleave(level, squares, &mut outputs[group * LANES * TILE..]);
                        }
                    }
                    for outputs in outputs.iter_mut() {
                        activation.apply(level, &mut outputs[..width * TILE]);
                    }
                    for &run in &runs {
                        write(outputs, run, [band.rows, out_w], channel);
                    }
                }
            }
        }
    });
    out
}

/// The outputs of a run of tiles, without those beyond the edges.
fn write(outputs: &[[f32; TILES * TILE]; TILE], run: Run, [rows, width]: [usize; 2], channel: &mut [f32]) {
    let (x, y) = (run.x * TILE, run.y * TILE);
    let count = (run.count * TILE).min(width - x);
    for (line, outputs) in outputs.iter().enumerate().take(rows - y) {
        channel[(y + line) * width + x..][..count].copy_from_slice(&outputs[run.lane * TILE..][..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conv2d, testing::wave};

    fn check(shape: &Conv2dShape, activation: Activation) {
        let Conv2dShape { n, c_in, size: [h, w], c_out, .. } = *shape;
        let x = wave(1, n * c_in * h * w);
        let (weight, bias) = (wave(2, c_out * c_in * 9), wave(3, c_out));
        let prepared = Weight3x3::new(&weight, [c_out, c_in]);
        let found = conv3x3(&Map::all(&x, h * w), shape, &prepared, Some(&bias), activation);
        // The plain convolution has its own obvious twin.
        let expected = conv2d(&x, shape, &weight, Some(&bias), activation);
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let tolerance = 2e-6 * c_in as f32 + 2e-5;
            assert!((found - expected).abs() < tolerance, "{shape:?} at {index}: {found}, expected {expected}");
        }
    }

    #[test]
    fn convolutions_equal_the_plain_ones() {
        for (n, c_in, size, c_out, padding) in [
            (1, 1, [4, 4], 1, 1),
            (1, 1, [1, 1], 1, 1),
            (1, 3, [97, 131], 5, 1),
            (2, 17, [30, 61], 9, 1),
            (1, 8, [7, 130], 8, 0),
            (1, 4, [64, 64], 130, 1),
            (3, 2, [5, 9], 3, 2),
            (1, 20, [12, 400], 66, 1),
            (1, 300, [9, 17], 140, 1),
        ] {
            let shape = Conv2dShape { n, c_in, size, c_out, kernel: [3, 3], stride: 1, padding };
            for activation in [Activation::None, Activation::Relu, Activation::Gelu] {
                check(&shape, activation);
            }
        }
    }

    #[test]
    fn scaled_maps_equal_scaled_copies_and_zeros_outside_stay_zeros() {
        let (c, [h, w]) = (8, [13, 22]);
        let shape = Conv2dShape { n: 1, c_in: c, size: [h, w], c_out: 8, kernel: [3, 3], stride: 1, padding: 1 };
        let (x, weight) = (wave(1, c * h * w), wave(2, 8 * c * 9));
        let mut maps = Map::all(&x, h * w);
        let mut scaled = x.clone();
        for (channel, (map, scaled)) in maps.iter_mut().zip(scaled.chunks_exact_mut(h * w)).enumerate() {
            (map.factor, map.offset) = (1.5 - channel as f32 * 0.25, channel as f32 * 0.5 - 1.0);
            scaled.iter_mut().for_each(|x| *x = *x * map.factor + map.offset);
        }
        let prepared = Weight3x3::new(&weight, [8, c]);
        let found = conv3x3(&maps, &shape, &prepared, None, Activation::None);
        let expected = conv2d(&scaled, &shape, &weight, None, Activation::None);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        }
    }

    #[test]
    fn every_level_transforms_alike() {
        let mut lines = Box::new([[0.0; DEEP]; POINTS]);
        for (index, line) in lines.iter_mut().enumerate() {
            line.copy_from_slice(&wave(index, DEEP));
        }
        let plane = TILES + 3;
        let run = |level: Level| {
            let mut points = vec![0.0; POINTS * plane];
            let (mut columns, mut of_columns) = ([[[0.0; LANES]; SIDE]; SIDE], [[[0.0; LANES]; TILE]; SIDE]);
            transform_inputs(level, &lines, TILES, &mut columns, &mut points, plane);
            let mut squares = [[[0.0; LANES]; TILE]; TILE];
            transform_outputs(level, &points[LANES..], plane, 0.5, &mut of_columns, &mut squares);
            let squares = squares.as_flattened().as_flattened().to_vec();
            [points, squares].concat()
        };
        let plain = run(Level::Portable);
        for level in Level::all() {
            for (found, plain) in run(level).iter().zip(&plain) {
                assert!((found - plain).abs() < 1e-4, "{level:?}: {found}, {plain}");
            }
        }
    }

    #[test]
    fn runs_follow_the_rows() {
        let found: Vec<[usize; 4]> = runs(5..19, 7).iter().map(|run| [run.y, run.x, run.lane, run.count]).collect();
        assert_eq!(found, [[0, 5, 0, 2], [1, 0, 2, 7], [2, 0, 9, 5]]);
    }

    /// As wide and deep as a network's: the error of the sums themselves, against `f64`.
    #[test]
    fn the_error_is_that_of_plain_sums() {
        let (c, side) = (128, 12);
        let shape = Conv2dShape { n: 1, c_in: c, size: [side; 2], c_out: 8, kernel: [3, 3], stride: 1, padding: 1 };
        let random = |count: usize, seed: u32| -> Vec<f32> {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..count).map(|_| next()).collect()
        };
        let (x, weight) = (random(c * side * side, 1), random(8 * c * 9, 2));
        let found =
            conv3x3(&Map::all(&x, side * side), &shape, &Weight3x3::new(&weight, [8, c]), None, Activation::None);
        let (mut error, mut size) = (0.0, 0.0);
        for (index, found) in found.iter().enumerate() {
            let (channel, y, column) = (index / (side * side), index / side % side, index % side);
            let mut sum = 0.0;
            for at in 0..c * 9 {
                let (sy, sx) = (y + at / 3 % 3, column + at % 3);
                if (1..=side).contains(&sy) && (1..=side).contains(&sx) {
                    let value = x[(at / 9 * side + sy - 1) * side + sx - 1];
                    sum += f64::from(value) * f64::from(weight[channel * c * 9 + at]);
                }
            }
            error += (f64::from(*found) - sum).powi(2);
            size += sum.powi(2);
        }
        let relative = (error / size).sqrt();
        assert!(relative < 2e-6, "{relative}");
    }

    #[test]
    #[should_panic(expected = "maps of 4 × 4")]
    fn maps_of_another_size_are_refused() {
        let shape = Conv2dShape { n: 1, c_in: 1, size: [4, 4], c_out: 1, kernel: [3, 3], stride: 1, padding: 1 };
        let map = Map { values: &[0.0; 15], factor: 1.0, offset: 0.0 };
        conv3x3(&[map], &shape, &Weight3x3::new(&[0.0; 9], [1, 1]), None, Activation::None);
    }
}
