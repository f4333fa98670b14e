//! Large vectors that are handed on instead of being given back to the system.
//!
//! A fresh vector of tens of megabytes is memory the system has to find, zero and map page by page, each time: a tenth of an
//! encoder's time. Results are made in vectors from [`take`]; who consumes one hands it to [`give`].

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values from which on a vector is kept.
const LEAST: usize = 1 << 18;

/// Values kept in all.
const MOST: usize = 1 << 27;

static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<Vec<f32>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vector of `count` values, whatever they are: for results of which every value is written.
pub fn take(count: usize) -> Vec<f32> {
    if count >= LEAST {
        let mut kept = kept();
        // The smallest that is large enough, and not so large that another would miss it.
        let fits = |vector: &Vec<f32>| (count..=count.saturating_mul(2)).contains(&vector.capacity());
        let best =
            kept.iter().enumerate().filter(|(_, vector)| fits(vector)).min_by_key(|(_, vector)| vector.capacity());
        if let Some(index) = best.map(|(index, _)| index) {
            let mut vector = kept.swap_remove(index);
            drop(kept);
            vector.resize(count, 0.0);
            return vector;
        }
    }
    vec![0.0; count]
}

/// Takes a vector that is no longer needed.
pub fn give(vector: Vec<f32>) {
    if vector.capacity() < LEAST || vector.capacity() > MOST {
        return;
    }
    let mut kept = kept();
    let mut all: usize = vector.capacity() + kept.iter().map(Vec::capacity).sum::<usize>();
    kept.push(vector);
    while all > MOST {
        all -= kept.remove(0).capacity();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_used_again() {
        // A size that no other test asks for.
        let count = LEAST + 12_345;
        give(vec![7.0; count + 5]);
        let again = take(count);
        assert_eq!((again.len(), again[0]), (count, 7.0));
        assert_eq!(take(count), vec![0.0; count], "the other one is out");
        assert_eq!(take(3), [0.0; 3]);
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        for _ in 0..3 {
            give(Vec::with_capacity(MOST / 2));
        }
        assert!(kept().iter().map(Vec::capacity).sum::<usize>() <= MOST);
        kept().clear();
    }
}
