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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_ids_must_be_that_of_the_pixels() {
        assert_eq!(LabelStack::from_vec([2, 1, 3], vec![4; 6]).unwrap().as_slice(), [4; 6]);
        let error = LabelStack::from_vec([2, 1, 3], vec![4; 5]).unwrap_err();
        assert_eq!(error.to_string(), "label stack: expected the pixels of [2, 1, 3], found 5");
        assert!(LabelStack::from_vec([u32::MAX; 3], Vec::new()).is_err());
    }

    #[test]
    fn an_image_is_a_stack_of_one_plane() {
        let labels = Labels::from_vec([2, 3], vec![0, 1, 2, 3, 4, 5]).unwrap();
        let stack = LabelStack::from(labels.clone());
        assert_eq!((stack.size(), stack.into_vec()), ([1, 2, 3], labels.into_vec()));
    }
}
