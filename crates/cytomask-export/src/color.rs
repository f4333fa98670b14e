//! One colour for each id.

/// A bright colour; steps of the golden ratio keep successive ids far apart.
pub fn of_id(id: u32) -> [u8; 3] {
    let turn = (f64::from(id) * 0.618_033_988_749_895).fract() * 6.0;
    let part = |offset: f64| {
        let position = (turn + offset).rem_euclid(6.0);
        let level = (position - 3.0).abs() - 1.0;
        (60.0 + 195.0 * level.clamp(0.0, 1.0)) as u8
    };
    [part(0.0), part(4.0), part(2.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_ids_look_unlike() {
        for id in 1..100 {
            let difference: u32 = of_id(id).iter().zip(of_id(id + 1)).map(|(&a, b)| u32::from(a.abs_diff(b))).sum();
            assert!(difference > 100, "{id}");
        }
    }
}
