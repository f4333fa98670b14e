//! The choice of a strategy, with its settings.

use cytomask_models::{Family, Model};
use cytomask_segment::apg::{PromptKind, PromptSource};
use cytomask_segment::ops::nms::Overlap;
use cytomask_segment::{Ais, Amg, Apg, Flows, Prompt, Prompted, Smoothing};

/// How a network's answers become instances.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// A grid of points.
    Amg(Amg),
    /// Decoder maps and a watershed.
    Ais(Ais),
    /// Prompts derived from decoder maps.
    Apg(Apg),
    /// Flows that are followed to the objects' centres.
    Flows(Flows),
    /// Prompts given by the user, one object each.
    Prompted(Prompted, Vec<Prompt>),
}

impl From<Amg> for Strategy {
    fn from(settings: Amg) -> Self {
        Self::Amg(settings)
    }
}

impl From<Ais> for Strategy {
    fn from(settings: Ais) -> Self {
        Self::Ais(settings)
    }
}

impl From<Apg> for Strategy {
    fn from(settings: Apg) -> Self {
        Self::Apg(settings)
    }
}

impl From<Flows> for Strategy {
    fn from(settings: Flows) -> Self {
        Self::Flows(settings)
    }
}

impl Strategy {
    /// Flows where the model predicts them, APG where it has an instance decoder, else AMG; with the model's own defaults.
    pub fn default_for(model: &Model) -> Self {
        if model.flow_predictor().is_some() {
            return Self::Flows(Flows::default());
        }
        if model.has_decoder() { Self::Apg(Self::apg_for(model)) } else { Self::Amg(Self::amg_for(model)) }
    }

    /// The strategy's name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Amg(_) => "amg",
            Self::Ais(_) => "ais",
            Self::Apg(_) => "apg",
            Self::Flows(_) => "flows",
            Self::Prompted(..) => "prompt",
        }
    }

    /// The same strategy as upstream runs it: the paper's defaults, not a model's preset, with upstream's choices where they
    /// differ from the right ones.
    #[must_use]
    pub fn compat(self) -> Self {
        match self {
            Self::Apg(_) => Apg { compat: true, ..Apg::default() }.into(),
            Self::Amg(_) => Amg::default().compat().into(),
            Self::Ais(ais) if ais.distance_smoothing == Smoothing::BySize => {
                Ais { distance_smoothing: Ais::default().distance_smoothing, ..ais }.into()
            }
            other => other,
        }
    }
}

impl Strategy {
    /// APG with the settings that suit `model`: the paper's for µSAM's models, those chosen on validation images for the built-in
    /// one (docs/default-model.md).
    pub fn apg_for(model: &Model) -> Apg {
        match model.family() {
            // Boxes are far more precise prompts than points for this small model, and its own tell objects apart that touch; its poor
            // masks are told by their score (docs/decisions/0051-proposed-boxes.md).
            Family::CytomaskT if model.proposes_boxes() => Apg {
                prompt_source: PromptSource::Boxes,
                prompt_kind: PromptKind::PointAndBox,
                distance_smoothing: Smoothing::BySize,
                box_score_thresh: 0.55,
                min_score: 0.4,
                // Dim and blurred images are rated low as a whole (docs/decisions/0052-typical-scores.md).
                typical_score: 0.8,
                // Its foreground map is finer than its masks (docs/decisions/0053-growing-into-the-foreground.md).
                grow_px: 1,
                nms_threshold: 0.5,
                overlap: Overlap::IntersectionOverMinimum,
                ..Apg::default()
            },
            Family::CytomaskT => Apg {
                prompt_kind: PromptKind::PointAndBox,
                distance_smoothing: Smoothing::BySize,
                min_score: 0.5,
                ..Apg::default()
            },
            _ => Apg::default(),
        }
    }

    /// AIS with the settings that suit `model`: µSAM's for its models, smoothing by the objects' size for the built-in one.
    pub fn ais_for(model: &Model) -> Ais {
        match model.family() {
            Family::CytomaskT => Ais { distance_smoothing: Smoothing::BySize, ..Ais::default() },
            _ => Ais::for_model(model.name()),
        }
    }

    /// AMG with the settings that suit `model`: µSAM's for its models, those chosen on validation images for the built-in one
    /// (docs/default-model.md), else SAM's.
    pub fn amg_for(model: &Model) -> Amg {
        match model.family() {
            // It rates its masks low, and several points find each of its objects.
            Family::CytomaskT => {
                Amg { pred_iou_thresh: 0.5, stability_score_thresh: 0.7, box_nms_thresh: 0.4, ..Amg::default() }
            }
            _ => Amg::for_model(model.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compat_leaves_no_preset_of_the_built_in_model() {
        let preset = Ais { distance_smoothing: Smoothing::BySize, min_size: 7, ..Ais::default() };
        let Strategy::Ais(ais) = Strategy::from(preset).compat() else { panic!("not AIS") };
        assert_eq!(ais, Ais { min_size: 7, ..Ais::default() });
    }
}
