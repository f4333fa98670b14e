//! A network's parameters by name: which part they belong to, which of them are trained, and first values.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{GradientCheckpointingStrategy, Tensor, TensorData};
use cytomask_models::loading::state_shapes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::adapters::adapts;
use crate::settings::{Part, Peft, TrainSettings};
use crate::{Error, ErrorKind};

/// Cellpose trains all but the first convolution, whose values it reads outside of the graph (`vit.py`: `proj.weight.data`).
const CPSAM_FIXED: &str = "encoder.patch_embed.";

/// Which part a parameter belongs to, by its name in [`crate::network::Network`]; none for those of no part.
pub(crate) fn part_of(name: &str) -> Option<Part> {
    let name = name.strip_prefix("network.").unwrap_or(name);
    let name = name.strip_prefix("sam.").unwrap_or(name);
    let first = name.split('.').next().unwrap_or_default();
    match first {
        "image_encoder" | "encoder" => Some(Part::ImageEncoder),
        "prompt_encoder" => Some(Part::PromptEncoder),
        "mask_decoder" | "mask_refiner" => Some(Part::MaskDecoder),
        "decoder" | "instance_decoder" | "box_decoder" => Some(Part::InstanceDecoder),
        _ => None,
    }
}

/// The number of the block a parameter of an image encoder belongs to: of ViTs `blocks.N`, of TinyViT counted through all layers.
fn block_of(name: &str, tiny_vit_blocks: &[String]) -> Option<usize> {
    let (before, after) = name.split_once(".blocks.")?;
    let number = after.split('.').next()?;
    match before.rsplit_once(".layers.") {
        Some(_) => tiny_vit_blocks.iter().position(|block| *block == format!("{before}.blocks.{number}")),
        None => number.parse().ok(),
    }
}

/// Parameters of the image encoder by block: what [`block_of`] needs for TinyViT.
fn tiny_vit_blocks(names: &[String]) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| name.contains(".layers.")) {
        let Some((before, after)) = name.split_once(".blocks.") else { continue };
        let block = format!("{before}.blocks.{}", after.split('.').next().unwrap_or_default());
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks
}

/// What is done with each parameter of a network, in its order.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Whether it is trained.
    pub(crate) trained: Vec<bool>,
    /// Parameters that adapters change.
    pub(crate) adapted: Vec<usize>,
}

/// Decides it from the settings. Buffers count as trained here; [`with_gradients`] knows them.
pub(crate) fn plan(names: &[String], settings: &TrainSettings) -> Result<Plan, Error> {
    let encoder = |name: &str| part_of(name) == Some(Part::ImageEncoder);
    let order = tiny_vit_blocks(names);
    let block = |name: &str| if encoder(name) { block_of(name, &order) } else { None };
    let blocks = names.iter().filter_map(|name| block(name)).max().map_or(0, |last| last + 1);
    let mut chosen: BTreeSet<usize> = settings.peft_blocks.iter().copied().collect();
    if let Some(&beyond) = chosen.iter().find(|&&block| block >= blocks) {
        let message =
            format!("peft_blocks: expected blocks 0 to {} of the image encoder, found {beyond}", blocks.max(1) - 1);
        return Err(Error::new(ErrorKind::Setting, message));
    }
    if chosen.is_empty() {
        chosen = match settings.peft {
            Some(Peft::Blocks) => blocks.saturating_sub(1)..blocks,
            _ => 0..blocks,
        }
        .collect();
    }
    let in_blocks = |name: &str| block(name).is_some_and(|block| chosen.contains(&block));
    let by_peft = |name: &str| match settings.peft {
        None => true,
        Some(Peft::Lora { .. } | Peft::Fact { .. } | Peft::Ssf) => false,
        Some(Peft::Attention) => in_blocks(name) && name.contains(".attn."),
        Some(Peft::Bias) => in_blocks(name) && name.ends_with(".bias"),
        Some(Peft::LayerNorm) => in_blocks(name) && (name.contains(".norm1.") || name.contains(".norm2.")),
        Some(Peft::Blocks) => in_blocks(name),
    };
    let fixed = |name: &str| name.strip_prefix("network.").unwrap_or(name).starts_with(CPSAM_FIXED);
    let trained: Vec<bool> = names
        .iter()
        .map(|name| {
            let held = part_of(name).is_some_and(|part| settings.freeze.contains(&part));
            !held && !fixed(name) && (!encoder(name) || by_peft(name))
        })
        .collect();
    let all_blocks = settings.peft_blocks.is_empty();
    let is_adapted =
        |peft: &Peft, name: &str| encoder(name) && !fixed(name) && adapts(peft, name, in_blocks(name), all_blocks);
    let adapted: Vec<usize> = match &settings.peft {
        Some(peft) => (0..names.len()).filter(|&index| is_adapted(peft, &names[index])).collect(),
        None => Vec::new(),
    };
    let touched = names.iter().zip(&trained).any(|(name, &trained)| trained && encoder(name));
    if let Some(peft) = &settings.peft
        && adapted.is_empty()
        && !touched
    {
        let message = format!(
            "peft {}: the image encoder of this network (or the blocks that were named) has no layers that it changes",
            peft.name()
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(Plan { trained, adapted })
}

/// Names in a module's order, `num_batches_tracked` and other counters left out.
pub(crate) fn names<M: Module>(module: &M) -> Vec<String> {
    state_shapes(module, "").into_iter().map(|(name, _)| name).collect()
}

/// Numbers the parameters in the module's order, and turns the gradients of those off that are not trained.
///
/// The optimizer keeps its state by these numbers; drawn at random, as they are otherwise, they would be other ones after a
/// resumption and the state would be lost in silence.
pub(crate) struct Prepare<'a> {
    pub(crate) trained: &'a [bool],
    pub(crate) next: usize,
}

impl ModuleMapper for Prepare<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        self.next += 1;
        let param = Param::from_mapped_value(ParamId::from(self.next as u64), tensor, mapper);
        // Parameters beyond the list (adapters) are trained.
        if self.trained.get(self.next - 1) == Some(&false) { param.set_require_grad(false) } else { param }
    }
}

/// Counts of values: trained, all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Values that change.
    pub trained: usize,
    /// All values, fixed tables (running statistics, random projections) included.
    pub all: usize,
}

/// Counts the parameters whose name `wanted` accepts, of a module in training.
pub(crate) fn count<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Count {
    let wanted = names(module).iter().map(|name| wanted(name)).collect();
    let mut counter = Counter { wanted, next: 0, count: Count::default() };
    module.visit(&mut counter);
    counter.count
}

struct Counter {
    wanted: Vec<bool>,
    next: usize,
    count: Count,
}

impl ModuleVisitor for Counter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.next += 1;
        if self.wanted[self.next - 1] {
            let values = param.lazy_shape().num_elements();
            self.count.all += values;
            self.count.trained += if param.val().is_require_grad() { values } else { 0 };
        }
    }
}

/// Which parameters of a module in training have gradients, in its order.
pub(crate) fn with_gradients<M: Module>(module: &M) -> Vec<bool> {
    let mut found = WithGradients(Vec::new());
    module.visit(&mut found);
    found.0
}

struct WithGradients(Vec<bool>);

impl ModuleVisitor for WithGradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().is_require_grad());
    }
}

/// Lets every parameter's graph compute cheap operations again instead of keeping their results.
pub(crate) struct Recompute;

impl ModuleMapper for Recompute {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
    }
}

/// First values as PyTorch gives them to linear layers and convolutions: uniform within `fan_in^-1/2`; norms and tables as they are
/// made (ones and zeros).
pub(crate) struct FirstValues {
    rng: ChaCha8Rng,
    /// Of the weight before, which its bias follows.
    bound: Option<f32>,
}

impl FirstValues {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), bound: None }
    }
}

impl ModuleMapper for FirstValues {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape().to_vec();
        if D >= 2 {
            self.bound = Some((shape[1..].iter().product::<usize>() as f32).sqrt().recip());
        }
        // A norm's weight comes before its bias: neither follows a bound.
        let bound = if D >= 2 { self.bound } else { self.bound.take() };
        let Some(bound) = bound else { return param };
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| self.rng.random_range(-1.0..=1.0_f32) * bound).collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(values, shape), &tensor.device()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Matrix;

    #[test]
    fn names_tell_parts_and_blocks() {
        for (name, part) in [
            ("network.sam.image_encoder.blocks.3.attn.qkv.weight", Some(Part::ImageEncoder)),
            ("network.sam.prompt_encoder.no_mask_embed.weight", Some(Part::PromptEncoder)),
            ("network.mask_refiner.conv3.weight", Some(Part::MaskDecoder)),
            ("network.decoder.out_conv.bias", Some(Part::InstanceDecoder)),
            ("network.encoder.neck.0.weight", Some(Part::ImageEncoder)),
            ("network.out.weight", None),
            ("adapters.0.query_a", None),
        ] {
            assert_eq!(part_of(name), part, "{name}");
        }
        let names: Vec<String> = ["image_encoder.layers.1.blocks.0.attn.x", "image_encoder.layers.2.blocks.0.attn.x"]
            .map(str::to_owned)
            .to_vec();
        let order = tiny_vit_blocks(&names);
        assert_eq!(names.iter().map(|name| block_of(name, &order)).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert_eq!(block_of("sam.image_encoder.blocks.11.norm1.weight", &order), Some(11));
        assert_eq!(block_of("sam.image_encoder.neck.0.weight", &order), None);
    }

    #[test]
    fn what_is_trained_follows_the_settings() {
        let names: Vec<String> = [
            "network.sam.image_encoder.blocks.0.norm1.weight",
            "network.sam.image_encoder.blocks.0.attn.qkv.weight",
            "network.sam.image_encoder.blocks.0.attn.qkv.bias",
            "network.sam.image_encoder.blocks.1.attn.qkv.weight",
            "network.sam.image_encoder.neck.0.weight",
            "network.sam.mask_decoder.iou_token.weight",
            "network.decoder.out_conv.bias",
        ]
        .map(str::to_owned)
        .to_vec();
        let trained = |peft: Option<Peft>, peft_blocks: &[usize], freeze: &[Part]| {
            let settings = TrainSettings {
                peft,
                peft_blocks: peft_blocks.to_vec(),
                freeze: freeze.to_vec(),
                ..TrainSettings::default()
            };
            let plan = plan(&names, &settings).unwrap();
            let chosen: Vec<usize> = (0..names.len()).filter(|&index| plan.trained[index]).collect();
            (chosen, plan.adapted)
        };
        assert_eq!(trained(None, &[], &[]).0, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(trained(None, &[], &[Part::ImageEncoder, Part::InstanceDecoder]).0, [5]);
        let lora = |matrices: &[Matrix]| Some(Peft::Lora { rank: 4, alpha: 1.0, matrices: matrices.to_vec() });
        assert_eq!(trained(lora(&Matrix::DEFAULT), &[], &[]), (vec![5, 6], vec![1, 3]));
        assert_eq!(trained(lora(&[Matrix::K]), &[1], &[]), (vec![5, 6], vec![3]));
        assert_eq!(trained(Some(Peft::Fact { rank: 4, alpha: 1.0 }), &[], &[]), (vec![5, 6], vec![1, 3]));
        assert_eq!(trained(Some(Peft::Ssf), &[], &[]), (vec![5, 6], vec![0, 1, 2, 3]));
        assert_eq!(trained(Some(Peft::Attention), &[], &[]).0, [1, 2, 3, 5, 6]);
        assert_eq!(trained(Some(Peft::Bias), &[], &[]).0, [2, 5, 6]);
        assert_eq!(trained(Some(Peft::LayerNorm), &[], &[]).0, [0, 5, 6]);
        assert_eq!(trained(Some(Peft::Blocks), &[], &[]).0, [3, 5, 6]);
        let beyond = TrainSettings { peft: Some(Peft::Blocks), peft_blocks: vec![2], ..TrainSettings::default() };
        assert!(plan(&names, &beyond).unwrap_err().to_string().contains("0 to 1"));
        // What a network lacks is said by the method's name.
        for (peft, name) in [(lora(&[Matrix::Mlp]), "lora"), (lora(&[Matrix::Proj]), "lora"), (Some(Peft::Ssf), "ssf")]
        {
            let names = if name == "ssf" { &names[4..] } else { &names[..] };
            let error = plan(names, &TrainSettings { peft, ..TrainSettings::default() }).unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(name), "{error}");
        }
    }
}
