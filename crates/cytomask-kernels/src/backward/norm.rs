//! Gradients of the norms. Moments are computed again.

use rayon::prelude::*;

use super::product::total;
use crate::{
    Level, buffers,
    level::for_each_level,
    norm::{map_moments, moments, sum},
};

/// Values whose rows go to one partial sum.
const CHUNK: usize = 1 << 15;

/// Gradients of a layer norm's input, weight and bias.
///
/// # Shapes
/// `x` and `dy` `[rows, C]`, `weight` `[C]` → `[rows, C]`, `[C]`, `[C]`
pub fn layer_norm_gradients(x: &[f32], dy: &[f32], weight: &[f32], eps: f32) -> [Vec<f32>; 3] {
    let columns = weight.len();
    if columns == 0 {
        return Default::default();
    }
    assert_eq!([x.len() % columns, dy.len()], [0, x.len()], "rows of {columns}");
    let level = Level::best();
    let mut dx = buffers::take(x.len());
    let chunk = (CHUNK / columns).max(1) * columns;
    let sums: Vec<Vec<f32>> = dx
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk).zip(dy.par_chunks(chunk)))
        .map(|(dx, (x, dy))| {
            let mut sums = vec![0.0_f32; 2 * columns];
            layer_norm_rows(level, [x, dy], weight, eps, dx, &mut sums);
            sums
        })
        .collect();
    let mut of_weight = total(sums, 2 * columns);
    let of_bias = of_weight.split_off(columns);
    [dx, of_weight, of_bias]
}

#[inline(always)]
fn layer_norm_rows_body([x, dy]: [&[f32]; 2], weight: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32]) {
    let columns = weight.len();
    let (of_weight, of_bias) = sums.split_at_mut(columns);
    for ((x, dy), dx) in x.chunks_exact(columns).zip(dy.chunks_exact(columns)).zip(dx.chunks_exact_mut(columns)) {
        let [mean, factor] = moments(x, eps);
        for index in 0..columns {
            let normed = (x[index] - mean) * factor;
            of_weight[index] += dy[index] * normed;
            of_bias[index] += dy[index];
            dx[index] = dy[index] * weight[index];
        }
        let of_mean = sum(dx, |x| x) / columns as f32;
        let of_deviation = product(dx, x, mean) * factor * factor / columns as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - of_mean - (x - mean) * of_deviation) * factor;
        }
    }
}

for_each_level! {
    /// Rows on this thread; sums of the weight's and the bias's gradients are added to.
    fn layer_norm_rows = layer_norm_rows_body(
        rows: [&[f32]; 2], weight: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32],
    )
}

/// `Σ gradient · (x − mean)`
#[inline(always)]
fn product(gradient: &[f32], x: &[f32], mean: f32) -> f32 {
    const LANES: usize = 16;
    let mut parts = [0.0_f32; LANES];
    let ((gradients, gradient_rest), (values, rest)) = (gradient.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    for (gradients, values) in gradients.iter().zip(values) {
        for lane in 0..LANES {
            parts[lane] += gradients[lane] * (values[lane] - mean);
        }
    }
    let tail: f32 = gradient_rest.iter().zip(rest).map(|(gradient, x)| gradient * (x - mean)).sum();
    parts.iter().sum::<f32>() + tail
}

/// `Σ dy` and `Σ dy · (x − mean)` of a map. Gradients that reach a norm are often nearly the same at all pixels, and what is left when
/// their mean is gone is a thousandth of them: sums and differences in `f32` would leave three digits of it.
#[inline(always)]
fn map_sums_body([x, dy]: [&[f32]; 2], mean: f64) -> [f64; 2] {
    const LANES: usize = 8;
    let mut parts = [[0.0_f64; LANES]; 2];
    let ((xs, x_rest), (dys, dy_rest)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
    for (xs, dys) in xs.iter().zip(dys) {
        for lane in 0..LANES {
            let gradient = f64::from(dys[lane]);
            parts[0][lane] += gradient;
            parts[1][lane] += gradient * (f64::from(xs[lane]) - mean);
        }
    }
    let mut sums = parts.map(|lanes| lanes.iter().sum::<f64>());
    for (x, dy) in x_rest.iter().zip(dy_rest) {
        sums[0] += f64::from(*dy);
        sums[1] += f64::from(*dy) * (f64::from(*x) - mean);
    }
    sums
}

/// `dx = (dy − of_mean − (x − mean) · of_deviation) · factor`
#[inline(always)]
fn map_gradient_body([x, dy]: [&[f32]; 2], [mean, of_mean, of_deviation, factor]: [f64; 4], dx: &mut [f32]) {
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = ((f64::from(*dy) - of_mean - (f64::from(*x) - mean) * of_deviation) * factor) as f32;
    }
}

for_each_level! {
    fn map_sums = map_sums_body(maps: [&[f32]; 2], mean: f64) -> [f64; 2]
}
for_each_level! {
    fn map_gradient = map_gradient_body(maps: [&[f32]; 2], line: [f64; 4], dx: &mut [f32])
}

/// The gradient of maps whose norm was taken over their pixels, without weights.
///
/// # Shapes
/// `[maps, pixels]` all
pub fn instance_norm_gradient(x: &[f32], dy: &[f32], pixels: usize, eps: f32) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "a gradient for each value");
    let mut dx = buffers::take(x.len());
    if pixels == 0 {
        return dx;
    }
    let level = Level::best();
    let maps = x.par_chunks_exact(pixels).zip(dy.par_chunks_exact(pixels));
    dx.par_chunks_exact_mut(pixels).zip(maps).for_each(|(dx, (x, dy))| {
        let [mean, variance] = map_moments(level, x);
        let sums = map_sums(level, [x, dy], mean);
        map_gradient(level, [x, dy], line([mean, variance + f64::from(eps)], sums, pixels, 1.0), dx);
    });
    dx
}

/// What [`map_gradient`] takes: of mean and variance with epsilon, the sums of [`map_sums`] over `count` values, and the weight.
fn line([mean, variance]: [f64; 2], [all, products]: [f64; 2], count: usize, weight: f32) -> [f64; 4] {
    let count = count as f64;
    [mean, all / count, products / count / variance, f64::from(weight) / variance.sqrt()]
}

/// Gradients of the input, weight and bias of a norm of each channel over the pixels of all images.
///
/// # Shapes
/// `x` and `dy` `[N, C, pixels]`, `weight` `[C]` → `[N, C, pixels]`, `[C]`, `[C]`
pub fn batch_norm_gradients(x: &[f32], dy: &[f32], pixels: usize, weight: &[f32], eps: f32) -> [Vec<f32>; 3] {
    let channels = weight.len();
    let mut dx = buffers::take(x.len());
    if x.is_empty() || channels == 0 {
        return [dx, vec![0.0; channels], vec![0.0; channels]];
    }
    assert_eq!([x.len() % (channels * pixels), dy.len()], [0, x.len()], "maps of {channels} channels");
    let level = Level::best();
    let of_maps: Vec<[f64; 2]> = x.par_chunks_exact(pixels).map(|map| map_moments(level, map)).collect();
    let images = of_maps.len() / channels;
    let count = images * pixels;
    let moments: Vec<[f64; 2]> = (0..channels)
        .map(|channel| {
            let of_images = || of_maps[channel..].iter().step_by(channels);
            let mean = of_images().map(|[mean, _]| mean).sum::<f64>() / images as f64;
            let deviation = |[of_one, variance]: &[f64; 2]| variance + (of_one - mean) * (of_one - mean);
            [mean, of_images().map(deviation).sum::<f64>() / images as f64 + f64::from(eps)]
        })
        .collect();
    let maps = || x.par_chunks_exact(pixels).zip(dy.par_chunks_exact(pixels)).enumerate();
    let of_maps: Vec<[f64; 2]> =
        maps().map(|(index, (x, dy))| map_sums(level, [x, dy], moments[index % channels][0])).collect();
    let sums: Vec<[f64; 2]> = (0..channels)
        .map(|channel| {
            of_maps[channel..]
                .iter()
                .step_by(channels)
                .fold([0.0; 2], |[a, b], [all, products]| [a + all, b + products])
        })
        .collect();
    dx.par_chunks_exact_mut(pixels).zip(maps()).for_each(|(dx, (index, (x, dy)))| {
        let channel = index % channels;
        map_gradient(level, [x, dy], line(moments[channel], sums[channel], count, weight[channel]), dx);
    });
    let of_weight = sums.iter().zip(&moments).map(|([_, products], [_, variance])| (products / variance.sqrt()) as f32);
    [dx, of_weight.collect(), sums.iter().map(|[all, _]| *all as f32).collect()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Activation, batch_norm, instance_norm, layer_norm,
        testing::{assert_close, wave},
    };

    /// `Σ dy · f(values)` by finite differences at every value.
    fn slopes(values: &[f32], dy: &[f32], f: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f64> {
        let width = 1.0 / 64.0;
        let at = |index: usize, offset: f32| -> f64 {
            let mut moved = values.to_vec();
            moved[index] += offset;
            f(&moved).iter().zip(dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
        };
        (0..values.len()).map(|index| (at(index, width) - at(index, -width)) / f64::from(2.0 * width)).collect()
    }

    /// Finite differences are good for three digits.
    fn assert_near(found: &[f32], expected: &[f64], what: &str) {
        let most = expected.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
        let round = |values: &[f64]| values.iter().map(|value| (value / most * 400.0).round()).collect::<Vec<f64>>();
        let near = found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 3e-3 * most);
        assert!(near, "{what}: {found:?}, expected {:?}", round(expected));
    }

    #[test]
    fn layer_norm_gradients_are_its_slopes() {
        for (rows, columns) in [(3, 7), (2, 33)] {
            let (x, dy, weight) = (wave(1, rows * columns), wave(2, rows * columns), wave(3, columns));
            let bias = wave(4, columns);
            let [dx, dw, db] = layer_norm_gradients(&x, &dy, &weight, 1e-2);
            assert_near(&dx, &slopes(&x, &dy, |x| layer_norm(x, &weight, &bias, 1e-2)), "input");
            assert_near(&dw, &slopes(&weight, &dy, |weight| layer_norm(&x, weight, &bias, 1e-2)), "weight");
            assert_near(&db, &slopes(&bias, &dy, |bias| layer_norm(&x, &weight, bias, 1e-2)), "bias");
        }
    }

    /// Many rows at once equal rows by themselves.
    #[test]
    fn chunks_of_rows_add_up() {
        let (rows, columns) = (1200, 48);
        let (x, dy, weight) = (wave(1, rows * columns), wave(2, rows * columns), wave(3, columns));
        let [dx, dw, db] = layer_norm_gradients(&x, &dy, &weight, 1e-5);
        let mut expected = [Vec::new(), vec![0.0; columns], vec![0.0; columns]];
        for (x, dy) in x.chunks(columns).zip(dy.chunks(columns)) {
            let [dx, dw, db] = layer_norm_gradients(x, dy, &weight, 1e-5);
            expected[0].extend(dx.into_iter().map(f64::from));
            expected[1].iter_mut().zip(dw).for_each(|(sum, value)| *sum += f64::from(value));
            expected[2].iter_mut().zip(db).for_each(|(sum, value)| *sum += f64::from(value));
        }
        assert_close(&dx, &expected[0], "input");
        assert_close(&dw, &expected[1], "weight");
        assert_close(&db, &expected[2], "bias");
    }

    #[test]
    fn map_norm_gradients_are_their_slopes() {
        let (images, channels, pixels) = (2, 3, 11);
        let count = images * channels * pixels;
        let (x, dy) = (wave(1, count), wave(2, count));
        let normed = |x: &[f32]| {
            let mut out = vec![0.0; x.len()];
            instance_norm(x, pixels, 1e-2, &mut out);
            out
        };
        assert_near(&instance_norm_gradient(&x, &dy, pixels, 1e-2), &slopes(&x, &dy, normed), "instance norm");
        let (weight, bias) = ([0.5, -1.0, 2.0], [0.1, 0.2, -0.3]);
        let [dx, dw, db] = batch_norm_gradients(&x, &dy, pixels, &weight, 1e-2);
        let normed = |x: &[f32], weight: &[f32], bias: &[f32]| {
            let mut y = x.to_vec();
            batch_norm(&mut y, pixels, weight, bias, 1e-2, Activation::None);
            y
        };
        assert_near(&dx, &slopes(&x, &dy, |x| normed(x, &weight, &bias)), "input");
        assert_near(&dw, &slopes(&weight, &dy, |weight| normed(&x, weight, &bias)), "weight");
        assert_near(&db, &slopes(&bias, &dy, |bias| normed(&x, &weight, bias)), "bias");
    }
}
