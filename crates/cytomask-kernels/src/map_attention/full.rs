//! Attention's products in `f32`: keys in panels, values as they are.

use super::{Held, LANES, Running, Unit, largest, panels};
use crate::{
    Level,
    level::{for_each_level, larger},
    pointwise::exp,
    tile::{Start, Strip, accumulate, transpose},
};

/// Widest panel of keys.
const PANEL: usize = 48;

/// Keys of each block as panels `[head, width]` (see [`panels`]), values as rows.
#[derive(Default)]
pub(super) struct Full {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Of keys and values.
    head: usize,
    /// Keys met at a time.
    block: usize,
    /// From one row of values to the next.
    stride: usize,
}

impl Full {
    /// Values of the panels of one block.
    fn of_block(&self) -> usize {
        self.block.next_multiple_of(LANES) * self.head
    }
}

impl Held for Full {
    const QUERIES: usize = 96;
    const KEYS: usize = 512;
    type Scratch = Vec<f32>;

    fn fill(&mut self, level: Level, unit: &Unit<'_>, rows: &mut Vec<f32>) {
        let (head, tokens) = (unit.shape.head, unit.shape.tokens());
        (self.head, self.block, self.stride) = (head, unit.shape.block(Self::KEYS), unit.shape.padded_head());
        unit.gather(1, head, rows);
        let padded = self.of_block();
        self.keys.clear();
        self.keys.resize(tokens.div_ceil(self.block) * padded, 0.0);
        for (keys, rows) in self.keys.chunks_exact_mut(padded).zip(rows.chunks(self.block * head)) {
            for (first, width) in panels(rows.len() / head, PANEL) {
                let (count, rows) = (width.min(rows.len() / head - first), &rows[first * head..]);
                transpose(level, (rows, head), [count, head], (&mut keys[first * head..], width));
            }
        }
        unit.gather(2, self.stride, &mut self.values);
    }

    fn prepare(&self, _: Level, queries: &mut Vec<f32>, _: usize, scratch: &mut Vec<f32>) {
        std::mem::swap(queries, scratch);
    }

    fn meet(
        &self,
        level: Level,
        queries: &mut Vec<f32>,
        [block, these]: [usize; 2],
        (logits, line): (&mut [f32], usize),
        Running { maxima, totals, sums }: &mut Running,
    ) {
        let (head, count, stride) = (self.head, maxima.len(), self.stride);
        let keys = &self.keys[block * self.of_block()..];
        for (column, width) in panels(these, PANEL) {
            let (strip, kept) = (Strip::Panel(&keys[column * head..], width), width.min(these - column));
            let target = (&mut logits[column..], line);
            accumulate(level, [count, head, kept], (queries, head), strip, Start::Held, target);
        }
        soften(level, logits, [line, these], maxima, totals, sums);
        // Four registers at a time, or three: a single one left over would wait for its loads.
        let widest = if stride % (4 * LANES) == LANES { PANEL } else { 4 * LANES };
        for (column, width) in panels(stride, widest) {
            let strip = Strip::Rows(&self.values[block * self.block * stride + column..], stride, width);
            let target = (&mut sums[column..], stride);
            accumulate(level, [count, these, width], (logits, line), strip, Start::Held, target);
        }
    }

    fn common(&self) -> &[f32] {
        &[]
    }
}

/// Logits of each query become weights relative to the largest logit so far; what was summed before is brought to that measure.
/// `sums` has equally long rows. Values after the logits of a row, up to a whole register, are overwritten.
#[inline(always)]
fn soften_body<const FUSED: bool>(
    logits: &mut [f32],
    [line, count]: [usize; 2],
    maxima: &mut [f32],
    totals: &mut [f32],
    sums: &mut [f32],
) {
    let stride = sums.len() / maxima.len().max(1);
    let rows = logits.chunks_exact_mut(line).zip(sums.chunks_exact_mut(stride));
    for ((maximum, total), (logits, sums)) in maxima.iter_mut().zip(totals).zip(rows) {
        let padded = count.next_multiple_of(LANES);
        logits[count..padded].fill(f32::NEG_INFINITY);
        let (logits, _) = logits[..padded].as_chunks_mut::<LANES>();
        let most = larger(*maximum, largest(logits));
        if most > *maximum {
            let factor = exp::<FUSED>(*maximum - most);
            *total *= factor;
            sums.iter_mut().for_each(|sum| *sum *= factor);
            *maximum = most;
        }
        let mut parts = [0.0_f32; LANES];
        for chunk in logits {
            for (part, logit) in parts.iter_mut().zip(chunk) {
                *logit = exp::<FUSED>(*logit - most);
                *part += *logit;
            }
        }
        *total += parts.iter().sum::<f32>();
    }
}

for_each_level! {
    fn soften = fused soften_body(
        logits: &mut [f32], sizes: [usize; 2], maxima: &mut [f32], totals: &mut [f32], sums: &mut [f32],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    #[test]
    fn every_level_softens_alike() {
        let (line, count, rows) = (48, 27, 3);
        let logits: Vec<f32> = wave(7, rows * line).iter().map(|logit| logit * 5.0).collect();
        let run = |level: Level| {
            let (mut logits, mut maxima, mut totals) = (logits.clone(), vec![1.0; rows], vec![0.5; rows]);
            let mut sums = wave(8, rows * 16);
            soften(level, &mut logits, [line, count], &mut maxima, &mut totals, &mut sums);
            let kept = logits.chunks(line).flat_map(|row| row[..count].to_vec());
            kept.chain(maxima).chain(totals).chain(sums).collect::<Vec<f32>>()
        };
        let plain = run(Level::Portable);
        for level in Level::all() {
            for (found, plain) in run(level).iter().zip(&plain) {
                assert!((found - plain).abs() < 1e-5, "{level:?}: {found}, {plain}");
            }
        }
    }
}
