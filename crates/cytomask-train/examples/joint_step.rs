//! Times joint training steps of SAM's ViT-B with µSAM's instance decoder, whole steps of the trainer on one given crop with given
//! prompts and seeded weights. `bench/train_sam.py` does the same with µSAM's classes, by turns with this.
//!
//! `target/release/examples/joint_step [SIDE] [OBJECTS] [STEPS] [summed|micro-sam] [on|off]`, by default 512, 4, 3, two optimizer steps
//! a batch as µSAM takes them, and parts of the network run again for gradients. Prints the losses, CPU seconds of the steps after the
//! first and the largest resident memory.
#![expect(clippy::print_stdout, reason = "a program that reports")]

#[path = "../../cytomask-models/examples/usage/mod.rs"]
mod usage;

use burn::tensor::Device;
use cytomask_image::{Labels, Rgb};
use cytomask_models::{
    BareNetwork,
    loading::load_into,
    sam::{Sam, SamConfig, VIT_B, VitConfig},
    seeded::{Seeded, filled, seeded},
    unetr::{UNETR_MICRO_SAM, Unetr},
};
use cytomask_segment::{PointPrompt, Prompt};
use cytomask_train::{
    TrainSettings, Trainer,
    data::{Crop, Sample},
    parity::Batch,
};
use usage::{cpu_seconds, peak_mib};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u32| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let word = |index: usize| arguments.get(index).map_or("", String::as_str);
    let (side, objects, steps) = (number(0, 512)?, number(1, 4)?, number(2, 3)?);
    let (summed, recompute) = (word(3) == "summed", word(4) != "off");

    let device = Device::flex();
    // Made for this side, as µSAM's encoder has to be.
    let encoder = VitConfig { trained_side: side as usize, ..VIT_B.encoder };
    let sam = filled(Sam::vit(&SamConfig { encoder, ..VIT_B }, &device))?;
    let decoder = Unetr::new(&UNETR_MICRO_SAM, &device);
    let source = Seeded::of(&decoder, "").with_key_prefix("decoder_state/");
    let network = BareNetwork::Sam(sam, Some(load_into(decoder, &source, "")?.module));
    let batch = batch(side, objects);
    let sample =
        Sample { path: "made.png".into(), image: batch.crops[0].image.clone(), labels: batch.crops[0].labels.clone() };
    let settings =
        TrainSettings { gradient_norm: None, input_side: side, crop_side: side, recompute, ..TrainSettings::default() };
    let mut trainer = Trainer::new(network, &device, settings, vec![sample], Vec::new())?;

    let (mut seconds, mut losses) = (Vec::new(), [0.0; 2]);
    for step in 0..=steps {
        let start = cpu_seconds();
        let found = if summed { trainer.step_on(&batch, 1e-5)? } else { trainer.steps_on(&batch, 1e-5)? };
        seconds.push(cpu_seconds() - start);
        losses = if step == 0 { found } else { losses };
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let [masks, maps] = losses;
    let (median, peak) = (seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN), peak_mib());
    println!("losses {masks:.5} {maps:.5}, {median:.2} CPU seconds a step, peak {peak:.0} MiB");
    Ok(())
}

/// One crop with objects in the cells of a grid; each is prompted by its centre, then also by a click in it and one beside it.
fn batch(side: u32, objects: u32) -> Batch {
    let columns = (1..).find(|columns| columns * columns >= objects).unwrap_or(1);
    let cell = side / columns;
    let corner = |object: u32| [object / columns * cell, object % columns * cell];
    let mut labels = Labels::zeros([side; 2]);
    for object in 0..objects {
        let [y0, x0] = corner(object);
        for y in y0 + cell / 8..y0 + cell - cell / 8 {
            for x in x0 + cell / 8..x0 + cell - cell / 8 {
                labels.as_mut_slice()[(y * side + x) as usize] = object + 1;
            }
        }
    }
    let point = |object: u32, offset: u32, positive: bool| {
        let [y, x] = corner(object).map(|from| (from + offset) as f32);
        PointPrompt { y, x, positive }
    };
    let prompt = |points: Vec<PointPrompt>| Prompt { points, ..Prompt::default() };
    let first = |object: u32| point(object, cell / 2, true);
    let rounds = vec![
        (0..objects).map(|object| prompt(vec![first(object)])).collect(),
        (0..objects)
            .map(|object| prompt(vec![first(object), point(object, cell / 4, true), point(object, 2, false)]))
            .collect(),
    ];
    let noise = seeded("input/crop0", &[(side * side * 3) as usize]);
    let samples = noise.into_iter().map(|value| 127.5 + 1275.0 * value).collect();
    let crop = Crop { image: Rgb { size: [side; 2], samples }, labels, source: 0, targets: None };
    Batch { crops: vec![crop], rounds: vec![rounds] }
}
