//! The crops of each step, made ahead in threads of their own so that the step does not wait for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Crop, CropSampler, MIN_OBJECT_PX, Store};
use crate::targets::distance_targets;
use crate::{Error, ErrorKind};

/// Batches each worker has ready at most.
const AHEAD: usize = 2;

/// Sets the streams of crops apart from those of prompts, which have the run's seed itself.
const CROP_SEED: u64 = 0x6372_6f70_7300;

/// All that decides which crops a step gets.
#[derive(Clone)]
pub struct BatchPlan {
    /// The images.
    pub store: Arc<Store>,
    /// How crops are cut.
    pub sampler: CropSampler,
    /// Crops in a batch.
    pub batch_size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Whether the maps the instance decoder learns are made too.
    pub targets: bool,
}

/// The crops of one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which step.
    pub step: u64,
    /// `batch_size` crops.
    pub crops: Vec<Crop>,
}

impl BatchPlan {
    /// The crops of a step: the same for the same plan and step, whatever came before. Every crop has a random stream of its own.
    ///
    /// # Errors
    /// `Data` when an image cannot be read, or there is none.
    pub fn draw(&self, step: u64) -> Result<Batch, Error> {
        if self.store.is_empty() {
            return Err(Error::new(ErrorKind::Data, "no training images"));
        }
        let mut batch = Batch { step, crops: Vec::with_capacity(self.batch_size) };
        for index in 0..self.batch_size as u64 {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ CROP_SEED);
            rng.set_stream(step.wrapping_mul(self.batch_size as u64).wrapping_add(index));
            let mut crop = self.sampler.draw(&self.store, &mut rng)?;
            if self.targets {
                crop.targets = Some(distance_targets(&crop.labels, MIN_OBJECT_PX));
            }
            batch.crops.push(crop);
        }
        Ok(batch)
    }
}

/// Batches in the order of their steps.
pub struct Batches {
    plan: Arc<BatchPlan>,
    workers: usize,
    /// One a worker, which makes every `workers`-th batch; empty before the first is asked for.
    queues: Vec<Receiver<Result<Batch, Error>>>,
    /// The step the workers have next.
    upcoming: u64,
    waited: Duration,
}

impl Batches {
    /// Batches made by `workers` threads, or by the caller's own thread when that is 0.
    pub fn new(plan: BatchPlan, workers: usize) -> Self {
        Self { plan: Arc::new(plan), workers, queues: Vec::new(), upcoming: 0, waited: Duration::ZERO }
    }

    /// What decides the crops.
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// How long [`Batches::of_step`] waited the last time, the time of making a batch in the caller's own thread included.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The batch of a step. Steps in order come from what was made ahead; after a jump the workers begin anew.
    ///
    /// # Errors
    /// As [`BatchPlan::draw`].
    pub fn of_step(&mut self, step: u64) -> Result<Batch, Error> {
        let start = Instant::now();
        let batch = self.take(step);
        self.waited = start.elapsed();
        batch
    }

    fn take(&mut self, step: u64) -> Result<Batch, Error> {
        if self.workers == 0 {
            return self.plan.draw(step);
        }
        if self.queues.is_empty() || step != self.upcoming {
            self.begin(step)?;
        }
        self.upcoming = step + 1;
        let queue = &self.queues[(step % self.workers as u64) as usize];
        let ended = || Error::new(ErrorKind::Data, format!("step {step}: the thread that makes batches ended"));
        queue.recv().map_err(|_| ended())?
    }

    /// Starts the workers; those of before end when they find their queue gone.
    fn begin(&mut self, first: u64) -> Result<(), Error> {
        self.queues.clear();
        let workers = self.workers as u64;
        let mut queues = Vec::with_capacity(self.workers);
        for worker in 0..workers {
            let (sender, queue) = sync_channel(AHEAD);
            let plan = Arc::clone(&self.plan);
            let mut step = first + (worker + workers - first % workers) % workers;
            let work = move || {
                while sender.send(plan.draw(step)).is_ok() {
                    step += workers;
                }
            };
            let named = std::thread::Builder::new().name(format!("batches-{worker}"));
            let failed = |error| Error::new(ErrorKind::Data, "cannot start a thread for batches").with_source(error);
            named.spawn(work).map_err(failed)?;
            queues.push(queue);
        }
        self.queues = queues;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cytomask_image::{Labels, Rgb};

    use super::*;
    use crate::data::{Augmentation, Sample};

    fn plan() -> BatchPlan {
        let mut labels = Labels::zeros([97, 131]);
        for y in 20..60 {
            labels.as_mut_slice()[y * 131 + 30..y * 131 + 90].fill(4);
        }
        let samples = (0..97 * 131 * 3).map(|at| (at % 251) as f32).collect();
        let image = Rgb { size: [97, 131], samples };
        let store = Arc::new(Store::from(vec![Sample { path: "made.png".into(), image, labels }]));
        let sampler = CropSampler { side: 64, augmentation: Augmentation::default(), empty_share: 0.0 };
        BatchPlan { store, sampler, batch_size: 2, seed: 5, targets: true }
    }

    fn pixels(batch: &Batch) -> Vec<f32> {
        batch.crops.iter().flat_map(|crop| crop.image.samples.clone()).collect()
    }

    #[test]
    fn a_batch_depends_on_its_step_alone() {
        for workers in [0, 1, 3] {
            let mut batches = Batches::new(plan(), workers);
            for step in [0, 1, 2, 3, 4, 17, 18, 2, 3] {
                let batch = batches.of_step(step).unwrap();
                let expected = plan().draw(step).unwrap();
                assert_eq!((batch.step, pixels(&batch)), (step, pixels(&expected)), "{workers} workers");
                assert!(batch.crops.iter().all(|crop| crop.targets.is_some()));
            }
        }
        assert_ne!(pixels(&plan().draw(0).unwrap()), pixels(&plan().draw(1).unwrap()));
        let other = BatchPlan { seed: 6, ..plan() };
        assert_ne!(pixels(&plan().draw(0).unwrap()), pixels(&other.draw(0).unwrap()));
        let crops = plan().draw(0).unwrap().crops;
        assert_ne!(crops[0].image.samples, crops[1].image.samples);
    }

    #[test]
    fn a_file_that_vanishes_is_named_at_its_step() {
        let missing =
            Box::new(|_, path: &std::path::Path| Err(Error::new(ErrorKind::Data, format!("{}: gone", path.display()))));
        let mut store = Store::new(0, missing);
        let image = Rgb { size: [9, 9], samples: vec![0.0; 243] };
        store.push(&Sample { path: "gone.png".into(), image, labels: Labels::zeros([9, 9]) }, 1.0);
        let mut batches = Batches::new(BatchPlan { store: Arc::new(store), ..plan() }, 1);
        let error = batches.of_step(0).unwrap_err();
        assert!(error.to_string().contains("gone.png"), "{error}");
        let none = BatchPlan { store: Arc::new(Store::from(Vec::new())), ..plan() };
        assert_eq!(none.draw(0).unwrap_err().kind(), ErrorKind::Data);
    }
}
