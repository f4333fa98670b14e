//! Settings of a run that follow from the machine.

use cytomask_models::Family;
use cytomask_train::TrainSettings;
use serde::Serialize;

/// What a run finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Threads the process may use.
    pub threads: usize,
    /// Memory that is free, bytes, where the system says so.
    pub free_bytes: Option<u64>,
    /// Whether the network runs on a graphics card.
    pub accelerated: bool,
}

/// What suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// Crops a step.
    pub batch_size: usize,
    /// Side of a crop, pixels.
    pub crop_side: u32,
    /// Images are kept in memory up to so many bytes.
    pub kept_bytes: u64,
}

/// Where the system does not say how much memory is free.
const ASSUMED_BYTES: u64 = 4 << 30;

/// Bytes a step of the built-in model takes for each pixel of its batch, activations for the way back included, beside a fixed part:
/// measured peaks of one step with 224-pixel crops are 494 MB for one and 1,189 MB for four.
const BYTES_PER_PIXEL: u64 = 5_000;
const FIXED_BYTES: u64 = 300 << 20;

/// Gigabytes that a step of a SAM with instance decoder takes when all that gradients need is kept: for weights, gradients and the
/// optimizer, and beside that for each crop of 1024 × 1024 pixels, prompts left out. Of ViT-B measured (docs/train.md), of larger ones in
/// proportion to parameters, and to width times depth; ViT-T needs less than ViT-B.
const VIT_B_GB: [f64; 2] = [1.6, 6.9];
const VIT_L_GB: [f64; 2] = [5.1, 18.4];
const VIT_H_GB: [f64; 2] = [10.4, 30.7];
/// The same for each prompted object of such a crop in each round of prompts; one mask decoder serves all sizes.
const PROMPT_GB: f64 = 0.09;

impl Hardware {
    /// This machine; `accelerated` when the network runs on a graphics card.
    pub fn detect(accelerated: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, free_bytes: free_bytes(), accelerated }
    }

    /// Whether a SAM trains in half of the free memory without running parts of it again. Of networks never measured no.
    pub fn keeps_activations(&self, family: Family, settings: &TrainSettings) -> bool {
        let [fixed, crop] = match family {
            Family::VitT | Family::VitB => VIT_B_GB,
            Family::VitL => VIT_L_GB,
            Family::VitH => VIT_H_GB,
            _ => return false,
        };
        let prompts = settings.objects_per_crop * settings.sub_iterations;
        let crops = settings.batch_size as f64 * (f64::from(settings.input_side) / 1024.0).powi(2);
        let free = self.free_bytes.unwrap_or(ASSUMED_BYTES) as f64;
        (fixed + (crop + PROMPT_GB * prompts as f64) * crops) * 1e9 <= free / 2.0
    }

    /// What suits images whose sides are `sides` (the median one counts: crops larger than images teach nothing more).
    pub fn defaults(&self, sides: &[u32]) -> Defaults {
        let free = self.free_bytes.unwrap_or(ASSUMED_BYTES);
        let wanted = match (self.accelerated, self.threads) {
            (true, _) => 384,
            (false, 16..) => 256,
            (false, _) => 224,
        };
        let mut sorted = sides.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(wanted);
        let crop_side = wanted.min(median.next_multiple_of(32)).max(96);
        let room = (free / 2).saturating_sub(FIXED_BYTES) / (BYTES_PER_PIXEL * u64::from(crop_side).pow(2));
        let most = if self.accelerated { 8 } else { 4 };
        Defaults { batch_size: (room as usize).clamp(1, most), crop_side, kept_bytes: free / 4 }
    }
}

/// Linux says what is free; elsewhere nothing is known.
fn free_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let system = kibibytes.saturating_mul(1024);
    // A container may have less (cgroup 2).
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let contained = read("memory.max").map(|limit| limit.saturating_sub(read("memory.current").unwrap_or(0)));
    Some(contained.map_or(system, |contained| contained.min(system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_get_small_batches_and_small_images_small_crops() {
        let machine = |gib: u64, threads| Hardware { threads, free_bytes: Some(gib << 30), accelerated: false };
        let usual = machine(16, 2).defaults(&[520, 256, 1024]);
        assert_eq!((usual.batch_size, usual.crop_side), (4, 224));
        assert_eq!(machine(2, 2).defaults(&[520]).batch_size, 3);
        assert_eq!(machine(0, 2).defaults(&[520]).batch_size, 1);
        assert_eq!(machine(16, 2).defaults(&[97, 131]).crop_side, 160);
        assert_eq!(machine(16, 32).defaults(&[]).crop_side, 256);
        let none = Hardware { threads: 1, free_bytes: None, accelerated: true }.defaults(&[2000]);
        assert_eq!((none.crop_side, none.kept_bytes), (384, 1 << 30));
        assert!(Hardware::detect(false).threads >= 1);
    }

    #[test]
    fn what_gradients_need_is_kept_where_there_is_room() {
        let keeps = |gb: u64, family, input_side, batch_size, objects_per_crop| {
            let settings = TrainSettings {
                input_side,
                batch_size,
                objects_per_crop,
                sub_iterations: 2,
                ..TrainSettings::default()
            };
            let free_bytes = Some(gb * 1_000_000_000);
            Hardware { threads: 2, free_bytes, accelerated: false }.keeps_activations(family, &settings)
        };
        assert!(!keeps(16, Family::VitB, 1024, 1, 4)); // 9.2 of 8
        assert!(keeps(20, Family::VitB, 1024, 1, 4));
        assert!(!keeps(20, Family::VitB, 1024, 1, 25)); // 13
        assert!(keeps(8, Family::VitB, 512, 1, 4)); // 3.5 of 4
        assert!(!keeps(8, Family::VitB, 512, 2, 4));
        assert!(!keeps(18, Family::VitL, 512, 1, 4)); // 9.9 of 9
        assert!(!keeps(64, Family::CellposeSam, 256, 1, 4));
    }
}
