//! Times the parts of cytomask-t on the CPU, and compares one full-size embedding with a reference.
//!
//! `cargo run --release -p cytomask-models --example timing [SIDE...]` uses seeded weights; times do not depend on values.
//! `… --example timing --embedding WEIGHTS.safetensors REFERENCE.safetensors` compares with what
//! `parity/tiny_vit.py CLONE --weights WEIGHTS --full REFERENCE` wrote.
#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::{collections::BTreeMap, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::{LogitFrame, Rgb};
use cytomask_models::{
    Error,
    cytomask_t::{CYTOMASK_T, CytomaskT, CytomaskTOptions, ScaleChoice},
    loading::{load_into, values},
    seeded::{Seeded, seeded},
    tiny_vit::{TinyVit, VIT_T},
    unetr::{UNETR_MICRO_SAM, Unetr},
};
use cytomask_segment::{FieldModel, Prompt, PromptModel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, weights, reference] if flag == "--embedding" => compare(weights, reference),
        [flag, side] if flag == "--unetr" => Ok(time_unetr(side.parse()?)?),
        sides => {
            let sides: Vec<u32> = sides.iter().map(|side| side.parse()).collect::<Result<_, _>>()?;
            Ok(time(if sides.is_empty() { &[512, 1024] } else { &sides })?)
        }
    }
}

/// Fastest of three, in milliseconds.
fn fastest<T>(name: &str, mut run: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut best = f64::INFINITY;
    let mut last = None;
    for _ in 0..3 {
        let start = Instant::now();
        last = Some(run()?);
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{name:<44} {best:9.1} ms");
    Ok(last.expect("three runs"))
}

fn time(sides: &[u32]) -> Result<(), Error> {
    let device = Device::flex();
    let source = Seeded::of(&CytomaskT::new(&CYTOMASK_T, &device), "");
    let model = CytomaskT::load(&CYTOMASK_T, &source, &device)?;
    for &side in sides {
        println!("{side} × {side}");
        let edge = side as usize;
        let pixels = input("input/timing", [1, 3, edge, edge], &device);
        let taps = fastest("  image encoder", || model.image_encoder.forward_with_taps(pixels.clone()))?;
        let decoded = fastest("  instance decoder", || Ok(model.instance_decoder.forward(&taps, pixels.clone())))?;
        fastest("  mask refiner, features", || {
            Ok(values(model.mask_refiner.features(decoded.f4.clone(), decoded.f2.clone())))
        })?;
        let frame = LogitFrame { padded: [side; 2], input: [side; 2], image: [side; 2] };
        let embedding = model.encode_tensor(pixels, frame)?;
        fastest("  fields", || model.fields(&embedding))?;
        let prompts: Vec<Prompt> = (0..16).map(|index| Prompt::point(10.0 * index as f32, 20.0)).collect();
        for batch in [1, 2, 4, 8, 16] {
            let options = CytomaskTOptions { prompt_batch: batch, ..CytomaskTOptions::default() };
            let model = model.clone().with_options(options);
            let name = format!("  16 prompts, three masks, batches of {batch}");
            fastest(&name, || model.decode(&embedding, &prompts, true))?;
        }
        let samples = (0..side * side * 3).map(|index| (index % 251) as f32).collect();
        let rgb = Rgb { size: [side; 2], samples };
        let options = CytomaskTOptions { scale: ScaleChoice::Fixed(1.0), ..CytomaskTOptions::default() };
        let model = model.clone().with_options(options);
        fastest("  encode, all of it", || model.encode(&rgb))?;
    }
    Ok(())
}

fn time_unetr(side: usize) -> Result<(), Error> {
    let device = Device::flex();
    let decoder = Unetr::new(&UNETR_MICRO_SAM, &device);
    let source = Seeded::of(&decoder, "").with_key_prefix("decoder_state/");
    let decoder = load_into(decoder, &source, "")?.module;
    let embedding = input("input/timing", [1, 256, side / 16, side / 16], &device);
    fastest("µSAM instance decoder", || decoder.forward(embedding.clone()))?;
    Ok(())
}

fn input(key: &str, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let numbers = seeded(key, &[shape.iter().product()]).into_iter().map(|value| 20.0 * value).collect();
    Tensor::from_data(TensorData::new::<f32, _>(numbers, shape), device)
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(path: &str) -> Result<Tensors, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32) {
        let numbers = view.data().chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        tensors.insert(name.to_owned(), (view.shape().to_vec(), numbers.collect()));
    }
    Ok(tensors)
}

fn compare(weights: &str, reference: &str) -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let loaded = load_into(TinyVit::new(&VIT_T, &device), &read(weights)?, "image_encoder.")?;
    println!("not used: {:?}", loaded.unused);
    let image = input("input/full", [1, 3, 1024, 1024], &device);
    let found = values(fastest("image encoder, 1024 × 1024", || loaded.module.forward(image.clone()))?);
    let (_, expected) = &read(reference)?["embedding"];
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let norm: f64 = expected.iter().map(|value| f64::from(*value).powi(2)).sum();
    let pairs = || found.iter().zip(expected).map(|(a, b)| f64::from(a - b));
    let most = pairs().fold(0.0_f64, |most, difference| most.max(difference.abs()));
    let root = (pairs().map(|difference| difference.powi(2)).sum::<f64>() / norm).sqrt();
    println!("largest difference {most:.3e} of largest value {largest:.3}: {:.3e}", most / f64::from(largest));
    println!("relative root mean square difference {root:.3e}");
    Ok(())
}
