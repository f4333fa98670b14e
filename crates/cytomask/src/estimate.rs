//! What a run will cost, before it starts.

use cytomask_models::{Cost, DeviceChoice, Model, machine_rate};
use cytomask_segment::Amg;

use crate::Strategy;
use crate::scales::several_scales;

/// Prompts assumed for strategies whose number of objects is not known beforehand.
const ASSUMED_OBJECTS: u64 = 100;

/// Two scales over one: 1 and 2 for pixels at √2, 1 and 4 at 2.
const SEVERAL_SCALES: f64 = 3.5;

/// Time and memory of one image, roughly.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Seconds on this machine.
    pub seconds: f64,
    /// Peak memory, bytes.
    pub memory_bytes: u64,
    /// Multiply–accumulate operations, billions.
    pub gmac: f64,
}

/// Estimates one image of `size` cut into `tiles` tiles. The machine's speed is measured by a short matrix product.
///
/// Seconds are right within a factor of about two: networks reach different shares of the machine's best rate.
pub fn estimate(model: &Model, strategy: &Strategy, size: [u32; 2], tiles: usize, device: DeviceChoice) -> Estimate {
    let tiles = tiles.max(1) as u64;
    let cost = tile_cost(model, size, tiles as usize);
    let prompts = match strategy {
        Strategy::Amg(Amg { points_per_side, .. }) => u64::from(*points_per_side).pow(2),
        Strategy::Ais(_) | Strategy::Flows(_) => 0,
        Strategy::Apg(_) => ASSUMED_OBJECTS,
        Strategy::Prompted(_, prompts) => prompts.len() as u64,
    };
    let maps = match strategy {
        Strategy::Apg(apg) if apg.prompt_source.takes_boxes() => cost.decoder_gmac + cost.box_gmac,
        Strategy::Ais(_) | Strategy::Apg(_) => cost.decoder_gmac,
        _ => 0.0,
    };
    let gmac = (cost.encoder_gmac + maps) * tiles as f64 + cost.prompt_gmac * prompts as f64;
    let gmac = if several_scales(model, strategy).is_some() { gmac * SEVERAL_SCALES } else { gmac };
    let memory_bytes = memory_bytes(model, strategy, size, tiles as usize);
    Estimate { seconds: gmac / machine_rate(device).max(1e-9), memory_bytes, gmac }
}

/// Peak memory of one image of `size` cut into `tiles` tiles, bytes, roughly: the network on one tile, and the whole image.
pub fn memory_bytes(model: &Model, _strategy: &Strategy, size: [u32; 2], tiles: usize) -> u64 {
    let pixels = u64::from(size[0]) * u64::from(size[1]);
    // In one piece: samples, converted pixels, three maps and labels, each four bytes. In tiles: labels, and masks as run-lengths.
    let per_pixel = if tiles > 1 { 4 + 1 } else { 4 * (3 + 3 + 3 + 1) };
    tile_cost(model, size, tiles).memory_bytes + pixels * per_pixel
}

fn tile_cost(model: &Model, size: [u32; 2], tiles: usize) -> Cost {
    let along = (tiles.max(1) as u64).isqrt() as u32;
    model.cost(size.map(|side| side.div_ceil(along)))
}
