//! Times a SAM image encoder with seeded weights: `time_encoder [vit_b|vit_l|vit_h] [side] [runs]`.
#![expect(clippy::print_stdout, reason = "an example that prints a measurement")]

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use cytomask_models::{
    DeviceChoice,
    loading::load_into,
    sam::{ImageEncoder, VIT_B, VIT_H, VIT_L},
    seeded::{Seeded, seeded},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let config = match arguments.next().as_deref() {
        None | Some("vit_b") => VIT_B,
        Some("vit_l") => VIT_L,
        Some("vit_h") => VIT_H,
        Some(other) => return Err(format!("unknown encoder `{other}`").into()),
    };
    let side = arguments.next().map_or(Ok(1024), |side| side.parse::<usize>())?;
    let runs = arguments.next().map_or(Ok(3), |runs| runs.parse::<usize>())?;
    let device = DeviceChoice::Auto.open()?;

    let started = Instant::now();
    let encoder = ImageEncoder::new(&config.encoder, &device);
    let weights = Seeded::of(&encoder, "image_encoder.");
    let encoder = load_into(encoder, &weights, "image_encoder.")?.module;
    println!("loaded in {:.2?}", started.elapsed());

    let shape = [1, 3, side, side];
    let image = Tensor::<4>::from_data(TensorData::new(seeded("input/image", &shape), shape), &device);
    for _ in 0..runs {
        let started = Instant::now();
        let embedding = encoder.forward(image.clone())?;
        device.sync()?;
        println!("{:?} in {:.2?}", embedding.dims(), started.elapsed());
    }
    Ok(())
}
