//! `cytomask segment`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use cytomask::{Fields, Normalization, Segmenter, Selection};
use serde_json::{Value, json};

use crate::args::SegmentArgs;
use crate::batch::Batch;
use crate::outputs::Targets;
use crate::timings::{Stage, Timings};
use crate::{choose, estimate, exports, inputs, outputs, settings};

/// Segments every image; one that fails is reported and does not stop the rest.
pub(crate) fn run(arguments: &SegmentArgs) -> Result<()> {
    let (output, batch) = (&arguments.output, &arguments.batch);
    let selection = inputs::Selection::new(&batch.pattern, &batch.exclude, batch.recursive, output)?;
    let mut images = inputs::select(&arguments.images, &selection)?;
    if arguments.choose.every_time() {
        let chosen = choose::selection(&arguments.choose)?;
        images = inputs::by_time(images, |path| Some(chosen.open(path).ok()?.description().times));
    }
    if outputs::as_label_file(output).is_some() {
        if images.len() != 1 {
            bail!("{}: a label file needs exactly one image, found {}; name a folder", output.display(), images.len());
        }
    } else if output.is_file() {
        bail!("{}: expected a folder for the results, found a file", output.display());
    }
    inputs::refuse_same_names(&images)?;
    exports::refuse_same_files(&Targets::new(output, "image", &outputs::chosen_exports(arguments)).exports)?;

    let (timings, begun) = (Timings::default(), Instant::now());
    let segmenter = prepare(arguments)?;
    timings.add(Stage::Open, begun);
    if let (Some(volume), false) = (arguments.flows.volume(), arguments.dry_run) {
        return crate::volume::run(arguments, &segmenter, &images, volume);
    }
    if arguments.dry_run {
        let images: Vec<PathBuf> = images.into_iter().map(|input| input.path).collect();
        return estimate::run(arguments, &segmenter, &images);
    }
    let folder = match outputs::as_label_file(output) {
        Some(_) => output.parent().filter(|parent| !parent.as_os_str().is_empty()),
        None => Some(output.as_path()),
    };
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    }
    Batch::new(arguments, &segmenter, &images, timings)?.run()
}

/// Opens the model and puts the flags together.
fn prepare(arguments: &SegmentArgs) -> Result<Segmenter> {
    let mut model = settings::open_recorded_model(&arguments.model, arguments.compat)?;
    model = settings::scaled(model, &arguments.scale).map_err(|error| anyhow!("--{error}"))?;
    if arguments.choose.diameter.is_some() || arguments.choose.diameter_um.is_some() {
        if arguments.scale != "auto" {
            bail!("--diameter and --scale both say how large the image is seen; give one of them");
        }
        if model.scale().is_none() && model.flow_predictor().is_none() {
            bail!(
                "--diameter: {} always sees its longer side as 1024 pixels; use --tile_shape to enlarge",
                model.name()
            );
        }
    }
    model = arguments.flows.apply(model, arguments.choose.diameter)?;
    let strategy = settings::strategy(arguments, &model)?;
    let mut normalization = settings::normalization(arguments.normalize, &model);
    if let Some(predictor) = model.flow_predictor() {
        if arguments.tile_shape.is_some() || arguments.halo.is_some() {
            bail!("--tile_shape and --halo: {} has tiles of its own; see --tile_overlap", model.name());
        }
        let choose = &arguments.choose;
        let chosen =
            !choose.plane.channels.is_empty() || choose.plane.nucleus.is_some() || choose.plane.cytoplasm.is_some();
        if predictor.sees_roles() && choose.plane.channels.len() > 2 {
            let found = choose.plane.channels.len();
            bail!("--channels: {} sees one or two (cytoplasm, nuclei), found {found}", model.name());
        }
        if let (Normalization::Cellpose { grey, .. }, true) = (&mut normalization, chosen) {
            *grey = false;
        }
    }
    let mut segmenter =
        Segmenter::new(model).strategy(strategy).normalization(normalization).skip_empty(arguments.skip_empty);
    if let Some(shape) = arguments.tile_shape {
        segmenter = segmenter.tile_shape((shape != [0, 0]).then_some(shape));
    }
    // Several jobs with one image are for its tiles.
    let alone = matches!(arguments.images.as_slice(), [path] if path.is_file());
    if alone {
        segmenter = segmenter.tile_jobs(arguments.batch.jobs);
    }
    if let Some(halo) = arguments.halo {
        segmenter = segmenter.halo(halo);
    }
    Ok(segmenter)
}

/// What made a result, as far as it is known before an image is read: version, model, settings. It opens every provenance, and an
/// image whose provenance says the same is finished.
///
/// No times or machine names: the same work leaves the same files.
pub(crate) fn identity(arguments: &SegmentArgs, segmenter: &Segmenter) -> Result<Value> {
    let model = segmenter.model();
    let mut identity = json!({
        "program": "cytomask",
        "version": env!("CARGO_PKG_VERSION"),
        "model": { "name": model.name(), "family": model.family().name(), "sha256": cytomask::model_sha256(model)?, "licence": model.licence() },
        "mode": segmenter.chosen_strategy().name(),
        "settings": segmenter.chosen_strategy().settings(),
        "normalization": format!("{:?}", segmenter.chosen_normalization()),
        "arguments": flags(arguments)?,
    });
    // Said only where it may have changed a result, so that older results of the same work stay finished.
    if model.precision() != cytomask::Precision::F32 {
        identity["precision"] = model.precision().name().into();
    }
    Ok(identity)
}

/// Every flag that was given and may change a result, files by their hashes. New flags come in by themselves.
fn flags(arguments: &SegmentArgs) -> Result<Value> {
    let mut flags = serde_json::to_value(arguments)?;
    if let Value::Object(flags) = &mut flags {
        flags.retain(|_, value| {
            !matches!(value, Value::Null | Value::Bool(false)) && value.as_array().is_none_or(|list| !list.is_empty())
        });
    }
    let files =
        [("decoder", &arguments.model.decoder), ("prompts", &arguments.prompts.prompts), ("fields", &arguments.fields)];
    for (name, path) in files {
        if let Some(path) = path {
            flags[name] = json!({ "sha256": cytomask::weights::sha256_file(path)? });
        }
    }
    Ok(flags)
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
pub(crate) fn sizes<'a>(images: &'a [PathBuf], selection: &Selection) -> Vec<(&'a PathBuf, Result<[u32; 2]>)> {
    let size = |path: &PathBuf| {
        let source = selection.open(path)?;
        selection.resolve(source.description()).with_context(|| path.display().to_string())?;
        Ok(source.description().size)
    };
    images.iter().map(|path| (path, size(path))).collect()
}
