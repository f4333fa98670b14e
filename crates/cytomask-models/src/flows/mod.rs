//! Networks that predict flows, run over whole images: what lies between an image and its maps, whatever the network.
//!
//! The image is scaled to the diameter the network was trained at, padded, cut into overlapping tiles whose maps are blended, and the
//! maps are scaled back. Reference: `run_net` in `core.py`, `make_tiles`, `average_tiles`, `get_pad_yx` and `resize_image` in
//! `transforms.py` of cellpose 4 and 3. Maps are handed on row by row, so that no more than a row of tiles is held.

mod grid;
mod resize;
mod stream;
mod volume;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::{Rect, Rgb};
use cytomask_segment::{FlowFields, Flows};

use crate::cpsam::CpSam;
use crate::cyto3::{CpNet, SizeModel};
use crate::loading::{NamedTensor, state_dict, values};
use crate::precision::SetPrecision;
use crate::times::Counter;
use crate::{Error, ErrorKind, Precision};

use grid::Padding;
pub use stream::FlowRow;
pub use volume::VolumeOptions;

/// Diameter Cellpose-SAM was trained at, pixels.
const CPSAM_DIAMETER: f64 = 30.0;
/// Side of a tile of Cellpose 3's networks, pixels.
const CYTO_TILE: usize = 224;
/// Pixels of tiles that are run together: two of Cellpose-SAM. Their number changes no result.
const BATCH_PIXELS: usize = 2 * 256 * 256;
/// Largest factor an image is enlarged by.
const MAX_SCALE: f64 = 64.0;

/// How large the objects are, which decides how large the network sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FlowDiameter {
    /// Cellpose-SAM: the image is seen as it is. Cellpose 3: the diameter the file names.
    #[default]
    Model,
    /// Pixels.
    Pixels(f64),
    /// Cellpose 3: as its size model estimates it.
    Estimated,
}

/// How images are run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowOptions {
    /// Of the objects.
    pub diameter: FlowDiameter,
    /// Tiles overlap by half and every other one is turned over.
    pub augment: bool,
    /// Share of a tile that overlaps with the next, 0.05–0.5.
    pub tile_overlap: f64,
}

impl Default for FlowOptions {
    /// The defaults of `CellposeModel.eval`.
    fn default() -> Self {
        Self { diameter: FlowDiameter::Model, augment: false, tile_overlap: 0.1 }
    }
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a program; the tensors lie elsewhere")]
enum FlowNetwork {
    CpSam(CpSam),
    Cyto(CpNet),
}

/// A network that predicts flows, with its options.
#[derive(Clone, Debug)]
pub struct FlowPredictor {
    network: FlowNetwork,
    size_model: Option<SizeModel>,
    /// See [`FlowOptions`].
    pub options: FlowOptions,
    device: Device,
    /// `[trained, labels]`: diameters stored in the file.
    diameters: [f64; 2],
    /// How long the network has run, clones included.
    pub(crate) time: Arc<Counter>,
}

impl FlowPredictor {
    /// Around Cellpose-SAM.
    pub fn cpsam(network: CpSam, device: Device) -> Self {
        let network = FlowNetwork::CpSam(network);
        let diameters = [CPSAM_DIAMETER; 2];
        Self { network, size_model: None, options: FlowOptions::default(), device, diameters, time: Arc::default() }
    }

    /// See [`crate::Model::released`].
    pub(crate) fn release_weights(&mut self) {
        if let FlowNetwork::CpSam(network) = &mut self.network {
            network.encoder.release_weights();
        }
    }

    /// Another number format for the encoder.
    ///
    /// # Errors
    /// `Unsupported` for another than `f32` with Cellpose 3.
    pub(crate) fn set_precision(&mut self, precision: Precision) -> Result<(), Error> {
        match &mut self.network {
            FlowNetwork::CpSam(network) => network.set_precision(precision),
            FlowNetwork::Cyto(_) if precision == Precision::F32 => {}
            FlowNetwork::Cyto(_) => {
                let message = format!("precision: Cellpose 3 runs in f32 only, not in {precision}");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        Ok(())
    }

    /// Around a network of Cellpose 3. A size model that belongs to it lies beside its file: `size_NAME.npy` or `NAME_size.npy`.
    ///
    /// # Errors
    /// `Format` for diameters that are none, or for a size model of another network.
    pub fn cyto(network: CpNet, path: Option<&Path>, device: Device) -> Result<Self, Error> {
        let stored = |values: Vec<f32>| values.first().copied().unwrap_or_default();
        let diameters = [values(network.diam_mean.val()), values(network.diam_labels.val())].map(stored).map(f64::from);
        if diameters.iter().any(|diameter| !diameter.is_finite() || *diameter <= 0.0) {
            let message = format!("diam_mean and diam_labels: expected diameters above 0, found {diameters:?}");
            return Err(Error::new(ErrorKind::Format, message));
        }
        let size_model = path.and_then(size_model_beside).map(|path| SizeModel::read(&path)).transpose()?;
        let channels = network.upsample.up.res_up_0.conv.conv_1.full.weight.lazy_shape()[1];
        if let Some(size_model) = size_model.as_ref().filter(|model| model.style_channels() != channels) {
            let message = format!("a size model for styles of {}: expected {channels}", size_model.style_channels());
            return Err(Error::new(ErrorKind::Format, message));
        }
        let network = FlowNetwork::Cyto(network);
        Ok(Self { network, size_model, options: FlowOptions::default(), device, diameters, time: Arc::default() })
    }

    /// The network, if it is Cellpose-SAM.
    pub fn into_cpsam(self) -> Option<CpSam> {
        match self.network {
            FlowNetwork::CpSam(network) => Some(network),
            FlowNetwork::Cyto(_) => None,
        }
    }

    /// Whether a diameter can be estimated.
    pub fn has_size_model(&self) -> bool {
        self.size_model.is_some()
    }

    /// Whether it sees two channels, cytoplasm and nuclei (Cellpose 3).
    pub fn sees_roles(&self) -> bool {
        matches!(self.network, FlowNetwork::Cyto(_))
    }

    /// The weights by their checkpoint names.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        match &self.network {
            FlowNetwork::CpSam(network) => state_dict(network, ""),
            FlowNetwork::Cyto(network) => state_dict(network, ""),
        }
    }

    /// Tiles of an image of `size`.
    pub fn tiles(&self, size: [u32; 2]) -> u64 {
        let scale = self.scale_of(self.options.diameter).unwrap_or(1.0);
        let axes = resize::scaled_size(size, scale).map(|side| self.axis(side).starts.len() as u64);
        axes[0] * axes[1]
    }

    /// The maps of an image.
    ///
    /// # Errors
    /// `Value` for a diameter that cannot be used, `Unsupported` where it cannot be estimated; what the device reports.
    pub fn fields(&self, image: &Rgb) -> Result<FlowFields, Error> {
        let scale = match self.options.diameter {
            FlowDiameter::Estimated => self.diameters[0] / self.estimate_diameter(image)?,
            other => self.scale_of(other)?,
        };
        let mut fields = FlowFields::with_capacity(image.size);
        fields.scale = scale;
        let mut read = |rect: Rect| Ok(image.crop(rect));
        let mut keep = |_: u32, row: FlowRow<'_>| {
            fields.push_row(row);
            Ok::<(), Error>(())
        };
        self.stream(image.size, scale, image.size, &mut read, &mut keep)?;
        Ok(fields)
    }

    /// The maps of an image that is read in rectangles, row by row from the top; `keep` is given the row's index. Returns the factor
    /// by which the network saw the image enlarged.
    ///
    /// # Errors
    /// As [`FlowPredictor::fields`]; `Unsupported` for a diameter to be estimated; what `read` and `keep` report.
    pub fn rows<E: From<Error>>(
        &self,
        size: [u32; 2],
        read: &mut dyn FnMut(Rect) -> Result<Rgb, E>,
        keep: &mut dyn FnMut(u32, FlowRow<'_>) -> Result<(), E>,
    ) -> Result<f64, E> {
        let scale = self.scale_of(self.options.diameter)?;
        self.stream(size, scale, size, read, keep)?;
        Ok(scale)
    }

    /// The factor that goes with a diameter.
    ///
    /// # Errors
    /// `Value` for a diameter that cannot be used, `Unsupported` for one to be estimated.
    pub fn scale_of(&self, diameter: FlowDiameter) -> Result<f64, Error> {
        let [trained, labels] = self.diameters;
        let scale = match diameter {
            FlowDiameter::Model => trained / labels,
            FlowDiameter::Pixels(pixels) => trained / pixels,
            FlowDiameter::Estimated => {
                let message = "the diameter is estimated from a whole image of moderate size; give it with --diameter";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        if scale > 0.0 && scale <= MAX_SCALE {
            return Ok(scale);
        }
        let message = format!("diameter: expected at least {} pixels, found {diameter:?}", trained / MAX_SCALE);
        Err(Error::new(ErrorKind::Value, message))
    }

    /// The diameter of an image's objects, pixels: first from the style alone, then from the objects found at that diameter.
    ///
    /// # Errors
    /// `Unsupported` without a size model; what the device reports.
    pub fn estimate_diameter(&self, image: &Rgb) -> Result<f64, Error> {
        let by_style = self.diameter_by_style(image)?;
        let diam_mean = self.size_model.as_ref().map_or(self.diameters[0], SizeModel::diam_mean);
        let scale = diam_mean / by_style;
        let size = resize::scaled_size(image.size, scale);
        let mut fields = FlowFields::with_capacity(size);
        let mut read = |rect: Rect| Ok(image.crop(rect));
        let mut keep = |_: u32, row: FlowRow<'_>| {
            fields.push_row(row);
            Ok::<(), Error>(())
        };
        self.stream(image.size, scale, size, &mut read, &mut keep)?;
        // Objects are filtered by their size in the image.
        let least = Flows::default().min_size as f64 * scale * scale;
        let found = Flows { min_size: least.round().max(1.0) as u64, ..Flows::default() }.segment(&fields);
        let mut areas: Vec<f64> = found.objects.iter().map(|object| (object.area_px as f64).sqrt() / scale).collect();
        if areas.is_empty() {
            return Ok(diam_mean);
        }
        areas.sort_by(f64::total_cmp);
        let middle = (areas[(areas.len() - 1) / 2] + areas[areas.len() / 2]) / 2.0;
        Ok(middle * 2.0 / std::f64::consts::PI.sqrt())
    }

    /// The diameter by the size model alone, pixels.
    ///
    /// # Errors
    /// `Unsupported` without a size model; what the device reports.
    pub fn diameter_by_style(&self, image: &Rgb) -> Result<f64, Error> {
        let Some(size_model) = &self.size_model else {
            let message = "the diameter cannot be estimated: there is no size model (size_NAME.npy) beside the network's \
                           file; give it with --diameter";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let scale = self.scale_of(FlowDiameter::Model)?;
        let mut read = |rect: Rect| Ok::<_, Error>(image.crop(rect));
        let style = self.stream(image.size, scale, image.size, &mut read, &mut |_, _| Ok(()))?;
        let length = style.iter().map(|value| value * value).sum::<f32>().sqrt();
        let style: Vec<f32> = style.iter().map(|value| value / length).collect();
        Ok(size_model.diameter(&style))
    }

    /// Runs a batch of tiles; `values` is row-major `[N, C, h, w]`, 1 being white. Maps `[N, 3, h, w]` and the sum of the styles.
    fn run(&self, tiles: Vec<f32>, [n, h, w]: [usize; 3]) -> Result<(Vec<f32>, Vec<f32>), Error> {
        let input = Tensor::<4>::from_data(TensorData::new(tiles, [n, self.channels(), h, w]), &self.device);
        self.time.time(|| match &self.network {
            FlowNetwork::CpSam(network) => Ok((values(network.forward(input)?), Vec::new())),
            FlowNetwork::Cyto(network) => {
                let (maps, style) = network.forward(input)?;
                let channels = style.dims()[1];
                Ok((values(maps), values(style.sum_dim(0).reshape([channels]))))
            }
        })
    }

    /// Channels of the network's input.
    fn channels(&self) -> usize {
        match &self.network {
            FlowNetwork::CpSam(_) => 3,
            FlowNetwork::Cyto(network) => network.channels(),
        }
    }

    fn tile_side(&self) -> usize {
        match &self.network {
            FlowNetwork::CpSam(network) => network.tile_side(),
            FlowNetwork::Cyto(_) => CYTO_TILE,
        }
    }

    fn axis(&self, side: u32) -> grid::Axis {
        let padding = match &self.network {
            FlowNetwork::CpSam(_) => Padding::ToTile,
            FlowNetwork::Cyto(_) => Padding::Least,
        };
        grid::Axis::new(side as usize, self.tile_side(), padding, &self.options)
    }
}

/// Where Cellpose keeps the size model of a network.
fn size_model_beside(path: &Path) -> Option<std::path::PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    let stem = path.file_stem()?.to_string_lossy();
    let names = [format!("size_{name}.npy"), format!("size_{stem}.npy"), format!("{name}_size.npy")];
    names.iter().map(|name| path.with_file_name(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
