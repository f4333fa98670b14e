//! Flags that choose a part of a file: channels, slice, time point, scale (docs/channels.md).

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::{ChannelChoice, Diameter, Projection, Selection};
use serde::Serialize;

/// Which channels, slice and time point.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Channels, slices and scale")]
pub(crate) struct PlaneArgs {
    /// One to three channels, by name or index from 0, e.g. 0,2 or DAPI,actin. [default: the first three]
    #[arg(long, value_name = "NAME|INDEX,…", value_delimiter = ',', conflicts_with_all = ["nucleus", "cytoplasm"])]
    pub(crate) channels: Vec<String>,
    /// The channel of the nuclei, by name or index.
    #[arg(long, value_name = "NAME|INDEX")]
    pub(crate) nucleus: Option<String>,
    /// The channel of the cytoplasm or the membranes, by name or index.
    #[arg(long, value_name = "NAME|INDEX")]
    pub(crate) cytoplasm: Option<String>,
    /// Which slice of a stack, from 0, or how slices become one. [default: 0]
    #[arg(long, value_name = "INDEX|middle|max|mean|sum")]
    pub(crate) z: Option<String>,
    /// Which time point, from 0; in `segment` also `all`, for results of each. [default: 0]
    #[arg(long, value_name = "INDEX|all")]
    pub(crate) time: Option<String>,
    /// Page of a multi-page TIFF, counted from 0, whatever its metadata say.
    #[arg(long, conflicts_with_all = ["z", "time"])]
    pub(crate) page: Option<u32>,
}

/// Which channels, slice and time point, and how large things are.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Channels, slices and scale")]
pub(crate) struct ChooseArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) plane: PlaneArgs,
    /// µm per pixel, in place of what the file says.
    #[arg(long = "pixel_size", value_name = "UM", value_parser = positive)]
    pub(crate) pixel_size: Option<f64>,
    /// Width of the objects in pixels: the image is scaled to what the model was trained on. Built-in model and Cellpose; with cyto3
    /// and its kind 0 estimates it.
    #[arg(long, value_name = "PX", value_parser = at_least_0, conflicts_with = "diameter_um")]
    pub(crate) diameter: Option<f64>,
    /// Width of the objects in µm; needs a pixel size.
    #[arg(long = "diameter_um", value_name = "UM", value_parser = positive)]
    pub(crate) diameter_um: Option<f64>,
}

/// What stands for every time point.
const EVERY_TIME: &str = "all";

impl ChooseArgs {
    /// Whether every time point is wanted.
    pub(crate) fn every_time(&self) -> bool {
        self.plane.time.as_deref() == Some(EVERY_TIME)
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found {text:?}"))
}

fn at_least_0(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) { Ok(0.0) } else { positive(text) }
}

/// The flags as the library takes them. Every time point is for the caller to go through.
pub(crate) fn selection(given: &ChooseArgs) -> Result<Selection> {
    let diameter = match (given.diameter, given.diameter_um) {
        // 0: to be estimated.
        (Some(0.0), _) => None,
        (Some(pixels), _) => Some(Diameter::Pixels(pixels)),
        (None, um) => um.map(Diameter::Micrometres),
    };
    Ok(Selection { pixel_size_um: given.pixel_size, diameter, ..plane(&given.plane)? })
}

/// The plane of every image that is compared or searched on: one, named or the first.
pub(crate) fn one_plane(given: &PlaneArgs) -> Result<Selection> {
    if given.time.as_deref() == Some(EVERY_TIME) {
        bail!("--time all: expected one time point, from 0");
    }
    plane(given)
}

fn plane(given: &PlaneArgs) -> Result<Selection> {
    let projection =
        match given.z.as_deref() {
            None => None,
            Some("middle") => Some(Projection::Middle),
            Some("max") => Some(Projection::Max),
            Some("mean") => Some(Projection::Mean),
            Some("sum") => Some(Projection::Sum),
            Some(text) => Some(Projection::Plane(text.parse().ok().with_context(|| {
                format!("--z: expected an index from 0, middle, max, mean or sum, found {text:?}")
            })?)),
        };
    let time = match given.time.as_deref() {
        None | Some(EVERY_TIME) => None,
        Some(text) => {
            Some(text.parse().ok().with_context(|| format!("--time: expected an index from 0, found {text:?}"))?)
        }
    };
    let channels = if !given.channels.is_empty() {
        ChannelChoice::Named(given.channels.clone())
    } else if given.nucleus.is_some() || given.cytoplasm.is_some() {
        ChannelChoice::Roles { nucleus: given.nucleus.clone(), cytoplasm: given.cytoplasm.clone() }
    } else {
        ChannelChoice::First
    };
    Ok(Selection { channels, projection, time, page: given.page, ..Selection::default() })
}
