//! What the pages of a TIFF mean: which plane of `(t, z, c)` each is, and which are smaller versions of others.

use serde_json::Value;

use super::block::Frame;
use super::directory::{Page, Tiff, tag};
use super::{Place, blank, imagej, ome};
use crate::formats::Purpose;
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Result};

/// Planes a file may have at most.
const MOST_PLANES: u64 = 1 << 22;

/// Where the pixels of a smaller resolution are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// In these pages of the main chain, one for each page of the stack.
    Pages(Vec<usize>),
    /// In this entry of every page's SubIFDs.
    SubIfd(usize),
}

/// Every plane's place.
#[derive(Clone, Debug)]
pub(super) struct PlaneMap {
    depth: u32,
    channels: u32,
    places: Vec<Option<Place>>,
}

impl PlaneMap {
    fn new(times: u32, depth: u32, channels: u32) -> Result<Self> {
        let count = u64::from(times).saturating_mul(u64::from(depth)).saturating_mul(u64::from(channels));
        if count > MOST_PLANES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("TIFF: {count} planes, the limit is {MOST_PLANES}"),
            ));
        }
        Ok(Self { depth, channels, places: vec![None; count as usize] })
    }

    fn set(&mut self, [t, z, c]: [u32; 3], place: Place) {
        let index = (t as usize * self.depth as usize + z as usize) * self.channels as usize + c as usize;
        if c < self.channels
            && z < self.depth
            && let Some(entry) = self.places.get_mut(index)
        {
            *entry = Some(place);
        }
    }

    pub(super) fn find(&self, at: PlaneIndex) -> Result<Place> {
        let index =
            (at.time as usize * self.depth as usize + at.z as usize) * self.channels as usize + at.channel as usize;
        self.places.get(index).copied().flatten().ok_or_else(|| {
            let message = format!("TIFF: no page holds the plane t = {}, z = {}, c = {}", at.time, at.z, at.channel);
            Error::new(ErrorKind::Format, message)
        })
    }
}

/// A file's description with the places of its planes.
pub(super) struct Layout {
    pub(super) description: Description,
    pub(super) map: PlaneMap,
    pub(super) levels: Vec<Level>,
    /// A page like all pages of the stack.
    pub(super) base: usize,
}

/// One page by itself.
pub(super) fn single_page(tiff: &mut Tiff, page: usize, purpose: Purpose) -> Result<Layout> {
    let frame = Frame::read(tiff, tiff.pages[page].offset, purpose)?;
    let mut description = describe("TIFF", &frame);
    description.pixel_size_um = resolution(tiff, page, None)?;
    let mut map = PlaneMap::new(1, 1, frame.channels)?;
    for sample in 0..frame.channels {
        map.set([0, 0, sample], Place { page, sample, skip: 0 });
    }
    Ok(Layout { description, map, levels: Vec::new(), base: page })
}

fn describe(format: &str, frame: &Frame) -> Description {
    let mut description = blank(format, frame.size);
    description.channels = frame.channels;
    description.colour = frame.colour;
    if frame.channels > 1 {
        description.stored_axes = "YXC".into();
    }
    description
}

/// The whole file, by its metadata where it has any.
pub(super) fn read(tiff: &mut Tiff, purpose: Purpose) -> Result<Layout> {
    // The full resolution usually comes first; where it does not, the largest page is it.
    let base = match tiff.pages.iter().position(|page| !page.reduced) {
        Some(first) => first,
        None => (0..tiff.pages.len()).max_by_key(|&index| area(&tiff.pages[index])).unwrap_or(0),
    };
    let directory = tiff.directory(tiff.pages[0].offset)?;
    let text = tiff.text(&directory, tag::DESCRIPTION)?.unwrap_or_default();
    let mut layout = if ome::is_ome(&text) {
        from_ome(tiff, &ome::parse(&text)?, purpose)?
    } else {
        let frame_purpose = if text.starts_with("ImageJ=") { Purpose::Indices } else { purpose };
        let frame = Frame::read(tiff, tiff.pages[base].offset, frame_purpose)?;
        let like = |page: &Page, other: &Page| {
            (page.size, page.samples, page.bits, page.format) == (other.size, other.samples, other.bits, other.format)
        };
        let first = tiff.pages[base];
        let stack: Vec<usize> = (base..tiff.pages.len())
            .filter(|&index| like(&tiff.pages[index], &first) && tiff.pages[index].reduced == first.reduced)
            .collect();
        if purpose == Purpose::Labels
            && let Some(other) = tiff.pages.iter().position(|page| page.size != first.size && !page.reduced)
        {
            let [expected, found] = [first.size, tiff.pages[other].size].map(|[h, w]| format!("{h} × {w}"));
            let expected = format!("{expected} pixels, as on page {base}, on page {other}");
            return Err(Error::shape("label stack", expected, found));
        }
        match (imagej::parse(&text), shaped(&text)) {
            (Some(found), _) => from_imagej(tiff, &found, &frame, &stack)?,
            (None, Some(axes)) => match from_shape(tiff, &axes, &frame, &stack)? {
                Some(layout) => layout,
                None => from_pages(tiff, &text, &frame, &stack)?,
            },
            (None, None) => from_pages(tiff, &text, &frame, &stack)?,
        }
    };
    find_levels(tiff, &mut layout)?;
    Ok(layout)
}

fn area(page: &Page) -> u64 {
    u64::from(page.size[0]) * u64::from(page.size[1])
}

fn from_ome(tiff: &mut Tiff, image: &ome::OmeImage, purpose: Purpose) -> Result<Layout> {
    let damaged = |what: String| Error::new(ErrorKind::Format, format!("OME-TIFF: {what}"));
    let base = image.planes.first().and_then(|plane| plane.page).unwrap_or(0) as usize;
    let pages = tiff.pages.len();
    let page = tiff.pages.get(base).ok_or_else(|| damaged(format!("page {base} is named, the file has {pages}")))?;
    let frame = Frame::read(tiff, page.offset, purpose)?;
    if frame.size != image.size {
        let [found, expected] = [frame.size, image.size].map(|[h, w]| format!("{h} × {w} pixels"));
        return Err(damaged(format!("expected pages of {expected}, found {found}")));
    }
    let samples = frame.channels.min(image.channels);
    if !image.channels.is_multiple_of(samples) {
        return Err(damaged(format!("{} channels in pages of {samples}", image.channels)));
    }
    let mut description = describe("OME-TIFF", &frame);
    description.times = image.times;
    description.depth = image.depth;
    description.channels = image.channels;
    description.colour = frame.colour && image.channels == 3;
    description.pixel_size_um = image.pixel_size_um;
    description.z_step_um = image.z_step_um;
    if image.channel_names.len() == image.channels as usize && image.channel_names.iter().any(|name| !name.is_empty()) {
        description.channel_names.clone_from(&image.channel_names);
    }
    let outer: String = image.order.iter().rev().collect();
    description.stored_axes = if samples > 1 { format!("{}YXC", outer.replace('C', "")) } else { format!("{outer}YX") };
    if image.images > 1 {
        description.notes.push(format!("the file holds {} images; the first is read", image.images));
    }
    let counts = |axis: char| match axis {
        'Z' => image.depth,
        'C' => image.channels / samples,
        _ => image.times,
    };
    let total = u64::from(image.times) * u64::from(image.depth) * u64::from(image.channels / samples);
    if total > pages as u64 {
        return Err(damaged(format!("the metadata name {total} planes, the file has {pages} pages")));
    }
    let mut map = PlaneMap::new(image.times, image.depth, image.channels)?;
    let whole = [ome::TiffData { page: None, first: [0; 3], count: None }];
    let entries = if image.planes.is_empty() { &whole[..] } else { &image.planes[..] };
    for entry in entries {
        let first = |axis: char| match axis {
            'Z' => entry.first[1],
            'C' => entry.first[2],
            _ => entry.first[0],
        };
        if image.order.iter().any(|&axis| first(axis) >= counts(axis)) {
            return Err(damaged(format!("TiffData begins at plane {:?} (t, z, c), which does not exist", entry.first)));
        }
        let (mut position, mut step) = (0_u64, 1_u64);
        for &axis in &image.order {
            position += u64::from(first(axis)) * step;
            step *= u64::from(counts(axis));
        }
        // A page named without a number of planes is one plane; no page named are all of them.
        let named = entry.count.map(u64::from);
        let count =
            named.unwrap_or(if entry.page.is_some() { 1 } else { total }).min(total - position).min(pages as u64);
        for offset in 0..count {
            let mut rest = position + offset;
            let mut at = [0_u32; 3];
            for &axis in &image.order {
                let index = (rest % u64::from(counts(axis))) as u32;
                rest /= u64::from(counts(axis));
                at[match axis {
                    'T' => 0,
                    'Z' => 1,
                    _ => 2,
                }] = index;
            }
            let page = entry.page.unwrap_or(0) as usize + offset as usize;
            if page >= pages {
                return Err(damaged(format!("page {page} is named, the file has {pages}")));
            }
            for sample in 0..samples {
                map.set([at[0], at[1], at[2] * samples + sample], Place { page, sample, skip: 0 });
            }
        }
    }
    if let Some(missing) = map.places.iter().position(Option::is_none) {
        let (c, rest) = (missing as u32 % image.channels, missing as u32 / image.channels);
        let (z, t) = (rest % image.depth, rest / image.depth);
        return Err(damaged(format!(
            "the metadata name {total} planes, the file has {pages} pages and none for t = {t}, z = {z}, c = {c}"
        )));
    }
    Ok(Layout { description, map, levels: Vec::new(), base })
}

fn from_imagej(tiff: &mut Tiff, found: &imagej::ImageJ, frame: &Frame, stack: &[usize]) -> Result<Layout> {
    let base = stack[0];
    let mut description = describe("ImageJ TIFF", frame);
    description.pixel_size_um = resolution(tiff, base, found.unit_um)?;
    description.z_step_um = found.spacing.zip(found.unit_um).map(|(spacing, unit)| spacing * unit);
    let product = u64::from(found.channels) * u64::from(found.slices) * u64::from(found.frames);
    let (mut channels, mut slices, mut frames) = (found.channels, found.slices, found.frames);
    if found.images > product {
        // A stack without hyperstack sizes: its images are slices.
        (channels, slices, frames) = (1, u32::try_from(found.images).unwrap_or(u32::MAX), 1);
    }
    let total = u64::from(channels) * u64::from(slices) * u64::from(frames);
    let virtual_planes = stack.len() == 1 && total > 1;
    if virtual_planes {
        let start = frame.contiguous().ok_or_else(|| {
            Error::new(
                ErrorKind::Format,
                format!("ImageJ TIFF: expected {total} images, found one page that is not stored in one piece"),
            )
        })?;
        let end = total.checked_mul(frame.page_bytes()).and_then(|bytes| bytes.checked_add(start));
        if end.is_none_or(|end| end > tiff.input.length()) {
            let message = format!("ImageJ TIFF: the file is cut short: expected {total} images one behind the other");
            return Err(Error::new(ErrorKind::Format, message));
        }
    } else if (stack.len() as u64) < total {
        let message = format!("ImageJ TIFF: expected {total} images, found {} pages of the same kind", stack.len());
        return Err(Error::new(ErrorKind::Format, message));
    }
    description.times = frames;
    description.depth = slices;
    description.channels = channels.saturating_mul(frame.channels);
    description.colour = frame.colour && channels == 1;
    description.stored_axes = if frame.channels > 1 { "TZCYXS".into() } else { "TZCYX".into() };
    let mut map = PlaneMap::new(frames, slices, description.channels)?;
    for index in 0..total {
        let (c, rest) = ((index % u64::from(channels)) as u32, index / u64::from(channels));
        let (z, t) = ((rest % u64::from(slices)) as u32, (rest / u64::from(slices)) as u32);
        for sample in 0..frame.channels {
            let place = if virtual_planes {
                Place { page: base, sample, skip: index * frame.page_bytes() }
            } else {
                Place { page: stack[index as usize], sample, skip: 0 }
            };
            map.set([t, z, c * frame.channels + sample], place);
        }
    }
    Ok(Layout { description, map, levels: Vec::new(), base })
}

/// tifffile's own description: `{"shape": […], "axes": "…"}`. Axes with their lengths, outermost first.
fn shaped(text: &str) -> Option<Vec<(char, u32)>> {
    let value: Value = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()?;
    let shape: Vec<u32> =
        value.get("shape")?.as_array()?.iter().map(|n| n.as_u64()?.try_into().ok()).collect::<Option<_>>()?;
    let axes: Vec<char> = value.get("axes")?.as_str()?.chars().collect();
    (axes.len() == shape.len()).then(|| axes.into_iter().zip(shape).collect())
}

fn from_shape(tiff: &mut Tiff, axes: &[(char, u32)], frame: &Frame, stack: &[usize]) -> Result<Option<Layout>> {
    let length = |wanted: char| axes.iter().find(|(axis, _)| *axis == wanted).map_or(1, |(_, length)| (*length).max(1));
    let outer: Vec<(char, u32)> = axes.iter().copied().filter(|(axis, _)| !matches!(axis, 'Y' | 'X' | 'S')).collect();
    let in_pages = frame.channels == 1 || length('S') == frame.channels;
    let known = outer.iter().all(|(axis, _)| matches!(axis, 'T' | 'Z' | 'C')) && in_pages;
    let total = outer.iter().map(|(_, length)| u64::from(*length)).fold(1, u64::saturating_mul);
    let virtual_planes = stack.len() == 1 && total > 1;
    let fits = if virtual_planes {
        let end = frame.contiguous().and_then(|start| total.checked_mul(frame.page_bytes())?.checked_add(start));
        end.is_some_and(|end| end <= tiff.input.length())
    } else {
        stack.len() as u64 == total
    };
    if !known || !fits || total == 0 || [length('Y'), length('X')] != frame.size {
        return Ok(None);
    }
    let base = stack[0];
    let mut description = describe("TIFF", frame);
    description.times = length('T');
    description.depth = length('Z');
    description.channels = length('C').saturating_mul(frame.channels);
    description.colour = frame.colour && length('C') == 1;
    description.stored_axes = axes.iter().map(|(axis, _)| *axis).collect();
    description.pixel_size_um = resolution(tiff, base, None)?;
    let mut map = PlaneMap::new(description.times, description.depth, description.channels)?;
    for index in 0..total {
        let mut rest = index;
        let mut at = [0_u32; 3];
        for (axis, length) in outer.iter().rev() {
            at[match axis {
                'T' => 0,
                'Z' => 1,
                _ => 2,
            }] = (rest % u64::from(*length)) as u32;
            rest /= u64::from(*length);
        }
        for sample in 0..frame.channels {
            let place = if virtual_planes {
                Place { page: base, sample, skip: index * frame.page_bytes() }
            } else {
                Place { page: stack[index as usize], sample, skip: 0 }
            };
            map.set([at[0], at[1], at[2] * frame.channels + sample], place);
        }
    }
    Ok(Some(Layout { description, map, levels: Vec::new(), base }))
}

/// Pages without a meaning: slices of a stack.
fn from_pages(tiff: &mut Tiff, text: &str, frame: &Frame, stack: &[usize]) -> Result<Layout> {
    let base = stack[0];
    let mut description = describe("TIFF", frame);
    description.depth = stack.len() as u32;
    if stack.len() > 1 {
        description.stored_axes = format!("P{}", description.stored_axes);
        description.notes.push(format!("{} pages without axes: taken as slices (z)", stack.len()));
    }
    description.pixel_size_um = match text.split("MPP = ").nth(1) {
        // Aperio writes micrometres per pixel into its description.
        Some(rest) => {
            let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            number.parse().ok().and_then(|value| ome::micrometres(value, "µm")).map(|value| [value; 2])
        }
        None => resolution(tiff, base, None)?,
    };
    let directory = tiff.directory(tiff.pages[base].offset)?;
    if directory.entry(tag::UIC2).is_some() {
        description
            .notes
            .push("a MetaMorph stack: only its first plane is read; save it as OME-TIFF for the others".into());
    }
    let mut map = PlaneMap::new(1, description.depth, frame.channels)?;
    for (z, &page) in stack.iter().enumerate() {
        for sample in 0..frame.channels {
            map.set([0, z as u32, sample], Place { page, sample, skip: 0 });
        }
    }
    Ok(Layout { description, map, levels: Vec::new(), base })
}

/// µm per pixel from the resolution tags. Outside ImageJ, where programs write 72 dots per inch into everything, sizes of 50 µm and
/// more are not believed.
fn resolution(tiff: &mut Tiff, page: usize, unit_um: Option<f64>) -> Result<Option<[f64; 2]>> {
    let directory = tiff.directory(tiff.pages[page].offset)?;
    let x = tiff.rational(&directory, tag::X_RESOLUTION)?;
    let y = tiff.rational(&directory, tag::Y_RESOLUTION)?;
    let Some((y, x)) = y.zip(x) else { return Ok(None) };
    Ok(match unit_um {
        Some(unit) => Some([unit / y, unit / x]),
        None => {
            let unit = match tiff.number(&directory, tag::RESOLUTION_UNIT)? {
                Some(3) => 10_000.0,
                Some(2) => 25_400.0,
                _ => return Ok(None),
            };
            Some([unit / y, unit / x]).filter(|sizes| sizes.iter().all(|&size| size < 50.0))
        }
    })
}

/// Finds smaller versions: SubIFDs, or further pages of the same kind and shape.
fn find_levels(tiff: &mut Tiff, layout: &mut Layout) -> Result<()> {
    let base = tiff.pages[layout.base];
    let directory = tiff.directory(base.offset)?;
    let mut levels: Vec<([u32; 2], Level)> = Vec::new();
    for (index, offset) in
        tiff.unsigned(&directory, tag::SUB_IFDS)?.unwrap_or_default().into_iter().take(64).enumerate()
    {
        // Other things live in SubIFDs too: what is no smaller image is left out.
        let Ok(sub) = tiff.directory(offset) else { continue };
        let number = |tiff: &mut Tiff, tag: u16| tiff.number(&sub, tag).ok().flatten().unwrap_or(0) as u32;
        let size = [number(tiff, tag::HEIGHT), number(tiff, tag::WIDTH)];
        if is_smaller(size, base.size) && number(tiff, tag::BITS) == base.bits {
            levels.push((size, Level::SubIfd(index)));
        }
    }
    let stack = stack_of(&layout.map);
    let mut others = 0_usize;
    let mut groups: Vec<([u32; 2], Vec<usize>)> = Vec::new();
    for (index, page) in tiff.pages.iter().enumerate() {
        if stack.binary_search(&index).is_ok() {
            continue;
        }
        let alike = (page.samples, page.bits, page.format) == (base.samples, base.bits, base.format);
        if alike && is_smaller(page.size, base.size) && (page.reduced || page.tiled) {
            match groups.iter_mut().find(|(size, _)| *size == page.size) {
                Some((_, pages)) => pages.push(index),
                None => groups.push((page.size, vec![index])),
            }
        } else {
            others += 1;
        }
    }
    if levels.is_empty() {
        for (size, pages) in groups {
            if pages.len() == stack.len() {
                levels.push((size, Level::Pages(pages)));
            } else {
                others += pages.len();
            }
        }
    }
    levels.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    levels.dedup_by_key(|(size, _)| *size);
    layout.description.levels = vec![layout.description.size];
    for (size, level) in levels {
        layout.description.levels.push(size);
        layout.levels.push(level);
    }
    if others > 0 && layout.description.format == "TIFF" {
        let plural = if others == 1 { "page of another size or kind is" } else { "pages of another size or kind are" };
        layout.description.notes.push(format!("{others} further {plural} not read (see --page)"));
    }
    Ok(())
}

/// Whether an image can be a smaller version of another: same shape up to rounding.
fn is_smaller(size: [u32; 2], full: [u32; 2]) -> bool {
    if size.contains(&0) || size[0] >= full[0] || size[1] >= full[1] {
        return false;
    }
    let factor = f64::from(full[1]) / f64::from(size[1]);
    (f64::from(size[0]) * factor - f64::from(full[0])).abs() <= 2.0 * factor
}

/// The pages a map uses, in order.
pub(super) fn stack_of(map: &PlaneMap) -> Vec<usize> {
    let mut stack: Vec<usize> = map.places.iter().flatten().map(|place| place.page).collect();
    stack.sort_unstable();
    stack.dedup();
    stack
}
