//! `cytomask models`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cytomask::weights::registry::{self, Model};
use cytomask::weights::{Checkpoint, Store, StoreOptions, write_safetensors, write_torch};
use cytomask::{DeviceChoice, embedded};
use serde_json::{Value, json};

use crate::args::{ModelsArgs, ModelsCommand};
use crate::progress::{Progress, print, say};

/// Runs one of the subcommands.
pub(crate) fn run(arguments: &ModelsArgs) -> Result<()> {
    let store = Store::open(StoreOptions::default())?;
    match &arguments.command {
        ModelsCommand::List { json } => list(&store, *json),
        ModelsCommand::Info { model, json } => info(model, *json),
        ModelsCommand::Pull { name } => pull(&store, name),
        ModelsCommand::Import { name, files, force } => {
            files.iter().try_for_each(|file| print(&store.import(name, file, *force)?.display().to_string()))
        }
        ModelsCommand::Export { model, to } => export(model, to),
        ModelsCommand::Verify { name } => verify(&store, name.as_deref()),
        ModelsCommand::Path { name: Some(name) } => print(&store.path(name)?.display().to_string()),
        ModelsCommand::Path { name: None } => print(&store.dir().display().to_string()),
    }
}

fn list(store: &Store, as_json: bool) -> Result<()> {
    let listed = store.list();
    if as_json {
        let rows: Vec<Value> = listed
            .iter()
            .map(|entry| {
                let mut row = describe(entry.model);
                row["here"] = json!(entry.complete);
                row
            })
            .collect();
        return print(&format!("{:#}", json!(rows)));
    }
    let width = listed.iter().map(|entry| entry.model.name.len()).max().unwrap_or_default();
    for entry in listed {
        let model = entry.model;
        let state = match (model.supported, model.is_embedded(), entry.complete) {
            (false, ..) => "not run yet",
            (_, true, _) => "built in",
            (_, _, true) => "here",
            _ => "to pull",
        };
        print(&format!("{:width$}  {state:11}  {}  [{}]", model.name, model.description, model.licence))?;
    }
    Ok(())
}

fn describe(model: &Model) -> Value {
    let files: Vec<Value> = model
        .files
        .iter()
        .map(|file| {
            let hashes: Vec<String> = file.hashes.iter().map(ToString::to_string).collect();
            json!({ "name": file.name, "url": file.url, "bytes": file.size, "hashes": hashes })
        })
        .collect();
    json!({
        "name": model.name,
        "family": model.family.name(),
        "description": model.description,
        "supported": model.supported,
        "default_mode": model.default_mode.map(|mode| mode.name()),
        "licence": model.licence,
        "citation": model.citation,
        "note": model.note,
        "files": files,
    })
}

fn info(name: &str, as_json: bool) -> Result<()> {
    let facts = match registry::find(name) {
        Some(model) => describe(model),
        None if Path::new(name).is_file() => {
            let checkpoint = Checkpoint::open(name)?;
            json!({
                "file": name,
                "family": checkpoint.family()?.name(),
                "tensors": checkpoint.model().len(),
                "decoder_tensors": checkpoint.decoder().map_or(0, |decoder| decoder.len()),
                "sha256": cytomask::weights::sha256_file(name)?,
                "metadata": checkpoint.metadata(),
            })
        }
        None => bail!("{name}: neither a known model (see `cytomask models list`) nor a file"),
    };
    if as_json {
        return print(&format!("{facts:#}"));
    }
    let Value::Object(fields) = &facts else { return Ok(()) };
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => print(&format!("{key:16}{text}"))?,
            Value::Array(files) => {
                for file in files {
                    print(&format!("{:16}{}", "file", file["name"].as_str().unwrap_or_default()))?;
                    print(&format!("{:18}{}", "", file["url"].as_str().unwrap_or("not for public download")))?;
                    for hash in file["hashes"].as_array().into_iter().flatten() {
                        print(&format!("{:18}{}", "", hash.as_str().unwrap_or_default()))?;
                    }
                }
            }
            other => print(&format!("{key:16}{other}"))?,
        }
    }
    Ok(())
}

fn pull(store: &Store, name: &str) -> Result<()> {
    let mut progress = Progress::new(name);
    let files = store.pull(name, &mut |done, total| progress.set(done, total.unwrap_or(done)))?;
    drop(progress);
    if let Some(model) = registry::find(name) {
        say(&format!("licence: {}", model.licence));
    }
    if files.is_empty() {
        say(&format!("{name} is built in: nothing to pull"));
    }
    files.iter().try_for_each(|file| print(&file.display().to_string()))
}

/// Writes a model's tensors under their published names; the instance decoder goes into the same file.
fn export(name: &str, to: &Path) -> Result<()> {
    let extension = to.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
    let model = cytomask::load_model(name, None, DeviceChoice::Cpu)?;
    match extension.as_str() {
        "pt" | "pth" => {
            let ((tensors, decoder), left_out) = model.micro_sam_tensors()?;
            write_torch(to, &tensors, decoder.as_deref())?;
            if left_out > 0 {
                say(&format!("{left_out} tensors of {name} have no place in µSAM's layout and were left out"));
                say("hint: --to FILE.safetensors keeps all of them");
            }
        }
        "safetensors" => {
            let (mut all, decoder) = model.tensors()?;
            let prefix = cytomask::weights::DECODER_PREFIX;
            all.extend(
                decoder.into_iter().flatten().map(|(name, shape, values)| (format!("{prefix}{name}"), shape, values)),
            );
            let metadata = [("licence".to_owned(), model.licence().to_owned())].into_iter().collect();
            write_safetensors(to, &all, &metadata)?;
        }
        other => bail!("{}: expected a name ending in .pt or .safetensors, found {other:?}", to.display()),
    }
    print(&to.display().to_string())
}

fn verify(store: &Store, name: Option<&str>) -> Result<()> {
    if let Some(name) = name {
        store.verify(name).with_context(|| name.to_owned())?;
        return print(&format!("{name}: as published"));
    }
    let mut failed = 0;
    let here: Vec<_> = store.list().into_iter().filter(|entry| entry.complete && !entry.model.is_embedded()).collect();
    for entry in &here {
        match store.verify(entry.model.name) {
            Ok(()) => print(&format!("{}: as published", entry.model.name))?,
            Err(error) => {
                failed += 1;
                say(&format!("error: {error}"));
            }
        }
    }
    if here.is_empty() {
        say(&format!("no models in {}; {} is built in", store.dir().display(), embedded::NAME));
    }
    if failed > 0 {
        bail!("{failed} of {} models differ from what was published", here.len());
    }
    Ok(())
}
