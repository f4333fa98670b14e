//! Optimal assignment on a sparse graph, for graphs of a hundred thousand nodes.
//!
//! Shortest augmenting paths with node prices (Jonker & Volgenant, Computing 38, 1987; Crouse, IEEE Trans. Aerosp. Electron.
//! Syst. 52, 2016), each grown from one left node along existing edges only, so that a search stays within the connected group
//! around it and mostly ends after a few nodes. A left node may also stay alone, at no gain: the graph need not have a complete
//! assignment. Weights are whole numbers, so that no rounding can send a search in circles.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What makes an assignment better than another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// More pairs of at least this score; of equally many, the higher sum of scores, of all pairs.
    MostPairsFrom(f64),
    /// The higher sum of scores.
    HighestSum,
}

/// An edge `(left, right, score)`; scores lie above 0 and not above 1.
pub(crate) type Edge = (usize, usize, f64);

/// Scores are told apart down to 2⁻⁴⁰, about 10⁻¹².
const SCORE_UNIT: f64 = (1_u64 << 40) as f64;

/// A pair that counts weighs more than all scores of 2³² pairs together.
const PAIR: i128 = 1 << 80;

impl Goal {
    fn weight(self, score: f64) -> i128 {
        let counts = match self {
            Self::MostPairsFrom(least) => score >= least,
            Self::HighestSum => false,
        };
        let score = ((score * SCORE_UNIT).round() as i128).max(1);
        if counts { PAIR + score } else { score }
    }
}

/// Chooses edges so that no node has two and `goal` is reached. Returns indices of edges, ascending.
pub(crate) fn assign(lefts: usize, rights: usize, edges: &[Edge], goal: Goal) -> Vec<usize> {
    // An edge whose ends have no other is taken as it is: at IoU thresholds above 0.5 these are all there is.
    let (mut degree_left, mut degree_right) = (vec![0_u32; lefts], vec![0_u32; rights]);
    for &(left, right, _) in edges {
        degree_left[left] += 1;
        degree_right[right] += 1;
    }
    let is_alone = |&(left, right, _): &Edge| degree_left[left] == 1 && degree_right[right] == 1;
    let mut chosen: Vec<usize> = (0..edges.len()).filter(|&edge| is_alone(&edges[edge])).collect();
    if chosen.len() < edges.len() {
        let mut of_left: Vec<Vec<usize>> = vec![Vec::new(); lefts];
        for (index, edge) in edges.iter().enumerate().filter(|(_, edge)| !is_alone(edge)) {
            of_left[edge.0].push(index);
        }
        chosen.extend(Search::new(lefts, rights, edges, goal).run(&of_left));
        chosen.sort_unstable();
    }
    chosen
}

/// Where a path ends.
#[derive(Clone, Copy)]
enum End {
    /// This left node stays alone (again).
    Alone(usize),
    /// Along this edge to a free right node.
    Free(usize),
}

/// The state of the assignment. Costs are negative weights; an edge's cost less the prices of its ends is never negative.
struct Search<'a> {
    edges: &'a [Edge],
    costs: Vec<i128>,
    price_left: Vec<i128>,
    price_right: Vec<i128>,
    edge_of_left: Vec<Option<usize>>,
    edge_of_right: Vec<Option<usize>>,
    /// Of the path to a right node in the current search: its cost and last edge.
    reached: Vec<Option<(i128, usize)>>,
    is_settled: Vec<bool>,
}

impl<'a> Search<'a> {
    fn new(lefts: usize, rights: usize, edges: &'a [Edge], goal: Goal) -> Self {
        Self {
            edges,
            costs: edges.iter().map(|edge| -goal.weight(edge.2)).collect(),
            price_left: vec![0; lefts],
            price_right: vec![0; rights],
            edge_of_left: vec![None; lefts],
            edge_of_right: vec![None; rights],
            reached: vec![None; rights],
            is_settled: vec![false; rights],
        }
    }

    fn run(mut self, of_left: &[Vec<usize>]) -> Vec<usize> {
        for start in (0..of_left.len()).filter(|&left| !of_left[left].is_empty()) {
            self.place(start, of_left);
        }
        self.edge_of_left.into_iter().flatten().collect()
    }

    /// Finds the cheapest way to give `start` a partner, or to leave it or another left node without, and takes it.
    fn place(&mut self, start: usize, of_left: &[Vec<usize>]) {
        let mut queue: BinaryHeap<Reverse<(i128, usize)>> = BinaryHeap::new();
        let mut touched: Vec<usize> = Vec::new();
        let mut lefts: Vec<(usize, i128)> = Vec::new();
        let mut settled: Vec<(usize, i128)> = Vec::new();
        let (mut left, mut so_far) = (start, 0_i128);
        let mut best = (i128::MAX, End::Alone(start));
        loop {
            lefts.push((left, so_far));
            let base = so_far - self.price_left[left];
            if base < best.0 {
                best = (base, End::Alone(left));
            }
            for &edge in &of_left[left] {
                let right = self.edges[edge].1;
                if self.is_settled[right] {
                    continue;
                }
                let cost = base + self.costs[edge] - self.price_right[right];
                if self.edge_of_right[right].is_none() {
                    if cost < best.0 {
                        best = (cost, End::Free(edge));
                    }
                } else if self.reached[right].is_none_or(|(known, _)| cost < known) {
                    if self.reached[right].is_none() {
                        touched.push(right);
                    }
                    self.reached[right] = Some((cost, edge));
                    queue.push(Reverse((cost, right)));
                }
            }
            let next = loop {
                match queue.pop() {
                    // An outdated entry of a node reached more cheaply since.
                    Some(Reverse((_, right))) if self.is_settled[right] => {}
                    other => break other,
                }
            };
            let Some(Reverse((cost, right))) = next.filter(|Reverse((cost, _))| *cost < best.0) else { break };
            self.is_settled[right] = true;
            settled.push((right, cost));
            so_far = cost;
            left = self.edge_of_right[right].map_or(start, |edge| self.edges[edge].0);
        }

        for &(left, entry) in &lefts {
            self.price_left[left] += best.0 - entry;
        }
        for &(right, cost) in &settled {
            self.price_right[right] -= best.0 - cost;
        }
        self.take(start, best.1);
        for right in touched {
            self.reached[right] = None;
            self.is_settled[right] = false;
        }
    }

    /// Hands every right node along the path back to `start` to the left node that reached it.
    fn take(&mut self, start: usize, end: End) {
        let (mut left, mut freed) = match end {
            End::Alone(left) => (left, self.edge_of_left[left].take()),
            End::Free(edge) => {
                let (left, right, _) = self.edges[edge];
                self.edge_of_right[right] = Some(edge);
                (left, self.edge_of_left[left].replace(edge))
            }
        };
        while left != start {
            // Every left node on the path but the first was reached through its partner, which it now gives up.
            let right = freed.map(|edge| self.edges[edge].1);
            let Some((right, (_, edge))) = right.and_then(|right| Some((right, self.reached[right]?))) else { break };
            left = self.edges[edge].0;
            self.edge_of_right[right] = Some(edge);
            freed = self.edge_of_left[left].replace(edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(pairs that count, sum of scores)` of the best of all subsets of edges.
    fn slow(edges: &[Edge], goal: Goal) -> (usize, f64) {
        let mut best = (0, 0.0);
        for subset in 0..1_u32 << edges.len() {
            let taken: Vec<_> =
                (0..edges.len()).filter(|&edge| subset >> edge & 1 == 1).map(|edge| edges[edge]).collect();
            let clash = taken.iter().enumerate().any(|(i, a)| taken[..i].iter().any(|b| a.0 == b.0 || a.1 == b.1));
            let value = value(&taken, goal);
            if !clash && (value.0 > best.0 || (value.0 == best.0 && value.1 > best.1)) {
                best = value;
            }
        }
        best
    }

    fn value(taken: &[Edge], goal: Goal) -> (usize, f64) {
        let counts = |edge: &&Edge| match goal {
            Goal::MostPairsFrom(least) => edge.2 >= least,
            Goal::HighestSum => false,
        };
        (taken.iter().filter(counts).count(), taken.iter().map(|edge| edge.2).sum())
    }

    #[test]
    fn paths_find_what_all_subsets_find() {
        let mut state = 11_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let mut edges: Vec<Edge> = Vec::new();
            for _ in 0..random(12) {
                let (left, right) = (random(5) as usize, random(5) as usize);
                if !edges.iter().any(|edge| (edge.0, edge.1) == (left, right)) {
                    edges.push((left, right, 0.05 + random(95) as f64 / 100.0));
                }
            }
            for goal in [Goal::MostPairsFrom(0.0), Goal::MostPairsFrom(0.5), Goal::HighestSum] {
                let chosen = assign(5, 5, &edges, goal);
                let taken: Vec<Edge> = chosen.iter().map(|&edge| edges[edge]).collect();
                let ((pairs, sum), best) = (value(&taken, goal), slow(&edges, goal));
                assert_eq!(pairs, best.0, "{goal:?} {edges:?}");
                assert!((sum - best.1).abs() < 1e-9, "{goal:?} {edges:?}: {sum} {best:?}");
                for (i, a) in taken.iter().enumerate() {
                    assert!(taken[..i].iter().all(|b| a.0 != b.0 && a.1 != b.1));
                }
            }
        }
    }

    #[test]
    fn a_long_chain() {
        // left i – right i (0.3) and left i – right i − 1 (0.7): all n pairs are possible only along the weaker edges.
        let n = 3000;
        let edges: Vec<Edge> =
            (0..n).flat_map(|i| (i > 0).then(|| (i, i - 1, 0.7)).into_iter().chain([(i, i, 0.3)])).collect();
        assert_eq!(assign(n, n, &edges, Goal::MostPairsFrom(0.0)).len(), n);
        assert_eq!(assign(n, n, &edges, Goal::HighestSum).len(), n - 1);
        assert_eq!(assign(n, n, &edges, Goal::MostPairsFrom(0.5)).len(), n - 1);
    }

    #[test]
    fn giving_one_up_can_pay() {
        // Two lefts for one right: the better one has it, whichever comes first.
        for scores in [[0.3, 0.6], [0.6, 0.3]] {
            let edges = [(0, 0, scores[0]), (1, 0, scores[1])];
            let better = usize::from(scores[1] > scores[0]);
            assert_eq!(assign(2, 1, &edges, Goal::HighestSum), [better]);
            assert_eq!(assign(2, 1, &edges, Goal::MostPairsFrom(0.0)), [better]);
        }
    }
}
