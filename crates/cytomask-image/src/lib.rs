//! Pixels, coordinates, masks, labels, frames and file formats.
//!
//! This crate knows nothing of networks or strategies. Axes are `y, x` everywhere: arrays are `[H, W]` or `[H, W, C]`,
//! sizes are `[h, w]`, rectangles are half-open. Orders from elsewhere enter through named doors (`from_xywh`, `from_xyxy`).

mod error;
mod formats;
mod frame;
mod header;
mod image;
mod label_stack;
mod labels;
mod limits;
mod mask;
pub mod output;
mod overview;
mod read;
mod rect;
mod resample;
mod source;
mod tile;

pub use error::{Error, ErrorKind};
pub use formats::{IMAGE_EXTENSIONS, is_image_folder, plate_images};
pub use frame::{LogitFrame, LogitMap};
pub use header::header_size;
pub use image::{Image, Normalization, Rgb, SampleType};
pub use label_stack::LabelStack;
pub use labels::Labels;
pub use limits::{Limits, ShowBands};
pub use mask::Mask;
pub use output::{
    TiffNotes, WriteSeek, write_atomically, write_folder_atomically, write_labels_png16, write_labels_tiff,
    write_labels_tiff_with, write_rgb_png, write_rgba_png,
};
pub use overview::{Basis, Statistics};
pub use read::{ReadOptions, read_label_stack, read_labels};
pub use rect::Rect;
pub use resample::resize_bilinear;
pub use source::{Description, MAX_RECT_PIXELS, PlaneIndex, Projection, Source};
pub use tile::{Tile, tiles};

/// A `Result` whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
