//! The figures of one lock or one operation in one stretch of time.

use std::io::Cursor;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use super::record::{Kind, Record};

/// How many decimal digits of a duration are kept: percentiles are true to within 1 %.
const DIGITS: u8 = 2;

/// The longest duration that is told from longer ones: a year, in microseconds.
const MICROS_MAX: u64 = 366 * 24 * 3_600_000_000;

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locks granted.
    pub acquires: u64,
    /// Holds that ended, in whatever way.
    pub releases: u64,
    /// Requests that began to wait.
    pub waits: u64,
    /// Requests that gave up at their limit.
    pub timeouts: u64,
    /// Locks released because their owner or keeper was gone.
    pub stale: u64,
    /// Requests refused because their wait would never have ended.
    pub deadlocks: u64,
    /// Locks taken away from their holder.
    pub breaks: u64,
    /// Attempts to end somebody else's lock.
    pub steal_attempts: u64,
    /// Times that a worker went on from the journal of one before it.
    pub replays: u64,
}

impl Counts {
    /// Counts one record.
    pub fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Acquire => self.acquires += 1,
            Kind::Release => self.releases += 1,
            Kind::Wait => self.waits += 1,
            Kind::Timeout => self.timeouts += 1,
            Kind::Stale => {
                self.stale += 1;
                self.releases += 1;
            }
            Kind::Deadlock => self.deadlocks += 1,
            Kind::Break => {
                self.breaks += 1;
                self.releases += 1;
            }
            Kind::StealAttempt => self.steal_attempts += 1,
            Kind::Replay => self.replays += 1,
            // One counter for the daemon is all that there is of them.
            Kind::CommitWarning => {}
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        let (own, other) = (self.fields_mut(), other.fields());
        for (own, other) in own.into_iter().zip(other) {
            *own += other;
        }
    }

    /// All of them in one order, for storing.
    pub fn fields(&self) -> [u64; 9] {
        let mut copy = *self;
        copy.fields_mut().map(|field| *field)
    }

    /// The same order, to be filled.
    pub fn fields_mut(&mut self) -> [&mut u64; 9] {
        [
            &mut self.acquires,
            &mut self.releases,
            &mut self.waits,
            &mut self.timeouts,
            &mut self.stale,
            &mut self.deadlocks,
            &mut self.breaks,
            &mut self.steal_attempts,
            &mut self.replays,
        ]
    }
}

/// Percentiles of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// How many durations.
    pub count: u64,
    /// Their sum.
    pub total: Duration,
    /// The median.
    pub p50: Duration,
    /// 95 of 100 are no longer.
    pub p95: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// How durations are distributed, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// `None` while there is nothing in it.
    counts: Option<Histogram<u32>>,
    total: u64,
    max: u64,
}

impl Spread {
    /// Adds a duration.
    pub fn record(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(micros);
        self.max = self.max.max(micros);
        // It grows to what it is given, which cannot fail below its bound.
        let _ = self.histogram().record(micros.min(MICROS_MAX));
    }

    /// Adds what is in another one.
    pub fn add(&mut self, other: &Self) {
        if let Some(counts) = &other.counts {
            // It grows to whatever range the other has, so adding cannot fail.
            let _ = self.histogram().add(counts);
            self.total = self.total.saturating_add(other.total);
            self.max = self.max.max(other.max);
        }
    }

    fn histogram(&mut self) -> &mut Histogram<u32> {
        self.counts
            .get_or_insert_with(|| Histogram::new(DIGITS).expect("2 digits are allowed"))
    }

    /// The percentiles.
    pub fn quantiles(&self) -> Quantiles {
        let Some(counts) = &self.counts else {
            return Quantiles::default();
        };
        let max = Duration::from_micros(self.max);
        let at = |quantile| Duration::from_micros(counts.value_at_quantile(quantile)).min(max);
        Quantiles {
            count: counts.len(),
            total: Duration::from_micros(self.total),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max,
        }
    }

    /// How many durations lie in each of the steps that end at `bounds` (microseconds, rising), and above the last.
    pub fn steps(&self, bounds: &[u64]) -> Vec<u64> {
        let mut steps = vec![0; bounds.len() + 1];
        let Some(counts) = &self.counts else { return steps };
        for value in counts.iter_recorded() {
            let step = bounds.partition_point(|bound| *bound < counts.lowest_equivalent(value.value_iterated_to()));
            steps[step] += value.count_since_last_iteration();
        }
        steps
    }

    /// Its form for storing: small when it holds little.
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(counts) = &self.counts {
            bytes.extend_from_slice(&self.total.to_le_bytes());
            bytes.extend_from_slice(&self.max.to_le_bytes());
            // Writing to memory cannot fail.
            let _ = V2Serializer::new().serialize(counts, &mut bytes);
        }
        bytes
    }

    /// The spread that was packed; `None` when the bytes are none.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (total, rest) = bytes.split_first_chunk()?;
        let (max, rest) = rest.split_first_chunk()?;
        let mut counts: Histogram<u32> = Deserializer::new().deserialize(&mut Cursor::new(rest)).ok()?;
        counts.auto(true);
        Some(Self {
            counts: Some(counts),
            total: u64::from_le_bytes(*total),
            max: u64::from_le_bytes(*max),
        })
    }
}

/// The figures of one lock or operation.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// How often what happened.
    pub counts: Counts,
    /// How long requests waited that were granted or gave up; zero for those granted at once.
    pub wait: Spread,
    /// How long locks were held.
    pub hold: Spread,
}

impl Series {
    /// Counts one record.
    pub fn count(&mut self, record: &Record) {
        self.counts.count(record.kind);
        if record.kind.is_end_of_wait() {
            self.wait.record(record.span);
        } else if record.kind.is_end_of_hold() {
            self.hold.record(record.span);
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.wait.add(&other.wait);
        self.hold.add(&other.hold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations from a microsecond to hours, in no order, from a fixed seed.
    fn durations() -> Vec<u64> {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        (0..20_000)
            .map(|_| (next() % 10_000_000_000) >> (next() % 33))
            .collect()
    }

    fn spread(micros: &[u64]) -> Spread {
        let mut spread = Spread::default();
        micros
            .iter()
            .for_each(|micros| spread.record(Duration::from_micros(*micros)));
        spread
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_durations_within_one_percent() {
        let mut all = durations();
        let (one, other) = all.split_at(7_000);
        let mut added = spread(one);
        added.add(&spread(other));
        let found = added.quantiles();
        all.sort_unstable();
        let rank = |quantile: f64| all[(quantile * all.len() as f64).ceil() as usize - 1];
        for (quantile, found) in [(0.5, found.p50), (0.95, found.p95), (0.99, found.p99)] {
            let (exact, found) = (rank(quantile) as f64, found.as_micros() as f64);
            assert!((found - exact).abs() <= exact * 0.01, "{quantile}: {found} for {exact}");
        }
        assert_eq!(found.max.as_micros() as u64, *all.last().expect("some"));
        assert_eq!(found.count, 20_000);
        assert_eq!(found.total, Duration::from_micros(all.iter().sum()));
    }

    #[test]
    fn a_packed_spread_is_the_same_and_small() {
        let few = spread(&[0, 17, 17, 4_000_000]);
        assert!(few.pack().len() < 120, "{}", few.pack().len());
        for spread in [few, spread(&durations()), Spread::default()] {
            let again = Spread::unpack(&spread.pack()).expect("its own bytes");
            assert_eq!(again.quantiles(), spread.quantiles());
        }
        assert!(Spread::unpack(b"rubbish that is no histogram").is_none());
        assert!(Spread::unpack(b"short").is_none());
    }

    #[test]
    fn steps_hold_every_duration_once() {
        let spread = spread(&[0, 900, 1000, 1500, 9_000_000]);
        assert_eq!(spread.steps(&[1000, 2000]), [3, 1, 1]);
    }
}
