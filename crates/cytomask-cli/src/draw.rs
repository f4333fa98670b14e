//! Overlays: the image with the outline of every object.

use std::path::Path;

use anyhow::Result;
use cytomask::export::color;
use cytomask::{ImageError, ImageErrorKind, Labels, Pixels, Rect, Rgb, output};

/// Overlays are enlarged by a whole factor until their longer side reaches this, so that outlines do not hide small objects.
const LEGIBLE_SIDE: u32 = 1400;
/// Larger images are drawn reduced by a whole factor: few programs show more.
const LARGEST_SIDE: u32 = 8192;
/// Rows of the image that are read at a time.
const BAND_ROWS: u32 = 128;

/// The overlay's size and how its pixels lie in the image.
struct Grid {
    /// Overlay pixels a pixel of the image has along each axis, or 1.
    enlarged: u32,
    /// Pixels of the image an overlay pixel stands for along each axis, or 1.
    reduced: u32,
    /// `[h, w]` of the overlay.
    size: [u32; 2],
}

impl Grid {
    fn new([h, w]: [u32; 2]) -> Self {
        let longest = h.max(w).max(1);
        let (enlarged, reduced) = ((LEGIBLE_SIDE / longest).clamp(1, 4), longest.div_ceil(LARGEST_SIDE));
        Self { enlarged, reduced, size: [h, w].map(|side| (side * enlarged).div_ceil(reduced)) }
    }

    /// The row (or column) of the image behind one of the overlay.
    fn source(&self, at: u32) -> u32 {
        at / self.enlarged * self.reduced
    }
}

/// Draws the outlines of `labels` over `image` into a PNG, band by band.
///
/// Neighbouring ids get unlike hues; an outline lies on the object's own pixels, so that touching objects show two lines.
pub(crate) fn write_overlay(path: &Path, image: &dyn Pixels, labels: &Labels) -> Result<()> {
    let size = image.size();
    let grid = Grid::new(size);
    let [height, width] = grid.size;
    // An error of reading, which writing has no place for.
    let mut unread = None;
    let written = output::write_atomically(path, |writer| {
        let failed = |error| ImageError::new(ImageErrorKind::Io, "cannot write PNG").with_source(error);
        let mut encoder = png::Encoder::new(writer, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // A thirteenth of the default's time for a file 1.6 times as large: docs/decisions/0043-overlap.md.
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(failed)?;
        let mut stream = writer.stream_writer().map_err(failed)?;
        let mut band: Option<(Rect, std::borrow::Cow<'_, Rgb>)> = None;
        for y in 0..height {
            let row = grid.source(y);
            if band.as_ref().is_none_or(|(rect, _)| row >= rect.y1) {
                let rect = Rect { y0: row, x0: 0, y1: (row + BAND_ROWS).min(size[0]), x1: size[1] };
                match image.read(rect) {
                    Ok(pixels) => band = Some((rect, pixels)),
                    Err(error) => {
                        unread = Some(error);
                        return Err(ImageError::new(ImageErrorKind::Io, "cannot read the image again"));
                    }
                }
            }
            if let Some((rect, pixels)) = &band {
                let line = overlay_row(&grid, y, &pixels.samples, row - rect.y0, labels);
                std::io::Write::write_all(&mut stream, &line)
                    .map_err(|error| ImageError::new(ImageErrorKind::Io, "cannot write PNG").with_source(error))?;
            }
        }
        stream.finish().map_err(failed)?;
        writer.finish().map_err(failed)
    });
    match unread {
        Some(error) => Err(error.into()),
        None => Ok(written?),
    }
}

/// RGB bytes of row `y` of the overlay; `row` is the image's row within `samples`.
fn overlay_row(grid: &Grid, y: u32, samples: &[f32], row: u32, labels: &Labels) -> Vec<u8> {
    let [height, width] = grid.size;
    let image_width = labels.size()[1] as usize;
    let id_at = |y: u32, x: u32| labels.at(grid.source(y), grid.source(x));
    let mut bytes = Vec::with_capacity(width as usize * 3);
    for x in 0..width {
        let id = id_at(y, x);
        let edge = id != 0
            && ((y > 0 && id_at(y - 1, x) != id)
                || (y + 1 < height && id_at(y + 1, x) != id)
                || (x > 0 && id_at(y, x - 1) != id)
                || (x + 1 < width && id_at(y, x + 1) != id));
        if edge {
            bytes.extend(color::of_id(id));
        } else {
            let source = (row as usize * image_width + grid.source(x) as usize) * 3;
            bytes.extend(samples[source..source + 3].iter().map(|&sample| sample.round() as u8));
        }
    }
    bytes
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.png");
        write_overlay(&path, &image, &labels).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        let size = [reader.info().height, reader.info().width];
        assert_eq!(size, [97 * 4, 131 * 4]);
        let changed = bytes.chunks(3).filter(|pixel| *pixel != [7, 7, 7]).count();
        assert_eq!(changed, 2 * (40 + 80) - 4);
        let pixel = |y: usize, x: usize| &bytes[(y * 131 * 4 + x) * 3..][..3];
        assert_eq!(pixel(39, 120), [7, 7, 7]);
        assert_eq!(pixel(40, 120), color::of_id(1));
    }

    #[test]
    fn large_images_are_drawn_reduced() {
        let grid = Grid::new([16_385, 300]);
        assert_eq!((grid.enlarged, grid.reduced, grid.size), (1, 3, [5462, 100]));
        assert!(grid.source(5461) < 16_385 && grid.source(99) < 300);
        assert_eq!(Grid::new([97, 131]).size, [388, 524]);
    }
}
