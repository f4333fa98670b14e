//! Flags become strategies.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use cytomask::{DeviceChoice, Model, Normalization, Prompted, ScaleChoice, SettingsFile, Strategy};
use serde_json::{Value, json};

use crate::args::{Device, Mode, Normalize, SegmentArgs, ThresholdArgs};
use crate::progress::say;
use crate::prompts;

/// The strategy the flags ask for: the model's own settings or those of `--settings`, then the flags.
pub(crate) fn strategy(arguments: &SegmentArgs, model: &Model) -> Result<Strategy> {
    let base = match (&arguments.settings, arguments.mode) {
        (Some(path), mode) => from_file(path, mode, model)?,
        (None, Mode::Prompt) => Strategy::Prompted(Prompted::default(), prompts::collect(&arguments.prompts)?),
        (None, mode) => Strategy::for_mode(mode.name(), model)?,
    };
    // Said before the image is encoded, which takes its time. Maps made elsewhere need no decoder.
    if matches!(base, Strategy::Ais(_) | Strategy::Apg(_)) && !model.has_decoder() && arguments.fields.is_none() {
        bail!(
            "--mode {}: {} has no instance decoder; use --mode amg, or a model that has one (`cytomask models list`)",
            base.name(),
            model.name()
        );
    }
    let base = if arguments.compat { base.compat() } else { base };
    // Messages begin with the setting's name, which is the flag's.
    base.with_settings(&given(&arguments.thresholds)?).map_err(|error| anyhow!("--{error}"))
}

/// The flags that were given, by name.
fn given(thresholds: &ThresholdArgs) -> Result<Value> {
    let mut given = serde_json::to_value(thresholds)?;
    if let Some(given) = given.as_object_mut() {
        given.retain(|_, value| !value.is_null());
        // The only flag whose text may be a number or a word.
        if let Some(value) = given.get_mut("mask_threshold")
            && let Some(threshold) = value.as_str().and_then(|text| text.parse::<f32>().ok())
        {
            *value = json!(threshold);
        }
    }
    Ok(given)
}

/// The strategy a settings file holds; a warning when it was made for other weights.
fn from_file(path: &Path, mode: Mode, model: &Model) -> Result<Strategy> {
    let file = SettingsFile::read(path)?;
    if mode != Mode::Auto && mode.name() != file.mode {
        bail!("{}: these settings are for --mode {}, not {}", path.display(), file.mode, mode.name());
    }
    let strategy = file.strategy(model).with_context(|| path.display().to_string())?;
    if let Some(warning) = file.mismatch(model)? {
        say(&format!("warning: {}: {warning}", path.display()));
    }
    Ok(strategy)
}

/// How samples become 0–255.
pub(crate) fn normalization(choice: Normalize, model: &Model) -> Normalization {
    match choice {
        Normalize::Model => model.normalization(),
        Normalize::Minmax => Normalization::MicroSam,
        Normalize::Percentile([low, high]) => Normalization::Percentile { low, high },
        Normalize::Range([low, high]) => Normalization::Range { low, high },
        Normalize::None => Normalization::EightBit,
    }
}

/// The model looking at images enlarged by the factor in `text`; `auto` leaves the choice to it.
pub(crate) fn scaled(model: Model, text: &str) -> Result<Model> {
    if text == "auto" {
        return Ok(model);
    }
    let factor = text.parse().ok().filter(|factor| (0.05..=20.0).contains(factor));
    let factor: f32 =
        factor.with_context(|| format!("scale: expected `auto` or a factor from 0.05 to 20, found {text:?}"))?;
    if model.scale().is_none() {
        bail!("scale: {} always sees its longer side as 1024 pixels; use --tile_shape to enlarge", model.name());
    }
    Ok(model.with_scale(ScaleChoice::Fixed(factor)))
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
