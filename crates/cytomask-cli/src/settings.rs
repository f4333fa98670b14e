//! Flags become strategies.

use anyhow::{Result, anyhow, bail};
use cytomask::apg::{MaskThreshold, PromptKind as Kind, PromptSource as Source};
use cytomask::{Ais, Amg, Apg, DeviceChoice, Model, Normalization, Overlap, Prompted, Strategy};

use crate::args::{Device, Mode, Normalize, PromptKind, PromptSource, SegmentArgs, ThresholdArgs};
use crate::prompts;

/// The strategy the flags ask for, on top of the model's own settings.
pub(crate) fn strategy(arguments: &SegmentArgs, model: &Model) -> Result<Strategy> {
    let given = &arguments.thresholds;
    check(given)?;
    let mode = match arguments.mode {
        Mode::Auto => match Strategy::default_for(model) {
            Strategy::Apg(_) => Mode::Apg,
            _ => Mode::Amg,
        },
        mode => mode,
    };
    let chosen = match mode {
        Mode::Amg => amg(given, Strategy::amg_for(model), arguments.compat).into(),
        Mode::Ais => ais(given, Strategy::ais_for(model)).into(),
        Mode::Apg => apg(given, Strategy::apg_for(model), arguments.compat)?.into(),
        Mode::Prompt | Mode::Auto => Strategy::Prompted(
            Prompted { multimask: given.multimasking, ..Prompted::default() },
            prompts::collect(&arguments.prompts)?,
        ),
    };
    refuse_unused(given, mode)?;
    Ok(chosen)
}

fn set<T>(target: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *target = value;
    }
}

fn ais(given: &ThresholdArgs, mut ais: Ais) -> Ais {
    set(&mut ais.center_distance_threshold, given.center_distance_threshold);
    set(&mut ais.boundary_distance_threshold, given.boundary_distance_threshold);
    set(&mut ais.foreground_threshold, given.foreground_threshold);
    set(&mut ais.foreground_smoothing, given.foreground_smoothing);
    set(&mut ais.distance_smoothing, given.distance_smoothing);
    set(&mut ais.min_size, given.min_size.map(u64::from));
    ais
}

fn apg(given: &ThresholdArgs, preset: Apg, compat: bool) -> Result<Apg> {
    // Upstream's choices are those of the paper's defaults, not of a preset.
    let mut apg = if compat { Apg { compat, ..Apg::default() } } else { preset };
    set(&mut apg.center_distance_threshold, given.center_distance_threshold);
    set(&mut apg.boundary_distance_threshold, given.boundary_distance_threshold);
    set(&mut apg.foreground_threshold, given.foreground_threshold);
    set(&mut apg.distance_smoothing, given.distance_smoothing);
    set(&mut apg.min_size, given.min_size.map(u64::from));
    set(&mut apg.nms_threshold, given.nms_threshold);
    set(&mut apg.min_score, given.min_score);
    set(&mut apg.batch_size, given.batch_size);
    apg.multimasking |= given.multimasking;
    apg.refine_with_box_prompts |= given.refine_with_box_prompts;
    if given.intersection_over_min {
        apg.overlap = Overlap::IntersectionOverMinimum;
    }
    set(
        &mut apg.prompt_source,
        given.prompt_source.map(|source| match source {
            PromptSource::Components => Source::Components,
            PromptSource::Maxima => Source::BoundaryMaxima,
        }),
    );
    set(
        &mut apg.prompt_kind,
        given.prompt_kind.map(|kind| match kind {
            PromptKind::Point => Kind::Point,
            PromptKind::Box => Kind::Box,
            PromptKind::PointAndBox => Kind::PointAndBox,
        }),
    );
    if let Some(text) = &given.mask_threshold {
        apg.mask_threshold = match text.as_str() {
            "auto" => MaskThreshold::Automatic,
            text => MaskThreshold::Fixed(
                text.parse().map_err(|_| anyhow!("--mask_threshold: expected a logit or `auto`, found {text:?}"))?,
            ),
        };
    }
    Ok(apg)
}

fn amg(given: &ThresholdArgs, preset: Amg, compat: bool) -> Amg {
    let mut amg = if compat { Amg::default().compat() } else { preset };
    set(&mut amg.pred_iou_thresh, given.pred_iou_thresh);
    set(&mut amg.stability_score_thresh, given.stability_score_thresh);
    set(&mut amg.box_nms_thresh, given.box_nms_thresh.map(f64::from));
    set(&mut amg.points_per_side, given.points_per_side);
    set(&mut amg.crop_n_layers, given.crop_n_layers);
    set(&mut amg.min_mask_region_area, given.min_mask_region_area.map(u64::from));
    set(&mut amg.min_object_size, given.min_size.map(u64::from));
    set(&mut amg.points_per_batch, given.batch_size);
    amg
}

/// Values no method can work with.
fn check(given: &ThresholdArgs) -> Result<()> {
    let shares = [
        ("--center_distance_threshold", given.center_distance_threshold),
        ("--boundary_distance_threshold", given.boundary_distance_threshold),
        ("--foreground_threshold", given.foreground_threshold),
        ("--nms_threshold", given.nms_threshold),
        ("--min_score", given.min_score),
        ("--pred_iou_thresh", given.pred_iou_thresh),
        ("--stability_score_thresh", given.stability_score_thresh),
        ("--box_nms_thresh", given.box_nms_thresh),
    ];
    for (name, value) in shares {
        if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
            bail!("{name}: expected a number from 0 to 1, found {value}");
        }
    }
    for (name, value) in
        [("--foreground_smoothing", given.foreground_smoothing), ("--distance_smoothing", given.distance_smoothing)]
    {
        if let Some(value) = value.filter(|value| !(0.0..=1000.0).contains(value)) {
            bail!("{name}: expected pixels from 0 to 1000, found {value}");
        }
    }
    if given.points_per_side == Some(0) {
        bail!("--points_per_side: expected at least 1, found 0");
    }
    if given.batch_size == Some(0) {
        bail!("--batch_size: expected at least 1, found 0");
    }
    Ok(())
}

/// A threshold the chosen mode does not know would be silently without effect.
fn refuse_unused(given: &ThresholdArgs, mode: Mode) -> Result<()> {
    use Mode::{Ais, Amg, Apg, Prompt};
    let flags = [
        ("--center_distance_threshold", given.center_distance_threshold.is_some(), &[Ais, Apg][..]),
        ("--boundary_distance_threshold", given.boundary_distance_threshold.is_some(), &[Ais, Apg]),
        ("--foreground_threshold", given.foreground_threshold.is_some(), &[Ais, Apg]),
        ("--foreground_smoothing", given.foreground_smoothing.is_some(), &[Ais]),
        ("--distance_smoothing", given.distance_smoothing.is_some(), &[Ais, Apg]),
        ("--min_size", given.min_size.is_some(), &[Amg, Ais, Apg]),
        ("--nms_threshold", given.nms_threshold.is_some(), &[Apg]),
        ("--intersection_over_min", given.intersection_over_min, &[Apg]),
        ("--multimasking", given.multimasking, &[Apg, Prompt]),
        ("--mask_threshold", given.mask_threshold.is_some(), &[Apg]),
        ("--refine_with_box_prompts", given.refine_with_box_prompts, &[Apg]),
        ("--prompt_source", given.prompt_source.is_some(), &[Apg]),
        ("--prompt_kind", given.prompt_kind.is_some(), &[Apg]),
        ("--min_score", given.min_score.is_some(), &[Apg]),
        ("--pred_iou_thresh", given.pred_iou_thresh.is_some(), &[Amg]),
        ("--stability_score_thresh", given.stability_score_thresh.is_some(), &[Amg]),
        ("--box_nms_thresh", given.box_nms_thresh.is_some(), &[Amg]),
        ("--points_per_side", given.points_per_side.is_some(), &[Amg]),
        ("--crop_n_layers", given.crop_n_layers.is_some(), &[Amg]),
        ("--min_mask_region_area", given.min_mask_region_area.is_some(), &[Amg]),
        ("--batch_size", given.batch_size.is_some(), &[Amg, Apg]),
    ];
    for (name, is_given, modes) in flags {
        if is_given && !modes.contains(&mode) {
            let known: Vec<String> = modes.iter().map(|mode| format!("{mode:?}").to_lowercase()).collect();
            bail!(
                "{name} has no effect with --mode {}; it belongs to {}",
                format!("{mode:?}").to_lowercase(),
                known.join(", ")
            );
        }
    }
    Ok(())
}

/// How samples become 0–255.
pub(crate) fn normalization(choice: Normalize, model: &Model) -> Normalization {
    match choice {
        Normalize::Model => model.normalization(),
        Normalize::Minmax => Normalization::MicroSam,
        Normalize::Percentile => Normalization::Percentile { low: 0.1, high: 99.9 },
        Normalize::None => Normalization::EightBit,
    }
}

/// Where the network runs.
pub(crate) fn device(choice: Device) -> DeviceChoice {
    match choice {
        Device::Auto => DeviceChoice::Auto,
        Device::Cpu => DeviceChoice::Cpu,
        Device::Cuda => DeviceChoice::Cuda,
        Device::Wgpu => DeviceChoice::Wgpu,
        Device::Metal => DeviceChoice::Metal,
    }
}
