//! The training loop: one step draws crops, takes their losses and moves the weights.
//!
//! The schedule of prompts is µSAM's with a third beginning (point and box together), or µSAM's own ([`Schedule::MicroSam`]).

use std::sync::Arc;
use std::time::Duration;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use cytomask_image::Rgb;
use cytomask_models::BareNetwork;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::adapters::Adapters;
use crate::average::Average;
use crate::data::{Batch, BatchPlan, Batches, Crop, CropSampler, Sample, Store};
use crate::flow_crops::{FlowCrop, draw, target_maps};
use crate::network::{Network, flows};
use crate::parameters::{Count, FirstValues, Plan, Prepare, Recompute, count, names, part_of, plan, with_gradients};
use crate::schedule::Course;
use crate::settings::{Objective, Part, Schedule, TrainSettings};
use crate::step::{Losses, Wanted, losses};
use crate::validation::Validation;
use crate::{Error, ErrorKind};

/// Threads that make batches ahead: one makes crops several times as fast as any network here trains on them.
const BATCH_THREADS: usize = 1;

/// What one step reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Loss of the distance maps, or of the flows; 0 where they are not trained.
    pub maps: f32,
    /// Loss of the prompted masks; 0 when no crop held an object, or where they are not trained.
    pub masks: f32,
    /// Learning rate of this step.
    pub learning_rate: f64,
}

/// What is trained: the network, and adapters beside it.
#[derive(Module, Debug)]
pub(crate) struct Trained {
    pub(crate) network: Network,
    pub(crate) adapters: Option<Adapters>,
}

impl Trained {
    /// The network with what the adapters add.
    pub(crate) fn merged(&self) -> Network {
        match &self.adapters {
            Some(adapters) => adapters.merged(self.network.clone()),
            None => self.network.clone(),
        }
    }
}

/// How many values are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of everything.
    pub all: Count,
    /// Of the image encoder and what is added to it.
    pub image_encoder: Count,
}

/// A network being trained.
pub struct Trainer {
    pub(crate) module: Trained,
    pub(crate) plan: Plan,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) settings: TrainSettings,
    pub(crate) batches: Batches,
    /// How long the last step waited for its crops.
    waited: Duration,
    pub(crate) validation: Vec<Sample>,
    /// For flows: each training image and its maps.
    flows: Vec<(Rgb, [Vec<f32>; 3])>,
    /// With gradients.
    pub(crate) device: Device,
    pub(crate) step: u64,
    pub(crate) course: Course,
    pub(crate) average: Option<Average>,
    /// Whether the weights it begins with are a model that someone could keep.
    pub(crate) begins_trained: bool,
}

impl Trainer {
    /// Begins a run from the weights of `network`, which lies on `device`.
    ///
    /// # Errors
    /// `Setting` for values no run can work with, `Data` without training images, `Unsupported` for an objective that is not this network's.
    pub fn new(
        network: BareNetwork,
        device: &Device,
        settings: TrainSettings,
        training: impl Into<Store>,
        validation: Vec<Sample>,
    ) -> Result<Self, Error> {
        settings.check()?;
        let training = training.into();
        if training.is_empty() {
            return Err(Error::new(ErrorKind::Data, "no training images"));
        }
        let new_decoder = settings.objective.maps() && matches!(network, BareNetwork::Sam(_, None));
        let network = Network::new(network, settings.objective.maps(), settings.input_side, settings.seed, device);
        let for_flows = settings.objective == Objective::Flows;
        if network.predicts_flows() != for_flows {
            let expected =
                if for_flows { "a Cellpose-SAM" } else { "a promptable network; Cellpose-SAM is trained with flows" };
            let message = format!("objective {:?}: expected {expected}, found {}", settings.objective, network.kind());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut optimizer = AdamWConfig::new().with_weight_decay(settings.weight_decay).with_epsilon(1e-8);
        if let Some(norm) = settings.gradient_norm {
            optimizer = optimizer.with_grad_clipping(Some(GradientClippingConfig::Norm(norm)));
        }
        let mut module = Trained { network, adapters: None };
        let mut plan = plan(&names(&module), &settings)?;
        module.adapters = module.network.adapters(&plan, settings.peft.as_ref(), settings.seed, device);
        let module = module.map(&mut Prepare { trained: &plan.trained, next: 0 });
        let mut device = device.clone().autodiff();
        let mut module = module.train();
        if settings.recompute {
            device = device.gradient_checkpointing();
            module = module.map(&mut Recompute);
        }
        plan.trained = with_gradients(&module);
        let average = settings.average.map(|kept| Average::new(kept, &module.valid(), &plan.trained));
        let mut flows = Vec::new();
        for index in 0..if for_flows { training.len() } else { 0 } {
            let (image, labels) = training.get(index)?.unpack();
            let maps = target_maps(&labels);
            flows.push((image, maps));
        }
        let sampler = CropSampler {
            side: settings.crop_side,
            augmentation: settings.augmentation,
            empty_share: settings.empty_share,
        };
        let plan_of_batches = BatchPlan {
            store: Arc::new(training),
            sampler,
            batch_size: settings.batch_size,
            seed: settings.seed,
            targets: settings.objective.maps(),
        };
        let batches = Batches::new(plan_of_batches, BATCH_THREADS);
        let waited = Duration::ZERO;
        let (optimizer, course) = (optimizer.init(), Course::default());
        Ok(Self {
            module,
            plan,
            optimizer,
            settings,
            batches,
            waited,
            validation,
            flows,
            device,
            step: 0,
            course,
            average,
            begins_trained: !new_decoder,
        })
    }

    /// Says that the run begins with first values ([`Trainer::from_scratch`]): they are never the best model. Nor is a SAM whose instance
    /// decoder is new.
    #[must_use]
    pub fn begins_untrained(mut self) -> Self {
        self.begins_trained = false;
        self
    }

    /// A network of the same form with first values instead of its weights: to train from scratch.
    #[must_use]
    pub fn from_scratch(network: BareNetwork, seed: u64) -> BareNetwork {
        let mut first = FirstValues::new(seed);
        match network {
            BareNetwork::CytomaskT(network) => BareNetwork::CytomaskT(network.map(&mut first)),
            BareNetwork::Sam(sam, _) => BareNetwork::Sam(sam.map(&mut first), None),
            BareNetwork::CpSam(network) => BareNetwork::CpSam(network.map(&mut first)),
        }
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Whether all steps are done, or the scores have not risen for as long as the settings bear.
    pub fn is_done(&self) -> bool {
        self.step >= self.settings.iterations || self.stopped_early()
    }

    /// Whether the scores have not risen for as long as the settings bear.
    pub fn stopped_early(&self) -> bool {
        self.course.is_over(&self.settings)
    }

    /// Best validation score of a checkpoint so far.
    pub fn best(&self) -> Option<f64> {
        self.course.best
    }

    /// Validation score of the model the run began with, where it was taken for a best one ([`Trainer::save_start`]).
    pub fn start(&self) -> Option<f64> {
        self.course.start
    }

    /// Whether weights that score so are the best so far: what [`Trainer::save`], or before the first step [`Trainer::save_start`], goes by.
    pub fn is_best(&self, validation: Option<Validation>) -> bool {
        let may_count = self.step > 0 || self.begins_trained;
        validation.is_some_and(|found| may_count && self.course.is_best(found.score()))
    }

    /// How long the last step waited for its crops.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The crops of a step, to look at; none where flows are trained, whose crops are drawn as they are used.
    ///
    /// # Errors
    /// `Data` when an image cannot be read.
    pub fn crops_of(&self, step: u64) -> Result<Vec<Crop>, Error> {
        match self.settings.objective {
            Objective::Flows => Ok(Vec::new()),
            _ => Ok(self.batches.plan().draw(step)?.crops),
        }
    }

    /// The settings of the run.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// How many values are trained.
    pub fn counts(&self) -> Counts {
        let encoder = |name: &str| part_of(name) == Some(Part::ImageEncoder) || name.starts_with("adapters.");
        Counts { all: count(&self.module, |_| true), image_encoder: count(&self.module, encoder) }
    }

    /// The network without gradients, as it is validated and exported: averaged where an average is kept, adapters merged.
    pub(crate) fn network(&self) -> Network {
        let valid = self.module.valid();
        match &self.average {
            Some(average) => average.fill(valid, &self.plan.trained).merged(),
            None => valid.merged(),
        }
    }

    /// One step: an optimizer step, or one for each loss as the schedule says.
    ///
    /// # Errors
    /// `Diverged` when a loss is no number: names the step and the images of the batch; that loss changes no weight.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let objective = self.settings.objective;
        let both = Wanted { maps: objective.maps() || objective == Objective::Flows, masks: objective.masks() };
        let phases = match self.settings.schedule {
            Schedule::MicroSam if both.maps && both.masks => {
                vec![Wanted { maps: false, ..both }, Wanted { masks: false, ..both }]
            }
            _ => vec![both],
        };
        let learning_rate = self.course.learning_rate(&self.settings, self.step);
        let mut report = StepReport { step: self.step + 1, maps: 0.0, masks: 0.0, learning_rate };
        let share = 1.0 / self.settings.accumulation as f32;
        let drawn = self.draw()?;
        for wanted in phases {
            let mut gradients = GradientsAccumulator::new();
            for (part, batch) in drawn.iter().enumerate() {
                // Every batch has a stream of its own, so that a resumed run draws what the unbroken one would have drawn.
                let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
                rng.set_stream(self.step * self.settings.accumulation as u64 + part as u64);
                let (losses, sources) = self.losses(batch.as_ref(), wanted, &mut rng)?;
                let value = |loss: &Option<Tensor<1>>| loss.clone().map_or(0.0, Tensor::into_scalar::<f32>);
                let (maps, masks) = (value(&losses.maps), value(&losses.masks));
                if !(maps + masks).is_finite() {
                    return Err(self.diverged(&sources));
                }
                report.maps += maps * share;
                report.masks += masks * share;
                if let Some(loss) = losses.sum() {
                    let found = GradientsParams::from_grads((loss * share).backward(), &self.module);
                    gradients.accumulate(&self.module, found);
                }
            }
            self.update(learning_rate, gradients.grads());
        }
        self.step += 1;
        if let Some(average) = &mut self.average {
            average.update(&self.module.valid(), &self.plan.trained, self.step);
        }
        Ok(report)
    }

    /// One optimizer step.
    pub(crate) fn update(&mut self, learning_rate: f64, gradients: GradientsParams) {
        self.module = self.optimizer.step(learning_rate, self.module.clone(), gradients);
    }

    /// The batches of this step. Crops with flows are drawn as they are used.
    fn draw(&mut self) -> Result<Vec<Option<Batch>>, Error> {
        let accumulation = self.settings.accumulation as u64;
        self.waited = Duration::ZERO;
        let mut drawn = Vec::new();
        for part in 0..accumulation {
            let flows = self.settings.objective == Objective::Flows;
            drawn.push(if flows { None } else { Some(self.batches.of_step(self.step * accumulation + part)?) });
            if !flows {
                self.waited += self.batches.waited();
            }
        }
        Ok(drawn)
    }

    /// Losses of a batch, and which images it is of.
    fn losses(
        &self,
        batch: Option<&Batch>,
        wanted: Wanted,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Losses, Vec<usize>), Error> {
        // Merged anew for every batch: a backward pass uses the graph up.
        let network = self.module.merged();
        let (settings, device) = (&self.settings, &self.device);
        if let Network::CpSam(network) = &network {
            let sources: Vec<usize> = (0..settings.batch_size).map(|_| rng.random_range(0..self.flows.len())).collect();
            let side = network.tile_side();
            let crop = |&source: &usize| draw(&self.flows[source].0, &self.flows[source].1, side, rng);
            let crops: Vec<FlowCrop> = sources.iter().map(crop).collect();
            let maps = Some(flows::loss(network, &crops, settings.stochastic_depth, rng, device)?);
            return Ok((Losses { maps, masks: None }, sources));
        }
        let crops = batch.map_or(&[][..], |batch| &batch.crops);
        let found = match &network {
            Network::CytomaskT(network) => losses(network, crops, wanted, settings, self.step, rng, device)?,
            Network::Sam(network) => losses(network, crops, wanted, settings, self.step, rng, device)?,
            Network::CpSam(_) => Losses::default(),
        };
        Ok((found, crops.iter().map(|crop| crop.source).collect()))
    }

    fn diverged(&self, sources: &[usize]) -> Error {
        let names: Vec<String> =
            sources.iter().map(|&source| self.batches.plan().store.path(source).display().to_string()).collect();
        let message =
            format!("step {}: the loss is not a number; images of the batch: {}", self.step, names.join(", "));
        Error::new(ErrorKind::Diverged, message)
    }
}
