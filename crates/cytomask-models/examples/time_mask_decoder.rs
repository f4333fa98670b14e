//! Seconds a prompt of SAM's prompt encoder and mask decoder on the CPU, by batch size, as one JSON object of `[wall, CPU]`:
//! `time_mask_decoder BATCH...`. Weights are seeded (times do not depend on values), one point a prompt, one mask. What is computed
//! once for an image is told as `"image"`. `bench/peers.sh` runs it by turns with upstream's.
#![expect(clippy::print_stdout, reason = "a program that reports")]

mod usage;

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::{
    loading::{load_into, values},
    sam::{MaskDecoder, MaskDecoderConfig, PromptEncoder, PromptEncoderConfig},
    seeded::{Seeded, seeded},
};
use cytomask_segment::Prompt;
use usage::cpu_seconds;

/// Prompts decoded for one number, at least.
const PROMPTS: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let batches: Vec<usize> = std::env::args().skip(1).map(|batch| batch.parse()).collect::<Result<_, _>>()?;
    let device = Device::flex();
    let prompts = PromptEncoder::new(&PromptEncoderConfig::SAM, &device);
    let prompts = load_into(
        prompts,
        &Seeded::of(&PromptEncoder::new(&PromptEncoderConfig::SAM, &device), "prompt_encoder."),
        "prompt_encoder.",
    )?
    .module;
    let decoder = MaskDecoder::new(&MaskDecoderConfig::SAM, &device);
    let source = Seeded::of(&MaskDecoder::new(&MaskDecoderConfig::SAM, &device), "mask_decoder.");
    let decoder = load_into(decoder, &source, "mask_decoder.")?.module;
    let shape = [1, 256, 64, 64];
    let embedding = Tensor::<4>::from_data(TensorData::new(seeded("input/timing", &shape), shape), &device);

    let prepare =
        || decoder.prepare(embedding.clone(), prompts.dense_positions([64, 64], 16, [1024.0; 2]), prompts.no_mask());
    prepare();
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let image = prepare();
    let mut lines = vec![format!("\"image\": [{:.6}, {:.6}]", wall.elapsed().as_secs_f64(), cpu_seconds() - cpu)];
    for batch in batches {
        let points: Vec<Prompt> =
            (0..batch).map(|index| Prompt::point((index * 389 % 1024) as f32, (index * 641 % 1024) as f32)).collect();
        let image_of = vec![0; batch];
        let decode = || -> Result<usize, cytomask_models::Error> {
            let sparse = prompts.sparse(&points, [1024.0; 2])?;
            Ok(values(decoder.decode(&image, &image_of, sparse, 0..1).logits).len())
        };
        decode()?;
        let repeats = PROMPTS.div_ceil(batch);
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        for _ in 0..repeats {
            decode()?;
        }
        let count = (repeats * batch) as f64;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        lines.push(format!("\"{batch}\": [{:.6}, {:.6}]", wall / count, cpu / count));
    }
    println!("{{{}}}", lines.join(", "));
    Ok(())
}
