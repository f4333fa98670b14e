//! Datasets with an image file and a label file for each image: most of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use cytomask_image::SampleType;

use super::{Item, Job, Sink};
use crate::archive::{Files, Found};
use crate::formats::npy::Npy;
use crate::formats::{Planes, regions};
use crate::plane::Plane;
use crate::table::{SplitName, Take};
use crate::{Error, ErrorKind, Result, ops, pattern, raster};

/// Where images and labels are and how they belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileSet {
    /// Parts that are read one after the other; the split rule's part of the files is taken of each.
    pub(crate) groups: &'static [Group],
    pub(crate) decode: Decode,
    pub(crate) by: Pairing,
    /// Leave pairs out that cannot be read, as upstream does, instead of failing.
    pub(crate) skip_damaged: bool,
    /// Leave images out that do not have three channels, after the split.
    pub(crate) three_channels: bool,
    /// Order by code points, not naturally.
    pub(crate) plain_order: bool,
    /// Zip archives inside the archive.
    pub(crate) nested: &'static [&'static str],
    /// A table `img_id, fold`; the split's folder is the number of its fold.
    pub(crate) folds: Option<&'static str>,
}

impl FileSet {
    pub(crate) const BASE: Self = Self {
        groups: &[],
        decode: Decode::Ids,
        by: Pairing::Name,
        skip_damaged: false,
        three_channels: false,
        plain_order: false,
        nested: &[],
        folds: None,
    };
}

/// Patterns of images and of their labels; `{}` is the split's folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) images: &'static [&'static str],
    /// Files whose name (without extension) ends so are no images.
    pub(crate) not: &'static [&'static str],
    pub(crate) labels: &'static [&'static str],
    pub(crate) only: Option<SplitName>,
}

impl Group {
    pub(crate) const BASE: Self = Self { images: &[], not: &[], labels: &[], only: None };
}

/// How images and labels belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// What the patterns' stars stand for is the same.
    Name,
    /// By position in their ordered lists, as upstream does; their names do not tell.
    Position,
}

/// What a label file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decode {
    /// Ids.
    Ids,
    /// Regions of equal value.
    Components,
    /// Regions of equal value in the first channel.
    FirstChannelComponents,
    /// Regions of one colour.
    ColourComponents,
    /// NPY `[2 or more, H, W]`: regions of equal value of the first two items' sum.
    NpySumComponents,
    /// XML regions.
    XmlRegions,
}

pub(super) fn read(spec: &FileSet, job: &mut Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let nested: Vec<String> = job.fill_all(spec.nested);
    let first = job.fill_all(spec.groups[0].images);
    if !nested.is_empty() && job.files.find(&first, false)?.is_empty() {
        job.files.open_nested(&nested)?;
    }
    for group in spec.groups.iter().filter(|group| group.only.is_none_or(|split| split == job.split)) {
        if !read_group(spec, group, job, sink)? {
            break;
        }
    }
    Ok(())
}

fn read_group(spec: &FileSet, group: &Group, job: &Job<'_>, sink: &mut Sink<'_>) -> Result<bool> {
    let files = &*job.files;
    let mut images = files.need(&job.fill_all(group.images), spec.plain_order)?;
    images.retain(|image| !group.not.iter().any(|ending| pattern::stem(&image.text).ends_with(ending)));
    let labels = files.need(&job.fill_all(group.labels), spec.plain_order)?;
    let (mut pairs, unused) = match spec.by {
        Pairing::Name => by_name(images, labels)?,
        Pairing::Position => (by_position(images, labels, &job.fill_all(group.labels))?, Vec::new()),
    };
    for name in unused {
        sink(Item::LeftOut { name, reason: "labels without an image".to_owned() })?;
    }
    if let Some(folds) = spec.folds {
        let chosen = fold(files, folds, job.rule.folder)?;
        pairs.retain(|(image, _)| chosen.iter().any(|name| name == pattern::stem(&image.text)));
    }
    let names: Vec<&str> = pairs.iter().map(|(image, _)| pattern::file_name(&image.text)).collect();
    // What is left out for damage does not count, so then the part is only known while reading.
    let chosen = if spec.skip_damaged { Take::All } else { job.rule.files }.positions(&names);
    let mut good = 0;
    for at in chosen {
        let (image, labels) = &pairs[at];
        let name = image.entry.path.clone();
        if spec.three_channels {
            let channels = files.with(image.entry, png_channels)?;
            if channels != 3 {
                let reason = format!("{channels} channels instead of 3");
                sink(Item::LeftOut { name, reason })?;
                continue;
            }
        }
        let pair = read_pair(spec.decode, files, image, labels);
        let (image, labels) = match pair {
            Err(error) if spec.skip_damaged && error.kind() != ErrorKind::Io => {
                sink(Item::LeftOut { name, reason: error.to_string() })?;
                continue;
            }
            pair => pair?,
        };
        if spec.skip_damaged {
            let (wanted, more) = job.rule.files.streams(good);
            good += 1;
            if wanted && !sink(Item::Pair { image, labels, name })? {
                return Ok(false);
            }
            if !more {
                break;
            }
        } else if !sink(Item::Pair { image, labels, name })? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_pair(decode: Decode, files: &Files, image: &Found<'_>, labels: &Found<'_>) -> Result<(Plane, Plane)> {
    let image = files.with(image.entry, |path| Plane::read_image(path, 0))?;
    let decoded = files.with(labels.entry, |path| match decode {
        Decode::Ids => Plane::read_labels(path),
        Decode::Components => Plane::read_labels(path).map(|labels| ops::components(&labels)),
        Decode::FirstChannelComponents => Plane::read_image(path, 0).map(|labels| ops::components(&labels.channel(0))),
        Decode::ColourComponents => Ok(ops::components(&ops::colours(&Plane::read_image(path, 0)?)?)),
        Decode::NpySumComponents => {
            let mut array = Npy::open(path)?;
            if array.len() < 2 {
                return Err(Error::expected(ErrorKind::Shape, "NPY", "two or more items", array.len()));
            }
            let (mut sum, other) = (array.plane(0)?, array.plane(1)?);
            sum.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += other);
            Ok(ops::components(&sum))
        }
        Decode::XmlRegions => {
            xml_labels(&std::fs::read(path).map_err(|e| Error::io(path, "cannot read", e))?, image.size)
        }
    })?;
    ops::same_size(&image, &decoded).map_err(|error| labels.entry.blame(error))?;
    Ok((image, decoded))
}

/// torch-em's rasterising: corners are cut to whole numbers, later regions lie over earlier ones, and **the first region has the
/// number 0**, which is the background's; so an object of each image is lost (docs/decisions/0016).
fn xml_labels(text: &[u8], size: [u32; 2]) -> Result<Plane> {
    let mut values = vec![0.0; size[0] as usize * size[1] as usize];
    for (number, region) in regions::read(text)?.into_iter().enumerate() {
        let corners: Vec<(f64, f64)> = region.into_iter().map(|(x, y)| (x.trunc(), y.trunc())).collect();
        raster::scikit_image(&corners, size, |y, x| values[y as usize * size[1] as usize + x as usize] = number as f64);
    }
    Plane::new(size, 1, SampleType::F32, values)
}

/// Images with their labels.
type Pairs<'a> = Vec<(Found<'a>, Found<'a>)>;

/// Pairs, and labels that no image has.
fn by_name<'a>(images: Vec<Found<'a>>, labels: Vec<Found<'a>>) -> Result<(Pairs<'a>, Vec<String>)> {
    let mut of_key: BTreeMap<String, Found<'a>> = labels.into_iter().map(|found| (found.key.clone(), found)).collect();
    let mut pairs = Vec::new();
    for image in images {
        let labels = of_key.remove(&image.key).ok_or_else(|| {
            let near = of_key
                .values()
                .next()
                .map_or("none at all".to_owned(), |other| format!("only others, such as {}", other.text));
            let expected = format!("a file for {}", image.key);
            image.entry.blame(Error::expected(ErrorKind::NotFound, "labels of this image", expected, near))
        })?;
        pairs.push((image, labels));
    }
    Ok((pairs, of_key.into_values().map(|found| found.text).collect()))
}

fn by_position<'a>(images: Vec<Found<'a>>, labels: Vec<Found<'a>>, patterns: &[String]) -> Result<Pairs<'a>> {
    if images.len() != labels.len() {
        let (longer, place) = if images.len() > labels.len() { (&images, "image") } else { (&labels, "label file") };
        let last = &longer[images.len().min(labels.len())];
        let expected = format!("{} label files ({}), one for each image", images.len(), patterns.join(", "));
        let found = format!("{}; the first {place} without a partner in this order is {}", labels.len(), last.text);
        return Err(last.entry.blame(Error::expected(ErrorKind::NotFound, "labels", expected, found)));
    }
    Ok(images.into_iter().zip(labels).collect())
}

/// Names in the table of folds with this number.
fn fold(files: &Files, path: &str, number: &str) -> Result<Vec<String>> {
    let table = files.need(&[path], true)?.remove(0).entry;
    let text = files.text(table, 16 << 20)?;
    let text = String::from_utf8_lossy(&text);
    let cells =
        |line: &str| -> Vec<String> { line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect() };
    let mut lines = text.lines();
    let header = cells(lines.next().unwrap_or_default().trim_start_matches('\u{feff}'));
    let column = |name: &str| {
        header.iter().position(|cell| cell == name).ok_or_else(|| {
            table.blame(Error::expected(ErrorKind::Format, "table", format!("a column {name}"), header.join(", ")))
        })
    };
    let (name, fold) = (column("img_id")?, column("fold")?);
    Ok(lines
        .map(cells)
        .filter(|row| row.get(fold).is_some_and(|cell| cell == number))
        .filter_map(|row| row.get(name).cloned())
        .collect())
}

/// Channels of a PNG as stored, alpha among them; a palette counts as colour.
fn png_channels(path: &Path) -> Result<usize> {
    let file = File::open(path).map_err(|source| Error::io(path, "cannot read", source))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    let header = decoder
        .read_header_info()
        .map_err(|source| Error::new(ErrorKind::Format, "PNG: the file is damaged").with_source(source))?;
    Ok(match header.color_type {
        png::ColorType::Indexed => 3,
        other => other.samples(),
    })
}

/// LyNSeC: NPY `[H, W, 4]`, red, green, blue and ids.
pub(super) fn lynsec(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let found = job.files.need(&["lynsec 1/*.npy"], false)?;
    let names: Vec<&str> = found.iter().map(|found| pattern::file_name(&found.text)).collect();
    for at in job.rule.files.positions(&names) {
        let entry = found[at].entry;
        let whole = job.files.with(entry, |path| Npy::open(path)?.whole())?;
        if whole.channels != 4 {
            return Err(entry.blame(Error::expected(ErrorKind::Shape, "NPY", "four channels", whole.channels)));
        }
        let image = Plane::stack(&[whole.channel(0), whole.channel(1), whole.channel(2)])?;
        if !sink(Item::Pair { image, labels: whole.channel(3), name: entry.path.clone() })? {
            break;
        }
    }
    Ok(())
}
