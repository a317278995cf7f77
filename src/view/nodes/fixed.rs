//! The part of the tree that is always there: a directory or a file each, under a name that never changes.

use serde::{Deserialize, Serialize};

use crate::types::NodeId;
use crate::view::charts::Chart;

/// The fixed part of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fixed {
    /// The mountpoint.
    Root = 1,
    /// `locks/`
    Locks,
    /// `flock/`
    Flock,
    /// `metrics/`
    Metrics,
    /// `acquire`
    Acquire,
    /// `control`
    Control,
    /// `last-error`
    LastError,
    /// `README`
    Readme,
    /// `metrics/locks.json`
    LocksJson,
    /// `metrics/summary`
    Summary,
    /// `metrics/summary.json`
    SummaryJson,
    /// `metrics/events.csv`; to the kernel it is a [`Node::Events`](super::Node::Events).
    EventsCsv,
    /// `metrics/metrics.prom`
    MetricsProm,
    /// `metrics/by-lock/`
    ByLock,
    /// `metrics/slowest`
    Slowest,
    /// `metrics/heatmap.json`
    Heatmap,
    /// `metrics/alerts`
    Alerts,
    /// `metrics/dashboard.html`, which never changes.
    Dashboard,
    /// `metrics/live.js`
    LiveJs,
    /// `metrics/charts/`
    Charts,
    /// `metrics/charts/wait-percentiles.svg`
    WaitPercentilesSvg,
    /// `metrics/charts/wait-distribution.svg`
    WaitDistributionSvg,
    /// `metrics/charts/heatmap.svg`
    HeatmapSvg,
    /// `metrics/charts/slowest.svg`
    SlowestSvg,
    /// `metrics/charts/holds.svg`
    HoldsSvg,
    /// `metrics/charts/stale.svg`
    StaleSvg,
}

impl Fixed {
    pub(super) const ALL: [Self; 26] = [
        Self::Root,
        Self::Locks,
        Self::Flock,
        Self::Metrics,
        Self::Acquire,
        Self::Control,
        Self::LastError,
        Self::Readme,
        Self::LocksJson,
        Self::Summary,
        Self::SummaryJson,
        Self::EventsCsv,
        Self::MetricsProm,
        Self::ByLock,
        Self::Slowest,
        Self::Heatmap,
        Self::Alerts,
        Self::Dashboard,
        Self::LiveJs,
        Self::Charts,
        Self::WaitPercentilesSvg,
        Self::WaitDistributionSvg,
        Self::HeatmapSvg,
        Self::SlowestSvg,
        Self::HoldsSvg,
        Self::StaleSvg,
    ];

    /// Its directory and name; the root has none.
    pub fn place(self) -> Option<(Self, &'static str)> {
        match self {
            Self::Root => None,
            Self::Locks => Some((Self::Root, "locks")),
            Self::Flock => Some((Self::Root, "flock")),
            Self::Metrics => Some((Self::Root, "metrics")),
            Self::Acquire => Some((Self::Root, "acquire")),
            Self::Control => Some((Self::Root, "control")),
            Self::LastError => Some((Self::Root, "last-error")),
            Self::Readme => Some((Self::Root, "README")),
            Self::LocksJson => Some((Self::Metrics, "locks.json")),
            Self::Summary => Some((Self::Metrics, "summary")),
            Self::SummaryJson => Some((Self::Metrics, "summary.json")),
            Self::EventsCsv => Some((Self::Metrics, "events.csv")),
            Self::MetricsProm => Some((Self::Metrics, "metrics.prom")),
            Self::ByLock => Some((Self::Metrics, "by-lock")),
            Self::Slowest => Some((Self::Metrics, "slowest")),
            Self::Heatmap => Some((Self::Metrics, "heatmap.json")),
            Self::Alerts => Some((Self::Metrics, "alerts")),
            Self::Dashboard => Some((Self::Metrics, "dashboard.html")),
            Self::LiveJs => Some((Self::Metrics, "live.js")),
            Self::Charts => Some((Self::Metrics, "charts")),
            _ => self.chart().map(|chart| (Self::Charts, chart.file_name())),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        matches!(
            self,
            Self::Root | Self::Locks | Self::Flock | Self::Metrics | Self::ByLock | Self::Charts
        )
    }

    /// Whether each lookup gives a fresh node: it takes writes, or its contents differ from open to open.
    pub fn is_fresh(self) -> bool {
        matches!(self, Self::Acquire | Self::Control | Self::LastError | Self::LocksJson) || self.is_figures()
    }

    /// Whether it is a file that is rendered from the figures.
    pub fn is_figures(self) -> bool {
        matches!(
            self,
            Self::Summary | Self::SummaryJson | Self::MetricsProm | Self::Slowest | Self::Heatmap | Self::Alerts
        ) || self.is_picture()
    }

    /// Whether it is one of those that the drawings are in.
    pub fn is_picture(self) -> bool {
        self == Self::LiveJs || self.chart().is_some()
    }

    /// The chart that it is the file of.
    pub fn chart(self) -> Option<Chart> {
        match self {
            Self::WaitPercentilesSvg => Some(Chart::WaitPercentiles),
            Self::WaitDistributionSvg => Some(Chart::WaitDistribution),
            Self::HeatmapSvg => Some(Chart::Heatmap),
            Self::SlowestSvg => Some(Chart::Slowest),
            Self::HoldsSvg => Some(Chart::Holds),
            Self::StaleSvg => Some(Chart::Stale),
            _ => None,
        }
    }

    /// The fixed entries of a directory, in the order that `ls -U` shows.
    pub fn children(self) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |child| child.place().is_some_and(|(parent, _)| parent == self))
    }

    /// The child of that name.
    pub fn child(self, name: &[u8]) -> Option<Self> {
        self.children()
            .find(|child| child.place().is_some_and(|(_, own)| own.as_bytes() == name))
    }

    pub(super) fn from_id(id: NodeId) -> Option<Self> {
        Self::ALL.into_iter().find(|fixed| *fixed as u64 == id.0)
    }
}
