//! OME-Zarr 0.1–0.5 (Zarr v2 and v3, sharded or not): an image's multiscales in a local folder.
//!
//! Written for reading images alone and without C: of codecs it knows null, zlib, gzip, zstd, LZ4, blosc (blosclz, LZ4, zlib,
//! zstd; shuffled by bytes or bits), crc32c, transpose and sharding. After the Zarr v2 and v3 specifications and OME-NGFF 0.4/0.5.

mod array;
mod blosc;
mod metadata;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::array::Array;
use self::metadata::{Group, read_json};
use crate::formats::cache::BlockCache;
use crate::formats::{Opened, Planes, check_not_empty};
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Rect, Result};

struct Zarr {
    levels: Vec<Array>,
    /// For each of t, z, c, y, x its position among the array's axes.
    axes: [Option<usize>; 5],
    cache: BlockCache,
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("OME-Zarr: {what}"))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("OME-Zarr: {what}"))
}

/// Opens the image in a folder: a group with `multiscales`, the first series of a bioformats2raw folder, or a bare array.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let (folder, group, notes) = find_image(path)?;
    let Some(group) = group else {
        let array = Array::open(&folder)?;
        let names = array.dimension_names.clone();
        return assemble(vec![array], names, vec![], None, notes, "Zarr array".into());
    };
    let multiscale = group.multiscale.ok_or_else(|| {
        damaged("expected an image (attribute `multiscales`), found a group without one; name the folder of one image")
    })?;
    let mut levels = Vec::new();
    for dataset in &multiscale.datasets {
        let dataset = folder.join(inside(dataset)?);
        let array = Array::open(&dataset).map_err(|error| error.with_path(&dataset))?;
        levels.push(array);
    }
    let format = format!("OME-Zarr {}", group.version);
    let scale = Some((multiscale.scale, multiscale.units));
    assemble(levels, multiscale.axes, group.channel_names, scale, notes, format)
}

/// More wells or fields than any plate has.
const MAX_PLATE_IMAGES: usize = 1 << 20;

/// See [`super::plate_images`].
pub(super) fn plate_images(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !super::is_image_folder(path) || path.join(".zarray").is_file() {
        return Ok(None);
    }
    let name = |error: Error| error.with_path(path);
    let Some(wells) = Group::open(path).map_err(name)?.wells else { return Ok(None) };
    let mut images = Vec::new();
    for well in wells {
        let well = inside(&well).map_err(name)?;
        // A well that cannot be read stands for itself: opening it says why, and the others go on.
        let fields = Group::open(&path.join(&well)).map_or_else(|_| Vec::new(), |group| group.fields);
        if fields.is_empty() {
            images.push(well.clone());
        }
        for field in fields {
            images.push(well.join(inside(&field).map_err(name)?));
        }
        if images.len() > MAX_PLATE_IMAGES {
            return Err(name(damaged(format!("a plate of more than {MAX_PLATE_IMAGES} images"))));
        }
    }
    Ok(Some(images))
}

/// A path of metadata that stays below its group.
fn inside(path: &str) -> Result<PathBuf> {
    let relative = Path::new(path);
    if path.is_empty() || relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(damaged(format!("the path {path:?} leaves its group")));
    }
    Ok(relative.to_path_buf())
}

type Found = (PathBuf, Option<Group>, Vec<String>);

fn find_image(path: &Path) -> Result<Found> {
    if path.join(".zarray").is_file() {
        return Ok((path.to_path_buf(), None, Vec::new()));
    }
    let group = Group::open(path)?;
    if group.is_array {
        return Ok((path.to_path_buf(), None, Vec::new()));
    }
    if group.multiscale.is_some() {
        let mut notes = Vec::new();
        if group.images > 1 {
            notes.push(format!("the group holds {} images; the first is read", group.images));
        }
        return Ok((path.to_path_buf(), Some(group), notes));
    }
    if let Some(wells) = group.wells {
        let first = path.join(wells.first().map_or("A/1", String::as_str)).join("0");
        return Err(unsupported(format!("a plate holds many images; name one, e.g. {}", first.display())));
    }
    let first = path.join("0");
    if group.bioformats2raw && first.is_dir() {
        let mut notes = Vec::new();
        let series = (1..10_000).take_while(|number| path.join(number.to_string()).is_dir()).count() + 1;
        if series > 1 {
            notes.push(format!(
                "the folder holds {series} series; 0 is read, name {} for another",
                path.join("1").display()
            ));
        }
        return Ok((first.clone(), Some(Group::open(&first)?), notes));
    }
    Ok((path.to_path_buf(), Some(group), Vec::new()))
}

fn assemble(
    mut levels: Vec<Array>,
    axes: Vec<String>,
    channel_names: Vec<String>,
    scale: Option<(Vec<f64>, Vec<String>)>,
    mut notes: Vec<String>,
    format: String,
) -> Result<Opened> {
    let first = levels.first().ok_or_else(|| damaged("multiscales without datasets"))?;
    let rank = first.shape.len();
    let axes: Vec<String> = if axes.is_empty() {
        if !(2..=5).contains(&rank) {
            return Err(unsupported(format!("an array of {rank} axes without names")));
        }
        if rank > 2 {
            notes.push(format!("an array without axes: the last {rank} of t, c, z, y, x are assumed"));
        }
        ["t", "c", "z", "y", "x"][5 - rank..].iter().map(ToString::to_string).collect()
    } else {
        axes.into_iter().map(|axis| axis.to_lowercase()).collect()
    };
    if axes.len() != rank {
        return Err(damaged(format!("{} axes for an array of {rank}", axes.len())));
    }
    let position = |name: &str| axes.iter().position(|axis| axis == name);
    let places = ["t", "z", "c", "y", "x"].map(position);
    for (index, axis) in axes.iter().enumerate() {
        if !places.contains(&Some(index)) && first.shape[index] != 1 {
            return Err(unsupported(format!("axis {axis:?} of length {}", first.shape[index])));
        }
    }
    if places[3].is_none() || places[4].is_none() {
        return Err(unsupported(format!("axes y and x expected, found {axes:?}")));
    }
    let extent = |array: &Array, place: Option<usize>| -> Result<u32> {
        let extent = place.map_or(1, |place| array.shape[place]);
        u32::try_from(extent).map_err(|_| damaged(format!("an axis of {extent}")))
    };
    let size_of = |array: &Array| Ok::<[u32; 2], Error>([extent(array, places[3])?, extent(array, places[4])?]);
    let mut sizes = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        if level.shape.len() != rank || level.dtype != first.dtype {
            return Err(damaged(format!("resolution {index} has other axes or samples than the first")));
        }
        for place in [places[0], places[1], places[2]].into_iter().flatten() {
            let same = level.shape[place] == first.shape[place];
            if !same && (places[1] != Some(place)) {
                return Err(damaged(format!("resolution {index} has another number of {}", axes[place])));
            }
        }
        sizes.push(size_of(level)?);
        check_not_empty(sizes[index])?;
    }
    // Volumes that shrink along z too: their smaller resolutions have other slices, which a plane index cannot name.
    let same_depth =
        levels.iter().take_while(|level| places[1].is_none_or(|z| level.shape[z] == first.shape[z])).count();
    let (times, depth, channels) = (extent(first, places[0])?, extent(first, places[1])?, extent(first, places[2])?);
    for (name, count) in [("t", times), ("z", depth), ("c", channels)] {
        if count == 0 {
            return Err(damaged(format!("axis {name} has no entry")));
        }
    }
    let micrometres = |place: Option<usize>| {
        let (scales, units) = scale.as_ref()?;
        let place = place?;
        super::tiff::micrometres(*scales.get(place)?, units.get(place)?)
    };
    let description = Description {
        format,
        size: sizes[0],
        times,
        depth,
        channels,
        stored_axes: axes.concat().to_uppercase(),
        dtype: first.dtype,
        channel_names: if channel_names.len() == channels as usize { channel_names } else { Vec::new() },
        colour: false,
        pixel_size_um: micrometres(places[3]).zip(micrometres(places[4])).map(|(y, x)| [y, x]),
        z_step_um: micrometres(places[1]),
        compression: first.compression.clone(),
        block: [3, 4].map(|axis| places[axis].map_or(1, |place| first.inner[place].min(u64::from(u32::MAX)) as u32)),
        levels: sizes[..same_depth].to_vec(),
        notes,
    };
    levels.truncate(same_depth);
    Ok((description, Box::new(Zarr { levels, axes: places, cache: BlockCache::default() })))
}

impl Planes for Zarr {
    fn read(&mut self, level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>> {
        let array = &self.levels[level];
        let mut fixed = vec![0_u64; array.shape.len()];
        for (place, index) in self.axes.iter().zip([at.time, at.z, at.channel]) {
            if let Some(place) = place {
                fixed[*place] = u64::from(index);
            }
        }
        let [Some(y), Some(x)] = [self.axes[3], self.axes[4]] else { unreachable!("both were found when opening") };
        array.read(&mut self.cache, level as u64, &fixed, [y, x], rect)
    }
}

/// A file of metadata, parsed; `None` when there is none.
fn optional_json(path: &Path) -> Result<Option<Value>> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}
