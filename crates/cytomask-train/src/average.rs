//! A moving average of the trained weights. What is validated and exported is the average, which noise of single steps moves less.
//!
//! At first the average would be mostly first weights; the share that is kept therefore begins low, `(1 + t) / (10 + t)` after `t` steps, as in
//! TensorFlow's `ExponentialMovingAverage`.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Averages of the trained parameters, flat, in the module's order.
#[derive(Clone, Debug)]
pub(crate) struct Average {
    kept: f64,
    values: Vec<Tensor<1>>,
}

impl Average {
    /// Begins at the weights of `module`, a validation snapshot; `trained` says which of its parameters change.
    pub(crate) fn new<M: Module>(kept: f64, module: &M, trained: &[bool]) -> Self {
        Self { kept, values: flat(module, trained) }
    }

    /// Takes in the weights after `step` steps.
    pub(crate) fn update<M: Module>(&mut self, module: &M, trained: &[bool], step: u64) {
        let kept = self.kept.min((1.0 + step as f64) / (10.0 + step as f64));
        for (average, now) in self.values.iter_mut().zip(flat(module, trained)) {
            *average = average.clone() * kept + now * (1.0 - kept);
        }
    }

    /// `module` with the averages in place of its weights.
    pub(crate) fn fill<M: Module>(&self, module: M, trained: &[bool]) -> M {
        module.map(&mut Fill { trained, next: 0, values: self.values.iter() })
    }
}

fn flat<M: Module>(module: &M, trained: &[bool]) -> Vec<Tensor<1>> {
    let mut flat = Flat { trained, next: 0, values: Vec::new() };
    module.visit(&mut flat);
    flat.values
}

/// Parameters beyond the list (adapters) are trained.
fn is_trained(trained: &[bool], index: usize) -> bool {
    trained.get(index).copied().unwrap_or(true)
}

struct Flat<'a> {
    trained: &'a [bool],
    next: usize,
    values: Vec<Tensor<1>>,
}

impl ModuleVisitor for Flat<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_trained(self.trained, self.next) {
            let count = param.lazy_shape().num_elements();
            self.values.push(param.val().reshape([count]));
        }
        self.next += 1;
    }
}

struct Fill<'a> {
    trained: &'a [bool],
    next: usize,
    values: std::slice::Iter<'a, Tensor<1>>,
}

impl ModuleMapper for Fill<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.next;
        self.next += 1;
        if !is_trained(self.trained, index) {
            return param;
        }
        match self.values.next() {
            Some(values) => param.map(|tensor| values.clone().reshape(tensor.dims())),
            None => param,
        }
    }
}
