//! Label images of three dimensions.

use crate::{Error, Labels, Result};

/// A stack of label images of one size, `[D, H, W]`, row-major; 0 is background, an id means the same object in every plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelStack {
    size: [u32; 3],
    data: Vec<u32>,
}

impl LabelStack {
    /// Takes row-major ids, `[D, H, W]`.
    ///
    /// # Errors
    /// `Shape` when the length is not `d * h * w`.
    pub fn from_vec(size: [u32; 3], data: Vec<u32>) -> Result<Self> {
        let expected = size.iter().try_fold(1_usize, |product, &side| product.checked_mul(side as usize));
        if expected != Some(data.len()) {
            return Err(Error::shape("label stack", format!("the pixels of {size:?}"), format!("{}", data.len())));
        }
        Ok(Self { size, data })
    }

    /// `[d, h, w]`.
    pub fn size(&self) -> [u32; 3] {
        self.size
    }

    /// Row-major ids, `[D, H, W]`.
    pub fn as_slice(&self) -> &[u32] {
        &self.data
    }

    /// Takes the ids out, `[D, H, W]`.
    pub fn into_vec(self) -> Vec<u32> {
        self.data
    }
}

impl From<Labels> for LabelStack {
    /// A stack of one plane.
    fn from(labels: Labels) -> Self {
        let [h, w] = labels.size();
        Self { size: [1, h, w], data: labels.into_vec() }
    }
}
