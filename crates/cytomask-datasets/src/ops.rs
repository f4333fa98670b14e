//! What happens to an image and its labels between reading and writing.

use cytomask_image::SampleType;

use crate::plane::{Plane, shape};
use crate::{Error, ErrorKind, Result};

/// Side of the paper's crops.
pub(crate) const SIDE: u32 = 512;

/// The part of `[h, w]` pixels that begins at `[top, left]`.
pub(crate) fn cut(plane: &Plane, [top, left]: [u32; 2], [h, w]: [u32; 2]) -> Plane {
    let channels = plane.channels as usize;
    let row = plane.size[1] as usize * channels;
    let (from, length) = (left as usize * channels, w as usize * channels);
    let values = (top..top + h).flat_map(|y| &plane.values[y as usize * row + from..][..length]).copied().collect();
    Plane { size: [h, w], channels: plane.channels, dtype: plane.dtype, values }
}

/// Where the crop of at most 512 × 512 begins, and its size: in the middle, the odd pixel to the bottom and right.
pub(crate) fn centre(size: [u32; 2]) -> ([u32; 2], [u32; 2]) {
    let crop = size.map(|extent| extent.min(SIDE));
    ([0, 1].map(|axis| (size[axis] - crop[axis]) / 2), crop)
}

/// Where the crop around the labels' bounding box begins, and its size; without labels as [`centre`].
pub(crate) fn around_labels(labels: &Plane) -> ([u32; 2], [u32; 2]) {
    let width = labels.size[1] as usize;
    let set =
        || labels.values.iter().enumerate().filter(|&(_, &value)| value != 0.0).map(|(at, _)| [at / width, at % width]);
    let Some(first) = set().next() else { return centre(labels.size) };
    let (low, high) = set().fold((first, first), |(low, high), at| {
        ([low[0].min(at[0]), low[1].min(at[1])], [high[0].max(at[0]), high[1].max(at[1])])
    });
    let crop = labels.size.map(|extent| extent.min(SIDE));
    let start = [0, 1].map(|axis| {
        let middle = ((low[axis] + high[axis]) / 2) as i64;
        (middle - i64::from(crop[axis] / 2)).clamp(0, i64::from(labels.size[axis] - crop[axis])) as u32
    });
    (start, crop)
}

/// Zeros below and to the right up to 512 × 512; a longer axis stays.
pub(crate) fn pad(plane: &Plane) -> Plane {
    let size = plane.size.map(|extent| extent.max(SIDE));
    let channels = plane.channels as usize;
    let mut values = vec![0.0; size[0] as usize * size[1] as usize * channels];
    let (from, to) = (plane.size[1] as usize * channels, size[1] as usize * channels);
    for (target, source) in values.chunks_exact_mut(to).zip(plane.values.chunks_exact(from)) {
        target[..from].copy_from_slice(source);
    }
    Plane { size, channels: plane.channels, dtype: plane.dtype, values }
}

/// Connected components of equal values, 8 neighbours, 0 is background; numbered in the order of their first pixel, as
/// `skimage.measure.label` does.
pub(crate) fn components(plane: &Plane) -> Plane {
    let [h, w] = plane.size.map(|extent| extent as usize);
    let mut ids = vec![0.0; plane.values.len()];
    let mut next = 0.0;
    let mut stack = Vec::new();
    for start in 0..ids.len() {
        let value = plane.values[start];
        if value == 0.0 || ids[start] != 0.0 {
            continue;
        }
        next += 1.0;
        ids[start] = next;
        stack.push(start);
        while let Some(at) = stack.pop() {
            let (y, x) = (at / w, at % w);
            for near_y in y.saturating_sub(1)..=(y + 1).min(h - 1) {
                for near_x in x.saturating_sub(1)..=(x + 1).min(w - 1) {
                    let near = near_y * w + near_x;
                    if ids[near] == 0.0 && plane.values[near] == value {
                        ids[near] = next;
                        stack.push(near);
                    }
                }
            }
        }
    }
    Plane { size: plane.size, channels: 1, dtype: SampleType::U32, values: ids }
}

/// One number for each colour, 0 for black; for [`components`] afterwards.
pub(crate) fn colours(plane: &Plane) -> Result<Plane> {
    if plane.channels < 3
        || plane.values.iter().any(|&value| value.fract() != 0.0 || !(0.0..=65_535.0).contains(&value))
    {
        return Err(Error::expected(
            ErrorKind::Value,
            "labels",
            "objects in colours of red, green and blue",
            format!("{} channels of {:?}", plane.channels, plane.dtype),
        ));
    }
    let values = plane
        .values
        .chunks_exact(plane.channels as usize)
        .map(|colour| (colour[0] * 65_536.0 + colour[1]) * 65_536.0 + colour[2])
        .collect();
    Plane::new(plane.size, 1, SampleType::U64, values)
}

/// TissueNet's stretch: each channel from its range to 0–255, truncated; every step rounded to `f32`, as NumPy does.
pub(crate) fn stretch(plane: &Plane) -> Plane {
    let channels = plane.channels as usize;
    let mut values = plane.values.clone();
    for channel in 0..channels {
        let own = || plane.values.iter().skip(channel).step_by(channels).map(|&value| value as f32);
        let low = own().fold(f32::INFINITY, f32::min);
        let range = own().map(|value| value - low).fold(f32::NEG_INFINITY, f32::max) + 1e-7;
        for (to, from) in values.iter_mut().skip(channel).step_by(channels).zip(own()) {
            *to = f64::from(((from - low) / range * 255.0) as u8);
        }
    }
    Plane { size: plane.size, channels: plane.channels, dtype: SampleType::U8, values }
}

/// An error unless both have the same size.
pub(crate) fn same_size(image: &Plane, labels: &Plane) -> Result<()> {
    if image.size == labels.size {
        return Ok(());
    }
    let expected = format!("those of its image, {}", shape(image.size));
    Err(Error::expected(ErrorKind::Shape, "size of the labels", expected, shape(labels.size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(size: [u32; 2], values: &[f64]) -> Plane {
        Plane::new(size, 1, SampleType::U8, values.to_vec()).unwrap()
    }

    #[test]
    fn crops_are_central_and_leave_short_axes() {
        assert_eq!(centre([515, 97]), ([1, 0], [512, 97]));
        assert_eq!(centre([1024, 513]), ([256, 0], [512, 512]));
        let image = plane([3, 3], &[1., 2., 3., 4., 5., 6., 7., 8., 9.]);
        assert_eq!(cut(&image, [1, 0], [2, 2]).values, [4., 5., 7., 8.]);
    }

    #[test]
    fn crops_follow_the_labels_and_stay_inside() {
        let mut labels = plane([600, 700], &vec![0.0; 420_000]);
        assert_eq!(around_labels(&labels), centre([600, 700]));
        labels.values[10 * 700 + 690] = 1.0;
        assert_eq!(around_labels(&labels).0, [0, 188]);
        // The box now reaches from row 10 to 499, from column 100 to 690: its middle is (254, 395).
        labels.values[499 * 700 + 100] = 2.0;
        assert_eq!(around_labels(&labels).0, [0, 139]);
    }

    #[test]
    fn padding_goes_below_and_right() {
        let padded = pad(&plane([2, 2], &[1., 2., 3., 4.]));
        assert_eq!(padded.size, [512, 512]);
        assert_eq!((padded.values[1], padded.values[2], padded.values[512], padded.values[1024]), (2.0, 0.0, 3.0, 0.0));
        assert_eq!(pad(&plane([1, 600], &[1.0; 600])).size, [512, 600]);
    }

    #[test]
    fn components_touch_at_corners_and_differ_by_value() {
        #[rustfmt::skip]
        let found = components(&plane([3, 4], &[
            7., 0., 0., 3.,
            0., 7., 3., 0.,
            9., 0., 0., 3.,
        ]));
        #[rustfmt::skip]
        assert_eq!(found.values, [
            1., 0., 0., 2.,
            0., 1., 2., 0.,
            3., 0., 0., 2.,
        ]);
    }

    #[test]
    fn colours_become_numbers() {
        let image = Plane::new([1, 3], 3, SampleType::U8, vec![0., 0., 0., 0., 0., 9., 1., 0., 0.]).unwrap();
        let found = colours(&image).unwrap();
        assert_eq!(found.values[0], 0.0);
        assert!(found.values[1] != found.values[2] && found.values[1] != 0.0);
        assert!(colours(&plane([1, 1], &[1.0])).is_err());
    }

    #[test]
    fn stretching_truncates_each_channel() {
        let image = Plane::new([1, 3], 2, SampleType::F32, vec![1., 5., 2., 5., 3., 5.]).unwrap();
        assert_eq!(stretch(&image).values, [0., 0., 127., 0., 255., 0.]);
        assert_eq!(same_size(&image, &plane([3, 1], &[0.; 3])).unwrap_err().kind(), ErrorKind::Shape);
    }
}
