//! Checkpoints: all that a run needs to go on as if it had never stopped, and the models it has made so far.
//!
//! A checkpoint is a folder that gets its name when it is complete. Models are written before it: a run that is killed in between goes on
//! from the checkpoint before, and writes them again.

use std::path::{Path, PathBuf};

use burn::module::Module;
use cytomask_models::loading::{load_into, state_dict};
use cytomask_weights::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::average::Average;
use crate::parameters::Recompute;
use crate::schedule::Course;
use crate::settings::TrainSettings;
use crate::trainer::{Trained, Trainer};
use crate::validation::Validation;
use crate::{Error, ErrorKind};

/// The weights, adapters beside them.
const WEIGHTS: &str = "model.safetensors";
/// The moving average of the weights.
const AVERAGE: &str = "average.safetensors";
/// The model with the best score.
const BEST: &str = "best.safetensors";
/// What the optimizer remembers.
const OPTIMIZER: &str = "optimizer.bpk";
/// Step, scores and settings.
const STATE: &str = "state.json";

/// What a checkpoint says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: u64,
    course: Course,
    /// Training and validation images.
    images: [usize; 2],
    settings: TrainSettings,
}

impl Trainer {
    /// Before the first step: keeps the model the run begins with as the best until a checkpoint scores better, so that
    /// `best.safetensors` is never worse than what one had. Whether it did: not without a score, and not for weights that are first
    /// values in part. The next checkpoint remembers it.
    ///
    /// # Errors
    /// `Checkpoint` when the disk refuses.
    pub fn save_start(&mut self, folder: &Path, validation: Option<Validation>) -> Result<bool, Error> {
        let found = validation.filter(|_| self.step == 0 && self.is_best(validation));
        if let Some(found) = found {
            self.network().write(&folder.join(BEST), self.step)?;
            self.course.start = Some(found.score());
        }
        Ok(found.is_some())
    }

    /// Writes a checkpoint that [`Trainer::resume`] goes on from; `validation` decides whether it is also the best so far, and what
    /// the schedule makes of it.
    ///
    /// `last.safetensors` and `best.safetensors` are models that every command accepts, adapters merged; a file of the
    /// method's name (`lora.safetensors`) holds adapters alone by µSAM's names. The checkpoint before is removed.
    ///
    /// # Errors
    /// `Checkpoint` when the disk refuses.
    pub fn save(&mut self, folder: &Path, validation: Option<Validation>) -> Result<(), Error> {
        let is_best = self.is_best(validation);
        if let Some(found) = validation {
            self.course.observe(found.score());
        }
        let exported = self.network();
        exported.write(&folder.join("last.safetensors"), self.step)?;
        if is_best {
            exported.write(&folder.join(BEST), self.step)?;
        }
        if let (Some(adapters), Some(peft)) = (self.module.valid().adapters, &self.settings.peft) {
            write(&folder.join(format!("{}.safetensors", peft.name())), &adapters.tensors())?;
        }

        let name = format!("checkpoint-{:08}", self.step);
        let building = folder.join(format!("{name}.part"));
        if building.exists() {
            std::fs::remove_dir_all(&building).map_err(|error| unwritable(&building, error))?;
        }
        std::fs::create_dir_all(&building).map_err(|error| unwritable(&building, error))?;
        let valid = self.module.valid();
        write(&building.join(WEIGHTS), &state_dict(&valid, ""))?;
        if let Some(average) = &self.average {
            write(&building.join(AVERAGE), &state_dict(&average.fill(valid, &self.plan.trained), ""))?;
        }
        let optimizer = building.join(OPTIMIZER);
        self.optimizer.save(&optimizer).map_err(|error| unwritable(&optimizer, error))?;
        let images = [self.batches.plan().store.len(), self.validation.len()];
        let state = State { step: self.step, course: self.course.clone(), images, settings: self.settings.clone() };
        let state_file = building.join(STATE);
        let text = serde_json::to_string_pretty(&state).map_err(|error| unwritable(&state_file, error))?;
        std::fs::write(&state_file, text).map_err(|error| unwritable(&state_file, error))?;

        let complete = folder.join(&name);
        if complete.exists() {
            std::fs::remove_dir_all(&complete).map_err(|error| unwritable(&complete, error))?;
        }
        std::fs::rename(&building, &complete).map_err(|error| unwritable(&complete, error))?;
        for older in checkpoints(folder).into_iter().filter(|path| *path != complete) {
            std::fs::remove_dir_all(&older).map_err(|error| unwritable(&older, error))?;
        }
        Ok(())
    }

    /// Whether a folder holds a checkpoint to go on from.
    pub fn can_resume(folder: &Path) -> bool {
        !checkpoints(folder).is_empty()
    }

    /// The settings of the run whose newest complete checkpoint lies in `folder`; none without one.
    ///
    /// # Errors
    /// `Checkpoint` when it cannot be read.
    pub fn stored_settings(folder: &Path) -> Result<Option<TrainSettings>, Error> {
        checkpoints(folder).pop().map(|newest| Ok(stored(&newest)?.settings)).transpose()
    }

    /// Goes on from the newest complete checkpoint in `folder`: the same weights, average, optimizer, step, scores and random draws.
    ///
    /// # Errors
    /// `Checkpoint` when there is none, it cannot be read, or it belongs to a run with other settings or other data.
    pub fn resume(mut self, folder: &Path) -> Result<Self, Error> {
        let Some(newest) = checkpoints(folder).pop() else {
            let message = format!("{}: no checkpoint to go on from", folder.display());
            return Err(Error::new(ErrorKind::Checkpoint, message));
        };
        let state = stored(&newest)?;
        let other = |what: &str, stored: String, now: String| {
            let message = format!(
                "{}: the checkpoint belongs to a run with other {what} ({stored}, now {now})",
                newest.display()
            );
            Err(Error::new(ErrorKind::Checkpoint, message))
        };
        // What is computed again and what is kept changes no gradient.
        let stored = TrainSettings { recompute: self.settings.recompute, ..state.settings.clone() };
        if stored != self.settings {
            return other("settings", format!("{:?}", state.settings), format!("{:?}", self.settings));
        }
        let images = [self.batches.plan().store.len(), self.validation.len()];
        if state.images != images {
            return other(
                "numbers of training and validation images",
                format!("{:?}", state.images),
                format!("{images:?}"),
            );
        }
        let valid = self.module.valid();
        if let Some(kept) = self.settings.average {
            let average = read(valid.clone(), &newest.join(AVERAGE))?;
            self.average = Some(Average::new(kept, &average, &self.plan.trained));
        }
        self.module = read(valid, &newest.join(WEIGHTS))?.train();
        if self.settings.recompute {
            self.module = self.module.map(&mut Recompute);
        }
        let optimizer = newest.join(OPTIMIZER);
        self.optimizer = self.optimizer.load(&optimizer).map_err(|error| unreadable(&optimizer).with_source(error))?;
        (self.step, self.course) = (state.step, state.course);
        Ok(self)
    }
}

/// What a complete checkpoint says about itself.
fn stored(checkpoint: &Path) -> Result<State, Error> {
    let file = checkpoint.join(STATE);
    let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file).with_source(error))?;
    serde_json::from_str(&text).map_err(|error| unreadable(&file).with_source(error))
}

fn read(module: Trained, path: &Path) -> Result<Trained, Error> {
    let checkpoint = Checkpoint::open(path).map_err(|error| unreadable(path).with_source(error))?;
    let loaded = load_into(module, checkpoint.model(), "").map_err(|error| unreadable(path).with_source(error))?;
    Ok(loaded.module)
}

fn write(path: &Path, tensors: &[cytomask_models::loading::NamedTensor]) -> Result<(), Error> {
    cytomask_weights::write_safetensors(path, tensors, &std::collections::BTreeMap::new())
        .map_err(|error| unwritable(path, error))
}

fn unreadable(path: &Path) -> Error {
    Error::new(ErrorKind::Checkpoint, format!("{}: cannot go on from it", path.display()))
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
