//! The drawings below `metrics/`: `live.js` and `charts/`.
//!
//! Charts are drawn once for each computation of the figures, whoever reads them; who holds and who waits is looked at
//! for each reader, under the engine's mutex, and becomes text after. All on the inspector's thread.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::Service;
use crate::metrics::Figures;
use crate::types::NodeId;
use crate::view::Now;
use crate::view::dashboard::{Locks, Pictures, live_js};
use crate::view::nodes::Fixed;

/// How many opened files' sizes are remembered; one is asked for right after its open.
const SIZES_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// What has been drawn, and how long the texts are that somebody has opened.
pub(super) struct Gallery {
    drawn: Mutex<Option<(Arc<Figures>, Arc<Pictures>)>>,
    sizes: Mutex<LruCache<NodeId, u64>>,
}

impl Gallery {
    pub(super) fn new() -> Self {
        Self {
            drawn: Mutex::new(None),
            sizes: Mutex::new(LruCache::new(SIZES_MAX)),
        }
    }

    /// A figures file was opened, and its text is so long. Each lookup gives a node of its own, so it is that of the
    /// opener; and a program that reads as much as fstat(2) says, as browsers do, must be told of what it has opened and
    /// not of what would be rendered later.
    pub(super) fn opened(&self, node: NodeId, size: u64) {
        self.sizes.lock().put(node, size);
    }

    /// The length of what was opened under that node, if it is one of those.
    pub(super) fn opened_size(&self, node: NodeId) -> Option<u64> {
        self.sizes.lock().peek(&node).copied()
    }
}

impl Service {
    /// The text of a file with drawings. Not for the thread that answers the kernel.
    pub(super) fn picture(&self, file: Fixed, now: Now) -> Vec<u8> {
        let pictures = self.draw_pictures();
        if let Some(chart) = file.chart() {
            return pictures.svg(chart).as_bytes().to_vec();
        }
        let state = self.state();
        let locks = Locks::of(&state.engine, &state.hold_times, now);
        drop(state);
        live_js(locks, &pictures)
    }

    /// Draws the charts, unless those of the same figures are there. Slow when they are not: done before the turn of a call
    /// that shows them.
    pub(super) fn draw_pictures(&self) -> Arc<Pictures> {
        let figures = self.figures();
        let mut drawn = self.gallery.drawn.lock();
        if let Some((of, pictures)) = &*drawn
            && Arc::ptr_eq(of, &figures)
        {
            return Arc::clone(pictures);
        }
        let pictures = Arc::new(Pictures::draw(&figures));
        *drawn = Some((figures, Arc::clone(&pictures)));
        pictures
    }
}
