//! Batches of prompts, side by side.
//!
//! A batch of a few prompts is a hundred small steps, of which those between the products run on one thread. On the CPU some batches
//! are under way at a time, so that one's products fill the threads while another copies.

use burn::tensor::Tensor;

use crate::Error;

/// What `work` makes of each batch, in order; `x` is what the batches work on.
///
/// # Errors
/// That of one of the batches.
pub(crate) fn each_batch<B: Sync, T: Send>(
    x: &Tensor<4>,
    batches: &[B],
    work: impl Fn(&B) -> Result<T, Error> + Send + Sync,
) -> Result<Vec<T>, Error> {
    #[cfg(feature = "flex")]
    if crate::cpu::is_plain(x) {
        use rayon::prelude::*;
        return batches.par_iter().map(work).collect();
    }
    let _ = x;
    batches.iter().map(work).collect()
}
