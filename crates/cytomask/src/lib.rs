//! One door to everything: open an image, load a model, choose a strategy, get instances.
//!
//! ```no_run
//! use cytomask::{Apg, Image, ReadOptions, Segmenter};
//!
//! let segmenter = Segmenter::load("cytomask-t")?.strategy(Apg::default());
//! let image = Image::open(std::path::Path::new("cells.tif"), &ReadOptions::default())?;
//! let segmentation = segmenter.run(&image)?;
//! println!("{} objects", segmentation.objects.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`job`] holds the same work in pieces, for programs that spread tiles over machines.

pub mod batch;
pub mod compare;
mod each;
pub mod embedded;
mod error;
mod estimate;
mod flow_bands;
mod image_table;
pub mod job;
mod label_file;
mod large;
mod pixels;
pub mod prepared;
pub mod reproduce;
mod scales;
mod segmenter;
pub mod selection;
mod settings;
mod settings_file;
mod strategy;
#[cfg(feature = "train")]
pub mod training;
pub mod tune;
pub mod volume;

pub use cytomask_datasets as datasets;
pub use cytomask_eval as eval;
pub use cytomask_export as export;
pub use cytomask_image::{
    Basis, Description, Error as ImageError, ErrorKind as ImageErrorKind, IMAGE_EXTENSIONS, Image, LabelStack, Labels,
    Mask, Normalization, PlaneIndex, Projection, ReadOptions, Rect, Rgb, SampleType, Source, Statistics, Tile,
    header_size, is_image_folder, output, plate_images, tiles,
};
pub use cytomask_models::flows::VolumeOptions;
pub use cytomask_models::{
    DeviceChoice, Embedding, Family, FlowDiameter, FlowOptions, Model, NetworkSeconds, Precision, ScaleChoice,
    machine_rate,
};
pub use cytomask_report as report;
pub use cytomask_segment::ops::nms::Overlap;
pub use cytomask_segment::{
    Ais, Amg, Apg, BoxPrompt, FieldModel, Fields, FlowFields, Flows, ObjectRecord, PointPrompt, Prompt, PromptModel,
    Prompted, Segmentation, amg, apg,
};
#[cfg(feature = "train")]
pub use cytomask_train as train;
pub use cytomask_weights as weights;
pub use error::{Error, ErrorKind};
pub use estimate::{Estimate, estimate, memory_bytes};
pub use label_file::{read_label_stack, read_labels};
pub use pixels::{Pixels, StoredPixels};
pub use prepared::Prepared;
pub use segmenter::{Phase, Segmenter, load_model, load_recorded_model, model_sha256};
pub use selection::{ChannelChoice, Diameter, Resolved, Selected, Selection};
pub use settings_file::{SettingsFile, SettingsModel};
pub use strategy::Strategy;
pub use volume::Volume;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
