//! How long a model's networks have run, for `--timings`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Seconds spent in each network, of all threads and all images since the model was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkSeconds {
    /// Image encoder, with the resizing before it; for the built-in model its decoder too, which shares the encoder's pass.
    pub encoder: f64,
    /// Instance decoder, with the resizing of its maps.
    pub instance_decoder: f64,
    /// Prompt encoder and mask decoder.
    pub mask_decoder: f64,
    /// A network that predicts flows, without what lies around it: cutting and blending tiles, resizing.
    pub flow_network: f64,
}

/// Nanoseconds, added up by whoever runs a network.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) encoder: Counter,
    pub(crate) instance_decoder: Counter,
    pub(crate) mask_decoder: Counter,
    /// Shared with the predictor, which runs its network tile by tile.
    pub(crate) flow_network: Arc<Counter>,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.0.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done
    }

    fn seconds(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e9
    }
}

impl Clock {
    pub(crate) fn seconds(&self) -> NetworkSeconds {
        NetworkSeconds {
            encoder: self.encoder.seconds(),
            instance_decoder: self.instance_decoder.seconds(),
            mask_decoder: self.mask_decoder.seconds(),
            flow_network: self.flow_network.seconds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_adds_up_where_it_is_spent() {
        let clock = Clock::default();
        let pause = || std::thread::sleep(Duration::from_millis(3));
        assert_eq!(clock.encoder.time(|| 7), 7);
        clock.mask_decoder.time(pause);
        clock.mask_decoder.time(pause);
        let seconds = clock.seconds();
        assert!(seconds.mask_decoder >= 0.006 && seconds.encoder < seconds.mask_decoder, "{seconds:?}");
        assert_eq!(seconds.instance_decoder, 0.0);
    }
}
