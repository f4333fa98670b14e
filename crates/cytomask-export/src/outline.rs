//! Exact outlines: polygons along the edges of pixels.
//!
//! The corners of pixel `(y, x)` are `(y, x)` and `(y + 1, x + 1)`; filling a polygon gives back the very pixels it was made from.
//! Parts that touch only at a corner are polygons of their own (pixels are joined through edges, "4-connected"), and no ring
//! visits a corner twice, so that the polygons are valid simple features (OGC 06-103r4): a pocket that a ring would close at one
//! corner becomes a hole that touches the ring there.

use crate::objects::{Objects, Run};

/// Corners `[y, x]` of a ring, the first not repeated at the end; successive edges meet at right angles.
pub type Ring = Vec<[u32; 2]>;

/// One part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polygon {
    /// The outer ring. With x to the right and y **down** it runs clockwise; read with y up, as GeoJSON's rule does, it is
    /// counterclockwise.
    pub shell: Ring,
    /// Rings of holes, in the opposite direction.
    pub holes: Vec<Ring>,
}

impl Objects<'_> {
    /// The outline of the object at `index`, in the label image's frame.
    pub fn outline(&self, index: usize) -> Vec<Polygon> {
        outline(self.runs(index))
    }
}

/// The outline of the pixels in `runs` (half-open, sorted by `y`, then `x0`, not touching within a row).
pub fn outline(runs: &[(u32, u32, u32)]) -> Vec<Polygon> {
    let mut edges = Edges::new(runs.len());
    let mut above = Vec::new();
    let mut next_y = 0;
    let mut start = 0;
    for row in runs.chunk_by(|a, b| a.0 == b.0) {
        let y = row[0].0;
        if y > next_y {
            edges.join(next_y, &above, &mut []);
            above.clear();
        }
        let mut below: Vec<Side> = row
            .iter()
            .enumerate()
            .flat_map(|(at, &(_, x0, x1))| [x0, x1].map(|x| Side { x, top: NONE, run: (start + at) as u32 }))
            .collect();
        edges.join(y, &above, &mut below);
        start += row.len();
        above = below;
        next_y = y + 1;
    }
    edges.join(next_y, &above, &mut []);
    edges.into_polygons()
}

const NONE: u32 = u32::MAX;

/// The left or right side of a run: part of a vertical edge that began at node `top`.
#[derive(Clone, Copy)]
struct Side {
    x: u32,
    top: u32,
    run: u32,
}

/// Where an outline turns. Two nodes lie at a corner where two pixels touch diagonally, each belonging to one of them.
struct Node {
    corner: [u32; 2],
    /// The node after this one, with the object on the right-hand side as seen on the screen.
    next: u32,
    /// The other node at this corner.
    twin: u32,
    run: u32,
}

struct Edges {
    nodes: Vec<Node>,
    /// Union–find over runs that share an edge; the root is the smallest.
    parents: Vec<u32>,
}

impl Edges {
    fn new(runs: usize) -> Self {
        Self { nodes: Vec::with_capacity(runs * 2), parents: (0..runs as u32).collect() }
    }

    fn node(&mut self, y: u32, x: u32, run: u32) -> u32 {
        self.nodes.push(Node { corner: [y, x], next: NONE, twin: NONE, run });
        (self.nodes.len() - 1) as u32
    }

    /// Ends the vertical edge of a side of the row above in `node`.
    fn end(&mut self, side: Side, is_left: bool, node: u32) {
        // Left sides run up, right sides down.
        let (from, to) = if is_left { (node, side.top) } else { (side.top, node) };
        self.nodes[from as usize].next = to;
    }

    /// The line between two rows: ends, continues and begins vertical edges and lays the horizontal ones.
    fn join(&mut self, y: u32, above: &[Side], below: &mut [Side]) {
        // Nodes from left to right, and whether the object lies below the edge that begins there.
        let mut line: Vec<(u32, bool)> = Vec::new();
        let (mut i, mut j) = (0, 0);
        while i < above.len() || j < below.len() {
            let (up, down) = (above.get(i).copied(), below.get(j).copied());
            let x = up.map_or(u32::MAX, |side| side.x).min(down.map_or(u32::MAX, |side| side.x));
            let up = up.filter(|side| side.x == x);
            let down = down.filter(|side| side.x == x);
            let (up_is_left, down_is_left) = (i % 2 == 0, j % 2 == 0);
            i += usize::from(up.is_some());
            j += usize::from(down.is_some());
            let inside_below = j % 2 == 1;
            match (up, down) {
                (Some(up), None) => {
                    let node = self.node(y, x, up.run);
                    self.end(up, up_is_left, node);
                    line.push((node, inside_below));
                }
                (None, Some(down)) => {
                    let node = self.node(y, x, down.run);
                    below[j - 1].top = node;
                    line.push((node, inside_below));
                }
                (Some(up), Some(_)) if up_is_left == down_is_left => below[j - 1].top = up.top,
                (Some(up), Some(down)) => {
                    // Two pixels touch at this corner: the left node belongs to the left one.
                    let (ending, beginning) = (self.node(y, x, up.run), self.node(y, x, down.run));
                    self.nodes[ending as usize].twin = beginning;
                    self.nodes[beginning as usize].twin = ending;
                    self.end(up, up_is_left, ending);
                    below[j - 1].top = beginning;
                    let [left, right] = if up_is_left { [beginning, ending] } else { [ending, beginning] };
                    line.extend([(left, inside_below), (right, inside_below)]);
                }
                (None, None) => {}
            }
        }
        for pair in line.chunks_exact(2) {
            let (left, object_is_below) = pair[0];
            let right = pair[1].0;
            let (from, to) = if object_is_below { (left, right) } else { (right, left) };
            self.nodes[from as usize].next = to;
        }
        self.unite(above, below);
    }

    /// Joins the runs of two rows that share an edge.
    fn unite(&mut self, above: &[Side], below: &[Side]) {
        let (mut i, mut j) = (0, 0);
        while let (Some([a0, a1]), Some([b0, b1])) = (above.get(i..i + 2), below.get(j..j + 2)) {
            if a0.x < b1.x && b0.x < a1.x {
                let (a, b) = (self.root(a0.run), self.root(b0.run));
                self.parents[a.max(b) as usize] = a.min(b);
            }
            if a1.x <= b1.x { i += 2 } else { j += 2 }
        }
    }

    fn root(&mut self, mut run: u32) -> u32 {
        while self.parents[run as usize] != run {
            let parent = self.parents[run as usize];
            self.parents[run as usize] = self.parents[parent as usize];
            run = parent;
        }
        run
    }

    fn into_polygons(mut self) -> Vec<Polygon> {
        let mut polygons: Vec<Polygon> = Vec::new();
        let mut polygon_of_run = vec![NONE; self.parents.len()];
        // Where a node lies on the path walked so far; `DONE` once its ring is closed.
        const DONE: u32 = u32::MAX - 1;
        let mut position = vec![NONE; self.nodes.len()];
        let mut path: Vec<u32> = Vec::new();
        for first in 0..self.nodes.len() as u32 {
            if position[first as usize] != NONE {
                continue;
            }
            let mut rings: Vec<Vec<u32>> = Vec::new();
            let mut node = first;
            loop {
                let twin = self.nodes[node as usize].twin;
                if twin != NONE && position[twin as usize] < DONE {
                    // Back at a corner already passed: what lies between is a ring of its own.
                    let ring: Vec<u32> = path.drain(position[twin as usize] as usize..).collect();
                    ring.iter().for_each(|&node| position[node as usize] = DONE);
                    rings.push(ring);
                }
                position[node as usize] = path.len() as u32;
                path.push(node);
                node = self.nodes[node as usize].next;
                if node == first {
                    break;
                }
            }
            path.iter().for_each(|&node| position[node as usize] = DONE);
            rings.push(std::mem::take(&mut path));
            for ring in rings {
                let run = self.nodes[ring[0] as usize].run;
                let root = self.root(run) as usize;
                let ring: Ring = ring.into_iter().map(|node| self.nodes[node as usize].corner).collect();
                if polygon_of_run[root] == NONE {
                    polygon_of_run[root] = polygons.len() as u32;
                    polygons.push(Polygon { shell: Ring::new(), holes: Vec::new() });
                }
                let polygon = &mut polygons[polygon_of_run[root] as usize];
                if doubled_area(&ring) > 0 { polygon.shell = ring } else { polygon.holes.push(ring) }
            }
        }
        polygons
    }
}

/// Twice the area inside a ring, positive for shells, negative for holes.
fn doubled_area(ring: &[[u32; 2]]) -> i64 {
    // Every other edge is vertical; the trapezoids of those sum to the area.
    let following = ring.iter().cycle().skip(1);
    ring.iter().zip(following).map(|(a, b)| 2 * i64::from(a[1]) * (i64::from(b[0]) - i64::from(a[0]))).sum()
}

/// Pixels inside, as sorted runs; the inverse of [`outline`]. What a polygon's rings cross an odd number of times is inside.
pub fn fill(polygons: &[Polygon]) -> Vec<(u32, u32, u32)> {
    let mut crossings: Vec<[u32; 2]> = Vec::new();
    for ring in polygons.iter().flat_map(|polygon| std::iter::once(&polygon.shell).chain(&polygon.holes)) {
        for (a, b) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            crossings.extend((a[0].min(b[0])..a[0].max(b[0])).map(|y| [y, a[1]]));
        }
    }
    crossings.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for pair in crossings.chunks_exact(2) {
        let ([y, x0], [_, x1]) = (pair[0], pair[1]);
        match runs.last_mut() {
            _ if x0 == x1 => {}
            // Two parts side by side.
            Some(last) if last.0 == y && last.2 == x0 => last.2 = x1,
            _ => runs.push((y, x0, x1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cytomask_image::Mask;
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[&str]) -> Vec<Polygon> {
        let pixels: Vec<bool> = rows.iter().flat_map(|row| row.bytes().map(|byte| byte == b'#')).collect();
        outline(Mask::from_bools([rows.len() as u32, rows[0].len() as u32], &pixels).runs())
    }

    #[test]
    fn hand_drawn_outlines() {
        let square = Polygon { shell: vec![[0, 0], [0, 1], [1, 1], [1, 0]], holes: vec![] };
        assert_eq!(of(&["#"]), [square]);
        let corner = of(&["##", "#."]);
        assert_eq!(corner[0].shell, [[0, 0], [0, 2], [1, 2], [1, 1], [2, 1], [2, 0]]);
        let ring = of(&["###", "#.#", "###"]);
        assert_eq!(ring.len(), 1);
        assert_eq!(ring[0].shell, [[0, 0], [0, 3], [3, 3], [3, 0]]);
        assert_eq!(ring[0].holes, [[[1, 1], [2, 1], [2, 2], [1, 2]]]);
        // Pixels that touch at a corner are two parts; the holes of a chequered middle are two as well.
        assert_eq!(of(&["#.", ".#"]).len(), 2);
        assert_eq!(of(&["####", "#.##", "##.#", "####"])[0].holes.len(), 2);
        // A pocket closed at a corner is a hole that touches the shell.
        let pocket = of(&[".###", "##.#", "#..#", "###.", "###."]);
        assert_eq!((pocket.len(), pocket[0].holes.len()), (1, 1));
        assert_eq!(of(&["#", ".", "#"]).len(), 2);
        assert!(outline(&[]).is_empty());
    }

    /// Parts of a mask by flooding through edges.
    fn flooded_parts(size: [u32; 2], pixels: &[bool]) -> usize {
        let (mut left, mut parts) = (pixels.to_vec(), 0);
        while let Some(first) = left.iter().position(|&set| set) {
            parts += 1;
            let mut open = vec![first];
            while let Some(at) = open.pop() {
                if std::mem::take(&mut left[at]) {
                    let (y, x, w) = (at / size[1] as usize, at % size[1] as usize, size[1] as usize);
                    if y > 0 {
                        open.push(at - w)
                    }
                    if y + 1 < size[0] as usize {
                        open.push(at + w)
                    }
                    if x > 0 {
                        open.push(at - 1)
                    }
                    if x + 1 < w {
                        open.push(at + 1)
                    }
                }
            }
        }
        parts
    }

    proptest! {
        #[test]
        fn filling_gives_the_pixels_back_and_rings_are_simple(
            pixels in (0.1..0.95_f64).prop_flat_map(|density| {
                proptest::collection::vec(proptest::bool::weighted(density), 13 * 17)
            })
        ) {
            let mask = Mask::from_bools([13, 17], &pixels);
            let polygons = outline(mask.runs());
            prop_assert_eq!(fill(&polygons), mask.runs());
            prop_assert_eq!(polygons.len(), flooded_parts([13, 17], &pixels));
            let mut area = 0;
            for polygon in &polygons {
                prop_assert!(doubled_area(&polygon.shell) > 0);
                prop_assert!(polygon.holes.iter().all(|hole| doubled_area(hole) < 0));
                for ring in std::iter::once(&polygon.shell).chain(&polygon.holes) {
                    area += doubled_area(ring);
                    prop_assert_eq!(ring.iter().collect::<BTreeSet<_>>().len(), ring.len());
                    for corners in ring.iter().zip(ring.iter().cycle().skip(1)).zip(ring.iter().cycle().skip(2)) {
                        let ((a, b), c) = corners;
                        prop_assert!((a[0] == b[0]) != (a[1] == b[1]) && (a[0] == b[0]) != (b[0] == c[0]));
                    }
                }
                // Each polygon alone is the part it stands for, with nothing of the holes.
                let alone = Mask::from_runs(fill(std::slice::from_ref(polygon)));
                prop_assert_eq!(alone.intersection_area(&mask), alone.area());
            }
            prop_assert_eq!(area, 2 * mask.area() as i64);
        }
    }
}
