//! Many settings on one prepared image, each part of the work done once for all settings that share it.
//!
//! | mode | once an image | once for settings that share | for every setting |
//! |---|---|---|---|
//! | AMG | the grid's masks, by the loosest filters | – | filters, suppression, painting |
//! | AIS | maps | smoothed maps; watershed | least size |
//! | APG | each prompt's mask, at each scale | derived prompts | suppression, painting |
//!
//! As µSAM's `initialize` and `generate`, and finer. The settings of a group run in parallel, and each result goes to the caller and
//! away, so that memory holds a few label images, not one a setting. An image of several tiles shares its features only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cytomask_image::Tile;
use cytomask_segment::amg::Proposals;
use cytomask_segment::apg::{DerivedPrompt, KnownProposals, Proposal};
use cytomask_segment::{Ais, Amg, Apg, Fields, Segmentation};
use rayon::prelude::*;

use crate::job;
use crate::prepared::Encoded;
use crate::{Error, Prepared, Strategy};

/// Answers of the network that outlive one call.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// AMG's proposals for the whole image, with the settings they were made by.
    grids: Vec<(Amg, Proposals)>,
    /// APG's.
    prompts: KnownProposals,
}

/// Finished results by the index of their strategy.
struct Results<'a, T> {
    visit: &'a (dyn Fn(usize, Segmentation) -> T + Sync),
    found: Mutex<Vec<Option<T>>>,
}

impl<T> Results<'_, T> {
    fn put(&self, index: usize, segmentation: Segmentation) {
        let value = (self.visit)(index, segmentation);
        lock(&self.found)[index] = Some(value);
    }
}

impl Prepared {
    /// Segments the image by each of the strategies and hands each result, with its strategy's index, to `visit`, in no certain
    /// order and from several threads. Returns what `visit` returned, in the order of the strategies. Each result is that of
    /// [`Prepared::segment`].
    ///
    /// # Errors
    /// As [`Prepared::segment`].
    pub fn segment_each<T: Send>(
        &self,
        strategies: &[Strategy],
        visit: &(dyn Fn(usize, Segmentation) -> T + Sync),
    ) -> Result<Vec<T>, Error> {
        let results = Results { visit, found: Mutex::new(strategies.iter().map(|_| None).collect()) };
        let (mut amg, mut ais, mut apg) = (Vec::new(), Vec::new(), Vec::new());
        for (index, strategy) in strategies.iter().enumerate() {
            // Objects of several tiles are joined anew for each of the settings.
            let whole = self.is_seen_whole_by(strategy)?;
            match strategy {
                Strategy::Amg(settings) if whole => amg.push((index, settings)),
                Strategy::Ais(settings) if whole => ais.push((index, settings)),
                Strategy::Apg(settings) if whole => apg.push((index, settings)),
                other => results.put(index, self.segment(other, &mut |_| {})?),
            }
        }
        self.each_amg(&amg, &results)?;
        self.each_ais(&ais, &results)?;
        self.each_apg(&apg, &results)?;
        let found = results.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(found.into_iter().flatten().collect())
    }

    /// Asks the network what AMG with these settings will need, so that a later [`Prepared::segment_each`] with any part of them
    /// need not ask again. The settings of other modes ask as they come.
    ///
    /// # Errors
    /// As [`Prepared::segment`].
    pub fn expect(&self, strategies: &[Strategy]) -> Result<(), Error> {
        let mut amg = Vec::new();
        for strategy in strategies {
            if let Strategy::Amg(settings) = strategy
                && self.is_seen_whole_by(strategy)?
            {
                amg.push(settings);
            }
        }
        let mut answers = std::mem::take(&mut *lock(&self.answers));
        let decoded = self.decode_grids(&mut answers, amg.into_iter());
        *lock(&self.answers) = answers;
        decoded
    }

    /// Whether at each scale a strategy looks at the image is one tile.
    fn is_seen_whole_by(&self, strategy: &Strategy) -> Result<bool, Error> {
        for scale in self.seen_by(strategy, &mut |_| {})? {
            if !scale.encoded()?.is_whole() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes sure that for each of the settings there are proposals.
    fn decode_grids<'a>(&self, answers: &mut Answers, wanted: impl Iterator<Item = &'a Amg>) -> Result<(), Error> {
        let mut missing: Vec<Amg> = Vec::new();
        for amg in wanted {
            if answers.grids.iter().any(|(made, _)| made.proposals_serve(amg)) {
                continue;
            }
            match missing.iter_mut().find_map(|other| other.looser_of(amg).map(|both| (other, both))) {
                Some((other, both)) => *other = both,
                None => missing.push(amg.clone()),
            }
        }
        for loosest in missing {
            let Encoded { model, tiles } = self.encoded()?;
            let proposals = loosest.propose_encoded(model, &self.image, &tiles[0].embedding, &mut |_, _| {})?;
            answers.grids.push((loosest, proposals));
        }
        Ok(())
    }

    fn each_amg<T: Send>(&self, settings: &[(usize, &Amg)], results: &Results<'_, T>) -> Result<(), Error> {
        // Taken out while the threads work: a thread that waits for its own lock would wait for ever.
        let mut answers = std::mem::take(&mut *lock(&self.answers));
        let decoded = self.decode_grids(&mut answers, settings.iter().map(|(_, amg)| *amg));
        if decoded.is_ok() {
            settings.par_iter().for_each(|&(index, amg)| {
                if let Some((_, proposals)) = answers.grids.iter().find(|(made, _)| made.proposals_serve(amg)) {
                    results.put(index, amg.merge(proposals));
                }
            });
        }
        *lock(&self.answers) = answers;
        decoded
    }

    fn each_ais<T: Send>(&self, settings: &[(usize, &Ais)], results: &Results<'_, T>) -> Result<(), Error> {
        if settings.is_empty() {
            return Ok(());
        }
        let Encoded { model, tiles } = self.encoded()?;
        let fields = tiles[0].fields(model)?;
        let smoothing = |ais: &Ais| (ais.foreground_smoothing, ais.distance_smoothing);
        for same_maps in groups(settings, |a, b| smoothing(a) == smoothing(b)) {
            let smoothed = same_maps[0].1.smooth(fields);
            let but_for_size = |ais: &Ais| Ais { min_size: 0, ..*ais };
            groups(&same_maps, |a, b| but_for_size(a) == but_for_size(b)).par_iter().for_each(|same_objects| {
                let labels = same_objects[0].1.flood(&smoothed);
                for &(index, ais) in same_objects {
                    results.put(index, ais.finish(labels.clone(), fields));
                }
            });
        }
        Ok(())
    }

    fn each_apg<T: Send>(&self, settings: &[(usize, &Apg)], results: &Results<'_, T>) -> Result<(), Error> {
        // Settings that reproduce the reference look at one scale, others may look at several.
        for same_scales in groups(settings, |a, b| a.compat == b.compat) {
            let scales = self.seen_by(&Strategy::Apg(same_scales[0].1.clone()), &mut |_| {})?;
            let same_proposals = groups(&same_scales, |a, b| a.proposing() == b.proposing());
            let by_scale =
                scales.iter().map(|scale| scale.proposals(&same_proposals)).collect::<Result<Vec<_>, Error>>()?;
            let tiles = scales.iter().map(Self::tile_with_fields).collect::<Result<Vec<_>, Error>>()?;
            for (at, group) in same_proposals.iter().enumerate() {
                group.par_iter().for_each(|&(index, apg)| {
                    let found = |((tile, fields), groups): (&(Tile, &Fields), &Vec<Vec<Proposal>>)| {
                        apg.found(groups[at].clone(), fields, tile)
                    };
                    let found = tiles.iter().zip(&by_scale).map(found).collect();
                    results.put(index, apg.merge_scales(self.size(), found));
                });
            }
        }
        Ok(())
    }

    /// The only tile of an image of one, and its maps.
    fn tile_with_fields(&self) -> Result<(Tile, &Fields), Error> {
        let Encoded { model, tiles } = self.encoded()?;
        Ok((tiles[0].tile, tiles[0].fields(model)?))
    }

    /// The proposals in an image of one tile for the first settings of each group.
    fn proposals(&self, groups: &[Vec<(usize, &Apg)>]) -> Result<Vec<Vec<Proposal>>, Error> {
        let Encoded { model, tiles } = self.encoded()?;
        let tile = &tiles[0];
        // Maps and boxes first, so that no two threads compute them.
        tile.fields(model)?;
        groups.iter().try_for_each(|group| tile.boxes_for(group[0].1, model).map(|_| ()))?;
        let derived = groups
            .par_iter()
            .map(|group| job::tile_prompts(group[0].1, tile, model))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut answers = std::mem::take(&mut *lock(&self.answers));
        let size = tile.tile.outer.size();
        let mut propose = |(group, prompts): (&Vec<(usize, &Apg)>, &Vec<DerivedPrompt>)| {
            let known = &mut answers.prompts;
            group[0].1.propose_new(model, &tile.embedding, size, prompts, known, &mut |_, _| {})
        };
        let found = groups.iter().zip(&derived).map(&mut propose).collect::<Result<Vec<_>, _>>();
        *lock(&self.answers) = answers;
        Ok(found?)
    }
}

/// A poisoned lock guards nothing half-done here: values are put in whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings that are alike in some respect, in the order they come.
fn groups<'a, S>(settings: &[(usize, &'a S)], alike: impl Fn(&S, &S) -> bool) -> Vec<Vec<(usize, &'a S)>> {
    let mut groups: Vec<Vec<(usize, &S)>> = Vec::new();
    for &(index, setting) in settings {
        match groups.iter_mut().find(|group| alike(group[0].1, setting)) {
            Some(group) => group.push((index, setting)),
            None => groups.push(vec![(index, setting)]),
        }
    }
    groups
}
