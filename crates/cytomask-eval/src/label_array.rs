//! Label images of any dimension, as the metrics see them.

use cytomask_image::{LabelStack, Labels};

use crate::{Error, ErrorKind, Result};

/// Borrowed row-major ids of a label image, 0 for background: `[H, W]`, `[D, H, W]`, or any other shape.
#[derive(Clone, Debug)]
pub struct LabelArray<'a> {
    shape: Vec<usize>,
    ids: &'a [u32],
}

impl<'a> LabelArray<'a> {
    /// Ids of an array of `shape`, slowest axis first.
    ///
    /// # Errors
    /// `Shape` when the number of ids is not the product of `shape`.
    pub fn new(shape: &[usize], ids: &'a [u32]) -> Result<Self> {
        let expected = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        if expected != Some(ids.len()) {
            let message = format!("label image: expected the ids of {}, found {}", sides(shape), ids.len());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        Ok(Self { shape: shape.to_vec(), ids })
    }

    /// Sides, slowest axis first: `[h, w]` or `[d, h, w]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Row-major ids.
    pub fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// `[d, h, w]`; an image has a depth of 1.
    ///
    /// # Errors
    /// `Unsupported` for other than two or three dimensions.
    pub(crate) fn depth_height_width(&self, what: &str) -> Result<[usize; 3]> {
        match self.shape[..] {
            [h, w] => Ok([1, h, w]),
            [d, h, w] => Ok([d, h, w]),
            _ => {
                let message = format!("{what}: expected labels of 2 or 3 dimensions, found {}", self.shape.len());
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }
}

impl<'a> From<&'a Labels> for LabelArray<'a> {
    fn from(labels: &'a Labels) -> Self {
        Self { shape: labels.size().map(|side| side as usize).to_vec(), ids: labels.as_slice() }
    }
}

impl<'a> From<&'a LabelStack> for LabelArray<'a> {
    fn from(labels: &'a LabelStack) -> Self {
        Self { shape: labels.size().map(|side| side as usize).to_vec(), ids: labels.as_slice() }
    }
}

impl<'a> From<&LabelArray<'a>> for LabelArray<'a> {
    fn from(labels: &LabelArray<'a>) -> Self {
        labels.clone()
    }
}

/// `3 × 4`.
fn sides(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ")
}

/// Two label images are compared pixel by pixel.
pub(crate) fn same_shape(truth: &LabelArray<'_>, predicted: &LabelArray<'_>) -> Result<()> {
    if truth.shape == predicted.shape {
        return Ok(());
    }
    let message = format!(
        "predicted labels: expected the true labels' size {}, found {}",
        sides(&truth.shape),
        sides(&predicted.shape)
    );
    Err(Error::new(ErrorKind::Shape, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_ids_must_be_the_product_of_the_sides() {
        assert_eq!(LabelArray::new(&[2, 3, 1, 2], &[0; 12]).unwrap().shape(), [2, 3, 1, 2]);
        let error = LabelArray::new(&[2, 3], &[0; 5]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert_eq!(error.to_string(), "label image: expected the ids of 2 × 3, found 5");
        assert!(LabelArray::new(&[usize::MAX, 2], &[]).is_err());
    }
}
