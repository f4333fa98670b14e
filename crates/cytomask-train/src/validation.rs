//! Scores of the validation images, by the ways the trained network will be used.

use cytomask_eval::{BothEmpty, contingency, mean_segmentation_accuracy};
use cytomask_image::Labels;
use cytomask_models::cytomask_t::{CytomaskTOptions, ScaleChoice};
use cytomask_models::flows::FlowPredictor;
use cytomask_models::sam::{SamOptions, SamPredictor};
use cytomask_segment::{Ais, Apg, BoxPrompt, FieldModel, Flows, Prompt, PromptModel};
use serde::{Deserialize, Serialize};

use crate::data::{MIN_OBJECT_PX, Sample};
use crate::network::Network;
use crate::trainer::Trainer;
use crate::{Error, ErrorKind};

/// Objects of an image that are prompted for with their boxes.
const BOXED_OBJECTS: usize = 25;

/// Means over the validation images; what the network cannot do is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// mSA by decoder maps and watershed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ais: Option<f64>,
    /// mSA by automatic prompt generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apg: Option<f64>,
    /// mSA by flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<f64>,
    /// Intersection over union of masks prompted for with the objects' boxes: where there is no instance decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<f64>,
}

impl Validation {
    /// What the best weights are chosen by: APG, else flows, AIS or boxes.
    pub fn score(&self) -> f64 {
        self.apg.or(self.flows).or(self.ais).or(self.boxes).unwrap_or_default()
    }
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("mSA by AIS", self.ais),
            ("mSA by APG", self.apg),
            ("mSA by flows", self.flows),
            ("IoU by boxes", self.boxes),
        ];
        let parts: Vec<String> =
            parts.iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value:.3}"))).collect();
        f.write_str(&parts.join(", "))
    }
}

/// One validation image and what was found on it.
#[derive(Clone, Copy, Debug)]
pub struct ValidatedImage<'a> {
    /// Which of the validation images.
    pub index: usize,
    /// The image and its true objects.
    pub sample: &'a Sample,
    /// By the way that [`Validation::score`] is of, `[H, W]`.
    pub found: &'a Labels,
    /// Its scores.
    pub scores: Validation,
}

impl Trainer {
    /// Scores of the validation images; none without any. `apg` is how prompts are generated.
    ///
    /// # Errors
    /// `Model` when the network fails.
    pub fn validate(&self, apg: &Apg) -> Result<Option<Validation>, Error> {
        self.validate_with(apg, &mut |_| {})
    }

    /// As [`Trainer::validate`], and shows what was found on each image, but for masks of boxes.
    ///
    /// # Errors
    /// As [`Trainer::validate`].
    pub fn validate_with(
        &self,
        apg: &Apg,
        see: &mut dyn FnMut(ValidatedImage<'_>),
    ) -> Result<Option<Validation>, Error> {
        let mut shown = |index: usize, sample: &Sample, scored: Scored| {
            let Scored { scores, found } = scored;
            if let Some(found) = &found {
                see(ValidatedImage { index, sample, found, scores });
            }
            scores
        };
        let samples = || self.validation.iter().enumerate();
        if self.validation.is_empty() {
            return Ok(None);
        }
        // Without gradients.
        let device = self.device.clone().inner();
        let all: Vec<Validation> = match self.network() {
            Network::CytomaskT(network) => {
                let options = CytomaskTOptions { scale: ScaleChoice::Fixed(1.0), ..CytomaskTOptions::default() };
                let network = network.with_options(options);
                let score = |(index, sample)| Ok(shown(index, sample, score_maps(&network, apg, sample)?));
                samples().map(score).collect::<Result<_, Error>>()?
            }
            Network::Sam(network) => {
                let options = SamOptions { input_side: network.input_side, ..SamOptions::default() };
                let with_decoder = network.decoder.is_some();
                let predictor = SamPredictor::new(network.sam, network.decoder, options, device).map_err(failed)?;
                let score = |(index, sample)| {
                    let scored = match with_decoder {
                        true => score_maps(&predictor, apg, sample)?,
                        false => Scored { scores: score_boxes(&predictor, sample)?, found: None },
                    };
                    Ok(shown(index, sample, scored))
                };
                samples().map(score).collect::<Result<_, Error>>()?
            }
            Network::CpSam(network) => {
                let predictor = FlowPredictor::cpsam(network, device);
                let score = |(index, sample): (usize, &Sample)| {
                    let fields = predictor.fields(&sample.image).map_err(failed)?;
                    let found = Flows::default().segment(&fields).labels;
                    let scores = Validation { flows: Some(msa(sample, &found)?), ..Validation::default() };
                    Ok(shown(index, sample, Scored { scores, found: Some(found) }))
                };
                samples().map(score).collect::<Result<_, Error>>()?
            }
        };
        let mean = |of: fn(&Validation) -> Option<f64>| {
            let values: Vec<f64> = all.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Ok(Some(Validation {
            ais: mean(|found| found.ais),
            apg: mean(|found| found.apg),
            flows: mean(|found| found.flows),
            boxes: mean(|found| found.boxes),
        }))
    }
}

/// Scores of one image, and what they are of where it can be shown.
struct Scored {
    scores: Validation,
    found: Option<Labels>,
}

fn score_maps<M>(predictor: &M, apg: &Apg, sample: &Sample) -> Result<Scored, Error>
where
    M: FieldModel + PromptModel<Error = cytomask_models::Error>,
{
    let embedding = predictor.encode(&sample.image).map_err(failed)?;
    let fields = predictor.fields(&embedding).map_err(failed)?;
    let ais = Some(msa(sample, &Ais::default().segment(&fields).labels)?);
    let boxes = apg.boxes_of(predictor, &embedding).map_err(failed)?;
    let found = apg.run_with_fields(predictor, &embedding, &fields, boxes.as_deref(), &mut |_, _| {});
    let found = found.map_err(failed)?.labels;
    let scores = Validation { ais, apg: Some(msa(sample, &found)?), ..Validation::default() };
    Ok(Scored { scores, found: Some(found) })
}

fn score_boxes(predictor: &SamPredictor, sample: &Sample) -> Result<Validation, Error> {
    let extents = sample.labels.extents();
    let objects: Vec<(u32, BoxPrompt)> = (1..)
        .zip(&extents)
        .filter(|(_, (area, _))| *area >= MIN_OBJECT_PX)
        .take(BOXED_OBJECTS)
        .map(|(id, (_, rect))| (id, BoxPrompt::from_rect(*rect)))
        .collect();
    if objects.is_empty() {
        return Ok(Validation::default());
    }
    let embedding = predictor.encode(&sample.image).map_err(failed)?;
    let prompts: Vec<Prompt> = objects.iter().map(|(_, bounds)| Prompt::bounds(*bounds)).collect();
    let answers = predictor.decode(&embedding, &prompts, false).map_err(failed)?;
    let ious = objects.iter().zip(answers).map(|((id, _), answer)| {
        let logits = answer[0].logits.to_image();
        let (mut both, mut either) = (0_u64, 0_u64);
        for (logit, label) in logits.iter().zip(sample.labels.as_slice()) {
            both += u64::from(*logit > 0.0 && label == id);
            either += u64::from(*logit > 0.0 || label == id);
        }
        both as f64 / either.max(1) as f64
    });
    let boxes = Some(ious.sum::<f64>() / objects.len() as f64);
    Ok(Validation { boxes, ..Validation::default() })
}

fn msa(sample: &Sample, found: &Labels) -> Result<f64, Error> {
    contingency(&sample.labels, found)
        .map(|table| mean_segmentation_accuracy(&table, BothEmpty::One).msa)
        .map_err(|error| Error::new(ErrorKind::Data, sample.path.display().to_string()).with_source(error))
}

fn failed(error: cytomask_models::Error) -> Error {
    Error::new(ErrorKind::Model, "validation failed").with_source(error)
}
