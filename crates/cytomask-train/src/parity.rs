//! Steps on a given batch with given prompts, to compare with other implementations: no draws, no schedule.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use cytomask_image::Rgb;
use cytomask_models::loading::{NamedTensor, state_dict, values};
use cytomask_segment::Prompt;

use crate::data::Crop;
use crate::losses::distance_map_loss;
use crate::network::{Network, Query, Trainable, flows::flow_loss};
use crate::parameters::names;
use crate::step::{Losses, Wanted, best_outputs, chosen, round_loss, targets_of, truth_of};
use crate::trainer::Trainer;
use crate::{Error, ErrorKind};

const BOTH: Wanted = Wanted { maps: true, masks: true };

/// By name.
pub type Gradients = Vec<(String, Vec<f32>)>;

/// Crops whose objects `1..=n` are prompted for.
pub struct Batch {
    /// Of one size.
    pub crops: Vec<Crop>,
    /// For each crop its prompts of each round; from the second on with the best mask before.
    pub rounds: Vec<Vec<Vec<Prompt>>>,
}

/// Tiles with flows.
pub struct FlowBatch {
    /// `[N, 3, side, side]`
    pub images: Vec<f32>,
    /// `[N, 3, side, side]`: unit flow along y, along x, inside.
    pub targets: Vec<f32>,
    /// Their side.
    pub side: usize,
    /// Blocks left out of each.
    pub skipped: Vec<Vec<bool>>,
}

impl Trainer {
    /// Losses of the masks and of the maps, their graphs, and the gradients of their sum by name.
    ///
    /// # Errors
    /// `Unsupported` for a network that is not promptable.
    pub fn gradients_on(&self, batch: &Batch) -> Result<([f32; 2], Gradients), Error> {
        let (found, loss) = self.losses_on(batch, BOTH)?;
        Ok((found, self.named(loss)))
    }

    /// One optimizer step for the sum of both losses at `learning_rate`.
    ///
    /// # Errors
    /// As [`Trainer::gradients_on`].
    pub fn step_on(&mut self, batch: &Batch, learning_rate: f64) -> Result<[f32; 2], Error> {
        let (found, loss) = self.losses_on(batch, BOTH)?;
        self.descend(loss, learning_rate);
        Ok(found)
    }

    /// Two optimizer steps, for the masks and then for the maps.
    ///
    /// # Errors
    /// As [`Trainer::gradients_on`].
    pub fn steps_on(&mut self, batch: &Batch, learning_rate: f64) -> Result<[f32; 2], Error> {
        let ([masks, _], loss) = self.losses_on(batch, Wanted { maps: false, ..BOTH })?;
        self.descend(loss, learning_rate);
        let ([_, maps], loss) = self.losses_on(batch, Wanted { masks: false, ..BOTH })?;
        self.descend(loss, learning_rate);
        Ok([masks, maps])
    }

    /// The loss of flows and its gradients by name.
    ///
    /// # Errors
    /// `Unsupported` for a network that predicts no flows.
    pub fn flow_gradients_on(&self, batch: &FlowBatch) -> Result<(f32, Gradients), Error> {
        let Network::CpSam(network) = self.module.merged() else { return Err(unsupported()) };
        let shape = [batch.skipped.len(), 3, batch.side, batch.side];
        let tensor = |values: &[f32]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), shape), &self.device);
        let maps = network
            .forward_skipping(tensor(&batch.images), &batch.skipped)
            .map_err(|error| Error::new(ErrorKind::Model, "flows").with_source(error))?;
        let loss = flow_loss(maps, tensor(&batch.targets));
        Ok((loss.clone().into_scalar(), self.named(loss)))
    }

    /// All values by name, as they are trained.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        state_dict(&self.module.valid(), "")
    }

    /// All values by the names of an exported checkpoint, averaged and merged.
    pub fn exported(&self) -> Vec<NamedTensor> {
        self.network().export()
    }

    /// Losses of the masks and of the maps, 0 where not wanted, and the graph of their sum.
    fn losses_on(&self, batch: &Batch, wanted: Wanted) -> Result<([f32; 2], Tensor<1>), Error> {
        let found = match self.module.merged() {
            Network::Sam(network) => self.given(&network, batch, wanted)?,
            Network::CytomaskT(network) => self.given(&network, batch, wanted)?,
            Network::CpSam(_) => return Err(unsupported()),
        };
        let values = [&found.masks, &found.maps].map(|loss| loss.clone().map_or(0.0, Tensor::into_scalar));
        Ok((values, found.sum().ok_or_else(unsupported)?))
    }

    fn given<N: Trainable>(&self, network: &N, batch: &Batch, wanted: Wanted) -> Result<Losses, Error> {
        let images: Vec<&Rgb> = batch.crops.iter().map(|crop| &crop.image).collect();
        let features = network.features(&images, false, &self.device)?;
        let mut losses = Losses::default();
        if wanted.masks {
            let mut all = Vec::new();
            for (image, (crop, rounds)) in batch.crops.iter().zip(&batch.rounds).enumerate() {
                let mut masks = None;
                for (round, prompts) in rounds.iter().enumerate() {
                    let ids: Vec<u32> = (1..=prompts.len() as u32).collect();
                    let query = Query { prompts, masks, multimask: round == 0, offset: [0; 2] };
                    let decoded = network.decode(&features, image, &query)?;
                    all.push(round_loss(&decoded, truth_of(crop, &ids, &self.device)));
                    masks = Some(chosen(decoded.coarse, &best_outputs(&decoded.predicted_iou)));
                }
            }
            let count = all.len() as f32;
            losses.masks = Some(Tensor::cat(all, 0).sum() / count);
        }
        if wanted.maps {
            losses.maps = Some(distance_map_loss(network.maps(&features)?, targets_of(&batch.crops, &self.device)));
        }
        Ok(losses)
    }

    fn descend(&mut self, loss: Tensor<1>, learning_rate: f64) {
        let gradients = GradientsParams::from_grads(loss.backward(), &self.module);
        self.update(learning_rate, gradients);
    }

    fn named(&self, loss: Tensor<1>) -> Gradients {
        let gradients = GradientsParams::from_grads(loss.backward(), &self.module);
        let mut named = Named { names: names(&self.module).into_iter(), gradients, found: Vec::new() };
        self.module.visit(&mut named);
        named.found
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "not this network's objective")
}

struct Named {
    names: std::vec::IntoIter<String>,
    gradients: GradientsParams,
    found: Gradients,
}

impl ModuleVisitor for Named {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.next().unwrap_or_default();
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.push((name, values(gradient)));
        }
    }
}
