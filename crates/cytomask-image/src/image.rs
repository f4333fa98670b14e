//! Images as read: any number of channels, samples as `f32`; and their conversion to what a network starts from.

use crate::resample::{resize_antialiased, resize_pil};
use crate::{Error, ErrorKind, Limits, Rect, Result};

/// The type samples had where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleType {
    /// One bit.
    Bool,
    /// Unsigned, at most 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE double precision.
    F64,
}

/// An image as read from a file: `[H, W, C]`, samples widened to `f32`, not normalised.
#[derive(Clone, Debug)]
pub struct Image {
    /// `[h, w]`.
    pub size: [u32; 2],
    /// Channels per pixel, at least 1.
    pub channels: u32,
    /// Row-major `[H, W, C]`.
    pub samples: Vec<f32>,
    /// What the samples were before they were widened; integers above 2²⁴ and doubles have been rounded.
    pub dtype: SampleType,
}

/// Three channels of 8-bit range (0–255), `[H, W, 3]`, what every SAM-family network starts from. `f32`, so that a conversion
/// may or may not have rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    /// `[h, w]`.
    pub size: [u32; 2],
    /// Row-major `[H, W, 3]`, 0–255.
    pub samples: Vec<f32>,
}

/// How samples of any range become 0–255. Each way treats every channel by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Normalization {
    /// Minimum to 0, maximum to (almost) 255, truncated to whole numbers: `micro_sam.util._to_image` in its own `f32`
    /// arithmetic. Applied to 8-bit images too, whose values therefore change.
    MicroSam,
    /// The `low` percentile to 0, the `high` one to 255, clipped, not rounded. A channel whose percentiles coincide becomes 0.
    Percentile {
        /// 0–100, as numpy's `percentile` with linear interpolation.
        low: f64,
        /// 0–100, at least `low`.
        high: f64,
    },
    /// `low` to 0, `high` to 255 in every channel, clipped, not rounded: the same for all images of a series.
    Range {
        /// Becomes 0.
        low: f64,
        /// Becomes 255; above `low`.
        high: f64,
    },
    /// Samples are 0–255 already and are taken as they are.
    EightBit,
    /// Cellpose's: the `low` percentile to 0, the `high` one to 255, neither clipped nor rounded; a channel whose percentiles are at
    /// most 0.001 apart becomes 0. One channel is not repeated: the second and third are 0. As in `normalize99` of cellpose, an image
    /// of more than 224³ pixels is sampled on a grid for its percentiles.
    Cellpose {
        /// 0–100, as numpy's `percentile` with linear interpolation.
        low: f64,
        /// 0–100, at least `low`.
        high: f64,
        /// Take the mean of all channels as the only one (Cellpose 3's `channels = [0, 0]`).
        grey: bool,
    },
}

impl Image {
    /// Takes row-major samples, `[H, W, C]`.
    ///
    /// # Errors
    /// `Shape` when a size or `channels` is 0, or the number of samples is not `h * w * channels`.
    pub fn from_samples(size: [u32; 2], channels: u32, samples: Vec<f32>) -> Result<Self> {
        if size.contains(&0) || channels == 0 {
            return Err(Error::shape(
                "image",
                "at least 1 × 1 pixel and 1 channel",
                format!("{} × {} pixels and {channels} channels", size[0], size[1]),
            ));
        }
        let expected = u128::from(size[0]) * u128::from(size[1]) * u128::from(channels);
        if samples.len() as u128 != expected {
            let [h, w] = size;
            return Err(Error::shape("image", format!("{expected} samples for [{h}, {w}, {channels}]"), samples.len()));
        }
        Ok(Self { size, channels, samples, dtype: SampleType::F32 })
    }

    /// The same image with its samples' former type on record.
    #[must_use]
    pub fn with_dtype(mut self, dtype: SampleType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Converts to three channels of 0–255: one channel is repeated, two get a third of zeros, of more than three the first
    /// three are kept (µSAM's rule).
    ///
    /// # Errors
    /// `Value` when a used sample is NaN or infinite, when percentiles are not `0 <= low <= high <= 100`, or, for
    /// [`Normalization::EightBit`], when a sample lies outside 0–255. `Shape` when the public fields contradict each other.
    pub fn to_rgb(&self, normalization: Normalization) -> Result<Rgb> {
        let channels = self.channels as usize;
        let pixels = self.size[0] as usize * self.size[1] as usize;
        if channels == 0 || pixels == 0 || self.samples.len() != pixels * channels {
            let [h, w] = self.size;
            return Err(Error::shape("image", format!("samples for [{h}, {w}, {channels}]"), self.samples.len()));
        }
        if matches!(normalization, Normalization::Cellpose { .. }) {
            return Limits::find(normalization, &mut |see| see(self))?.to_rgb(self);
        }
        let used = channels.min(3);
        self.check_samples(normalization == Normalization::EightBit)?;
        let mut samples = vec![0.0_f32; pixels * 3];
        let mut channel_samples = Vec::with_capacity(pixels);
        for channel in 0..used {
            channel_samples.clear();
            channel_samples.extend(self.samples[channel..].iter().step_by(channels).copied());
            match normalization {
                Normalization::MicroSam => stretch_micro_sam(&mut channel_samples),
                Normalization::Percentile { low, high } => stretch_percentile(&mut channel_samples, low, high)?,
                Normalization::Range { low, high } => stretch_range(&mut channel_samples, low, high)?,
                Normalization::EightBit | Normalization::Cellpose { .. } => {}
            }
            for (pixel, &value) in samples.chunks_exact_mut(3).zip(&channel_samples) {
                pixel[channel] = value;
            }
        }
        if used == 1 {
            for pixel in samples.chunks_exact_mut(3) {
                pixel[1] = pixel[0];
                pixel[2] = pixel[0];
            }
        }
        Ok(Rgb { size: self.size, samples })
    }

    /// Fails when a sample of the (at most three) used channels is not finite or, with `only_bytes`, not of 0–255.
    pub(crate) fn check_samples(&self, only_bytes: bool) -> Result<()> {
        let used = (self.channels as usize).min(3);
        self.check(used, |value| value.is_finite(), "finite samples", "NaN or infinite")?;
        if only_bytes {
            self.check(used, |value| (0.0..=255.0).contains(&value), "samples of 0–255", "outside that range")?;
        }
        Ok(())
    }

    /// Fails when a sample of the first `used` channels is not `good`, with the count and the first position.
    fn check(&self, used: usize, good: impl Fn(f32) -> bool, expected: &str, found: &str) -> Result<()> {
        let channels = self.channels as usize;
        let mut bad = self.samples.iter().enumerate().filter(|&(i, &value)| i % channels < used && !good(value));
        let Some((first, &value)) = bad.next() else { return Ok(()) };
        let count = 1 + bad.count();
        let (pixel, channel) = (first / channels, first % channels);
        let (y, x) = (pixel / self.size[1] as usize, pixel % self.size[1] as usize);
        Err(Error::new(
            ErrorKind::Value,
            format!(
                "image: expected {expected}, found {count} {found}; \
                 the first, {value}, is at (y, x, channel) = ({y}, {x}, {channel})"
            ),
        ))
    }
}

/// `micro_sam.util._to_image` for one channel; every step is rounded to `f32` as numpy does.
fn stretch_micro_sam(channel: &mut [f32]) {
    let min = channel.iter().copied().fold(f32::INFINITY, f32::min);
    let max = channel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Subtraction is monotone, so the maximum of the shifted channel is the shifted maximum.
    let range = (max - min) + 1e-7;
    for value in channel {
        *value = f32::from(((*value - min) / range * 255.0) as u8);
    }
}

/// Percentiles to 0 and 255. In `f64`, as numpy computes when the percentiles are given as a sequence.
fn stretch_percentile(channel: &mut [f32], low: f64, high: f64) -> Result<()> {
    if !(0.0 <= low && low <= high && high <= 100.0) {
        return Err(Error::new(
            ErrorKind::Value,
            format!("percentiles: expected 0 <= low <= high <= 100, found low {low} and high {high}"),
        ));
    }
    let mut order = channel.to_vec();
    let (low, high) = (percentile(&mut order, low), percentile(&mut order, high));
    if high <= low {
        channel.fill(0.0);
        return Ok(());
    }
    stretch(channel, low, (high - low).max(1e-6 * high.abs().max(1.0)));
    Ok(())
}

/// `low` to 0 and `low + range` to 255.
fn stretch(channel: &mut [f32], low: f64, range: f64) {
    for value in channel {
        // numpy keeps the clipped quotient in f64 and rounds once, after the multiplication.
        *value = (((f64::from(*value) - low) / range).clamp(0.0, 1.0) * 255.0) as f32;
    }
}

/// Given limits to 0 and 255.
fn stretch_range(channel: &mut [f32], low: f64, high: f64) -> Result<()> {
    if !(low.is_finite() && high.is_finite() && low < high) {
        let message = format!("range: expected finite low < high, found low {low} and high {high}");
        return Err(Error::new(ErrorKind::Value, message));
    }
    stretch(channel, low, high - low);
    Ok(())
}

/// numpy's `percentile` with linear interpolation; reorders `values`, which must be finite and not empty.
pub(crate) fn percentile(values: &mut [f32], percent: f64) -> f64 {
    let position = (values.len() - 1) as f64 * (percent / 100.0);
    let index = (position.floor() as usize).min(values.len() - 1);
    let fraction = position - index as f64;
    let (_, &mut below, rest) = values.select_nth_unstable_by(index, f32::total_cmp);
    let above = rest.iter().copied().fold(f32::INFINITY, f32::min);
    if fraction == 0.0 || above == f32::INFINITY {
        return f64::from(below);
    }
    // numpy anchors the interpolation at the nearer neighbour; the difference is taken in the samples' own type.
    let difference = f64::from(above - below);
    if fraction >= 0.5 {
        f64::from(above) - difference * (1.0 - fraction)
    } else {
        f64::from(below) + difference * fraction
    }
}

impl Rgb {
    /// Cuts out the part of `rect` (in this image's frame) that lies inside the image.
    #[must_use]
    pub fn crop(&self, rect: Rect) -> Self {
        let rect = rect.intersection(&Rect::whole(self.size));
        let width = self.size[1] as usize;
        let mut samples = Vec::with_capacity(rect.area() as usize * 3);
        for y in rect.y0 as usize..rect.y1 as usize {
            let row = y * width;
            samples.extend_from_slice(&self.samples[(row + rect.x0 as usize) * 3..(row + rect.x1 as usize) * 3]);
        }
        Self { size: rect.size(), samples }
    }

    /// How much there is to see in the part of `rect` inside the image: the largest difference of the 99th and the 1st percentile of a
    /// channel. 0 where there are no pixels.
    pub fn contrast(&self, rect: Rect) -> f32 {
        let part = self.crop(rect);
        if part.samples.is_empty() {
            return 0.0;
        }
        let of_channel = |channel: usize| {
            let mut values: Vec<f32> = part.samples[channel..].iter().step_by(3).copied().collect();
            (percentile(&mut values, 99.0) - percentile(&mut values, 1.0)) as f32
        };
        (0..3).map(of_channel).fold(0.0, f32::max)
    }

    /// The size [`Rgb::resize_longest_side`] gives an image of `size`: `int(extent * scale + 0.5)`, at least 1.
    pub fn longest_side_size(size: [u32; 2], target: u32) -> [u32; 2] {
        let longest = f64::from(size[0].max(size[1]).max(1));
        // SAM divides before it multiplies; the rounding of that order decides the last pixel.
        let scale = f64::from(target) / longest;
        size.map(|extent| ((f64::from(extent) * scale + 0.5) as u32).max(1))
    }

    /// Scales so that the longest side measures `target`, bit for bit as PIL's antialiased bilinear filter on 8-bit samples
    /// (what SAM's `ResizeLongestSide.apply_image` does). Samples that are not whole are rounded first. An image that has the
    /// size already is returned as it is, unrounded.
    #[must_use]
    pub fn resize_longest_side(&self, target: u32) -> Self {
        let size = Self::longest_side_size(self.size, target);
        if size == self.size || self.size.contains(&0) {
            return self.clone();
        }
        let bytes: Vec<u8> = self.samples.iter().map(|&value| value.round() as u8).collect();
        let samples = resize_pil(&bytes, self.size, size, 3).into_iter().map(f32::from).collect();
        Self { size, samples }
    }

    /// Bilinear in floating point to `size` (`[h, w]`, each at least 1), antialiased where an axis shrinks (triangle filter with
    /// scaled support), not rounded.
    #[must_use]
    pub fn resize(&self, size: [u32; 2]) -> Self {
        let size = size.map(|extent| extent.max(1));
        if size == self.size || self.size.contains(&0) {
            return self.clone();
        }
        Self { size, samples: resize_antialiased(&self.samples, self.size, size, 3) }
    }

    /// `(sample − mean) / std`, then zero padding on the right and bottom to `padded`; what lies outside `padded` is dropped.
    /// Padding comes after normalisation, so it has the mean colour.
    ///
    /// # Shapes
    /// - `self`: `[h, w, 3]`
    /// - output: `[3, padded[0], padded[1]]`, row-major
    pub fn normalize_and_pad(&self, padded: [u32; 2], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
        let [padded_h, padded_w] = padded.map(|extent| extent as usize);
        let mut out = vec![0.0_f32; 3 * padded_h * padded_w];
        let width = self.size[1] as usize;
        if width == 0 || padded_w == 0 {
            return out;
        }
        for (y, row) in self.samples.chunks_exact(width * 3).take(padded_h).enumerate() {
            for channel in 0..3 {
                let start = (channel * padded_h + y) * padded_w;
                let into = &mut out[start..start + padded_w];
                for (value, &sample) in into.iter_mut().zip(row[channel..].iter().step_by(3)) {
                    *value = (sample - mean[channel]) / std[channel];
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(channels: u32, samples: &[f32]) -> Image {
        Image::from_samples([1, samples.len() as u32 / channels], channels, samples.to_vec()).unwrap()
    }

    #[test]
    fn sizes_must_fit() {
        assert_eq!(Image::from_samples([2, 2], 1, vec![0.0; 3]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(Image::from_samples([0, 2], 1, vec![]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(Image::from_samples([1, 2], 0, vec![]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(Image::from_samples([u32::MAX; 2], u32::MAX, vec![]).unwrap_err().kind(), ErrorKind::Shape);
    }

    #[test]
    fn channels_follow_the_rule() {
        let rgb = |channels, samples: &[f32]| image(channels, samples).to_rgb(Normalization::EightBit).unwrap().samples;
        assert_eq!(rgb(1, &[1.0, 2.0]), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(rgb(2, &[1.0, 2.0]), [1.0, 2.0, 0.0]);
        assert_eq!(rgb(3, &[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
        // What is not used may be anything.
        assert_eq!(rgb(5, &[1.0, 2.0, 3.0, f32::NAN, 999.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn bad_samples_are_counted_and_located() {
        let mut samples = vec![1.0; 2 * 3 * 2];
        samples[9] = f32::NAN;
        samples[10] = f32::INFINITY;
        let image = Image::from_samples([2, 3], 2, samples).unwrap();
        for normalization in
            [Normalization::MicroSam, Normalization::EightBit, Normalization::Percentile { low: 0.0, high: 100.0 }]
        {
            let error = image.to_rgb(normalization).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
            let message = error.to_string();
            assert!(message.contains("found 2 NaN or infinite"), "{message}");
            assert!(message.ends_with("the first, NaN, is at (y, x, channel) = (1, 1, 1)"), "{message}");
        }
        let error = self::image(1, &[255.0, 256.0]).to_rgb(Normalization::EightBit).unwrap_err();
        assert!(error.to_string().contains("(0, 1, 0)"), "{error}");
        let error = self::image(1, &[1.0]).to_rgb(Normalization::Percentile { low: 2.0, high: 1.0 }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_samples() {
        let mut values: Vec<f32> = (0..101).map(|i| ((i * 37) % 101) as f32).collect();
        assert_eq!(percentile(&mut values, 0.0), 0.0);
        assert_eq!(percentile(&mut values, 99.5), 99.5);
        assert_eq!(percentile(&mut values, 12.25), 12.25);
        assert_eq!(percentile(&mut values, 100.0), 100.0);
        assert_eq!(percentile(&mut [7.0], 50.0), 7.0);
    }

    #[test]
    fn given_limits_are_clipped_to() {
        let rgb = |low, high| image(1, &[50.0, 100.0, 300.0, 900.0]).to_rgb(Normalization::Range { low, high });
        let grey: Vec<f32> = rgb(100.0, 500.0).unwrap().samples.into_iter().step_by(3).collect();
        assert_eq!(grey, [0.0, 0.0, 127.5, 255.0]);
        assert_eq!(rgb(5.0, 5.0).unwrap_err().kind(), ErrorKind::Value);
    }

    #[test]
    fn contrast_ignores_a_hot_pixel() {
        let mut samples = vec![7.0; 3 * 400];
        samples[30] = 255.0;
        let rgb = Rgb { size: [20, 20], samples };
        assert_eq!(rgb.contrast(Rect::whole([20, 20])), 0.0);
        let ramp = Rgb { size: [1, 101], samples: (0..101).flat_map(|v| [v as f32, 0.0, 0.0]).collect() };
        assert_eq!(ramp.contrast(Rect::whole([1, 101])), 98.0);
        assert_eq!(ramp.contrast(Rect { y0: 5, x0: 0, y1: 6, x1: 1 }), 0.0);
    }

    #[test]
    fn micro_sam_truncates() {
        // 1/3 · 255 = 85 and 2/3 · 255 = 170 less the epsilon in the divisor.
        let rgb = image(1, &[3.0, 4.0, 5.0, 6.0]).to_rgb(Normalization::MicroSam).unwrap();
        let grey: Vec<f32> = rgb.samples.into_iter().step_by(3).collect();
        assert_eq!((grey[0], grey[3]), (0.0, 255.0));
        assert!(grey[1] == 84.0 || grey[1] == 85.0);
        assert!(grey.iter().all(|value| value.fract() == 0.0));
    }

    #[test]
    fn cropping_is_clipped_to_the_image() {
        let rgb = Rgb { size: [2, 2], samples: (0..12).map(|i| i as f32).collect() };
        let part = rgb.crop(Rect { y0: 1, x0: 1, y1: 9, x1: 9 });
        assert_eq!((part.size, part.samples), ([1, 1], vec![9.0, 10.0, 11.0]));
        assert_eq!(rgb.crop(Rect::whole([2, 2])), rgb);
        assert_eq!(rgb.crop(Rect { y0: 5, x0: 5, y1: 9, x1: 9 }).size, [0, 0]);
    }

    #[test]
    fn padding_has_the_mean_colour() {
        let rgb = Rgb { size: [1, 2], samples: vec![1.0, 2.0, 3.0, 5.0, 6.0, 7.0] };
        let found = rgb.normalize_and_pad([2, 3], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]);
        assert_eq!(found[..6], [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(found[6..12], [1.0, 5.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(found[12..], [2.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rgb.normalize_and_pad([1, 1], [0.0; 3], [1.0; 3]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_thin_image_keeps_a_pixel() {
        assert_eq!(Rgb::longest_side_size([1, 1000], 64), [1, 64]);
        let thin = Rgb { size: [1, 1000], samples: vec![7.0; 3000] };
        assert_eq!(thin.resize_longest_side(64).samples, vec![7.0; 192]);
        assert_eq!(Rgb::longest_side_size([97, 131], 1024), [758, 1024]);
    }
}
