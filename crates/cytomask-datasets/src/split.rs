//! Which items belong to a split, and scikit-learn's way of drawing them.

use crate::table::{SplitName, Take};

/// Our seed where upstream has none, and PUMA's first.
pub(crate) const SEED: u32 = 42;

impl Take {
    /// Positions of the chosen items of a list of names, ascending.
    pub(crate) fn positions(self, names: &[&str]) -> Vec<usize> {
        let count = names.len();
        let mut chosen: Vec<usize> = match self {
            Take::All => (0..count).collect(),
            Take::First(limit) => (0..count.min(limit)).collect(),
            Take::From(start) => (start.min(count)..count).collect(),
            Take::Last(limit) => (count.saturating_sub(limit)..count).collect(),
            Take::Drawn(split) => {
                let (rest, test) = train_test_split(count, 0.2, SEED);
                match split {
                    SplitName::Test => test,
                    SplitName::Val => {
                        train_test_split(rest.len(), 0.15, SEED).1.into_iter().map(|at| rest[at]).collect()
                    }
                }
            }
            Take::FifthOfEach(beginnings) => beginnings
                .iter()
                .flat_map(|beginning| {
                    let own: Vec<usize> = (0..count).filter(|&at| names[at].starts_with(beginning)).collect();
                    let order = Twister::new(SEED).permutation(own.len());
                    order.into_iter().take(own.len() / 5).map(move |at| own[at]).collect::<Vec<_>>()
                })
                .collect(),
        };
        chosen.sort_unstable();
        chosen
    }

    /// Whether the item at `index` is chosen, and whether any later one can be; for lists whose length is not known yet.
    pub(crate) fn streams(self, index: usize) -> (bool, bool) {
        match self {
            Take::First(limit) => (index < limit, index + 1 < limit),
            Take::From(start) => (index >= start, true),
            _ => (true, true),
        }
    }
}

/// `sklearn.model_selection.train_test_split(range(count), test_size=…, random_state=seed)`: positions of the two parts, in its
/// order.
pub(crate) fn train_test_split(count: usize, test_size: f64, seed: u32) -> (Vec<usize>, Vec<usize>) {
    let test_count = (test_size * count as f64).ceil() as usize;
    let mut order = Twister::new(seed).permutation(count);
    let train = order.split_off(test_count.min(count));
    (train, order)
}

/// NumPy's legacy generator: MT19937 (Matsumoto & Nishimura 1998).
struct Twister {
    state: [u32; 624],
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for at in 1..624 {
            let before = state[at - 1];
            state[at] = 1_812_433_253_u32.wrapping_mul(before ^ before >> 30).wrapping_add(at as u32);
        }
        Self { state, next: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for at in 0..624 {
                let joined = self.state[at] & 0x8000_0000 | self.state[(at + 1) % 624] & 0x7FFF_FFFF;
                let odd = if joined & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[at] = self.state[(at + 397) % 624] ^ joined >> 1 ^ odd;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9D2C_5680;
        word ^= word << 15 & 0xEFC6_0000;
        word ^ word >> 18
    }

    /// `RandomState.permutation`: Fisher–Yates from the end; numbers above the bound are drawn again after masking.
    fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let mask = u32::MAX >> (last as u32).leading_zeros();
            let at = loop {
                let at = (self.word() & mask) as usize;
                if at <= last {
                    break at;
                }
            };
            order.swap(last, at);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut twister = Twister::new(5489);
        // The ten thousandth number of the reference implementation's default seed, as the C++ standard states it.
        assert_eq!((0..10_000).map(|_| twister.word()).last(), Some(4_123_659_995));
    }

    #[test]
    fn drawn_parts_are_scikit_learns() {
        // scikit-learn 1.9.1: train_test_split(list(range(n)), test_size=0.2, random_state=42), and of the first part again 0.15.
        for (count, test, val) in [
            (10, vec![8, 1], vec![0, 4]),
            (31, vec![27, 15, 23, 17, 8, 9, 29], vec![22, 30, 24, 7]),
            (50, vec![13, 39, 30, 45, 17, 48, 26, 25, 32, 19], vec![5, 44, 0, 43, 3, 24]),
        ] {
            let (rest, found) = train_test_split(count, 0.2, 42);
            assert_eq!(found, test);
            let found: Vec<usize> = train_test_split(rest.len(), 0.15, 42).1.into_iter().map(|at| rest[at]).collect();
            assert_eq!(found, val);
        }
    }

    #[test]
    fn parts_of_a_list() {
        let names: Vec<String> = (0..10).map(|at| format!("{}{at}", if at < 6 { "a" } else { "b" })).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(Take::First(3).positions(&names), [0, 1, 2]);
        assert_eq!(Take::From(8).positions(&names), [8, 9]);
        assert_eq!(Take::From(80).positions(&names), [] as [usize; 0]);
        assert_eq!(Take::Last(2).positions(&names), [8, 9]);
        let fifth = Take::FifthOfEach(&["a", "b"]).positions(&names);
        assert_eq!(fifth.len(), 1);
        assert!(fifth[0] < 6);
        assert_eq!(Take::First(2).streams(1), (true, false));
        assert_eq!(Take::From(2).streams(1), (false, true));
    }
}
