//! Pieces of JSON for files too long to be built in memory.

/// A string with its quotes.
pub(crate) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A finite number.
pub(crate) fn number(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| "null".into(), |number| number.to_string())
}
