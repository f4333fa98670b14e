//! Which network a checkpoint belongs to, told from tensor names and shapes.

use crate::tensor::first_five;
use crate::{Error, ErrorKind, Result, TensorMap};

/// An architecture. A model of the registry is one set of weights for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// SAM with the ViT-B encoder (width 768).
    VitB,
    /// SAM with the ViT-L encoder (width 1024).
    VitL,
    /// SAM with the ViT-H encoder (width 1280).
    VitH,
    /// SAM with the TinyViT encoder (MobileSAM).
    VitT,
    /// The compact model of this project: `vit_t` with slim instance decoder and mask refiner.
    CytomaskT,
    /// µSAM's UNETR instance decoder alone.
    UnetrDecoder,
    /// Cellpose-SAM (Cellpose 4).
    CellposeSam,
    /// Cellpose up to version 3 (cyto3, nuclei).
    Cellpose,
    /// SAM 2 and 2.1.
    Sam2,
    /// SAM 3.
    Sam3,
    /// CellSAM.
    CellSam,
}

impl Family {
    /// Short name: that of µSAM's model types for the SAM sizes.
    pub fn name(self) -> &'static str {
        match self {
            Family::VitB => "vit_b",
            Family::VitL => "vit_l",
            Family::VitH => "vit_h",
            Family::VitT => "vit_t",
            Family::CytomaskT => "cytomask-t",
            Family::UnetrDecoder => "unetr-decoder",
            Family::CellposeSam => "Cellpose-SAM",
            Family::Cellpose => "Cellpose 3",
            Family::Sam2 => "SAM 2",
            Family::Sam3 => "SAM 3",
            Family::CellSam => "CellSAM",
        }
    }

    /// Whether cytomask can run it.
    pub fn is_supported(self) -> bool {
        match self {
            Family::VitB
            | Family::VitL
            | Family::VitH
            | Family::VitT
            | Family::CytomaskT
            | Family::UnetrDecoder
            | Family::CellposeSam
            | Family::Cellpose => true,
            Family::Sam2 | Family::Sam3 | Family::CellSam => false,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn any(map: &TensorMap, prefix: &str) -> bool {
    map.names().any(|name| name.starts_with(prefix))
}

/// Whether these are the tensors of a UNETR decoder without its network.
pub(crate) fn is_decoder(map: &TensorMap) -> bool {
    ["base.", "deconv1.", "out_conv."].iter().all(|prefix| any(map, prefix)) && !any(map, "image_encoder.")
}

pub(crate) fn infer(map: &TensorMap) -> Result<Family> {
    // CellSAM holds a SAM under `model.`, SAM 2 has an `image_encoder.` too: both come before SAM.
    let family = if any(map, "cellfinder.") || any(map, "model.image_encoder.") {
        Family::CellSam
    } else if any(map, "image_encoder.trunk.") || any(map, "sam_mask_decoder.") {
        Family::Sam2
    } else if any(map, "detector.") || any(map, "backbone.vision_backbone.") {
        Family::Sam3
    } else if any(map, "encoder.cls_token") {
        let message = "a Cellpose network with a DINOv3 encoder (cpdino): expected one with SAM's encoder (cpsam)";
        return Err(Error::new(ErrorKind::Unsupported, message));
    } else if ["", "module."].iter().any(|prefix| any(map, &format!("{prefix}encoder.patch_embed."))) {
        if !map.contains("W2") && !map.contains("module.W2") {
            let message = "like Cellpose-SAM (Cellpose 4), but without its tensor `W2`: not a file of Cellpose 4, nor of \
                           Cellpose 1 to 3 (keys downsample.down.res_down_*)";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Family::CellposeSam
    } else if any(map, "downsample.down.res_down_") {
        Family::Cellpose
    } else if let Some(weight) = map.get("image_encoder.patch_embed.proj.weight") {
        match weight.shape {
            [768, ..] => Family::VitB,
            [1024, ..] => Family::VitL,
            [1280, ..] => Family::VitH,
            shape => {
                let message = format!(
                    "image_encoder.patch_embed.proj.weight has shape {shape:?}; expected 768 (ViT-B), 1024 (ViT-L) or \
                     1280 (ViT-H) output channels"
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
    } else if any(map, "image_encoder.layers.") {
        if any(map, "instance_decoder.") && any(map, "mask_refiner.") { Family::CytomaskT } else { Family::VitT }
    } else {
        let names: Vec<&str> = map.names().collect();
        return Err(Error::format(format!(
            "not a checkpoint of a known network; {} tensors: {}",
            names.len(),
            first_five(&names)
        )));
    };
    if family.is_supported() {
        return Ok(family);
    }
    let version = env!("CARGO_PKG_VERSION");
    let message = format!("this is a {family} checkpoint; cytomask {version} cannot run it yet");
    Err(Error::new(ErrorKind::Unsupported, message))
}
