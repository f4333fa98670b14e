//! Masks from the pixels of SAM's mask decoder: two transposed convolutions of kernel and stride 2 with a norm and GELUs, and the
//! dot product with the weights of the masks asked for, block by block, so that the features (16 times as many pixels) are never
//! held.

use rayon::prelude::*;

use crate::{
    BlockedMaps, Level,
    exchange::{LANES, fill_rows, norm_channels},
    pointwise::gelu_chunk,
    tile::{Start, Strip, accumulate},
};

/// Pixels that one becomes in each of the two steps.
const PARTS: usize = 4;

/// Blocks one thread takes at a time.
const STRIP: usize = 11;

/// The weights of the two steps, each as rows of one linear map from a pixel to its four parts (upper left, upper right, lower left,
/// lower right).
#[derive(Clone, Copy, Debug)]
pub struct MaskUpscaling<'a> {
    /// `[4 · C_1, C]`
    pub first: &'a [f32],
    /// `[C_1]`
    pub first_bias: &'a [f32],
    /// Weight, bias and epsilon of the norm over the `C_1` channels of each pixel.
    pub norm: (&'a [f32], &'a [f32], f32),
    /// `[4 · C_2, C_1]`
    pub second: &'a [f32],
    /// `[C_2]`
    pub second_bias: &'a [f32],
}

impl MaskUpscaling<'_> {
    /// Mask logits on a grid four times finer.
    ///
    /// # Shapes
    /// `maps` `[prompts, C, h · w]`, `weights` `[prompts, masks, C_2]` → `[prompts, masks, 4 h, 4 w]`
    pub fn run(&self, maps: &BlockedMaps, [h, w]: [usize; 2], weights: &[f32], masks: usize) -> Vec<f32> {
        let (prompts, channels) = (maps.images(), maps.channels());
        let (first, second) = (self.first_bias.len(), self.second_bias.len());
        assert_eq!(maps.pixels(), h * w, "a map of {h} × {w} pixels");
        assert_eq!(self.first.len(), PARTS * first * channels, "the first step from {channels} to {first} channels");
        assert_eq!([self.norm.0.len(), self.norm.1.len()], [first; 2], "a norm of {first} channels");
        assert_eq!(self.second.len(), PARTS * second * first, "the second step from {first} to {second} channels");
        assert_eq!(weights.len(), prompts * masks * second, "weights of {prompts} × {masks} masks");
        let of_mask = PARTS * PARTS * h * w;
        let mut out = vec![0.0_f32; prompts * masks * of_mask];
        if out.is_empty() {
            return out;
        }
        let level = Level::best();
        let blocks = (h * w).div_ceil(LANES);
        let strips = blocks.div_ceil(STRIP);
        let parts: Vec<Vec<f32>> = (0..prompts * strips)
            .into_par_iter()
            .map(|task| {
                let (prompt, strip) = (task / strips, task % strips);
                let range = strip * STRIP..((strip + 1) * STRIP).min(blocks);
                let weights = &weights[prompt * masks * second..][..masks * second];
                let mut logits = vec![0.0; range.len() * PARTS * PARTS * masks * LANES];
                let mut scratch = Scratch::new(first, second);
                for (block, logits) in range.zip(logits.chunks_exact_mut(PARTS * PARTS * masks * LANES)) {
                    self.block(level, maps.block(prompt, block), weights, &mut scratch, logits);
                }
                logits
            })
            .collect();
        out.par_chunks_exact_mut(masks * of_mask).zip(parts.par_chunks_exact(strips)).for_each(|(out, strips)| {
            let blocks = strips.iter().flat_map(|strip| strip.chunks_exact(PARTS * PARTS * masks * LANES));
            for (block, logits) in blocks.enumerate() {
                place(logits, block * LANES, [h, w], masks, out);
            }
        });
        out
    }

    /// Logits of one block, `[4, 4, masks, LANES]`: part of the pixel, part of the part.
    fn block(&self, level: Level, block: &[f32], weights: &[f32], scratch: &mut Scratch, logits: &mut [f32]) {
        let (first, second) = (self.first_bias.len(), self.second_bias.len());
        let (channels, masks) = (block.len() / LANES, weights.len() / second);
        let Scratch { wide, wider } = scratch;
        wide.fill(0.0);
        let strip = Strip::Panel(block, LANES);
        accumulate(level, [PARTS * first, channels, LANES], (self.first, channels), strip, Start::Held, (wide, LANES));
        let (weight, bias, eps) = self.norm;
        for (part, logits) in wide.chunks_exact_mut(first * LANES).zip(logits.chunks_exact_mut(PARTS * masks * LANES)) {
            norm_channels(level, part, self.first_bias, weight, bias, eps);
            gelu_chunk(level, part);
            for part in wider.chunks_exact_mut(second * LANES) {
                fill_rows(level, part, self.second_bias);
            }
            let strip = Strip::Panel(part, LANES);
            accumulate(level, [PARTS * second, first, LANES], (self.second, first), strip, Start::Held, (wider, LANES));
            gelu_chunk(level, wider);
            let parts = wider.chunks_exact(second * LANES).zip(logits.chunks_exact_mut(masks * LANES));
            for (part, logits) in parts {
                logits.fill(0.0);
                let strip = Strip::Panel(part, LANES);
                accumulate(level, [masks, second, LANES], (weights, second), strip, Start::Held, (logits, LANES));
            }
        }
    }
}

/// Features of one block after each step.
struct Scratch {
    /// `[4, C_1, LANES]`
    wide: Vec<f32>,
    /// `[4, C_2, LANES]`
    wider: Vec<f32>,
}

impl Scratch {
    fn new(first: usize, second: usize) -> Self {
        Self { wide: vec![0.0; PARTS * first * LANES], wider: vec![0.0; PARTS * second * LANES] }
    }
}

/// Puts a block's logits `[4, 4, masks, LANES]` to their places in `[masks, 4 h, 4 w]`.
fn place(logits: &[f32], first: usize, [h, w]: [usize; 2], masks: usize, out: &mut [f32]) {
    let of_mask = PARTS * PARTS * h * w;
    for (part, logits) in logits.chunks_exact(masks * LANES).enumerate() {
        // Row and column within the 4 × 4 pixels: first the halves, then their halves.
        let dy = part / 8 * 2 + part / 2 % 2;
        let dx = part / 4 % 2 * 2 + part % 2;
        for (mask, logits) in logits.chunks_exact(LANES).enumerate() {
            let out = &mut out[mask * of_mask..][..of_mask];
            // Row by row of the coarse map.
            let mut pixel = first;
            while pixel < (first + LANES).min(h * w) {
                let (y, x) = (pixel / w, pixel % w);
                let count = (w - x).min(first + LANES - pixel);
                let row = &mut out[(4 * y + dy) * 4 * w + 4 * x..][..4 * count];
                for (four, logit) in row.chunks_exact_mut(4).zip(&logits[pixel - first..]) {
                    four[dx] = *logit;
                }
                pixel += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    fn gelu_slow(x: f64) -> f64 {
        let mut value = [x as f32];
        crate::gelu(&mut value);
        f64::from(value[0])
    }

    #[test]
    fn masks_equal_the_steps_pixel_by_pixel() {
        for ([h, w], prompts, masks) in [([1, 1], 1, 1), ([6, 11], 2, 3), ([9, 50], 1, 1), ([30, 20], 2, 1)] {
            let (channels, first, second) = (12, 8, 4);
            let rows = wave(1, prompts * h * w * channels);
            let weights = wave(2, prompts * masks * second);
            let (w1, b1, norm_weight, norm_bias) =
                (wave(3, 4 * first * channels), wave(4, first), wave(5, first), wave(6, first));
            let (w2, b2) = (wave(7, 4 * second * first), wave(8, second));
            let upscaling = MaskUpscaling {
                first: &w1,
                first_bias: &b1,
                norm: (&norm_weight, &norm_bias, 1e-6),
                second: &w2,
                second_bias: &b2,
            };
            let maps = BlockedMaps::from_rows(&rows, [prompts, h * w, channels]);
            let found = upscaling.run(&maps, [h, w], &weights, masks);
            assert_eq!(found.len(), prompts * masks * 16 * h * w);

            let linear = |x: &[f64], weight: &[f32], bias: &[f32], part: usize| -> Vec<f64> {
                (0..bias.len())
                    .map(|row| {
                        let weight = &weight[(part * bias.len() + row) * x.len()..][..x.len()];
                        let sum: f64 = weight.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum();
                        sum + f64::from(bias[row])
                    })
                    .collect()
            };
            for (prompt, mask, y, x) in (0..prompts * masks * 16 * h * w)
                .map(|at| (at / (masks * 16 * h * w), at / (16 * h * w) % masks, at / (4 * w) % (4 * h), at % (4 * w)))
            {
                let pixel = prompt * h * w + y / 4 * w + x / 4;
                let features: Vec<f64> = rows[pixel * channels..][..channels].iter().map(|&x| f64::from(x)).collect();
                let wide = linear(&features, &w1, &b1, y / 2 % 2 * 2 + x / 2 % 2);
                let mean = wide.iter().sum::<f64>() / first as f64;
                let variance = wide.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / first as f64;
                let wide: Vec<f64> = wide
                    .iter()
                    .zip(norm_weight.iter().zip(&norm_bias))
                    .map(|(x, (weight, bias))| {
                        gelu_slow((x - mean) / (variance + 1e-6).sqrt() * f64::from(*weight) + f64::from(*bias))
                    })
                    .collect();
                let wider = linear(&wide, &w2, &b2, y % 2 * 2 + x % 2);
                let weights = &weights[(prompt * masks + mask) * second..][..second];
                let expected: f64 =
                    wider.iter().zip(weights).map(|(x, weight)| gelu_slow(*x) * f64::from(*weight)).sum();
                let found = found[((prompt * masks + mask) * 4 * h + y) * 4 * w + x];
                assert!((f64::from(found) - expected).abs() < 2e-5, "{y} {x}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn no_prompts_no_masks() {
        let upscaling = MaskUpscaling {
            first: &[1.0; 8],
            first_bias: &[0.0; 2],
            norm: (&[1.0; 2], &[0.0; 2], 1e-6),
            second: &[1.0; 8],
            second_bias: &[0.0; 1],
        };
        assert!(upscaling.run(&BlockedMaps::zeros(0, 1, 6), [2, 3], &[], 3).is_empty());
    }
}
