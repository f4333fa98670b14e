//! Flags of networks that predict flows, under Cellpose's names (docs/cellpose.md).

use anyhow::{Result, bail};
use clap::Args;
use cytomask::{FlowDiameter, FlowOptions, Model, Volume, VolumeOptions};
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
    /// Segment a stack as a volume: planes along all three axes, a label stack as result.
    #[arg(long = "do_3D", conflicts_with = "stitch_threshold")]
    pub(crate) do_3d: bool,
    /// With --do_3D: distance of two planes over the size of a pixel. [default: 1]
    #[arg(long, value_name = "FACTOR", requires = "do_3d")]
    pub(crate) anisotropy: Option<f64>,
    /// With --do_3D: smooth flows by a Gaussian of this standard deviation, voxels. [default: 0]
    #[arg(long = "flow3D_smooth", value_name = "SIGMA", requires = "do_3d")]
    pub(crate) flow3d_smooth: Option<f64>,
    /// Segment the planes of a stack and join objects whose intersection over union is at least this; a label stack as result.
    #[arg(long = "stitch_threshold", value_name = "0..1")]
    pub(crate) stitch_threshold: Option<f64>,
}

fn overlap(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.05..=0.5).contains(share));
    share.ok_or_else(|| format!("expected a share from 0.05 to 0.5, found {text:?}"))
}

impl FlowArgs {
    /// The first flag that was given, if any.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--augment", self.augment),
            ("--tile_overlap", self.tile_overlap.is_some()),
            ("--do_3D", self.do_3d),
            ("--stitch_threshold", self.stitch_threshold.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// How stacks become volumes, if they shall. As for Cellpose, a threshold of 0 joins nothing.
    pub(crate) fn volume(&self) -> Option<(&'static str, Volume)> {
        let defaults = VolumeOptions::default();
        match self.stitch_threshold.filter(|threshold| *threshold != 0.0) {
            Some(threshold) => Some(("--stitch_threshold", Volume::Stitched(threshold))),
            None => self.do_3d.then(|| {
                let options = VolumeOptions {
                    anisotropy: self.anisotropy.unwrap_or(defaults.anisotropy),
                    flow3d_smooth: self.flow3d_smooth.unwrap_or(defaults.flow3d_smooth),
                };
                ("--do_3D", Volume::Orthogonal(options))
            }),
        }
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
