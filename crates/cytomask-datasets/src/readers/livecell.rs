//! LIVECell: images and one COCO JSON for each split.

use std::collections::BTreeMap;

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::formats::coco::{self, CocoImage, Segmentation};
use crate::plane::Plane;
use crate::table::SplitName;
use crate::{Error, ErrorKind, Result, ops, raster};

/// Validation images of each cell line.
const VAL_PER_LINE: usize = 5;
/// Smaller objects are leftovers of doubly annotated ones.
const MIN_PIXELS: usize = 50;

pub(super) fn read(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let folder = match job.split {
        SplitName::Val => "livecell_train_val_images",
        SplitName::Test => "livecell_test_images",
    };
    let annotations = job.files.need(&[job.fill("livecell_coco_{}.json"), job.fill("{}.json")], false)?.remove(0);
    let mut images = job.files.with(annotations.entry, coco::read)?;
    let files = job.files.need(&[format!("{folder}/*/*.tif"), format!("{folder}/*.tif")], false)?;
    if job.split == SplitName::Val {
        let mut of_line: BTreeMap<String, usize> = BTreeMap::new();
        images.retain(|image| {
            let line = image.file_name.split('_').next().unwrap_or_default().to_owned();
            let count = of_line.entry(line).or_default();
            *count += 1;
            *count <= VAL_PER_LINE
        });
    }
    images.sort_by(|a, b| a.file_name.cmp(&b.file_name));
    for image in images {
        let name = image.file_name.clone();
        if image.objects.is_empty() {
            sink(Item::LeftOut { name, reason: "no annotations".to_owned() })?;
            continue;
        }
        let found = files.iter().find(|found| found.text.rsplit('/').next() == Some(&name)).ok_or_else(|| {
            let expected = format!("a file in {folder}");
            annotations.entry.blame(Error::expected(ErrorKind::NotFound, &format!("image {name}"), expected, "none"))
        })?;
        let pixels = job.files.with(found.entry, |path| Plane::read_image(path, 0))?;
        if pixels.size != image.size {
            let error = Error::expected(
                ErrorKind::Shape,
                "size",
                format!("{:?}, as annotated", image.size),
                format!("{:?}", pixels.size),
            );
            return Err(found.entry.blame(error));
        }
        let labels = labels(image).map_err(|error| annotations.entry.blame(error))?;
        ops::same_size(&pixels, &labels)?;
        if !sink(Item::Pair { image: pixels, labels, name })? {
            break;
        }
    }
    Ok(())
}

/// torch-em's rule: small objects first, larger ones over them; then objects of fewer than 50 visible pixels go.
fn labels(mut image: CocoImage) -> Result<Plane> {
    let size = image.size;
    crate::formats::checked_size(size[0] as usize, size[1] as usize, 1)?;
    let pixels = size[0] as usize * size[1] as usize;
    image.objects.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
    let mut ids = vec![0_usize; pixels];
    let mut mask = vec![false; pixels];
    for (number, object) in image.objects.iter().enumerate() {
        mask.fill(false);
        match &object.segmentation {
            Segmentation::Polygons(parts) => {
                let mut part_mask = vec![false; pixels];
                for part in parts {
                    part_mask.fill(false);
                    raster::coco(part, size, &mut part_mask);
                    mask.iter_mut().zip(&part_mask).for_each(|(all, &part)| *all |= part);
                }
            }
            Segmentation::Runs { counts, size: own } if *own == size => {
                raster::runs(&counts.numbers()?, size, &mut mask)
            }
            Segmentation::Runs { size: own, .. } => {
                let expected = format!("{size:?}, as the image");
                return Err(Error::expected(ErrorKind::Shape, "size of a mask", expected, format!("{own:?}")));
            }
        }
        ids.iter_mut().zip(&mask).filter(|(_, set)| **set).for_each(|(id, _)| *id = number + 1);
    }
    let mut counts = vec![0_usize; image.objects.len() + 1];
    ids.iter().for_each(|&id| counts[id] += 1);
    let mut next = 0;
    let new: Vec<usize> = counts
        .iter()
        .enumerate()
        .map(|(id, &count)| {
            let kept = id > 0 && count >= MIN_PIXELS;
            next += usize::from(kept);
            if kept { next } else { 0 }
        })
        .collect();
    Plane::new(size, 1, SampleType::U16, ids.into_iter().map(|id| new[id] as f64).collect())
}
