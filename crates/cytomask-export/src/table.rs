//! A table with one row for each object: what the CSV and Parquet files hold and the other formats take their numbers from.

use cytomask_image::{Error, Result};

use crate::Objects;
use crate::measure::{Intensity, Measurements, Shape};

/// The numbers of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Ids, coordinates.
    U32(Vec<u32>),
    /// Counts.
    I64(Vec<i64>),
    /// Anything else; NaN is missing.
    F64(Vec<f64>),
}

impl Values {
    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Self::U32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number in `row`, if there is one.
    pub fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::U32(values) => values.get(row).map(|&value| f64::from(value)),
            Self::I64(values) => values.get(row).map(|&value| value as f64),
            Self::F64(values) => values.get(row).copied().filter(|value| value.is_finite()),
        }
    }
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// As in the table's head: `area_px`.
    pub name: String,
    /// As QuPath shows it: `Area px^2`. Empty for what QuPath knows from the outline itself.
    pub title: String,
    /// One number for each object.
    pub values: Values,
}

impl Column {
    /// A column of anything, NaN for missing.
    pub fn numbers(name: impl Into<String>, title: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        Self { name: name.into(), title: title.into(), values: Values::F64(values.into_iter().collect()) }
    }

    fn ids(name: &str, values: impl IntoIterator<Item = u32>) -> Self {
        Self { name: name.into(), title: String::new(), values: Values::U32(values.into_iter().collect()) }
    }

    fn counts(name: &str, title: &str, values: impl IntoIterator<Item = i64>) -> Self {
        Self { name: name.into(), title: title.into(), values: Values::I64(values.into_iter().collect()) }
    }
}

/// One row for each object, in the order of [`Objects::ids`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
}

/// What a measurement is called and how it is taken from a [`Shape`].
type Measure = (&'static str, &'static str, fn(&Shape) -> f64);

/// Pixels and pure numbers, after the columns every table begins with.
const SHAPES: [Measure; 10] = [
    ("perimeter_px", "Perimeter px", |shape| shape.perimeter),
    ("major_axis_px", "Major axis px", |shape| shape.major_axis),
    ("minor_axis_px", "Minor axis px", |shape| shape.minor_axis),
    ("orientation_rad", "Orientation rad", |shape| shape.orientation),
    ("eccentricity", "Eccentricity", |shape| shape.eccentricity),
    ("solidity", "Solidity", |shape| shape.solidity),
    ("equivalent_diameter_px", "Equivalent diameter px", |shape| shape.equivalent_diameter),
    ("extent", "Extent", |shape| shape.extent),
    ("feret_max_px", "Max diameter px", |shape| shape.feret_max),
    ("convex_area_px", "Convex area px^2", |shape| shape.convex_area as f64),
];

/// Lengths that are repeated in µm, by their name without the unit.
const LENGTHS: [Measure; 5] = [
    ("perimeter", "Perimeter", |shape| shape.perimeter),
    ("major_axis", "Major axis", |shape| shape.major_axis),
    ("minor_axis", "Minor axis", |shape| shape.minor_axis),
    ("equivalent_diameter", "Equivalent diameter", |shape| shape.equivalent_diameter),
    ("feret_max", "Max diameter", |shape| shape.feret_max),
];

type Statistic = (&'static str, &'static str, fn(&Intensity) -> f64);

const STATISTICS: [Statistic; 5] = [
    ("mean", "Mean", |intensity| intensity.mean),
    ("min", "Min", |intensity| intensity.min),
    ("max", "Max", |intensity| intensity.max),
    ("std", "Std.Dev.", |intensity| intensity.std),
    ("median", "Median", |intensity| intensity.median),
];

/// Pixels whose sides differ by less than this share count as square.
const SQUARE: f64 = 1e-3;

impl Table {
    /// The measurements as a table. First `id`, `area_px`, `centroid_*` and `box_*`; then `known`, what is known of the objects
    /// from elsewhere (scores, prompts); then shape, brightness by channel, and lengths in µm when `pixel_size_um` (`[y, x]`) is
    /// given. Channels without a name are called by their index.
    ///
    /// Lengths in µm need square pixels and are left out of the table otherwise; areas and positions are not.
    ///
    /// # Errors
    /// `Shape` when a column of `known` does not have one number for each object.
    pub fn new(
        objects: &Objects<'_>,
        measurements: &Measurements,
        known: Vec<Column>,
        channel_names: &[String],
        pixel_size_um: Option<[f64; 2]>,
    ) -> Result<Self> {
        let shapes = &measurements.shapes;
        let mut columns = vec![
            Column::ids("id", objects.ids().iter().copied()),
            Column::counts("area_px", "Area px^2", shapes.iter().map(|shape| shape.area as i64)),
            Column::numbers("centroid_y", "", shapes.iter().map(|shape| shape.centroid[0])),
            Column::numbers("centroid_x", "", shapes.iter().map(|shape| shape.centroid[1])),
            Column::ids("box_y0", shapes.iter().map(|shape| shape.rect.y0)),
            Column::ids("box_x0", shapes.iter().map(|shape| shape.rect.x0)),
            Column::ids("box_y1", shapes.iter().map(|shape| shape.rect.y1)),
            Column::ids("box_x1", shapes.iter().map(|shape| shape.rect.x1)),
        ];
        columns.extend(known);
        for (name, title, value) in SHAPES {
            columns.push(Column::numbers(name, title, shapes.iter().map(value)));
        }
        columns.push(Column::counts("euler_number", "Euler number", shapes.iter().map(|shape| shape.euler_number)));
        let channels = measurements.intensities.first().map_or(0, Vec::len);
        for channel in 0..channels {
            let named = channel_names.get(channel).filter(|name| !name.is_empty());
            // Two channels of one name keep their columns apart.
            let unique = channel_names.iter().filter(|other| Some(*other) == named).count() == 1;
            let named = named.map(|name| if unique { name.clone() } else { format!("{name} {channel}") });
            let name = named.as_deref().map_or_else(|| channel.to_string(), column_word);
            let shown = named.unwrap_or_else(|| format!("Channel {channel}"));
            for (statistic, title, value) in STATISTICS {
                let values = measurements.intensities.iter().map(|channels| value(&channels[channel]));
                columns.push(Column::numbers(
                    format!("intensity_{statistic}_{name}"),
                    format!("{shown}: {title}"),
                    values,
                ));
            }
        }
        if let Some([y, x]) = pixel_size_um {
            let areas = shapes.iter().map(|shape| shape.area as f64 * y * x);
            columns.push(Column::numbers("area_um2", "Area µm^2", areas));
            // QuPath shows its own, taken at the corner of the image, not at the centre of its first pixel.
            columns.push(Column::numbers("centroid_y_um", "", shapes.iter().map(|shape| shape.centroid[0] * y)));
            columns.push(Column::numbers("centroid_x_um", "", shapes.iter().map(|shape| shape.centroid[1] * x)));
            if (y - x).abs() <= SQUARE * y.max(x) {
                for (name, title, value) in LENGTHS {
                    let lengths = shapes.iter().map(|shape| value(shape) * x);
                    columns.push(Column::numbers(format!("{name}_um"), format!("{title} µm"), lengths));
                }
            }
        }
        let table = Self { columns };
        for column in &table.columns {
            if column.values.len() != objects.len() {
                return Err(Error::shape(
                    &format!("column {}", column.name),
                    format!("{} numbers, one for each object", objects.len()),
                    column.values.len(),
                ));
            }
        }
        Ok(table)
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A channel's name as part of a column's: what would need quoting becomes `_`.
fn column_word(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "-.+".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use cytomask_image::{Image, Labels};

    use super::*;
    use crate::measure::measure;

    #[test]
    fn columns_follow_what_is_known() {
        let labels = Labels::from_vec([2, 2], vec![4, 4, 0, 9]).unwrap();
        let objects = Objects::new(&labels);
        let image = Image::from_samples([2, 2], 1, vec![1.0, 3.0, 0.0, 5.0]).unwrap();
        let measured = measure(&objects, Some(&image)).unwrap();
        let scores = vec![Column::numbers("score", "Score", [0.5, f64::NAN])];
        let names = ["DAPI, 405 nm".to_owned()];
        let table = Table::new(&objects, &measured, scores.clone(), &names, Some([0.5, 0.5])).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.columns()[0].values, Values::U32(vec![4, 9]));
        assert_eq!(table.columns()[8].name, "score");
        assert_eq!(table.column("score").unwrap().values.number(1), None);
        assert_eq!(table.column("intensity_mean_DAPI__405_nm").unwrap().values.number(0), Some(2.0));
        assert_eq!(table.column("area_um2").unwrap().values.number(0), Some(0.5));
        assert_eq!(table.column("feret_max_um").unwrap().values.number(1), Some(0.5));
        let oblong = Table::new(&objects, &measured, vec![], &[], Some([0.5, 0.7])).unwrap();
        assert!(oblong.column("feret_max_um").is_none() && oblong.column("area_um2").is_some());
        assert!(oblong.column("intensity_max_0").is_some());
        let short = vec![Column::numbers("score", "Score", [0.5])];
        assert!(Table::new(&objects, &measured, short, &[], None).unwrap_err().to_string().contains("column score"));
    }
}
