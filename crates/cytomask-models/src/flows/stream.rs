//! From an image that is read in rectangles to rows of maps.

use std::collections::VecDeque;

use cytomask_image::{Rect, Rgb};

use super::grid::Axis;
use super::resize::{Pair, pairs, scaled_size, widen};
use super::{BATCH_PIXELS, FlowPredictor};
use crate::Error;

/// A row of each map, all of one length: flow along y, flow along x, logit of being in a cell.
pub type FlowRow<'a> = [&'a [f32]; 3];

/// Maps.
const MAPS: usize = 3;
/// White in an [`Rgb`].
const WHITE: f32 = 255.0;

impl FlowPredictor {
    /// Runs an image of `size`, enlarged by `scale`, and gives its maps at the size `out`, row by row. Returns the sum of the tiles'
    /// styles.
    pub(super) fn stream<E: From<Error>>(
        &self,
        size: [u32; 2],
        scale: f64,
        out: [u32; 2],
        read: &mut dyn FnMut(Rect) -> Result<Rgb, E>,
        keep: &mut dyn FnMut(u32, FlowRow<'_>) -> Result<(), E>,
    ) -> Result<Vec<f32>, E> {
        if size.contains(&0) {
            return Ok(Vec::new());
        }
        let seen = scaled_size(size, scale);
        let (rows, columns) = (self.axis(seen[0]), self.axis(seen[1]));
        let mut input = Input::new(size, seen, self.channels());
        let mut output = Output::new(seen, out);
        let mut blend = Blend::new(&rows, &columns);
        let mut styles: Vec<f32> = Vec::new();
        for (index, &start) in rows.starts.iter().enumerate() {
            let band = input.band(&rows, start, read)?;
            let most = (BATCH_PIXELS / (rows.tile * columns.tile)).max(1);
            for first in (0..columns.starts.len()).step_by(most) {
                let batch: Vec<usize> = (first..columns.starts.len().min(first + most)).collect();
                let mut tiles = Vec::with_capacity(batch.len() * self.channels() * rows.tile * columns.tile);
                for &column in &batch {
                    cut(&band, [&rows, &columns], [index, column], self.channels(), &mut tiles);
                }
                let (maps, style) = self.run(tiles, [batch.len(), rows.tile, columns.tile])?;
                styles.resize(style.len(), 0.0);
                styles.iter_mut().zip(style).for_each(|(sum, value)| *sum += value);
                let tile = MAPS * rows.tile * columns.tile;
                for (&column, maps) in batch.iter().zip(maps.chunks_exact(tile)) {
                    blend.add([index, column], maps);
                }
            }
            let finished = rows.starts.get(index + 1).copied().unwrap_or(rows.padded());
            blend.take_until(finished, &mut |row, maps| {
                let Some(y) = row.checked_sub(rows.before).filter(|&y| y < rows.length) else { return Ok(()) };
                output.push(y, maps, keep)
            })?;
        }
        Ok(styles)
    }
}

/// The image as the network sees it, a band of rows at a time.
struct Input {
    size: [u32; 2],
    /// `None` where nothing is resized.
    pairs: Option<[Vec<Pair>; 2]>,
    seen: [u32; 2],
    channels: usize,
}

/// Rows of the padded image: each channel's samples one after the other.
struct Band {
    rows: Vec<Option<Vec<f32>>>,
}

impl Input {
    fn new(size: [u32; 2], seen: [u32; 2], channels: usize) -> Self {
        let resized = [0, 1].map(|axis| pairs(size[axis] as usize, seen[axis] as usize));
        Self { size, pairs: (size != seen).then_some(resized), seen, channels }
    }

    /// The rows of the tiles that begin at padded row `start`; `None` for rows of padding.
    fn band<E>(&mut self, rows: &Axis, start: usize, read: &mut dyn FnMut(Rect) -> Result<Rgb, E>) -> Result<Band, E> {
        let [height, width] = self.seen.map(|side| side as usize);
        let first = start.saturating_sub(rows.before).min(height);
        let last = (start + rows.tile).saturating_sub(rows.before).min(height);
        let mut band = vec![None; rows.tile];
        if first >= last {
            return Ok(Band { rows: band });
        }
        let stored = match &self.pairs {
            None => first..last,
            Some([y, _]) => y[first].low..y[last - 1].high + 1,
        };
        let rect = Rect { y0: stored.start as u32, x0: 0, y1: stored.end as u32, x1: self.size[1] };
        let part = read(rect)?;
        let split = |line: &[f32]| -> Vec<f32> {
            (0..self.channels)
                .flat_map(|channel| line[channel..].iter().step_by(3).map(|&sample| sample / WHITE))
                .collect()
        };
        let lines: Vec<Vec<f32>> = part.samples.chunks_exact(self.size[1] as usize * 3).map(split).collect();
        let lines = match &self.pairs {
            None => lines,
            Some([_, x]) => lines.iter().map(|line| widen(line, self.channels, x)).collect(),
        };
        debug_assert!(lines.iter().all(|line| line.len() == width * self.channels));
        for y in first..last {
            let line = match &self.pairs {
                None => lines[y - first].clone(),
                Some([pairs, _]) => {
                    let pair = pairs[y];
                    let (low, high) = (&lines[pair.low - stored.start], &lines[pair.high - stored.start]);
                    low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)).collect()
                }
            };
            band[y + rows.before - start] = Some(line);
        }
        Ok(Band { rows: band })
    }
}

/// Whether a tile is turned over along y and along x: every other column of tiles along y, every other row along x.
fn turned([rows, columns]: [&Axis; 2], [row, column]: [usize; 2]) -> [bool; 2] {
    [columns.is_flipped(column), rows.is_flipped(row)]
}

/// Appends a tile, `[C, h, w]`, turned over where that is its turn.
fn cut(band: &Band, axes: [&Axis; 2], at: [usize; 2], channels: usize, into: &mut Vec<f32>) {
    let [rows, columns] = axes;
    let [over_y, over_x] = turned(axes, at);
    let start = columns.starts[at[1]];
    for channel in 0..channels {
        for y in 0..rows.tile {
            let first = into.len();
            into.resize(first + columns.tile, 0.0);
            let Some(line) = &band.rows[if over_y { rows.tile - 1 - y } else { y }] else { continue };
            let line = &line[channel * columns.length..(channel + 1) * columns.length];
            let target = &mut into[first..];
            // Padded columns `start..start + tile` are columns of the image less the padding before it.
            let (skipped, from) = (columns.before.saturating_sub(start), start.saturating_sub(columns.before));
            for (value, &sample) in target.iter_mut().skip(skipped).zip(line.get(from..).unwrap_or_default()) {
                *value = sample;
            }
            if over_x {
                target.reverse();
            }
        }
    }
}

/// Rows of blended maps that tiles still add to.
struct Blend<'a> {
    axes: [&'a Axis; 2],
    tapers: [Vec<f64>; 2],
    totals: [Vec<f64>; 2],
    /// Padded row of the first of `rows`.
    first: usize,
    /// Each the padded width times the maps.
    rows: VecDeque<Vec<f32>>,
}

impl<'a> Blend<'a> {
    fn new(rows: &'a Axis, columns: &'a Axis) -> Self {
        let tapers = [rows.taper(columns.tile), columns.taper(rows.tile)];
        let totals = [rows.total(&tapers[0]), columns.total(&tapers[1])];
        Self { axes: [rows, columns], tapers, totals, first: 0, rows: VecDeque::new() }
    }

    /// Adds the maps `[3, h, w]` of a tile.
    fn add(&mut self, at: [usize; 2], maps: &[f32]) {
        let [rows, columns] = self.axes;
        let (width, [over_y, over_x]) = (columns.padded(), turned(self.axes, at));
        let (top, left) = (rows.starts[at[0]], columns.starts[at[1]]);
        while self.first + self.rows.len() < top + rows.tile {
            self.rows.push_back(vec![0.0; MAPS * width]);
        }
        // What points down in a tile turned over points up in the image.
        let signs = [over_y, over_x, false].map(|over| if over { -1.0 } else { 1.0 });
        for (map, (values, sign)) in maps.chunks_exact(rows.tile * columns.tile).zip(signs).enumerate() {
            for (y, weight) in self.tapers[0].iter().enumerate() {
                let line = &values[(if over_y { rows.tile - 1 - y } else { y }) * columns.tile..][..columns.tile];
                let target = &mut self.rows[top + y - self.first][map * width + left..][..columns.tile];
                let add = |(target, (value, across)): (&mut f32, (&f32, &f64))| {
                    *target = (f64::from(*target) + f64::from(sign * value) * (weight * across)) as f32;
                };
                if over_x {
                    target.iter_mut().zip(line.iter().rev().zip(&self.tapers[1])).for_each(add);
                } else {
                    target.iter_mut().zip(line.iter().zip(&self.tapers[1])).for_each(add);
                }
            }
        }
    }

    /// Gives up the rows before padded row `end`, without the padding to their left and right.
    fn take_until<E>(&mut self, end: usize, give: &mut dyn FnMut(usize, Vec<f32>) -> Result<(), E>) -> Result<(), E> {
        let (columns, width) = (self.axes[1], self.axes[1].padded());
        while self.first < end {
            let Some(row) = self.rows.pop_front() else { break };
            let down = self.totals[0][self.first];
            let inner = columns.before..columns.before + columns.length;
            let maps = row
                .chunks_exact(width)
                .flat_map(|map| map[inner.clone()].iter().zip(&self.totals[1][inner.clone()]))
                .map(|(&sum, across)| (f64::from(sum) / (down * across)) as f32)
                .collect();
            give(self.first, maps)?;
            self.first += 1;
        }
        Ok(())
    }
}

/// Rows of maps on their way to the size they are wanted at.
struct Output {
    /// `None` where nothing is resized.
    pairs: Option<[Vec<Pair>; 2]>,
    /// The last row, and its index.
    last: Option<(usize, Vec<f32>)>,
    /// The next row to give.
    next: usize,
}

impl Output {
    fn new(seen: [u32; 2], out: [u32; 2]) -> Self {
        let resized = [0, 1].map(|axis| pairs(seen[axis] as usize, out[axis] as usize));
        Self { pairs: (seen != out).then_some(resized), last: None, next: 0 }
    }

    /// Takes row `y` of the maps and gives the rows that are known with it.
    fn push<E>(
        &mut self,
        y: usize,
        row: Vec<f32>,
        keep: &mut dyn FnMut(u32, FlowRow<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some([rows, columns]) = &self.pairs else {
            return keep(y as u32, three(&row));
        };
        let row = widen(&row, MAPS, columns);
        while let Some(pair) = rows.get(self.next).filter(|pair| pair.high <= y) {
            let of = |index: usize| match &self.last {
                Some((last, values)) if *last == index => values,
                _ => &row,
            };
            let (low, high) = (of(pair.low), of(pair.high));
            let mixed: Vec<f32> = low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)).collect();
            keep(self.next as u32, three(&mixed))?;
            self.next += 1;
        }
        self.last = Some((y, row));
        Ok(())
    }
}

fn three(row: &[f32]) -> FlowRow<'_> {
    let width = row.len() / MAPS;
    [0, 1, 2].map(|map| &row[map * width..(map + 1) * width])
}
