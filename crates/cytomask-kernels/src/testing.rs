//! What tests of several loops share.

/// Values in ±1 that do not repeat soon.
pub(crate) fn wave(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 37 + seed * 101) % 97) as f32 / 48.0 - 1.0).collect()
}

/// Equal within 2e-5 of the largest value.
pub(crate) fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < 2e-5 * most, "{what} at {index}: {found}, expected {expected}");
    }
}
