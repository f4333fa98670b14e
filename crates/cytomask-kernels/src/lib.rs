//! The few hot CPU loops of the networks, over plain slices of `f32`: products with a packed matrix, convolutions, attention,
//! and the pointwise functions between them.
//!
//! A caller hands in slices and sizes and gets a slice back; nothing here knows tensors, models or threads' numbers (work is
//! spread over rayon's pool). Every function has its slow obvious twin in its tests. The instruction set is chosen once, at run
//! time ([`Level::best`]): AVX-512, AVX2 with FMA, NEON, or whatever the compiler makes of plain loops. Results of the
//! levels differ by rounding only; on one machine they do not depend on the number of threads.
//!
//! Products also come in bf16 (`bf16.rs`), products, convolutions and attention in 8 bits (`int8.rs`, `conv8.rs`,
//! `map_attention/eight.rs`): exact integer sums of rounded inputs and weights.
//!
//! All `unsafe` of the project is in `tile.rs`, `tile/registers.rs`, `bf16.rs`, `int8_tile.rs`, `int8_strip.rs` and `winograd_lanes.rs`
//! (loads and stores through pointers, bounds checked before each call) and in the one-line calls of functions compiled for an
//! instruction set after it was found.

mod attention;
pub mod backward;
mod bf16;
pub mod buffers;
mod conv;
mod conv8;
mod exchange;
mod gemm;
mod int8;
mod int8_strip;
mod int8_tile;
mod level;
mod map_attention;
mod masks;
mod norm;
mod pointwise;
#[cfg(test)]
mod testing;
mod tile;
mod upsample;
mod winograd;
mod winograd_lanes;

pub use attention::{AttentionShape, attention, relative_attention};
pub use bf16::{Packed16, bf16_is_native, multiply16, multiply16_around};
pub use conv::{Conv2dShape, SplitWeight, conv_transpose2x2, conv2d, depthwise2d, depthwise2d_last};
pub use conv8::{Weight8, conv2d8};
pub use exchange::{BlockedMaps, Exchange, Queries, gather};
pub use gemm::{Around, LayerNorm, Packed, linear, multiply, multiply_around};
pub use int8::{Packed8, int8_is_fast, multiply8, multiply8_around};
pub use level::Level;
pub use map_attention::{MapAttention, Positions, QkvOrder, map_attention, map_attention8};
pub use masks::MaskUpscaling;
pub use norm::{batch_norm, instance_norm, instance_norm_lines, layer_norm};
pub use pointwise::{Activation, gelu, relu, softmax, softmax_relative};
pub use upsample::upsample2;
pub use winograd::{Map, Weight3x3, conv3x3};
