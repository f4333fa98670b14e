//! Weights in the order in which the CPU loops read them: made when a layer first runs, kept with the layer.
//!
//! What is kept stands for certain tensors and is used only while the layer's parameters are those very tensors: the same memory,
//! looked at the same way. The framework copies before it writes whenever someone else refers to a tensor's memory, and the weak
//! reference held here counts as that; so values that were loaded or trained since lie elsewhere, are noticed, and are prepared
//! anew. Clones of a layer share what is kept, as they share the tensors.
//!
//! The weak reference keeps no values alive. An order that is kept does cost memory beside the parameter: for `f32` as much again.
//! Where a network only runs, the large layers of the transformers give up the parameter (`Linear::release_weight`).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use burn::{
    backend::flex::{FlexTensor, Layout},
    tensor::Bytes,
};

/// One of the tensors that something was prepared from.
#[derive(Debug)]
struct Source {
    memory: Weak<Bytes>,
    layout: Layout,
}

impl Source {
    fn of(tensor: &FlexTensor) -> Self {
        Self { memory: Arc::downgrade(&tensor.data_arc()), layout: tensor.layout().clone() }
    }

    fn is(&self, tensor: &FlexTensor) -> bool {
        std::ptr::eq(self.memory.as_ptr(), Arc::as_ptr(&tensor.data_arc())) && self.layout == *tensor.layout()
    }
}

#[derive(Debug)]
struct Kept<F> {
    sources: Vec<Source>,
    form: Arc<F>,
}

/// A weight prepared as an `F`, or nothing yet.
///
/// A layer holds one as a field that is no parameter (`#[module(skip)]`). `F` is an enum where a layer can choose among formats
/// (see [`LinearForm`]): the layer decides when it is built, the loops are told by the variant.
#[derive(Debug)]
pub(crate) struct Prepared<F> {
    kept: Arc<Mutex<Option<Kept<F>>>>,
}

impl<F> Clone for Prepared<F> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<F> Default for Prepared<F> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

impl<F> Prepared<F> {
    /// `form`, kept for `tensor`, which need not be what it was prepared from: see [`crate::layers::Linear::release_weight`].
    pub(crate) fn standing_for(tensor: &FlexTensor, form: Arc<F>) -> Self {
        let kept = Kept { sources: vec![Source::of(tensor)], form };
        Self { kept: Arc::new(Mutex::new(Some(kept))) }
    }

    /// What was prepared from `tensors`, or what `make` prepares from them now.
    pub(crate) fn of<const N: usize>(&self, tensors: [&FlexTensor; N], make: impl FnOnce() -> F) -> Arc<F> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { sources, form }) = &*kept()
            && sources.len() == N
            && sources.iter().zip(tensors).all(|(source, tensor)| source.is(tensor))
        {
            return Arc::clone(form);
        }
        // Not under the lock: `make` spreads work over a thread pool, and a thread that waits there may take up a task that wants
        // this same lock. At worst two threads prepare the same.
        let form = Arc::new(make());
        *kept() = Some(Kept { sources: tensors.map(Source::of).into(), form: Arc::clone(&form) });
        form
    }
}

/// The formats of a linear layer's weight. A format of fewer bits is another variant, made in `cpu::linear` where the layer asks
/// for it.
#[derive(Debug)]
pub(crate) enum LinearForm {
    /// Exact.
    F32(cytomask_kernels::Packed),
    /// Rounded to bf16.
    Bf16(cytomask_kernels::Packed16),
    /// In 8 bits, a scale for each output channel.
    Int8(cytomask_kernels::Packed8),
}

/// The forms of a convolution's weight, where it is kept in another order than the stored one.
#[derive(Debug)]
pub(crate) enum ConvForm {
    /// `f32`, at the points of Winograd's filtering.
    Points(cytomask_kernels::Weight3x3),
    /// In 8 bits.
    Int8(cytomask_kernels::Weight8),
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::Flex,
        tensor::{Device, Tensor},
    };

    use super::*;

    fn primitive(x: Tensor<1>) -> FlexTensor {
        x.try_into_primitive::<Flex>().unwrap()
    }

    #[test]
    fn what_is_kept_serves_the_very_same_tensor_only() {
        let prepared = Prepared::<f32>::default();
        let x = primitive(Tensor::from_data([1.0, 2.0, 3.0], &Device::flex()));
        assert_eq!(*prepared.of([&x], || 1.0), 1.0);
        assert_eq!(*prepared.of([&x.clone()], || 2.0), 1.0, "a clone is the same tensor");
        assert_eq!(*prepared.clone().of([&x], || 3.0), 1.0, "a clone of the layer shares");
        assert_eq!(*prepared.of([&x.narrow(0, 1, 2)], || 4.0), 4.0, "a part of it is another");
        let equal = primitive(Tensor::from_data([1.0, 2.0, 3.0], &Device::flex()));
        assert_eq!(*prepared.of([&equal], || 5.0), 5.0, "so is one of equal values");
        assert_eq!(*prepared.of([&equal, &x], || 6.0), 6.0, "or two instead of one");
    }

    #[test]
    fn values_written_in_place_are_noticed() {
        let prepared = Prepared::<f32>::default();
        let mut x = primitive(Tensor::from_data([1.0, 2.0], &Device::flex()));
        let sum = |x: &FlexTensor| x.storage::<f32>().iter().sum::<f32>();
        assert_eq!(*prepared.of([&x], || sum(&x)), 3.0);
        assert!(x.try_storage_mut::<f32>().is_none(), "not while someone refers to the memory");
        x.storage_mut::<f32>()[0] = 5.0;
        assert_eq!(*prepared.of([&x], || sum(&x)), 7.0);
    }

    #[test]
    fn memory_that_was_given_back_is_not_mistaken_for_new() {
        let prepared = Prepared::<usize>::default();
        for round in 0..100 {
            // The allocator likes to hand out the place that just became free.
            let x = primitive(Tensor::from_data([round as f32; 4], &Device::flex()));
            assert_eq!(*prepared.of([&x], || round), round);
        }
    }
}
