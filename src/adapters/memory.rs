//! A journal in memory, on a disk that can lose what any disk can lose: for the simulation.
//!
//! It keeps the same bytes as the journal on disk and reads them with the same code, so that a torn record here is torn
//! as it would be there. What a [`MemoryDisk`] still has after a [`Crash`] follows from a seed. A log that was open
//! when its disk crashed belongs to a dead program: it writes no more.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::journal::{BootId, Extent, Fault, read};
use crate::ports::{Log, Replay};

/// A disk with room for one journal; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

/// A journal open on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryLog {
    disk: MemoryDisk,
    /// The crash count of the disk when this log was opened.
    life: u64,
    extent: Extent,
    buffer: Vec<u8>,
}

/// How a program ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Between two writes: nothing is lost.
    Killed,
    /// In its last write, which nobody has been told of: a record is torn at any byte, or not there, or whole; a
    /// compaction has happened or has not.
    KilledInWrite,
    /// The machine stops: of what was not written back, any part at the end is lost or reads as zeros, also all of
    /// a new generation, and the next program runs on another boot.
    PowerCut,
}

/// What is written, what is durable, and what was done last.
#[derive(Debug, Default)]
struct Disk {
    /// The file; `None` before the first, and once a damaged one was set aside.
    file: Option<Vec<u8>>,
    /// How many of its bytes survive a power cut.
    durable: usize,
    /// The file that the last compaction replaced, as long as a power cut can bring it back: with its durable bytes.
    replaced: Option<(Vec<u8>, usize)>,
    last: Last,
    room: Option<u64>,
    lives: u64,
    boots: u64,
    writes: u64,
}

/// The last write, which a crash can strike.
#[derive(Clone, Copy, Debug, Default)]
enum Last {
    #[default]
    Nothing,
    /// A record that begins here.
    Append(usize),
    Replacement,
}

impl MemoryDisk {
    /// Starts a journal, in place of any that is there.
    pub fn create(&self, snapshot: &[u8]) -> io::Result<MemoryLog> {
        let mut disk = self.0.lock();
        let (extent, bytes) = Extent::begin(1, disk.boot(), snapshot)?;
        disk.replace(bytes)?;
        Ok(self.log(&disk, extent))
    }

    /// Opens the journal that is there, as [`Journal::open`](super::Journal::open) does; a damaged one is gone after.
    pub fn open(&self) -> Result<Option<(MemoryLog, Replay)>, Fault> {
        let mut disk = self.0.lock();
        let Some(file) = &disk.file else { return Ok(None) };
        let (extent, replay) = match read(file, disk.boot()) {
            Ok(read) => read,
            Err(fault) => {
                if matches!(fault, Fault::Damaged { .. }) {
                    disk.file = None;
                }
                return Err(fault);
            }
        };
        let end = usize::try_from(extent.end()).expect("it lies in a buffer in memory");
        if let Some(file) = &mut disk.file {
            file.truncate(end);
        }
        disk.durable = disk.durable.min(end);
        disk.last = Last::Nothing;
        Ok(Some((self.log(&disk, extent), replay)))
    }

    /// Makes all that is written durable, as the kernel does now and then.
    pub fn write_back(&self) {
        let mut disk = self.0.lock();
        disk.durable = disk.file.as_ref().map_or(0, Vec::len);
        disk.replaced = None;
    }

    /// How many writes have succeeded so far: only the last one can be struck by [`Crash::KilledInWrite`].
    pub fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    /// Lets the disk have room for so many bytes, old generation and new together; `None`: for all.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.0.lock().room = bytes;
    }

    /// Ends the program that has the journal open; what is lost follows from the seed.
    pub fn crash(&self, crash: Crash, seed: u64) {
        let mut random = Random(seed);
        let mut disk = self.0.lock();
        match crash {
            Crash::Killed => {}
            Crash::KilledInWrite => disk.tear(&mut random),
            Crash::PowerCut => disk.lose(&mut random),
        }
        disk.last = Last::Nothing;
        disk.lives += 1;
    }

    fn log(&self, disk: &Disk, extent: Extent) -> MemoryLog {
        MemoryLog {
            disk: self.clone(),
            life: disk.lives,
            extent,
            buffer: Vec::new(),
        }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        disk.check_alive(self.life)?;
        self.extent.frame(record, &mut self.buffer)?;
        disk.check_room(self.buffer.len())?;
        let file = disk.file.get_or_insert_default();
        let at = file.len();
        file.extend_from_slice(&self.buffer);
        disk.last = Last::Append(at);
        disk.writes += 1;
        self.extent.grow(self.buffer.len());
        Ok(())
    }

    fn size(&self) -> u64 {
        self.extent.size()
    }

    fn compact(&mut self, snapshot: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        disk.check_alive(self.life)?;
        let (extent, bytes) = self.extent.next(disk.boot(), snapshot)?;
        disk.replace(bytes)?;
        self.extent = extent;
        Ok(())
    }
}

impl Disk {
    fn boot(&self) -> BootId {
        BootId(u128::from(self.boots).to_le_bytes())
    }

    fn check_alive(&self, life: u64) -> io::Result<()> {
        match life == self.lives {
            true => Ok(()),
            false => Err(io::Error::other("the program that opened this log has crashed")),
        }
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        let used = self.file.as_ref().map_or(0, Vec::len) + more;
        match self.room {
            Some(room) if used as u64 > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn replace(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.check_room(bytes.len())?;
        if let Some(old) = self.file.replace(bytes) {
            self.replaced = Some((old, self.durable));
        }
        self.durable = 0;
        self.last = Last::Replacement;
        self.writes += 1;
        Ok(())
    }

    /// The last write happened in part.
    fn tear(&mut self, random: &mut Random) {
        match self.last {
            Last::Nothing => {}
            Last::Append(at) => {
                if let Some(file) = &mut self.file {
                    file.truncate(random.between(at, file.len()));
                    self.durable = self.durable.min(file.len());
                }
            }
            // Without an older file it was the first one, which then is not there.
            Last::Replacement if random.coin() => {
                let old = self.replaced.take();
                self.durable = old.as_ref().map_or(0, |(_, durable)| *durable);
                self.file = old.map(|(file, _)| file);
            }
            Last::Replacement => {}
        }
    }

    /// What was not written back is lost in part.
    fn lose(&mut self, random: &mut Random) {
        self.boots += 1;
        if let Some((old, durable)) = self.replaced.take().filter(|_| random.coin()) {
            (self.file, self.durable) = (Some(old), durable);
        }
        let Some(file) = &mut self.file else { return };
        let kept = random.between(self.durable, file.len());
        if random.coin() {
            file.truncate(random.between(kept, file.len()));
            file[kept..].fill(0);
        } else {
            file.truncate(kept);
        }
        self.durable = file.len();
    }
}

/// Numbers that look random and follow from a seed: splitmix64, good from any seed, also 0.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        let count = (high - low) as u64 + 1;
        // The remainder is below `count`, which came from a usize.
        low + usize::try_from(self.next() % count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 2_000;

    /// A disk with a snapshot and three records, and the records.
    fn three() -> (MemoryDisk, MemoryLog, [Vec<u8>; 3]) {
        let disk = MemoryDisk::default();
        let mut log = disk.create(b"state").expect("there is room");
        let records = [b"one".to_vec(), vec![7; 300], b"three".to_vec()];
        for record in &records {
            log.append(record).expect("there is room");
        }
        (disk, log, records)
    }

    fn replay(disk: &MemoryDisk) -> Replay {
        disk.open().expect("it is not damaged").expect("it is there").1
    }

    #[test]
    fn a_kill_between_writes_loses_nothing() {
        let (disk, _log, records) = three();
        disk.crash(Crash::Killed, 1);
        let replay = replay(&disk);
        assert!(replay.same_boot);
        assert_eq!((replay.snapshot, replay.records), (b"state".to_vec(), records.to_vec()));
    }

    #[test]
    fn a_kill_in_a_write_loses_at_most_that_record() {
        let mut kept = [0; 4];
        for seed in 0..SEEDS {
            let (disk, _log, records) = three();
            disk.crash(Crash::KilledInWrite, seed);
            let found = replay(&disk).records;
            assert_eq!(found, records[..found.len()], "seed {seed}");
            kept[found.len()] += 1;
        }
        assert_eq!(kept[..2], [0, 0], "what was answered is there");
        assert!(kept[2] > 0 && kept[3] > 0, "{kept:?}: both happen");
    }

    #[test]
    fn a_kill_in_a_compaction_leaves_the_old_log_or_the_new_one() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..SEEDS {
            let (disk, mut log, records) = three();
            log.compact(b"later").expect("there is room");
            assert_eq!(log.size(), 0);
            disk.crash(Crash::KilledInWrite, seed);
            let replay = replay(&disk);
            match &replay.snapshot[..] {
                b"state" => {
                    old += 1;
                    assert_eq!(replay.records, records, "seed {seed}");
                }
                b"later" => {
                    new += 1;
                    assert!(replay.records.is_empty(), "seed {seed}");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(old > 0 && new > 0, "{old} {new}: both happen");
    }

    #[test]
    fn a_power_cut_leaves_what_was_written_back_and_a_part_of_the_rest() {
        let mut kept = [0; 4];
        for seed in 0..SEEDS {
            let disk = MemoryDisk::default();
            let mut log = disk.create(b"state").expect("there is room");
            log.append(b"one").expect("there is room");
            disk.write_back();
            log.append(b"two").expect("there is room");
            log.append(b"three").expect("there is room");
            disk.crash(Crash::PowerCut, seed);
            let replay = replay(&disk);
            assert!(!replay.same_boot, "the machine was started anew");
            let all = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
            assert_eq!(replay.records, all[..replay.records.len()], "seed {seed}");
            kept[replay.records.len()] += 1;
        }
        assert!(kept[0] == 0 && kept[1..].iter().all(|n| *n > 0), "{kept:?}");
    }

    #[test]
    fn a_power_cut_soon_after_a_compaction_gives_old_or_new_or_a_damage_that_is_told() {
        let (mut old, mut new, mut damaged) = (0, 0, 0);
        for seed in 0..SEEDS {
            let (disk, mut log, _) = three();
            disk.write_back();
            log.compact(b"later").expect("there is room");
            disk.crash(Crash::PowerCut, seed);
            match disk.open() {
                Ok(Some((_, replay))) if replay.snapshot == b"state" => old += 1,
                Ok(Some((_, replay))) if replay.snapshot == b"later" => new += 1,
                Err(Fault::Damaged { .. }) => {
                    damaged += 1;
                    assert!(disk.open().expect("it was set aside").is_none());
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(old > 0 && new > 0 && damaged > 0, "{old} {new} {damaged}");
    }

    #[test]
    fn the_same_seed_loses_the_same() {
        let after = |seed| {
            let (disk, _log, _) = three();
            disk.crash(Crash::PowerCut, seed);
            disk.open().map(|found| found.map(|(_, replay)| replay))
        };
        for seed in 0..200 {
            assert_eq!(after(seed), after(seed));
        }
    }

    #[test]
    fn the_log_of_a_crashed_program_writes_no_more() {
        let (disk, mut log, records) = three();
        disk.crash(Crash::Killed, 1);
        assert!(log.append(b"late").is_err());
        assert!(log.compact(b"late").is_err());
        let (mut next, replay) = disk.open().expect("whole").expect("there");
        assert_eq!(replay.records, records);
        next.append(b"four").expect("this one lives");
    }

    #[test]
    fn a_full_disk_refuses_the_record_and_keeps_the_rest() {
        let (disk, mut log, records) = three();
        disk.set_room(Some(10));
        let error = log.append(b"four").expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(
            log.compact(b"later").is_err(),
            "the new file has no room beside the old one"
        );
        disk.set_room(None);
        log.append(b"five").expect("there is room again");
        let mut all = records.to_vec();
        all.push(b"five".to_vec());
        assert_eq!(replay(&disk).records, all);
    }

    #[test]
    fn a_log_of_another_boot_takes_records_once_it_is_compacted() {
        let (disk, _log, _) = three();
        disk.write_back();
        disk.crash(Crash::PowerCut, 1);
        let (mut log, _) = disk.open().expect("whole").expect("there");
        assert!(log.append(b"four").is_err());
        log.compact(b"after the power cut").expect("there is room");
        log.append(b"four").expect("it is of this boot now");
        disk.crash(Crash::Killed, 1);
        let replay = replay(&disk);
        assert!(replay.same_boot);
        assert_eq!(replay.records, [b"four".to_vec()]);
    }
}
