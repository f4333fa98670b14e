//! Against `fixtures/statistics.json`, written by `parity/significance.py` with scipy and statsmodels.

use std::path::Path;

use cytomask_eval::statistics::{
    Alternative, NullDistribution, WilcoxonOptions, ZeroMethod, benjamini_hochberg, bootstrap_mean, chi_squared_sf,
    cliffs_delta, friedman, hodges_lehmann, holm, normal_cdf, studentized_range_quantile, wilcoxon,
};
use serde_json::Value;

/// Sums in another order and another implementation of the error function; nothing else.
const TOLERANCE: f64 = 1e-12;

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/statistics.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn cases<'a>(fixture: &'a Value, name: &str) -> &'a [Value] {
    fixture[name].as_array().unwrap()
}

#[track_caller]
fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{what}: {found} {expected}");
}

#[test]
fn wilcoxon_equals_scipy() {
    let fixture = fixture();
    let mut undefined = 0;
    for case in cases(&fixture, "wilcoxon") {
        let differences = floats(&fixture["samples"][case["name"].as_str().unwrap()]);
        let options = WilcoxonOptions {
            zeros: match case["zero_method"].as_str().unwrap() {
                "wilcox" => ZeroMethod::LeaveOut,
                "pratt" => ZeroMethod::Pratt,
                _ => ZeroMethod::Split,
            },
            alternative: match case["alternative"].as_str().unwrap() {
                "greater" => Alternative::Greater,
                "less" => Alternative::Less,
                _ => Alternative::TwoSided,
            },
            null: match case["method"].as_str().unwrap() {
                "exact" => NullDistribution::Exact,
                "asymptotic" => NullDistribution::Normal,
                _ => NullDistribution::Auto,
            },
            continuity_correction: case["correction"].as_bool().unwrap(),
        };
        let found = wilcoxon(&differences, &options).unwrap();
        let what = format!("{} {options:?}", case["name"]);
        close(found.statistic, &case["statistic"], &what);
        if found.all_zero {
            // Not always a number with scipy; here no difference is no evidence, whatever the options.
            undefined += usize::from(case["p"].is_null());
            assert_eq!(found.p, 1.0, "{what}");
            continue;
        }
        close(found.p, &case["p"], &what);
        if !case["z"].is_null() {
            close(found.z.unwrap(), &case["z"], &what);
        }
    }
    assert!(undefined > 0);
}

#[test]
fn corrections_equal_statsmodels() {
    for case in cases(&fixture(), "corrections") {
        let p = floats(&case["p"]);
        for (found, expected) in [(holm(&p), &case["holm"]), (benjamini_hochberg(&p), &case["benjamini_hochberg"])] {
            for (found, expected) in found.unwrap().into_iter().zip(expected.as_array().unwrap()) {
                close(found, expected, &format!("{p:?}"));
            }
        }
    }
}

#[test]
fn friedman_equals_scipy() {
    for case in cases(&fixture(), "friedman") {
        let scores: Vec<Vec<f64>> = case["scores"].as_array().unwrap().iter().map(floats).collect();
        let found = friedman(&scores).unwrap();
        close(found.statistic, &case["statistic"], "statistic");
        close(found.p, &case["p"], "p");
        for (found, expected) in found.average_ranks.into_iter().zip(case["average_ranks"].as_array().unwrap()) {
            close(found, expected, "rank");
        }
    }
}

#[test]
fn distributions_equal_scipy() {
    let fixture = fixture();
    for case in cases(&fixture, "normal") {
        close(normal_cdf(case["z"].as_f64().unwrap()), &case["cdf"], "normal");
    }
    for case in cases(&fixture, "chi_squared") {
        let degrees = case["degrees"].as_u64().unwrap() as usize;
        close(chi_squared_sf(case["x"].as_f64().unwrap(), degrees), &case["sf"], &case.to_string());
    }
    for case in cases(&fixture, "studentized_range") {
        let groups = case["groups"].as_u64().unwrap() as usize;
        let found = studentized_range_quantile(case["probability"].as_f64().unwrap(), groups);
        // scipy integrates and searches to about this.
        assert!((found - case["q"].as_f64().unwrap()).abs() < 1e-8, "{found} {case}");
    }
}

#[test]
fn effects_equal_the_plain_definitions() {
    let fixture = fixture();
    for case in cases(&fixture, "cliffs_delta") {
        close(cliffs_delta(&floats(&case["a"]), &floats(&case["b"])).unwrap(), &case["delta"], "delta");
    }
    for case in cases(&fixture, "hodges_lehmann") {
        let found = hodges_lehmann(&floats(&case["differences"]), 0.95).unwrap();
        for (found, name) in [(found.value, "value"), (found.low, "low"), (found.high, "high")] {
            close(found, &case[name], name);
        }
    }
    for case in cases(&fixture, "bootstrap") {
        let found = bootstrap_mean(&floats(&case["values"]), 0.95, 20_000, 0).unwrap();
        let (low, high) = (case["low"].as_f64().unwrap(), case["high"].as_f64().unwrap());
        // Two draws of 20 000 resamples.
        assert!((found.low - low).abs().max((found.high - high).abs()) < 0.02 * (high - low), "{found:?} {low} {high}");
    }
}
