//! Looking at a file without reading all of it: statistics of a channel, a small version of the image.
//!
//! Up to 2²⁴ pixels (4096 × 4096) everything is read. Beyond, the largest smaller resolution below that is; without one, rows spread
//! evenly over the image.

use crate::{Image, PlaneIndex, Projection, Rect, Result, Source};

/// Pixels of a plane that are looked at, at most.
const MOST_PIXELS: u64 = 1 << 24;

/// What statistics were computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// All pixels.
    All,
    /// All pixels of a smaller resolution.
    Level(usize),
    /// This many rows, spread evenly.
    Rows(u32),
}

/// How the samples of one channel are spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Smallest finite sample.
    pub min: f32,
    /// Largest finite sample.
    pub max: f32,
    /// Mean of the finite samples.
    pub mean: f64,
    /// The percentiles asked for, by linear interpolation.
    pub percentiles: Vec<f64>,
    /// Samples that are NaN or infinite.
    pub not_finite: u64,
    /// What they were computed from.
    pub basis: Basis,
}

impl Source {
    /// Statistics of one channel of one time point, slices projected.
    ///
    /// # Errors
    /// As [`Source::read_image`].
    pub fn statistics(&self, at: PlaneIndex, projection: Projection, percents: &[f64]) -> Result<Statistics> {
        let held = self.description();
        let small = |[h, w]: [u32; 2]| u64::from(h) * u64::from(w) <= MOST_PIXELS;
        let read = |level: usize, rect: Rect| {
            Ok::<_, crate::Error>(self.read_level_image(level, at.time, projection, &[at.channel], rect)?.samples)
        };
        let (mut samples, basis) = match held.levels.iter().position(|&size| small(size)) {
            Some(0) => (read(0, Rect::whole(held.size))?, Basis::All),
            Some(level) => (read(level, Rect::whole(held.levels[level]))?, Basis::Level(level)),
            None => {
                let [h, w] = held.size;
                let rows = ((MOST_PIXELS / u64::from(w)).max(1) as u32).min(h);
                let mut samples = Vec::new();
                for index in 0..rows {
                    let y = (u64::from(index) * u64::from(h) / u64::from(rows)) as u32;
                    samples.extend(read(0, Rect { y0: y, x0: 0, y1: y + 1, x1: w })?);
                }
                (samples, Basis::Rows(rows))
            }
        };
        let all = samples.len() as u64;
        samples.retain(|value| value.is_finite());
        let not_finite = all - samples.len() as u64;
        if samples.is_empty() {
            let percentiles = vec![f64::NAN; percents.len()];
            return Ok(Statistics { min: f32::NAN, max: f32::NAN, mean: f64::NAN, percentiles, not_finite, basis });
        }
        let mean = samples.iter().map(|&value| f64::from(value)).sum::<f64>() / samples.len() as f64;
        let percentiles = percents.iter().map(|&percent| crate::image::percentile(&mut samples, percent)).collect();
        let min = samples.iter().copied().fold(f32::INFINITY, f32::min);
        let max = samples.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Ok(Statistics { min, max, mean, percentiles, not_finite, basis })
    }

    /// A version of the image whose longer side is at most `longest` pixels, by taking every so many-th pixel of the smallest
    /// resolution that is large enough. Slices are projected.
    ///
    /// # Errors
    /// As [`Source::read_image`].
    pub fn thumbnail(&self, time: u32, projection: Projection, channels: &[u32], longest: u32) -> Result<Image> {
        let held = self.description();
        let longest = longest.max(1);
        let enough = |size: &[u32; 2]| size[0].max(size[1]) >= longest;
        let level = held.levels.iter().rposition(enough).unwrap_or(0);
        let [h, w] = held.levels[level];
        let step = h.max(w).div_ceil(longest).max(1);
        let size = [h.div_ceil(step), w.div_ceil(step)];
        let mut samples = Vec::new();
        for y in (0..h).step_by(step as usize) {
            let row = Rect { y0: y, x0: 0, y1: y + 1, x1: w };
            let row = self.read_level_image(level, time, projection, channels, row)?;
            samples.extend(row.samples.chunks_exact(channels.len()).step_by(step as usize).flatten());
        }
        Ok(Image::from_samples(size, channels.len() as u32, samples)?.with_dtype(held.dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 97 × 131 little-endian `u16`, 0 … n − 1.
    fn ramp() -> Source {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{:<118}", "{'descr': '<u2', 'fortran_order': False, 'shape': (97, 131), }").bytes());
        bytes.extend((0..97 * 131_u16).flat_map(u16::to_le_bytes));
        Source::from_bytes("ramp.npy", bytes).unwrap()
    }

    #[test]
    fn statistics_are_those_of_the_sorted_samples() {
        let found = ramp().statistics(PlaneIndex::default(), Projection::Max, &[0.0, 50.0, 100.0]).unwrap();
        assert_eq!((found.min, found.max, found.basis), (0.0, 12_706.0, Basis::All));
        assert_eq!(found.percentiles, [0.0, 6353.0, 12_706.0]);
        assert_eq!((found.mean, found.not_finite), (6353.0, 0));
    }

    #[test]
    fn a_thumbnail_takes_every_so_many_th_pixel() {
        let small = ramp().thumbnail(0, Projection::Plane(0), &[0], 50).unwrap();
        assert_eq!(small.size, [33, 44]);
        assert_eq!(small.samples[44 + 1], 3.0 * 131.0 + 3.0);
        assert_eq!(ramp().thumbnail(0, Projection::Plane(0), &[0], 1000).unwrap().size, [97, 131]);
    }
}
