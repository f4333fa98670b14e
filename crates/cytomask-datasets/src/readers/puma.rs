//! PUMA: 1024² TIFF regions and GeoJSON nuclei; the split is drawn until each part shows every class.

use std::collections::{BTreeMap, BTreeSet};

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::archive::Files;
use crate::formats::geojson::{self, Feature, Rings};
use crate::plane::Plane;
use crate::split::{SEED, train_test_split};
use crate::table::SplitName;
use crate::{Error, ErrorKind, Result, ops, pattern, raster};

/// Number of classes of nuclei and of tissue.
const CLASSES: [(&str, usize); 2] = [("nuclei", 10), ("tissue", 6)];
/// Seeds tried before the last one is taken as it is.
const ATTEMPTS: u32 = 200;
/// Side of the regions; the annotations are drawn at this size whatever the image's is.
const SIDE: u32 = 1024;
const MAX_JSON_BYTES: u64 = 256 << 20;

pub(super) fn read(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let folder = "01_training_dataset_tif_ROIs";
    let images = job.files.need(&[format!("{folder}/*.tif"), format!("{folder}/*.tiff")], false)?;
    let names: Vec<&str> =
        images.iter().map(|found| pattern::file_name(&found.text).split('.').next().unwrap_or_default()).collect();
    let chosen = split(job.files, &names, job.split)?;
    let nuclei = job.files.need(&[annotations("nuclei")], false)?;
    for (image, name) in images.iter().zip(&names).filter(|(_, name)| chosen.contains(**name)) {
        let own = nuclei.iter().find(|found| found.key == **name).ok_or_else(|| {
            let expected = format!("{name}_nuclei.geojson");
            image.entry.blame(Error::expected(ErrorKind::NotFound, "labels of this image", expected, "none"))
        })?;
        let pixels = job.files.with(image.entry, |path| Plane::read_image(path, 0))?;
        let text = job.files.text(own.entry, MAX_JSON_BYTES)?;
        let labels = geojson::read(&text).map(|features| labels(&features)).map_err(|error| own.entry.blame(error))?;
        ops::same_size(&pixels, &labels).map_err(|error| image.entry.blame(error))?;
        if !sink(Item::Pair { image: pixels, labels, name: image.entry.path.clone() })? {
            break;
        }
    }
    Ok(())
}

fn annotations(level: &str) -> String {
    format!("01_training_dataset_geojson_{level}/*_{level}.geojson")
}

/// Names of the images in a split.
fn split(files: &Files, names: &[&str], split: SplitName) -> Result<BTreeSet<String>> {
    let of = |word: &str| -> Vec<&str> { names.iter().copied().filter(|name| name.contains(word)).collect() };
    let groups = [of("metastatic"), of("primary")];
    let mut shown: Vec<(BTreeMap<String, BTreeSet<String>>, usize)> = Vec::new();
    for (level, count) in CLASSES {
        let mut of_image = BTreeMap::new();
        for found in files.need(&[annotations(level)], false)? {
            let features =
                geojson::read(&files.text(found.entry, MAX_JSON_BYTES)?).map_err(|error| found.entry.blame(error))?;
            of_image.insert(found.key.clone(), features.into_iter().filter_map(|feature| feature.class).collect());
        }
        shown.push((of_image, count));
    }
    let mut parts: [BTreeSet<String>; 3] = Default::default();
    for attempt in 0..ATTEMPTS {
        parts = Default::default();
        for group in &groups {
            let (rest, test) = train_test_split(group.len(), 0.2, SEED + attempt);
            let (train, val) = train_test_split(rest.len(), 0.15, SEED + attempt);
            parts[0].extend(train.into_iter().map(|at| group[rest[at]].to_owned()));
            parts[1].extend(val.into_iter().map(|at| group[rest[at]].to_owned()));
            parts[2].extend(test.into_iter().map(|at| group[at].to_owned()));
        }
        let covers = |part: &BTreeSet<String>, of_image: &BTreeMap<String, BTreeSet<String>>, count: usize| {
            part.iter().filter_map(|name| of_image.get(name)).flatten().collect::<BTreeSet<_>>().len() >= count
        };
        if parts.iter().all(|part| shown.iter().all(|(of_image, count)| covers(part, of_image, *count))) {
            break;
        }
    }
    let [_, val, test] = parts;
    Ok(match split {
        SplitName::Val => val,
        SplitName::Test => test,
    })
}

/// torch-em's rasterising: the bounding box of all polygons is stretched over 1024 × 1024 pixels (docs/decisions/0016), later
/// polygons lie over earlier ones.
fn labels(features: &[Feature]) -> Plane {
    let mut values = vec![0.0; SIDE as usize * SIDE as usize];
    let corners = || features.iter().flat_map(|feature| feature.rings.iter().flatten());
    let low = corners().fold((f64::INFINITY, f64::INFINITY), |(x, y), corner| (x.min(corner.0), y.min(corner.1)));
    let high =
        corners().fold((f64::NEG_INFINITY, f64::NEG_INFINITY), |(x, y), corner| (x.max(corner.0), y.max(corner.1)));
    let scale = (f64::from(SIDE) / (high.0 - low.0), f64::from(SIDE) / (high.1 - low.1));
    if scale.0.is_finite() && scale.1.is_finite() {
        for (number, feature) in features.iter().enumerate() {
            // Drawn with y upwards and turned over afterwards, as upstream does: it decides ties.
            let rings: Rings = feature
                .rings
                .iter()
                .map(|ring| ring.iter().map(|&(x, y)| ((x - low.0) * scale.0, (high.1 - y) * scale.1)).collect())
                .collect();
            raster::gdal(&rings, [SIDE; 2], |y, x| values[((SIDE - 1 - y) * SIDE + x) as usize] = number as f64 + 1.0);
        }
    }
    Plane { size: [SIDE; 2], channels: 1, dtype: SampleType::I32, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_stretched_over_the_region() {
        let square = |x: f64, y: f64, side: f64| Feature {
            rings: vec![vec![(x, y), (x + side, y), (x + side, y + side), (x, y + side)]],
            class: None,
        };
        // The box is (10, 10)–(20, 20), so a pixel is 10/1024.
        let found = labels(&[square(10.0, 10.0, 5.0), square(17.5, 17.5, 2.5)]);
        let at = |y: usize, x: usize| found.values[y * 1024 + x];
        assert_eq!([at(0, 0), at(511, 511), at(512, 511), at(511, 512)], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!([at(768, 768), at(1023, 1023), at(767, 768)], [2.0, 2.0, 0.0]);
        assert_eq!(labels(&[]).distinct(), 1);
    }
}
