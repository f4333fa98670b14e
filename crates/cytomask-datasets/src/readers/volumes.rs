//! 3-D datasets, cut into slices along their first axis, and HDF5 images.

use super::{Item, Job, Sink};
use crate::formats::Planes;
use crate::formats::hdf5::Hdf5 as File;
use crate::formats::stack::Stack;
use crate::plane::Plane;
use crate::table::Take;
use crate::{Error, ErrorKind, Result, ops, pattern};

/// HDF5 files, one an image or a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hdf5 {
    pub(crate) file: &'static str,
    /// Datasets that become channels; after two a third one of zeros is put.
    pub(crate) images: &'static [&'static str],
    pub(crate) labels: &'static str,
    pub(crate) volume: bool,
    /// Slices at the end of a file that are not used.
    pub(crate) drop_last: &'static [(&'static str, usize)],
}

/// 3-D TIFF files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stacks {
    pub(crate) images: &'static [&'static str],
    pub(crate) labels: &'static [&'static str],
    /// The labels are upside down, and both are cut to what they share (GoNuclear).
    pub(crate) flip_labels: bool,
    /// Slices at the end of a file (name without extension) that are not used.
    pub(crate) drop_last: &'static [(&'static str, usize)],
}

/// Counts slices over all volumes of a split.
struct Slices {
    take: Take,
    next: usize,
}

/// One volume.
struct Volume<'a> {
    images: &'a mut dyn Planes,
    labels: &'a mut dyn Planes,
    /// Slices `offset..offset + count` of the images belong to slices `0..count` of the labels.
    offset: usize,
    count: usize,
    flip_labels: bool,
    name: &'a str,
}

impl Slices {
    /// Hands the chosen slices over; `false` when no more are wanted.
    fn read(&mut self, volume: Volume<'_>, sink: &mut Sink<'_>) -> Result<bool> {
        for slice in 0..volume.count {
            let (wanted, more) = self.take.streams(self.next);
            self.next += 1;
            if wanted {
                let mut image = volume.images.plane(volume.offset + slice)?;
                let mut labels = volume.labels.plane(slice)?;
                if volume.flip_labels {
                    let width = labels.size[1] as usize;
                    labels.values = labels.values.chunks_exact(width).rev().flatten().copied().collect();
                    let shared = [0, 1].map(|axis| image.size[axis].min(labels.size[axis]));
                    (image, labels) = (ops::cut(&image, [0, 0], shared), ops::cut(&labels, [0, 0], shared));
                }
                ops::same_size(&image, &labels)?;
                let name = format!("{} slice {slice}", volume.name);
                if !sink(Item::Pair { image, labels, name })? {
                    return Ok(false);
                }
            }
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn same_length(images: usize, labels: usize) -> Result<()> {
    if images == labels {
        return Ok(());
    }
    Err(Error::expected(ErrorKind::Shape, "slices of the labels", images, labels))
}

pub(super) fn hdf5(spec: &Hdf5, job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let found = job.files.need(&[job.fill(spec.file)], true)?;
    let names: Vec<&str> = found.iter().map(|found| found.text.as_str()).collect();
    let mut slices = Slices { take: job.rule.slices, next: 0 };
    for at in job.rule.files.positions(&names) {
        let entry = found[at].entry;
        let more = job.files.with(entry, |path| {
            let open = |key: &str| File::open(path, key);
            if !spec.volume {
                let mut planes = spec.images.iter().map(|key| open(key)?.image()).collect::<Result<Vec<Plane>>>()?;
                if let [first, _] = planes.as_slice() {
                    planes.push(Plane { values: vec![0.0; first.values.len()], ..first.clone() });
                }
                let (image, labels) = (Plane::stack(&planes)?, open(spec.labels)?.image()?);
                ops::same_size(&image, &labels)?;
                return sink(Item::Pair { image, labels, name: entry.path.clone() });
            }
            let (mut images, mut labels) = (open(spec.images[0])?, open(spec.labels)?);
            same_length(images.len(), labels.len())?;
            let name = pattern::file_name(&entry.path);
            let unused = spec.drop_last.iter().find(|(file, _)| *file == name).map_or(0, |&(_, count)| count);
            let count = images.len().saturating_sub(unused);
            let volume = Volume {
                images: &mut images,
                labels: &mut labels,
                offset: 0,
                count,
                flip_labels: false,
                name: &entry.path,
            };
            slices.read(volume, sink)
        })?;
        if !more {
            break;
        }
    }
    Ok(())
}

pub(super) fn stacks(spec: &Stacks, job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let images = job.files.need(&job.fill_all(spec.images), false)?;
    let labels = job.files.need(&job.fill_all(spec.labels), false)?;
    let mut slices = Slices { take: job.rule.slices, next: 0 };
    for image in &images {
        let partner = labels.iter().find(|labels| {
            labels.key == image.key && pattern::parent(&labels.entry.path) == pattern::parent(&image.entry.path)
        });
        let partner = partner.ok_or_else(|| {
            let expected = format!("one named {} beside it", spec.labels.join(" or "));
            image.entry.blame(Error::expected(ErrorKind::NotFound, "labels of this volume", expected, "none"))
        })?;
        let stem = pattern::stem(&image.text);
        let unused = spec.drop_last.iter().find(|(file, _)| *file == stem).map_or(0, |&(_, count)| count);
        let fetched = job.files.fetch(image.entry)?;
        let more = job.files.with(partner.entry, |labels_path| {
            let mut images = Stack::open(&fetched.path).map_err(|error| image.entry.blame(error))?;
            let mut labels = Stack::open(labels_path)?;
            if !spec.flip_labels {
                same_length(images.len(), labels.len())?;
            }
            let count = images.len().min(labels.len()).saturating_sub(unused);
            let volume = Volume {
                images: &mut images,
                labels: &mut labels,
                offset: 0,
                count,
                flip_labels: spec.flip_labels,
                name: &image.entry.path,
            };
            slices.read(volume, sink)
        })?;
        if !more {
            break;
        }
    }
    Ok(())
}

/// PNAS: `plant*/processed_tiffs/NAMEtrim-acylYFP.tif`, labels in `segmentation_tiffs` with the same beginning of the name.
/// Volumes without labels, or with several, are left out, as upstream does.
pub(super) fn plants(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut images = job.files.need(&["plant*/processed_tiffs/*trim-acylYFP.tif"], false)?;
    let labels = job.files.need(&["plant*/segmentation_tiffs/*.tif"], false)?;
    images.sort_by(|a, b| pattern::natural(pattern::file_name(&a.text), pattern::file_name(&b.text)));
    let mut pairs = Vec::new();
    for image in images {
        let plant = image.text.split('/').next().unwrap_or_default();
        let stem = pattern::stem(&image.text);
        let own: Vec<_> = labels
            .iter()
            .filter(|labels| labels.text.starts_with(&format!("{plant}/")))
            .filter(|labels| pattern::stem(&labels.text).starts_with(stem))
            .collect();
        match own.as_slice() {
            [one] => pairs.push((image, *one)),
            several => {
                let reason = format!("expected one label volume, found {}", several.len());
                sink(Item::LeftOut { name: image.entry.path.clone(), reason })?;
            }
        }
    }
    let names: Vec<&str> = pairs.iter().map(|(image, _)| pattern::file_name(&image.text)).collect();
    let mut slices = Slices { take: job.rule.slices, next: 0 };
    for at in job.rule.files.positions(&names) {
        let (image, labels) = &pairs[at];
        let fetched = job.files.fetch(image.entry)?;
        let more = job.files.with(labels.entry, |path| {
            let mut images = Stack::open(&fetched.path).map_err(|error| image.entry.blame(error))?;
            let mut labels = Stack::open(path)?;
            same_length(images.len(), labels.len())?;
            let count = images.len();
            let name = &image.entry.path;
            let volume =
                Volume { images: &mut images, labels: &mut labels, offset: 0, count, flip_labels: false, name };
            slices.read(volume, sink)
        })?;
        if !more {
            break;
        }
    }
    Ok(())
}

/// Time points of the image file and those of them that have labels.
const PARHYALE_TIMES: usize = 50;
const PARHYALE_LABELLED: [usize; 6] = [0, 10, 20, 30, 40, 49];

pub(super) fn parhyale(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let image = job.files.need(&["Parhyale_H2B-EGFP_images_tp01-50.tif"], false)?.remove(0);
    let labels = job.files.need(&["*_instance-segmentation-labels_*.tif"], false)?;
    if labels.len() != PARHYALE_LABELLED.len() {
        let found = labels.iter().map(|found| found.text.as_str()).collect::<Vec<_>>().join(", ");
        let expected = "six, for the time points 1, 11, 21, 31, 41 and 50";
        return Err(image.entry.blame(Error::expected(ErrorKind::NotFound, "label volumes", expected, found)));
    }
    let mut slices = Slices { take: job.rule.slices, next: 0 };
    job.files.with(image.entry, |path| {
        let mut images = Stack::open(path)?;
        let depth = images.len() / PARHYALE_TIMES;
        if depth == 0 || images.len() % PARHYALE_TIMES != 0 {
            let expected = format!("a multiple of {PARHYALE_TIMES} (time points)");
            return Err(Error::expected(ErrorKind::Shape, "slices", expected, images.len()));
        }
        for (time, labels) in PARHYALE_LABELLED.into_iter().zip(&labels) {
            let more = job.files.with(labels.entry, |path| {
                let mut planes = Stack::open(path)?;
                same_length(depth, planes.len())?;
                let name = format!("{} time point {}", image.entry.path, time + 1);
                let volume = Volume {
                    images: &mut images,
                    labels: &mut planes,
                    offset: time * depth,
                    count: depth,
                    flip_labels: false,
                    name: &name,
                };
                slices.read(volume, sink)
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    })
}
