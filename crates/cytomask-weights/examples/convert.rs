//! `convert FROM TO`: reads a checkpoint of any layout and writes it as `.pt` or `.safetensors`.

use std::path::Path;

use cytomask_weights::{Checkpoint, Kind, TensorView, write_safetensors, write_torch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else { return Err("expected: convert FROM TO".into()) };
    let checkpoint = Checkpoint::open(from)?;
    let model: Vec<TensorView<'_>> = checkpoint.model().iter().collect();
    let decoder: Option<Vec<TensorView<'_>>> = checkpoint.decoder().map(|decoder| decoder.iter().collect());
    let (main, beside) = match (checkpoint.kind(), decoder) {
        (Kind::Decoder, Some(decoder)) => (decoder, None),
        (_, decoder) => (model, decoder),
    };
    match (Path::new(to).extension().and_then(|extension| extension.to_str()), &beside) {
        (Some("safetensors"), None) => write_safetensors(to, &main, checkpoint.metadata())?,
        (Some("safetensors"), Some(_)) => return Err("a joint checkpoint becomes .pt".into()),
        _ => write_torch(to, &main, beside.as_deref())?,
    }
    Ok(())
}
