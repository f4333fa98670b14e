//! Parts of a network of which the way there keeps the inputs alone, and which run again on the way back (Chen et al. 2016, "Training
//! deep nets with sublinear memory cost").
//!
//! A part is one operation in the framework's graph. Its way back is a whole pass, there and back, in a graph of its own, whose leaves
//! refer to the values of its inputs and of those of its parameters that gradients are wanted for. Whether such a parameter is a leaf
//! outside, or computed there (as a weight with LoRA's update is), makes no difference.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use burn::{
    backend::{Autodiff, AutodiffBackend, Flex, TensorMetadata, flex::FlexTensor},
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{
    Recorded, Strategy,
    operation::{Operation, absent, flex, record},
    recorded, strategy, tensor,
};
use crate::cpu::Values;

/// Whether a part with these inputs is run again: the framework's balanced checkpointing is on for one, and all lie in main memory.
pub(crate) fn recomputes<const D: usize>(inputs: &[Tensor<D>]) -> bool {
    let here = |x: &Tensor<D>| x.dtype() == DType::F32 && x.is_autodiff() && x.device().inner() == Device::flex();
    inputs.iter().all(here) && inputs.iter().any(|x| strategy(x) == Strategy::Balanced)
}

/// See [`crate::layers::recomputed`].
pub(crate) fn recomputed<M: Module + 'static, const I: usize, const D: usize>(
    part: &M,
    inputs: [Tensor<D>; I],
    run: impl Fn(&M, [Tensor<D>; I]) -> Tensor<D> + Clone + Send + 'static,
) -> Tensor<D> {
    let mut parents = Parents { found: Found::default(), wanted: Vec::new(), last: absent() };
    part.visit(&mut parents);
    let inputs = inputs.map(|x| {
        let x = recorded(x);
        parents.add(x.clone());
        x.into_primitive()
    });
    let Parents { found, wanted, last } = parents;
    let part = part.valid();
    let y = record([last], |_| {
        let again = Again::<_, _, I, D> { part, inputs, run, wanted, found };
        // By the same loops as on the way back, so that nothing differs by a rounding; nothing is wanted, so that nothing is kept.
        let (y, _) = again.clone().run(Vec::new());
        (y.into_primitive(), again)
    });
    tensor(y, Strategy::Balanced)
}

/// Gradients that a part's way back found, until the framework asks for each; by the order of [`Parents`].
#[derive(Clone, Debug, Default)]
struct Found(Arc<Mutex<Vec<Option<FlexTensor>>>>);

/// What a part depends on: its parameters, then its inputs. An operation has a fixed number of parents and a part has not, so that
/// they are strung on a chain of operations with two each: the link before, and one of them.
struct Parents {
    found: Found,
    /// Of which of them a gradient is wanted; these have a link.
    wanted: Vec<bool>,
    last: Recorded,
}

impl Parents {
    fn add(&mut self, parent: Recorded) {
        let (index, wanted) = (self.wanted.len(), parent.is_tracked());
        self.wanted.push(wanted);
        if wanted {
            let before = std::mem::replace(&mut self.last, absent());
            self.last = record([before, parent], |_| (nothing(), Link { found: self.found.clone(), index }));
        }
    }
}

impl ModuleVisitor for Parents {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(recorded(param.val()));
    }
}

/// Stands for a result and a gradient that nobody looks at.
fn nothing() -> FlexTensor {
    flex(vec![0.0], [1])
}

/// Hands a gradient on when its turn has come.
#[derive(Clone, Debug)]
struct Link {
    found: Found,
    index: usize,
}

impl Operation<2> for Link {
    fn back(self, _: Values, [before, _]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let mut found = self.found.0.lock().unwrap_or_else(PoisonError::into_inner);
        [before.then(nothing), found.get_mut(self.index).and_then(Option::take)]
    }
}

/// A part and what it runs on.
#[derive(Clone)]
struct Again<M, F, const I: usize, const D: usize> {
    /// Without gradients.
    part: M,
    inputs: [FlexTensor; I],
    run: F,
    wanted: Vec<bool>,
    found: Found,
}

impl<M, F, const I: usize, const D: usize> fmt::Debug for Again<M, F, I, D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Again").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl<M, F, const I: usize, const D: usize> Again<M, F, I, D>
where
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; I]) -> Tensor<D> + Clone + Send + 'static,
{
    /// The result, and those parameters and inputs that gradients are wanted for.
    fn run(self, wanted: Vec<bool>) -> (Recorded, Vec<Option<Recorded>>) {
        let mut leaves = Leaves { wanted: wanted.into_iter(), leaves: Vec::new() };
        let part = self.part.map(&mut leaves);
        let inputs = self.inputs.map(|x| leaves.add(x));
        (recorded((self.run)(&part, inputs)), leaves.leaves)
    }
}

impl<M, F, const I: usize, const D: usize> Operation<1> for Again<M, F, I, D>
where
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; I]) -> Tensor<D> + Clone + Send + 'static,
{
    fn back(mut self, dy: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (wanted, store) = (std::mem::take(&mut self.wanted), self.found.clone());
        let (y, leaves) = self.run(wanted);
        let mut gradients = y.is_tracked().then(|| record([y], |_| (nothing(), Slope(dy))).backward());
        let found = leaves.into_iter().map(|leaf| {
            let leaf = leaf?;
            let found = gradients.as_mut().and_then(|gradients| leaf.grad_remove(gradients));
            // Whoever computed this one asks for its gradient, also where it took no part.
            Some(found.unwrap_or_else(|| zeros(leaf.primitive())))
        });
        *store.0.lock().unwrap_or_else(PoisonError::into_inner) = found.collect();
        [Some(nothing())]
    }
}

fn zeros(like: &FlexTensor) -> FlexTensor {
    let dims = like.shape().to_vec();
    FlexTensor::from_data(TensorData::new(vec![0.0_f32; dims.iter().product()], dims))
}

/// Makes leaves of a graph of their own from parameters and inputs.
struct Leaves {
    /// None where the list has ended.
    wanted: std::vec::IntoIter<bool>,
    /// Those that gradients are wanted for.
    leaves: Vec<Option<Recorded>>,
}

impl Leaves {
    fn add<const D: usize>(&mut self, values: FlexTensor) -> Tensor<D> {
        let leaf = <Autodiff<Flex> as AutodiffBackend>::from_inner(values);
        let wanted = self.wanted.next() == Some(true);
        let leaf = if wanted { leaf.require_grad() } else { leaf };
        self.leaves.push(wanted.then(|| leaf.clone()));
        tensor(leaf, Strategy::Disabled)
    }
}

impl ModuleMapper for Leaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| match x.try_into_primitive::<Flex>() {
            Ok(values) => self.add(values),
            Err(error) => unreachable!("it lies where the input does: {error:?}"),
        })
    }
}

/// The end of the inner graph: its slope is the gradient that came from outside.
#[derive(Clone, Debug)]
struct Slope(Values);

impl Operation<1> for Slope {
    fn back(self, _: Values, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.0.into_tensor())]
    }
}
