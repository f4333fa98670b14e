//! Cellpose-SAM in training: blocks left out at random, and the loss of its maps. Reference: `vit.py` and `train.py` of cellpose 4.

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::cpsam::CpSam;
use rand::{Rng, RngExt};

use super::failed;
use crate::Error;
use crate::flow_crops::FlowCrop;

/// Flows are five times a unit vector.
const FLOW_SCALE: f32 = 5.0;

/// Loss of a batch. Block `i` of `n` is left out of an image with probability `depth · i / (n − 1)`; images in order, blocks in order.
pub(crate) fn loss(
    network: &CpSam,
    crops: &[FlowCrop],
    depth: f64,
    rng: &mut impl Rng,
    device: &Device,
) -> Result<Tensor<1>, Error> {
    let blocks = network.encoder.blocks.len();
    let chance = |block: usize| depth * block as f64 / (blocks.max(2) - 1) as f64;
    let mut skipped = || (0..blocks).map(|block| rng.random::<f64>() < chance(block)).collect::<Vec<bool>>();
    let skipped: Vec<Vec<bool>> = crops.iter().map(|_| skipped()).collect();
    let maps = network.forward_skipping(images(crops, device), &skipped).map_err(failed)?;
    Ok(flow_loss(maps, targets(crops, device)))
}

/// Half the mean squared error of the flows, and the cross entropy of the cell probability.
///
/// # Shapes
/// - `maps`: `[N, 3, H, W]`, flow along y, along x, logit of being in a cell.
/// - `targets`: `[N, 3, H, W]`, unit flow along y, along x, 1 in cells and 0 elsewhere.
/// - returns `[1]`.
pub(crate) fn flow_loss(maps: Tensor<4>, targets: Tensor<4>) -> Tensor<1> {
    let flows = maps.clone().narrow(1, 0, 2) - targets.clone().narrow(1, 0, 2) * FLOW_SCALE;
    let (logits, inside) = (maps.narrow(1, 2, 1), targets.narrow(1, 2, 1));
    // log(1 + e^x) − x y, in the form that does not overflow.
    let softplus = logits.clone().clamp_min(0.0) + (logits.clone().abs().neg().exp() + 1.0).log();
    flows.square().mean() / 2.0 + (softplus - logits * inside).mean()
}

/// `[N, 3, H, W]`, 1 being white.
fn images(crops: &[FlowCrop], device: &Device) -> Tensor<4> {
    planes(crops, |crop| &crop.image, device)
}

fn targets(crops: &[FlowCrop], device: &Device) -> Tensor<4> {
    planes(crops, |crop| &crop.targets, device)
}

fn planes(crops: &[FlowCrop], of: impl Fn(&FlowCrop) -> &Vec<f32>, device: &Device) -> Tensor<4> {
    let side = crops[0].side;
    let values: Vec<f32> = crops.iter().flat_map(|crop| of(crop).iter().copied()).collect();
    Tensor::from_data(TensorData::new(values, [crops.len(), 3, side, side]), device)
}
