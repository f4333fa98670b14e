//! What `cytomask train` needs around the loop: which files belong together, reading and checking them, defaults from the hardware, the
//! run's log and page. The loop itself is [`crate::train`].

mod dataset;
mod hardware;
mod labels;
mod log;
mod pairs;

pub use dataset::{DataOptions, DataRow, Dataset, Use, open};
pub use hardware::{Defaults, Hardware};
pub use log::{RunLog, Status};
pub use pairs::{Pair, Paired, pair_folders, read_pairs};
