//! `cytomask convert`: a label image from any program into the files of `segment --export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::{Image, Normalization, ReadOptions};

use crate::exports::{self, Export, ExportOptions, Subject, pixel_size};
use crate::inputs;
use crate::progress::say;

/// Suffixes of label images that are no part of the image's name.
const SUFFIXES: [&str; 3] = ["_labels", "_cp_masks", "_masks"];

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// A label image (TIFF or PNG): 0 is background, every other number an object.
    pub(crate) labels: PathBuf,

    /// What to write, with commas between. [default: what the output's name says]
    #[arg(long = "to", value_name = "NAME", value_enum, value_delimiter = ',')]
    pub(crate) to: Vec<Export>,

    /// A file, a folder, or IMAGE.zarr/labels/NAME to add labels to an OME-Zarr image.
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) output: PathBuf,

    /// The image the labels belong to, for intensities and the overlay.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<PathBuf>,

    /// Size of a pixel in µm, for measurements and metadata.
    #[arg(long = "pixel_size", value_name = "UM|Y,X", value_parser = pixel_size)]
    pub(crate) pixel_size: Option<[f64; 2]>,

    #[command(flatten)]
    pub(crate) options: ExportOptions,
}

/// Reads the labels and writes the files.
pub(crate) fn run(arguments: &ConvertArgs) -> Result<()> {
    let stem = stem(arguments);
    let files = files(arguments, &stem)?;
    let labels = cytomask::read_labels(&arguments.labels)?;
    let image = match &arguments.image {
        Some(path) => {
            let image = Image::open(path, &ReadOptions::default())?;
            if image.size != labels.size() {
                bail!(
                    "{}: expected {} × {} pixels, as {} has, found {} × {}",
                    path.display(),
                    labels.size()[0],
                    labels.size()[1],
                    arguments.labels.display(),
                    image.size[0],
                    image.size[1]
                );
            }
            Some(image)
        }
        None => None,
    };
    let overlay = files.iter().any(|(export, _)| *export == Export::Overlay);
    // For the eye only; the bounds are those of most viewers.
    let view = Normalization::Percentile { low: 0.1, high: 99.9 };
    let rgb = image.as_ref().filter(|_| overlay).map(|image| image.to_rgb(view)).transpose()?;
    if let Some(folder) = files[0].1.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // Not the inside of an OME-Zarr image: whether there is one is for the writer to see.
        if cytomask::export::ome_zarr::image_group_of(&files[0].1).is_none() {
            std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
        }
    }
    let named = arguments.image.as_ref().unwrap_or(&arguments.labels);
    let subject = Subject {
        file_name: named.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        stem,
        labels: &labels,
        known: Vec::new(),
        image: image.as_ref(),
        pixels: rgb.as_ref().map(|rgb| rgb as &dyn cytomask::Pixels),
        channel_names: Vec::new(),
        pixel_size_um: arguments.pixel_size,
    };
    exports::write(&files, subject, &arguments.options)?;
    for (_, path) in &files {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// What the results are called by: the image's name, or that of the labels without what programs add to it.
fn stem(arguments: &ConvertArgs) -> String {
    if let Some(image) = &arguments.image {
        return inputs::stem(image);
    }
    let stem = inputs::stem(&arguments.labels);
    let stem = stem.strip_suffix(".ome").unwrap_or(&stem);
    SUFFIXES
        .iter()
        .find_map(|suffix| stem.strip_suffix(suffix))
        .filter(|stem| !stem.is_empty())
        .unwrap_or(stem)
        .to_owned()
}

/// Kinds and paths of the files, before anything is read.
fn files(arguments: &ConvertArgs, stem: &str) -> Result<Vec<(Export, PathBuf)>> {
    let output = &arguments.output;
    let inside = cytomask::export::ome_zarr::image_group_of(output).is_some();
    let named = if inside { Some(Export::OmeZarr) } else { Export::of_path(output) };
    let files: Vec<(Export, PathBuf)> = match (arguments.to.as_slice(), named) {
        ([], None) => bail!("{}: say what to write with --to, or name a file such as cells.geojson", output.display()),
        ([], Some(named)) => vec![(named, output.clone())],
        (&[export], Some(_)) => vec![(export, output.clone())],
        (several, Some(_)) if several.len() > 1 => {
            bail!("{}: expected a folder for {} files, found the name of one", output.display(), several.len())
        }
        (exports, _) => exports.iter().map(|&export| (export, output.join(export.file_name(stem)))).collect(),
    };
    if arguments.image.is_none() && files.iter().any(|(export, _)| *export == Export::Overlay) {
        bail!("--to overlay: needs the image, --image IMAGE");
    }
    exports::refuse_same_files(&files)?;
    for (_, path) in &files {
        if same_file(path, &arguments.labels) || arguments.image.as_ref().is_some_and(|image| same_file(path, image)) {
            bail!("{}: would replace what is read", path.display());
        }
    }
    Ok(files)
}

/// Whether both are there and the same.
fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
