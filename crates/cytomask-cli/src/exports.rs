//! The files `--export` and `convert --to` name: what each is called, and which writer makes it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use cytomask::export::{
    Column, Objects, Table, coco, csv, geojson, label_image, measure, ome_zarr, parquet, roi, svg, write_atomically,
};
use cytomask::{Image, Labels, ObjectRecord, Pixels};
use serde::Serialize;

use crate::draw;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Export {
    /// Label TIFF, 16-bit, or 32-bit from 65,536 objects on.
    Tiff,
    /// 16-bit label PNG (at most 65,535 objects).
    Png,
    /// Label TIFF with OME-XML.
    OmeTiff,
    /// OME-Zarr labels 0.4 with a pyramid.
    OmeZarr,
    /// OME-Zarr labels 0.5 (Zarr 3).
    #[value(name = "ome-zarr-0.5")]
    OmeZarr05,
    /// Outlines and measurements for QuPath.
    Geojson,
    /// ROI archive for ImageJ and Fiji.
    Roi,
    /// COCO JSON with run-lengths.
    Coco,
    /// Cellpose's `_cp_masks.tif`.
    Cellpose,
    /// Cellpose's `_cp_masks.png` (at most 65,535 objects).
    CellposePng,
    /// Table of measurements.
    Csv,
    /// The same table for pandas, R and DuckDB.
    Parquet,
    /// The image with outlines, PNG.
    Overlay,
    /// Outlines as a drawing.
    Svg,
}

impl Export {
    /// What the file of an image called `stem` is called.
    pub(crate) fn file_name(self, stem: &str) -> String {
        match self {
            Self::Tiff => format!("{stem}_labels.tif"),
            Self::Png => format!("{stem}_labels.png"),
            Self::OmeTiff => format!("{stem}_labels.ome.tif"),
            Self::OmeZarr | Self::OmeZarr05 => format!("{stem}_labels.ome.zarr"),
            Self::Geojson => format!("{stem}_objects.geojson"),
            Self::Roi => format!("{stem}_rois.zip"),
            Self::Coco => format!("{stem}_coco.json"),
            Self::Cellpose => label_image::cellpose_name(stem, "tif"),
            Self::CellposePng => label_image::cellpose_name(stem, "png"),
            Self::Csv => format!("{stem}_objects.csv"),
            Self::Parquet => format!("{stem}_objects.parquet"),
            Self::Overlay => format!("{stem}_overlay.png"),
            Self::Svg => format!("{stem}_contours.svg"),
        }
    }

    /// The kind a file's name says, if it does: `.png` is a label image, an overlay has to be asked for.
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_lowercase();
        let endings = [
            (".ome.tif", Self::OmeTiff),
            (".ome.tiff", Self::OmeTiff),
            (".tif", Self::Tiff),
            (".tiff", Self::Tiff),
            (".png", Self::Png),
            (".zarr", Self::OmeZarr),
            (".geojson", Self::Geojson),
            (".zip", Self::Roi),
            (".json", Self::Coco),
            (".csv", Self::Csv),
            (".parquet", Self::Parquet),
            (".svg", Self::Svg),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, export)| export)
    }

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is a label image `evaluate` and others read.
    pub(crate) fn is_label_image(self) -> bool {
        matches!(self, Self::Tiff | Self::Png | Self::OmeTiff | Self::Cellpose | Self::CellposePng)
    }

    /// Whether it holds intensities.
    fn measures(self) -> bool {
        matches!(self, Self::Csv | Self::Parquet | Self::Geojson)
    }

    /// Whether it takes numbers from the table.
    fn has_numbers(self) -> bool {
        self.measures() || matches!(self, Self::Coco | Self::OmeZarr | Self::OmeZarr05)
    }
}

/// How QuPath takes the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ObjectType {
    #[default]
    Detection,
    Cell,
    Annotation,
}

/// What the exports say of all objects.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Exports")]
pub(crate) struct ExportOptions {
    /// GeoJSON: what QuPath takes the objects for.
    #[arg(long = "object_type", value_enum, default_value_t = ObjectType::Detection)]
    pub(crate) object_type: ObjectType,
    /// GeoJSON and COCO: a class for all objects.
    #[arg(long, value_name = "NAME")]
    pub(crate) classification: Option<String>,
}

/// One image's results, and what is known of the image.
pub(crate) struct Subject<'a> {
    /// The image's file name.
    pub(crate) file_name: String,
    /// Objects' UUIDs depend on it.
    pub(crate) stem: String,
    pub(crate) labels: &'a Labels,
    /// Columns beside the measurements.
    pub(crate) known: Vec<Column>,
    /// For intensities.
    pub(crate) image: Option<&'a Image>,
    /// For the overlay.
    pub(crate) pixels: Option<&'a dyn Pixels>,
    pub(crate) channel_names: Vec<String>,
    pub(crate) pixel_size_um: Option<[f64; 2]>,
}

/// Writes the files; each appears whole or not at all.
pub(crate) fn write(files: &[(Export, PathBuf)], subject: Subject<'_>, options: &ExportOptions) -> Result<()> {
    let wants = |what: fn(Export) -> bool| files.iter().any(|&(export, _)| what(export));
    let is_picture = |export: Export| export.is_label_image() || export == Export::Overlay;
    let labels = subject.labels;
    let objects = if files.iter().all(|&(export, _)| is_picture(export)) { None } else { Some(Objects::new(labels)) };
    let table = match &objects {
        Some(objects) if wants(Export::has_numbers) => {
            let image = subject.image.filter(|_| wants(Export::measures));
            let measurements = measure::measure(objects, image)?;
            Table::new(objects, &measurements, subject.known, &subject.channel_names, subject.pixel_size_um)?
        }
        _ => Table::default(),
    };
    for (export, path) in files {
        let pixel_size = subject.pixel_size_um;
        match (export, &objects) {
            (Export::Tiff | Export::Cellpose, _) => label_image::write_tiff(path, labels, pixel_size)?,
            (Export::OmeTiff, _) => label_image::write_ome_tiff(path, labels, &subject.stem, pixel_size)?,
            (Export::Png | Export::CellposePng, _) => label_image::write_png(path, labels)
                .context("write labels of more than 16 bits instead: --export tiff (or name the output .tif)")?,
            (Export::Overlay, _) => {
                let Some(pixels) = subject.pixels else { bail!("{}: an overlay needs the image", path.display()) };
                draw::write_overlay(path, pixels, labels)?;
            }
            (_, None) => {}
            (Export::OmeZarr | Export::OmeZarr05, Some(objects)) => {
                let version = if *export == Export::OmeZarr { ome_zarr::Version::V04 } else { ome_zarr::Version::V05 };
                match ome_zarr::image_group_of(path).zip(path.file_name().and_then(|name| name.to_str())) {
                    Some((group, name)) => ome_zarr::write_into_image(group, name, objects, &table)?,
                    None => ome_zarr::write(path, objects, &table, version, pixel_size)?,
                }
            }
            (Export::Geojson, Some(objects)) => {
                let options = geojson::Options {
                    object_type: match options.object_type {
                        ObjectType::Detection => geojson::ObjectType::Detection,
                        ObjectType::Cell => geojson::ObjectType::Cell,
                        ObjectType::Annotation => geojson::ObjectType::Annotation,
                    },
                    classification: options.classification.clone(),
                    image_name: subject.stem.clone(),
                };
                write_atomically(path, |mut writer| geojson::write(&mut writer, objects, &table, &options))?;
            }
            (Export::Roi, Some(objects)) => write_atomically(path, |writer| roi::write(writer, objects))?,
            (Export::Coco, Some(objects)) => {
                let category = options.classification.as_deref().unwrap_or("cell");
                write_atomically(path, |mut writer| {
                    coco::write(&mut writer, objects, &table, &subject.file_name, category)
                })?;
            }
            (Export::Csv, Some(_)) => write_atomically(path, |mut writer| csv::write(&mut writer, &table))?,
            (Export::Parquet, Some(_)) => {
                let notes = [("image", subject.file_name.as_str())];
                write_atomically(path, |mut writer| parquet::write(&mut writer, &table, &notes))?;
            }
            (Export::Svg, Some(objects)) => write_atomically(path, |mut writer| svg::write(&mut writer, objects))?,
        }
    }
    Ok(())
}

/// Two kinds of one name would overwrite each other.
pub(crate) fn refuse_same_files(files: &[(Export, PathBuf)]) -> Result<()> {
    for (index, (export, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files[..index].iter().find(|(_, other)| other == path) {
            bail!("{} and {}: both would be {}", other.name(), export.name(), path.display());
        }
    }
    Ok(())
}

/// What a strategy knows of its objects, as columns.
pub(crate) fn columns(objects: &[ObjectRecord]) -> Vec<Column> {
    type Known = (&'static str, &'static str, fn(&ObjectRecord) -> Option<f32>);
    const KNOWN: [Known; 6] = [
        ("score", "Score", |object| Some(object.score)),
        ("predicted_iou", "Predicted IoU", |object| object.predicted_iou),
        ("stability_score", "Stability score", |object| object.stability_score),
        ("prompt_y", "", |object| object.prompt.map(|[y, _]| y)),
        ("prompt_x", "", |object| object.prompt.map(|[_, x]| x)),
        ("cut", "Cut", |object| Some(f32::from(u8::from(object.cut)))),
    ];
    KNOWN
        .into_iter()
        .map(|(name, title, value)| {
            Column::numbers(name, title, objects.iter().map(|object| value(object).map_or(f64::NAN, f64::from)))
        })
        .collect()
}

/// `SIZE` or `Y,X`, in µm.
pub(crate) fn pixel_size(text: &str) -> Result<[f64; 2], String> {
    let wrong = || format!("expected the size of a pixel in µm, one number or Y,X, found {text:?}");
    let numbers: Option<Vec<f64>> = text
        .split(',')
        .map(|part| part.trim().parse::<f64>().ok().filter(|size| size.is_finite() && *size > 0.0))
        .collect();
    match *numbers.ok_or_else(wrong)? {
        [both] => Ok([both, both]),
        [y, x] => Ok([y, x]),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_agree() {
        for export in Export::value_variants() {
            let named = Export::of_path(Path::new(&export.file_name("cells.1")));
            let expected = match export {
                Export::OmeZarr05 => Export::OmeZarr,
                Export::Cellpose => Export::Tiff,
                Export::CellposePng | Export::Overlay => Export::Png,
                export => *export,
            };
            assert_eq!(named, Some(expected), "{export:?}");
        }
        assert_eq!(Export::OmeZarr05.name(), "ome-zarr-0.5");
        assert_eq!(Export::of_path(Path::new("folder")), None);
    }

    #[test]
    fn pixel_sizes_are_positive() {
        assert_eq!(pixel_size("0.5"), Ok([0.5, 0.5]));
        assert_eq!(pixel_size("0.5, 0.25"), Ok([0.5, 0.25]));
        for wrong in ["", "0", "-1", "nan", "1,2,3", "a"] {
            assert!(pixel_size(wrong).unwrap_err().contains("µm"), "{wrong}");
        }
    }
}
