//! The model inside the program.

/// Its name wherever a model is named.
pub const NAME: &str = "cytomask-t";

/// Its weights as safetensors, half precision; none when the program was built without the feature `embedded`.
#[cfg(feature = "embedded")]
pub fn weights() -> Option<&'static [u8]> {
    Some(include_bytes!("../model/cytomask-t.safetensors"))
}

/// Its weights as safetensors, half precision; none when the program was built without the feature `embedded`.
#[cfg(not(feature = "embedded"))]
pub fn weights() -> Option<&'static [u8]> {
    None
}
