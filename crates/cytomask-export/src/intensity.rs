//! How bright an object is.

use cytomask_image::Image;

use crate::objects::Run;

/// Samples of one channel under one object, as numpy's functions of these names give them in double precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intensity {
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest sample.
    pub min: f64,
    /// Largest sample.
    pub max: f64,
    /// Standard deviation of all samples (divided by n).
    pub std: f64,
    /// The middle sample, or the mean of the two in the middle.
    pub median: f64,
}

impl Intensity {
    /// Measures every channel of `image` under `runs` (not empty, inside the image). `buffer` is room to work in.
    pub(crate) fn new(image: &Image, runs: &[Run], buffer: &mut Vec<f32>) -> Vec<Self> {
        let (width, channels) = (image.size[1] as usize, image.channels as usize);
        (0..channels)
            .map(|channel| {
                buffer.clear();
                for &(y, x0, x1) in runs {
                    let row = y as usize * width;
                    let samples = &image.samples[(row + x0 as usize) * channels..(row + x1 as usize) * channels];
                    buffer.extend(samples.iter().skip(channel).step_by(channels));
                }
                Self::of(buffer)
            })
            .collect()
    }

    /// Reorders `samples`, which are not empty. Where one is NaN, everything is.
    fn of(samples: &mut [f32]) -> Self {
        if samples.iter().any(|sample| sample.is_nan()) {
            return Self { mean: f64::NAN, min: f64::NAN, max: f64::NAN, std: f64::NAN, median: f64::NAN };
        }
        let n = samples.len() as f64;
        let mean = samples.iter().map(|&sample| f64::from(sample)).sum::<f64>() / n;
        let variance = samples.iter().map(|&sample| (f64::from(sample) - mean).powi(2)).sum::<f64>() / n;
        let middle = samples.len() / 2;
        let even = samples.len().is_multiple_of(2);
        let (below, &mut at, _) = samples.select_nth_unstable_by(middle, f32::total_cmp);
        let lower = if even { below.iter().copied().fold(f32::NEG_INFINITY, f32::max) } else { at };
        Self {
            mean,
            min: f64::from(samples.iter().copied().fold(f32::INFINITY, f32::min)),
            max: f64::from(samples.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
            std: variance.sqrt(),
            median: (f64::from(lower) + f64::from(at)) / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_kept_apart() {
        let image = Image::from_samples([1, 4], 2, vec![1.0, 50.0, 2.0, 60.0, 6.0, 40.0, 7.0, 0.0]).unwrap();
        let found = Intensity::new(&image, &[(0, 0, 3)], &mut Vec::new());
        assert_eq!((found[0].mean, found[0].min, found[0].max, found[0].median), (3.0, 1.0, 6.0, 2.0));
        assert!((found[0].std - (14.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((found[1].mean, found[1].median), (50.0, 50.0));
        assert_eq!(Intensity::new(&image, &[(0, 0, 2)], &mut Vec::new())[1].median, 55.0);
        assert!(Intensity::of(&mut [1.0, f32::NAN]).mean.is_nan());
    }
}
