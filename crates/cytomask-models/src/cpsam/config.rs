//! Sizes of Cellpose-SAM.

use cytomask_weights::TensorMap;

use crate::sam::VitConfig;
use crate::{Error, ErrorKind};

/// Blocks whose relative tables are those of SAM's global blocks: longer than those of windowed ones.
const LONG_TABLES: [usize; 4] = [5, 11, 17, 23];

/// A Cellpose-SAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpSamConfig {
    /// Side of the square tile it was trained at, pixels.
    pub tile_side: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Channels of a token.
    pub embed_dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels after the neck.
    pub out_channels: usize,
    /// Rows of each block's relative tables; they are resampled to the tile's.
    pub table_rows: Vec<usize>,
}

/// Channels of the output: flow along y, flow along x, logit of being in a cell.
pub const MAPS: usize = 3;

/// The released one (`cpsam`, `cpsam_v2`): 304.6 million parameters. See [`CpSamConfig::of`] for what a file holds.
pub fn released() -> CpSamConfig {
    let table_rows = (0..24).map(|block| if LONG_TABLES.contains(&block) { 127 } else { 27 }).collect();
    CpSamConfig { tile_side: 256, patch_size: 8, embed_dim: 1024, heads: 16, out_channels: 256, table_rows }
}

impl CpSamConfig {
    /// The sizes of the network whose tensors these are, under `prefix`.
    ///
    /// # Errors
    /// `Format` for a file of another layout.
    pub fn of(tensors: &TensorMap, prefix: &str) -> Result<Self, Error> {
        let shape = |name: &str| {
            let name = format!("{prefix}{name}");
            tensors
                .get(&name)
                .map(|view| view.shape.to_vec())
                .ok_or_else(|| Error::new(ErrorKind::MissingTensor, format!("tensor `{name}` is missing")))
        };
        let wrong = |name: &str, found: &[usize]| {
            Error::new(ErrorKind::Format, format!("tensor `{prefix}{name}`: unexpected shape {found:?}"))
        };
        let pos_embed = shape("encoder.pos_embed")?;
        let &[1, grid, _, embed_dim] = pos_embed.as_slice() else { return Err(wrong("encoder.pos_embed", &pos_embed)) };
        let proj = shape("encoder.patch_embed.proj.weight")?;
        let &[_, 3, patch_size, _] = proj.as_slice() else {
            return Err(wrong("encoder.patch_embed.proj.weight", &proj));
        };
        let out = shape("out.weight")?;
        let &[outputs, out_channels, 1, 1] = out.as_slice() else { return Err(wrong("out.weight", &out)) };
        if outputs != MAPS * patch_size * patch_size {
            return Err(wrong("out.weight", &out));
        }
        let mut table_rows = Vec::new();
        let mut head = 0;
        while let Some(table) = tensors.get(&format!("{prefix}encoder.blocks.{}.attn.rel_pos_h", table_rows.len())) {
            let &[rows, channels] = table.shape else {
                return Err(wrong("encoder.blocks.*.attn.rel_pos_h", table.shape));
            };
            table_rows.push(rows);
            head = channels;
        }
        let fits = head > 0 && embed_dim.is_multiple_of(head) && table_rows.iter().all(|rows| rows % 2 == 1);
        if !fits || grid == 0 || patch_size == 0 {
            return Err(Error::new(ErrorKind::Format, "the sizes of this Cellpose-SAM do not fit together"));
        }
        let heads = embed_dim / head;
        Ok(Self { tile_side: grid * patch_size, patch_size, embed_dim, heads, out_channels, table_rows })
    }

    /// Its encoder, but for the tables.
    pub(super) fn encoder(&self) -> VitConfig {
        VitConfig {
            trained_side: self.tile_side,
            patch_size: self.patch_size,
            embed_dim: self.embed_dim,
            depth: 0,
            heads: self.heads,
            mlp_ratio: 4,
            window: 0,
            global_blocks: &[],
            out_channels: self.out_channels,
        }
    }
}
