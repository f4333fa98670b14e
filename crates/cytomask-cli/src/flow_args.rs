//! Flags of networks that predict flows, under Cellpose's names (docs/cellpose.md).

use anyhow::{Result, bail};
use clap::Args;
use cytomask::{FlowDiameter, FlowOptions, Model};
use serde::Serialize;

/// How images are run by a network that predicts flows.
#[derive(Args, Debug, Default, Serialize)]
#[command(next_help_heading = "Flows (cpsam, cyto3)")]
pub(crate) struct FlowArgs {
    /// Overlap tiles by half and turn every other one over: slower, often a little better.
    #[arg(long)]
    pub(crate) augment: bool,
    /// Share of a tile that overlaps with the next, 0.05 to 0.5. [default: 0.1]
    #[arg(long = "tile_overlap", value_name = "SHARE", value_parser = overlap)]
    pub(crate) tile_overlap: Option<f64>,
}

fn overlap(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.05..=0.5).contains(share));
    share.ok_or_else(|| format!("expected a share from 0.05 to 0.5, found {text:?}"))
}

impl FlowArgs {
    /// The first flag that was given, if any.
    fn given(&self) -> Option<&'static str> {
        let flags = [("--augment", self.augment), ("--tile_overlap", self.tile_overlap.is_some())];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// The model told of the flags and of `--diameter`, as given.
    pub(crate) fn apply(&self, model: Model, diameter: Option<f64>) -> Result<Model> {
        let Some(predictor) = model.flow_predictor() else {
            if let Some(flag) = self.given() {
                bail!("{flag}: {} predicts no flows; it is for cpsam, cyto3 and their kind", model.name());
            }
            if diameter == Some(0.0) {
                bail!("--diameter: expected a number above 0, found 0");
            }
            return Ok(model);
        };
        let estimated = diameter == Some(0.0);
        if estimated && !predictor.sees_roles() {
            bail!("--diameter: expected a number above 0, found 0: {} has no size model to estimate it", model.name());
        }
        if estimated && !predictor.has_size_model() {
            bail!("--diameter 0: there is no size model (size_NAME.npy) beside the file of {}", model.name());
        }
        let defaults = FlowOptions::default();
        let options = FlowOptions {
            diameter: if estimated { FlowDiameter::Estimated } else { defaults.diameter },
            augment: self.augment,
            tile_overlap: self.tile_overlap.unwrap_or(defaults.tile_overlap),
        };
        Ok(model.with_flow_options(options))
    }
}
