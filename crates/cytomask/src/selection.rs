//! Which part of a file is segmented: channels, slice or projection, time point; and what the file says of its scale.
//!
//! Every SAM-family network sees three channels. A [`Selection`] gives an [`Image`] of one to three, which
//! [`Image::to_rgb`] turns into them: one channel is repeated, two get a third of zeros. Of roles the cytoplasm (or membrane) comes
//! first and the nucleus second, µSAM's order, which all families here share (docs/channels.md).

use std::path::Path;

use cytomask_image::{Description, Image, PlaneIndex, Projection, Rect, Source};
use cytomask_segment::Segmentation;

use crate::{Error, ErrorKind};

/// Side of the median object in pixels (√area) that cytomask-t was trained on, least and most (docs/default-model.md).
pub const TRAINED_SIDES: [f64; 2] = [13.0, 50.0];

/// √area of a disc of diameter 1.
const DISC_SIDE: f64 = 0.886_226_925_452_758;

/// Which channels of a file are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelChoice {
    /// The first three at most, as the file has them.
    #[default]
    First,
    /// These, by name or by index from 0, in this order; one to three.
    Named(Vec<String>),
    /// By what they show, each a name or an index; at least one is given.
    Roles {
        /// The nuclei.
        nucleus: Option<String>,
        /// The cytoplasm or the membranes.
        cytoplasm: Option<String>,
    },
}

/// Which part of a file is segmented. The default is its first plane with the first channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Which channels.
    pub channels: ChannelChoice,
    /// Which slice, or how slices become one; the first without it.
    pub projection: Option<Projection>,
    /// Which time point; the first without it.
    pub time: Option<u32>,
    /// One page of a TIFF, whatever its metadata say.
    pub page: Option<u32>,
    /// µm per pixel, in place of what the file says.
    pub pixel_size_um: Option<f64>,
    /// How wide the objects are.
    pub diameter: Option<Diameter>,
}

/// How wide objects are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Diameter {
    /// In pixels.
    Pixels(f64),
    /// In µm: needs a pixel size.
    Micrometres(f64),
}

/// A selection brought to one file.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Channels by index, in the order the network gets them.
    pub channels: Vec<u32>,
    /// Their names; empty where the file has none and the index is the position.
    pub channel_names: Vec<String>,
    /// Time point.
    pub time: u32,
    /// Slice or projection.
    pub projection: Projection,
    /// µm per pixel, `[y, x]`.
    pub pixel_size_um: Option<[f64; 2]>,
    /// Diameter of the objects in pixels, if it was given.
    pub diameter_px: Option<f64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The selected part of a file.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The pixels.
    pub image: Image,
    /// Where they came from.
    pub from: Resolved,
}

impl Selection {
    /// Opens a file as this selection wants it.
    ///
    /// # Errors
    /// As [`Source::open`] and [`Source::open_page`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Source, Error> {
        Ok(match self.page {
            Some(page) => Source::open_page(path, page)?,
            None => Source::open(path)?,
        })
    }

    /// Opens a file and reads the selected part.
    ///
    /// # Errors
    /// As [`Selection::open`] and [`Selection::resolve`]; `Image` when pixels cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Selected, Error> {
        let source = self.open(path)?;
        let from = self.resolve(source.description()).map_err(|error| error.with_context(source.path().display()))?;
        let whole = Rect::whole(source.description().size);
        let image = source.read_image(from.time, from.projection, &from.channels, whole)?;
        Ok(Selected { image, from })
    }

    /// Brings the selection to a file.
    ///
    /// # Errors
    /// `Setting` when the file has no such channel, slice or time point, or a diameter in µm meets a file without pixel size.
    pub fn resolve(&self, held: &Description) -> Result<Resolved, Error> {
        let mut warnings = Vec::new();
        let channels = self.channels(held, &mut warnings)?;
        let time = self.time.unwrap_or(0);
        let projection = self.projection.unwrap_or(Projection::Plane(0));
        let check = |flag: &str, index: u32, count: u32, what: &str| {
            if index < count {
                return Ok(());
            }
            let message = format!("{flag} {index}: the file has {count} {what}, counted from 0");
            Err(Error::new(ErrorKind::Setting, message))
        };
        check("--time", time, held.times, "time points")?;
        if let Projection::Plane(z) = projection {
            check("--z", z, held.depth, "slices")?;
        }
        if held.depth > 1 && self.projection.is_none() {
            warnings.push(format!("{} slices (z): only the first is used; choose with --z", held.depth));
        }
        if held.times > 1 && self.time.is_none() {
            warnings.push(format!("{} time points: only the first is used; choose with --time", held.times));
        }
        let pixel_size_um = match (self.pixel_size_um, held.pixel_size_um) {
            (Some(given), Some(stored)) => {
                if stored.iter().any(|stored| (given / stored - 1.0).abs() > 0.1) {
                    let [y, x] = stored;
                    warnings.push(format!("--pixel_size {given} µm overrides the file's {y:.4} × {x:.4} µm"));
                }
                Some([given; 2])
            }
            (Some(given), None) => Some([given; 2]),
            (None, stored) => stored,
        };
        let diameter_px = match (self.diameter, pixel_size_um) {
            (None, _) => None,
            (Some(Diameter::Pixels(pixels)), _) => Some(pixels),
            (Some(Diameter::Micrometres(um)), Some([y, x])) => Some(um / (y * x).sqrt()),
            (Some(Diameter::Micrometres(_)), None) => {
                let message = "--diameter_um: the file has no pixel size; give it with --pixel_size";
                return Err(Error::new(ErrorKind::Setting, message));
            }
        };
        let channel_names = (0..).zip(&channels).map(|(position, &channel)| {
            let named = held.channel_names.get(channel as usize).filter(|name| !name.is_empty()).cloned();
            named.unwrap_or_else(|| if channel == position { String::new() } else { channel.to_string() })
        });
        let channel_names = channel_names.collect();
        Ok(Resolved { channels, channel_names, time, projection, pixel_size_um, diameter_px, warnings })
    }

    fn channels(&self, held: &Description, warnings: &mut Vec<String>) -> Result<Vec<u32>, Error> {
        match &self.channels {
            ChannelChoice::First => {
                if held.channels > 1 && !held.colour {
                    let used = held.channels.min(3);
                    let roles = ["red", "green", "blue"][..used as usize].join(", ");
                    warnings.push(format!(
                        "{} channels of {}: the first {used} are taken as {roles}; choose with --channels",
                        held.channels,
                        held.dtype.name()
                    ));
                }
                Ok((0..held.channels.min(3)).collect())
            }
            ChannelChoice::Named(names) => {
                if names.is_empty() || names.len() > 3 {
                    let message = format!("--channels: expected one to three, found {}", names.len());
                    return Err(Error::new(ErrorKind::Setting, message));
                }
                names.iter().map(|name| find_channel(held, "--channels", name)).collect()
            }
            ChannelChoice::Roles { nucleus, cytoplasm } => {
                let mut found = Vec::new();
                for (flag, name) in [("--cytoplasm", cytoplasm), ("--nucleus", nucleus)] {
                    if let Some(name) = name {
                        found.push(find_channel(held, flag, name)?);
                    }
                }
                if found.is_empty() {
                    return Err(Error::new(ErrorKind::Setting, "channel roles: expected at least one, found none"));
                }
                Ok(found)
            }
        }
    }
}

/// A channel by name, whatever its case, or by index.
fn find_channel(held: &Description, flag: &str, wanted: &str) -> Result<u32, Error> {
    let wanted = wanted.trim();
    let names = &held.channel_names;
    let by_name = |same: &dyn Fn(&str) -> bool| names.iter().position(|name| same(name)).map(|index| index as u32);
    let found = by_name(&|name| name == wanted)
        .or_else(|| by_name(&|name| name.eq_ignore_ascii_case(wanted)))
        .or_else(|| wanted.parse::<u32>().ok().filter(|&index| index < held.channels));
    found.ok_or_else(|| {
        let known = if names.is_empty() { "without names".into() } else { format!("named {}", names.join(", ")) };
        let message = format!(
            "{flag} {wanted:?}: the file has {} channel{} ({known}), counted from 0",
            held.channels,
            if held.channels == 1 { "" } else { "s" }
        );
        Error::new(ErrorKind::Setting, message)
    })
}

impl Resolved {
    /// The factor by which cytomask-t is to see the image, so that objects of the given diameter have a size it was trained on: 1 inside
    /// [`TRAINED_SIDES`], at least 2 below (what the model chooses by itself), the upper bound above. `None` without a diameter.
    pub fn scale(&self) -> Option<f32> {
        let side = self.diameter_px? * DISC_SIDE;
        let [least, most] = TRAINED_SIDES;
        let factor = match side {
            side if side < least => (least / side).max(2.0),
            side if side > most => most / side,
            _ => 1.0,
        };
        Some(factor.clamp(0.05, 20.0) as f32)
    }

    /// Where the objects found contradict what was said of their size.
    pub fn contradictions(&self, found: &Segmentation) -> Vec<String> {
        let mut areas: Vec<u64> = found.objects.iter().map(|object| object.area_px).collect();
        if areas.len() < 3 {
            return Vec::new();
        }
        areas.sort_unstable();
        let diameter = (areas[areas.len() / 2] as f64).sqrt() / DISC_SIDE;
        let mut warnings = Vec::new();
        if let Some(given) = self.diameter_px.filter(|given| !(0.5..=2.0).contains(&(diameter / given))) {
            warnings.push(format!(
                "the objects found are {diameter:.0} pixels wide (median), the diameter given is {given:.0}"
            ));
        }
        if let Some([y, x]) = self.pixel_size_um {
            let um = diameter * (y * x).sqrt();
            if !(1.0..=500.0).contains(&um) {
                warnings.push(format!(
                    "the objects found are {um:.2} µm wide (median) by a pixel size of {y:.4} × {x:.4} µm: is it right? \
                     --pixel_size overrides it"
                ));
            }
        }
        warnings
    }
}

/// The planes a projection reads of a file.
pub fn planes(held: &Description, from: &Resolved) -> Vec<PlaneIndex> {
    let slices = match from.projection {
        Projection::Plane(z) => z..z + 1,
        Projection::Middle => held.depth / 2..held.depth / 2 + 1,
        Projection::Max | Projection::Mean | Projection::Sum => 0..held.depth,
    };
    slices.flat_map(|z| from.channels.iter().map(move |&channel| PlaneIndex { time: from.time, z, channel })).collect()
}

#[cfg(test)]
mod tests {
    use cytomask_image::SampleType;

    use super::*;

    fn file() -> Description {
        Description {
            format: "OME-TIFF".into(),
            size: [97, 131],
            times: 2,
            depth: 5,
            channels: 4,
            stored_axes: "TCZYX".into(),
            dtype: SampleType::U16,
            channel_names: ["DAPI", "actin", "GFP", "2"].map(String::from).to_vec(),
            colour: false,
            pixel_size_um: Some([0.325, 0.325]),
            z_step_um: None,
            compression: "none".into(),
            block: [97, 131],
            levels: vec![[97, 131]],
            notes: Vec::new(),
        }
    }

    fn named(names: &[&str]) -> Selection {
        let names = names.iter().map(ToString::to_string).collect();
        Selection { channels: ChannelChoice::Named(names), ..Selection::default() }
    }

    #[test]
    fn channels_are_found_by_name_then_by_index() {
        let channels = |selection: Selection| selection.resolve(&file()).map(|found| found.channels);
        assert_eq!(channels(named(&["actin", "DAPI"])).unwrap(), [1, 0]);
        assert_eq!(channels(named(&["gfp", "1"])).unwrap(), [2, 1]);
        // A name that is a number goes before the number.
        assert_eq!(channels(named(&["2"])).unwrap(), [3]);
        let error = channels(named(&["RFP"])).unwrap_err().to_string();
        assert!(error.contains("--channels \"RFP\": the file has 4 channels (named DAPI, actin, GFP, 2)"), "{error}");
        assert!(channels(named(&["0", "1", "2", "3"])).is_err());
        assert!(channels(named(&["9"])).is_err());
    }

    #[test]
    fn roles_take_micro_sams_order() {
        let roles = |nucleus: Option<&str>, cytoplasm: Option<&str>| {
            let channels =
                ChannelChoice::Roles { nucleus: nucleus.map(str::to_owned), cytoplasm: cytoplasm.map(str::to_owned) };
            Selection { channels, ..Selection::default() }.resolve(&file()).map(|found| found.channels)
        };
        assert_eq!(roles(Some("DAPI"), Some("actin")).unwrap(), [1, 0]);
        assert_eq!(roles(Some("DAPI"), None).unwrap(), [0]);
        assert!(roles(None, None).is_err());
    }

    #[test]
    fn what_is_left_out_is_said() {
        let found = Selection::default().resolve(&file()).unwrap();
        assert_eq!((found.channels, found.time, found.projection), (vec![0, 1, 2], 0, Projection::Plane(0)));
        let text = found.warnings.join("\n");
        assert!(
            text.contains("4 channels of uint16") && text.contains("5 slices") && text.contains("2 time points"),
            "{text}"
        );
        let chosen = Selection { projection: Some(Projection::Max), time: Some(1), ..named(&["0"]) };
        let found = chosen.resolve(&file()).unwrap();
        assert_eq!(found.warnings, [""; 0]);
        assert_eq!(planes(&file(), &found).len(), 5);
        let error = Selection { time: Some(2), ..Selection::default() }.resolve(&file()).unwrap_err();
        assert!(error.to_string().contains("--time 2: the file has 2 time points"), "{error}");
    }

    #[test]
    fn diameters_become_scales() {
        let scale = |diameter, pixel_size_um| {
            let selection = Selection { diameter: Some(diameter), pixel_size_um, ..Selection::default() };
            selection.resolve(&file()).unwrap().scale().unwrap()
        };
        assert_eq!(scale(Diameter::Pixels(30.0), None), 1.0);
        assert_eq!(scale(Diameter::Pixels(10.0), None), 2.0);
        assert!((scale(Diameter::Pixels(4.0), None) - 13.0 / (4.0 * 0.886_227)).abs() < 1e-3);
        assert!((scale(Diameter::Pixels(100.0), None) - 0.564).abs() < 1e-3);
        // 10 µm at 0.325 µm are 31 pixels; at 1 µm they are 10.
        assert_eq!(scale(Diameter::Micrometres(10.0), None), 1.0);
        assert_eq!(scale(Diameter::Micrometres(10.0), Some(1.0)), 2.0);
        let bare = Description { pixel_size_um: None, ..file() };
        let selection = Selection { diameter: Some(Diameter::Micrometres(10.0)), ..Selection::default() };
        assert!(selection.resolve(&bare).unwrap_err().to_string().contains("--pixel_size"));
    }

    #[test]
    fn another_pixel_size_is_noticed() {
        let found = Selection { pixel_size_um: Some(0.65), ..Selection::default() }.resolve(&file()).unwrap();
        assert!(
            found.warnings.iter().any(|warning| warning.contains("overrides the file's 0.3250")),
            "{:?}",
            found.warnings
        );
    }
}
