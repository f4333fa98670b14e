//! `cytomask segment --do_3D` and `--stitch_threshold`: a label stack for each stack.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cytomask::{Phase, Projection, Rect, Segmenter, Selection, Volume, output};
use serde_json::{Value, json};

use crate::args::SegmentArgs;
use crate::inputs::Input;
use crate::outputs::{PROVENANCE_SUFFIX, as_label_file};
use crate::progress::{Progress, print, say};
use crate::{Exit, FAILED, choose, segment};

/// Voxels of a stack, which is held as a whole.
const MAX_VOXELS: u64 = 1 << 31;

/// Segments every stack; one that fails is reported and does not stop the rest.
pub(crate) fn run(
    arguments: &SegmentArgs,
    segmenter: &Segmenter,
    inputs: &[Input],
    (flag, volume): (&str, Volume),
) -> Result<()> {
    if !arguments.exports.is_empty() || arguments.format.is_some() {
        bail!("{flag}: the result is a label stack (TIFF) with its provenance; --export and --format are for images");
    }
    if arguments.choose.plane.z.is_some() || arguments.choose.plane.page.is_some() {
        bail!("{flag}: takes all slices; --z and --page choose one");
    }
    if arguments.fields.is_some() {
        bail!("{flag}: --fields is for images");
    }
    let selection = choose::selection(&arguments.choose)?;
    let identity = segment::identity(arguments, segmenter)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for input in inputs {
        match one(arguments, segmenter, &selection, &identity, input, (flag, volume)) {
            Ok(record) => done.push(record),
            Err(error) => {
                say(&format!("error: {error:#}"));
                failed.push(json!({ "input": input.path, "error": format!("{error:#}") }));
            }
        }
    }
    if arguments.json {
        print(&format!("{:#}", json!({ "images": done, "skipped": [], "failed": failed })))?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    say(&format!("error: {} of {} stacks failed", failed.len(), inputs.len()));
    bail!(Exit(FAILED))
}

fn one(
    arguments: &SegmentArgs,
    segmenter: &Segmenter,
    selection: &Selection,
    identity: &Value,
    input: &Input,
    (flag, volume): (&str, Volume),
) -> Result<Value> {
    let start = Instant::now();
    let named = || input.shown();
    let source = selection.open(&input.path)?;
    let held = source.description();
    // Every slice is used: nothing to warn of.
    let all = Selection { projection: Some(Projection::Plane(0)), ..input.part(selection) };
    let from = all.resolve(held).with_context(named)?;
    let ([h, w], depth) = (held.size, held.depth);
    if depth < 2 {
        bail!("{}: {flag} needs a stack: expected at least two slices (z), found a single plane of {h} × {w}", named());
    }
    let voxels = u64::from(h) * u64::from(w) * u64::from(depth);
    if voxels > MAX_VOXELS {
        bail!("{}: {flag}: {depth} × {h} × {w} voxels: expected at most {MAX_VOXELS}", named());
    }
    let planes = (0..depth)
        .map(|z| source.read_image(from.time, Projection::Plane(z), &from.channels, Rect::whole([h, w])))
        .collect::<Result<Vec<_>, _>>()?;
    let scaled = from.diameter_px.map(|pixels| segmenter.with_diameter(pixels));
    let mut progress = Progress::new("planes");
    let labels = scaled
        .as_ref()
        .unwrap_or(segmenter)
        .run_volume(&planes, volume, &mut |phase| {
            if let Phase::Tile { done, total } = phase {
                progress.set(done as u64, total as u64);
            }
        })
        .with_context(named)?;
    drop(progress);
    let (target, provenance_path) = targets(&arguments.output, input);
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    }
    output::write_label_stack_tiff(&target, &labels)?;
    let objects = labels.as_slice().iter().copied().max().unwrap_or(0);
    let mut provenance = identity.clone();
    provenance["input"] = json!({
        "path": input.path,
        "sha256": crate::inputs::sha256(&input.path)?,
        "size": [depth, h, w],
        "channels": from.channels.len(),
    });
    if let Some(time) = input.time {
        provenance["input"]["time"] = json!(time);
    }
    provenance["objects"] = json!(objects);
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    provenance["outputs"] = json!({ name: crate::inputs::sha256(&target)? });
    output::write_text(&provenance_path, &format!("{provenance:#}\n"))?;
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("{}: {objects} objects in {depth} slices, {seconds:.1} s", named()));
    Ok(
        json!({ "input": input.path, "time": input.time, "objects": objects, "seconds": seconds, "labels": target, "provenance": provenance_path }),
    )
}

/// The label stack and its provenance.
fn targets(output: &Path, input: &Input) -> (std::path::PathBuf, std::path::PathBuf) {
    match as_label_file(output) {
        Some(_) => {
            let stem = output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (output.to_path_buf(), output.with_file_name(format!("{stem}{PROVENANCE_SUFFIX}")))
        }
        None => {
            let folder = output.join(&input.folder);
            let file = |suffix: &str| folder.join(format!("{}{suffix}", input.stem));
            (file("_labels.tif"), file(PROVENANCE_SUFFIX))
        }
    }
}
