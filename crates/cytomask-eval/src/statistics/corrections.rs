//! P-values of many comparisons, raised so that chance findings stay as rare as in one.

use crate::{Error, ErrorKind, Result};

/// Holm's step-down correction: with these p-values the chance of even one false finding among all is at most alpha.
///
/// # Errors
/// `Value` when a p-value is not between 0 and 1.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>> {
    let order = ascending(p_values)?;
    let mut adjusted = vec![0.0; p_values.len()];
    let mut highest = 0.0_f64;
    for (done, &at) in order.iter().enumerate() {
        highest = highest.max(p_values[at] * (order.len() - done) as f64);
        adjusted[at] = highest.min(1.0);
    }
    Ok(adjusted)
}

/// Benjamini and Hochberg's step-up correction: with these p-values the expected share of false findings is at most alpha.
///
/// # Errors
/// `Value` when a p-value is not between 0 and 1.
pub fn benjamini_hochberg(p_values: &[f64]) -> Result<Vec<f64>> {
    let order = ascending(p_values)?;
    let mut adjusted = vec![0.0; p_values.len()];
    let mut lowest = 1.0_f64;
    for (below, &at) in order.iter().enumerate().rev() {
        lowest = lowest.min(p_values[at] * order.len() as f64 / (below + 1) as f64);
        adjusted[at] = lowest;
    }
    Ok(adjusted)
}

fn ascending(p_values: &[f64]) -> Result<Vec<usize>> {
    if let Some(wrong) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::new(ErrorKind::Value, format!("p-values: expected numbers from 0 to 1, found {wrong}")));
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_by_hand() {
        let p = [0.04, 0.01, 0.03];
        assert_eq!(holm(&p).unwrap(), [0.06, 0.03, 0.06]);
        let found = benjamini_hochberg(&p).unwrap();
        for (found, expected) in found.iter().zip([0.04, 0.03, 0.04]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert!(holm(&[]).unwrap().is_empty());
        assert!(holm(&[0.5, f64::NAN]).unwrap_err().to_string().contains("NaN"));
    }
}
