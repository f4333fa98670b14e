//! `cytomask segment`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cytomask::{Fields, Image, Model, Phase, ReadOptions, Segmenter};
use serde_json::{Value, json};

use crate::args::SegmentArgs;
use crate::outputs::Targets;
use crate::progress::{Progress, print, say};
use crate::{estimate, inputs, outputs, settings};

/// Segments every image; one that fails is reported and does not stop the rest.
pub(crate) fn run(arguments: &SegmentArgs) -> Result<()> {
    let images = inputs::images(&arguments.images)?;
    let output = &arguments.output;
    if outputs::as_label_file(output).is_some() {
        if images.len() != 1 {
            bail!("{}: a label file needs exactly one image, found {}; name a folder", output.display(), images.len());
        }
    } else if output.is_file() {
        bail!("{}: expected a folder for the results, found a file", output.display());
    }
    inputs::refuse_same_names(&images)?;

    let segmenter = prepare(arguments)?;
    if arguments.dry_run {
        return estimate::run(arguments, &segmenter, &images);
    }
    let folder = match outputs::as_label_file(output) {
        Some(_) => output.parent().filter(|parent| !parent.as_os_str().is_empty()),
        None => Some(output.as_path()),
    };
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    }

    let mut progress = Progress::new("segmenting");
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (index, path) in images.iter().enumerate() {
        // Parts of an image count a thousandth each, so that the bar moves within images too.
        let mut report =
            |part: f64| progress.set((index as f64 * 1000.0 + part * 1000.0) as u64, images.len() as u64 * 1000);
        report(0.0);
        match segment_one(arguments, &segmenter, path, &mut report) {
            Ok(summary) => {
                progress.line(&format!(
                    "{}: {} objects in {:.1} s",
                    path.display(),
                    summary["objects"],
                    summary["seconds"].as_f64().unwrap_or_default()
                ));
                done.push(summary);
            }
            Err(error) => {
                progress.line(&format!("error: {error:#}"));
                failed.push(json!({ "input": path, "error": format!("{error:#}") }));
            }
        }
    }
    drop(progress);
    if arguments.json {
        print(&format!("{:#}", json!({ "images": done, "failed": failed })))?;
    } else if !done.is_empty() {
        say(&format!("results in {}", output.display()));
    }
    if !failed.is_empty() {
        bail!("{} of {} images failed", failed.len(), images.len());
    }
    Ok(())
}

/// Opens the model and puts the flags together.
fn prepare(arguments: &SegmentArgs) -> Result<Segmenter> {
    let device = settings::device(arguments.model.device);
    let mut model = cytomask::load_model(&arguments.model.model, arguments.model.decoder.as_deref(), device)?;
    model = with_scale(model, &arguments.scale)?;
    let strategy = settings::strategy(arguments, &model)?;
    let normalization = settings::normalization(arguments.normalize, &model);
    let mut segmenter = Segmenter::new(model).strategy(strategy).normalization(normalization);
    if let Some(shape) = arguments.tile_shape {
        segmenter = segmenter.tile_shape((shape != [0, 0]).then_some(shape));
    }
    if let Some(halo) = arguments.halo {
        segmenter = segmenter.halo(halo);
    }
    Ok(segmenter)
}

fn with_scale(model: Model, text: &str) -> Result<Model> {
    if text == "auto" {
        return Ok(model);
    }
    let factor: f32 = text
        .parse()
        .ok()
        .filter(|factor| (0.05..=20.0).contains(factor))
        .with_context(|| format!("--scale: expected `auto` or a factor from 0.05 to 20, found {text:?}"))?;
    if model.scale().is_none() {
        bail!("--scale: {} always sees its longer side as 1024 pixels; use --tile_shape to enlarge", model.name());
    }
    Ok(model.with_scale(cytomask::ScaleChoice::Fixed(factor)))
}

fn segment_one(
    arguments: &SegmentArgs,
    segmenter: &Segmenter,
    path: &Path,
    report: &mut dyn FnMut(f64),
) -> Result<Value> {
    let start = Instant::now();
    let options = ReadOptions { page: arguments.page, ..ReadOptions::default() };
    let image = Image::open(path, &options)?;
    let rgb = image.to_rgb(segmenter.chosen_normalization()).map_err(|error| error.with_path(path))?;
    let fields = arguments.fields.as_deref().map(read_fields).transpose()?;
    let mut tiles = (0, 1);
    let segmentation = segmenter
        .run_rgb(&rgb, fields.as_ref(), &mut |phase| match phase {
            Phase::Tile { done, total } => {
                tiles = (done, total);
                report(done as f64 / total as f64);
            }
            Phase::Prompts { done, total } => {
                report((tiles.0 as f64 + 0.5 + 0.5 * done as f64 / total.max(1) as f64) / tiles.1 as f64);
            }
            Phase::Merge => {}
        })
        .with_context(|| path.display().to_string())?;
    let targets = Targets::new(&arguments.output, &inputs::stem(path), arguments.format, !arguments.no_overlay);
    let seconds = start.elapsed().as_secs_f64();
    targets.write(&rgb, &segmentation, &provenance(segmenter, path, &image, seconds, segmentation.objects.len())?)?;
    Ok(json!({
        "input": path,
        "objects": segmentation.objects.len(),
        "seconds": seconds,
        "labels": targets.labels,
        "overlay": targets.overlay,
        "table": targets.table,
        "provenance": targets.provenance,
    }))
}

/// What made a result: version, model, settings, input.
fn provenance(segmenter: &Segmenter, path: &Path, image: &Image, seconds: f64, objects: usize) -> Result<Value> {
    let model = segmenter.model();
    let sha256 = cytomask::weights::sha256_file(path)?;
    Ok(json!({
        "program": "cytomask",
        "version": env!("CARGO_PKG_VERSION"),
        "model": { "name": model.name(), "family": model.family().name(), "sha256": cytomask::model_sha256(model)?, "licence": model.licence() },
        "mode": segmenter.chosen_strategy().name(),
        "settings": segmenter.chosen_strategy().settings(),
        "normalization": format!("{:?}", segmenter.chosen_normalization()),
        "input": { "path": path, "sha256": sha256, "size": image.size, "channels": image.channels },
        "objects": objects,
        "seconds": seconds,
    }))
}

/// Decoder maps made elsewhere: safetensors with `fields` `[3, H, W]`, f32.
pub(crate) fn read_fields(path: &Path) -> Result<Fields> {
    let checkpoint = cytomask::weights::Checkpoint::open_tensors(path)?;
    let view = checkpoint.get("fields").with_context(|| format!("{}: no tensor `fields`", path.display()))?;
    let &[3, h, w] = view.shape else {
        bail!("{}: `fields`: expected [3, H, W], found {:?}", path.display(), view.shape);
    };
    let values = view.to_f32()?;
    let map = |index: usize| values[index * h * w..(index + 1) * h * w].to_vec();
    Ok(Fields { size: [h as u32, w as u32], foreground: map(0), center_distance: map(1), boundary_distance: map(2) })
}

/// The images a dry run looks at, with their sizes.
pub(crate) fn sizes(images: &[PathBuf], page: u32) -> Vec<(&PathBuf, Result<[u32; 2]>)> {
    let options = ReadOptions { page, ..ReadOptions::default() };
    images.iter().map(|path| (path, Image::open(path, &options).map(|image| image.size).map_err(Into::into))).collect()
}
