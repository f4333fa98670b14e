//! How the framework is told of an operation with a way back of its own.

use std::{fmt::Debug, marker::PhantomData};

use burn::{
    backend::{
        Autodiff, AutodiffBackend, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        flex::FlexTensor,
    },
    tensor::TensorData,
};

use super::Recorded;
use crate::cpu::Values;

/// What an operation of `N` inputs keeps for its way back, and that way.
pub(super) trait Operation<const N: usize>: Clone + Send + Debug + 'static {
    /// Gradients of the wanted inputs from that of the result.
    fn back(self, gradient: Values, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// An operation in the framework's graph.
#[derive(Debug)]
struct Step<S>(PhantomData<S>);

impl<S: Operation<N>, const N: usize> Backward<Flex, N> for Step<S> {
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::from(gradients.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, found) in ops.parents.into_iter().zip(ops.state.back(gradient, wanted)) {
            if let (Some(parent), Some(found)) = (parent, found) {
                gradients.register::<Flex>(parent.id, found);
            }
        }
    }
}

/// Runs an operation and, where a gradient may be asked for, records it; `run` gives the result and what to keep.
pub(super) fn record<S: Operation<N>, const N: usize>(
    inputs: [Recorded; N],
    run: impl FnOnce([FlexTensor; N]) -> (FlexTensor, S),
) -> Recorded {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive());
    match Step::<S>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let (result, kept) = run(inputs);
            step.finish(kept, result)
        }
        OpsKind::UnTracked(step) => step.finish(run(inputs).0),
    }
}

/// Stands for an input that is absent; no gradient is asked for it.
pub(super) fn absent() -> Recorded {
    <Autodiff<Flex> as AutodiffBackend>::from_inner(flex(vec![0.0], [1]))
}

/// Values as the framework holds them.
pub(super) fn flex<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
