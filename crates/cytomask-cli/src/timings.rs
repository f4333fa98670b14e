//! Where the time of a run went, for `--timings`.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cytomask::NetworkSeconds;
use serde_json::{Map, Value, json};

/// A stage the program itself measures.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Reading and unpacking weights.
    Open,
    /// Reading and hashing images.
    Read,
    /// Samples to 0–255.
    Convert,
    /// All between conversion and the finished label image, networks included.
    Segment,
    /// The end of it: suppression and painting.
    Merge,
    /// Label images, tables, pictures.
    Write,
}

/// Seconds by [`Stage`], of all images and threads together.
#[derive(Debug, Default)]
pub(crate) struct Timings(Mutex<[f64; 6]>);

impl Timings {
    /// Adds the time since `start`.
    pub(crate) fn add(&self, stage: Stage, start: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[stage as usize] += start.elapsed().as_secs_f64();
    }

    /// The stages in order of the work, with the networks taken out of what they are part of.
    fn stages(&self, networks: NetworkSeconds) -> [(&'static str, f64); 10] {
        let [open, read, convert, segment, merge, write] = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let NetworkSeconds { encoder, instance_decoder, mask_decoder, flow_network } = networks;
        let rest = segment - merge - encoder - instance_decoder - mask_decoder - flow_network;
        [
            ("open model", open),
            ("read", read),
            ("convert", convert),
            ("encoder", encoder),
            ("instance decoder", instance_decoder),
            ("mask decoder", mask_decoder),
            ("flow network", flow_network),
            ("prompts and masks", rest.max(0.0)),
            ("suppress and paint", merge),
            ("write", write),
        ]
    }

    /// One entry a stage, seconds.
    pub(crate) fn as_json(&self, networks: NetworkSeconds) -> Value {
        let entries = self.stages(networks).into_iter().map(|(name, seconds)| (name.to_owned(), json!(seconds)));
        json!({ "stages": entries.collect::<Map<String, Value>>() })
    }

    /// One line a stage, for people.
    pub(crate) fn as_text(&self, networks: NetworkSeconds) -> String {
        let lines = self.stages(networks).map(|(name, seconds)| format!("{name:<20}{seconds:9.3} s"));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_taken_out_of_the_whole() {
        let timings = Timings(Mutex::new([0.5, 0.25, 0.125, 10.0, 1.0, 2.0]));
        let networks = NetworkSeconds { encoder: 3.0, instance_decoder: 2.0, mask_decoder: 2.5, flow_network: 1.0 };
        let stages = timings.as_json(networks)["stages"].clone();
        assert_eq!(stages["prompts and masks"], 0.5);
        let total: f64 = stages.as_object().unwrap().values().filter_map(Value::as_f64).sum();
        assert_eq!(total, 0.5 + 0.25 + 0.125 + 10.0 + 2.0);
        assert!(timings.as_text(networks).contains("mask decoder            2.500 s"), "{}", timings.as_text(networks));
    }
}
