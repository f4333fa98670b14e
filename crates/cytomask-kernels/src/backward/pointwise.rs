//! Gradients of GELU and ReLU.

use rayon::prelude::*;

use crate::{
    Level,
    level::for_each_level,
    pointwise::{erf, exp},
};

/// Values one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Turns the gradient of `gelu(x)` into that of `x`, in place: times `Φ(x) + x · φ(x)`.
pub fn gelu_gradient(x: &[f32], gradient: &mut [f32]) {
    assert_eq!(x.len(), gradient.len(), "a gradient for each value");
    let level = Level::best();
    gradient
        .par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(gradient, x)| gelu_gradient_chunk(level, x, gradient));
}

/// Turns the gradient of `y = max(x, 0)` into that of `x`, in place.
pub fn relu_gradient(y: &[f32], gradient: &mut [f32]) {
    assert_eq!(y.len(), gradient.len(), "a gradient for each value");
    gradient.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(gradient, y)| {
        for (gradient, y) in gradient.iter_mut().zip(y) {
            *gradient = if *y > 0.0 { *gradient } else { 0.0 };
        }
    });
}

#[inline(always)]
fn gelu_gradient_body<const FUSED: bool>(x: &[f32], gradient: &mut [f32]) {
    /// 1 / √(2 π)
    const DENSITY: f32 = 0.398_942_3;
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let below = 0.5 + 0.5 * erf::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2);
        *gradient *= below + x * DENSITY * exp::<FUSED>(-0.5 * x * x);
    }
}

for_each_level! {
    fn gelu_gradient_chunk = fused gelu_gradient_body(x: &[f32], gradient: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gelu;

    #[test]
    fn gelu_gradient_is_the_slope_of_gelu() {
        let step = 5e-3_f32;
        let x: Vec<f32> = (-1200..=1200).map(|index| index as f32 * step).collect();
        let mut slope = vec![2.0; x.len()];
        gelu_gradient(&x, &mut slope);
        let at = |offset: f32| {
            let mut values: Vec<f32> = x.iter().map(|x| x + offset).collect();
            gelu(&mut values);
            values
        };
        let width = 1e-2;
        for ((slope, after), before) in slope.iter().zip(at(width)).zip(at(-width)) {
            assert!((slope - (after - before) / width).abs() < 3e-4, "{slope}, {}", (after - before) / width);
        }
        for level in Level::all() {
            let mut found = vec![2.0; x.len()];
            gelu_gradient_chunk(level, &x, &mut found);
            assert!(found.iter().zip(&slope).all(|(a, b)| (a - b).abs() < 1e-6), "{level:?}");
        }
    }

    #[test]
    fn relu_gradient_passes_where_something_came_out() {
        let mut gradient = vec![1.0, 2.0, 3.0, 4.0];
        relu_gradient(&[0.0, 0.5, 0.0, 7.0], &mut gradient);
        assert_eq!(gradient, [0.0, 2.0, 0.0, 4.0]);
    }
}
