//! Pictures of a prediction over its image, small enough to stand in a page.

use base64::Engine as _;
use cytomask_image::{Labels, Rgb};

use crate::{Error, ErrorKind, Result};

/// Longest side of a picture.
const LONGEST_SIDE: u32 = 560;

/// Outline of the truth alone: blue. With the next two, told apart by people who see no red or green.
pub const TRUTH: [u8; 3] = [40, 150, 255];
/// Outline of the prediction alone: orange.
pub const PREDICTION: [u8; 3] = [255, 130, 0];
/// Where both outlines agree: yellow.
pub const BOTH: [u8; 3] = [250, 235, 60];

/// An image with the outlines of truth and prediction, as a PNG file's bytes. Large images are shrunk and small ones enlarged by a
/// whole factor. Outlines lie on the objects' own pixels.
///
/// # Errors
/// `Shape` when the three differ in size or have no pixels.
pub fn outlines_png(image: &Rgb, truth: &Labels, predicted: &Labels) -> Result<Vec<u8>> {
    let [h, w] = image.size;
    if truth.size() != image.size || predicted.size() != image.size || h == 0 || w == 0 {
        let (truth, predicted) = (truth.size(), predicted.size());
        let message = format!(
            "picture: expected image, truth and prediction of one size, found {:?}, {truth:?} and {predicted:?}",
            image.size
        );
        return Err(Error::new(ErrorKind::Shape, message));
    }
    let shrink = h.max(w).div_ceil(LONGEST_SIDE);
    let enlarge = if shrink > 1 { 1 } else { (LONGEST_SIDE / h.max(w)).clamp(1, 3) };
    let [height, width] = [h, w].map(|side| side.div_ceil(shrink) * enlarge);
    // The source pixel of a picture's pixel; the middle one of those it stands for.
    let source = |at: u32, side: u32| (at / enlarge * shrink + shrink / 2).min(side - 1);
    let id = |labels: &Labels, y: u32, x: u32| labels.at(source(y, h), source(x, w));
    let edge = |labels: &Labels, y: u32, x: u32| {
        let own = id(labels, y, x);
        let neighbours = [(y.wrapping_sub(1), x), (y + 1, x), (y, x.wrapping_sub(1)), (y, x + 1)];
        own != 0 && neighbours.iter().any(|&(y, x)| y < height && x < width && id(labels, y, x) != own)
    };
    let mut pixels = Vec::with_capacity(height as usize * width as usize * 3);
    for y in 0..height {
        for x in 0..width {
            match (edge(truth, y, x), edge(predicted, y, x)) {
                (true, true) => pixels.extend(BOTH),
                (true, false) => pixels.extend(TRUTH),
                (false, true) => pixels.extend(PREDICTION),
                (false, false) => pixels.extend(mean_pixel(image, y / enlarge * shrink, x / enlarge * shrink, shrink)),
            }
        }
    }
    encode([height, width], &pixels)
}

/// Mean of a square of pixels.
fn mean_pixel(image: &Rgb, y0: u32, x0: u32, side: u32) -> [u8; 3] {
    let [h, w] = image.size;
    let (mut sum, mut count) = ([0.0_f32; 3], 0.0_f32);
    for y in y0..(y0 + side).min(h) {
        for x in x0..(x0 + side).min(w) {
            let at = (y as usize * w as usize + x as usize) * 3;
            sum.iter_mut().zip(&image.samples[at..at + 3]).for_each(|(sum, sample)| *sum += sample);
            count += 1.0;
        }
    }
    sum.map(|sum| (sum / count.max(1.0)).round() as u8)
}

/// Grey pictures, of which most are, take a palette: a third of the bytes.
fn encode(size: [u32; 2], pixels: &[u8]) -> Result<Vec<u8>> {
    let failed =
        |error: png::EncodingError| Error::new(ErrorKind::Drawing, format!("picture: cannot write PNG: {error}"));
    let outlines = [TRUTH, PREDICTION, BOTH];
    // Greys 0, 1, 2 share one entry each with their neighbour 3.
    let index = |pixel: &[u8]| -> Option<u8> {
        match outlines.iter().position(|outline| outline == pixel) {
            Some(at) => Some(at as u8),
            None if pixel[0] == pixel[1] && pixel[1] == pixel[2] => Some(pixel[0].max(3)),
            None => None,
        }
    };
    let indices: Option<Vec<u8>> = pixels.chunks_exact(3).map(index).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size[1], size[0]);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let data = match &indices {
        Some(indices) => {
            let palette = outlines.into_iter().chain((3..=255).map(|grey| [grey; 3])).flatten().collect::<Vec<u8>>();
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette);
            indices.as_slice()
        }
        None => {
            encoder.set_color(png::ColorType::Rgb);
            pixels
        }
    };
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// PNG bytes as an address a page can hold.
pub fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(from: u32, to: u32) -> Labels {
        let mut labels = Labels::zeros([97, 131]);
        for y in from..to {
            for x in from..to {
                labels.as_mut_slice()[(y * 131 + x) as usize] = 9;
            }
        }
        labels
    }

    fn decode(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.height, info.width, pixels)
    }

    #[test]
    fn outlines_have_their_colours_and_the_image_shows_through() {
        let grey = Rgb { size: [97, 131], samples: vec![77.0; 97 * 131 * 3] };
        let (height, width, pixels) = decode(&outlines_png(&grey, &square(10, 20), &square(10, 30)).unwrap());
        assert_eq!((height, width), (97 * 3, 131 * 3));
        let at = |y: usize, x: usize| &pixels[(y * width as usize + x) * 3..][..3];
        assert_eq!(at(0, 0), [77; 3]);
        assert_eq!(at(30, 40), BOTH);
        assert_eq!(at(59, 40), TRUTH);
        assert_eq!(at(89, 40), PREDICTION);
        assert_eq!(at(45, 45), [77; 3]);
    }

    #[test]
    fn coloured_and_large_images_shrink() {
        let size = [1200, 700];
        let samples = (0..1200 * 700).flat_map(|_| [200.0, 100.0, 50.0]).collect();
        let none = Labels::zeros(size);
        let (height, width, pixels) = decode(&outlines_png(&Rgb { size, samples }, &none, &none).unwrap());
        assert_eq!((height, width), (400, 234));
        assert_eq!(pixels[..3], [200, 100, 50]);
        let small = Labels::zeros([3, 3]);
        let image = Rgb { size, samples: vec![0.0; 1200 * 700 * 3] };
        assert_eq!(outlines_png(&image, &none, &small).unwrap_err().kind(), ErrorKind::Shape);
    }
}
