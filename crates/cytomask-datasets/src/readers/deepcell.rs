//! DeepCell's NPZ files, and the Zarr images that torch-em makes of them.

use super::{Item, Job, Sink};
use crate::formats::npy::Npy;
use crate::formats::{Planes, zarr};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result, ops, pattern};

/// `X` `[N, H, W, C]` and `y` `[N, H, W, C]`; what else is in the file (pickled tables) is not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Npz {
    pub(crate) file: &'static str,
    /// Channels of `X` in the order of the image; after two a third one of zeros is put.
    pub(crate) channels: &'static [usize],
    /// Channel of `y`.
    pub(crate) label: usize,
    /// Stretch each channel to 0–255.
    pub(crate) stretch: bool,
    /// Where torch-em's images lie.
    pub(crate) zarr_folder: &'static str,
    pub(crate) zarr_image: &'static str,
    pub(crate) zarr_labels: &'static str,
}

impl Npz {
    fn finish(&self, image: Plane) -> Plane {
        if self.stretch { ops::stretch(&image) } else { image }
    }
}

pub(super) fn read(spec: &Npz, job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let file = job.fill(spec.file);
    // The file itself may have been taken out of its folder.
    let patterns = [file.clone(), pattern::file_name(&file).to_owned()];
    let Some(npz) = job.files.find(&patterns, false)?.pop() else {
        return read_zarr(spec, job, sink);
    };
    let inside = job.files.open_inside(npz.entry)?;
    let member = |name: &str| -> Result<_> { inside.fetch(inside.need(&[name], true)?.remove(0).entry) };
    let (images, labels) = (member("X.npy")?, member("y.npy")?);
    let blame =
        |name: &'static str| move |error: Error| npz.entry.blame(Error::new(error.kind(), format!("{name}: {error}")));
    let (mut images, mut labels) =
        (Npy::open(&images.path).map_err(blame("X.npy"))?, Npy::open(&labels.path).map_err(blame("y.npy"))?);
    if images.len() != labels.len() {
        let error =
            Error::expected(ErrorKind::Shape, "items of y.npy", format!("{}, as in X.npy", images.len()), labels.len());
        return Err(npz.entry.blame(error));
    }
    for index in 0..images.len() {
        let image = images.plane(index).map_err(blame("X.npy"))?;
        let ids = labels.plane(index).map_err(blame("y.npy"))?;
        let channel = |plane: &Plane, channel: usize, name: &str| {
            if channel < plane.channels as usize {
                return Ok(plane.channel(channel));
            }
            let expected = format!("more than {channel} channels");
            Err(npz.entry.blame(Error::expected(ErrorKind::Shape, name, expected, plane.channels)))
        };
        let mut planes =
            spec.channels.iter().map(|&at| channel(&image, at, "X.npy")).collect::<Result<Vec<Plane>>>()?;
        if let [first, _] = planes.as_slice() {
            planes.push(Plane { values: vec![0.0; first.values.len()], ..first.clone() });
        }
        let (image, labels) = (spec.finish(Plane::stack(&planes)?), channel(&ids, spec.label, "y.npy")?);
        ops::same_size(&image, &labels).map_err(|error| npz.entry.blame(error))?;
        if !sink(Item::Pair { image, labels, name: format!("{} item {index}", npz.entry.path) })? {
            break;
        }
    }
    Ok(())
}

fn read_zarr(spec: &Npz, job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let folder = job.fill(spec.zarr_folder);
    let wanted = [format!("{folder}/*.zarr/{}/.zarray", spec.zarr_image)];
    let found = job.files.find(&wanted, false)?;
    if found.is_empty() {
        // Says what is missing: the published file.
        job.files.need(&[job.fill(spec.file), wanted[0].clone()], false)?;
    }
    for image in found {
        let path = image.text.trim_end_matches(&format!("/{}/.zarray", spec.zarr_image));
        let labels = zarr::read(job.files, &format!("{path}/{}", spec.zarr_labels))?;
        let image = zarr::read(job.files, &format!("{path}/{}", spec.zarr_image))?;
        ops::same_size(&image, &labels).map_err(|error| error.in_archive(job.files.roots()).at_member(path))?;
        if !sink(Item::Pair { image: spec.finish(image), labels, name: path.to_owned() })? {
            break;
        }
    }
    Ok(())
}
