//! PanNuke: `images.npy` `[N, 256, 256, 3]` and `masks.npy` `[N, 256, 256, 6]`, five classes of nuclei and background.

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::formats::Planes;
use crate::formats::npy::Npy;
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result, ops};

pub(super) fn read(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let one = |name: &str| job.files.need(&[name], false).map(|mut found| found.remove(0).entry);
    let (images, masks) = (one("images.npy")?, one("masks.npy")?);
    let fetched = job.files.fetch(images)?;
    job.files.with(masks, |path| {
        let at_images = |error: Error| images.blame(error);
        let (mut all, mut labels) = (Npy::open(&fetched.path).map_err(at_images)?, Npy::open(path)?);
        if all.len() != labels.len() {
            return Err(Error::expected(
                ErrorKind::Shape,
                "items",
                format!("{}, as in images.npy", all.len()),
                labels.len(),
            ));
        }
        for index in 0..all.len() {
            let (wanted, more) = job.rule.slices.streams(index);
            if wanted {
                let image = all.plane(index).map_err(at_images)?;
                let labels = instances(&labels.plane(index)?)?;
                ops::same_size(&image, &labels)?;
                let name = format!("{} item {index}", images.path);
                if !sink(Item::Pair { image, labels, name })? {
                    break;
                }
            }
            if !more {
                break;
            }
        }
        Ok(())
    })
}

/// One label image of all classes: each class numbered after the last, later classes over earlier ones; the last channel is
/// background.
fn instances(masks: &Plane) -> Result<Plane> {
    if masks.channels < 2 {
        return Err(Error::expected(ErrorKind::Shape, "masks", "several channels", masks.channels));
    }
    let mut out = vec![0.0; masks.size[0] as usize * masks.size[1] as usize];
    let mut last = 0.0;
    for class in 0..masks.channels as usize - 1 {
        let ids = masks.channel(class).values;
        let mut known: Vec<f64> = ids.iter().copied().filter(|&id| id > 0.0).collect();
        known.sort_unstable_by(f64::total_cmp);
        known.dedup();
        for (out, id) in out.iter_mut().zip(&ids) {
            if let Ok(place) = known.binary_search_by(|other| other.total_cmp(id)) {
                *out = last + 1.0 + place as f64;
            }
        }
        last += known.len() as f64;
    }
    Plane::new(masks.size, 1, SampleType::U32, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_numbered_one_after_the_other() {
        // Pixels with (class 1, class 2, background).
        let masks =
            Plane::new([1, 4], 3, SampleType::F64, vec![9., 0., 0., 4., 0., 0., 4., 7., 0., 0., 0., 1.]).unwrap();
        assert_eq!(instances(&masks).unwrap().values, [2.0, 1.0, 3.0, 0.0]);
    }
}
