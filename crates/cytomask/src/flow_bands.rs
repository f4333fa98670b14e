//! Flows of an image that is too large to be held: bands of rows are segmented as their maps come, and what they find is joined.

use std::collections::VecDeque;

use cytomask_image::{Rect, Tile};
use cytomask_models::{FlowDiameter, Model};
use cytomask_segment::stitch::{self, Found};
use cytomask_segment::{FlowFields, Flows, Segmentation};

use crate::{Error, Phase, Pixels, Strategy, large};

/// Larger images are segmented in bands, pixels: their maps alone would take 400 MB.
const WHOLE_PIXELS: u64 = 1 << 25;
/// Pixels of a band with its halo.
const BAND_PIXELS: u64 = 1 << 24;
/// Rows around a band. Taller objects are put together from pieces.
const HALO_ROWS: u32 = 128;

/// Larger images are read in parts, pixels.
const READ_PIXELS: u64 = 1 << 23;

/// Whether the diameter is estimated first, from the whole image.
pub(crate) fn is_estimated(model: &Model) -> bool {
    model.flow_predictor().is_some_and(|predictor| predictor.options.diameter == FlowDiameter::Estimated)
}

/// Whether an image is segmented in bands.
pub(crate) fn is_large(model: &Model, size: [u32; 2]) -> bool {
    u64::from(size[0]) * u64::from(size[1]) > WHOLE_PIXELS && !is_estimated(model)
}

/// Whether an image is better read in parts.
pub(crate) fn is_read_in_parts(model: &Model, size: [u32; 2]) -> bool {
    u64::from(size[0]) * u64::from(size[1]) > READ_PIXELS && !is_estimated(model)
}

/// The bands of an image.
fn bands(size: [u32; 2], pixels: u64) -> Vec<Tile> {
    let rows = (pixels / u64::from(size[1].max(1))) as u32;
    let inner = rows.saturating_sub(2 * HALO_ROWS).max(HALO_ROWS);
    cytomask_image::tiles(size, [inner, size[1]], [HALO_ROWS, 0])
}

/// Segments an image band by band. Beside the labels, memory is that of a band and of a row of the network's tiles.
pub(crate) fn run(
    model: &Model,
    flows: &Flows,
    image: &dyn Pixels,
    report: &mut dyn FnMut(Phase),
) -> Result<Segmentation, Error> {
    run_bands(model, flows, image, BAND_PIXELS, report)
}

fn run_bands(
    model: &Model,
    flows: &Flows,
    image: &dyn Pixels,
    band_pixels: u64,
    report: &mut dyn FnMut(Phase),
) -> Result<Segmentation, Error> {
    let size = image.size();
    let bands = bands(size, band_pixels);
    let scale = model.flow_predictor().map(|predictor| predictor.scale_of(predictor.options.diameter)).transpose()?;
    let mut rows: VecDeque<Vec<f32>> = VecDeque::new();
    let (mut first, mut next) = (0_u32, 0);
    let mut found: Vec<Found> = Vec::new();
    report(Phase::Tile { done: 0, total: bands.len() });
    let mut read = |rect: Rect| Ok(image.read(rect)?.into_owned());
    let mut keep = |y: u32, row: [&[f32]; 3]| {
        rows.push_back(row.concat());
        while let Some(band) = bands.get(next).filter(|band| y + 1 == band.outer.y1) {
            let mut fields = FlowFields::with_capacity(band.outer.size());
            fields.scale = scale.unwrap_or(1.0);
            for row in rows.iter().skip((band.outer.y0 - first) as usize) {
                let width = size[1] as usize;
                fields.push_row([0, 1, 2].map(|map| &row[map * width..(map + 1) * width]));
            }
            found.extend(flows.tile(&fields, band, size));
            next += 1;
            // What no later band needs.
            let needed = bands.get(next).map_or(size[0], |band| band.outer.y0);
            rows.drain(..((needed - first) as usize).min(rows.len()));
            first = needed;
            if next < bands.len() {
                report(Phase::Tile { done: next, total: bands.len() });
            }
        }
        Ok::<(), Error>(())
    };
    model.flow_rows(size, &mut read, &mut keep)?;
    report(Phase::Merge);
    let strategy = Strategy::Flows(*flows);
    let settings = large::settings(&strategy, size, &bands, 0);
    let joined = stitch::join(found, &settings, &mut |_, _| Ok::<_, Error>(Vec::new()))?;
    Ok(large::paint(&strategy, size, &joined))
}

#[cfg(test)]
mod tests {
    use cytomask_image::{Image, Rgb};
    use cytomask_models::DeviceChoice;

    use super::*;

    #[test]
    fn bands_find_what_the_whole_shows() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/cpsam_small.pt");
        let model = crate::load_model(&path.display().to_string(), None, DeviceChoice::Cpu).unwrap();
        let size = [700_u32, 90];
        let inside = |y: u32, x: u32| {
            let (dy, dx) = (i64::from(y % 35) - 17, i64::from(x % 30) - 15);
            dy * dy + dx * dx < 130
        };
        let samples = (0..size[0] * size[1]).map(|at| if inside(at / 90, at % 90) { 200.0 } else { 30.0 }).collect();
        let image: Rgb = Image::from_samples(size, 1, samples).unwrap().to_rgb(model.normalization()).unwrap();
        let flows = Flows::default();
        let whole = crate::Segmenter::new(model.clone()).run_rgb(&image, None, &mut |_| {}).unwrap();
        // As few rows as a band can have.
        let found = run_bands(&model, &flows, &image, 1, &mut |_| {}).unwrap();
        assert!(whole.objects.len() > 20, "{}", whole.objects.len());
        assert_eq!(found.objects.len(), whole.objects.len());
        let inside = whole.labels.as_slice().iter().zip(found.labels.as_slice());
        let different = inside.filter(|(a, b)| (**a == 0) != (**b == 0)).count();
        assert!(different < 20, "{different} pixels differ");
    }
}
