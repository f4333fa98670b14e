//! The choice of a strategy, with its settings.

use cytomask_models::{Family, Model};
use cytomask_segment::apg::{MaskThreshold, PromptKind, PromptSource};
use cytomask_segment::ops::nms::Overlap;
use cytomask_segment::{Ais, Amg, Apg, Prompt, Prompted};
use serde_json::{Value, json};

/// How a network's answers become instances.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// A grid of points.
    Amg(Amg),
    /// Decoder maps and a watershed.
    Ais(Ais),
    /// Prompts derived from decoder maps.
    Apg(Apg),
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

impl Strategy {
    /// APG where the model has an instance decoder, else AMG; with the model's own defaults.
    pub fn default_for(model: &Model) -> Self {
        if model.has_decoder() { Self::Apg(Self::apg_for(model)) } else { Self::Amg(Self::amg_for(model)) }
    }

    /// The strategy's name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Amg(_) => "amg",
            Self::Ais(_) => "ais",
            Self::Apg(_) => "apg",
            Self::Prompted(..) => "prompt",
        }
    }

    /// Every setting under its command-line name, for records and caches.
    pub fn settings(&self) -> Value {
        match self {
            Self::Amg(amg) => json!({
                "points_per_side": amg.points_per_side,
                "pred_iou_thresh": amg.pred_iou_thresh,
                "stability_score_thresh": amg.stability_score_thresh,
                "stability_score_offset": amg.stability_score_offset,
                "box_nms_thresh": amg.box_nms_thresh,
                "crop_n_layers": amg.crop_n_layers,
                "crop_nms_thresh": amg.crop_nms_thresh,
                "crop_overlap_ratio": amg.crop_overlap_ratio,
                "crop_n_points_downscale_factor": amg.crop_n_points_downscale_factor,
                "min_mask_region_area": amg.min_mask_region_area,
                "min_size": amg.min_object_size,
                "compat": amg.compat,
            }),
            Self::Ais(ais) => json!({
                "center_distance_threshold": ais.center_distance_threshold,
                "boundary_distance_threshold": ais.boundary_distance_threshold,
                "foreground_threshold": ais.foreground_threshold,
                "foreground_smoothing": ais.foreground_smoothing,
                "distance_smoothing": ais.distance_smoothing,
                "min_size": ais.min_size,
            }),
            Self::Apg(apg) => json!({
                "center_distance_threshold": apg.center_distance_threshold,
                "boundary_distance_threshold": apg.boundary_distance_threshold,
                "foreground_threshold": apg.foreground_threshold,
                "distance_smoothing": apg.distance_smoothing,
                "prompt_source": match apg.prompt_source {
                    PromptSource::Components => "components",
                    PromptSource::BoundaryMaxima => "maxima",
                },
                "prompt_kind": match apg.prompt_kind {
                    PromptKind::Point => "point",
                    PromptKind::Box => "box",
                    PromptKind::PointAndBox => "point-and-box",
                },
                "multimasking": apg.multimasking,
                "mask_threshold": match apg.mask_threshold {
                    MaskThreshold::Fixed(threshold) => json!(threshold),
                    MaskThreshold::Automatic => json!("auto"),
                },
                "refine_with_box_prompts": apg.refine_with_box_prompts,
                "min_size": apg.min_size,
                "min_score": apg.min_score,
                "nms_threshold": apg.nms_threshold,
                "intersection_over_min": apg.overlap == Overlap::IntersectionOverMinimum,
                "compat": apg.compat,
            }),
            Self::Prompted(prompted, prompts) => {
                json!({ "multimasking": prompted.multimask, "prompts": prompts.len() })
            }
        }
    }
}

impl Strategy {
    /// APG with the settings that suit `model`: the paper's for µSAM's models, those chosen on validation images for the built-in
    /// one (docs/default-model.md).
    pub fn apg_for(model: &Model) -> Apg {
        match model.family() {
            // Boxes from the maps are far more precise prompts than points for this small model, and its poor masks are told by
            // their score.
            Family::CytomaskT => {
                Apg { prompt_kind: PromptKind::PointAndBox, distance_smoothing: 1.0, min_score: 0.5, ..Apg::default() }
            }
            _ => Apg::default(),
        }
    }

    /// AIS with the settings that suit `model`.
    pub fn ais_for(model: &Model) -> Ais {
        Ais::for_model(model.name())
    }

    /// AMG with the settings that suit `model`.
    pub fn amg_for(model: &Model) -> Amg {
        Amg::for_model(model.name())
    }
}
