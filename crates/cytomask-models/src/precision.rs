//! Number formats of the networks' layers on the CPU, and which layers of each network take one of fewer bits.
//!
//! Decided by measurement (docs/decisions/0026-number-formats.md): a network's first and last layers, attention, norms, prompts and
//! the mask decoder stay in `f32`.

use crate::{
    cpsam::CpSam,
    cytomask_t::{CytomaskT, InstanceDecoder},
    error::{Error, ErrorKind},
    layers::ConvBn,
    sam::ImageEncoder,
    tiny_vit::{TinyVit, TinyVitBlock},
    unetr::{ConvBlock, Deconv, Unetr, Upsampler},
};

/// A number format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats, as the weights are stored.
    #[default]
    F32,
    /// Linear layers with inputs and weights rounded to bf16, sums in `f32`. Faster than `f32` where the processor multiplies bf16
    /// fast (AMD since Zen 4); elsewhere slower.
    Bf16,
    /// Linear layers and convolutions with inputs and weights in 8 bits, sums exact. Inputs are scaled by the image at hand: linear
    /// layers for each token, convolutions for each channel.
    Int8,
}

impl Precision {
    /// All formats, for messages.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Refuses a format that a device does not run.
    pub(crate) fn check(self, on_cpu: bool) -> Result<(), Error> {
        if self == Self::F32 || on_cpu {
            return Ok(());
        }
        let message =
            format!("precision `{}` runs on the CPU only: choose device `cpu` or precision `f32`", self.name());
        Err(Error::new(ErrorKind::Unsupported, message))
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|precision| precision.name()).collect();
            Error::new(ErrorKind::Value, format!("precision: expected one of {}, found `{name}`", known.join(", ")))
        })
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Networks whose layers can take another format.
pub trait SetPrecision {
    /// Changes the layers that are robust to it. They are prepared anew when they next run.
    fn set_precision(&mut self, precision: Precision);
}

impl SetPrecision for CpSam {
    fn set_precision(&mut self, precision: Precision) {
        self.encoder.set_precision(precision);
    }
}

impl SetPrecision for ImageEncoder {
    fn set_precision(&mut self, precision: Precision) {
        for block in &mut self.blocks {
            block.attn.qkv.set_precision(precision);
            block.attn.proj.set_precision(precision);
            block.mlp.lin1.set_precision(precision);
            block.mlp.lin2.set_precision(precision);
        }
        self.neck._0.set_precision(precision);
        self.neck._2.set_precision(precision);
    }
}

fn set_all<'a>(layers: impl IntoIterator<Item = &'a mut ConvBn>, precision: Precision) {
    for layer in layers {
        layer.c.set_precision(precision);
    }
}

impl SetPrecision for TinyVit {
    fn set_precision(&mut self, precision: Precision) {
        let stages = &mut self.layers;
        // The 1 × 1 convolutions of stage 0 and of the mergings cost most of the agreement and next to no time: they stay.
        for stage in [&mut stages._1, &mut stages._2, &mut stages._3] {
            for TinyVitBlock { attn, mlp, .. } in &mut stage.blocks {
                for layer in [&mut attn.qkv, &mut attn.proj, &mut mlp.fc1, &mut mlp.fc2] {
                    layer.set_precision(precision);
                }
            }
        }
        self.neck._0.set_precision(precision);
        self.neck._2.set_precision(precision);
    }
}

impl SetPrecision for Unetr {
    fn set_precision(&mut self, precision: Precision) {
        let sampler = |sampler: &mut Upsampler| {
            if let Upsampler::Bilinear(sampler) = sampler {
                sampler.conv.set_precision(precision);
            }
        };
        let joining = |ConvBlock { block }: &mut ConvBlock| {
            block._1.set_precision(precision);
            block._4.set_precision(precision);
        };
        for Deconv { block } in [&mut self.deconv1, &mut self.deconv2, &mut self.deconv3, &mut self.deconv4] {
            sampler(&mut block._0);
            block._1.block.set_precision(precision);
        }
        joining(&mut self.base);
        self.decoder.samplers.iter_mut().for_each(sampler);
        self.decoder.blocks.iter_mut().for_each(joining);
        sampler(&mut self.deconv_out);
        joining(&mut self.decoder_head);
    }
}

impl SetPrecision for InstanceDecoder {
    fn set_precision(&mut self, precision: Precision) {
        set_all(self.blocks.iter_mut().flatten(), precision);
    }
}

impl SetPrecision for CytomaskT {
    fn set_precision(&mut self, precision: Precision) {
        self.image_encoder.set_precision(precision);
        self.instance_decoder.set_precision(precision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_gpus_refuse_fewer_bits() {
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
            assert!(precision.check(true).is_ok());
        }
        assert_eq!("int4".parse::<Precision>().unwrap_err().kind(), ErrorKind::Value);
        assert!(Precision::F32.check(false).is_ok());
        let error = Precision::Int8.check(false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("int8"), "{error}");
    }
}
