//! The table as comma-separated values: a head, then one line for each object; a missing number is an empty cell.

use std::io::Write;

use cytomask_image::Result;

use crate::{Table, Values, io_failed};

/// Significant digits of numbers that are not whole. The Parquet file has all of them.
const DIGITS: usize = 7;

/// Writes `table` as UTF-8 with a line feed after every line.
///
/// # Errors
/// `Io`.
pub fn write(writer: &mut dyn Write, table: &Table) -> Result<()> {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    writeln!(writer, "{}", names.join(",")).map_err(io_failed)?;
    let mut line = String::new();
    for row in 0..table.len() {
        line.clear();
        for (index, column) in table.columns().iter().enumerate() {
            if index > 0 {
                line.push(',');
            }
            match &column.values {
                Values::U32(values) => line.push_str(&values[row].to_string()),
                Values::I64(values) => line.push_str(&values[row].to_string()),
                Values::F64(values) if values[row].is_finite() => line.push_str(&rounded(values[row])),
                Values::F64(_) => {}
            }
        }
        line.push('\n');
        writer.write_all(line.as_bytes()).map_err(io_failed)?;
    }
    Ok(())
}

/// The shortest way to write `value` with its first digits; never with an exponent.
fn rounded(value: f64) -> String {
    let text = format!("{value:.*e}", DIGITS - 1);
    // Back through a number, which drops trailing zeros and the exponent.
    text.parse::<f64>().unwrap_or(value).to_string()
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;

    use super::*;
    use crate::{Column, Objects, measure::measure};

    #[test]
    fn numbers_are_short_and_missing_ones_empty() {
        assert_eq!(rounded(1.0 / 3.0), "0.3333333");
        assert_eq!(rounded(12.0), "12");
        assert_eq!(rounded(1e-9), "0.000000001");
        assert_eq!(rounded(123_456_789.0), "123456800");
        let labels = Labels::from_vec([1, 3], vec![5, 0, 7]).unwrap();
        let objects = Objects::new(&labels);
        let score = vec![Column::numbers("score", "Score", [0.25, f64::NAN])];
        let table = Table::new(&objects, &measure(&objects, None).unwrap(), score, &[], None).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &table).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("id,area_px,centroid_y,centroid_x,box_y0,box_x0,box_y1,box_x1,score,perimeter_px,")
        );
        assert!(lines[1].starts_with("5,1,0,0,0,0,1,1,0.25,0,"), "{}", lines[1]);
        assert!(lines[2].starts_with("7,1,0,2,0,2,1,3,,0,"), "{}", lines[2]);
        assert_eq!(lines.len(), 3);
    }
}
