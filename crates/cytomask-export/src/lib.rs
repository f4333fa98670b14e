//! From a label image to the files other programs open, and to a table of measurements.
//!
//! | for | module |
//! |---|---|
//! | label images: TIFF, OME-TIFF, PNG, Cellpose's names | [`label_image`] |
//! | OME-Zarr labels with a pyramid (napari, Fractal, BigDataViewer) | [`ome_zarr`] |
//! | QuPath | [`geojson`] |
//! | ImageJ and Fiji | [`roi`] |
//! | COCO (detectron2, pycocotools, annotation tools) | [`coco`] |
//! | browsers and drawing programs | [`svg`] |
//! | spreadsheets, pandas, R | [`csv`], [`parquet`] |
//!
//! All of them start from [`Objects`], the runs of pixels of every object, and a [`Table`] with one row for each. What is
//! measured, and how it agrees with scikit-image, is in [`measure`]; exact outlines are in [`outline`]. Segmenting and drawing
//! over the image are left to others.
//!
//! Errors are those of `cytomask-image`, through whose [`write_atomically`] files go.

pub mod coco;
pub mod color;
pub mod csv;
pub mod geojson;
mod hull;
mod intensity;
mod json;
pub mod label_image;
pub mod measure;
mod objects;
pub mod ome_zarr;
pub mod outline;
pub mod parquet;
pub mod roi;
mod shape;
pub mod svg;
mod table;
mod zarr;

pub use cytomask_image::{Error, ErrorKind, Result, WriteSeek, write_atomically};
pub use objects::Objects;
pub use table::{Column, Table, Values};

/// A writer that refused, in this crate's words.
fn io_failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot write").with_source(error)
}
