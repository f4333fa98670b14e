//! `cytomask segment --dry-run`.

use std::path::PathBuf;

use anyhow::Result;
use cytomask::Segmenter;
use serde_json::json;

use crate::args::SegmentArgs;
use crate::progress::print;
use crate::{segment, settings};

/// Says what would be done, image by image, with estimated time and memory.
pub(crate) fn run(arguments: &SegmentArgs, segmenter: &Segmenter, images: &[PathBuf]) -> Result<()> {
    let rate = cytomask::machine_rate(settings::device(arguments.model.device));
    let (mut seconds, mut memory) = (0.0, 0);
    let mut rows = Vec::new();
    for (path, size) in segment::sizes(images, &crate::choose::selection(&arguments.choose)?) {
        let row = match size.and_then(|size| Ok((size, segmenter.plan(size, 1.0)?.len()))) {
            Ok((size, tiles)) => {
                let cost = cytomask::estimate(segmenter.model(), segmenter.chosen_strategy(), size, tiles, rate);
                seconds += cost.seconds;
                memory = memory.max(cost.memory_bytes);
                json!({ "input": path, "size": size, "tiles": tiles, "seconds": cost.seconds, "memory_bytes": cost.memory_bytes })
            }
            Err(error) => json!({ "input": path, "error": format!("{error:#}") }),
        };
        rows.push(row);
    }
    if arguments.json {
        let total = json!({ "images": rows, "seconds": seconds, "memory_bytes": memory });
        return print(&format!("{total:#}"));
    }
    for row in &rows {
        let input = row["input"].as_str().unwrap_or_default();
        match row["error"].as_str() {
            Some(error) => print(&format!("{input}: cannot be read: {error}"))?,
            None => print(&format!(
                "{input}: {} × {} pixels, {} tile(s), about {:.1} s",
                row["size"][0],
                row["size"][1],
                row["tiles"],
                row["seconds"].as_f64().unwrap_or_default()
            ))?,
        }
    }
    print(&format!(
        "{} image(s) with {} by {}: about {:.0} s and {:.1} GB of memory; nothing written",
        rows.len(),
        segmenter.model().name(),
        segmenter.chosen_strategy().name(),
        seconds.max(1.0),
        memory as f64 / 1e9
    ))
}
