//! Every flag of the program. Where µSAM has a name for a setting, the flag carries that name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::batch::BatchArgs;
use crate::choose::ChooseArgs;
use crate::exports::{Export, ExportOptions};
use crate::flow_args::FlowArgs;
use crate::inspect::InspectArgs;

/// Find every cell, nucleus or organoid in microscopy images.
#[derive(Parser)]
#[command(name = "cytomask", version, propagate_version = true, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cytomask segment cells.tif -o results           outlines, labels and a table with the built-in model
  cytomask segment images/ -o results --mode ais  a whole folder, decoder + watershed only (faster)
  cytomask segment he.png -o results -m vit_b_histopathology.pt
  cytomask evaluate truth/ results/ --csv scores.csv
  cytomask tune images/ truth/ -o tuned
  cytomask compare images/ truth/ -o comparison   which mode is best here, and is the difference real
  cytomask models list";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Segment images into instance masks.
    Segment(Box<SegmentArgs>),
    /// Say what a file holds (axes, channels, pixel size, ranges) and what `segment` would do with it.
    Inspect(Box<InspectArgs>),
    /// Write a label image of any program as GeoJSON, ROI archive, OME-Zarr, table …
    Convert(crate::convert::ConvertArgs),
    /// Score predicted label images against true ones: mSA, panoptic quality, Jaccard, boundaries, objects.
    Evaluate(Box<crate::evaluate::EvaluateArgs>),
    /// The paper's 36 datasets: list, describe, prepare.
    Datasets(crate::datasets::DatasetsArgs),
    /// Find the settings that suit labelled images, and show whether the gain is real.
    Tune(crate::tune::TuneArgs),
    /// Find out which method is best for your images: run, score, test, report.
    Compare(crate::compare::CompareArgs),
    /// Run the paper's comparison on prepared datasets and set the scores beside the paper's.
    Reproduce(crate::reproduce::ReproduceArgs),
    /// List, fetch, check and convert models.
    Models(ModelsArgs),
    /// Train or fine-tune a model on images and label images.
    #[cfg(feature = "train")]
    Train(Box<crate::train::TrainArgs>),
    /// Write the network's intermediate tensors (for parity checks).
    #[command(hide = true)]
    Dump(DumpArgs),
}

/// How masks are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Flows where the model predicts them, APG where it has an instance decoder, else AMG.
    Auto,
    /// Automatic mask generation: a grid of points.
    Amg,
    /// Automatic instance segmentation: decoder maps and a watershed.
    Ais,
    /// Automatic prompt generation: decoder maps, point prompts, promptable model, NMS.
    Apg,
    /// Flows that are followed to the objects' centres (Cellpose).
    Flows,
    /// The prompts given by --point, --box or --prompts.
    Prompt,
}

impl Mode {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Amg => "amg",
            Self::Ais => "ais",
            Self::Apg => "apg",
            Self::Flows => "flows",
            Self::Prompt => "prompt",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    Auto,
    Cpu,
    Cuda,
    Wgpu,
    Metal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// f32: results do not change unasked.
    Auto,
    F32,
    /// Linear layers in bf16; faster where the processor multiplies it fast (AMD since Zen 4).
    Bf16,
    /// Linear layers and convolutions in 8 bits; fastest with AVX-512 VNNI or AVX-VNNI.
    Int8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelFormat {
    /// Label TIFF, 16-bit, or 32-bit from 65,536 objects on.
    Tiff,
    /// 16-bit PNG (at most 65,535 objects).
    Png,
}

/// How samples become 0–255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Normalize {
    /// What the model was trained with.
    Model,
    /// µSAM's minimum–maximum per channel, truncated to 8 bit.
    Minmax,
    /// Two percentiles per channel.
    Percentile([f64; 2]),
    /// Given limits, for all channels.
    Range([f64; 2]),
    /// Samples are 0–255 already and stay as they are.
    None,
}

/// `model`, `minmax`, `percentile`, `percentile:1,99.8`, `range:100,4000` or `none`.
pub(crate) fn normalize(text: &str) -> Result<Normalize, String> {
    let (name, limits) = text.split_once(':').map_or((text, None), |(name, limits)| (name, Some(limits)));
    let pair = |limits: &str| -> Result<[f64; 2], String> {
        let parsed: Option<Vec<f64>> =
            limits.split(',').map(|part| part.trim().parse::<f64>().ok().filter(|value| value.is_finite())).collect();
        let pair = parsed.and_then(|numbers| <[f64; 2]>::try_from(numbers).ok()).filter(|[low, high]| low < high);
        pair.ok_or_else(|| format!("{name}: expected LOW,HIGH with LOW below HIGH, found {limits:?}"))
    };
    match (name, limits) {
        ("model", None) => Ok(Normalize::Model),
        ("minmax", None) => Ok(Normalize::Minmax),
        ("none", None) => Ok(Normalize::None),
        ("percentile", None) => Ok(Normalize::Percentile([0.1, 99.9])),
        ("percentile", Some(limits)) => {
            let [low, high] = pair(limits)?;
            let inside = low >= 0.0 && high <= 100.0;
            if inside { Ok(Normalize::Percentile([low, high])) } else { Err("percentile: expected 0 to 100".into()) }
        }
        ("range", Some(limits)) => pair(limits).map(Normalize::Range),
        ("range", None) => Err("range: expected range:LOW,HIGH".into()),
        _ => Err(format!(
            "expected model, minmax, percentile, percentile:LOW,HIGH, range:LOW,HIGH or none, found {text:?}"
        )),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PromptSource {
    /// Connected components of thresholded maps.
    Components,
    /// Maxima of the boundary distance.
    Maxima,
    /// Boxes the network itself proposes (the built-in model does); else components.
    Boxes,
    /// Both; of overlapping masks the better rated one stays.
    BoxesAndComponents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PromptKind {
    Point,
    Box,
    PointAndBox,
}

#[derive(Args, Serialize)]
pub(crate) struct ModelArgs {
    /// A model's name (see `cytomask models list`) or a checkpoint file. Without it the built-in cytomask-t runs.
    #[arg(short, long, alias = "model_type", value_name = "NAME|PATH", default_value = "cytomask-t")]
    #[serde(skip)]
    pub(crate) model: String,

    /// A separate decoder checkpoint (µSAM's `*_decoder.pt`).
    #[arg(long, value_name = "PATH")]
    pub(crate) decoder: Option<PathBuf>,

    /// Where the network runs.
    #[arg(short, long, value_enum, default_value_t = Device::Auto)]
    #[serde(skip)]
    pub(crate) device: Device,

    /// Number format of the network on the CPU. `auto` is f32; fewer bits are faster and move outlines a little
    /// (docs/benchmarks.md has the measured effect).
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    #[serde(skip)]
    pub(crate) precision: Precision,
}

/// What is serialised becomes part of every provenance, and a change of it makes finished images be done again. So only what cannot
/// change a result, or is told there in another way, is skipped.
#[derive(Args, Serialize)]
pub(crate) struct SegmentArgs {
    /// Images (PNG, JPEG, BMP, TIFF, NPY, OME-Zarr) or folders of images.
    #[arg(required = true, value_name = "IMAGE")]
    #[serde(skip)]
    pub(crate) images: Vec<PathBuf>,

    /// Folder for the results; with a single image also a file ending in .tif or .png for its labels.
    #[arg(short, long, alias = "output_path", value_name = "DIR")]
    #[serde(skip)]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    #[serde(skip)]
    pub(crate) batch: BatchArgs,

    /// How masks are found.
    #[arg(long, alias = "strategy", value_enum, default_value_t = Mode::Auto)]
    #[serde(skip)]
    pub(crate) mode: Mode,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) choose: ChooseArgs,

    /// How samples become 0–255: what the model was trained with, µSAM's minimum–maximum, percentiles (0.1 and 99.9, or any two),
    /// given limits, or not at all. One conversion for the whole image.
    #[arg(long, value_name = "model|minmax|percentile[:LOW,HIGH]|range:LOW,HIGH|none", default_value = "model", value_parser = normalize)]
    #[serde(skip)]
    pub(crate) normalize: Normalize,

    /// Skip tiles whose grey levels (0–255) span less than this between their 1st and 99th percentile. Off without it.
    #[arg(long = "skip_empty", value_name = "LEVELS")]
    pub(crate) skip_empty: Option<f32>,

    /// Tile height and width for large images, e.g. 384,384; 0 for no tiles. [default: by model]
    #[arg(long = "tile_shape", value_name = "Y,X", value_parser = pair)]
    pub(crate) tile_shape: Option<[u32; 2]>,

    /// Overlap around each tile, e.g. 64,64.
    #[arg(long, value_name = "Y,X", value_parser = pair)]
    pub(crate) halo: Option<[u32; 2]>,

    /// Enlarge (or shrink) the image by this factor before the network; `auto` measures the objects first, and apg then looks at one
    /// or two scales that suit them (`1` is about twice as fast). Built-in model only.
    #[arg(long, value_name = "FACTOR|auto", default_value = "auto")]
    pub(crate) scale: String,

    /// Reproduce upstream's choices where they differ from the right ones, so that scores are comparable.
    #[arg(long)]
    pub(crate) compat: bool,

    /// Take mode and thresholds from a file that `cytomask tune` wrote; flags given beside it go before it.
    #[arg(long, value_name = "FILE", conflicts_with = "compat")]
    #[serde(skip)]
    pub(crate) settings: Option<PathBuf>,

    #[command(flatten)]
    #[serde(skip)]
    pub(crate) thresholds: ThresholdArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) flows: FlowArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) prompts: PromptArgs,

    /// What to write, with commas between; the provenance comes with all of it. [default: tiff,overlay,csv]
    #[arg(long = "export", value_name = "NAME", value_enum, value_delimiter = ',', help_heading = "Exports")]
    pub(crate) exports: Vec<Export>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) export_options: ExportOptions,

    /// File format of the labels.
    #[arg(long, value_enum)]
    pub(crate) format: Option<LabelFormat>,

    /// Do not draw the overlay PNG.
    #[arg(long)]
    pub(crate) no_overlay: bool,

    /// Print a summary as JSON on stdout.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,

    /// Say what would be done, with an estimate of time and memory, and stop.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) dry_run: bool,

    /// Use these decoder maps (safetensors, `fields` [3, H, W]) in place of the model's. For parity checks.
    #[arg(long, hide = true)]
    pub(crate) fields: Option<PathBuf>,
}

/// Settings of the strategies, under µSAM's names. Unset ones take the model's defaults.
///
/// A field is named as its flag and as the setting: it is passed on under that name.
#[derive(Args, Default, Serialize)]
#[command(next_help_heading = "Thresholds (defaults by mode and model)")]
pub(crate) struct ThresholdArgs {
    /// AIS, APG: below it a pixel may belong to an object's centre.
    #[arg(long = "center_distance_threshold", value_name = "0..1")]
    pub(crate) center_distance_threshold: Option<f32>,
    /// AIS, APG: below it a pixel is far enough inside.
    #[arg(long = "boundary_distance_threshold", value_name = "0..1")]
    pub(crate) boundary_distance_threshold: Option<f32>,
    /// AIS, APG: above it a pixel is foreground.
    #[arg(long = "foreground_threshold", value_name = "0..1")]
    pub(crate) foreground_threshold: Option<f32>,
    /// AIS: sigma of the smoothing of the foreground, pixels.
    #[arg(long = "foreground_smoothing", value_name = "SIGMA")]
    pub(crate) foreground_smoothing: Option<f32>,
    /// AIS, APG: sigma of the smoothing of the distance maps, pixels, or `auto` (by the objects' size).
    #[arg(long = "distance_smoothing", value_name = "SIGMA|auto")]
    pub(crate) distance_smoothing: Option<String>,
    /// Objects of fewer pixels are dropped.
    #[arg(long = "min_size", value_name = "PIXELS")]
    pub(crate) min_size: Option<u32>,
    /// APG: masks that overlap more than this are one object.
    #[arg(long = "nms_threshold", value_name = "0..1")]
    pub(crate) nms_threshold: Option<f32>,
    /// APG: measure overlap as intersection over the smaller mask.
    #[arg(long = "intersection_over_min", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) intersection_over_min: Option<bool>,
    /// APG: let the network propose three masks a prompt and keep its best.
    #[arg(long = "multimasking", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) multimasking: Option<bool>,
    /// APG: logit above which a pixel belongs to a mask, or `auto` (Otsu).
    #[arg(long = "mask_threshold", value_name = "LOGIT|auto")]
    pub(crate) mask_threshold: Option<String>,
    /// APG: decode again with the box of each mask as prompt.
    #[arg(long = "refine_with_box_prompts", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) refine_with_box_prompts: Option<bool>,
    /// APG: where prompts come from.
    #[arg(long = "prompt_source", value_enum)]
    pub(crate) prompt_source: Option<PromptSource>,
    /// APG: what is derived for each object.
    #[arg(long = "prompt_kind", value_enum)]
    pub(crate) prompt_kind: Option<PromptKind>,
    /// APG: boxes that the network rates lower are no prompts (with `--prompt_source boxes`).
    #[arg(long = "box_score_thresh", value_name = "0..1")]
    pub(crate) box_score_thresh: Option<f32>,
    /// APG: masks whose score (predicted IoU × stability) is lower are dropped.
    #[arg(long = "min_score", value_name = "0..1")]
    pub(crate) min_score: Option<f32>,
    /// APG: score of good objects; where an image's are rated lower, `--box_score_thresh` and `--min_score` are lowered in proportion.
    /// 0 leaves them.
    #[arg(long = "typical_score", value_name = "0..1")]
    pub(crate) typical_score: Option<f32>,
    /// APG: pixels an object grows into the foreground around it that no object has.
    #[arg(long = "grow_px", value_name = "PIXELS")]
    pub(crate) grow_px: Option<u32>,
    /// AMG: masks whose predicted IoU is lower are dropped.
    #[arg(long = "pred_iou_thresh", value_name = "0..1")]
    pub(crate) pred_iou_thresh: Option<f32>,
    /// AMG: masks less stable than this are dropped.
    #[arg(long = "stability_score_thresh", value_name = "0..1")]
    pub(crate) stability_score_thresh: Option<f32>,
    /// AMG: box overlap above which the worse of two masks is dropped. APG with `--prompt_source boxes`: the same of two boxes.
    #[arg(long = "box_nms_thresh", value_name = "0..1")]
    pub(crate) box_nms_thresh: Option<f64>,
    /// AMG: points along each side of the grid.
    #[arg(long = "points_per_side", value_name = "N")]
    pub(crate) points_per_side: Option<u32>,
    /// AMG: layers of crops, each with twice as many crops a side.
    #[arg(long = "crop_n_layers", value_name = "N")]
    pub(crate) crop_n_layers: Option<u32>,
    /// AMG: holes and islands of fewer pixels are removed.
    #[arg(long = "min_mask_region_area", value_name = "PIXELS")]
    pub(crate) min_mask_region_area: Option<u32>,
    /// Flows: masks whose own flows differ more than this from the network's are dropped; 0 keeps all.
    #[arg(long = "flow_threshold", value_name = "ERROR", allow_negative_numbers = true)]
    pub(crate) flow_threshold: Option<f32>,
    /// Flows: logit above which a pixel belongs to an object.
    #[arg(long = "cellprob_threshold", value_name = "LOGIT", allow_negative_numbers = true)]
    pub(crate) cellprob_threshold: Option<f32>,
    /// Flows: steps a pixel follows the flow; 0 for 200 at the scale the network was trained at.
    #[arg(long, value_name = "N")]
    pub(crate) niter: Option<u32>,
    /// Flows: objects that cover more than this share of the image are dropped.
    #[arg(long = "max_size_fraction", value_name = "0..1")]
    pub(crate) max_size_fraction: Option<f64>,
    /// Prompts decoded together.
    #[arg(long = "batch_size", alias = "points_per_batch", value_name = "N")]
    pub(crate) batch_size: Option<usize>,
}

#[derive(Args, Default, Serialize)]
#[command(next_help_heading = "Prompts (--mode prompt)")]
pub(crate) struct PromptArgs {
    /// A positive point, one object each: row, column.
    #[arg(long = "point", value_name = "Y,X", value_parser = numbers::<2>)]
    pub(crate) points: Vec<[f32; 2]>,
    /// A box, one object each: top, left, bottom, right.
    #[arg(long = "box", value_name = "Y0,X0,Y1,X1", value_parser = numbers::<4>)]
    pub(crate) boxes: Vec<[f32; 4]>,
    /// A JSON or CSV file of prompts (docs/prompts.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// All known models and whether they are on this machine.
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What is known of one model: files, hashes, licence, citation, defaults.
    Info {
        /// A model's name or a checkpoint file.
        model: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Download a model and check its hash.
    Pull {
        /// A model's name.
        name: String,
    },
    /// Take a model's files from disk (for machines without network).
    Import {
        /// A model's name.
        name: String,
        /// Its files, e.g. `vit_b.pt vit_b_decoder.pt`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Accept a file whose hash differs from the published one.
        #[arg(long)]
        force: bool,
    },
    /// Write a model as safetensors or in µSAM's .pt layout.
    Export {
        /// A model's name or a checkpoint file.
        model: String,
        /// Target file, .safetensors or .pt.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Check the hashes of cached models.
    Verify {
        /// A model's name; all cached ones without it.
        name: Option<String>,
    },
    /// Print where a cached model (or the cache) lies.
    Path {
        /// A model's name.
        name: Option<String>,
    },
}

#[cfg(feature = "train")]
#[derive(Args)]
pub(crate) struct DumpArgs {
    /// The image.
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// File to write (safetensors).
    #[arg(long)]
    pub(crate) stages: PathBuf,
    /// Prompts to decode.
    #[arg(long)]
    pub(crate) prompts: Option<PathBuf>,
    /// Decode three masks a prompt.
    #[arg(long)]
    pub(crate) multimask: bool,
    /// Upstream's choices.
    #[arg(long)]
    pub(crate) compat: bool,
}

/// `Y,X` or one number for both.
fn pair(text: &str) -> Result<[u32; 2], String> {
    let parts: Vec<&str> = text.split([',', ' ']).collect();
    let number = |part: &str| part.trim().parse::<u32>().map_err(|_| format!("expected Y,X in pixels, found {text:?}"));
    match parts.as_slice() {
        [both] => number(both).map(|n| [n, n]),
        [y, x] => Ok([number(y)?, number(x)?]),
        _ => Err(format!("expected Y,X in pixels, found {text:?}")),
    }
}

/// Exactly `N` numbers with commas between.
fn numbers<const N: usize>(text: &str) -> Result<[f32; N], String> {
    let parsed: Vec<f32> = text
        .split(',')
        .map(|part| part.trim().parse::<f32>().ok().filter(|value| value.is_finite()))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("expected {N} numbers with commas between, found {text:?}"))?;
    parsed.try_into().map_err(|found: Vec<f32>| format!("expected {N} numbers, found {}", found.len()))
}

/// Lets every flag be written with `-` or `_` between its words: µSAM uses `_`, most programs `-`.
pub(crate) fn normalized(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut known = Vec::new();
    collect_flags(&Cli::command(), &mut known);
    arguments
        .map(|argument| {
            let Some(flag) = argument.to_str().and_then(|text| text.strip_prefix("--")) else { return argument };
            let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if known.iter().any(|known| known == name) {
                return argument;
            }
            match known.iter().find(|known| known.replace('_', "-") == name.replace('_', "-")) {
                Some(known) => value.map_or(format!("--{known}"), |value| format!("--{known}={value}")).into(),
                None => argument,
            }
        })
        .collect()
}

fn collect_flags(command: &clap::Command, into: &mut Vec<String>) {
    for argument in command.get_arguments() {
        into.extend(argument.get_long().map(str::to_owned));
        into.extend(argument.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
    }
    for inner in command.get_subcommands() {
        collect_flags(inner, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_of_a_flag_join_by_either_sign() {
        let given = ["cytomask", "segment", "a_b.png", "--dry_run", "--min-size=4", "--nms_threshold", "0.5"];
        let found = normalized(given.iter().map(OsString::from));
        assert_eq!(found, ["cytomask", "segment", "a_b.png", "--dry-run", "--min_size=4", "--nms_threshold", "0.5"]);
    }

    #[test]
    fn normalisations_have_limits() {
        assert_eq!(normalize("percentile"), Ok(Normalize::Percentile([0.1, 99.9])));
        assert_eq!(normalize("percentile:1,99.5"), Ok(Normalize::Percentile([1.0, 99.5])));
        assert_eq!(normalize("range:-5,4000"), Ok(Normalize::Range([-5.0, 4000.0])));
        for wrong in ["range", "range:5,5", "range:1", "percentile:0,101", "minmax:1,2", "auto"] {
            assert!(normalize(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_and_numbers_say_what_they_expected() {
        assert_eq!(pair("384,256"), Ok([384, 256]));
        assert_eq!(pair("384"), Ok([384, 384]));
        assert!(pair("a,b").unwrap_err().contains("\"a,b\""));
        assert!(numbers::<2>("1,nan").is_err());
        assert!(numbers::<4>("1,2").unwrap_err().contains("found 2"));
    }
}
