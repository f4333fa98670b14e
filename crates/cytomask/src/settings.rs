//! Settings by name: each strategy's list of them.
//!
//! A name stands once, in one of the lists below; [`Strategy::settings`], [`Strategy::with_settings`], the flags of the program and
//! [settings files](crate::SettingsFile) all go through it.

use cytomask_models::Model;
use cytomask_segment::amg::WithBackground;
use cytomask_segment::apg::{MaskThreshold, PromptKind, PromptSource};
use cytomask_segment::ops::nms::Overlap;
use cytomask_segment::{Ais, Amg, Apg, Flows, Prompted, Smoothing};
use serde_json::{Map, Value, json};

use crate::{Error, ErrorKind, Strategy};

/// Modes that need nothing but an image, so that a settings file can hold them.
pub(crate) const MODES: [&str; 4] = ["amg", "ais", "apg", "flows"];

/// Largest smoothing, pixels.
const LARGEST_SIGMA: f32 = 1000.0;

/// The place of one setting, with the values it may take.
enum Slot<'a> {
    /// 0–1.
    Share(&'a mut f32),
    /// 0–1.
    WideShare(&'a mut f64),
    /// A standard deviation, 0–1000 pixels.
    Sigma(&'a mut f32),
    /// A standard deviation, or by the objects' size.
    Smoothing(&'a mut Smoothing),
    /// Logits, at least 0.
    Logits(&'a mut f32),
    /// Logits of any sign.
    SignedLogits(&'a mut f32),
    /// A whole number of at least this.
    Count(&'a mut u32, u32),
    /// Pixels.
    Pixels(&'a mut u64),
    Flag(&'a mut bool),
    /// Prompts decoded together; without influence on the result, hence in no record.
    Batch(&'a mut usize),
    Source(&'a mut PromptSource),
    Kind(&'a mut PromptKind),
    Threshold(&'a mut MaskThreshold),
    /// `true` for intersection over the smaller mask.
    OverMinimum(&'a mut Overlap),
    Background(&'a mut WithBackground),
}

type Named<'a> = (&'static str, Slot<'a>);

fn slots_of_ais(ais: &mut Ais) -> Vec<Named<'_>> {
    vec![
        ("center_distance_threshold", Slot::Share(&mut ais.center_distance_threshold)),
        ("boundary_distance_threshold", Slot::Share(&mut ais.boundary_distance_threshold)),
        ("foreground_threshold", Slot::Share(&mut ais.foreground_threshold)),
        ("foreground_smoothing", Slot::Sigma(&mut ais.foreground_smoothing)),
        ("distance_smoothing", Slot::Smoothing(&mut ais.distance_smoothing)),
        ("min_size", Slot::Pixels(&mut ais.min_size)),
    ]
}

fn slots_of_apg(apg: &mut Apg) -> Vec<Named<'_>> {
    vec![
        ("center_distance_threshold", Slot::Share(&mut apg.center_distance_threshold)),
        ("boundary_distance_threshold", Slot::Share(&mut apg.boundary_distance_threshold)),
        ("foreground_threshold", Slot::Share(&mut apg.foreground_threshold)),
        ("distance_smoothing", Slot::Smoothing(&mut apg.distance_smoothing)),
        ("prompt_source", Slot::Source(&mut apg.prompt_source)),
        ("prompt_kind", Slot::Kind(&mut apg.prompt_kind)),
        ("box_score_thresh", Slot::Share(&mut apg.box_score_thresh)),
        ("box_nms_thresh", Slot::WideShare(&mut apg.box_nms_thresh)),
        ("maxima_distance_px", Slot::Count(&mut apg.maxima_distance_px, 0)),
        ("multimasking", Slot::Flag(&mut apg.multimasking)),
        ("batch_size", Slot::Batch(&mut apg.batch_size)),
        ("mask_threshold", Slot::Threshold(&mut apg.mask_threshold)),
        ("refine_with_box_prompts", Slot::Flag(&mut apg.refine_with_box_prompts)),
        ("min_size", Slot::Pixels(&mut apg.min_size)),
        ("min_score", Slot::Share(&mut apg.min_score)),
        ("typical_score", Slot::Share(&mut apg.typical_score)),
        ("grow_px", Slot::Count(&mut apg.grow_px, 0)),
        ("nms_threshold", Slot::Share(&mut apg.nms_threshold)),
        ("intersection_over_min", Slot::OverMinimum(&mut apg.overlap)),
        ("compat", Slot::Flag(&mut apg.compat)),
    ]
}

fn slots_of_amg(amg: &mut Amg) -> Vec<Named<'_>> {
    vec![
        ("points_per_side", Slot::Count(&mut amg.points_per_side, 1)),
        ("batch_size", Slot::Batch(&mut amg.points_per_batch)),
        ("pred_iou_thresh", Slot::Share(&mut amg.pred_iou_thresh)),
        ("stability_score_thresh", Slot::Share(&mut amg.stability_score_thresh)),
        ("stability_score_offset", Slot::Logits(&mut amg.stability_score_offset)),
        ("box_nms_thresh", Slot::WideShare(&mut amg.box_nms_thresh)),
        ("crop_n_layers", Slot::Count(&mut amg.crop_n_layers, 0)),
        ("crop_nms_thresh", Slot::WideShare(&mut amg.crop_nms_thresh)),
        ("crop_overlap_ratio", Slot::WideShare(&mut amg.crop_overlap_ratio)),
        ("crop_n_points_downscale_factor", Slot::Count(&mut amg.crop_n_points_downscale_factor, 1)),
        ("min_mask_region_area", Slot::Pixels(&mut amg.min_mask_region_area)),
        ("min_size", Slot::Pixels(&mut amg.min_object_size)),
        ("with_background", Slot::Background(&mut amg.with_background)),
        ("compat", Slot::Flag(&mut amg.compat)),
    ]
}

fn slots_of_flows(flows: &mut Flows) -> Vec<Named<'_>> {
    vec![
        ("flow_threshold", Slot::Logits(&mut flows.flow_threshold)),
        ("cellprob_threshold", Slot::SignedLogits(&mut flows.cellprob_threshold)),
        ("niter", Slot::Count(&mut flows.niter, 0)),
        ("min_size", Slot::Pixels(&mut flows.min_size)),
        ("max_size_fraction", Slot::WideShare(&mut flows.max_size_fraction)),
    ]
}

fn slots_of_prompted(prompted: &mut Prompted) -> Vec<Named<'_>> {
    vec![("multimasking", Slot::Flag(&mut prompted.multimask)), ("batch_size", Slot::Batch(&mut prompted.batch_size))]
}

fn slots(strategy: &mut Strategy) -> Vec<Named<'_>> {
    match strategy {
        Strategy::Amg(amg) => slots_of_amg(amg),
        Strategy::Ais(ais) => slots_of_ais(ais),
        Strategy::Apg(apg) => slots_of_apg(apg),
        Strategy::Flows(flows) => slots_of_flows(flows),
        Strategy::Prompted(prompted, _) => slots_of_prompted(prompted),
    }
}

const SOURCES: [(&str, PromptSource); 4] = [
    ("components", PromptSource::Components),
    ("maxima", PromptSource::BoundaryMaxima),
    ("boxes", PromptSource::Boxes),
    ("boxes-and-components", PromptSource::BoxesAndComponents),
];
const KINDS: [(&str, PromptKind); 3] =
    [("point", PromptKind::Point), ("box", PromptKind::Box), ("point-and-box", PromptKind::PointAndBox)];
const BACKGROUNDS: [(&str, WithBackground); 3] = [
    ("keep", WithBackground::Keep),
    ("remove-largest", WithBackground::RemoveLargest),
    ("remove-surrounding", WithBackground::RemoveSurrounding),
];

impl Slot<'_> {
    fn get(&self) -> Value {
        match self {
            Self::Share(value) | Self::Sigma(value) | Self::Logits(value) | Self::SignedLogits(value) => {
                number(**value)
            }
            Self::Smoothing(value) => match **value {
                Smoothing::Sigma(sigma) => number(sigma),
                Smoothing::BySize => json!("auto"),
            },
            Self::WideShare(value) => json!(**value),
            Self::Count(value, _) => json!(**value),
            Self::Pixels(value) => json!(**value),
            Self::Flag(value) => json!(**value),
            Self::Batch(value) => json!(**value),
            Self::Source(value) => json!(word_of(&SOURCES, **value)),
            Self::Kind(value) => json!(word_of(&KINDS, **value)),
            Self::Threshold(value) => match **value {
                MaskThreshold::Fixed(threshold) => number(threshold),
                MaskThreshold::Automatic => json!("auto"),
            },
            Self::OverMinimum(value) => json!(**value == Overlap::IntersectionOverMinimum),
            Self::Background(value) => json!(word_of(&BACKGROUNDS, **value)),
        }
    }

    /// Takes a value, or says what was expected.
    fn set(&mut self, given: &Value) -> Result<(), String> {
        match self {
            Self::Share(value) => **value = within(given, 1.0).ok_or("a number from 0 to 1")? as f32,
            Self::WideShare(value) => **value = within(given, 1.0).ok_or("a number from 0 to 1")?,
            Self::Sigma(value) => **value = within(given, LARGEST_SIGMA).ok_or("pixels from 0 to 1000")? as f32,
            Self::Smoothing(value) => {
                **value = match (within(given, LARGEST_SIGMA), given.as_str()) {
                    (Some(sigma), _) => Smoothing::Sigma(sigma as f32),
                    (_, Some("auto")) => Smoothing::BySize,
                    _ => return Err("pixels from 0 to 1000 or \"auto\"".into()),
                }
            }
            Self::Logits(value) => **value = within(given, f32::MAX).ok_or("a number of at least 0")? as f32,
            Self::SignedLogits(value) => {
                let finite = given.as_f64().map(|logit| logit as f32).filter(|logit| logit.is_finite());
                **value = finite.ok_or("a finite number")?;
            }
            Self::Count(value, least) => {
                let whole = given.as_u64().and_then(|whole| u32::try_from(whole).ok()).filter(|whole| whole >= least);
                **value = whole.ok_or_else(|| format!("a whole number of at least {least}"))?;
            }
            Self::Pixels(value) => **value = given.as_u64().ok_or("a whole number of at least 0")?,
            Self::Flag(value) => **value = given.as_bool().ok_or("true or false")?,
            Self::Batch(value) => {
                let whole = given.as_u64().and_then(|whole| usize::try_from(whole).ok()).filter(|&whole| whole > 0);
                **value = whole.ok_or("a whole number of at least 1")?;
            }
            Self::Source(value) => **value = named(&SOURCES, given)?,
            Self::Kind(value) => **value = named(&KINDS, given)?,
            Self::Threshold(value) => {
                **value = match (given.as_f64(), given.as_str()) {
                    (Some(threshold), _) if (threshold as f32).is_finite() => MaskThreshold::Fixed(threshold as f32),
                    (_, Some("auto")) => MaskThreshold::Automatic,
                    _ => return Err("a logit or \"auto\"".into()),
                }
            }
            Self::OverMinimum(value) => {
                **value = match given.as_bool().ok_or("true or false")? {
                    true => Overlap::IntersectionOverMinimum,
                    false => Overlap::IntersectionOverUnion,
                }
            }
            Self::Background(value) => **value = named(&BACKGROUNDS, given)?,
        }
        Ok(())
    }
}

/// The number with the fewest digits that is read back as the same `f32`: 0.1, not 0.10000000149011612.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A number from 0 to `most`, which is compared at the precision settings are kept in.
fn within(given: &Value, most: f32) -> Option<f64> {
    given.as_f64().filter(|&value| (0.0..=most).contains(&(value as f32)))
}

fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

fn named<T: Copy>(words: &[(&str, T)], given: &Value) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| given.as_str() == Some(word));
    let all = || words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    found.map(|&(_, meaning)| meaning).ok_or_else(|| format!("one of {}", all()))
}

fn known_names(mut strategy: Strategy) -> Vec<&'static str> {
    slots(&mut strategy).into_iter().map(|(name, _)| name).collect()
}

/// The modes that know a setting.
fn modes_with(name: &str) -> Vec<&'static str> {
    let all: [Strategy; 5] = [
        Amg::default().into(),
        Ais::default().into(),
        Apg::default().into(),
        Flows::default().into(),
        Strategy::Prompted(Prompted::default(), Vec::new()),
    ];
    all.into_iter().filter(|strategy| known_names(strategy.clone()).contains(&name)).map(|with| with.name()).collect()
}

impl Strategy {
    /// The strategy of a mode (`amg`, `ais`, `apg`, `flows`, or `auto` for [`Strategy::default_for`]), with the settings that suit `model`.
    ///
    /// # Errors
    /// `Setting` for any other mode.
    pub fn for_mode(mode: &str, model: &Model) -> Result<Self, Error> {
        match mode {
            "auto" => Ok(Self::default_for(model)),
            "amg" => Ok(Self::amg_for(model).into()),
            "ais" => Ok(Self::ais_for(model).into()),
            "apg" => Ok(Self::apg_for(model).into()),
            "flows" => Ok(Flows::default().into()),
            other => {
                let message = format!("mode: expected one of auto, {}, found {other:?}", MODES.join(", "));
                Err(Error::new(ErrorKind::Setting, message))
            }
        }
    }

    /// Every setting that influences the result, under its command-line name: for records, caches and settings files.
    pub fn settings(&self) -> Value {
        let mut copy = self.clone();
        let recorded = slots(&mut copy).into_iter().filter(|(_, slot)| !matches!(slot, Slot::Batch(_)));
        let mut settings: Map<String, Value> = recorded.map(|(name, slot)| (name.to_owned(), slot.get())).collect();
        if let Self::Prompted(_, prompts) = self {
            settings.insert("prompts".into(), json!(prompts.len()));
        }
        Value::Object(settings)
    }

    /// The same strategy with some settings changed: an object of names as in [`Strategy::settings`].
    ///
    /// # Errors
    /// `Setting`, its message beginning with the name, for a name this strategy does not know or a value out of range.
    pub fn with_settings(mut self, settings: &Value) -> Result<Self, Error> {
        let wrong = |message: String| Error::new(ErrorKind::Setting, message);
        let mode = self.name();
        let given =
            settings.as_object().ok_or_else(|| wrong(format!("settings: expected an object, found {settings}")))?;
        for (name, value) in given {
            let mut known = slots(&mut self);
            let Some((_, slot)) = known.iter_mut().find(|(known, _)| known == name) else {
                let elsewhere = modes_with(name);
                return Err(wrong(if elsewhere.is_empty() {
                    let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    format!("{name}: mode {mode} has no such setting; it has {}", known.join(", "))
                } else {
                    format!("{name} has no effect in mode {mode}; it belongs to {}", elsewhere.join(", "))
                }));
            };
            slot.set(value).map_err(|expected| wrong(format!("{name}: expected {expected}, found {value}")))?;
        }
        Ok(self)
    }

    /// The inverse of [`Strategy::settings`]: a mode's strategy with these settings; what they leave out is as suits `model`.
    ///
    /// # Errors
    /// As [`Strategy::for_mode`] and [`Strategy::with_settings`].
    pub fn from_settings(mode: &str, settings: &Value, model: &Model) -> Result<Self, Error> {
        Self::for_mode(mode, model)?.with_settings(settings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy as _, any};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn share() -> impl proptest::strategy::Strategy<Value = f32> {
        prop_oneof![0.0_f32..=1.0, (0_u32..=1000).prop_map(|thousandths| thousandths as f32 / 1000.0)]
    }

    fn smoothing() -> impl proptest::strategy::Strategy<Value = Smoothing> {
        prop_oneof![Just(Smoothing::BySize), (0.0_f32..=1000.0).prop_map(Smoothing::Sigma)]
    }

    fn any_apg() -> impl proptest::strategy::Strategy<Value = Apg> {
        let numbers = (share(), share(), share(), smoothing(), share(), share(), share(), any::<u32>());
        let choices = (0..4_usize, 0..3_usize, any::<[bool; 4]>(), any::<u32>(), any::<u64>());
        let threshold = prop_oneof![Just(None), (-50.0_f32..50.0).prop_map(Some)];
        (numbers, choices, threshold, share(), wide_share()).prop_map(|(n, c, threshold, score, nms)| Apg {
            center_distance_threshold: n.0,
            boundary_distance_threshold: n.1,
            foreground_threshold: n.2,
            distance_smoothing: n.3,
            min_score: n.4,
            nms_threshold: n.5,
            typical_score: n.6,
            grow_px: n.7,
            prompt_source: SOURCES[c.0].1,
            box_score_thresh: score,
            box_nms_thresh: nms,
            prompt_kind: KINDS[c.1].1,
            multimasking: c.2[0],
            refine_with_box_prompts: c.2[1],
            compat: c.2[2],
            overlap: if c.2[3] { Overlap::IntersectionOverMinimum } else { Overlap::IntersectionOverUnion },
            maxima_distance_px: c.3,
            min_size: c.4,
            mask_threshold: threshold.map_or(MaskThreshold::Automatic, MaskThreshold::Fixed),
            ..Apg::default()
        })
    }

    /// As people write them, and the default of `crop_overlap_ratio`: serde_json reads longer numbers but for the last bit.
    fn wide_share() -> impl proptest::strategy::Strategy<Value = f64> {
        prop_oneof![Just(512.0 / 1500.0), (0_u32..=1000).prop_map(|thousandths| f64::from(thousandths) / 1000.0)]
    }

    fn any_amg() -> impl proptest::strategy::Strategy<Value = Amg> {
        let numbers = (share(), share(), 0.0_f32..9.0, wide_share(), wide_share(), wide_share());
        (numbers, 1_u32.., 0..9_u32, any::<[u64; 2]>(), 0..3_usize, any::<bool>()).prop_map(
            |(n, count, few, sizes, background, compat)| Amg {
                points_per_side: count,
                pred_iou_thresh: n.0,
                stability_score_thresh: n.1,
                stability_score_offset: n.2,
                box_nms_thresh: n.3,
                crop_nms_thresh: n.4,
                crop_overlap_ratio: n.5,
                crop_n_layers: few,
                crop_n_points_downscale_factor: few + 1,
                min_mask_region_area: sizes[0],
                min_object_size: sizes[1],
                with_background: BACKGROUNDS[background].1,
                compat,
                ..Amg::default()
            },
        )
    }

    fn any_ais() -> impl proptest::strategy::Strategy<Value = Ais> {
        (share(), share(), share(), 0.0_f32..9.0, smoothing(), any::<u64>()).prop_map(|values| Ais {
            center_distance_threshold: values.0,
            boundary_distance_threshold: values.1,
            foreground_threshold: values.2,
            foreground_smoothing: values.3,
            distance_smoothing: values.4,
            min_size: values.5,
        })
    }

    fn any_flows() -> impl proptest::strategy::Strategy<Value = Flows> {
        (-9.0_f32..9.0, 0.0_f32..9.0, any::<u32>(), any::<u64>(), wide_share()).prop_map(|values| Flows {
            cellprob_threshold: values.0,
            flow_threshold: values.1,
            niter: values.2,
            min_size: values.3,
            max_size_fraction: values.4,
        })
    }

    /// Through the text of a file and back onto the defaults.
    fn back(strategy: &Strategy, onto: Strategy) -> Strategy {
        let text = strategy.settings().to_string();
        onto.with_settings(&serde_json::from_str(&text).unwrap()).unwrap()
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]
        #[test]
        fn settings_come_back_as_they_were(apg in any_apg(), amg in any_amg(), ais in any_ais(), flows in any_flows()) {
            let Strategy::Flows(found) = back(&flows.into(), Flows::default().into()) else { panic!("not flows") };
            prop_assert_eq!(found, flows);
            let Strategy::Apg(found) = back(&apg.clone().into(), Apg::default().into()) else { panic!("not APG") };
            prop_assert_eq!(found, apg);
            let Strategy::Amg(found) = back(&amg.clone().into(), Amg::default().into()) else { panic!("not AMG") };
            prop_assert_eq!(found, amg);
            let Strategy::Ais(found) = back(&ais.into(), Ais::default().into()) else { panic!("not AIS") };
            prop_assert_eq!(found, ais);
        }
    }

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let settings = Strategy::from(Apg { min_score: 0.1, ..Apg::default() }).settings();
        assert_eq!(settings["min_score"].to_string(), "0.1");
        assert_eq!(settings.get("batch_size"), None, "has no influence on the result");
    }

    #[track_caller]
    fn refused(strategy: impl Into<Strategy>, settings: Value, texts: &[&str]) {
        let error = strategy.into().with_settings(&settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        for text in texts {
            assert!(error.to_string().contains(text), "{text:?} not in {error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        refused(Apg::default(), json!({ "nms_treshold": 0.5 }), &["nms_treshold: ", "no such", "nms_threshold"]);
        refused(Ais::default(), json!({ "nms_threshold": 0.5 }), &["nms_threshold has no effect", "ais", "apg"]);
        refused(Apg::default(), json!({ "nms_threshold": 1.5 }), &["nms_threshold: expected", "0 to 1", "1.5"]);
        refused(Apg::default(), json!({ "nms_threshold": "high" }), &["nms_threshold", "\"high\""]);
        refused(Apg::default(), json!({ "min_size": 2.5 }), &["min_size", "whole", "2.5"]);
        refused(Apg::default(), json!({ "prompt_kind": "mask" }), &["prompt_kind", "\"point\"", "\"mask\""]);
        refused(Apg::default(), json!({ "mask_threshold": "otsu" }), &["mask_threshold", "auto"]);
        refused(Amg::default(), json!({ "points_per_side": 0 }), &["points_per_side", "at least 1"]);
        refused(Amg::default(), json!({ "compat": 1 }), &["compat", "true or false"]);
        refused(Ais::default(), json!({ "distance_smoothing": 1e9 }), &["distance_smoothing", "1000", "auto"]);
        refused(Ais::default(), json!({ "distance_smoothing": "much" }), &["distance_smoothing", "\"much\""]);
        refused(Flows::default(), json!({ "flow_threshold": -0.1 }), &["flow_threshold", "at least 0", "-0.1"]);
        refused(Flows::default(), json!({ "cellprob_threshold": "low" }), &["cellprob_threshold", "a finite number"]);
        refused(Ais::default(), json!({ "niter": 3 }), &["niter has no effect", "belongs to flows"]);
        refused(Ais::default(), json!([1]), &["expected an object"]);
    }
}
