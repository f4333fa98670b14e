//! What a run will cost, before it starts.

use cytomask_models::{Cost, Model};
use cytomask_segment::Amg;
use cytomask_segment::apg::PromptKind;

use crate::Strategy;
use crate::scales::several_scales;

/// Pixels for each object, where the number of objects is not known beforehand: nuclei at 20×.
const ASSUMED_PIXELS_PER_OBJECT: f64 = 3600.0;

/// Pixels at two scales over those at one: 1 and 2 at √2, 1 and 4 at 2.
const PIXELS_AT_SCALES: f64 = 3.5;
/// Every object is prompted at each of them.
const PROMPTS_AT_SCALES: f64 = 2.0;

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

/// Estimates one image of `size` cut into `tiles` tiles on a machine of this rate ([`machine_rate`](crate::machine_rate), measured once for all images).
///
/// Seconds are right within a factor of about two, since networks reach different shares of the machine's best rate; for APG with the
/// built-in model they are too high, by up to three where objects are few.
pub fn estimate(model: &Model, strategy: &Strategy, size: [u32; 2], tiles: usize, rate: f64) -> Estimate {
    let tiles = tiles.max(1) as u64;
    let cost = tile_cost(model, size, tiles as usize);
    let objects = (f64::from(size[0]) * f64::from(size[1]) / ASSUMED_PIXELS_PER_OBJECT).max(1.0);
    let prompts_gmac = match strategy {
        Strategy::Amg(Amg { points_per_side, .. }) => cost.prompt_gmac * f64::from(*points_per_side).powi(2),
        Strategy::Ais(_) | Strategy::Flows(_) => 0.0,
        Strategy::Apg(apg) if apg.prompt_kind != PromptKind::Point => cost.box_prompt_gmac * objects,
        Strategy::Apg(_) => cost.prompt_gmac * objects,
        Strategy::Prompted(_, prompts) => {
            let each = prompts.iter().map(|prompt| match prompt.bounds {
                Some(_) => cost.box_prompt_gmac,
                None => cost.prompt_gmac,
            });
            each.sum()
        }
    };
    let maps = match strategy {
        Strategy::Apg(apg) if apg.prompt_source.takes_boxes() => cost.decoder_gmac + cost.box_gmac,
        Strategy::Ais(_) | Strategy::Apg(_) => cost.decoder_gmac,
        _ => 0.0,
    };
    let pixels_gmac = (cost.encoder_gmac + maps) * tiles as f64;
    let gmac = match several_scales(model, strategy) {
        Some(_) => pixels_gmac * PIXELS_AT_SCALES + prompts_gmac * PROMPTS_AT_SCALES,
        None => pixels_gmac + prompts_gmac,
    };
    let memory_bytes = memory_bytes(model, strategy, size, tiles as usize);
    Estimate { seconds: gmac / rate.max(1e-9), memory_bytes, gmac }
}

/// Peak memory of one image of `size` cut into `tiles` tiles, bytes, roughly: the network on one tile, and the whole image.
pub fn memory_bytes(model: &Model, _strategy: &Strategy, size: [u32; 2], tiles: usize) -> u64 {
    let pixels = u64::from(size[0]) * u64::from(size[1]);
    // In one piece: samples, converted pixels, three maps and labels, each four bytes. In tiles: labels, masks as
    // run-lengths, and whether a pixel is taken while objects grow.
    let per_pixel = if tiles > 1 { 4 + 1 + 1 } else { 4 * (3 + 3 + 3 + 1) };
    tile_cost(model, size, tiles).memory_bytes + pixels * per_pixel
}

fn tile_cost(model: &Model, size: [u32; 2], tiles: usize) -> Cost {
    let along = (tiles.max(1) as u64).isqrt() as u32;
    model.cost(size.map(|side| side.div_ceil(along)))
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use cytomask_models::DeviceChoice;

    use super::*;
    use crate::embedded;

    #[test]
    fn an_image_four_times_as_large_costs_four_times_as_much() {
        let model = crate::load_model(embedded::NAME, None, DeviceChoice::Cpu).unwrap();
        let strategy = Strategy::default_for(&model);
        let gmac = |size| estimate(&model, &strategy, size, 1, 1.0).gmac;
        // Each object is decoded in a window of its own, however large the image.
        assert!((gmac([1040, 1392]) / gmac([520, 696]) - 4.0).abs() < 0.01);
    }
}
