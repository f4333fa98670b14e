//! Safetensors files: a length, a JSON header, raw numbers (<https://github.com/huggingface/safetensors>).
//!
//! A joint file holds the decoder's tensors under `decoder_state/` and, optionally, the model's under `model_state/`.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

use crate::tensor::{Bytes, Stored, TensorMap, row_major};
use crate::torch::{Sections, in_tensor};
use crate::{DType, Error, ErrorKind, Result};

/// Prefix of decoder tensors in a joint file.
pub const DECODER_PREFIX: &str = "decoder_state/";
const MODEL_PREFIX: &str = "model_state/";

/// Whether the bytes begin as a safetensors file does: a header length, then a JSON object.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

pub(crate) fn read(bytes: &Bytes) -> Result<(Sections, BTreeMap<String, String>)> {
    let (header, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|source| Error::format("damaged or truncated safetensors file").with_source(source))?;
    let data = header + 8;
    let mut model = TensorMap::default();
    let mut decoder = TensorMap::default();
    let infos: BTreeMap<String, _> = metadata.tensors().into_iter().collect();
    for (name, info) in infos {
        let stored = || {
            let dtype = dtype(info.dtype)
                .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("number type {}", info.dtype)))?;
            let strides = row_major(&info.shape).ok_or_else(|| Error::format("too many elements"))?;
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            Stored::new(bytes.clone(), range, 0, info.shape.clone(), strides, dtype)
        };
        let stored = stored().map_err(|error| in_tensor(&name, error))?;
        if let Some(short) = name.strip_prefix(DECODER_PREFIX) {
            decoder.insert(short, stored)?;
        } else {
            model.insert(name.strip_prefix(MODEL_PREFIX).unwrap_or(&name), stored)?;
        }
    }
    if model.is_empty() && decoder.is_empty() {
        return Err(Error::format("a safetensors file without tensors"));
    }
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((Sections { model, decoder: (!decoder.is_empty()).then_some(decoder) }, metadata))
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}
