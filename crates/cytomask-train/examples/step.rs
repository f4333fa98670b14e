//! Times one joint training step of cytomask-t, whole and by part, on seeded weights and made-up images; times do not depend on
//! values. Seconds of CPU time, medians.
//!
//! `target/release/examples/step [ROUNDS] [CROPS] [SIDE] [PROMPTS]`, by default 3, 4, 224 and 8; `step sam [SIDE]` times SAM's ViT-B
//! with µSAM's instance decoder on one image (512²). `bench/train_step.sh` runs it by
//! turns with the same step in PyTorch. `CYTOMASK_GRADIENTS=framework` leaves all gradients to the tensor framework.
#![expect(clippy::print_stdout, reason = "a program that reports")]

#[path = "../../cytomask-models/examples/usage/mod.rs"]
mod usage;

use burn::{
    grad_clipping::GradientClippingConfig,
    module::Module,
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Tensor, TensorData, activation::sigmoid},
};
use cytomask_models::{
    cytomask_t::{CYTOMASK_T, CytomaskT},
    layers::resize_bilinear,
    sam::{ImageEncoder, VIT_B},
    seeded::{filled, seeded},
    tiny_vit::TinyVitTaps,
    unetr::{UNETR_MICRO_SAM, Unetr},
};
use cytomask_segment::{BoxPrompt, Prompt};
use cytomask_train::losses;
use usage::{cpu_seconds, peak_mib};

/// Rounds of prompts on each crop, as a step has them.
const ROUNDS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, rest @ ..] = arguments.as_slice()
        && what == "sam"
    {
        return sam(rest.first().map_or(Ok(512), |side| side.parse())?);
    }
    let numbers: Vec<usize> = arguments.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let (rounds, bench) = (number(0, 3), Bench::new(number(1, 4), number(2, 224), number(3, 8))?);
    bench.parts(rounds);
    let mut network = bench.network.clone();
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(0.01)
        .with_epsilon(1e-8)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(5.0)))
        .init();
    let mut seconds = Vec::new();
    for _ in 0..=rounds {
        let start = cpu_seconds();
        network = bench.step(network, &mut optimizer);
        seconds.push(cpu_seconds() - start);
    }
    // The first step also prepares memory and the optimizer's state.
    println!("{:<28} {:8.3}", "whole step", median(&mut seconds[1..]));
    println!("{:<28} {:8.0}", "peak memory, MiB", peak_mib());
    Ok(())
}

/// Forward and back through SAM's ViT-B and µSAM's instance decoder, one image.
fn sam(side: usize) -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let encoder = filled(ImageEncoder::new(&VIT_B.encoder, &device))?.train();
    let decoder = filled(Unetr::new(&UNETR_MICRO_SAM, &device))?.train();
    let shape = [1, 3, side, side];
    let images =
        || Tensor::<4>::from_data(TensorData::new(seeded("images", &shape), shape), &device.clone().autodiff());
    println!("{:<28} {:>8} {:>8}", "CPU s", "forward", "backward");
    let embedding = part("ViT-B", 1, || {
        let embedding = encoder.forward(images()).expect("a multiple of the patch");
        (embedding.clone(), embedding.sum())
    });
    part("instance decoder", 1, || {
        let maps = decoder.forward(embedding.clone().detach().require_grad()).expect("an embedding");
        ((), maps.sum())
    });
    part("both", 1, || {
        let embedding = encoder.forward(images()).expect("a multiple of the patch");
        ((), decoder.forward(embedding).expect("an embedding").sum())
    });
    println!("{:<28} {:8.0}", "peak memory, MiB", peak_mib());
    Ok(())
}

struct Bench {
    device: Device,
    network: CytomaskT,
    crops: usize,
    side: usize,
    prompts: Vec<Prompt>,
}

impl Bench {
    fn new(crops: usize, side: usize, prompts: usize) -> Result<Self, cytomask_models::Error> {
        let device = Device::flex().autodiff();
        let network = filled(CytomaskT::new(&CYTOMASK_T, &Device::flex()))?.train();
        let prompts = (0..prompts)
            .map(|index| {
                let at = (index * side / (prompts + 1)) as f32;
                let mut prompt = Prompt::point(at + 9.0, at + 5.0);
                prompt.bounds = Some(BoxPrompt { y0: at, x0: at, y1: at + 20.0, x1: at + 15.0 });
                prompt
            })
            .collect();
        Ok(Self { device, network, crops, side, prompts })
    }

    fn made_up<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(seeded(name, &shape), shape), &self.device)
    }

    fn images(&self) -> Tensor<4> {
        self.made_up("images", [self.crops, 3, self.side, self.side])
    }

    fn targets(&self) -> Tensor<4> {
        self.made_up("targets", [self.crops, 3, self.side, self.side]).greater_elem(0.0).float()
    }

    /// Logits at crop size and predicted IoU of the prompts on one crop.
    fn decode(
        &self,
        network: &CytomaskT,
        [embedding, refiner]: [Tensor<4>; 2],
        multimask: bool,
    ) -> (Tensor<4>, Tensor<2>) {
        let [_, _, h, w] = embedding.dims();
        let extent = [1024.0; 2];
        let sparse = network.prompt_encoder.sparse(&self.prompts, extent).expect("prompts of one form");
        let positions = network.prompt_encoder.dense_positions_from([3, 5], [h, w], 16, extent);
        let decoded = network.mask_decoder.forward(embedding, positions, sparse, network.prompt_encoder.no_mask());
        let (first, count) = if multimask { (1, 3) } else { (0, 1) };
        let logits = network.mask_refiner.refine(
            refiner,
            decoded.logits.narrow(1, first, count),
            decoded.mask_tokens.narrow(1, first, count),
        );
        (resize_bilinear(logits, [self.side; 2]), decoded.predicted_iou.narrow(1, first, count))
    }

    fn truth(&self) -> Tensor<3> {
        self.made_up("truth", [self.prompts.len(), self.side, self.side]).greater_elem(0.5).float()
    }

    fn mask_loss(&self, network: &CytomaskT, embedding: &Tensor<4>, refiner: &Tensor<4>) -> Tensor<1> {
        let mut all = Vec::new();
        for crop in 0..self.crops {
            let truth = self.truth();
            for round in 0..ROUNDS {
                let of_crop = [embedding, refiner].map(|maps| maps.clone().narrow(0, crop, 1));
                let (logits, iou) = self.decode(network, of_crop, round == 0);
                all.push(losses::prompted_mask_loss(logits, iou, truth.clone()));
            }
        }
        let count = all.len() as f32;
        Tensor::cat(all, 0).sum() / count
    }

    fn step(&self, network: CytomaskT, optimizer: &mut ModuleOptimizer) -> CytomaskT {
        let images = self.images();
        let taps = network.image_encoder.forward_with_taps(images.clone()).expect("a multiple of 32");
        let decoded = network.instance_decoder.forward(&taps, images);
        let refiner = network.mask_refiner.features(decoded.f4, decoded.f2);
        let maps = losses::distance_map_loss(sigmoid(decoded.map_logits), self.targets());
        let loss = maps + self.mask_loss(&network, &taps.embedding, &refiner);
        let value: f32 = loss.clone().into_scalar();
        assert!(value.is_finite(), "a loss of {value}");
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        optimizer.step(1e-4, network, gradients)
    }

    fn parts(&self, rounds: usize) {
        let network = &self.network;
        let leaf = |x: &Tensor<4>| x.clone().detach().require_grad();
        println!("{:<28} {:>8} {:>8}", "CPU s", "forward", "backward");
        let images = self.images();
        let taps = part("image encoder", rounds, || {
            let taps = network.image_encoder.forward_with_taps(images.clone()).expect("a multiple of 32");
            let sum =
                taps.t2.clone().sum() + taps.t4.clone().sum() + taps.t8.clone().sum() + taps.embedding.clone().sum();
            (taps, sum)
        });
        let leaves = || TinyVitTaps {
            t2: leaf(&taps.t2),
            t4: leaf(&taps.t4),
            t8: leaf(&taps.t8),
            embedding: leaf(&taps.embedding),
        };
        let decoded = part("instance decoder", rounds, || {
            let decoded = network.instance_decoder.forward(&leaves(), images.clone());
            let sum = decoded.map_logits.clone().sum() + decoded.f4.clone().sum() + decoded.f2.clone().sum();
            (decoded, sum)
        });
        part("loss of the maps", rounds, || {
            let maps = sigmoid(leaf(&decoded.map_logits));
            ((), losses::distance_map_loss(maps, self.targets()))
        });
        let refiner = part("refiner, features", rounds, || {
            let features = network.mask_refiner.features(leaf(&decoded.f4), leaf(&decoded.f2));
            (features.clone(), features.sum())
        });
        let logits = part("prompts", rounds, || {
            let (embedding, refiner) = (leaf(&taps.embedding), leaf(&refiner));
            let mut sum = Tensor::<1>::zeros([1], &self.device);
            let mut kept = Vec::new();
            for index in 0..self.crops * ROUNDS {
                let of_crop = [&embedding, &refiner].map(|maps| maps.clone().narrow(0, index / ROUNDS, 1));
                let (logits, iou) = self.decode(network, of_crop, index % ROUNDS == 0);
                sum = sum + logits.clone().sum() + iou.clone().sum();
                kept.push((logits, iou));
            }
            (kept, sum)
        });
        part("loss of the masks", rounds, || {
            let mut sum = Tensor::<1>::zeros([1], &self.device);
            for (logits, iou) in &logits {
                let iou = iou.clone().detach().require_grad();
                sum = sum + losses::prompted_mask_loss(leaf(logits), iou, self.truth());
            }
            ((), sum)
        });
        let mut optimizer = AdamWConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(5.0))).init();
        let mut trained = network.clone();
        let mut seconds = Vec::new();
        for _ in 0..=rounds {
            let taps = trained.image_encoder.forward_with_taps(images.clone()).expect("a multiple of 32");
            let loss = taps.embedding.sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &trained);
            let start = cpu_seconds();
            trained = optimizer.step(1e-4, trained, gradients);
            seconds.push(cpu_seconds() - start);
        }
        println!("{:<28} {:8.3}", "optimizer, encoder only", median(&mut seconds[1..]));
    }
}

/// Runs a part some times, forward and back; gives what it gave last.
fn part<T>(name: &str, rounds: usize, run: impl Fn() -> (T, Tensor<1>)) -> T {
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..=rounds {
        let start = cpu_seconds();
        let (kept, loss) = run();
        let middle = cpu_seconds();
        drop(loss.backward());
        forward.push(middle - start);
        backward.push(cpu_seconds() - middle);
        last = Some(kept);
    }
    println!("{name:<28} {:8.3} {:8.3}", median(&mut forward[1..]), median(&mut backward[1..]));
    last.expect("at least one round")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
