//! `cytomask dump`: the network's intermediate tensors, for `parity/full_size/compare.py`.

use anyhow::Result;
use cytomask::{FieldModel, Image, PromptModel, ReadOptions};

use crate::args::DumpArgs;
use crate::{prompts, settings};

/// Writes what the network makes of an image: `normalized`, `embedding`, `fields`, and for prompts `low_res_logits` and
/// `predicted_iou`.
pub(crate) fn run(arguments: &DumpArgs) -> Result<()> {
    let model = settings::open_model(&arguments.model)?;
    let image = Image::open(&arguments.image, &ReadOptions::default())?.to_rgb(model.normalization())?;
    let embedding = model.encode(&image)?;
    let mut tensors = model.stages(&image, &embedding)?;
    if model.has_decoder() {
        let fields = model.fields(&embedding)?;
        let values = [fields.foreground, fields.center_distance, fields.boundary_distance].concat();
        tensors.push(("fields".into(), vec![3, fields.size[0] as usize, fields.size[1] as usize], values));
    }
    if let Some(path) = &arguments.prompts {
        let decoded = model.decode(&embedding, &prompts::read(path)?, arguments.multimask)?;
        let (count, outputs) = (decoded.len(), decoded.first().map_or(0, Vec::len));
        let grid = decoded.iter().flatten().next().map_or([0, 0], |candidate| candidate.logits.grid);
        let iou = decoded.iter().flatten().map(|candidate| candidate.predicted_iou).collect();
        let logits = decoded.iter().flatten().flat_map(|candidate| candidate.logits.values.iter().copied()).collect();
        tensors.push(("predicted_iou".into(), vec![count, outputs], iou));
        tensors.push(("low_res_logits".into(), vec![count, outputs, grid[0] as usize, grid[1] as usize], logits));
    }
    cytomask::weights::write_safetensors(&arguments.stages, &tensors, &Default::default())?;
    Ok(())
}
