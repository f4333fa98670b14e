//! The distributions p-values are read from.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Probability that a standard normal variable is at most `z`.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// The `z` below which a standard normal variable lies with `probability`; infinite for 0 and 1, NaN outside.
pub fn normal_quantile(probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    if probability > 0.5 {
        // The lower tail keeps its digits where the upper one rounds to 1.
        return -normal_quantile(1.0 - probability);
    }
    if probability == 0.0 {
        return f64::NEG_INFINITY;
    }
    bisect(-40.0, 0.0, |z| normal_cdf(z) < probability)
}

/// Probability that a chi-squared variable with `degrees` ≥ 1 of freedom exceeds `x`.
///
/// For whole degrees the incomplete gamma function is a finite sum (Abramowitz & Stegun 26.4.4 and 26.4.5).
pub fn chi_squared_sf(x: f64, degrees: usize) -> f64 {
    if x.is_nan() || degrees == 0 {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    let half = x / 2.0;
    let (mut sum, mut term, divisor) = if degrees.is_multiple_of(2) {
        (0.0, (-half).exp(), 1.0)
    } else {
        (libm::erfc(half.sqrt()), 2.0 * (half / PI).sqrt() * (-half).exp(), 1.5)
    };
    for index in 0..degrees / 2 {
        sum += term;
        term *= half / (divisor + index as f64);
    }
    sum.min(1.0)
}

/// Probability that the range of `groups` ≥ 2 independent standard normal variables exceeds `q`: the studentized range with
/// infinitely many degrees of freedom.
pub fn studentized_range_sf(q: f64, groups: usize) -> f64 {
    if q.is_nan() || groups < 2 {
        return f64::NAN;
    }
    if q <= 0.0 {
        return 1.0;
    }
    // The smallest of the variables lies at z, the others within q above it. The trapezoid rule is exact to rounding for functions
    // that vanish this smoothly at both ends.
    const STEP: f64 = 1.0 / 64.0;
    let (low, high) = (-9.0 - q.min(30.0), 9.0);
    let points = ((high - low) / STEP) as usize;
    let others = (groups - 1) as i32;
    let inside: f64 = (0..=points)
        .map(|index| {
            let z = low + index as f64 * STEP;
            let density = (-0.5 * z * z).exp() / (2.0 * PI).sqrt();
            density * (normal_cdf(z + q) - normal_cdf(z)).powi(others)
        })
        .sum();
    (1.0 - groups as f64 * inside * STEP).clamp(0.0, 1.0)
}

/// The `q` that the range of `groups` ≥ 2 standard normal variables stays below with `probability`.
pub fn studentized_range_quantile(probability: f64, groups: usize) -> f64 {
    if !(0.0..1.0).contains(&probability) || groups < 2 {
        return f64::NAN;
    }
    bisect(0.0, 100.0, |q| 1.0 - studentized_range_sf(q, groups) < probability)
}

/// Where `below` turns from true to false between `low` and `high`, to the last bit.
fn bisect(mut low: f64, mut high: f64, below: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn well_known_values() {
        close(normal_cdf(1.959_963_984_540_054), 0.975);
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(0.5), 0.0);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        // One degree is a squared normal variable, two are an exponential one.
        close(chi_squared_sf(1.44, 1), 2.0 * normal_cdf(-1.2));
        close(chi_squared_sf(3.0, 2), (-1.5_f64).exp());
        assert_eq!(chi_squared_sf(0.0, 3), 1.0);
    }

    #[test]
    fn the_range_of_two_is_a_difference() {
        for q in [0.1, 1.0, 2.77, 5.0] {
            close(studentized_range_sf(q, 2), 2.0 * normal_cdf(-q / std::f64::consts::SQRT_2));
        }
        assert!(normal_quantile(f64::NAN).is_nan() && studentized_range_sf(1.0, 1).is_nan());
    }
}
