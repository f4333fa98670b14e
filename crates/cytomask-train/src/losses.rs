//! The joint objective of µSAM (Archit et al., Nature Methods 2025) in a plain form: distance maps of the instance decoder, and
//! Dice plus IoU regression of prompted masks. Corrective mask prompts are left out.

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softplus};
use cytomask_models::cytomask_t::box_edges;

/// Keeps the Dice denominator away from zero; torch-em's value.
const DICE_EPSILON: f32 = 1e-7;
/// Keeps the areas of boxes away from zero, square pixels.
const AREA_EPSILON: f32 = 1e-6;
/// Beyond this share of an object's side an edge is not pulled harder.
const LARGEST_EDGE_ERROR: f32 = 4.0;

/// Dice loss of each row: `1 − 2Σxy / max(Σx² + Σy², ε)`.
///
/// # Shapes
/// - `prediction`, `target`: `[rows, values]`, 0–1.
/// - returns `[rows]`.
pub fn dice(prediction: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    let overlap = (prediction.clone() * target.clone()).sum_dim(1);
    let mass = (prediction.square() + target.square()).sum_dim(1).clamp_min(DICE_EPSILON);
    (overlap * -2.0 / mass + 1.0).squeeze_dim(1)
}

/// Loss of the decoder maps: Dice of the foreground, and of both distances inside the true foreground, each over the whole batch.
///
/// # Shapes
/// - `maps`: `[N, 3, H, W]` after the sigmoid: foreground, centre distance, boundary distance.
/// - `targets`: the same, from [`crate::targets::distance_targets`].
/// - returns `[1]`.
pub fn distance_map_loss(maps: Tensor<4>, targets: Tensor<4>) -> Tensor<1> {
    let [n, channels, h, w] = maps.dims();
    let inside = targets.clone().narrow(1, 0, 1);
    // The foreground itself is not masked.
    let mask = Tensor::cat(vec![inside.ones_like(), inside.clone(), inside], 1);
    let rows = |maps: Tensor<4>| maps.swap_dims(0, 1).reshape([channels, n * h * w]);
    dice(rows(maps * mask.clone()), rows(targets * mask)).sum()
}

/// Loss of prompted masks: for every object the best output's Dice, plus the squared error of the predicted IoU.
///
/// # Shapes
/// - `logits`: `[objects, outputs, H, W]` at the size of `truth`.
/// - `predicted_iou`: `[objects, outputs]`.
/// - `truth`: `[objects, H, W]`, 0 or 1.
/// - returns `[1]`.
pub fn prompted_mask_loss(logits: Tensor<4>, predicted_iou: Tensor<2>, truth: Tensor<3>) -> Tensor<1> {
    let [objects, outputs, h, w] = logits.dims();
    let pixels = h * w;
    let truth = truth.reshape([objects, 1, pixels]).repeat_dim(1, outputs).reshape([objects * outputs, pixels]);
    let probability = sigmoid(logits.reshape([objects * outputs, pixels]));
    let iou = iou(probability.clone().detach(), truth.clone()).reshape([objects, outputs]);
    let mask_loss = dice(probability, truth).reshape([objects, outputs]).min_dim(1).mean();
    mask_loss + (predicted_iou - iou).square().mean()
}

/// Loss of proposed boxes: generalised IoU (Rezatofighi et al. 2019) and the edges' mean error as a share of the object's sides, each
/// cell by its weight; and of their ratings the quality focal loss (Li et al. 2020), whose truth is a box's own IoU, and 0 in the
/// background.
///
/// # Shapes
/// - `raw`: `[N, 5, h, w]`, of [`cytomask_models::cytomask_t::BoxDecoder`].
/// - `edges`, `weights`: `[N, 4, h, w]` and `[N, 1, h, w]`, of [`crate::targets::box_targets`].
/// - returns `[1]`.
pub fn box_loss(raw: Tensor<4>, edges: Tensor<4>, weights: Tensor<4>) -> Tensor<1> {
    let (_, found) = box_edges(raw.clone());
    let part = |of: &Tensor<4>, index: usize| of.clone().narrow(1, index, 1);
    let side = |of: &Tensor<4>, axis: usize| part(of, axis + 2) - part(of, axis);
    let area = |of: &Tensor<4>| side(of, 0) * side(of, 1);
    let common = |axis: usize| {
        part(&found, axis + 2).min_pair(part(&edges, axis + 2)) - part(&found, axis).max_pair(part(&edges, axis))
    };
    let hull = |axis: usize| {
        part(&found, axis + 2).max_pair(part(&edges, axis + 2)) - part(&found, axis).min_pair(part(&edges, axis))
    };
    let intersection = common(0).clamp_min(0.0) * common(1).clamp_min(0.0);
    let union = area(&found) + area(&edges) - intersection.clone();
    let hull = hull(0) * hull(1);
    let iou = intersection / union.clone().clamp_min(AREA_EPSILON);
    let generalised = iou.clone() - (hull.clone() - union) / hull.clamp_min(AREA_EPSILON);
    let sides = Tensor::cat(vec![side(&edges, 0), side(&edges, 1), side(&edges, 0), side(&edges, 1)], 1).clamp_min(1.0);
    let error = ((found - edges).abs() / sides).mean_dim(1).clamp_max(LARGEST_EDGE_ERROR);
    let total = weights.clone().sum().clamp_min(1.0);
    let shape = (weights.clone() * (-generalised + 1.0 + error * 2.0)).sum() / total.clone();

    let inside = weights.clone().greater_elem(0.0).float();
    let truth = iou.detach().clamp(0.0, 1.0) * inside.clone();
    let logit = part(&raw, 0);
    // log(1 + exp(x)) − x · truth
    let cross_entropy = softplus(logit.clone(), 1.0) - logit.clone() * truth.clone();
    let focal = (sigmoid(logit) - truth).square() * cross_entropy;
    // Cells of the background count as a mean one of an object.
    let mean = (weights.clone().sum() / inside.clone().sum().clamp_min(1.0)).reshape([1, 1, 1, 1]);
    let counted = weights + (-inside + 1.0) * mean;
    shape + (focal * counted).sum() * 2.0 / total
}

/// Intersection over union of `probability > 0.5` with the truth, per row; no gradient flows.
fn iou(probability: Tensor<2>, truth: Tensor<2>) -> Tensor<1> {
    let predicted = probability.greater_elem(0.5).float();
    let intersection = (predicted.clone() * truth.clone()).sum_dim(1);
    let union = (predicted + truth).clamp_max(1.0).sum_dim(1) + DICE_EPSILON;
    (intersection / union).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: [[f32; 4]; 2]) -> Tensor<2> {
        Tensor::from_data(values, &Default::default())
    }

    #[test]
    fn dice_is_zero_for_a_match_and_one_without_overlap() {
        let truth = rows([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]);
        let guess = rows([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]);
        let loss: Vec<f32> = dice(guess, truth).into_data().iter::<f32>().collect();
        assert_eq!(loss, [0.0, 1.0]);
    }

    #[test]
    fn distances_outside_the_foreground_do_not_count() {
        let device = Default::default();
        let targets = Tensor::<4>::from_data([[[[1.0, 0.0]], [[0.2, 1.0]], [[0.4, 1.0]]]], &device);
        let off_outside = Tensor::<4>::from_data([[[[1.0, 0.0]], [[0.2, 0.3]], [[0.4, 0.1]]]], &device);
        let loss: f32 = distance_map_loss(off_outside, targets.clone()).into_scalar();
        assert!(loss.abs() < 1e-6, "{loss}");
        let off_inside = Tensor::<4>::from_data([[[[1.0, 0.0]], [[0.9, 1.0]], [[0.4, 1.0]]]], &device);
        let loss: f32 = distance_map_loss(off_inside, targets).into_scalar();
        // 1 − 2·0.18 / (0.81 + 0.04)
        assert!((loss - (1.0 - 0.36 / 0.85)).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn the_best_output_counts_and_every_iou_is_regressed() {
        let device = Default::default();
        let truth = Tensor::<3>::from_data([[[1.0, 1.0], [0.0, 0.0]]], &device);
        let logits =
            Tensor::<4>::from_data([[[[50.0, 50.0], [-50.0, -50.0]], [[-50.0, -50.0], [50.0, 50.0]]]], &device);
        let iou = Tensor::<2>::from_data([[0.5, 0.0]], &device);
        let loss: f32 = prompted_mask_loss(logits, iou, truth).into_scalar();
        assert!((loss - 0.125).abs() < 1e-5, "{loss}");
    }
}
