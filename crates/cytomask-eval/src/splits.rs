//! Objects cut apart and objects run together.
//!
//! Two objects belong together when one of them lies in the other with more than half of its pixels, the rule by which the Cell
//! Tracking Challenge finds objects again (Matula et al., PLoS ONE 10, 2015): it finds at most one owner for each object and has no
//! threshold to choose. A predicted object that owns k true ones needs k − 1 cuts, Matula's number of splitting operations; the
//! mirrored count is that of needless cuts. Overlap by IoU, as others count (Caicedo et al., Cytometry A 95, 2019: more than one
//! partner of IoU above 0.1), misses what was cut into more than nine pieces.

use crate::Contingency;

/// Which objects of a pair of images were cut apart or run together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitsAndMerges {
    /// Of each true object, by index in [`Contingency::truth`]: predicted objects that lie in it with more than half of their
    /// pixels.
    pub pieces: Vec<u32>,
    /// Of each predicted object: true objects that lie in it with more than half of their pixels.
    pub swallowed: Vec<u32>,
}

impl SplitsAndMerges {
    /// Needless cuts: pieces beyond the first, summed over the true objects.
    pub fn splits(&self) -> u64 {
        surplus(&self.pieces)
    }

    /// Missing cuts: true objects beyond the first in each predicted object, summed.
    pub fn merges(&self) -> u64 {
        surplus(&self.swallowed)
    }
}

fn surplus(counts: &[u32]) -> u64 {
    counts.iter().map(|&count| u64::from(count.saturating_sub(1))).sum()
}

/// Counts for every object how many of the other image lie in it.
pub fn splits_and_merges(contingency: &Contingency) -> SplitsAndMerges {
    let mut pieces = vec![0; contingency.truth.len()];
    let mut swallowed = vec![0; contingency.predicted.len()];
    for pair in &contingency.shared {
        if 2 * pair.pixels > contingency.predicted[pair.predicted].area_px {
            pieces[pair.truth] += 1;
        }
        if 2 * pair.pixels > contingency.truth[pair.truth].area_px {
            swallowed[pair.predicted] += 1;
        }
    }
    SplitsAndMerges { pieces, swallowed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelArray, contingency};

    #[test]
    fn hand_drawn_cuts() {
        let array = |ids| LabelArray::new(&[14], ids).unwrap();
        // True 1 in three pieces; true 2 and 3 under predicted 9, which reaches exactly half of true 4 and does not own it.
        let truth = [1, 1, 1, 1, 1, 0, 2, 2, 3, 3, 3, 4, 4, 0];
        let predicted = [5, 5, 6, 6, 7, 7, 9, 9, 9, 9, 0, 9, 0, 0];
        let found = splits_and_merges(&contingency(array(&truth), array(&predicted)).unwrap());
        // Predicted 7 lies in true 1 with exactly half of its pixels: not a piece.
        assert_eq!(found.pieces, [2, 0, 0, 0]);
        assert_eq!(found.swallowed, [0, 0, 0, 2]);
        assert_eq!((found.splits(), found.merges()), (1, 1));
    }
}
