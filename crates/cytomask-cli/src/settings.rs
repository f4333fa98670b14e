//! Flags become strategies.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use cytomask::{DeviceChoice, Model, Normalization, Prompted, ScaleChoice, SettingsFile, Strategy};
use serde_json::{Value, json};

use crate::args::{Device, Mode, ModelArgs, Normalize, Precision, SegmentArgs, ThresholdArgs};
use crate::progress::say;
use crate::prompts;

/// The strategy the flags ask for: the model's own settings or those of `--settings`, then the flags.
pub(crate) fn strategy(arguments: &SegmentArgs, model: &Model) -> Result<Strategy> {
    let base = match (&arguments.settings, arguments.mode) {
        (Some(path), mode) => from_file(path, mode, model)?,
        (None, Mode::Prompt) => Strategy::Prompted(Prompted::default(), prompts::collect(&arguments.prompts)?),
        (None, mode) => Strategy::for_mode(mode.name(), model)?,
    };
    check_mode(&base, model, arguments.fields.is_some())?;
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

/// Refuses a mode that the model cannot serve. Maps made elsewhere are for AIS and APG.
pub(crate) fn check_mode(strategy: &Strategy, model: &Model, given_maps: bool) -> Result<()> {
    match (strategy, model.flow_predictor()) {
        (Strategy::Flows(_), _) if given_maps => Ok(()),
        (Strategy::Flows(_), None) => {
            bail!("--mode flows: {} predicts no flows; cpsam and cyto3 do (`cytomask models list`)", model.name())
        }
        (Strategy::Flows(_), _) | (_, None) => Ok(()),
        (other, Some(_)) => bail!("--mode {}: {} predicts flows; use --mode flows", other.name(), model.name()),
    }
}

/// The flags that were given, by name.
fn given(thresholds: &ThresholdArgs) -> Result<Value> {
    let mut given = serde_json::to_value(thresholds)?;
    if let Some(given) = given.as_object_mut() {
        given.retain(|_, value| !value.is_null());
        // The flags whose text may be a number or a word.
        for name in ["distance_smoothing", "mask_threshold"] {
            if let Some(value) = given.get_mut(name)
                && let Some(number) = value.as_str().and_then(|text| text.parse::<f32>().ok())
            {
                *value = json!(number);
            }
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
        // As Cellpose has it: not clipped.
        Normalize::Percentile([low, high]) if let Normalization::Cellpose { grey, .. } = model.normalization() => {
            Normalization::Cellpose { low, high, grey }
        }
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
    if model.flow_predictor().is_some() {
        bail!("scale: {} is told the size of the objects by the diameter", model.name());
    }
    if model.scale().is_none() {
        bail!("scale: {} always sees its longer side as 1024 pixels; use --tile_shape to enlarge", model.name());
    }
    Ok(model.with_scale(ScaleChoice::Fixed(factor)))
}

/// Opens the model the flags name, to run it.
pub(crate) fn open_model(arguments: &ModelArgs) -> Result<Model> {
    open_by(arguments, false, cytomask::load_model)
}

/// As [`open_model`], for a command whose results say by its hash which model made them. With `compat` it computes as upstream does, in
/// `f32`.
pub(crate) fn open_recorded_model(arguments: &ModelArgs, compat: bool) -> Result<Model> {
    open_by(arguments, compat, cytomask::load_recorded_model)
}

type Load = fn(&str, Option<&Path>, DeviceChoice) -> Result<Model, cytomask::Error>;

fn open_by(arguments: &ModelArgs, compat: bool, load: Load) -> Result<Model> {
    let precision = match arguments.precision {
        Precision::Auto => None,
        Precision::F32 => Some(cytomask::Precision::F32),
        Precision::Bf16 => Some(cytomask::Precision::Bf16),
        Precision::Int8 => Some(cytomask::Precision::Int8),
    };
    if compat && precision.is_some_and(|precision| precision != cytomask::Precision::F32) {
        bail!("--compat computes as upstream does, in f32: leave out --precision");
    }
    let model = load(&arguments.model, arguments.decoder.as_deref(), device(arguments.device))?;
    let precision = precision.unwrap_or(if compat { cytomask::Precision::F32 } else { model.automatic_precision() });
    Ok(model.with_precision(precision)?.released())
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

/// Whether the network runs on a graphics card.
#[cfg(feature = "train")]
pub(crate) fn is_accelerated(choice: Device) -> bool {
    match choice {
        Device::Auto => cfg!(any(feature = "cuda", feature = "metal", feature = "wgpu")),
        Device::Cpu => false,
        Device::Cuda | Device::Wgpu | Device::Metal => true,
    }
}
