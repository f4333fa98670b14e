//! Label images of any program: the formats of `cytomask-image`, and Cellpose's `*_seg.npy`.

use std::path::Path;

use cytomask_image::{LabelStack, Labels};
use cytomask_weights::read_pickled_npy;

use crate::{Error, ErrorKind};

/// How Cellpose names what its interface saves.
const SEG_SUFFIX: &str = "_seg.npy";
/// What is read of it.
const MASKS: &str = "masks";

/// Reads a label image; of a `*_seg.npy` its masks, without executing its pickle.
///
/// # Errors
/// `Image` as [`cytomask_image::read_labels`]; `Weights` for a pickle that cannot be read; `Setting` for masks that are none or a
/// stack.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels, Error> {
    let path = path.as_ref();
    if !is_seg(path) {
        return Ok(cytomask_image::read_labels(path)?);
    }
    let (size, ids) = read_seg(path)?;
    let &[h, w] = size.as_slice() else {
        let message = format!("{}: masks: expected [H, W], found {size:?}", path.display());
        return Err(Error::new(ErrorKind::Image, message));
    };
    Ok(Labels::from_vec([h, w], ids)?)
}

/// Reads a stack of label images; see [`read_labels`].
///
/// # Errors
/// As [`read_labels`].
pub fn read_label_stack(path: impl AsRef<Path>) -> Result<LabelStack, Error> {
    let path = path.as_ref();
    if !is_seg(path) {
        return Ok(cytomask_image::read_label_stack(path)?);
    }
    let (size, ids) = read_seg(path)?;
    let size = match size.as_slice() {
        &[h, w] => [1, h, w],
        &[z, h, w] => [z, h, w],
        other => {
            let message = format!("{}: masks: expected [H, W] or [Z, H, W], found {other:?}", path.display());
            return Err(Error::new(ErrorKind::Image, message));
        }
    };
    Ok(LabelStack::from_vec(size, ids)?)
}

fn is_seg(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SEG_SUFFIX))
}

fn read_seg(path: &Path) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let wrong = |what: &str| Error::new(ErrorKind::Image, format!("{}: {what}", path.display()));
    let mut held = read_pickled_npy(path, &[MASKS])?;
    let masks = held.remove(MASKS).ok_or_else(|| wrong("no `masks` in it: expected what Cellpose saves"))?;
    let id = |&value: &f64| {
        let whole = value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
        whole.then_some(value as u32)
    };
    let ids = masks.values.iter().map(id).collect::<Option<Vec<u32>>>();
    let size = masks.shape.iter().map(|&side| u32::try_from(side).ok()).collect::<Option<Vec<u32>>>();
    match (size, ids) {
        (Some(size), Some(ids)) => Ok((size, ids)),
        _ => Err(wrong("masks: expected whole numbers from 0 to 4294967295")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_a_seg_file_are_labels() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/cells_seg.npy");
        let labels = read_labels(&path).unwrap();
        assert_eq!((labels.size(), labels.max_id(), labels.at(2, 0)), ([3, 4], 3, 3));
        assert_eq!(read_label_stack(&path).unwrap().size(), [1, 3, 4]);
        let missing = read_labels("none_seg.npy").unwrap_err();
        assert!(missing.to_string().contains("none_seg.npy"), "{missing}");
    }
}
