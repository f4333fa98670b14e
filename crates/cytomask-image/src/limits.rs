//! The limits a conversion stretches a channel between, found once for a whole image and applied to any part of it.
//!
//! [`Image::to_rgb`] does both on samples in memory. Here an image is seen in bands, one after the other, so that it need not be in
//! memory; the converted samples are the same to the last bit. Percentiles are exact: samples are counted by the upper and, in a second
//! pass, by the lower half of their bits.

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
}

/// The limits of an image's (at most three) channels; see [`Limits::find`].
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    channels: Vec<Stretch>,
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
            Normalization::EightBit => vec![Stretch::AsIs; seen.len()],
            Normalization::MicroSam => {
                let range = |seen: &Seen| Stretch::Truncated { min: seen.min, range: (seen.max - seen.min) + 1e-7 };
                seen.iter().map(range).collect()
            }
            Normalization::Percentile { low, high } => {
                if !(0.0 <= low && low <= high && high <= 100.0) {
                    let message =
                        format!("percentiles: expected 0 <= low <= high <= 100, found low {low} and high {high}");
                    return Err(Error::new(ErrorKind::Value, message));
                }
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
        Ok(Self { channels })
    }

    /// Converts a part of the image these limits are of, as [`Image::to_rgb`] converts the whole.
    ///
    /// # Errors
    /// `Shape` when the part has other channels.
    pub fn to_rgb(&self, part: &Image) -> Result<Rgb> {
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
            if used == 1 {
                pixel[1] = pixel[0];
                pixel[2] = pixel[0];
            }
        }
        Ok(Rgb { size: part.size, samples })
    }
}

impl Stretch {
    /// The arithmetic of [`Image::to_rgb`], step by step.
    fn apply(self, sample: f32) -> f32 {
        match self {
            Self::Truncated { min, range } => f32::from(((sample - min) / range * 255.0) as u8),
            Self::Clipped { low, range } => (((f64::from(sample) - low) / range).clamp(0.0, 1.0) * 255.0) as f32,
            Self::Flat => 0.0,
            Self::AsIs => sample,
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
}
