//! Overlays: the image with the outline of every object.

use cytomask::export::color;
use cytomask::{Labels, Rgb};

/// Overlays are enlarged by a whole factor until their longer side reaches this, so that outlines do not hide small objects.
const LEGIBLE_SIDE: u32 = 1400;

/// Draws the outlines of `labels` over `image`; returns the size `[h, w]` and row-major RGB bytes.
///
/// Neighbouring ids get unlike hues; an outline lies on the object's own pixels, so that touching objects show two lines.
pub(crate) fn overlay(image: &Rgb, labels: &Labels) -> ([u32; 2], Vec<u8>) {
    let [h, w] = labels.size();
    let factor = (LEGIBLE_SIDE / h.max(w).max(1)).clamp(1, 4);
    let (height, width) = (h * factor, w * factor);
    let ids = labels.as_slice();
    let id_at = |y: i64, x: i64| -> Option<u32> {
        let inside = y >= 0 && x >= 0 && y < i64::from(height) && x < i64::from(width);
        inside.then(|| ids[(y as usize / factor as usize) * w as usize + x as usize / factor as usize])
    };
    let mut bytes = Vec::with_capacity(height as usize * width as usize * 3);
    for y in 0..i64::from(height) {
        for x in 0..i64::from(width) {
            let source = (y as usize / factor as usize * w as usize + x as usize / factor as usize) * 3;
            let id = ids[source / 3];
            let edge = id != 0
                && [(-1, 0), (1, 0), (0, -1), (0, 1)]
                    .into_iter()
                    .any(|(dy, dx)| id_at(y + dy, x + dx).is_some_and(|other| other != id));
            if edge {
                bytes.extend(color::of_id(id));
            } else {
                bytes.extend(image.samples[source..source + 3].iter().map(|&sample| sample.round() as u8));
            }
        }
    }
    ([height, width], bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_lie_on_the_object_and_nowhere_else() {
        let mut labels = Labels::zeros([97, 131]);
        for y in 10..20 {
            for x in 30..50 {
                labels.as_mut_slice()[y * 131 + x] = 1;
            }
        }
        let image = Rgb { size: [97, 131], samples: vec![7.0; 97 * 131 * 3] };
        let (size, bytes) = overlay(&image, &labels);
        assert_eq!(size, [97 * 4, 131 * 4]);
        let changed = bytes.chunks(3).filter(|pixel| *pixel != [7, 7, 7]).count();
        assert_eq!(changed, 2 * (40 + 80) - 4);
        let pixel = |y: usize, x: usize| &bytes[(y * 131 * 4 + x) * 3..][..3];
        assert_eq!(pixel(39, 120), [7, 7, 7]);
        assert_eq!(pixel(40, 120), color::of_id(1));
    }
}
