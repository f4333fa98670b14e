//! Optimal assignment on a sparse graph: as many pairs as possible, and of those the highest sum of scores.
//!
//! Successive shortest augmenting paths (Kuhn, Naval Res. Logist. Q. 2, 1955, in its network form; Ahuja, Magnanti & Orlin,
//! "Network Flows", 1993, ch. 12), on each connected group of the graph on its own. Groups of one pair, which at IoU thresholds
//! above 0.5 are all there is, need no search.

/// Rounding of sums of scores below this is no improvement; keeps searches from going round in circles.
const IMPROVEMENT: f64 = 1e-12;

/// Chooses edges `(left, right, score)` so that no node has two, their number is the largest possible, and the sum of their
/// scores the largest for that number. Returns indices of edges, ascending.
pub(crate) fn assign(lefts: usize, rights: usize, edges: &[(usize, usize, f64)]) -> Vec<usize> {
    let mut chosen = Vec::new();
    for group in groups(lefts, rights, edges) {
        if let [only] = group[..] {
            chosen.push(only);
        } else {
            chosen.extend(assign_group(&group, edges));
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Edges by connected group.
fn groups(lefts: usize, rights: usize, edges: &[(usize, usize, f64)]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..lefts + rights).collect();
    fn find(parent: &mut [usize], mut node: usize) -> usize {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    }
    for &(left, right, _) in edges {
        let (a, b) = (find(&mut parent, left), find(&mut parent, lefts + right));
        parent[a.max(b)] = a.min(b);
    }
    let mut group_of_root = vec![usize::MAX; lefts + rights];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, &(left, ..)) in edges.iter().enumerate() {
        let root = find(&mut parent, left);
        if group_of_root[root] == usize::MAX {
            group_of_root[root] = groups.len();
            groups.push(Vec::new());
        }
        groups[group_of_root[root]].push(index);
    }
    groups
}

/// Grows the assignment by the path that gains most, until there is none.
fn assign_group(group: &[usize], edges: &[(usize, usize, f64)]) -> Vec<usize> {
    // Nodes of the group, numbered from 0 on each side.
    let side = |pick: fn(&(usize, usize, f64)) -> usize| {
        let mut nodes: Vec<usize> = group.iter().map(|&edge| pick(&edges[edge])).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    };
    let (lefts, rights) = (side(|edge| edge.0), side(|edge| edge.1));
    let local = |nodes: &[usize], node: usize| nodes.partition_point(|&other| other < node);
    let mut of_left: Vec<Vec<(usize, f64, usize)>> = vec![Vec::new(); lefts.len()];
    for &edge in group {
        let (left, right, score) = edges[edge];
        of_left[local(&lefts, left)].push((local(&rights, right), score, edge));
    }

    let mut edge_of_right: Vec<Option<(usize, f64, usize)>> = vec![None; rights.len()]; // (left, score, edge)
    let mut is_free = vec![true; lefts.len()];
    loop {
        // Longest path by score from any free left node: taking an edge adds its score, giving one back subtracts it.
        let mut gain_left: Vec<f64> = is_free.iter().map(|&free| if free { 0.0 } else { f64::NEG_INFINITY }).collect();
        let mut gain_right = vec![f64::NEG_INFINITY; rights.len()];
        let mut came_from = vec![(usize::MAX, 0.0, usize::MAX); rights.len()];
        let mut queue: std::collections::VecDeque<usize> = (0..lefts.len()).filter(|&left| is_free[left]).collect();
        while let Some(left) = queue.pop_front() {
            for &(right, score, edge) in &of_left[left] {
                let gain = gain_left[left] + score;
                if gain <= gain_right[right] + IMPROVEMENT {
                    continue;
                }
                gain_right[right] = gain;
                came_from[right] = (left, score, edge);
                if let Some((holder, held, _)) = edge_of_right[right]
                    && holder != left
                {
                    gain_left[holder] = gain - held;
                    queue.push_back(holder);
                }
            }
        }
        let free_rights = (0..rights.len()).filter(|&right| edge_of_right[right].is_none());
        let end = free_rights.filter(|&right| gain_right[right] > f64::NEG_INFINITY);
        let Some(mut right) = end.max_by(|&a, &b| gain_right[a].total_cmp(&gain_right[b])) else { break };
        // Walk back, handing every right node on the path to the left node that reached it.
        loop {
            let (left, score, edge) = came_from[right];
            let former = (0..rights.len())
                .find(|&other| other != right && edge_of_right[other].is_some_and(|(holder, ..)| holder == left));
            edge_of_right[right] = Some((left, score, edge));
            match former {
                Some(other) => right = other,
                None => {
                    is_free[left] = false;
                    break;
                }
            }
        }
    }
    edge_of_right.into_iter().flatten().map(|(_, _, edge)| edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best of all subsets of edges: `(pairs, sum of scores)`.
    fn slow(edges: &[(usize, usize, f64)]) -> (usize, f64) {
        let mut best = (0, 0.0);
        for subset in 0..1_u32 << edges.len() {
            let taken: Vec<_> =
                (0..edges.len()).filter(|&edge| subset >> edge & 1 == 1).map(|edge| edges[edge]).collect();
            let clash = taken.iter().enumerate().any(|(i, a)| taken[..i].iter().any(|b| a.0 == b.0 || a.1 == b.1));
            let value = (taken.len(), taken.iter().map(|edge| edge.2).sum::<f64>());
            if !clash && (value.0 > best.0 || (value.0 == best.0 && value.1 > best.1)) {
                best = value;
            }
        }
        best
    }

    #[test]
    fn paths_find_what_all_subsets_find() {
        let mut state = 11_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let mut edges: Vec<(usize, usize, f64)> = Vec::new();
            for _ in 0..random(12) {
                let (left, right) = (random(5) as usize, random(5) as usize);
                if !edges.iter().any(|edge| (edge.0, edge.1) == (left, right)) {
                    edges.push((left, right, 0.05 + random(100) as f64 / 100.0));
                }
            }
            let chosen = assign(5, 5, &edges);
            let sum: f64 = chosen.iter().map(|&edge| edges[edge].2).sum();
            let (pairs, best) = slow(&edges);
            assert_eq!(chosen.len(), pairs, "{edges:?}");
            assert!((sum - best).abs() < 1e-9, "{edges:?}: {sum} {best}");
            for (i, &a) in chosen.iter().enumerate() {
                assert!(chosen[..i].iter().all(|&b| edges[a].0 != edges[b].0 && edges[a].1 != edges[b].1));
            }
        }
    }

    #[test]
    fn a_long_chain() {
        // left i – right i (0.3) and left i – right i − 1 (0.6): n pairs are possible only along the weaker edges.
        let n = 300;
        let edges: Vec<(usize, usize, f64)> =
            (0..n).flat_map(|i| (i > 0).then(|| (i, i - 1, 0.6)).into_iter().chain([(i, i, 0.3)])).collect();
        assert_eq!(assign(n, n, &edges).len(), n);
    }
}
