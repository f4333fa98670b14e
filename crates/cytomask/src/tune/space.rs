//! Which values of which settings are tried.

use cytomask_models::Model;
use serde_json::{Map, Value, json};

use crate::{Error, ErrorKind, Strategy};

/// Most values of one setting.
const MOST_VALUES: usize = 10_000;

/// Ranges of µSAM's grid search (`micro_sam.evaluation`; the paper's for APG): setting, first value, last value, step.
const AMG_RANGES: [(&str, f64, f64, f64); 2] =
    [("pred_iou_thresh", 0.6, 0.9, 0.025), ("stability_score_thresh", 0.6, 0.95, 0.025)];
const AIS_RANGES: [(&str, f64, f64, f64); 3] = [
    ("center_distance_threshold", 0.3, 0.7, 0.1),
    ("boundary_distance_threshold", 0.3, 0.7, 0.1),
    ("distance_smoothing", 1.0, 2.0, 0.2),
];
const APG_RANGES: [(&str, f64, f64, f64); 3] = [
    ("center_distance_threshold", 0.3, 0.7, 0.1),
    ("boundary_distance_threshold", 0.3, 0.7, 0.1),
    ("nms_threshold", 0.5, 0.9, 0.1),
];
/// Of APG where the network proposes boxes; ours.
const BOXES_RANGES: [(&str, f64, f64, f64); 3] =
    [("box_score_thresh", 0.4, 0.7, 0.1), ("min_score", 0.3, 0.5, 0.05), ("nms_threshold", 0.5, 0.9, 0.2)];
const FLOWS_RANGES: [(&str, f64, f64, f64); 2] =
    [("flow_threshold", 0.2, 1.0, 0.2), ("cellprob_threshold", -2.0, 2.0, 1.0)];
const MIN_SIZES: [u64; 3] = [50, 100, 200];

/// One setting with the values it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// As in [`Strategy::settings`].
    pub name: String,
    /// In the order they are tried; neighbours of a number are the values beside it.
    pub values: Vec<Value>,
}

impl Parameter {
    /// `name=start:stop:step` (with `stop`, where the steps meet it) or `name=a,b,c`.
    ///
    /// # Errors
    /// `Setting` for any other form.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| wrong(format!("expected name=start:stop:step or name=a,b,c, found {text:?}")))?;
        Ok(Self { name: name.trim().to_owned(), values: values_of(name.trim(), values)? })
    }

    /// An object of setting names with lists of values, or ranges as text: `{"min_size": [50, 100], "nms_threshold": "0.5:0.9:0.1"}`.
    ///
    /// # Errors
    /// `Setting` for any other form.
    pub fn from_json(object: &Value) -> Result<Vec<Self>, Error> {
        let object =
            object.as_object().ok_or_else(|| wrong(format!("expected an object of settings, found {object}")))?;
        object
            .iter()
            .map(|(name, value)| {
                let values = match value {
                    Value::Array(values) => values.clone(),
                    Value::String(text) => values_of(name, text)?,
                    other => {
                        return Err(wrong(format!("{name}: expected a list or \"start:stop:step\", found {other}")));
                    }
                };
                Ok(Self { name: name.clone(), values })
            })
            .collect()
    }

    /// Whether its values lie on a line, so that only those beside a value are its neighbours.
    pub(super) fn is_ordered(&self) -> bool {
        self.values.iter().all(Value::is_number)
    }

    /// The value nearest to `wanted`, the first of equals.
    fn nearest(&self, wanted: &Value) -> usize {
        let distance = |value: &Value| match (value.as_f64(), wanted.as_f64()) {
            (Some(value), Some(wanted)) => (value - wanted).abs(),
            _ => f64::from(u8::from(value != wanted)),
        };
        let by_distance = |&a: &usize, &b: &usize| distance(&self.values[a]).total_cmp(&distance(&self.values[b]));
        (0..self.values.len()).min_by(by_distance).unwrap_or(0)
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Setting, message)
}

fn values_of(name: &str, text: &str) -> Result<Vec<Value>, Error> {
    if let [start, stop, step] = text.split(':').collect::<Vec<_>>()[..] {
        return range(name, text, [start, stop, step]);
    }
    let value = |text: &str| match text.trim() {
        "true" => json!(true),
        "false" => json!(false),
        // A whole number stays one: `min_size` takes nothing else.
        text => match (text.parse::<u64>(), text.parse::<f64>()) {
            (Ok(whole), _) => json!(whole),
            (_, Ok(number)) if number.is_finite() => json!(number),
            _ => json!(text),
        },
    };
    Ok(text.split(',').map(value).collect())
}

fn range(name: &str, text: &str, ends: [&str; 3]) -> Result<Vec<Value>, Error> {
    let ill_formed =
        || wrong(format!("{name}: expected start:stop:step with start ≤ stop and step > 0, found {text:?}"));
    if let [Some(start), Some(stop), Some(step)] = ends.map(|end| end.trim().parse::<u64>().ok())
        && start <= stop
        && step > 0
        && (stop - start) / step < MOST_VALUES as u64
    {
        return Ok((0..=(stop - start) / step).map(|index| json!(start + index * step)).collect());
    }
    let numbers: Vec<f64> =
        ends.iter().filter_map(|end| end.trim().parse().ok()).filter(|n: &f64| n.is_finite()).collect();
    let [start, stop, step] = numbers[..] else { return Err(ill_formed()) };
    if start > stop || step <= 0.0 {
        return Err(ill_formed());
    }
    if (stop - start) / step >= MOST_VALUES as f64 {
        return Err(wrong(format!("{name}: expected at most {MOST_VALUES} values, found more in {text:?}")));
    }
    Ok(steps(start, stop, step))
}

/// `start`, `start + step`, … up to `stop`. The sums are rounded to nine decimals, so that 0.1 added up meets the end that was
/// written. (µSAM's `np.arange(start, stop + step, step)` misses by a rounding error now and then and tries one value more.)
fn steps(start: f64, stop: f64, step: f64) -> Vec<Value> {
    let last = ((stop - start) / step + 1e-6).floor() as usize;
    (0..=last).map(|index| json!(((start + index as f64 * step) * 1e9).round() / 1e9)).collect()
}

/// All combinations of some settings' values around a strategy that has the rest.
///
/// Candidates are numbered: 0 is the strategy as it is, which may lie beside the grid; then the combinations, the last setting
/// varying fastest.
#[derive(Clone, Debug)]
pub struct Space {
    base: Strategy,
    parameters: Vec<Parameter>,
    /// The base's values of the parameters.
    defaults: Vec<Value>,
    combinations: usize,
}

impl Space {
    /// Combinations of `parameters` around `base`.
    ///
    /// # Errors
    /// `Setting` for a setting the strategy does not know or that is named twice, values out of range, none at all, or more
    /// combinations than can be counted.
    pub fn new(base: Strategy, parameters: Vec<Parameter>) -> Result<Self, Error> {
        if parameters.is_empty() {
            return Err(wrong("expected at least one setting to try, found none".into()));
        }
        let settings = base.settings();
        let (mut defaults, mut combinations) = (Vec::new(), 1_usize);
        for (index, Parameter { name, values }) in parameters.iter().enumerate() {
            if parameters[..index].iter().any(|other| other.name == *name) {
                return Err(wrong(format!("{name}: its values are given twice")));
            }
            if values.is_empty() {
                return Err(wrong(format!("{name}: expected at least one value, found none")));
            }
            for (index, value) in values.iter().enumerate() {
                base.clone().with_settings(&json!({ name: value }))?;
                if values[..index].contains(value) {
                    return Err(wrong(format!("{name}: the value {value} is given twice")));
                }
            }
            let default = settings.get(name).cloned();
            defaults.push(default.ok_or_else(|| wrong(format!("{name} has no influence on the result")))?);
            combinations = combinations
                .checked_mul(values.len())
                .filter(|&all| all < usize::MAX)
                .ok_or_else(|| wrong(format!("{name}: more combinations than can be counted")))?;
        }
        Ok(Self { base, parameters, defaults, combinations })
    }

    /// The ranges of µSAM's and the paper's grid search for a mode (`amg`, `ais`, `apg`, `auto`), around what suits `model`; where APG takes
    /// boxes that the network proposes, ranges of ours.
    ///
    /// # Errors
    /// `Setting` for any other mode.
    pub fn standard(mode: &str, model: &Model) -> Result<Self, Error> {
        let base = Strategy::for_mode(mode, model)?;
        let parameters = Self::standard_parameters(&base);
        Self::new(base, parameters)
    }

    /// The settings of that search with their values.
    pub fn standard_parameters(base: &Strategy) -> Vec<Parameter> {
        let of = |ranges: &[(&str, f64, f64, f64)]| -> Vec<Parameter> {
            let parameter = |&(name, start, stop, step): &(&str, f64, f64, f64)| Parameter {
                name: name.to_owned(),
                values: steps(start, stop, step),
            };
            ranges.iter().map(parameter).collect()
        };
        let listed = |name: &str, values: Vec<Value>| Parameter { name: name.to_owned(), values };
        let min_size = || listed("min_size", MIN_SIZES.map(Value::from).to_vec());
        match base {
            Strategy::Amg(_) => of(&AMG_RANGES),
            Strategy::Ais(_) => [of(&AIS_RANGES), vec![min_size()]].concat(),
            Strategy::Apg(apg) if apg.prompt_source.takes_boxes() => [of(&BOXES_RANGES), vec![min_size()]].concat(),
            Strategy::Apg(_) => {
                let overlap = listed("intersection_over_min", vec![json!(false), json!(true)]);
                [of(&APG_RANGES), vec![min_size(), overlap]].concat()
            }
            Strategy::Flows(_) => of(&FLOWS_RANGES),
            Strategy::Prompted(..) => Vec::new(),
        }
    }

    /// The strategy candidates vary.
    pub fn base(&self) -> &Strategy {
        &self.base
    }

    /// What varies.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many combinations there are; candidates are one more.
    pub fn combinations(&self) -> usize {
        self.combinations
    }

    /// The varied settings of a candidate.
    ///
    /// # Panics
    /// When there is no such candidate.
    pub fn settings(&self, candidate: usize) -> Map<String, Value> {
        let values: Vec<&Value> = match candidate {
            0 => self.defaults.iter().collect(),
            _ => self.parameters.iter().zip(self.position(candidate)).map(|(of, index)| &of.values[index]).collect(),
        };
        self.parameters.iter().zip(values).map(|(parameter, value)| (parameter.name.clone(), value.clone())).collect()
    }

    /// A candidate's strategy.
    ///
    /// # Errors
    /// None: values were looked at by [`Space::new`].
    pub fn strategy(&self, candidate: usize) -> Result<Strategy, Error> {
        match candidate {
            0 => Ok(self.base.clone()),
            _ => self.base.clone().with_settings(&Value::Object(self.settings(candidate))),
        }
    }

    /// The same with AMG's filters at their loosest values of the space: what the network must be asked for once.
    pub(super) fn loosest(&self, strategy: Strategy) -> Result<Strategy, Error> {
        let lowest = |parameter: &Parameter| {
            let least = parameter
                .values
                .iter()
                .min_by(|a, b| a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal));
            (parameter.name.clone(), least.cloned().unwrap_or_default())
        };
        let filters = ["pred_iou_thresh", "stability_score_thresh"];
        let loosest = self.parameters.iter().filter(|parameter| filters.contains(&parameter.name.as_str())).map(lowest);
        strategy.with_settings(&Value::Object(loosest.collect()))
    }

    /// A combination's index into the values of each parameter.
    pub(super) fn position(&self, candidate: usize) -> Vec<usize> {
        let mut rest = candidate - 1;
        let mut position = vec![0; self.parameters.len()];
        for (index, parameter) in self.parameters.iter().enumerate().rev() {
            position[index] = rest % parameter.values.len();
            rest /= parameter.values.len();
        }
        position
    }

    /// The inverse of [`Space::position`].
    pub(super) fn candidate(&self, position: &[usize]) -> usize {
        self.parameters.iter().zip(position).fold(0, |all, (parameter, index)| all * parameter.values.len() + index) + 1
    }

    /// The combination nearest to the base.
    pub(super) fn nearest_to_base(&self) -> Vec<usize> {
        self.parameters.iter().zip(&self.defaults).map(|(parameter, default)| parameter.nearest(default)).collect()
    }

    /// How far a candidate lies from the base: settings that differ, then steps as a share of each setting's values.
    pub(super) fn distance(&self, candidate: usize) -> (usize, f64) {
        if candidate == 0 {
            return (0, 0.0);
        }
        let position = self.position(candidate);
        let near = self.nearest_to_base();
        let differing = (0..position.len())
            .filter(|&index| {
                self.parameters[index].values[position[index]].as_f64().map_or_else(
                    || self.parameters[index].values[position[index]] != self.defaults[index],
                    |value| self.defaults[index].as_f64() != Some(value),
                )
            })
            .count();
        let steps = (0..position.len())
            .map(|index| position[index].abs_diff(near[index]) as f64 / self.parameters[index].values.len() as f64)
            .sum();
        (differing, steps)
    }
}

#[cfg(test)]
mod tests {
    use cytomask_segment::{Ais, Amg, Apg};

    use super::*;

    fn values(text: &str) -> Vec<Value> {
        Parameter::parse(text).unwrap().values
    }

    #[test]
    fn ranges_hold_their_ends_and_nothing_more() {
        let expected: Vec<Value> = [0.3, 0.4, 0.5, 0.6, 0.7].map(Value::from).to_vec();
        assert_eq!(values("center_distance_threshold=0.3:0.7:0.1"), expected);
        assert_eq!(values("min_size=50:200:50"), [50, 100, 150, 200].map(Value::from));
        assert_eq!(values("x=1:1.9:0.5"), [1.0, 1.5].map(Value::from));
        assert_eq!(values("compat=false,true"), [json!(false), json!(true)]);
        assert_eq!(values("prompt_kind=point, box"), [json!("point"), json!("box")]);
        assert_eq!(values("mask_threshold=-1,0.5,auto"), [json!(-1.0), json!(0.5), json!("auto")]);
        for text in ["x", "x=2:1:1", "x=1:2:0", "x=1:2:-1", "x=a:2:1", "x=nan:1:1", "x=0:1:1e-12"] {
            let error = Parameter::parse(text).unwrap_err();
            assert!(error.to_string().contains("expected"), "{text}: {error}");
        }
    }

    #[test]
    fn the_standard_spaces_are_the_papers() {
        let combinations =
            |base: Strategy| Space::new(base.clone(), Space::standard_parameters(&base)).unwrap().combinations();
        assert_eq!(combinations(Amg::default().into()), 13 * 15);
        assert_eq!(combinations(Ais::default().into()), 5 * 5 * 6 * 3);
        assert_eq!(combinations(Apg::default().into()), 5 * 5 * 3 * 5 * 2);
    }

    #[test]
    fn candidates_are_the_base_and_all_combinations() {
        let parameters = vec![
            Parameter { name: "min_size".into(), values: vec![json!(10), json!(25), json!(60)] },
            Parameter { name: "prompt_kind".into(), values: vec![json!("box"), json!("point")] },
        ];
        let space = Space::new(Apg::default().into(), parameters).unwrap();
        assert_eq!(space.combinations(), 6);
        assert_eq!(Value::Object(space.settings(0)), json!({ "min_size": 25, "prompt_kind": "point" }));
        assert_eq!(Value::Object(space.settings(1)), json!({ "min_size": 10, "prompt_kind": "box" }));
        assert_eq!(Value::Object(space.settings(6)), json!({ "min_size": 60, "prompt_kind": "point" }));
        for candidate in 1..=6 {
            assert_eq!(space.candidate(&space.position(candidate)), candidate);
            let Strategy::Apg(apg) = space.strategy(candidate).unwrap() else { panic!("not APG") };
            assert_eq!(json!(apg.min_size), space.settings(candidate)["min_size"]);
        }
        assert_eq!(space.nearest_to_base(), [1, 1]);
        let distances: Vec<usize> = (0..=6).map(|candidate| space.distance(candidate).0).collect();
        assert_eq!(distances, [0, 2, 1, 1, 0, 2, 1]);
    }

    #[test]
    fn spaces_that_cannot_be_are_refused() {
        let space = |name: &str, values: Vec<Value>| {
            let parameter = Parameter { name: name.into(), values };
            Space::new(Ais::default().into(), vec![parameter]).unwrap_err().to_string()
        };
        assert!(space("nms_threshold", vec![json!(0.5)]).contains("apg"));
        assert!(space("min_sise", vec![json!(5)]).contains("min_sise"));
        assert!(space("min_size", vec![]).contains("at least one value"));
        assert!(space("min_size", vec![json!(5), json!(5)]).contains("twice"));
        assert!(space("foreground_threshold", vec![json!(0.5), json!(1.5)]).contains("1.5"));
        assert!(Space::new(Ais::default().into(), vec![]).unwrap_err().to_string().contains("at least one setting"));
        let both = Parameter { name: "min_size".into(), values: vec![json!(5)] };
        let twice = Space::new(Ais::default().into(), vec![both.clone(), both]).unwrap_err();
        assert!(twice.to_string().contains("twice"));
        let batch = Parameter { name: "batch_size".into(), values: vec![json!(5)] };
        assert!(Space::new(Apg::default().into(), vec![batch]).unwrap_err().to_string().contains("no influence"));
        let file = json!({ "min_size": [50, 100], "nms_threshold": "0.5:0.9:0.1" });
        let read = Parameter::from_json(&file).unwrap();
        assert_eq!(read.iter().map(|parameter| parameter.values.len()).collect::<Vec<_>>(), [2, 5]);
        assert!(Parameter::from_json(&json!({ "min_size": 3 })).unwrap_err().to_string().contains("min_size"));
    }
}
