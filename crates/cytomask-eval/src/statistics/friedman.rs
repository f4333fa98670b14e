//! Many methods on the same images: Friedman's test, and what Nemenyi's test can tell apart afterwards.

use super::distributions::{chi_squared_sf, studentized_range_quantile, studentized_range_sf};
use super::rank::{ranks_and_ties, tie_term};
use super::{check_sample, check_share};
use crate::{Error, ErrorKind, Result};

/// Friedman's test of whether all methods are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Friedman {
    /// Chi-squared statistic, corrected for ties.
    pub statistic: f64,
    /// Methods − 1.
    pub degrees: usize,
    /// Chance of a statistic this large if all methods were alike; 1 when all tie on every image.
    pub p: f64,
    /// See [`average_ranks`].
    pub average_ranks: Vec<f64>,
}

/// Friedman's test over `scores`, one row an image, one column a method.
///
/// # Errors
/// `Shape` for rows of different lengths, `Value` for fewer than two methods, no images, or values that are no numbers.
pub fn friedman(scores: &[Vec<f64>]) -> Result<Friedman> {
    let (sums, ties) = rank_sums(scores)?;
    let (images, methods) = (scores.len() as f64, sums.len() as f64);
    let square_sum: f64 = sums.iter().map(|sum| sum * sum).sum();
    let without_ties = 1.0 - ties / (methods * (methods * methods - 1.0) * images);
    let statistic =
        (12.0 / (methods * images * (methods + 1.0)) * square_sum - 3.0 * images * (methods + 1.0)) / without_ties;
    // Ties everywhere leave 0 / 0.
    let statistic = if without_ties > 0.0 { statistic.max(0.0) } else { 0.0 };
    Ok(Friedman {
        statistic,
        degrees: sums.len() - 1,
        p: chi_squared_sf(statistic, sums.len() - 1),
        average_ranks: sums.iter().map(|sum| sum / images).collect(),
    })
}

/// Mean rank of each method over the images; 1 is the highest score, equal scores share their ranks.
///
/// # Errors
/// As [`friedman`].
pub fn average_ranks(scores: &[Vec<f64>]) -> Result<Vec<f64>> {
    Ok(rank_sums(scores)?.0.iter().map(|sum| sum / scores.len() as f64).collect())
}

fn rank_sums(scores: &[Vec<f64>]) -> Result<(Vec<f64>, f64)> {
    let methods = scores.first().map_or(0, Vec::len);
    if methods < 2 {
        let message = format!("scores: expected at least 1 image and 2 methods, found {} and {methods}", scores.len());
        return Err(Error::new(ErrorKind::Value, message));
    }
    let mut sums = vec![0.0; methods];
    let mut ties = 0.0;
    for (image, row) in scores.iter().enumerate() {
        if row.len() != methods {
            let message = format!("scores of image {image}: expected {methods} methods, found {}", row.len());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        check_sample("scores", row)?;
        let falling: Vec<f64> = row.iter().map(|score| -score).collect();
        let (ranks, groups) = ranks_and_ties(&falling);
        sums.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += rank);
        ties += tie_term(&groups);
    }
    Ok((sums, ties))
}

/// Nemenyi's critical difference: average ranks further apart differ at level `alpha`, all pairs taken together.
///
/// # Errors
/// `Value` for an alpha outside 0 to 1, fewer than two methods or no images.
pub fn critical_difference(methods: usize, images: usize, alpha: f64) -> Result<f64> {
    check_share("alpha", alpha)?;
    if methods < 2 || images == 0 {
        let message = format!("critical difference: expected 2 methods and 1 image, found {methods} and {images}");
        return Err(Error::new(ErrorKind::Value, message));
    }
    let quantile = studentized_range_quantile(1.0 - alpha, methods) / std::f64::consts::SQRT_2;
    Ok(quantile * rank_error(methods, images))
}

/// Nemenyi's p-value of two average ranks.
pub fn nemenyi_p(rank_a: f64, rank_b: f64, methods: usize, images: usize) -> f64 {
    let q = (rank_a - rank_b).abs() / rank_error(methods, images) * std::f64::consts::SQRT_2;
    studentized_range_sf(q, methods)
}

fn rank_error(methods: usize, images: usize) -> f64 {
    (methods as f64 * (methods as f64 + 1.0) / (6.0 * images as f64)).sqrt()
}

/// The bars of a critical-difference diagram: the largest groups of methods, as indices by rising rank, of which no two lie
/// further apart than `difference`. Groups of one are left out.
pub fn cliques(average_ranks: &[f64], difference: f64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..average_ranks.len()).collect();
    order.sort_by(|&a, &b| average_ranks[a].total_cmp(&average_ranks[b]));
    let mut found = Vec::new();
    let mut covered = 0;
    for start in 0..order.len() {
        let first = average_ranks[order[start]];
        let end = start + order[start..].iter().take_while(|&&at| average_ranks[at] - first <= difference).count();
        if end > covered && end - start > 1 {
            found.push(order[start..end].to_vec());
            covered = end;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_methods_by_hand() {
        // Always in the same order: the largest statistic there is, n (k − 1).
        let scores = vec![vec![0.1, 0.9, 0.5]; 4];
        let found = friedman(&scores).unwrap();
        assert_eq!((found.statistic, found.degrees), (8.0, 2));
        assert_eq!(found.average_ranks, [3.0, 1.0, 2.0]);
        assert!((found.p - (-4.0_f64).exp()).abs() < 1e-15);
    }

    #[test]
    fn ties_everywhere_are_no_difference() {
        let found = friedman(&[vec![0.5; 3], vec![0.2; 3]]).unwrap();
        assert_eq!((found.statistic, found.p), (0.0, 1.0));
        assert_eq!(found.average_ranks, [2.0; 3]);
    }

    #[test]
    fn wrong_tables_are_named() {
        assert_eq!(friedman(&[vec![0.5, 0.1], vec![0.2]]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(friedman(&[vec![0.5]]).unwrap_err().kind(), ErrorKind::Value);
        assert_eq!(friedman(&[]).unwrap_err().kind(), ErrorKind::Value);
        assert!(friedman(&[vec![0.5, f64::NAN]]).is_err());
        assert!(critical_difference(3, 0, 0.05).is_err());
    }

    #[test]
    fn demsars_example() {
        // Demšar 2006, page 12: 4 methods on 14 data sets, critical difference 1.25 at 0.05.
        assert!((critical_difference(4, 14, 0.05).unwrap() - 1.25).abs() < 0.005);
        assert!((nemenyi_p(1.0, 1.0 + critical_difference(4, 14, 0.05).unwrap(), 4, 14) - 0.05).abs() < 1e-12);
        assert_eq!(cliques(&[3.143, 2.0, 2.893, 1.964], 1.25), [vec![3, 1, 2, 0]]);
        assert_eq!(cliques(&[3.143, 2.0, 2.893, 1.964], 1.0), [vec![3, 1, 2], vec![2, 0]]);
        assert!(cliques(&[1.0, 2.0, 3.0], 0.5).is_empty());
    }
}
