//! Ranks with ties shared.

/// Ranks from 1 for the smallest value; equal values share the mean of their ranks.
pub fn ascending_ranks(values: &[f64]) -> Vec<f64> {
    ranks_and_ties(values).0
}

/// Ranks, and the sizes of all groups of equal values (1 for a value that stands alone).
pub(super) fn ranks_and_ties(values: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut groups = Vec::new();
    let mut start = 0;
    while start < order.len() {
        // Not by bits: 0 and -0 are equal.
        let same = order[start..].iter().take_while(|&&at| values[at] == values[order[start]]).count();
        let shared = start as f64 + (same as f64 + 1.0) / 2.0;
        for &at in &order[start..start + same] {
            ranks[at] = shared;
        }
        groups.push(same);
        start += same;
    }
    (ranks, groups)
}

/// `sum(t³ − t)` over groups of `t` equal values.
pub(super) fn tie_term(groups: &[usize]) -> f64 {
    groups.iter().map(|&size| (size as f64).powi(3) - size as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        let (ranks, groups) = ranks_and_ties(&[3.0, -0.0, 3.0, 0.0, 7.0, 3.0]);
        assert_eq!(ranks, [4.0, 1.5, 4.0, 1.5, 6.0, 4.0]);
        assert_eq!(groups, [2, 3, 1]);
        assert_eq!(tie_term(&groups), 6.0 + 24.0);
    }
}
