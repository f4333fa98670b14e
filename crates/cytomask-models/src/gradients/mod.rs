//! The CPU loops as operations that gradients flow through: the way there is the loop that segments, the way back its counterpart in
//! `cytomask_kernels::backward`. [`crate::layers`] asks [`takes`] first; what it refuses (GPUs, other types of
//! number, machines without wide vectors) is left to the framework's own differentiation.
//!
//! Decision 0032 says how the framework is told.

mod attention;
mod convolution;
mod linear;
mod norm;
mod operation;
mod pointwise;
mod recomputed;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::OnceLock;

use burn::{
    backend::{
        Autodiff, Flex, GradientCheckpointingStrategy, autodiff::checkpoint::strategy::BalancedCheckpointing,
        tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor},
};
use cytomask_kernels::Level;

pub(crate) use attention::{attention, map_attention};
pub(crate) use convolution::{conv_transpose2x2, conv2d, holds};
pub(crate) use linear::linear;
pub(crate) use norm::{batch_norm, instance_norm, layer_norm};
pub(crate) use pointwise::{gelu, relu, upsample2};
pub(crate) use recomputed::{recomputed, recomputes};

/// A tensor that gradients are recorded for.
type Recorded = FloatTensor<Autodiff<Flex>>;

thread_local! {
    /// Whether this thread leaves gradients to the framework, for comparisons in tests.
    static LEFT_TO_FRAMEWORK: Cell<bool> = const { Cell::new(false) };
}

/// Whether the loops may be used at all: the machine has wide vectors, and `CYTOMASK_GRADIENTS=framework` does not forbid it.
fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let allowed = || {
        let forbidden = std::env::var("CYTOMASK_GRADIENTS").is_ok_and(|value| value == "framework");
        Level::best() > Level::Portable && !forbidden
    };
    *ALLOWED.get_or_init(allowed) && !LEFT_TO_FRAMEWORK.get()
}

/// Runs something on this thread with all gradients left to the framework.
#[cfg(test)]
pub(crate) fn by_framework<T>(run: impl FnOnce() -> T) -> T {
    LEFT_TO_FRAMEWORK.set(true);
    let result = run();
    LEFT_TO_FRAMEWORK.set(false);
    result
}

/// Whether the loops differentiate operations on this tensor: `f32` in main memory, gradients recorded.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    allowed() && x.dtype() == DType::F32 && x.is_autodiff() && x.device().inner() == Device::flex()
}

/// Whether the framework's own operations around ours keep or recompute what their ways back need. Single ones of ours keep it either
/// way; parts of a network are run again ([`recomputed`]).
type Strategy = GradientCheckpointingStrategy;

fn strategy<const D: usize>(x: &Tensor<D>) -> Strategy {
    x.gradient_checkpointing_strategy().unwrap_or(Strategy::Disabled)
}

fn recorded<const D: usize>(x: Tensor<D>) -> Recorded {
    let tensor = match strategy(&x) {
        Strategy::Disabled => x.try_into_primitive::<Autodiff<Flex>>(),
        Strategy::Balanced => x.try_into_primitive::<Autodiff<Flex, BalancedCheckpointing>>(),
    };
    match tensor {
        Ok(tensor) => tensor,
        Err(error) => unreachable!("device and type were checked: {error:?}"),
    }
}

fn tensor<const D: usize>(x: Recorded, strategy: Strategy) -> Tensor<D> {
    match strategy {
        Strategy::Disabled => Tensor::from_primitive::<Autodiff<Flex>>(x),
        Strategy::Balanced => Tensor::from_primitive::<Autodiff<Flex, BalancedCheckpointing>>(x),
    }
}
