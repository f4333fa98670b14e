//! What tests of several modules draw.

use cytomask_image::Labels;

/// A label image drawn in digits, a row a string.
pub(crate) fn labels(rows: &[&str]) -> Labels {
    let size = [rows.len() as u32, rows[0].len() as u32];
    let ids = rows.iter().flat_map(|row| row.bytes().map(|byte| u32::from(byte - b'0'))).collect();
    Labels::from_vec(size, ids).unwrap()
}
