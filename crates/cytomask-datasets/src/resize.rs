//! scikit-image's `resize` as the HPA set is made with it: `skimage.transform.resize(…, preserve_range=True)`, order 1 (its
//! default for numbers), "reflect" borders, result clipped to the range of the input and truncated to its type.

use crate::plane::Plane;

/// To `size`; with `antialias`, smoothed before by a Gaussian of half the shrinkage (less a half).
pub(crate) fn resize(plane: &Plane, size: [u32; 2], antialias: bool) -> Plane {
    let [h, w] = plane.size.map(|extent| extent as usize);
    let channels = plane.channels as usize;
    let [out_h, out_w] = size.map(|extent| extent as usize);
    let low = plane.values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = plane.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut values = plane.values.clone();
    if antialias {
        let sigma = |from: usize, to: usize| ((from as f64 / to as f64 - 1.0) / 2.0).max(0.0);
        smooth(&mut values, [h, w * channels, 1], sigma(h, out_h));
        smooth(&mut values, [w, channels, h], sigma(w, out_w));
    }
    let (rows, columns) = (positions(h, out_h), positions(w, out_w));
    let mut out = Vec::with_capacity(out_h * out_w * channels);
    for (y0, y1, y_weight) in &rows {
        for (x0, x1, x_weight) in &columns {
            for channel in 0..channels {
                let at = |y: usize, x: usize| values[(y * w + x) * channels + channel];
                let value = at(*y0, *x0) * (1.0 - y_weight) * (1.0 - x_weight)
                    + at(*y0, *x1) * (1.0 - y_weight) * x_weight
                    + at(*y1, *x0) * y_weight * (1.0 - x_weight)
                    + at(*y1, *x1) * y_weight * x_weight;
                out.push(value.clamp(low, high).trunc());
            }
        }
    }
    Plane { size, channels: plane.channels, dtype: plane.dtype, values: out }
}

/// Two neighbours and the weight of the second, for each output position; pixel centres lie at halves.
fn positions(from: usize, to: usize) -> Vec<(usize, usize, f64)> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|index| {
            let at = (index as f64 + 0.5) * scale - 0.5;
            let below = at.floor();
            (mirrored(below as i64, from), mirrored(below as i64 + 1, from), at - below)
        })
        .collect()
}

/// `ndimage`'s mode "mirror": the outermost pixel is not repeated.
fn mirrored(index: i64, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length as i64 - 1);
    let at = index.rem_euclid(period);
    at.min(period - at) as usize
}

/// Gaussian along one axis: `[length, inner, outer]` of row-major values; truncated at four sigma.
fn smooth(values: &mut [f64], [length, inner, outer]: [usize; 3], sigma: f64) {
    if sigma == 0.0 {
        return;
    }
    let radius = (4.0 * sigma + 0.5) as i64;
    let mut weights: Vec<f64> =
        (-radius..=radius).map(|at| (-0.5 * (at * at) as f64 / (sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    let mut line = vec![0.0; length];
    for block in 0..outer {
        for offset in 0..inner {
            let place = |at: usize| (block * length + at) * inner + offset;
            for (at, value) in line.iter_mut().enumerate() {
                *value = values[place(at)];
            }
            for at in 0..length {
                let sum = weights
                    .iter()
                    .zip(-radius..)
                    .map(|(weight, step)| weight * line[mirrored(at as i64 + step, length)])
                    .sum();
                values[place(at)] = sum;
            }
        }
    }
}
