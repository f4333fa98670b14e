//! `cytomask inspect`: what a file holds, and what `segment` would do with it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::{
    Basis, Image, Normalization, PlaneIndex, Projection, SampleType, Segmenter, Selection, Source, Statistics,
};
use serde_json::{Value, json};

use crate::args::ModelArgs;
use crate::choose::{self, ChooseArgs};
use crate::progress::{print, say};
use crate::settings;

/// Percentiles that are shown.
const PERCENTS: [f64; 5] = [0.1, 1.0, 50.0, 99.0, 99.9];

/// Longer side of a thumbnail, pixels.
const THUMBNAIL_SIDE: u32 = 512;

/// Columns of the drawing on a terminal.
const DRAWING_COLUMNS: u32 = 60;

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// Images or OME-Zarr folders.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) choose: ChooseArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Write a small picture of what `segment` would see.
    #[arg(long, value_name = "FILE.png")]
    pub(crate) thumbnail: Option<PathBuf>,

    /// Print as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Describes every file; one that fails is reported and does not stop the rest.
pub(crate) fn run(arguments: &InspectArgs) -> Result<()> {
    if arguments.thumbnail.is_some() && arguments.files.len() != 1 {
        bail!("--thumbnail needs exactly one file, found {}", arguments.files.len());
    }
    choose::one_plane(&arguments.choose.plane)?;
    let selection = choose::selection(&arguments.choose)?;
    let model = settings::open_model(&arguments.model)?;
    let segmenter = Segmenter::new(model);
    let (mut described, mut failed) = (Vec::new(), 0);
    for path in &arguments.files {
        match inspect(arguments, &selection, &segmenter, path) {
            Ok(description) => described.push(description),
            Err(error) => {
                say(&format!("error: {error:#}"));
                failed += 1;
            }
        }
    }
    if arguments.json {
        print(&format!("{:#}", Value::Array(described)))?;
    }
    if failed > 0 {
        bail!("{failed} of {} files could not be read", arguments.files.len());
    }
    Ok(())
}

fn inspect(arguments: &InspectArgs, selection: &Selection, segmenter: &Segmenter, path: &Path) -> Result<Value> {
    let source = selection.open(path)?;
    let held = source.description();
    let from = selection.resolve(held).with_context(|| path.display().to_string())?;
    let mut statistics = Vec::new();
    for channel in 0..held.channels {
        let at = PlaneIndex { time: from.time, z: 0, channel };
        statistics.push(source.statistics(at, from.projection, &PERCENTS)?);
    }
    let normalization = segmenter.chosen_normalization();
    let mut warnings = from.warnings.clone();
    for (channel, found) in statistics.iter().enumerate() {
        if found.min == found.max {
            warnings.push(format!("channel {channel} is {} everywhere", found.min));
        }
        if found.not_finite > 0 {
            warnings.push(format!("channel {channel} has {} samples that are no numbers", found.not_finite));
        }
    }
    if held.channels == 3 && !held.colour && held.dtype != SampleType::U8 {
        warnings.push(
            "3 channels that are no colours: fluorescence, choose --channels or --nucleus and --cytoplasm".into(),
        );
    }
    if held.pixel_size_um.is_none() && from.pixel_size_um.is_none() {
        warnings.push("no pixel size: lengths will be in pixels; give one with --pixel_size".into());
    }
    let plan = would_do(segmenter, &source, &from)?;
    let small = source.thumbnail(from.time, from.projection, &from.channels, THUMBNAIL_SIDE)?;
    // Limits of the whole image would darken nothing here: the small picture has its own.
    let shown = if normalization == Normalization::EightBit {
        normalization
    } else {
        Normalization::Percentile { low: 0.5, high: 99.5 }
    };
    if let Some(target) = &arguments.thumbnail {
        let rgb = small.to_rgb(shown)?;
        let bytes: Vec<u8> = rgb.samples.iter().map(|value| value.round() as u8).collect();
        cytomask::output::write_rgb_png(target, rgb.size, &bytes)?;
    }
    if !arguments.json {
        print(&text(&source, &from, &statistics, &plan, &warnings))?;
        if std::io::stdout().is_terminal() {
            print(&drawing(&small, shown)?)?;
        }
    }
    Ok(json!({
        "file": path,
        "format": held.format,
        "stored_axes": held.stored_axes,
        "size": { "t": held.times, "z": held.depth, "c": held.channels, "y": held.size[0], "x": held.size[1] },
        "dtype": held.dtype.name(),
        "channel_names": held.channel_names,
        "colour": held.colour,
        "pixel_size_um": held.pixel_size_um,
        "z_step_um": held.z_step_um,
        "compression": held.compression,
        "block": held.block,
        "levels": held.levels,
        "notes": held.notes,
        "statistics": statistics.iter().map(as_json).collect::<Vec<_>>(),
        "segment": { "channels": from.channels, "time": from.time, "projection": format!("{:?}", from.projection), "plan": plan },
        "warnings": warnings,
    }))
}

fn as_json(found: &Statistics) -> Value {
    json!({
        "min": found.min,
        "max": found.max,
        "mean": found.mean,
        "percentiles": PERCENTS.iter().zip(&found.percentiles).map(|(percent, value)| json!([percent, value])).collect::<Vec<_>>(),
        "not_finite": found.not_finite,
        "basis": format!("{:?}", found.basis),
    })
}

/// What `segment` would do, one sentence a line.
fn would_do(segmenter: &Segmenter, source: &Source, from: &cytomask::Resolved) -> Result<Vec<String>> {
    let held = source.description();
    let name = |channel: u32| match held.channel_names.get(channel as usize).filter(|name| !name.is_empty()) {
        Some(name) => format!("{channel} ({name})"),
        None => channel.to_string(),
    };
    let used: Vec<String> = from.channels.iter().map(|&channel| name(channel)).collect();
    let as_what = match (from.channels.len(), held.colour) {
        (1, _) => "as grey".to_owned(),
        (2, _) => "as red and green".to_owned(),
        _ => "as red, green and blue".to_owned(),
    };
    let plural = if used.len() == 1 { "" } else { "s" };
    let mut lines = vec![format!("take channel{plural} {} {as_what}", used.join(", "))];
    if held.depth > 1 {
        lines.push(match from.projection {
            Projection::Plane(z) => format!("take slice {z} of {}", held.depth),
            Projection::Middle => format!("take the middle slice, {} of {}", held.depth / 2, held.depth),
            Projection::Max => format!("take the maximum of {} slices", held.depth),
            Projection::Mean => format!("take the mean of {} slices", held.depth),
            Projection::Sum => format!("take the sum of {} slices", held.depth),
        });
    }
    if held.times > 1 {
        lines.push(format!("take time point {} of {}", from.time, held.times));
    }
    lines.push(match segmenter.chosen_normalization() {
        Normalization::MicroSam => "bring minimum and maximum of each channel to 0 and 255".into(),
        Normalization::Percentile { low, high } => {
            format!("bring the {low} and {high} percentiles of each channel to 0 and 255")
        }
        Normalization::Cellpose { low, high, grey } => {
            let first = if grey { "take the mean of the channels, and " } else { "" };
            format!("{first}bring the {low} and {high} percentiles of each channel to 0 and 255 without clipping")
        }
        Normalization::Range { low, high } => format!("bring {low} and {high} to 0 and 255"),
        _ => "take samples as 0 to 255 as they are".into(),
    });
    let model = segmenter.model();
    let scale = from.scale();
    lines.push(match (model.scale(), scale) {
        (Some(_), Some(factor)) => format!("show {} the image at {factor:.2} times its size", model.name()),
        (Some(_), None) => {
            format!("show {} the image at its size, or twice that if the objects are small", model.name())
        }
        (None, _) if model.flow_predictor().is_some() => match from.diameter_px {
            Some(pixels) => format!("scale it for {}, whose objects are {pixels:.1} pixels wide", model.name()),
            None => format!("show {} the image at its size", model.name()),
        },
        (None, _) => format!("show {} the longer side of a tile as 1024 pixels", model.name()),
    });
    let tiles = segmenter.plan(held.size, scale.unwrap_or(1.0))?.len();
    let tiles = if tiles == 1 { "one piece".to_owned() } else { format!("{tiles} tiles") };
    lines.push(format!("segment it by {} in {tiles}", segmenter.chosen_strategy().name()));
    Ok(lines)
}

fn text(
    source: &Source,
    from: &cytomask::Resolved,
    statistics: &[Statistics],
    plan: &[String],
    warnings: &[String],
) -> String {
    let held = source.description();
    let pair = |[a, b]: [u32; 2]| format!("{a} × {b}");
    let mut lines = vec![source.path().display().to_string()];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12}{value}"));
    line("format", format!("{}, compression {}, blocks of {}", held.format, held.compression, pair(held.block)));
    let [h, w] = held.size;
    line(
        "axes",
        format!(
            "t {}, z {}, c {}, y {h}, x {w} (stored as {})",
            held.times, held.depth, held.channels, held.stored_axes
        ),
    );
    line("samples", format!("{}{}", held.dtype.name(), if held.colour { ", colours" } else { "" }));
    line(
        "pixel size",
        match (held.pixel_size_um, held.z_step_um) {
            (None, _) => "not given".into(),
            (Some([y, x]), None) => format!("{y:.4} × {x:.4} µm"),
            (Some([y, x]), Some(z)) => format!("{y:.4} × {x:.4} µm, slices {z:.4} µm apart"),
        },
    );
    if held.levels.len() > 1 {
        line("resolutions", held.levels.iter().map(|&size| pair(size)).collect::<Vec<_>>().join(", "));
    }
    for (channel, found) in statistics.iter().enumerate() {
        let name = held.channel_names.get(channel).map_or(String::new(), |name| format!(" {name}"));
        let basis = match found.basis {
            Basis::All => String::new(),
            Basis::Level(level) => format!(" (from resolution {level})"),
            Basis::Rows(rows) => format!(" (from {rows} rows)"),
        };
        let [low, _, median, _, high] = [0, 1, 2, 3, 4].map(|index| found.percentiles[index]);
        let (least, most) = (found.min, found.max);
        line(
            if channel == 0 { "channels" } else { "" },
            format!("{channel}{name}: {least} to {most}, 0.1 % {low:.1}, median {median:.1}, 99.9 % {high:.1}{basis}"),
        );
    }
    for note in &held.notes {
        line("note", note.clone());
    }
    for (index, step) in plan.iter().enumerate() {
        line(
            if index == 0 { "segment would" } else { "" },
            if index == 0 { format!(" {step}") } else { format!("  {step}") },
        );
    }
    let _ = from;
    lines.extend(warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.join("\n")
}

/// The picture in characters, dark to bright.
fn drawing(small: &Image, normalization: Normalization) -> Result<String> {
    const RAMP: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];
    let rgb = small.to_rgb(normalization)?;
    let [h, w] = rgb.size;
    let columns = w.min(DRAWING_COLUMNS);
    // Characters are about twice as high as wide.
    let rows = (u64::from(h) * u64::from(columns) / u64::from(w) / 2).max(1) as u32;
    let rgb = rgb.resize([rows, columns]);
    let lines: Vec<String> = rgb
        .samples
        .chunks_exact(columns as usize * 3)
        .map(|row| {
            row.chunks_exact(3)
                .map(|pixel| RAMP[((pixel.iter().sum::<f32>() / 3.0 / 25.6) as usize).min(9)])
                .collect::<String>()
        })
        .collect();
    Ok(lines.join("\n"))
}
