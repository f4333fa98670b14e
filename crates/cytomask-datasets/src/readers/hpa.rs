//! HPA: a folder an image with `protein.png` and `annotation.json` (GeoJSON, its y axis upwards).

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::formats::geojson::{self, Feature};
use crate::plane::{Plane, shape};
use crate::{Error, ErrorKind, Result, raster};

/// Larger annotation files are none of this set's.
const MAX_JSON_BYTES: u64 = 256 << 20;

pub(super) fn read(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let images = job.files.need(&[job.fill("{}/*/protein.png")], false)?;
    let annotations = job.files.find(&[job.fill("{}/*/annotation.json")], false)?;
    for found in images {
        let entry = found.entry;
        let own = annotations.iter().find(|annotation| annotation.key == found.key).ok_or_else(|| {
            entry.blame(Error::expected(
                ErrorKind::NotFound,
                "labels of this image",
                "annotation.json beside it",
                "none",
            ))
        })?;
        let image = job.files.with(entry, |path| Plane::read_image(path, 0))?;
        if image.channels != 1 || image.size[0] != image.size[1] {
            let found = format!("{} of {} channels", shape(image.size), image.channels);
            return Err(entry.blame(Error::expected(ErrorKind::Shape, "image", "a square of one channel", found)));
        }
        let text = job.files.text(own.entry, MAX_JSON_BYTES)?;
        let labels = geojson::read(&text)
            .and_then(|features| labels(&features, image.size))
            .map_err(|error| own.entry.blame(error))?;
        if !sink(Item::Pair { image, labels, name: entry.path.clone() })? {
            break;
        }
    }
    Ok(())
}

/// torch-em's rasterising: `skimage.draw.polygon` of the outer line; rows and columns beyond the image fall on its last ones;
/// a polygon with the same pixels as an earlier one is left out; later ones lie over earlier ones.
fn labels(features: &[Feature], size: [u32; 2]) -> Result<Plane> {
    let [h, w] = size;
    let mut values = vec![0.0; h as usize * w as usize];
    let mut drawn: Vec<Vec<(u32, u32)>> = Vec::new();
    for feature in features {
        let Some(ring) = feature.rings.first().filter(|ring| !ring.is_empty()) else { continue };
        let corners: Vec<(f64, f64)> = ring.iter().map(|&(x, y)| (x, f64::from(h) - y)).collect();
        let mut pixels = Vec::new();
        // Annotators leave the image by a little; what is farther out is not walked over.
        raster::scikit_image(&corners, [2 * h, 2 * w], |y, x| pixels.push((y.min(h - 1), x.min(w - 1))));
        if drawn.contains(&pixels) {
            continue;
        }
        for &(y, x) in &pixels {
            values[y as usize * w as usize + x as usize] = drawn.len() as f64 + 1.0;
        }
        drawn.push(pixels);
    }
    Plane::new(size, 1, SampleType::U16, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polygons_stand_on_their_head_and_doubles_are_left_out() {
        let square = |x: f64, y: f64| Feature {
            rings: vec![vec![(x, y), (x + 1.0, y), (x + 1.0, y + 1.0), (x, y + 1.0)]],
            class: None,
        };
        let found = labels(&[square(0.0, 3.0), square(0.0, 3.0), square(2.0, -1.0)], [4, 4]).unwrap();
        #[rustfmt::skip]
        assert_eq!(found.values, [
            1., 1., 0., 0.,
            1., 1., 0., 0.,
            0., 0., 0., 0.,
            0., 0., 2., 2.,
        ]);
    }
}
