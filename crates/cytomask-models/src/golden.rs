//! What the tests against golden files share: the file reader, the thinning rule and the tolerance.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use crate::{loading::values, seeded::seeded};

/// Largest accepted difference, relative to the largest value of the expected tensor. Both sides compute in `f32` and sum in
/// other orders, which through some tens of layers shows in the fifth digit; a wrong index or epsilon shows in the third.
pub(crate) const TOLERANCE: f32 = 1e-4;

/// A file of expected `f32` tensors under `fixtures/`.
pub(crate) struct Golden {
    tensors: BTreeMap<String, Vec<f32>>,
    /// Of 8-bit tensors: shape and values.
    bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let bytes = file.iter().filter(|(_, view)| view.dtype() == Dtype::U8);
        let bytes =
            bytes.map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.data().to_vec()))).collect();
        let tensors = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32).map(|(name, view)| {
            let numbers = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            (name.to_owned(), numbers.collect())
        });
        Self { tensors: tensors.collect(), bytes }
    }

    /// The values of an `f32` tensor.
    pub(crate) fn numbers(&self, name: &str) -> &[f32] {
        self.tensors.get(name).unwrap_or_else(|| panic!("golden tensor `{name}` is missing"))
    }

    /// Shape and values of an 8-bit tensor.
    pub(crate) fn bytes(&self, name: &str) -> (&[usize], &[u8]) {
        let (shape, values) = self.bytes.get(name).unwrap_or_else(|| panic!("golden tensor `{name}` is missing"));
        (shape, values)
    }

    /// Compares `found`, thinned as `parity/subsample.py` thins, with the tensor `name`; returns the relative difference.
    pub(crate) fn check<const D: usize>(&self, name: &str, found: Tensor<D>) -> f32 {
        let expected = self.tensors.get(name).unwrap_or_else(|| panic!("golden tensor `{name}` is missing"));
        let found = subsample(&values(found));
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let difference = found.iter().zip(expected).fold(0.0_f32, |most, (a, b)| {
            assert!(a.is_finite(), "{name}: not finite");
            most.max((a - b).abs())
        });
        let relative = difference / largest;
        assert!(relative <= TOLERANCE, "{name}: relative difference {relative}, allowed {TOLERANCE}");
        relative
    }
}

pub(crate) fn subsample(values: &[f32]) -> Vec<f32> {
    values.iter().copied().step_by((values.len() / 2048).max(1) | 1).collect()
}

/// The input maker of `parity/subsample.py`.
pub(crate) fn network_input<const D: usize>(key: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let numbers = seeded(key, &[shape.iter().product()]).into_iter().map(|value| 20.0 * value).collect();
    Tensor::from_data(TensorData::new::<f32, _>(numbers, shape), device)
}
