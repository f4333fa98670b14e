//! The training loop: one step trains the instance decoder and the prompted masks on the same crops.
//!
//! The schedule of prompts is µSAM's with a third beginning (point and box together). Left out against µSAM: mask prompts, and a
//! separate optimizer step for each of the two objectives (here their gradients are summed).

use std::path::{Path, PathBuf};

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use cytomask_eval::{BothEmpty, contingency, mean_segmentation_accuracy};
use cytomask_image::Rgb;
use cytomask_models::cytomask_t::{CytomaskT, CytomaskTOptions, PIXEL_MEAN, PIXEL_STD, ScaleChoice};
use cytomask_segment::{Ais, Apg, FieldModel, PointPrompt, Prompt, PromptModel};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::{Crop, CropSampler, Sample};
use crate::prompts::{FirstPrompt, choose_objects, corrections, first};
use crate::targets::distance_targets;
use crate::{Error, ErrorKind, losses, network};

/// Parts of objects below this are not trained on; µSAM's `min_size`.
const MIN_OBJECT_PX: u64 = 25;

/// Gradients are scaled down to this norm.
const GRADIENT_NORM: f32 = 5.0;

/// The learning rate falls to zero as `(1 − t)` to this power.
const DECAY_POWER: f64 = 0.9;

/// Everything that decides how a run goes, apart from its data and first weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Optimizer steps of the whole run.
    pub iterations: u64,
    /// Crops a step.
    pub batch_size: usize,
    /// Side of a crop, pixels, a multiple of 32.
    pub crop_side: u32,
    /// Peak learning rate; the encoder gets a quarter of it.
    pub learning_rate: f64,
    /// Decay of AdamW.
    pub weight_decay: f32,
    /// Steps over which the learning rate rises from zero.
    pub warm_up: u64,
    /// Objects prompted for in a crop.
    pub objects_per_crop: usize,
    /// Rounds of prompts: the first one, then corrections.
    pub sub_iterations: usize,
    /// Objects are enlarged or shrunk by up to this factor.
    pub zoom: f64,
    /// Seed of sampling and augmentation.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            iterations: 1000,
            batch_size: 4,
            crop_side: 224,
            learning_rate: 1e-4,
            weight_decay: 0.01,
            warm_up: 50,
            objects_per_crop: 8,
            sub_iterations: 2,
            zoom: 1.5,
            seed: 0,
        }
    }
}

impl TrainSettings {
    fn check(&self) -> Result<(), Error> {
        let wrong = |name: &str, expected: &str, found: String| {
            Err(Error::new(ErrorKind::Setting, format!("{name}: expected {expected}, found {found}")))
        };
        if self.crop_side == 0 || !self.crop_side.is_multiple_of(32) {
            return wrong("patch_shape", "a multiple of 32", self.crop_side.to_string());
        }
        if self.batch_size == 0 || self.iterations == 0 || self.sub_iterations == 0 {
            return wrong("batch_size, n_iterations and sub_iterations", "at least 1", "0".into());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            return wrong("learning_rate", "a number above 0 and below 1", self.learning_rate.to_string());
        }
        if self.zoom.is_nan() || self.zoom < 1.0 {
            return wrong("zoom", "at least 1", self.zoom.to_string());
        }
        Ok(())
    }

    /// Warm-up, then polynomial decay.
    fn learning_rate_at(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let rest = (1.0 - step as f64 / self.iterations as f64).max(0.0);
        self.learning_rate * warm * rest.powf(DECAY_POWER)
    }
}

/// What one step reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Loss of the distance maps.
    pub maps: f32,
    /// Loss of the prompted masks; 0 when no crop held an object.
    pub masks: f32,
    /// Learning rate of this step.
    pub learning_rate: f64,
}

/// mSA on the validation images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// By decoder maps and watershed.
    pub ais: f64,
    /// By automatic prompt generation.
    pub apg: f64,
}

/// What a checkpoint says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: u64,
    best: Option<f64>,
    settings: TrainSettings,
}

/// A network being trained.
pub struct Trainer {
    network: CytomaskT,
    optimizer: ModuleOptimizer,
    settings: TrainSettings,
    training: Vec<Sample>,
    validation: Vec<Sample>,
    device: Device,
    step: u64,
    best: Option<f64>,
}

impl Trainer {
    /// Begins a run from the weights of `network`.
    ///
    /// # Errors
    /// `Setting` for values no run can work with, `Data` without training images.
    pub fn new(
        network: CytomaskT,
        device: &Device,
        settings: TrainSettings,
        training: Vec<Sample>,
        validation: Vec<Sample>,
    ) -> Result<Self, Error> {
        settings.check()?;
        if training.is_empty() {
            return Err(Error::new(ErrorKind::Data, "no training images"));
        }
        let optimizer = AdamWConfig::new()
            .with_weight_decay(settings.weight_decay)
            .with_epsilon(1e-8)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(GRADIENT_NORM)))
            .init();
        let device = device.clone().autodiff();
        let network = network.map(&mut Numbering(0)).train();
        Ok(Self { network, optimizer, settings, training, validation, device, step: 0, best: None })
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Best validation score so far.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// The settings of the run.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// The network without gradients, to run or to write.
    pub fn network(&self) -> CytomaskT {
        self.network.valid()
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// `Diverged` when the loss is no number: names the step and the images of the batch; the weights stay as they were.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        // Every step has a stream of its own, so that a resumed run draws what the unbroken one would have drawn.
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(self.step);
        let sampler = CropSampler { side: self.settings.crop_side, zoom: self.settings.zoom, intensity: true };
        let crops: Vec<Crop> = (0..self.settings.batch_size).map(|_| sampler.draw(&self.training, &mut rng)).collect();

        let features = network::features(&self.network, batch_of(&crops, &self.device))?;
        let maps = losses::distance_map_loss(features.maps.clone(), targets_of(&crops, &self.device));
        let masks = self.mask_loss(&crops, &features, &mut rng)?;

        let maps_value: f32 = maps.clone().into_scalar();
        let masks_value = masks.as_ref().map_or(0.0, |loss| loss.clone().into_scalar());
        if !(maps_value + masks_value).is_finite() {
            let names: Vec<String> =
                crops.iter().map(|crop| self.training[crop.source].path.display().to_string()).collect();
            let message =
                format!("step {}: the loss is not a number; images of the batch: {}", self.step, names.join(", "));
            return Err(Error::new(ErrorKind::Diverged, message));
        }
        let loss = match masks {
            Some(masks) => maps + masks,
            None => maps,
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let learning_rate = self.settings.learning_rate_at(self.step);
        self.network = self.optimizer.step(learning_rate, self.network.clone(), gradients);
        self.step += 1;
        Ok(StepReport { step: self.step, maps: maps_value, masks: masks_value, learning_rate })
    }

    /// Loss of prompted masks, averaged over the crops that hold objects; none when no crop does.
    fn mask_loss(
        &self,
        crops: &[Crop],
        features: &network::Features,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Tensor<1>>, Error> {
        let kind = FirstPrompt::of_iteration(self.step);
        let mut all = Vec::new();
        for (index, crop) in crops.iter().enumerate() {
            let ids = choose_objects(&crop.labels, self.settings.objects_per_crop, MIN_OBJECT_PX, rng);
            if ids.is_empty() {
                continue;
            }
            let extents = crop.labels.extents();
            let rect = |id: u32| extents[id as usize - 1].1;
            let mut prompts: Vec<Prompt> = ids.iter().map(|&id| first(&crop.labels, id, rect(id), kind, rng)).collect();
            let truth = truth_of(crop, &ids, &self.device);
            let largest = network::largest_offset(self.settings.crop_side);
            let offset = [rng.random_range(0..=largest), rng.random_range(0..=largest)];
            for round in 0..self.settings.sub_iterations {
                let multimask = round == 0 && kind.multimask();
                let (logits, iou) = network::decode(&self.network, features, index, &prompts, multimask, offset)?;
                all.push(losses::prompted_mask_loss(logits.clone(), iou.clone(), truth.clone()));
                if round + 1 < self.settings.sub_iterations {
                    let clicks: Vec<Vec<PointPrompt>> = best_masks(logits, iou)
                        .iter()
                        .zip(&ids)
                        .map(|(predicted, &id)| corrections(&crop.labels, id, rect(id), predicted, rng))
                        .collect();
                    // An object that fills the crop has no place for a negative click; a batch needs prompts of one form.
                    if clicks.iter().any(|clicks| clicks.len() != 2) {
                        break;
                    }
                    for (prompt, clicks) in prompts.iter_mut().zip(clicks) {
                        prompt.points.extend(clicks);
                    }
                }
            }
        }
        let count = all.len() as f32;
        Ok((!all.is_empty()).then(|| Tensor::cat(all, 0).sum() / count))
    }

    /// mSA of the validation images by AIS and APG; none without validation images.
    ///
    /// # Errors
    /// `Model` when the network fails.
    pub fn validate(&self, apg: &Apg) -> Result<Option<Validation>, Error> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let options = CytomaskTOptions { scale: ScaleChoice::Fixed(1.0), ..CytomaskTOptions::default() };
        let predictor = self.network().with_options(options);
        let failed =
            |error: cytomask_models::Error| Error::new(ErrorKind::Model, "validation failed").with_source(error);
        let (mut ais_sum, mut apg_sum) = (0.0, 0.0);
        for sample in &self.validation {
            let embedding = predictor.encode(&sample.image).map_err(failed)?;
            let fields = predictor.fields(&embedding).map_err(failed)?;
            let score = |labels: &cytomask_image::Labels| {
                contingency(&sample.labels, labels)
                    .map(|table| mean_segmentation_accuracy(&table, BothEmpty::One).msa)
                    .map_err(|error| Error::new(ErrorKind::Data, sample.path.display().to_string()).with_source(error))
            };
            ais_sum += score(&Ais::default().segment(&fields).labels)?;
            let found = apg.run_with_fields(&predictor, &embedding, &fields, &mut |_, _| {}).map_err(failed)?;
            apg_sum += score(&found.labels)?;
        }
        let count = self.validation.len() as f64;
        Ok(Some(Validation { ais: ais_sum / count, apg: apg_sum / count }))
    }

    /// Writes a checkpoint that [`Trainer::resume`] goes on from; `validation` decides whether it is also the best so far.
    ///
    /// The checkpoint is a folder that gets its name when it is complete; the one before it is removed after that. `best.safetensors`
    /// and `last.safetensors` are models that every command accepts.
    ///
    /// # Errors
    /// `Checkpoint` when the disk refuses.
    pub fn save(&mut self, folder: &Path, validation: Option<Validation>) -> Result<(), Error> {
        let is_best = validation.is_some_and(|found| self.best.is_none_or(|best| found.apg > best));
        if is_best {
            self.best = validation.map(|found| found.apg);
        }
        let name = format!("checkpoint-{:08}", self.step);
        let building = folder.join(format!("{name}.part"));
        let failed = |what: &Path, error: std::io::Error| unwritable(what, error);
        if building.exists() {
            std::fs::remove_dir_all(&building).map_err(|error| failed(&building, error))?;
        }
        std::fs::create_dir_all(&building).map_err(|error| failed(&building, error))?;
        self.write_weights(&building.join("model.safetensors"))?;
        let optimizer = building.join("optimizer.bpk");
        self.optimizer.save(&optimizer).map_err(|error| unwritable(&optimizer, error))?;
        let state = State { step: self.step, best: self.best, settings: self.settings.clone() };
        let state_file = building.join("state.json");
        let text = serde_json::to_string_pretty(&state).map_err(|error| unwritable(&state_file, error))?;
        std::fs::write(&state_file, text).map_err(|error| failed(&state_file, error))?;

        let complete = folder.join(&name);
        if complete.exists() {
            std::fs::remove_dir_all(&complete).map_err(|error| failed(&complete, error))?;
        }
        std::fs::rename(&building, &complete).map_err(|error| failed(&complete, error))?;
        self.write_weights(&folder.join("last.safetensors"))?;
        if is_best {
            self.write_weights(&folder.join("best.safetensors"))?;
        }
        for older in checkpoints(folder).into_iter().filter(|path| *path != complete) {
            std::fs::remove_dir_all(&older).map_err(|error| failed(&older, error))?;
        }
        Ok(())
    }

    fn write_weights(&self, path: &Path) -> Result<(), Error> {
        let metadata = [("step".to_owned(), self.step.to_string())].into_iter().collect();
        let tensors = cytomask_models::loading::state_dict(&self.network(), "");
        cytomask_weights::write_safetensors(path, &tensors, &metadata).map_err(|error| unwritable(path, error))
    }

    /// Goes on from the newest complete checkpoint in `folder`: the same weights, optimizer, step and random draws.
    ///
    /// # Errors
    /// `Checkpoint` when there is none, it cannot be read, or it belongs to a run with other settings.
    pub fn resume(mut self, folder: &Path) -> Result<Self, Error> {
        let Some(newest) = checkpoints(folder).pop() else {
            let message = format!("{}: no checkpoint to go on from", folder.display());
            return Err(Error::new(ErrorKind::Checkpoint, message));
        };
        let unreadable =
            |path: &Path| Error::new(ErrorKind::Checkpoint, format!("{}: cannot go on from it", path.display()));
        let state_file = newest.join("state.json");
        let text = std::fs::read_to_string(&state_file).map_err(|error| unreadable(&state_file).with_source(error))?;
        let state: State = serde_json::from_str(&text).map_err(|error| unreadable(&state_file).with_source(error))?;
        if state.settings != self.settings {
            let message = format!(
                "{}: the checkpoint belongs to a run with other settings ({:?}, now {:?})",
                newest.display(),
                state.settings,
                self.settings
            );
            return Err(Error::new(ErrorKind::Checkpoint, message));
        }
        let weights = newest.join("model.safetensors");
        let checkpoint =
            cytomask_weights::Checkpoint::open(&weights).map_err(|error| unreadable(&weights).with_source(error))?;
        let loaded = cytomask_models::loading::load_into(self.network.valid(), checkpoint.model(), "")
            .map_err(|error| unreadable(&weights).with_source(error))?;
        self.network = loaded.module.train();
        let optimizer = newest.join("optimizer.bpk");
        self.optimizer = self.optimizer.load(&optimizer).map_err(|error| unreadable(&optimizer).with_source(error))?;
        (self.step, self.best) = (state.step, state.best);
        Ok(self)
    }
}

/// Numbers the parameters in the module's order. The optimizer keeps its state by these numbers; drawn at random, as they are
/// otherwise, they would be other ones after a resumption and the state would be lost in silence.
struct Numbering(u64);

impl ModuleMapper for Numbering {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        self.0 += 1;
        Param::from_mapped_value(ParamId::from(self.0), tensor, mapper)
    }
}

fn unwritable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Checkpoint, format!("{}: cannot write", path.display())).with_source(error)
}

/// Complete checkpoints, oldest first.
fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_dir() && name.starts_with("checkpoint-") && !name.ends_with(".part")
        })
        .collect();
    found.sort();
    found
}

/// `[N, 3, side, side]`, normalised.
fn batch_of(crops: &[Crop], device: &Device) -> Tensor<4> {
    let size = crops[0].image.size;
    let planes = |image: &Rgb| image.normalize_and_pad(size, PIXEL_MEAN, PIXEL_STD);
    let values: Vec<f32> = crops.iter().flat_map(|crop| planes(&crop.image)).collect();
    let [h, w] = size.map(|side| side as usize);
    Tensor::from_data(TensorData::new(values, [crops.len(), 3, h, w]), device)
}

/// `[N, 3, side, side]`: foreground, centre distance, boundary distance.
fn targets_of(crops: &[Crop], device: &Device) -> Tensor<4> {
    let [h, w] = crops[0].labels.size().map(|side| side as usize);
    let values: Vec<f32> = crops
        .iter()
        .flat_map(|crop| {
            let targets = distance_targets(&crop.labels, MIN_OBJECT_PX);
            [targets.foreground, targets.center_distance, targets.boundary_distance].concat()
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [crops.len(), 3, h, w]), device)
}

/// One binary mask for each object, `[objects, side, side]`.
fn truth_of(crop: &Crop, ids: &[u32], device: &Device) -> Tensor<3> {
    let [h, w] = crop.labels.size().map(|side| side as usize);
    let pixels = crop.labels.as_slice();
    let values: Vec<f32> =
        ids.iter().flat_map(|id| pixels.iter().map(move |pixel| f32::from(u8::from(pixel == id)))).collect();
    Tensor::from_data(TensorData::new(values, [ids.len(), h, w]), device)
}

/// For each object the mask of the output with the highest predicted IoU.
fn best_masks(logits: Tensor<4>, predicted_iou: Tensor<2>) -> Vec<Vec<bool>> {
    let [objects, outputs, h, w] = logits.dims();
    let scores: Vec<f32> = predicted_iou.into_data().iter::<f32>().collect();
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    (0..objects)
        .map(|object| {
            let of = |output: usize| scores[object * outputs + output];
            let best = (1..outputs).fold(0, |best, next| if of(next) > of(best) { next } else { best });
            let start = (object * outputs + best) * h * w;
            values[start..start + h * w].iter().map(|&logit| logit > 0.0).collect()
        })
        .collect()
}
