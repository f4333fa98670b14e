//! Times one computation of an ONNX network by rten: `rten-peer NETWORK.onnx INPUT.f32 SIDE OUTPUT.f32`.
//!
//! INPUT holds `[1, C, SIDE, SIDE]`. The network computes once, and is timed while it computes again, as the other peers of
//! `bench/encoders.py` are. `RTEN_NUM_THREADS` chooses the threads. Prints a line of JSON.

use std::error::Error;
use std::time::Instant;
use std::{env, fs};

use rten::Model;
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, NdTensorView};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let (network, input) = (next("NETWORK.onnx")?, next("INPUT.f32")?);
    let side: usize = next("SIDE")?.parse()?;
    let output = next("OUTPUT.f32")?;
    let values: Vec<f32> =
        fs::read(&input)?.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    let shape = [1, values.len() / (side * side), side, side];
    let model = Model::load_file(&network)?;
    let run = || -> Result<NdTensor<f32, 4>, Box<dyn Error>> {
        let input = NdTensorView::from_data(shape, &values[..]);
        Ok(model.run_one(input.into(), None)?.try_into()?)
    };
    run()?;
    let (before, start) = (processor_seconds()?, Instant::now());
    let found = run()?;
    let (wall, processor) = (start.elapsed().as_secs_f64(), processor_seconds()? - before);
    fs::write(&output, found.to_vec().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    println!("{{\"wall_s\": {wall}, \"cpu_s\": {processor}, \"peak_mib\": {}}}", peak.unwrap_or(f64::NAN) / 1024.0);
    Ok(())
}

/// Seconds of all threads of this process, in steps of a hundredth (Linux).
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
