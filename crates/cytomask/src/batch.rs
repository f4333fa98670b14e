//! Many images with one model: reading, segmenting and writing overlap, within a number of jobs and a memory budget.
//!
//! One thread reads, [`Limits::jobs`] segment, one writes. The queues between them hold at most one image a job, so that memory stays
//! bounded whatever is slowest. While one image is post-processed or written, the next is read and encoded. An image that fails, by
//! an error or a panic, ends as [`Outcome::Failed`] and the rest go on. What an image is, and what is done with it, is the caller's
//! ([`Work`]); files and finished results are unknown here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is done with each image, by its index.
pub trait Work: Sync {
    /// An image that has been read.
    type Loaded: Send;
    /// An image that has been segmented.
    type Segmented: Send;
    /// What is kept of an image once its results are written.
    type Done: Send;

    /// Peak memory of the image, bytes, from its header. Asked only with a [`Limits::memory_bytes`].
    ///
    /// # Errors
    /// A message for people.
    fn memory_bytes(&self, index: usize) -> Result<u64, String>;

    /// Reads the image, or finds that it is finished.
    ///
    /// # Errors
    /// A message for people.
    fn read(&self, index: usize) -> Result<Read<Self::Loaded, Self::Done>, String>;

    /// Segments what was read.
    ///
    /// # Errors
    /// A message for people.
    fn segment(&self, index: usize, loaded: Self::Loaded) -> Result<Self::Segmented, String>;

    /// Writes the results.
    ///
    /// # Errors
    /// A message for people.
    fn write(&self, index: usize, segmented: Self::Segmented) -> Result<Self::Done, String>;
}

/// What reading an image comes to.
#[derive(Debug)]
pub enum Read<L, D> {
    /// There is work to do.
    Loaded(L),
    /// Its results are there already.
    Finished(D),
}

/// How much may go on at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Images segmented at a time; 0 counts as 1.
    pub jobs: usize,
    /// Memory of all images in hand together, bytes. An image that needs more by itself fails.
    pub memory_bytes: Option<u64>,
}

/// Where an image failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening and decoding its file.
    Read,
    /// Network and post-processing.
    Segment,
    /// Writing its results.
    Write,
}

impl Stage {
    /// The stage's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Segment => "segment",
            Self::Write => "write",
        }
    }
}

/// Why an image has no results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// What went wrong.
    pub message: String,
    /// Whether this is a fault of the program, caught, and not an error it foresaw.
    pub panicked: bool,
}

/// What became of an image.
#[derive(Debug)]
pub enum Outcome<D> {
    /// Segmented and written.
    Done(D),
    /// Its results were there already.
    Skipped(D),
    /// It has no results.
    Failed(Failure),
    /// The run was stopped before its turn.
    NotReached,
}

/// What [`run`] tells while it runs.
#[derive(Debug)]
pub enum Event<'a, D> {
    /// Work on this image begins (it will not be skipped).
    Started(usize),
    /// An image is done, skipped or failed.
    Ended(usize, &'a Outcome<D>),
}

/// Runs `count` images through `work`, and returns their outcomes by index.
///
/// Images are begun in order; results do not depend on the limits. Once `stop` is set no further image is begun; those being
/// segmented are finished and written.
pub fn run<W: Work>(
    work: &W,
    count: usize,
    limits: &Limits,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event<'_, W::Done>),
) -> Vec<Outcome<W::Done>> {
    let jobs = limits.jobs.max(1);
    let budget = Budget::new(limits.memory_bytes);
    let (to_segment, read) = sync_channel::<InHand<'_, W::Loaded>>(1);
    let (to_write, segmented) = sync_channel::<InHand<'_, W::Segmented>>(jobs);
    let (report, news) = channel();
    let read = Mutex::new(read);
    let mut outcomes: Vec<Outcome<W::Done>> = (0..count).map(|_| Outcome::NotReached).collect();

    std::thread::scope(|scope| {
        let line = Line { work, stop, report };
        let reader = line.clone();
        let budget = &budget;
        scope.spawn(move || reader.read_all(count, budget, &to_segment));
        for _ in 0..jobs {
            let (worker, read, to_write) = (line.clone(), &read, to_write.clone());
            scope.spawn(move || worker.segment_all(read, &to_write));
        }
        // The threads hold the only senders, so that each queue closes when those before it are through.
        drop(to_write);
        scope.spawn(move || line.write_all(&segmented));
        for told in news {
            match told {
                News::Started(index) => on_event(Event::Started(index)),
                News::Ended(index, outcome) => {
                    on_event(Event::Ended(index, &outcome));
                    outcomes[index] = outcome;
                }
            }
        }
    });
    outcomes
}

enum News<D> {
    Started(usize),
    Ended(usize, Outcome<D>),
}

/// An image between two threads, with its share of the budget.
struct InHand<'a, T> {
    index: usize,
    value: T,
    share: Share<'a>,
}

/// What every thread of the line has.
struct Line<'a, W: Work> {
    work: &'a W,
    stop: &'a AtomicBool,
    report: Sender<News<W::Done>>,
}

impl<W: Work> Clone for Line<'_, W> {
    fn clone(&self) -> Self {
        Self { work: self.work, stop: self.stop, report: self.report.clone() }
    }
}

impl<W: Work> Line<'_, W> {
    fn tell(&self, news: News<W::Done>) {
        // The receiver lives as long as the threads.
        let _ = self.report.send(news);
    }

    fn failed(&self, index: usize, failure: Failure) {
        self.tell(News::Ended(index, Outcome::Failed(failure)));
    }

    fn read_all<'b>(&self, count: usize, budget: &'b Budget, to_segment: &SyncSender<InHand<'b, W::Loaded>>) {
        for index in 0..count {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let bytes = match budget.limit {
                None => Ok(0),
                Some(limit) => caught(Stage::Read, || self.work.memory_bytes(index)).and_then(|bytes| {
                    let message = || {
                        format!(
                            "needs about {:.1} GB of memory, the budget is {:.1} GB",
                            bytes as f64 / 1e9,
                            limit as f64 / 1e9
                        )
                    };
                    if bytes <= limit { Ok(bytes) } else { Err(failure(Stage::Read, message())) }
                }),
            };
            let read = bytes.map(|bytes| budget.take(bytes)).and_then(|share| {
                // It may have been a long wait.
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                caught(Stage::Read, || self.work.read(index)).map(|read| Some((read, share)))
            });
            match read {
                Ok(None) => return,
                Ok(Some((Read::Finished(done), _))) => self.tell(News::Ended(index, Outcome::Skipped(done))),
                Ok(Some((Read::Loaded(value), share))) => {
                    if to_segment.send(InHand { index, value, share }).is_err() {
                        return;
                    }
                }
                Err(failure) => self.failed(index, failure),
            }
        }
    }

    fn segment_all<'b>(
        &self,
        read: &Mutex<Receiver<InHand<'b, W::Loaded>>>,
        to_write: &SyncSender<InHand<'b, W::Segmented>>,
    ) {
        loop {
            // The guard goes before the work begins: the others wait for the queue, not for this image.
            let Ok(InHand { index, value, share }) = locked(read).recv() else { return };
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            self.tell(News::Started(index));
            match caught(Stage::Segment, || self.work.segment(index, value)) {
                Ok(value) => {
                    if to_write.send(InHand { index, value, share }).is_err() {
                        return;
                    }
                }
                Err(failure) => self.failed(index, failure),
            }
        }
    }

    fn write_all(&self, segmented: &Receiver<InHand<'_, W::Segmented>>) {
        for InHand { index, value, share } in segmented {
            match caught(Stage::Write, || self.work.write(index, value)) {
                Ok(done) => self.tell(News::Ended(index, Outcome::Done(done))),
                Err(failure) => self.failed(index, failure),
            }
            drop(share);
        }
    }
}

fn failure(stage: Stage, message: String) -> Failure {
    Failure { stage, message, panicked: false }
}

/// Runs one step; a panic becomes a failure with its message.
fn caught<T>(stage: Stage, step: impl FnOnce() -> Result<T, String>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|message| failure(stage, message)),
        Err(payload) => {
            let message = format!("the program failed, please report it: {}", panic_message(&*payload));
            Err(Failure { stage, message, panicked: true })
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory shared by the images in hand.
struct Budget {
    limit: Option<u64>,
    used: Mutex<u64>,
    freed: Condvar,
}

/// A part of the budget, given back when dropped.
struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    fn new(limit: Option<u64>) -> Self {
        Self { limit, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until `bytes` fit beside what is taken; at once when nothing is.
    fn take(&self, bytes: u64) -> Share<'_> {
        let mut used = locked(&self.used);
        while self.limit.is_some_and(|limit| *used > 0 && used.saturating_add(bytes) > limit) {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used = used.saturating_add(bytes);
        Share { budget: self, bytes }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *locked(&self.budget.used) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Squares numbers; some are finished, some fail, some panic. Keeps count of what is in hand.
    #[derive(Default)]
    struct Squares {
        in_hand: AtomicU64,
        most_in_hand: AtomicU64,
        bytes: u64,
        stop_at: Option<usize>,
        stop: AtomicBool,
    }

    impl Work for Squares {
        type Loaded = u64;
        type Segmented = u64;
        type Done = u64;

        fn memory_bytes(&self, index: usize) -> Result<u64, String> {
            Ok(if index == 11 { 1000 } else { self.bytes })
        }

        fn read(&self, index: usize) -> Result<Read<u64, u64>, String> {
            match index {
                2 => return Ok(Read::Finished(4)),
                3 => return Err("three cannot be read".into()),
                _ => {}
            }
            let now = self.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_hand.fetch_max(now, Ordering::SeqCst);
            Ok(Read::Loaded(index as u64))
        }

        fn segment(&self, index: usize, loaded: u64) -> Result<u64, String> {
            if Some(index) == self.stop_at {
                self.stop.store(true, Ordering::SeqCst);
            }
            if index == 5 {
                self.in_hand.fetch_sub(1, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("five is odd".to_owned()));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
            Ok(loaded * loaded)
        }

        fn write(&self, index: usize, segmented: u64) -> Result<u64, String> {
            std::thread::sleep(std::time::Duration::from_millis(1));
            self.in_hand.fetch_sub(1, Ordering::SeqCst);
            if index == 7 { Err("seven cannot be written".into()) } else { Ok(segmented) }
        }
    }

    fn outcomes(work: &Squares, jobs: usize, memory_bytes: Option<u64>) -> Vec<String> {
        let mut ended = BTreeSet::new();
        let limits = Limits { jobs, memory_bytes };
        let found = run(work, 20, &limits, &work.stop, &mut |event| {
            if let Event::Ended(index, _) = event {
                assert!(ended.insert(index), "{index} ended twice");
            }
        });
        let reached = found.iter().filter(|outcome| !matches!(outcome, Outcome::NotReached)).count();
        assert_eq!(ended.len(), reached);
        found
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Done(square) => square.to_string(),
                Outcome::Skipped(square) => format!("skipped {square}"),
                Outcome::Failed(failure) => {
                    format!("{}{}: {}", failure.stage.name(), if failure.panicked { "!" } else { "" }, failure.message)
                }
                Outcome::NotReached => "-".into(),
            })
            .collect()
    }

    #[test]
    fn one_failure_or_panic_does_not_stop_the_rest() {
        for jobs in [0, 1, 2, 5] {
            let found = outcomes(&Squares::default(), jobs, None);
            for (index, text) in found.iter().enumerate() {
                match index {
                    2 => assert_eq!(text, "skipped 4"),
                    3 => assert_eq!(text, "read: three cannot be read"),
                    5 => assert_eq!(text, "segment!: the program failed, please report it: five is odd"),
                    7 => assert_eq!(text, "write: seven cannot be written"),
                    _ => assert_eq!(text, &(index * index).to_string()),
                }
            }
        }
    }

    #[test]
    fn images_in_hand_stay_within_the_budget() {
        let work = Squares { bytes: 100, ..Squares::default() };
        let found = outcomes(&work, 8, Some(300));
        assert!(found[11].contains("needs about 0.0 GB"), "{}", found[11]);
        assert_eq!(found[19], "361");
        assert!(work.most_in_hand.load(Ordering::SeqCst) <= 3, "{:?}", work.most_in_hand);
        let free = Squares { bytes: 100, ..Squares::default() };
        outcomes(&free, 8, None);
        assert!(free.most_in_hand.load(Ordering::SeqCst) > 3, "the test can fail: {:?}", free.most_in_hand);
    }

    #[test]
    fn a_stop_finishes_what_is_begun_and_begins_nothing_more() {
        let work = Squares { stop_at: Some(9), ..Squares::default() };
        let found = outcomes(&work, 1, None);
        assert_eq!(found[9], "81", "the image at hand is finished");
        assert!(found[10..].iter().all(|text| text == "-"), "{found:?}");
        assert!(work.stop.load(Ordering::SeqCst));
    }
}
