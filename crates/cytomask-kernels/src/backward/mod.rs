//! The way back through the loops: gradients of inputs and parameters from the gradient of the result. For training; nothing an
//! image is segmented with.
//!
//! What a layer computed on the way is computed again where that is cheaper than keeping it (weights of attentions, moments of norms).
//! Sums over rows, pixels or images are cut by their sizes alone, not by the number of threads, so that a run can be repeated bit by
//! bit. Every function has its slow twin in its tests.

mod attention;
mod conv;
mod depthwise;
mod map_attention;
mod norm;
mod pointwise;
mod product;
mod resize;

pub use attention::attention_gradients;
pub use conv::{conv2d_input_gradient, conv2d_weight_gradient, map_sums};
pub use depthwise::{depthwise2d_input_gradient, depthwise2d_weight_gradient};
pub use map_attention::{MapAttentionGradients, map_attention_gradients};
pub use norm::{batch_norm_gradients, instance_norm_gradient, layer_norm_gradients};
pub use pointwise::{gelu_gradient, relu_gradient};
pub use product::{column_sums, linear_input_gradient, linear_weight_gradient};
pub use resize::upsample2_gradient;
