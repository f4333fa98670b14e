//! Times encoder and instance decoder of a checkpoint on the CPU.
//!
//! `stages CHECKPOINT [--decoder CHECKPOINT] [--side PIXELS] [--runs N] [--stage encoder|instance_decoder] [--save FOLDER]
//! [--precision f32|bf16|int8]`
//!
//! One line of JSON for each run: `stage`, `run`, `wall_s`, `user_s`, `system_s` (of all threads, to 10 ms). The first run of a
//! stage brings the weights into order; those after it are what a second image costs. A last line gives the model, its side, the
//! threads, the instruction set, the seconds that reading took, and the most memory the process ever held (`peak_mib`).
//! `--save` writes what each stage gave as raw little-endian `f32`. The input is the same everywhere:
//! `pixels[i] = (37 · i mod 251) / 125 − 1`; the instance decoder alone (`--stage instance_decoder`) takes `sin(0.37 · i)`.
#![expect(clippy::print_stdout, reason = "a program that reports")]

mod usage;

use std::{path::PathBuf, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::{
    Family, Precision,
    cytomask_t::{CYTOMASK_T, CytomaskT},
    loading::{load_into, values},
    precision::SetPrecision as _,
    sam::{ImageEncoder, VIT_B, VIT_H, VIT_L},
    tiny_vit::{TinyVit, VIT_T},
    unetr::{Unetr, UnetrConfig},
};
use cytomask_weights::{Checkpoint, TensorMap};
use usage::{peak_mib, processor_seconds};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    checkpoint: PathBuf,
    decoder: Option<PathBuf>,
    side: usize,
    runs: usize,
    stage: Option<String>,
    save: Option<PathBuf>,
    precision: Precision,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut arguments = std::env::args().skip(1);
        let checkpoint = arguments.next().ok_or("expected a checkpoint")?.into();
        let mut parsed =
            Self { checkpoint, decoder: None, side: 1024, runs: 3, stage: None, save: None, precision: Precision::F32 };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag}: expected a value"))?;
            match flag.as_str() {
                "--decoder" => parsed.decoder = Some(value.into()),
                "--side" => parsed.side = value.parse()?,
                "--runs" => parsed.runs = value.parse()?,
                "--precision" => parsed.precision = value.parse()?,
                "--stage" => parsed.stage = Some(value),
                "--save" => parsed.save = Some(value.into()),
                _ => return Err(format!("unknown option {flag}").into()),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, stage: &str) -> bool {
        self.stage.as_deref().is_none_or(|wanted| wanted == stage)
    }

    /// Runs a stage, prints its times, and gives what the last run gave.
    fn time<T>(
        &self,
        stage: &str,
        run: impl Fn() -> Result<T, Failure>,
        output: impl Fn(&T) -> Vec<f32>,
    ) -> Result<T, Failure> {
        // A stage that only serves the next one runs once, untimed.
        let runs = if self.wants(stage) { self.runs.max(1) } else { 0 };
        let mut last = None;
        for index in 0..runs {
            drop(last.take());
            let (start, before) = (Instant::now(), processor_seconds());
            last = Some(run()?);
            let (wall, after) = (start.elapsed().as_secs_f64(), processor_seconds());
            let [user, system] = [0, 1].map(|kind| after[kind] - before[kind]);
            println!(
                r#"{{"stage":"{stage}","run":{index},"wall_s":{wall:.4},"user_s":{user:.2},"system_s":{system:.2}}}"#
            );
        }
        let last = last.map_or_else(run, Ok)?;
        if let Some(folder) = self.save.as_ref().filter(|_| runs > 0) {
            let bytes: Vec<u8> = output(&last).iter().flat_map(|value| value.to_le_bytes()).collect();
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{stage}.f32")), bytes)?;
        }
        Ok(last)
    }
}

fn input(side: usize, device: &Device) -> Tensor<4> {
    let numbers = (0..3 * side * side).map(|index| ((37 * index) % 251) as f32 / 125.0 - 1.0).collect();
    Tensor::from_data(TensorData::new::<f32, _>(numbers, [1, 3, side, side]), device)
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    let device = Device::flex();
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    let family = checkpoint.family()?;
    let separate = arguments.decoder.as_deref().map(Checkpoint::open).transpose()?;
    let loaded = match family {
        Family::CytomaskT => time_cytomask_t(&arguments, checkpoint.model(), &device)?,
        Family::VitT => {
            let mut encoder = load_into(TinyVit::new(&VIT_T, &device), checkpoint.model(), "image_encoder.")?.module;
            encoder.set_precision(arguments.precision);
            let decoder = unetr(separate.as_ref().unwrap_or(&checkpoint), &arguments, &device)?;
            let loaded = started.elapsed();
            time_sam(&arguments, |image| Ok(encoder.forward(image)?), decoder.as_ref(), &device)?;
            loaded
        }
        Family::VitB | Family::VitL | Family::VitH => {
            let config = match family {
                Family::VitB => VIT_B,
                Family::VitL => VIT_L,
                _ => VIT_H,
            };
            let encoder = ImageEncoder::new(&config.encoder, &device);
            let mut encoder = load_into(encoder, checkpoint.model(), "image_encoder.")?.module;
            encoder.set_precision(arguments.precision);
            let decoder = unetr(separate.as_ref().unwrap_or(&checkpoint), &arguments, &device)?;
            let loaded = started.elapsed();
            time_sam(&arguments, |image| Ok(encoder.forward(image)?), decoder.as_ref(), &device)?;
            loaded
        }
        other => return Err(format!("{}: expected a SAM or cytomask-t checkpoint", other.name()).into()),
    };
    println!(
        r#"{{"model":"{}","side":{},"threads":"{}","level":"{:?}","load_s":{:.3},"peak_mib":{:.0}}}"#,
        family.name(),
        arguments.side,
        std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "all".into()),
        cytomask_kernels::Level::best(),
        loaded.as_secs_f64(),
        peak_mib(),
    );
    Ok(())
}

fn unetr(checkpoint: &Checkpoint, arguments: &Arguments, device: &Device) -> Result<Option<Unetr>, Failure> {
    let Some(tensors) = checkpoint.decoder().filter(|_| arguments.wants("instance_decoder")) else { return Ok(None) };
    let config = UnetrConfig::detect(TensorMap::names(tensors));
    let mut decoder = load_into(Unetr::new(&config, device), tensors, "")?.module;
    decoder.set_precision(arguments.precision);
    Ok(Some(decoder))
}

fn time_sam(
    arguments: &Arguments,
    encode: impl Fn(Tensor<4>) -> Result<Tensor<4>, Failure>,
    decoder: Option<&Unetr>,
    device: &Device,
) -> Result<(), Failure> {
    let image = input(arguments.side, device);
    let copy = |x: &Tensor<4>| values(x.clone());
    let embedding = if arguments.wants("encoder") {
        arguments.time("encoder", || encode(image.clone()), copy)?
    } else {
        let side = arguments.side / 16;
        let numbers = (0..256 * side * side).map(|index| (f64::from(index as u32) * 0.37).sin() as f32).collect();
        Tensor::from_data(TensorData::new::<f32, _>(numbers, [1, 256, side, side]), device)
    };
    if let Some(decoder) = decoder {
        arguments.time("instance_decoder", || Ok(decoder.forward(embedding.clone())?), copy)?;
    }
    Ok(())
}

fn time_cytomask_t(
    arguments: &Arguments,
    tensors: &TensorMap,
    device: &Device,
) -> Result<std::time::Duration, Failure> {
    let started = Instant::now();
    let mut model = CytomaskT::load(&CYTOMASK_T, tensors, device)?;
    model.set_precision(arguments.precision);
    let loaded = started.elapsed();
    let image = input(arguments.side, device);
    let taps = arguments.time(
        "encoder",
        || Ok(model.image_encoder.forward_with_taps(image.clone())?),
        |taps| values(taps.embedding.clone()),
    )?;
    if arguments.wants("instance_decoder") {
        let decode = || Ok(model.instance_decoder.forward(&taps, image.clone()));
        arguments.time("instance_decoder", decode, |decoded| values(decoded.map_logits.clone()))?;
    }
    Ok(loaded)
}
