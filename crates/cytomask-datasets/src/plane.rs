//! A 2-D image or label image on its way from an archive to the prepared set.

use std::path::Path;

use cytomask_image::{Image, ReadOptions, SampleType, read_labels};

use crate::{Error, ErrorKind, Result};

/// `[H, W, C]`, row-major. `f64` holds every sample type of the datasets exactly, 64-bit ids above 2⁵³ excepted, which
/// [`Plane::ids`] refuses anyway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plane {
    /// `[h, w]`.
    pub(crate) size: [u32; 2],
    pub(crate) channels: u32,
    /// What the samples were stored as.
    pub(crate) dtype: SampleType,
    pub(crate) values: Vec<f64>,
}

/// Larger images are none of these datasets'.
pub(crate) const MAX_PIXELS: u64 = 1 << 26;

impl Plane {
    pub(crate) fn new(size: [u32; 2], channels: u32, dtype: SampleType, values: Vec<f64>) -> Result<Self> {
        let expected = size[0] as usize * size[1] as usize * channels as usize;
        if values.len() != expected || expected == 0 {
            return Err(Error::expected(
                ErrorKind::Shape,
                "image",
                format!("{expected} samples for {} × {} × {channels}, at least one", size[0], size[1]),
                values.len(),
            ));
        }
        Ok(Self { size, channels, dtype, values })
    }

    /// Reads a PNG, JPEG, BMP or TIFF image.
    pub(crate) fn read_image(path: &Path, page: u32) -> Result<Self> {
        let image = Image::open(path, &ReadOptions { page, max_pixels: MAX_PIXELS })?;
        let values = image.samples.iter().map(|&value| f64::from(value)).collect();
        Self::new(image.size, image.channels, image.dtype, values)
    }

    /// Reads a PNG or TIFF label image.
    pub(crate) fn read_labels(path: &Path) -> Result<Self> {
        let labels = read_labels(path)?;
        let size = labels.size();
        Self::new(size, 1, SampleType::U32, labels.into_vec().into_iter().map(f64::from).collect())
    }

    /// One channel, as an image of its own.
    pub(crate) fn channel(&self, channel: usize) -> Self {
        let values = self.values.iter().skip(channel).step_by(self.channels as usize).copied().collect();
        Self { size: self.size, channels: 1, dtype: self.dtype, values }
    }

    /// Puts images of one channel together.
    pub(crate) fn stack(planes: &[Self]) -> Result<Self> {
        let first = planes.first().ok_or_else(|| Error::new(ErrorKind::Shape, "image: no channels"))?;
        for plane in planes {
            if plane.size != first.size {
                return Err(Error::expected(
                    ErrorKind::Shape,
                    "channels of one image",
                    shape(first.size),
                    shape(plane.size),
                ));
            }
        }
        let pixels = first.values.len();
        let values = (0..pixels).flat_map(|at| planes.iter().map(move |plane| plane.values[at])).collect();
        Self::new(first.size, planes.len() as u32, first.dtype, values)
    }

    /// Whole numbers from 0 to 2³² − 1; negative ones (PlantSeg's "ignore") become 0.
    pub(crate) fn ids(&self) -> Result<Vec<u32>> {
        let wrong = |value: &&f64| value.fract() != 0.0 || **value > f64::from(u32::MAX) || !value.is_finite();
        if let Some(value) = self.values.iter().find(wrong) {
            return Err(Error::expected(ErrorKind::Value, "labels", "whole numbers up to 2³² − 1", value));
        }
        Ok(self.values.iter().map(|&value| value.max(0.0) as u32).collect())
    }

    /// Number of different values: `len(np.unique(labels))`, the background among them.
    pub(crate) fn distinct(&self) -> usize {
        let mut values = self.values.clone();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        values.len()
    }
}

/// For messages.
pub(crate) fn shape([h, w]: [u32; 2]) -> String {
    format!("{h} × {w}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(values: &[f64]) -> Plane {
        Plane::new([1, values.len() as u32], 1, SampleType::U8, values.to_vec()).unwrap()
    }

    #[test]
    fn ids_are_whole_and_negative_ones_are_background() {
        assert_eq!(plane(&[-1.0, 0.0, 7.0, 4_294_967_295.0]).ids().unwrap(), [0, 0, 7, u32::MAX]);
        for bad in [0.5, f64::NAN, f64::INFINITY, 4_294_967_296.0] {
            assert_eq!(plane(&[bad]).ids().unwrap_err().kind(), ErrorKind::Value);
        }
        assert_eq!(plane(&[-1.0, 0.0, 7.0, 7.0]).distinct(), 3);
    }

    #[test]
    fn channels_come_apart_and_together() {
        let (a, b) = (plane(&[1.0, 2.0]), plane(&[3.0, 4.0]));
        let both = Plane::stack(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(both.values, [1.0, 3.0, 2.0, 4.0]);
        assert_eq!((both.channel(0), both.channel(1)), (a.clone(), b));
        assert_eq!(Plane::stack(&[a, plane(&[1.0])]).unwrap_err().kind(), ErrorKind::Shape);
    }
}
