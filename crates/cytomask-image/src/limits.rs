//! The limits a conversion stretches a channel between, found once for a whole image and applied to any part of it.
//!
//! [`Image::to_rgb`] does both on samples in memory. Here an image is seen in bands, one after the other, so that it need not be in
//! memory; the converted samples are the same to the last bit. Percentiles are exact: samples are counted by the upper and, in a second
//! pass, by the lower half of their bits.

use std::borrow::Cow;

use crate::image::Normalization;
use crate::{Error, ErrorKind, Image, Result, Rgb};

/// How one channel becomes 0–255.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stretch {
    /// [`Normalization::MicroSam`].
    Truncated { min: f32, range: f32 },
    /// [`Normalization::Percentile`] and [`Normalization::Range`].
    Clipped { low: f64, range: f64 },
    /// A channel whose limits coincide.
    Flat,
    /// [`Normalization::EightBit`].
    AsIs,
    /// [`Normalization::Cellpose`].
    Open { low: f32, range: f32 },
}

/// Images of more pixels are sampled on a grid for Cellpose's percentiles.
const CELLPOSE_PIXELS: u64 = 224 * 224 * 224;
/// Rows and columns of that grid, at least.
const CELLPOSE_GRID: u32 = 224;
/// Percentiles nearer to each other than this are one to Cellpose.
const CELLPOSE_RANGE: f64 = 1e-3;

/// The limits of an image's (at most three) channels; see [`Limits::find`].
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    channels: Vec<Stretch>,
    /// Whether channels are averaged first.
    grey: bool,
    /// Whether a single channel is repeated.
    repeated: bool,
}

/// Shows every band of an image, each pixel once, to the function it is given.
pub type ShowBands<'a> = dyn FnMut(&mut dyn FnMut(&Image) -> Result<()>) -> Result<()> + 'a;

impl Limits {
    /// Looks through an image. `show` is called once for each pass, one or two; every band has the same channels, of which the first
    /// three are used.
    ///
    /// # Errors
    /// As [`Image::to_rgb`]; what `show` reports.
    pub fn find(normalization: Normalization, show: &mut ShowBands<'_>) -> Result<Self> {
        if let Normalization::Cellpose { low, high, grey } = normalization {
            return Self::find_cellpose([low, high], grey, show);
        }
        let mut seen: Vec<Seen> = Vec::new();
        let only_bytes = normalization == Normalization::EightBit;
        show(&mut |band| {
            // Names the first sample that is no number, in the frame of the band.
            band.check_samples(only_bytes)?;
            let channels = band.channels as usize;
            seen.resize_with(channels.min(3), Seen::default);
            for (channel, seen) in seen.iter_mut().enumerate() {
                seen.count(band.samples[channel..].iter().step_by(channels));
            }
            Ok(())
        })?;
        let channels = match normalization {
            Normalization::EightBit | Normalization::Cellpose { .. } => vec![Stretch::AsIs; seen.len()],
            Normalization::MicroSam => {
                let range = |seen: &Seen| Stretch::Truncated { min: seen.min, range: (seen.max - seen.min) + 1e-7 };
                seen.iter().map(range).collect()
            }
            Normalization::Percentile { low, high } => {
                check_percentiles([low, high])?;
                let mut ranks: Vec<Ranks> = seen.iter().map(|seen| Ranks::new(seen, [low, high])).collect();
                show(&mut |band| {
                    let channels = band.channels as usize;
                    for (channel, ranks) in ranks.iter_mut().enumerate() {
                        ranks.count(band.samples[channel..].iter().step_by(channels));
                    }
                    Ok(())
                })?;
                ranks.iter().map(Ranks::stretch).collect()
            }
            Normalization::Range { low, high } => {
                if !(low.is_finite() && high.is_finite() && low < high) {
                    let message = format!("range: expected finite low < high, found low {low} and high {high}");
                    return Err(Error::new(ErrorKind::Value, message));
                }
                vec![Stretch::Clipped { low, range: high - low }; seen.len()]
            }
        };
        Ok(Self { channels, grey: false, repeated: true })
    }

    /// [`Normalization::Cellpose`]. Three passes for an image that is sampled, two for others.
    fn find_cellpose(percents: [f64; 2], grey: bool, show: &mut ShowBands<'_>) -> Result<Self> {
        check_percentiles(percents)?;
        let look = |seen: &mut Vec<Seen>, rows: &mut u32, step: [usize; 2], band: &Image| -> Result<()> {
            let band = of_channels(band, grey)?;
            let channels = band.channels as usize;
            seen.resize_with(channels.min(3), Seen::default);
            for (channel, seen) in seen.iter_mut().enumerate() {
                seen.count(sampled(&band, channel, *rows, step));
            }
            *rows += band.size[0];
            Ok(())
        };
        let (mut seen, mut rows, mut width) = (Vec::new(), 0, 0);
        show(&mut |band| {
            width = band.size[1];
            look(&mut seen, &mut rows, [1, 1], band)
        })?;
        let mut step = [1, 1];
        if u64::from(rows) * u64::from(width) > CELLPOSE_PIXELS {
            step = [rows, width].map(|side| (side / CELLPOSE_GRID).max(1) as usize);
            (seen, rows) = (Vec::new(), 0);
            show(&mut |band| look(&mut seen, &mut rows, step, band))?;
        }
        let mut ranks: Vec<Ranks> = seen.iter().map(|seen| Ranks::new(seen, percents)).collect();
        rows = 0;
        show(&mut |band| {
            let band = of_channels(band, grey)?;
            for (channel, ranks) in ranks.iter_mut().enumerate() {
                ranks.count(sampled(&band, channel, rows, step));
            }
            rows += band.size[0];
            Ok(())
        })?;
        let stretch = |ranks: &Ranks| {
            let [low, high] = ranks.wanted.map(|wanted| ranks.percentile(wanted));
            if high - low <= CELLPOSE_RANGE {
                return Stretch::Flat;
            }
            Stretch::Open { low: low as f32, range: (high - low) as f32 }
        };
        Ok(Self { channels: ranks.iter().map(stretch).collect(), grey, repeated: false })
    }

    /// Converts a part of the image these limits are of, as [`Image::to_rgb`] converts the whole.
    ///
    /// # Errors
    /// `Shape` when the part has other channels.
    pub fn to_rgb(&self, part: &Image) -> Result<Rgb> {
        let part = &*of_channels(part, self.grey)?;
        let (channels, used) = (part.channels as usize, self.channels.len());
        let pixels = part.size[0] as usize * part.size[1] as usize;
        if channels.min(3) != used || part.samples.len() != pixels * channels {
            return Err(Error::shape("part of an image", format!("{used} used channels"), channels));
        }
        let mut samples = vec![0.0; pixels * 3];
        for (pixel, stored) in samples.chunks_exact_mut(3).zip(part.samples.chunks_exact(channels)) {
            for ((value, &sample), stretch) in pixel.iter_mut().zip(stored).zip(&self.channels) {
                *value = stretch.apply(sample);
            }
            if used == 1 && self.repeated {
                pixel[1] = pixel[0];
                pixel[2] = pixel[0];
            }
        }
        Ok(Rgb { size: part.size, samples })
    }
}

fn check_percentiles([low, high]: [f64; 2]) -> Result<()> {
    if 0.0 <= low && low <= high && high <= 100.0 {
        return Ok(());
    }
    let message = format!("percentiles: expected 0 <= low <= high <= 100, found low {low} and high {high}");
    Err(Error::new(ErrorKind::Value, message))
}

/// The image, or with `grey` the mean of its channels (in `f32`, as numpy adds), checked for samples that are no numbers.
fn of_channels(part: &Image, grey: bool) -> Result<Cow<'_, Image>> {
    let channels = part.channels as usize;
    if !grey || channels <= 1 {
        part.check_samples(false)?;
        return Ok(Cow::Borrowed(part));
    }
    let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / channels as f32;
    let samples = part.samples.chunks_exact(channels).map(mean).collect();
    let mean = Image::from_samples(part.size, 1, samples)?;
    mean.check_samples(false)?;
    Ok(Cow::Owned(mean))
}

/// The samples of a channel on every `step`th row and column of the image; the band begins at row `first`.
fn sampled(band: &Image, channel: usize, first: u32, step: [usize; 2]) -> impl Iterator<Item = &f32> {
    let (width, channels) = (band.size[1] as usize, band.channels as usize);
    let rows = band.samples.chunks_exact((width * channels).max(1)).enumerate();
    let chosen = rows.filter(move |(row, _)| (row + first as usize).is_multiple_of(step[0]));
    chosen.flat_map(move |(_, row)| row[channel..].iter().step_by(channels * step[1]))
}

impl Stretch {
    /// The arithmetic of [`Image::to_rgb`], step by step.
    fn apply(self, sample: f32) -> f32 {
        match self {
            Self::Truncated { min, range } => f32::from(((sample - min) / range * 255.0) as u8),
            Self::Clipped { low, range } => (((f64::from(sample) - low) / range).clamp(0.0, 1.0) * 255.0) as f32,
            Self::Flat => 0.0,
            Self::AsIs => sample,
            Self::Open { low, range } => (sample - low) / range * 255.0,
        }
    }
}

/// What a first pass knows of a channel.
struct Seen {
    count: u64,
    min: f32,
    max: f32,
    /// How many samples have these upper 16 bits.
    upper: Vec<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { count: 0, min: f32::INFINITY, max: f32::NEG_INFINITY, upper: vec![0; 1 << 16] }
    }
}

impl Seen {
    fn count<'a>(&mut self, samples: impl Iterator<Item = &'a f32>) {
        for &sample in samples {
            self.count += 1;
            self.min = self.min.min(sample);
            self.max = self.max.max(sample);
            self.upper[(key(sample) >> 16) as usize] += 1;
        }
    }
}

/// Unsigned numbers in the order of `f32::total_cmp`.
fn key(sample: f32) -> u32 {
    // Both zeros are one value to a percentile.
    let bits = (sample + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// The samples of certain ranks, after a second pass.
struct Ranks {
    /// Two percentiles: the rank below, and how far towards the next.
    wanted: [(u64, f64); 2],
    last: u64,
    /// For each rank asked for: the upper bits of its sample, and its rank among samples with these.
    places: Vec<(u64, u32, u64)>,
    /// How many samples have these upper and lower bits.
    lower: Vec<(u32, Vec<u64>)>,
}

impl Ranks {
    fn new(seen: &Seen, percents: [f64; 2]) -> Self {
        let last = seen.count.saturating_sub(1);
        let wanted = percents.map(|percent| {
            let position = last as f64 * (percent / 100.0);
            ((position.floor() as u64).min(last), position - position.floor())
        });
        let mut ranks: Vec<u64> = wanted.iter().flat_map(|&(rank, _)| [rank, (rank + 1).min(last)]).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut places = Vec::new();
        let mut lower: Vec<(u32, Vec<u64>)> = Vec::new();
        for rank in ranks {
            let mut before = 0;
            for (upper, &count) in seen.upper.iter().enumerate() {
                if rank < before + count {
                    places.push((rank, upper as u32, rank - before));
                    if lower.iter().all(|(known, _)| *known != upper as u32) {
                        lower.push((upper as u32, vec![0; 1 << 16]));
                    }
                    break;
                }
                before += count;
            }
        }
        Self { wanted, last, places, lower }
    }

    fn count<'a>(&mut self, samples: impl Iterator<Item = &'a f32>) {
        for &sample in samples {
            let key = key(sample);
            for (upper, counts) in &mut self.lower {
                if key >> 16 == *upper {
                    counts[(key & 0xFFFF) as usize] += 1;
                }
            }
        }
    }

    fn sample(&self, rank: u64) -> f32 {
        let place = self.places.iter().find(|&&(known, ..)| known == rank);
        let Some(&(_, upper, within)) = place else { return 0.0 };
        let counts = self.lower.iter().find(|&&(known, _)| known == upper).map_or(&[][..], |(_, counts)| counts);
        let mut before = 0;
        for (lower, &count) in counts.iter().enumerate() {
            before += count;
            if within < before {
                return from_key(upper << 16 | lower as u32);
            }
        }
        0.0
    }

    /// numpy's linear interpolation, as `Image::to_rgb` has it.
    fn percentile(&self, (rank, fraction): (u64, f64)) -> f64 {
        let below = self.sample(rank);
        if fraction == 0.0 || rank == self.last {
            return f64::from(below);
        }
        let above = self.sample(rank + 1);
        let difference = f64::from(above - below);
        if fraction >= 0.5 {
            f64::from(above) - difference * (1.0 - fraction)
        } else {
            f64::from(below) + difference * fraction
        }
    }

    fn stretch(&self) -> Stretch {
        let [low, high] = self.wanted.map(|wanted| self.percentile(wanted));
        if high <= low {
            return Stretch::Flat;
        }
        Stretch::Clipped { low, range: (high - low).max(1e-6 * high.abs().max(1.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 97 × 131 pixels of `channels` channels, some alike, some negative, all finite.
    fn image(channels: u32, scale: f32) -> Image {
        let mut state = 7_u32;
        let samples = (0..97 * 131 * channels)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 24) as f32 - 40.0) * scale
            })
            .collect();
        Image::from_samples([97, 131], channels, samples).unwrap()
    }

    fn bands(image: &Image, rows: u32) -> Vec<Image> {
        let row = (image.size[1] * image.channels) as usize;
        image
            .samples
            .chunks(row * rows as usize)
            .map(|part| {
                let size = [(part.len() / row) as u32, image.size[1]];
                Image::from_samples(size, image.channels, part.to_vec()).unwrap()
            })
            .collect()
    }

    #[test]
    fn bands_are_converted_as_the_whole() {
        for (channels, scale) in [(1, 1.0), (2, 3.7), (3, -0.013), (5, 1e7)] {
            let whole = image(channels, scale);
            for normalization in [
                Normalization::MicroSam,
                Normalization::Percentile { low: 0.1, high: 99.9 },
                Normalization::Percentile { low: 0.0, high: 100.0 },
                Normalization::Percentile { low: 37.3, high: 62.51 },
                Normalization::Percentile { low: 50.0, high: 50.0 },
                Normalization::Range { low: -3.0, high: 90.5 },
                Normalization::Cellpose { low: 1.0, high: 99.0, grey: false },
                Normalization::Cellpose { low: 1.0, high: 99.0, grey: true },
            ] {
                let parts = bands(&whole, 10);
                let limits = Limits::find(normalization, &mut |see| parts.iter().try_for_each(&mut *see)).unwrap();
                let converted: Vec<f32> = parts.iter().flat_map(|part| limits.to_rgb(part).unwrap().samples).collect();
                let expected = whole.to_rgb(normalization).unwrap().samples;
                assert_eq!(converted, expected, "{channels} channels × {scale}, {normalization:?}");
            }
        }
    }

    #[test]
    fn bad_samples_are_refused() {
        let mut bad = image(1, 1.0);
        bad.samples[500] = f32::NAN;
        let find = |image: &Image, normalization| Limits::find(normalization, &mut |see| see(image));
        assert!(find(&bad, Normalization::MicroSam).unwrap_err().to_string().contains("NaN"));
        assert!(find(&image(1, 1.0), Normalization::EightBit).is_err(), "negative samples");
        let small = Image::from_samples([1, 2], 1, vec![0.0, 255.0]).unwrap();
        let limits = find(&small, Normalization::EightBit).unwrap();
        assert_eq!(limits.to_rgb(&small).unwrap(), small.to_rgb(Normalization::EightBit).unwrap());
        assert!(limits.to_rgb(&image(2, 1.0)).is_err(), "other channels");
    }

    #[test]
    fn cellpose_neither_clips_nor_repeats() {
        let ramp = Image::from_samples([1, 101], 1, (0..101).map(|at| at as f32).collect()).unwrap();
        let rgb = ramp.to_rgb(Normalization::Cellpose { low: 10.0, high: 90.0, grey: false }).unwrap();
        let red: Vec<f32> = rgb.samples.iter().step_by(3).copied().collect();
        assert!((red[10]).abs() < 1e-4 && (red[90] - 255.0).abs() < 1e-3);
        assert!((red[0] + 255.0 / 8.0).abs() < 1e-3 && red[100] > 280.0);
        assert!(rgb.samples[1..].iter().step_by(3).all(|&green| green == 0.0));
        let flat = Image::from_samples([1, 3], 2, vec![0.5, 1.0, 0.5, 5.0, 0.5, 9.0]).unwrap();
        let rgb = flat.to_rgb(Normalization::Cellpose { low: 0.0, high: 100.0, grey: false }).unwrap();
        assert_eq!(rgb.samples, [0.0, 0.0, 0.0, 0.0, 127.5, 0.0, 0.0, 255.0, 0.0]);
        let rgb = flat.to_rgb(Normalization::Cellpose { low: 0.0, high: 100.0, grey: true }).unwrap();
        assert_eq!(rgb.samples, [0.0, 0.0, 0.0, 127.5, 0.0, 0.0, 255.0, 0.0, 0.0]);
    }

    #[test]
    fn cellpose_samples_large_images_on_a_grid() {
        // 4480 × 4480 is 20 × 20 pixels to each of the grid; everything off the grid is out of range.
        let side = 4480;
        let samples = (0..side * side)
            .map(|at| if (at / side) % 20 == 0 && at % side % 20 == 0 { (at % 7) as f32 } else { 1e6 })
            .collect();
        let large = Image::from_samples([side as u32; 2], 1, samples).unwrap();
        let limits =
            Limits::find(Normalization::Cellpose { low: 1.0, high: 99.0, grey: false }, &mut |see| see(&large))
                .unwrap();
        assert_eq!(limits.channels, [Stretch::Open { low: 0.0, range: 6.0 }]);
    }
}
