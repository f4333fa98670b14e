//! The image side of SAM's mask decoder: a few tokens and some thousand pixels that look at each other, prompt by prompt.
//!
//! Maps are held in blocks of [`LANES`] pixels, channels one after the other within a block ([`BlockedMaps`]): a block fits into
//! the first two caches, every weight matrix is used as it is stored, and nothing is transposed but the weights of the softmax.
//! Prompts and strips of blocks are spread over threads; sums over a map are always split at the same places, so that results do
//! not depend on the number of threads.
//!
//! The projections of an attention over maps can be moved to the tokens' side, of which there are few: with `q` a token's query,
//! `q · (W_k x + b_k)` is `(W_kᵀ q) · x` plus a number that is the same for all pixels and drops out of the softmax, and a
//! weighted mean of `W_v x + b_v` is `W_v` times the weighted mean of `x`, plus `b_v`. Callers that do so hand in queries as wide
//! as the map, [`Queries::groups`] 1; the others one group a head.

use rayon::prelude::*;

use crate::{
    Level, buffers,
    level::for_each_level,
    pointwise::exp,
    tile::{Start, Strip, WIDEST, accumulate},
};

/// Pixels of a block: the widest strip of a product.
pub(crate) const LANES: usize = WIDEST;

/// Blocks one thread takes at a time.
const STRIP: usize = 22;

/// Columns of the softmax weights that one product takes at a time.
const WEIGHTS: usize = 32;

/// Maps `[images, channels, pixels]` in blocks of 48 pixels, the last one of an image filled up with zeros.
#[derive(Clone, Debug)]
pub struct BlockedMaps {
    values: Vec<f32>,
    channels: usize,
    pixels: usize,
}

impl BlockedMaps {
    /// Zeros.
    pub fn zeros(images: usize, channels: usize, pixels: usize) -> Self {
        Self { values: vec![0.0; images * channels * pixels.div_ceil(LANES) * LANES], channels, pixels }
    }

    /// To be written to: they hold whatever the memory held, which is that of maps no longer needed.
    pub fn reused(images: usize, channels: usize, pixels: usize) -> Self {
        Self { values: buffers::take(images * channels * pixels.div_ceil(LANES) * LANES), channels, pixels }
    }

    /// From pixels as rows, `[images, pixels, channels]`.
    pub fn from_rows(rows: &[f32], [images, pixels, channels]: [usize; 3]) -> Self {
        assert_eq!(rows.len(), images * pixels * channels, "{images} images of {pixels} pixels of {channels}");
        let mut maps = Self::zeros(images, channels, pixels);
        if rows.is_empty() {
            return maps;
        }
        let (of_image, of_block) = (maps.image_len(), channels * LANES);
        maps.values.par_chunks_exact_mut(of_image).zip(rows.par_chunks_exact(pixels * channels)).for_each(
            |(image, rows)| {
                let blocks = image.par_chunks_exact_mut(of_block).zip(rows.par_chunks(of_block));
                blocks.for_each(|(block, rows)| {
                    for (lane, row) in rows.chunks_exact(channels).enumerate() {
                        for (values, value) in block.chunks_exact_mut(LANES).zip(row) {
                            values[lane] = *value;
                        }
                    }
                });
            },
        );
        maps
    }

    /// Back to pixels as rows.
    ///
    /// # Shapes
    /// → `[images, pixels, channels]`
    pub fn to_rows(&self) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.images() * self.pixels * self.channels);
        for image in 0..self.images() {
            for pixel in 0..self.pixels {
                let block = self.block(image, pixel / LANES);
                rows.extend((0..self.channels).map(|channel| block[channel * LANES + pixel % LANES]));
            }
        }
        rows
    }

    /// Windows of images whose rows are `width` pixels wide: each the index of its image and the row and column it begins at, all of
    /// `[h, w]` pixels.
    pub fn windows(&self, width: usize, windows: &[[usize; 3]], [h, w]: [usize; 2]) -> Self {
        let mut out = Self::zeros(windows.len(), self.channels, h * w);
        if out.values.is_empty() {
            return out;
        }
        let of_image = out.image_len();
        out.values.par_chunks_exact_mut(of_image).zip(windows).for_each(|(out, &[image, y, x])| {
            assert!(x + w <= width && (y + h) * width <= self.pixels, "a window within its image");
            for (index, out) in out.chunks_exact_mut(self.channels * LANES).enumerate() {
                let mut lane = 0;
                while lane < LANES.min(h * w - index * LANES) {
                    let pixel = index * LANES + lane;
                    let from = (y + pixel / w) * width + x + pixel % w;
                    // Up to the end of the window's row or of either block.
                    let count = (w - pixel % w).min(LANES - lane).min(LANES - from % LANES);
                    let rows = self.block(image, from / LANES).chunks_exact(LANES);
                    for (out, row) in out.chunks_exact_mut(LANES).zip(rows) {
                        out[lane..lane + count].copy_from_slice(&row[from % LANES..][..count]);
                    }
                    lane += count;
                }
            }
        });
        out
    }

    /// How many images.
    pub fn images(&self) -> usize {
        self.values.len().checked_div(self.image_len()).unwrap_or(0)
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Channels of a pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    fn blocks(&self) -> usize {
        self.pixels.div_ceil(LANES)
    }

    fn image_len(&self) -> usize {
        self.blocks() * self.channels * LANES
    }

    /// `[channels, LANES]`
    pub(crate) fn block(&self, image: usize, block: usize) -> &[f32] {
        let length = self.channels * LANES;
        &self.values[image * self.image_len() + block * length..][..length]
    }
}

impl Drop for BlockedMaps {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.values));
    }
}

/// How the tokens of some prompts look at maps: one query for each prompt, head and token, scaled.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[prompts, heads · tokens, C / groups]`, tokens of one head together.
    pub values: &'a [f32],
    /// Added to the logits of each query, `[prompts, heads · tokens]`.
    pub offsets: Option<&'a [f32]>,
    /// Attention heads.
    pub heads: usize,
    /// Tokens of a prompt.
    pub tokens: usize,
    /// Into how many equal parts the map's channels are divided: as many as heads, each head with its own, or 1.
    pub groups: usize,
}

impl Queries<'_> {
    fn rows(&self) -> usize {
        self.heads * self.tokens
    }

    fn check(&self, prompts: usize, channels: usize, name: &str) {
        let Self { values, groups, .. } = self;
        assert!(*groups == 1 || *groups == self.heads, "{name}: one group or one for each head");
        assert_eq!(channels % groups, 0, "{name}: {channels} channels in {groups} groups");
        assert_eq!(values.len(), prompts * self.rows() * channels / groups, "{name}: queries of {prompts} prompts");
        let offsets = self.offsets.map_or(prompts * self.rows(), <[f32]>::len);
        assert_eq!(offsets, prompts * self.rows(), "{name}: offsets of {prompts} prompts");
    }

    /// `logits[row] = queries[row] · block + offsets[row]`, `[rows, LANES]`.
    fn logits(&self, level: Level, prompt: usize, block: &[f32], logits: &mut [f32]) {
        let (rows, depth) = (self.rows() / self.groups, block.len() / LANES / self.groups);
        let queries = &self.values[prompt * self.rows() * depth..][..self.rows() * depth];
        match self.offsets {
            Some(offsets) => fill_rows(level, logits, &offsets[prompt * self.rows()..][..self.rows()]),
            None => logits.fill(0.0),
        }
        let groups = queries.chunks_exact(rows * depth).zip(block.chunks_exact(depth * LANES));
        for ((queries, block), logits) in groups.zip(logits.chunks_exact_mut(rows * LANES)) {
            let strip = Strip::Panel(block, LANES);
            accumulate(level, [rows, depth, LANES], (queries, depth), strip, Start::Held, (logits, LANES));
        }
    }
}

/// Weighted sums over the pixels seen so far, with softmax weights whose largest logit may still grow.
struct Gathered {
    /// `[channels, rows / groups]`
    sums: Vec<f32>,
    /// Of each row of weights.
    most: Vec<f32>,
    total: Vec<f32>,
    /// By how much this block shrinks what was summed before it.
    shrink: Vec<f32>,
    /// Weights turned around, `[LANES, WEIGHTS]` for each group and [`WEIGHTS`] rows of it.
    turned: Vec<f32>,
    groups: usize,
}

impl Gathered {
    fn new(rows: usize, channels: usize, groups: usize) -> Self {
        let columns = rows / groups;
        Self {
            sums: vec![0.0; channels * columns],
            most: vec![f32::NEG_INFINITY; rows],
            total: vec![0.0; rows],
            shrink: vec![1.0; rows],
            turned: vec![0.0; groups * columns.div_ceil(WEIGHTS) * WEIGHTS * LANES],
            groups,
        }
    }

    /// Adds the pixels of a block; of its lanes the first `pixels` count. `logits` `[rows, LANES]` become weights.
    fn add(&mut self, level: Level, logits: &mut [f32], values: &[f32], pixels: usize) {
        for row in logits.chunks_exact_mut(LANES) {
            row[pixels..].fill(f32::NEG_INFINITY);
        }
        let Self { sums, most, total, shrink, turned, groups } = self;
        let (rows, depth) = (most.len() / *groups, values.len() / LANES / *groups);
        soften_pixels(level, logits, most, total, shrink);
        if shrink.iter().any(|&factor| factor != 1.0) {
            for (sums, shrink) in sums.chunks_exact_mut(depth * rows).zip(shrink.chunks_exact(rows)) {
                scale_rows(level, sums, shrink);
            }
        }
        let panels = rows.div_ceil(WEIGHTS);
        turn(level, logits, rows, turned);
        let groups = sums.chunks_exact_mut(depth * rows).zip(values.chunks_exact(depth * LANES));
        for ((sums, values), turned) in groups.zip(turned.chunks_exact(panels * WEIGHTS * LANES)) {
            for (panel, turned) in turned.chunks_exact(WEIGHTS * LANES).enumerate() {
                let first = panel * WEIGHTS;
                let columns = WEIGHTS.min(rows - first);
                let strip = Strip::Panel(turned, WEIGHTS);
                accumulate(
                    level,
                    [depth, LANES, columns],
                    (values, LANES),
                    strip,
                    Start::Held,
                    (&mut sums[first..], rows),
                );
            }
        }
    }

    /// Adds what another strip of the same map gathered.
    fn join(&mut self, other: &Self) {
        let (mut ours, mut theirs) = (vec![0.0; self.most.len()], vec![0.0; self.most.len()]);
        for row in 0..self.most.len() {
            let most = self.most[row].max(other.most[row]);
            (ours[row], theirs[row]) = (exp::<false>(self.most[row] - most), exp::<false>(other.most[row] - most));
            self.most[row] = most;
            self.total[row] = self.total[row] * ours[row] + other.total[row] * theirs[row];
        }
        let (rows, depth) = (self.most.len() / self.groups, self.sums.len() / self.most.len());
        for (index, (sums, others)) in self.sums.chunks_exact_mut(rows).zip(other.sums.chunks_exact(rows)).enumerate() {
            let first = index / depth * rows;
            let factors = ours[first..][..rows].iter().zip(&theirs[first..][..rows]);
            for ((sum, other), (ours, theirs)) in sums.iter_mut().zip(others).zip(factors) {
                *sum = *sum * ours + other * theirs;
            }
        }
    }

    /// The weighted means, `[rows, channels / groups]`.
    fn means(&self, out: &mut [f32]) {
        let (rows, depth) = (self.most.len() / self.groups, self.sums.len() / self.most.len());
        for (row, out) in out.chunks_exact_mut(depth).enumerate() {
            let (group, factor) = (row / rows, 1.0 / self.total[row]);
            for (channel, out) in out.iter_mut().enumerate() {
                *out = self.sums[(group * depth + channel) * rows + row % rows] * factor;
            }
        }
    }
}

/// Joins the strips of each prompt, in order.
fn join_strips(strips: Vec<Gathered>, prompts: usize, rows: usize) -> Vec<f32> {
    let mut out = Vec::new();
    let per_prompt = strips.len() / prompts.max(1);
    let mut strips = strips.into_iter();
    for _ in 0..prompts {
        let Some(mut all) = strips.next() else { break };
        strips.by_ref().take(per_prompt - 1).for_each(|strip| all.join(&strip));
        let start = out.len();
        out.resize(start + rows * (all.sums.len() / all.most.len()), 0.0);
        all.means(&mut out[start..]);
    }
    out
}

/// Attention of each prompt's tokens over the pixels of its image, head by head.
///
/// # Shapes
/// `keys` and `values` `[images, C, pixels]`, `image_of` the image of each prompt → `[prompts, heads · tokens, C / groups]`
pub fn gather(queries: &Queries<'_>, keys: &BlockedMaps, values: &BlockedMaps, image_of: &[usize]) -> Vec<f32> {
    let prompts = image_of.len();
    queries.check(prompts, keys.channels, "gather");
    assert_eq!([keys.images(), keys.pixels], [values.images(), values.pixels], "keys and values of the same images");
    if prompts == 0 || queries.tokens == 0 || keys.pixels == 0 {
        return vec![0.0; prompts * queries.rows() * values.channels / queries.groups];
    }
    let level = Level::best();
    let strips = keys.blocks().div_ceil(STRIP);
    let parts = (0..prompts * strips).into_par_iter().map(|task| {
        let (prompt, strip) = (task / strips, task % strips);
        let image = image_of[prompt];
        let mut gathered = Gathered::new(queries.rows(), values.channels, queries.groups);
        let mut logits = vec![0.0; queries.rows() * LANES];
        for block in strip * STRIP..((strip + 1) * STRIP).min(keys.blocks()) {
            queries.logits(level, prompt, keys.block(image, block), &mut logits);
            let pixels = LANES.min(keys.pixels - block * LANES);
            gathered.add(level, &mut logits, values.block(image, block), pixels);
        }
        gathered
    });
    join_strips(parts.collect(), prompts, queries.rows())
}

/// One turn of the two-way transformer over the maps of some prompts.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// Where pixels lie, `[images, C, pixels]`; added to a map wherever pixels are compared with tokens.
    pub positions: &'a BlockedMaps,
    /// The image of each prompt.
    pub image_of: &'a [usize],
    /// The projected queries of the pixels `[images, heads · head, pixels]`, where they are the same for all prompts.
    pub pixel_queries: Option<&'a BlockedMaps>,
    /// What the pixels compare themselves with: the tokens' keys, as queries of the tokens.
    pub token_keys: Queries<'a>,
    /// What a pixel gains from each token, `[prompts, heads · tokens, C]`.
    pub token_values: &'a [f32],
    /// What every pixel gains, `[C]`.
    pub bias: &'a [f32],
    /// Weight, bias and epsilon of the norm after it, `[C]`.
    pub norm: (&'a [f32], &'a [f32], f32),
    /// What the tokens look for in the new maps; one group.
    pub token_queries: Queries<'a>,
}

impl Exchange<'_> {
    /// Each pixel looks at its prompt's tokens, adds what it finds and is normalised over its channels; then the tokens look at the
    /// pixels. Maps are read from `source` by [`Exchange::image_of`] if there is one, else from `maps`, and written to `maps`.
    ///
    /// # Shapes
    /// `source` `[images, C, pixels]`, `maps` `[prompts, C, pixels]` → means of the new maps `[prompts, heads · tokens, C]`
    pub fn run(&self, source: Option<&BlockedMaps>, maps: &mut BlockedMaps) -> Vec<f32> {
        let (prompts, channels, pixels) = (self.image_of.len(), maps.channels, maps.pixels);
        let rows = self.token_keys.rows();
        self.token_keys.check(prompts, self.pixel_queries.map_or(channels, |maps| maps.channels), "token keys");
        self.token_queries.check(prompts, channels, "token queries");
        assert_eq!(self.token_queries.groups, 1, "tokens look at whole pixels");
        assert_eq!(self.token_values.len(), prompts * rows * channels, "a value for each token and head");
        assert_eq!([self.bias, self.norm.0, self.norm.1].map(<[f32]>::len), [channels; 3], "channels of bias and norm");
        let others = [Some(self.positions), self.pixel_queries, source];
        assert!(others.iter().flatten().all(|maps| maps.pixels == pixels), "maps of {pixels} pixels");
        assert!(
            self.positions.channels == channels && source.is_none_or(|source| source.channels == channels),
            "{channels} channels"
        );
        if prompts == 0 || pixels == 0 || self.token_queries.tokens == 0 || rows == 0 {
            return vec![0.0; prompts * self.token_queries.rows() * channels];
        }
        assert_eq!(maps.images(), prompts, "a map for each prompt");
        let level = Level::best();
        let (image_len, block_len) = (maps.image_len(), channels * LANES);
        let turned: Vec<f32> = self
            .token_values
            .chunks_exact(rows * channels)
            .flat_map(|values| (0..channels * rows).map(move |index| values[index % rows * channels + index / rows]))
            .collect();
        let parts: Vec<Gathered> = maps
            .values
            .par_chunks_exact_mut(image_len)
            .enumerate()
            .flat_map(|(prompt, map)| {
                map.par_chunks_mut(STRIP * block_len).enumerate().map(move |(strip, blocks)| (prompt, strip, blocks))
            })
            .map(|(prompt, strip, blocks)| {
                let image = self.image_of[prompt];
                let token_values = &turned[prompt * rows * channels..][..rows * channels];
                let mut gathered = Gathered::new(self.token_queries.rows(), channels, 1);
                let mut weights = vec![0.0; rows * LANES];
                let mut logits = vec![0.0; self.token_queries.rows() * LANES];
                let mut placed = vec![0.0; block_len];
                for (index, map) in blocks.chunks_exact_mut(block_len).enumerate() {
                    let block = strip * STRIP + index;
                    let positions = self.positions.block(image, block);
                    if let Some(source) = source {
                        map.copy_from_slice(source.block(image, block));
                    }
                    match self.pixel_queries {
                        Some(queries) => {
                            self.token_keys.logits(level, prompt, queries.block(image, block), &mut weights);
                        }
                        None => {
                            add(level, map, positions, &mut placed);
                            self.token_keys.logits(level, prompt, &placed, &mut weights);
                        }
                    }
                    soften_tokens(level, &mut weights, self.token_keys.tokens);
                    let strip = Strip::Panel(&weights, LANES);
                    accumulate(level, [channels, rows, LANES], (token_values, rows), strip, Start::Held, (map, LANES));
                    let (weight, bias, eps) = self.norm;
                    norm_channels(level, map, self.bias, weight, bias, eps);
                    add(level, map, positions, &mut placed);
                    self.token_queries.logits(level, prompt, &placed, &mut logits);
                    gathered.add(level, &mut logits, map, LANES.min(pixels - block * LANES));
                }
                gathered
            })
            .collect();
        join_strips(parts, prompts, self.token_queries.rows())
    }
}

/// Each row of `[rows, LANES]` with its value.
#[inline(always)]
fn fill_rows_body(block: &mut [f32], values: &[f32]) {
    for (row, value) in block.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
        *row = [*value; LANES];
    }
}

#[inline(always)]
fn add_body(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}

/// Softmax over `tokens` neighbouring rows of `[rows, LANES]`, lane by lane.
#[inline(always)]
fn soften_tokens_body<const FUSED: bool>(logits: &mut [f32], tokens: usize) {
    for head in logits.as_chunks_mut::<LANES>().0.chunks_exact_mut(tokens) {
        let mut most = [f32::NEG_INFINITY; LANES];
        for row in head.iter() {
            for (most, &value) in most.iter_mut().zip(row) {
                *most = if value > *most { value } else { *most };
            }
        }
        let mut total = [0.0_f32; LANES];
        for row in head.iter_mut() {
            for ((value, most), total) in row.iter_mut().zip(&most).zip(&mut total) {
                *value = exp::<FUSED>(*value - most);
                *total += *value;
            }
        }
        for total in &mut total {
            *total = 1.0 / *total;
        }
        for row in head.iter_mut() {
            for (value, factor) in row.iter_mut().zip(&total) {
                *value *= factor;
            }
        }
    }
}

/// Turns logits `[rows, LANES]` into weights relative to the largest logit of their row so far; says by what factor earlier weights
/// must shrink.
#[inline(always)]
fn soften_pixels_body<const FUSED: bool>(logits: &mut [f32], most: &mut [f32], total: &mut [f32], shrink: &mut [f32]) {
    let rows = logits.as_chunks_mut::<LANES>().0.iter_mut().zip(most).zip(total).zip(shrink);
    for (((row, most), total), shrink) in rows {
        let mut parts = [f32::NEG_INFINITY; 16];
        for chunk in row.as_chunks::<16>().0 {
            for (part, &value) in parts.iter_mut().zip(chunk) {
                *part = if value > *part { value } else { *part };
            }
        }
        let new = parts.iter().fold(*most, |most, &part| most.max(part));
        *shrink = exp::<FUSED>(*most - new);
        *most = new;
        let mut sums = [0.0_f32; 16];
        for chunk in row.as_chunks_mut::<16>().0 {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *value = exp::<FUSED>(*value - new);
                *sum += *value;
            }
        }
        *total = *total * *shrink + sums.iter().sum::<f32>();
    }
}

#[inline(always)]
fn scale_rows_body(sums: &mut [f32], factors: &[f32]) {
    for row in sums.chunks_exact_mut(factors.len()) {
        for (sum, factor) in row.iter_mut().zip(factors) {
            *sum *= factor;
        }
    }
}

/// `[groups · rows, LANES]` → for each group and each [`WEIGHTS`] rows of it `[LANES, WEIGHTS]`; unused columns stay as they are.
#[inline(always)]
fn turn_body(weights: &[f32], rows: usize, turned: &mut [f32]) {
    let of_group = rows.div_ceil(WEIGHTS) * WEIGHTS * LANES;
    for (weights, turned) in weights.chunks_exact(rows * LANES).zip(turned.chunks_exact_mut(of_group)) {
        for (weights, turned) in weights.chunks(WEIGHTS * LANES).zip(turned.chunks_exact_mut(WEIGHTS * LANES)) {
            for (column, row) in weights.as_chunks::<LANES>().0.iter().enumerate() {
                for (turned, weight) in turned.as_chunks_mut::<WEIGHTS>().0.iter_mut().zip(row) {
                    turned[column] = *weight;
                }
            }
        }
    }
}

/// Adds `gain` and normalises each lane over the channels (biased variance).
#[inline(always)]
fn norm_channels_body(block: &mut [f32], gain: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    let rows = block.as_chunks_mut::<LANES>().0;
    let share = 1.0 / rows.len() as f32;
    let mut mean = [0.0_f32; LANES];
    for (row, gain) in rows.iter_mut().zip(gain) {
        for (value, mean) in row.iter_mut().zip(&mut mean) {
            *value += gain;
            *mean += *value;
        }
    }
    for mean in &mut mean {
        *mean *= share;
    }
    let mut factor = [0.0_f32; LANES];
    for row in rows.iter() {
        for ((value, mean), sum) in row.iter().zip(&mean).zip(&mut factor) {
            *sum += (value - mean) * (value - mean);
        }
    }
    for factor in &mut factor {
        *factor = 1.0 / (*factor * share + eps).sqrt();
    }
    for ((row, weight), bias) in rows.iter_mut().zip(weight).zip(bias) {
        for ((value, mean), factor) in row.iter_mut().zip(&mean).zip(&factor) {
            *value = (*value - mean) * factor * weight + bias;
        }
    }
}

for_each_level! {
    pub(crate) fn fill_rows = fill_rows_body(block: &mut [f32], values: &[f32])
}
for_each_level! {
    fn add = add_body(a: &[f32], b: &[f32], out: &mut [f32])
}
for_each_level! {
    fn soften_tokens = fused soften_tokens_body(logits: &mut [f32], tokens: usize)
}
for_each_level! {
    fn soften_pixels = fused soften_pixels_body(logits: &mut [f32], most: &mut [f32], total: &mut [f32], shrink: &mut [f32])
}
for_each_level! {
    fn scale_rows = scale_rows_body(sums: &mut [f32], factors: &[f32])
}
for_each_level! {
    fn turn = turn_body(weights: &[f32], rows: usize, turned: &mut [f32])
}
for_each_level! {
    pub(crate) fn norm_channels = norm_channels_body(block: &mut [f32], gain: &[f32], weight: &[f32], bias: &[f32], eps: f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    /// Softmax of `logits`, in `f64`.
    fn softmax(logits: &[f64]) -> Vec<f64> {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / total).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 2e-5, "at {index}: {found}, expected {expected}");
        }
    }

    /// The definition, for one prompt; keys and values as rows `[pixels, C]`.
    fn slow_gather(queries: &[f32], keys: &[f32], values: &[f32], channels: usize, groups: usize) -> Vec<f64> {
        let (depth, per_group) = (channels / groups, queries.len() / channels);
        let mut out = Vec::new();
        for (row, query) in queries.chunks_exact(depth).enumerate() {
            let first = row / per_group * depth;
            let part = |pixel: &[f32]| pixel[first..first + depth].to_vec();
            let logits: Vec<f64> = keys.chunks_exact(channels).map(|pixel| dot(query, &part(pixel))).collect();
            let weights = softmax(&logits);
            for channel in first..first + depth {
                let pairs = weights.iter().zip(values.chunks_exact(channels));
                out.push(pairs.map(|(weight, pixel)| weight * f64::from(pixel[channel])).sum());
            }
        }
        out
    }

    #[test]
    fn rows_come_back_from_blocks() {
        for shape in [[1, 1, 1], [2, 131, 5], [3, 48, 7], [1, 97, 16]] {
            let rows = wave(1, shape.iter().product());
            let maps = BlockedMaps::from_rows(&rows, shape);
            assert_eq!([maps.images(), maps.pixels(), maps.channels()], shape);
            assert_eq!(maps.to_rows(), rows);
        }
    }

    #[test]
    fn windows_hold_the_pixels_they_name() {
        let ([height, width], channels) = ([13, 23], 5);
        let rows = wave(1, 2 * height * width * channels);
        let maps = BlockedMaps::from_rows(&rows, [2, height * width, channels]);
        let (windows, [h, w]) = ([[0, 0, 0], [1, 4, 3], [0, 3, 9]], [9, 14]);
        let found = maps.windows(width, &windows, [h, w]).to_rows();
        let mut expected = Vec::new();
        for [image, y, x] in windows {
            for row in y..y + h {
                let first = ((image * height + row) * width + x) * channels;
                expected.extend_from_slice(&rows[first..first + w * channels]);
            }
        }
        assert_eq!(found, expected);
        assert!(maps.windows(width, &[], [3, 3]).to_rows().is_empty());
    }

    #[test]
    fn gathering_equals_its_definition() {
        // One strip with a full block, several strips with a rest; one prompt, prompts that share an image.
        for (pixels, image_of, tokens) in [(48, &[0][..], 1), (2300, &[1, 0, 1], 7), (131, &[0, 1], 9)] {
            let (channels, heads) = (24, 4);
            let (keys, values) = (wave(1, 2 * pixels * channels), wave(2, 2 * pixels * channels));
            let blocked = |rows: &[f32]| BlockedMaps::from_rows(rows, [2, pixels, channels]);
            for groups in [1, heads] {
                let queries: Vec<f32> = wave(3, image_of.len() * heads * tokens * channels / groups);
                let parts = Queries { values: &queries, offsets: None, heads, tokens, groups };
                let found = gather(&parts, &blocked(&keys), &blocked(&values), image_of);
                let expected: Vec<f64> = queries
                    .chunks_exact(queries.len() / image_of.len())
                    .zip(image_of)
                    .flat_map(|(queries, &image)| {
                        let of = |rows: &[f32]| rows[image * pixels * channels..][..pixels * channels].to_vec();
                        slow_gather(queries, &of(&keys), &of(&values), channels, groups)
                    })
                    .collect();
                assert_close(&found, &expected);
            }
        }
    }

    #[test]
    fn an_exchange_equals_its_steps_one_by_one() {
        for (pixels, image_of) in [(131, &[0, 1, 0][..]), (1200, &[0, 0]), (7, &[1, 0])] {
            let (channels, inner, heads, tokens) = (24, 12, 4, 3);
            let (rows, prompts) = (heads * tokens, image_of.len());
            let (source, positions) = (wave(1, 2 * pixels * channels), wave(2, 2 * pixels * channels));
            let pixel_queries = wave(3, 2 * pixels * inner);
            let token_values = wave(5, prompts * rows * channels);
            let (bias, weight, offset) = (wave(6, channels), wave(7, channels), wave(8, channels));
            let token_queries = wave(9, prompts * rows * channels);
            let blocked = |rows: &[f32], channels: usize| BlockedMaps::from_rows(rows, [2, pixels, channels]);
            for projected in [true, false] {
                let (groups, width) = if projected { (heads, inner) } else { (1, channels) };
                let token_keys = wave(4, prompts * rows * width / groups);
                let queries = blocked(&pixel_queries, inner);
                let offsets = wave(10, prompts * rows);
                let exchange = Exchange {
                    positions: &blocked(&positions, channels),
                    image_of,
                    pixel_queries: projected.then_some(&queries),
                    token_keys: Queries { values: &token_keys, offsets: Some(&offsets), heads, tokens, groups },
                    token_values: &token_values,
                    bias: &bias,
                    norm: (&weight, &offset, 1e-5),
                    token_queries: Queries { values: &token_queries, offsets: None, heads, tokens, groups: 1 },
                };
                let mut maps = BlockedMaps::reused(prompts, channels, pixels);
                maps.values.fill(f32::NAN);
                let found = exchange.run(Some(&blocked(&source, channels)), &mut maps);

                // The same with the map handed in as each prompt's own.
                let own: Vec<f32> = image_of
                    .iter()
                    .flat_map(|&image| source[image * pixels * channels..][..pixels * channels].iter().copied())
                    .collect();
                let mut in_place = BlockedMaps::from_rows(&own, [prompts, pixels, channels]);
                assert_eq!(exchange.run(None, &mut in_place), found);
                assert_eq!(in_place.to_rows(), maps.to_rows());

                let new = maps.to_rows();
                for (prompt, &image) in image_of.iter().enumerate() {
                    let keys = &token_keys[prompt * rows * width / groups..][..rows * width / groups];
                    for pixel in 0..pixels {
                        let at = image * pixels + pixel;
                        let here = &source[at * channels..][..channels];
                        let place = &positions[at * channels..][..channels];
                        let mut sum: Vec<f64> =
                            here.iter().zip(&bias).map(|(x, bias)| f64::from(*x) + f64::from(*bias)).collect();
                        for head in 0..heads {
                            let logits: Vec<f64> = (head * tokens..(head + 1) * tokens)
                                .map(|row| {
                                    let key = &keys[row * width / groups..][..width / groups];
                                    let offset = f64::from(offsets[prompt * rows + row]);
                                    offset
                                        + if projected {
                                            dot(key, &pixel_queries[at * inner + head * 3..][..3])
                                        } else {
                                            dot(key, here) + dot(key, place)
                                        }
                                })
                                .collect();
                            for (token, weight) in softmax(&logits).into_iter().enumerate() {
                                let row = prompt * rows + head * tokens + token;
                                for (sum, value) in sum.iter_mut().zip(&token_values[row * channels..]) {
                                    *sum += weight * f64::from(*value);
                                }
                            }
                        }
                        let mean = sum.iter().sum::<f64>() / channels as f64;
                        let variance = sum.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / channels as f64;
                        let expected: Vec<f64> = (0..channels)
                            .map(|channel| {
                                (sum[channel] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[channel])
                                    + f64::from(offset[channel])
                            })
                            .collect();
                        assert_close(&new[(prompt * pixels + pixel) * channels..][..channels], &expected);
                    }
                    let map = &new[prompt * pixels * channels..][..pixels * channels];
                    let place = &positions[image * pixels * channels..][..pixels * channels];
                    let placed: Vec<f32> = map.iter().zip(place).map(|(x, place)| x + place).collect();
                    let queries = &token_queries[prompt * rows * channels..][..rows * channels];
                    let expected = slow_gather(queries, &placed, map, channels, 1);
                    assert_close(&found[prompt * rows * channels..][..rows * channels], &expected);
                }
            }
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        // The largest comes last, far above what was summed before; a strip of nothing but small ones beside it.
        let pixels = 1100;
        let keys: Vec<f32> = (0..pixels).map(|pixel| pixel as f32 - 300.0).collect();
        let maps = BlockedMaps::from_rows(&keys, [1, pixels, 1]);
        let queries = Queries { values: &[1.0, -1.0], offsets: None, heads: 1, tokens: 2, groups: 1 };
        let found = gather(&queries, &maps, &maps, &[0]);
        let expected = slow_gather(&[1.0, -1.0], &keys, &keys, 1, 1);
        assert!((f64::from(found[0]) - expected[0]).abs() < 1e-3 && (f64::from(found[1]) - expected[1]).abs() < 1e-3);
    }

    #[test]
    fn nothing_in_nothing_out() {
        let maps = BlockedMaps::zeros(0, 8, 50);
        let queries = Queries { values: &[], offsets: None, heads: 2, tokens: 3, groups: 1 };
        assert!(gather(&queries, &maps, &maps, &[]).is_empty());
    }

    #[test]
    fn every_level_gives_the_same_loops() {
        let logits = wave(1, 12 * LANES);
        for level in Level::all() {
            let (mut found, mut expected) = (logits.clone(), logits.clone());
            soften_tokens(level, &mut found, 3);
            soften_tokens_body::<false>(&mut expected, 3);
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{level:?}");
            let (mut found, mut expected) = (logits.clone(), logits.clone());
            let terms = wave(2, 12);
            norm_channels(level, &mut found, &terms, &terms, &terms, 1e-5);
            norm_channels_body(&mut expected, &terms, &terms, &terms, 1e-5);
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{level:?}");
        }
    }
}
