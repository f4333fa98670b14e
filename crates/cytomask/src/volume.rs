//! Stacks as volumes: flows in three dimensions, or planes whose objects are joined.

use cytomask_image::{Image, LabelStack, Limits, Rgb};
use cytomask_models::flows::VolumeOptions;
use cytomask_segment::{Flows, stitch_planes};

use crate::{Error, ErrorKind, Phase, Segmenter, Strategy};

/// How a stack becomes objects of a volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Volume {
    /// The network sees planes along all three axes (Cellpose's `do_3D`).
    Orthogonal(VolumeOptions),
    /// Objects of planes are joined where their intersection over union is at least this (Cellpose's `stitch_threshold`).
    Stitched(f64),
}

impl Segmenter {
    /// Segments a stack, given as planes of one size. Samples are converted by limits of the whole stack.
    ///
    /// # Errors
    /// `Unsupported` for any mode but flows, `Setting` for fewer than two planes or a threshold out of range; as
    /// [`Segmenter::run`].
    pub fn run_volume(
        &self,
        planes: &[Image],
        volume: Volume,
        report: &mut dyn FnMut(Phase),
    ) -> Result<LabelStack, Error> {
        let (Strategy::Flows(flows), Some(predictor)) = (self.chosen_strategy(), self.model().flow_predictor()) else {
            let message = format!("volumes are segmented in mode flows, found {}", self.chosen_strategy().name());
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        if planes.len() < 2 {
            let message = format!("a volume: expected at least two planes, found {}", planes.len());
            return Err(Error::new(ErrorKind::Setting, message));
        }
        let limits = Limits::find(self.chosen_normalization(), &mut |see| planes.iter().try_for_each(&mut *see))?;
        let planes: Vec<Rgb> = planes.iter().map(|plane| limits.to_rgb(plane)).collect::<Result<_, _>>()?;
        match volume {
            Volume::Orthogonal(options) => {
                report(Phase::Tile { done: 0, total: 1 });
                let fields = predictor.volume(&planes, &options)?;
                report(Phase::Merge);
                Ok(flows.segment_volume(&fields))
            }
            Volume::Stitched(threshold) => {
                if !(threshold > 0.0 && threshold <= 1.0) {
                    let message = format!("stitch_threshold: expected above 0, up to 1, found {threshold}");
                    return Err(Error::new(ErrorKind::Setting, message));
                }
                // Small objects of a plane may be ends of larger ones.
                let all = Flows { min_size: 0, ..*flows };
                let mut labels = Vec::with_capacity(planes.len());
                for (done, plane) in planes.iter().enumerate() {
                    report(Phase::Tile { done, total: planes.len() });
                    labels.push(all.segment(&predictor.fields(plane)?).labels);
                }
                report(Phase::Merge);
                Ok(stitch_planes(&labels, threshold, flows))
            }
        }
    }
}
