//! The recorder: a thread that folds what happened into figures, and the files below `metrics/`.
//!
//! The hot road only puts an event into a buffer. This thread takes the buffer out a moment later, folds it, writes the
//! lines of `events.csv` and looks at the alerts. Whoever opens a figures file gets what has happened until then: such
//! calls come on the inspector's thread, which takes the buffer out and computes the figures before the call's turn, so
//! that nobody else waits for that.
//!
//! The locks, always taken in this order: the history, the figures, then the engine's mutex or the event log, each of
//! these two for a moment. The thread that answers the kernel takes the last two only. The history is written in batches
//! while nobody waits for it; when that fails, figures go on in memory, every file says so, and it is tried again.

mod told;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use lru::LruCache;
use parking_lot::Mutex;

use super::api::{Access, OpenMode};
use super::handles::HandleKind;
use super::inspector::LateCall;
use super::lookup::{absent, bad_name};
use super::refusals::Refused;
use super::{Context, Outcome, Service, contained};
use crate::adapters::{Clock, History, HistoryError};
use crate::engine::Event;
use crate::metrics::{
    Alerts, Batch, EventLog, Figures, LongHold, Metrics, OpenCells, Piece, StoreState, Thresholds, Window,
};
use crate::types::{LockName, NameError, NodeId, Refusal, Tick};
use crate::view::figures::{self, Live};
use crate::view::nodes::{Figure, Node};

/// How long events gather before they are folded.
const GATHER: Duration = Duration::from_millis(250);
/// How often the alerts are looked at while one may begin or end.
const LOOK: Duration = Duration::from_secs(1);
/// Alerts look back 5 minutes; so long after the last event one may end by time alone.
const RESTLESS: Duration = Duration::from_secs(6 * 60);
/// How often what is new is written to the history.
const SAVE: Duration = Duration::from_secs(10);
/// After a failure it is tried again so much later.
const SAVE_RETRY: Duration = Duration::from_secs(60);
/// Figures are computed again for each reader, but take no more than one part in so many of a processor.
const REST: u32 = 20;
/// What computing may take without a rest: the common case, where each reader gets what is true now.
const QUICK: Duration = Duration::from_millis(5);

/// How many that opened `events.csv` in an earlier life may read on at once; more are told lines twice.
const MOVED_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// What the recorder has.
pub(super) struct Recorder {
    history: Mutex<Kept>,
    figures: Mutex<Recorded>,
    newest: Mutex<Option<Arc<Figures>>>,
    log: Mutex<EventLog>,
    /// Where `events.csv` begins for those who opened it in an earlier life, by their node, once they have read on.
    moved: Mutex<LruCache<NodeId, u64>>,
    wake: (Sender<()>, Receiver<()>),
    stop: (Sender<()>, Receiver<()>),
}

/// The history, and how far it is written.
struct Kept {
    history: Result<History, HistoryError>,
    /// Which cells were open when it was written last; `None` before it was read: what was stored would be overwritten.
    since: Option<OpenCells>,
    generation: u64,
    due: Tick,
}

struct Recorded {
    metrics: Metrics,
    alerts: Alerts,
    store: StoreState,
    /// Taken out of the intake and put back empty, so that nothing is allocated.
    spare: Vec<(Tick, Event)>,
    /// What was computed last.
    computed: Option<Computed>,
}

struct Computed {
    generation: u64,
    at: Tick,
    took: Duration,
}

impl Recorder {
    pub(super) fn new(history: Result<History, HistoryError>) -> Self {
        let metrics = Metrics::new(Clock::wall().as_millisecond());
        Self {
            history: Mutex::new(Kept {
                history,
                since: None,
                generation: 0,
                due: Tick::default(),
            }),
            figures: Mutex::new(Recorded {
                metrics,
                alerts: Alerts::default(),
                store: StoreState::Lost("it has not been read yet".to_owned()),
                spare: Vec::new(),
                computed: None,
            }),
            newest: Mutex::new(None),
            log: Mutex::new(EventLog::beginning(Clock::wall().as_millisecond())),
            moved: Mutex::new(LruCache::new(MOVED_MAX)),
            wake: bounded(1),
            stop: bounded(1),
        }
    }

    /// Has what happened folded, a moment later.
    pub(super) fn wake(&self) {
        // Full means that it was told already.
        let _ = self.wake.0.try_send(());
    }

    /// Where `events.csv` begins for one who looks it up now.
    pub(super) fn events_base(&self) -> u64 {
        self.log.lock().base()
    }

    /// What a read of `events.csv` gets; `base` is what was kept with the open file, `node` what it was opened as.
    pub(super) fn read_events(&self, node: NodeId, base: u64, offset: u64, size: u32) -> Result<Vec<u8>, Refused> {
        let log = self.log.lock();
        let base = if log.is_of_earlier_life(base) {
            *self.moved.lock().get_or_insert(node, || log.base_from(offset))
        } else {
            base
        };
        match log.read(base, offset, size) {
            Piece::Bytes(bytes) => Ok(bytes),
            Piece::Gone => Err(Refused::new(
                Refusal::Stale,
                "events.csv: the next lines are forgotten, as this reader fell too far behind; open it again",
            )),
        }
    }
}

impl Service {
    /// Runs until [`Self::stop_recorder`]; the body of the recorder's thread.
    pub fn record_forever(&self) {
        let (wake, stop) = (&self.recorder.wake.1, &self.recorder.stop.1);
        contained("the history", || self.restore_history());
        let mut restless_until = Tick::default();
        loop {
            let is_restless = Clock::now().mono < restless_until;
            let woken = if is_restless {
                wake.recv_timeout(LOOK)
            } else {
                wake.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            // Events gather; so that a burst of them wakes this thread only once.
            if woken.is_ok() && stop.recv_timeout(GATHER) != Err(RecvTimeoutError::Timeout) {
                contained("the figures", || self.save_figures());
                return;
            }
            let is_busy = contained("the figures", || self.record_once());
            contained("the history", || self.save_if_due());
            if woken.is_ok() || is_busy == Some(true) {
                restless_until = Clock::now().mono.after(RESTLESS);
            }
        }
    }

    /// Ends the recorder's thread, once all that happened is folded.
    pub fn stop_recorder(&self) {
        let _ = self.recorder.stop.0.try_send(());
        self.recorder.wake();
    }

    /// Folds and looks at the alerts; whether they may change by time alone.
    fn record_once(&self) -> bool {
        let mut recorded = self.recorder.figures.lock();
        self.fold(&mut recorded, false);
        recorded.metrics.sum_up();
        let live = self.live();
        self.look_at_alerts(&mut recorded, &live);
        live.waiters > 0
    }

    /// Reads what earlier daemons have written.
    fn restore_history(&self) {
        let now = Clock::wall().as_second();
        let mut kept = self.recorder.history.lock();
        let read = match &kept.history {
            Ok(history) => history.read(now).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let mut recorded = self.recorder.figures.lock();
        let mut hour = i64::MIN;
        match read {
            Ok(stored) => {
                // An hour that was over before it was stored as one is written later.
                hour = stored.hours.last().map_or(hour, |(start, _)| start + 1);
                recorded.metrics.restore(stored, now);
                recorded.metrics.sum_up();
                recorded.store = StoreState::Kept;
            }
            Err(sentence) => {
                tracing::warn!("the history of figures is not kept: {sentence}");
                recorded.store = StoreState::Lost(sentence);
            }
        }
        kept.since = Some(OpenCells {
            hour,
            ..recorded.metrics.windows.open_cells()
        });
    }

    fn save_if_due(&self) {
        let mut kept = self.recorder.history.lock();
        if kept.due <= Clock::now().mono {
            // A failure was logged, and is in every figures file.
            let _ = self.save(&mut kept);
        }
    }

    /// Writes everything until now to the history; a sentence says why it cannot be written.
    pub fn save_figures(&self) -> Result<(), String> {
        self.fold(&mut self.recorder.figures.lock(), true);
        self.save(&mut self.recorder.history.lock())
    }

    fn save(&self, kept: &mut Kept) -> Result<(), String> {
        let history = kept.history.as_mut().map_err(|error| error.to_string())?;
        let since = kept.since.ok_or("it has not been read yet")?;
        let (stored, open, generation) = {
            let recorded = self.recorder.figures.lock();
            let (windows, generation) = (&recorded.metrics.windows, recorded.metrics.generation);
            let open = windows.open_cells();
            let is_new = generation != kept.generation || open != since || recorded.store != StoreState::Kept;
            if !is_new {
                return Ok(());
            }
            (windows.unsaved(since), open, generation)
        };
        let result = history
            .write(&stored, Clock::wall().as_second())
            .map_err(|error| error.to_string());
        kept.due = Clock::now().mono.after(if result.is_ok() { SAVE } else { SAVE_RETRY });
        if result.is_ok() {
            (kept.since, kept.generation) = (Some(open), generation);
        }
        let state = match &result {
            Ok(()) => StoreState::Kept,
            Err(sentence) => StoreState::Lost(sentence.clone()),
        };
        let mut recorded = self.recorder.figures.lock();
        if recorded.store != state {
            match &result {
                Ok(()) => tracing::info!("the history of figures is written again"),
                Err(sentence) => tracing::warn!("the history of figures is not kept: {sentence}"),
            }
            recorded.store = state;
            recorded.metrics.generation += 1;
        }
        result
    }

    fn look_at_alerts(&self, recorded: &mut Recorded, live: &Live) {
        let now = Clock::wall().as_second();
        let Recorded { metrics, alerts, .. } = recorded;
        let settings = self.state().engine.settings().clone();
        let thresholds = Thresholds {
            wait: settings.alert_wait,
            hold: settings.alert_hold,
            stale: settings.alert_stale,
        };
        let changed = alerts.look(
            &metrics.windows,
            &metrics.totals,
            live.longest.as_ref(),
            &thresholds,
            now,
        );
        for alert in &changed {
            metrics.generation += 1;
            if alert.firing {
                tracing::warn!("alert {} began: {}", alert.kind, alert.sentence);
            } else {
                tracing::info!("alert {} ended", alert.kind);
            }
        }
        if !changed.is_empty() {
            (self.tell_alerts)(changed);
        }
    }

    /// Takes out what happened and folds it.
    fn fold(&self, recorded: &mut Recorded, all: bool) {
        let spare = std::mem::take(&mut recorded.spare);
        let (mut events, dropped) = self.state().events.swap(spare);
        let now = self.now(Clock::now());
        let batch = Batch {
            events: events
                .drain(..)
                .map(|(at, event)| (now.wall_ns_at(at) / 1_000_000, event))
                .collect(),
            dropped,
        };
        recorded.spare = events;
        recorded
            .metrics
            .fold(batch, now.wall_ns / 1_000_000, all, &mut self.recorder.log.lock());
    }

    /// Does beforehand what a call that shows figures needs: slow, so not within its turn.
    pub(super) fn prepare_figures(&self, call: &LateCall) {
        let node = call.node().and_then(|node| self.state().nodes.get(node));
        match node {
            Some(Node::Events(_)) => self.fold(&mut self.recorder.figures.lock(), true),
            Some(node) if node.is_figures() => {
                self.compute_figures();
                if matches!(node, Node::Fixed(fixed) if fixed.is_picture()) {
                    self.draw_pictures();
                }
            }
            _ => {}
        }
    }

    /// The figures that were computed last: for a caller, by the inspector before it was this caller's turn.
    pub(super) fn figures(&self) -> Arc<Figures> {
        let newest = self.recorder.newest.lock().clone();
        newest.unwrap_or_else(|| self.compute_figures())
    }

    /// Computes the figures until now, unless nothing has changed. Slow: not within a turn.
    fn compute_figures(&self) -> Arc<Figures> {
        let mut recorded = self.recorder.figures.lock();
        self.fold(&mut recorded, true);
        self.look_at_alerts(&mut recorded, &self.live());
        let now = Clock::now().mono;
        let newest = self.recorder.newest.lock().clone();
        if let (Some(newest), Some(computed)) = (newest, &recorded.computed) {
            let age = now.since(computed.at);
            let is_same = computed.generation == recorded.metrics.generation && age < LOOK;
            let is_resting = computed.took > QUICK && age < computed.took * REST;
            if is_same || (is_resting && newest.alerts == recorded.alerts.all() && newest.store == recorded.store) {
                return newest;
            }
            if is_resting {
                // What is wrong is told at once; only what takes long to compute may be old.
                let mut figures = Figures::clone(&newest);
                figures.alerts = recorded.alerts.all().to_vec();
                figures.store = recorded.store.clone();
                let figures = Arc::new(figures);
                *self.recorder.newest.lock() = Some(Arc::clone(&figures));
                return figures;
            }
        }
        let alerts = recorded.alerts.all().to_vec();
        let store = recorded.store.clone();
        let figures = Arc::new(Figures::of(
            &mut recorded.metrics,
            alerts,
            store,
            Clock::wall().as_second(),
        ));
        *self.recorder.newest.lock() = Some(Arc::clone(&figures));
        recorded.computed = Some(Computed {
            generation: recorded.metrics.generation,
            at: now,
            took: Clock::now().mono.since(now),
        });
        figures
    }

    /// Who holds and waits now, in numbers.
    fn live(&self) -> Live {
        let now = Clock::now().mono;
        let state = self.state();
        let engine = &state.engine;
        let (mut held, mut longest) = (0, None::<LongHold>);
        for lock in engine.locks_in_use() {
            let oldest = engine.holders(lock.as_str()).min_by_key(|holder| holder.grant.since);
            let Some(oldest) = oldest else { continue };
            held += 1;
            let held_for = now.since(oldest.grant.since);
            if longest.as_ref().is_some_and(|longest| longest.held >= held_for) {
                continue;
            }
            let waiters = engine.waiter_count(lock.as_str());
            if waiters > 0 {
                longest = Some(LongHold {
                    lock: lock.clone(),
                    held: held_for,
                    pid: oldest.grant.party.pid,
                    waiters,
                });
            }
        }
        Live {
            held,
            waiters: engine.requests_len(),
            longest,
        }
    }

    /// A name in `metrics/by-lock/`: it is there when the lock has figures.
    pub(super) fn lookup_figures(&self, name: &[u8]) -> Result<Node, Refused> {
        let lock = match LockName::parse_lock(name) {
            Ok(lock) => lock,
            Err(NameError::Scratch) => return Err(absent()),
            Err(error) => return Err(bad_name(name, error)),
        };
        let figures = self.figures();
        match figures.window(Window::Week).lock(lock.as_str()) {
            Some(_) => Ok(Node::LockFigures(lock)),
            None => Err(absent()),
        }
    }

    /// The names in `metrics/by-lock/`.
    pub(super) fn locks_with_figures(&self) -> Vec<String> {
        let figures = self.figures();
        let week = figures.window(Window::Week);
        let mut names: Vec<String> = week.locks.iter().map(|lock| lock.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The size of a figures file; `None` for other nodes.
    pub(super) fn figures_size(&self, context: &Context, id: NodeId, node: &Node) -> Option<u64> {
        if let Node::Events(base) = node {
            let log = self.recorder.log.lock();
            // One of an earlier life who has not read on yet sees a file that has grown.
            let moved = self.recorder.moved.lock().peek(&id).copied();
            return Some(log.size(moved.unwrap_or(*base)));
        }
        self.figures_text(context, node).map(|text| text.len() as u64)
    }

    /// Opens a figures file: rendered now, but for `events.csv`, which grows.
    pub(super) fn open_figures(&self, context: &Context, id: NodeId, node: &Node, mode: OpenMode) -> Outcome {
        if mode.access != Access::Read {
            return Err(Refused::new(Refusal::Denied, "that file is only read"));
        }
        let kind = match node {
            Node::Events(base) => HandleKind::Events(*base),
            node => {
                let text = self.figures_text(context, node).unwrap_or_default();
                match node {
                    Node::LockFigure(lock, figure) => HandleKind::LockFigure(lock.clone(), *figure, text),
                    Node::Fixed(fixed) => {
                        self.gallery.opened(id, text.len() as u64);
                        HandleKind::Text(*fixed, text)
                    }
                    _ => return Err(Refused::new(Refusal::BadHandle, "")),
                }
            }
        };
        self.opened(&mut self.state(), id, kind, true)
    }

    fn figures_text(&self, context: &Context, node: &Node) -> Option<Vec<u8>> {
        match node {
            Node::Fixed(fixed) if fixed.is_picture() => Some(self.picture(*fixed, self.now(context.now))),
            Node::Fixed(fixed) if fixed.is_figures() => {
                let (figures, live) = (self.figures(), self.live());
                Some(figures::render(*fixed, &figures, &live, self.now(context.now)))
            }
            Node::LockFigure(lock, Figure::Waiters) => {
                let waiters = self.state().engine.waiter_count(lock.as_str());
                Some(format!("{waiters}\n").into_bytes())
            }
            Node::LockFigure(lock, figure) => {
                let figures = self.figures();
                let of_lock = figures.window(Window::Week).lock(lock.as_str()).copied();
                Some(figures::one(*figure, &of_lock.unwrap_or_default()))
            }
            _ => None,
        }
    }
}
