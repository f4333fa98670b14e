//! Seconds for the metrics of one pair of square label images: `time_metrics TRUTH PREDICTED`, raw little-endian u32 ids.
//!
//! Prints one JSON object; bench/metrics.sh runs it beside elf.

use std::io::Write as _;
use std::time::Instant;

use cytomask_eval::{BothEmpty, ScoreOptions, contingency, mean_segmentation_accuracy, score};
use cytomask_image::Labels;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut images = Vec::new();
    for path in std::env::args().skip(1).take(2) {
        let bytes = std::fs::read(path)?;
        let ids: Vec<u32> = bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
        let side = ids.len().isqrt() as u32;
        images.push(Labels::from_vec([side, side], ids)?);
    }
    let [truth, predicted] = &images[..] else { return Err("expected two files of raw u32 ids".into()) };
    let start = Instant::now();
    let table = contingency(truth, predicted)?;
    let counted = start.elapsed().as_secs_f64();
    let accuracies = mean_segmentation_accuracy(&table, BothEmpty::Zero);
    let msa_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let scores = score(truth, predicted, &ScoreOptions::default())?;
    let all_seconds = start.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "{{\"objects\": [{}, {}], \"msa\": {}, \"table_seconds\": {counted}, \"msa_seconds\": {msa_seconds}, \
         \"all_seconds\": {all_seconds}, \"boundary_f1\": {}}}",
        scores.true_objects,
        scores.predicted_objects,
        accuracies.msa,
        scores.boundary.map_or(f64::NAN, |boundary| boundary.f1),
    )?;
    Ok(())
}
