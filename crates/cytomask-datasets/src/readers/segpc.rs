//! SegPC: `x/NAME.bmp` and a mask for each cell, `y/NAME_*.bmp`; cytoplasm and nucleus together are the cell.

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::plane::Plane;
use crate::{Result, ops, pattern};

pub(super) fn read(job: &mut Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let (images, masks) = (job.fill("{}/x/*.bmp"), job.fill("{}/y/*.bmp"));
    if job.files.find(&[&images], false)?.is_empty() {
        let nested = job.fill("{}.zip");
        job.files.open_nested(&[nested])?;
    }
    let images = job.files.need(&[images], false)?;
    let masks = job.files.need(&[masks], false)?;
    for found in images {
        let image = job.files.with(found.entry, |path| Plane::read_image(path, 0))?;
        let mut labels = Plane {
            size: image.size,
            channels: 1,
            dtype: SampleType::U32,
            values: vec![0.0; image.size[0] as usize * image.size[1] as usize],
        };
        let beginning = format!("{}_", pattern::stem(&found.text));
        let own = masks.iter().filter(|mask| pattern::file_name(&mask.text).starts_with(&beginning));
        for (number, mask) in own.enumerate() {
            let cell = job.files.with(mask.entry, |path| Plane::read_image(path, 0))?;
            ops::same_size(&image, &cell).map_err(|error| mask.entry.blame(error))?;
            for (label, value) in labels.values.iter_mut().zip(cell.channel(0).values) {
                if value > 0.0 {
                    *label = number as f64 + 1.0;
                }
            }
        }
        if !sink(Item::Pair { image, labels, name: found.entry.path.clone() })? {
            break;
        }
    }
    Ok(())
}
