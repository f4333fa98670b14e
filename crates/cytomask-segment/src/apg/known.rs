//! Proposals kept from one setting to the next.
//!
//! Which prompts are derived, what the network answers to them, and how the answers are merged depend on different settings. When
//! many settings are tried on one image, [`Apg::proposing`] tells which of them share their prompts, and [`KnownProposals`] keep
//! the network from being asked twice.

use std::collections::BTreeMap;

use super::{Apg, DerivedPrompt, Proposal};
use crate::model::{BoxPrompt, PromptModel};

/// What a network answered to the prompts of one encoded image (or tile), so that prompts which several settings share are decoded
/// once.
#[derive(Clone, Debug, Default)]
pub struct KnownProposals {
    /// By the settings that say what becomes of a prompt; few.
    by_decoding: Vec<(Apg, BTreeMap<PromptKey, Option<Proposal>>)>,
}

/// Point, and the bits of the corners of the box.
type PromptKey = ([u32; 2], Option<[u32; 4]>);

impl KnownProposals {
    fn of(&mut self, decoding: Apg) -> &mut BTreeMap<PromptKey, Option<Proposal>> {
        let at = self.by_decoding.iter().position(|(known, _)| *known == decoding).unwrap_or_else(|| {
            self.by_decoding.push((decoding, BTreeMap::new()));
            self.by_decoding.len() - 1
        });
        &mut self.by_decoding[at].1
    }
}

impl DerivedPrompt {
    fn key(&self) -> PromptKey {
        (self.point, self.bounds.map(|BoxPrompt { y0, x0, y1, x1 }| [y0, x0, y1, x1].map(f32::to_bits)))
    }
}

impl Apg {
    /// As [`Apg::propose`], without decoding again what `known` holds. `known` belongs to one encoded image or tile.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn propose_new<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        size: [u32; 2],
        derived: &[DerivedPrompt],
        known: &mut KnownProposals,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Proposal>, M::Error> {
        let known = known.of(self.decoding());
        let mut new: Vec<DerivedPrompt> =
            derived.iter().filter(|prompt| !known.contains_key(&prompt.key())).copied().collect();
        new.sort_by_key(DerivedPrompt::key);
        new.dedup_by_key(|prompt| prompt.key());
        let answers = self.answers(model, embedding, size, &new, progress)?;
        known.extend(new.iter().map(DerivedPrompt::key).zip(answers));
        Ok(derived.iter().filter_map(|prompt| known.get(&prompt.key()).cloned().flatten()).collect())
    }

    /// These settings with all that matters only once there are proposals at its default.
    #[must_use]
    pub fn proposing(&self) -> Self {
        let Self { batch_size, min_size, min_score, grow_px, nms_threshold, overlap, .. } = Self::default();
        Self { batch_size, min_size, min_score, grow_px, nms_threshold, overlap, ..self.clone() }
    }

    /// Of these settings those that say what becomes of a prompt; the rest at its default.
    fn decoding(&self) -> Self {
        Self {
            prompt_kind: self.prompt_kind,
            multimasking: self.multimasking,
            mask_threshold: self.mask_threshold,
            refine_with_box_prompts: self.refine_with_box_prompts,
            compat: self.compat,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apg::{MaskThreshold, PromptKind, PromptSource};
    use crate::model::FieldModel;
    use crate::object_size::Smoothing;
    use crate::ops::nms::Overlap;
    use crate::scripted::ScriptedModel;

    /// Touching and lone discs, one of them small; logits so soft that thresholds matter.
    fn model() -> ScriptedModel {
        let discs = [(48.0, 50.0, 12.0), (48.0, 73.0, 12.0), (70.0, 61.0, 13.0), (20.0, 110.0, 4.0), (20.0, 20.0, 9.0)];
        ScriptedModel { sharpness: 1.0, ..ScriptedModel::new([97, 131], &discs) }
    }

    /// Settings that differ in every part: prompts, decoding, merging.
    fn settings() -> Vec<Apg> {
        let mut all = Vec::new();
        for center_distance_threshold in [0.3, 0.5, 0.7] {
            for (min_size, nms_threshold) in [(25, 0.9), (100, 0.5)] {
                for overlap in [Overlap::IntersectionOverUnion, Overlap::IntersectionOverMinimum] {
                    let apg = Apg { center_distance_threshold, min_size, nms_threshold, overlap, ..Apg::default() };
                    let maxima = PromptSource::BoundaryMaxima;
                    all.extend([
                        Apg { prompt_kind: PromptKind::Box, min_score: 0.6, ..apg.clone() },
                        Apg { prompt_kind: PromptKind::Box, grow_px: 1, ..apg.clone() },
                        Apg {
                            prompt_source: maxima,
                            distance_smoothing: Smoothing::Sigma(1.0),
                            mask_threshold: MaskThreshold::Fixed(2.0),
                            ..apg.clone()
                        },
                        Apg {
                            prompt_source: PromptSource::Boxes,
                            prompt_kind: PromptKind::PointAndBox,
                            box_score_thresh: 0.85,
                            ..apg.clone()
                        },
                        Apg { refine_with_box_prompts: true, multimasking: true, ..apg.clone() },
                        Apg { refine_with_box_prompts: true, compat: true, ..apg.clone() },
                        apg,
                    ]);
                }
            }
        }
        all
    }

    #[test]
    fn known_proposals_change_nothing_but_the_work() {
        let model = model();
        let embedding = model.encode(&model.image()).unwrap();
        let fields = model.fields(&embedding).unwrap();
        let mut known = KnownProposals::default();
        for apg in settings() {
            let boxes = apg.boxes_of(&model, &embedding).unwrap();
            let plain = apg.run_with_fields(&model, &embedding, &fields, boxes.as_deref(), &mut |_, _| ()).unwrap();
            let prompts = apg.derive_prompts(&fields, boxes.as_deref());
            let mut propose = || apg.propose_new(&model, &embedding, fields.size, &prompts, &mut known, &mut |_, _| ());
            let found = apg.merge(&fields, propose().unwrap());
            assert_eq!((&found.labels, &found.objects), (&plain.labels, &plain.objects), "{apg:?}");
            let before = model.prompts_decoded();
            assert_eq!(apg.merge(&fields, propose().unwrap()).labels, plain.labels);
            assert_eq!(model.prompts_decoded(), before, "nothing new was asked");
        }
    }

    #[test]
    fn settings_of_the_merge_decode_nothing() {
        let model = model();
        let embedding = model.encode(&model.image()).unwrap();
        let fields = model.fields(&embedding).unwrap();
        let (mut known, mut decoded) = (KnownProposals::default(), 0);
        for (index, min_size) in [0, 25, 50, 100, 200].into_iter().enumerate() {
            let apg = Apg { min_size, nms_threshold: 0.5 + 0.1 * index as f32, ..Apg::default() };
            assert_eq!(apg.proposing(), Apg::default().proposing());
            let prompts = apg.derive_prompts(&fields, None);
            apg.propose_new(&model, &embedding, fields.size, &prompts, &mut known, &mut |_, _| ()).unwrap();
            decoded = decoded.max(prompts.len());
        }
        assert_eq!(model.prompts_decoded(), decoded);
        assert_ne!(Apg { center_distance_threshold: 0.4, ..Apg::default() }.proposing(), Apg::default().proposing());
    }
}
