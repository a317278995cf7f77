//! The bytes of a journal: how they are written, and how they are read after a crash.
//!
//! All numbers are little-endian, all checksums CRC-32 (IEEE). Every version begins with the same 14 bytes; what
//! follows is version 1:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `LOCKFSJ\n` |
//! | 2 | version |
//! | 4 | checksum of all before |
//! | 8 | generation: one more with each snapshot |
//! | 16 | boot id of the machine |
//! | 4 | checksum of all before |
//!
//! Then come frames, the first with the snapshot, each further one with a record:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | length of the payload |
//! | 4 | checksum of generation, offset of the frame, length |
//! | 4 | checksum of the same and the payload |
//! | n | payload |
//!
//! Generation and offset are summed but not stored: a frame counts only in its own file and place. The length has a
//! checksum of its own because everything hangs on it: a frame with a sound length that runs past the end of the file
//! was cut off by a crash, while a damaged length would look the same and hide all that follows.

use crc32fast::Hasher;

use crate::ports::{LogRefusal, Replay};

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// The longest record. The service writes one for each command; the largest are those that end many locks at once.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The most bytes of records after a snapshot; the service compacts long before.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// The longest snapshot: 2 KiB for each of the 262,144 files that can be open.
pub const SNAPSHOT_BYTES_MAX: usize = 512 << 20;
/// The longest file that can be a journal.
pub(super) const FILE_BYTES_MAX: u64 =
    (HEADER_BYTES + HEAD_BYTES) as u64 + SNAPSHOT_BYTES_MAX as u64 + JOURNAL_BYTES_MAX;

const MAGIC: &[u8; 8] = b"LOCKFSJ\n";
const PREAMBLE_BYTES: usize = 14;
pub(super) const HEADER_BYTES: usize = 42;
pub(super) const HEAD_BYTES: usize = 12;

/// Which start of the machine: the bytes of the kernel's boot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) struct BootId(pub(in crate::adapters) [u8; 16]);

impl BootId {
    /// Reads the form in which the kernel writes it: 32 hexadecimal digits and hyphens.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end().replace('-', "");
        let number = u128::from_str_radix(&digits, 16).ok()?;
        (digits.len() == 32).then(|| Self(number.to_be_bytes()))
    }
}

/// Where a journal ends and what the next bytes must be; the file itself is somebody else's.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapters) struct Extent {
    generation: u64,
    same_boot: bool,
    /// Where the records begin.
    start: u64,
    /// Where the next frame goes.
    end: u64,
}

impl Extent {
    /// Lays out a whole new journal.
    pub(in crate::adapters) fn begin(
        generation: u64,
        boot: BootId,
        snapshot: &[u8],
    ) -> Result<(Self, Vec<u8>), LogRefusal> {
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(LogRefusal::SnapshotTooLong {
                bytes: snapshot.len() as u64,
                bytes_max: SNAPSHOT_BYTES_MAX as u64,
            });
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + HEAD_BYTES + snapshot.len());
        push_preamble(&mut bytes, VERSION);
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&boot.0);
        push_checksum(&mut bytes);
        push_frame(&mut bytes, generation, HEADER_BYTES as u64, snapshot);
        let end = bytes.len() as u64;
        let extent = Self {
            generation,
            same_boot: true,
            start: end,
            end,
        };
        Ok((extent, bytes))
    }

    /// Lays out the journal that follows this one.
    pub(in crate::adapters) fn next(&self, boot: BootId, snapshot: &[u8]) -> Result<(Self, Vec<u8>), LogRefusal> {
        Self::begin(self.generation + 1, boot, snapshot)
    }

    /// Lays out the next frame, in place of what the buffer held. It counts once [`Self::grow`] says so.
    pub(in crate::adapters) fn frame(&self, record: &[u8], buffer: &mut Vec<u8>) -> Result<(), LogRefusal> {
        if record.len() > FRAME_BYTES_MAX {
            return Err(LogRefusal::RecordTooLong {
                bytes: record.len() as u64,
                bytes_max: FRAME_BYTES_MAX as u64,
            });
        }
        if !self.same_boot {
            return Err(LogRefusal::OtherBoot);
        }
        if self.size() + (HEAD_BYTES + record.len()) as u64 > JOURNAL_BYTES_MAX {
            return Err(LogRefusal::Full {
                bytes_max: JOURNAL_BYTES_MAX,
            });
        }
        buffer.clear();
        push_frame(buffer, self.generation, self.end, record);
        Ok(())
    }

    /// Counts a frame that has been written.
    pub(in crate::adapters) fn grow(&mut self, bytes: usize) {
        self.end += bytes as u64;
    }

    /// Where the next frame goes, which is the length of the file.
    pub(in crate::adapters) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes of all records.
    pub(in crate::adapters) fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Why bytes are not a journal that can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A newer program wrote it.
    #[error("it has version {found}, and version {VERSION} is the newest that is known here")]
    Newer {
        /// Its version.
        found: u16,
    },
    /// It is not as it was written, and no crash explains that.
    #[error("it is damaged at byte {offset}")]
    Damaged {
        /// Where the first frame that cannot be trusted begins.
        offset: u64,
        /// What precedes it: good to tell people what was known, not to go on from.
        legible: Option<Box<Replay>>,
    },
}

/// Reads a journal. Bytes after [`Extent::end`] are the torn tail of a crash, to be cut off.
pub(in crate::adapters) fn read(bytes: &[u8], boot: BootId) -> Result<(Extent, Replay), Fault> {
    let Some(version) = read_preamble(bytes) else {
        return Err(damaged(0));
    };
    match version {
        0 => Err(damaged(0)),
        1 => read_version_1(bytes, boot),
        found => Err(Fault::Newer { found }),
    }
}

fn read_version_1(bytes: &[u8], boot: BootId) -> Result<(Extent, Replay), Fault> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| damaged(0))?;
    let (summed, sum) = header.split_at(HEADER_BYTES - 4);
    if sum != crc32fast::hash(summed).to_le_bytes() {
        return Err(damaged(0));
    }
    let generation = u64::from_le_bytes(chunk(header, PREAMBLE_BYTES));
    let same_boot = boot.0 == chunk(header, PREAMBLE_BYTES + 8);
    // The file got its name when the snapshot was whole, so nothing excuses half a snapshot.
    let Piece::Whole(snapshot) = piece(bytes, generation, HEADER_BYTES) else {
        return Err(damaged(HEADER_BYTES));
    };
    let mut replay = Replay {
        same_boot,
        snapshot: snapshot.to_vec(),
        records: Vec::new(),
    };
    let start = HEADER_BYTES + HEAD_BYTES + snapshot.len();
    let mut end = start;
    while end < bytes.len() {
        match piece(bytes, generation, end) {
            Piece::Whole(record) => {
                replay.records.push(record.to_vec());
                end += HEAD_BYTES + record.len();
            }
            Piece::CutOff => break,
            // The death of a program cuts off what it was writing. A power cut can also leave the length of the file
            // without its bytes; but what lies between whole frames was harmed by something else.
            Piece::Bad if !same_boot && !any_whole(bytes, generation, end + 1) => break,
            Piece::Bad => {
                return Err(Fault::Damaged {
                    offset: end as u64,
                    legible: Some(Box::new(replay)),
                });
            }
        }
    }
    let extent = Extent {
        generation,
        same_boot,
        start: start as u64,
        end: end as u64,
    };
    Ok((extent, replay))
}

/// What is found where a frame should begin.
enum Piece<'a> {
    Whole(&'a [u8]),
    /// The file ends before the frame does.
    CutOff,
    Bad,
}

fn piece(bytes: &[u8], generation: u64, at: usize) -> Piece<'_> {
    let Some((head, rest)) = bytes[at..].split_first_chunk::<HEAD_BYTES>() else {
        return Piece::CutOff;
    };
    let length = u32::from_le_bytes(chunk(head, 0));
    let mut hasher = head_hasher(generation, at as u64, length);
    if u32::from_le_bytes(chunk(head, 4)) != hasher.clone().finalize() {
        return Piece::Bad;
    }
    let Some(payload) = rest.get(..length as usize) else {
        return Piece::CutOff;
    };
    hasher.update(payload);
    if u32::from_le_bytes(chunk(head, 8)) != hasher.finalize() {
        return Piece::Bad;
    }
    Piece::Whole(payload)
}

fn any_whole(bytes: &[u8], generation: u64, from: usize) -> bool {
    (from..bytes.len()).any(|at| matches!(piece(bytes, generation, at), Piece::Whole(_)))
}

fn push_frame(bytes: &mut Vec<u8>, generation: u64, offset: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("records and snapshots have bounds below 4 GiB");
    let mut hasher = head_hasher(generation, offset, length);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&hasher.clone().finalize().to_le_bytes());
    hasher.update(payload);
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
}

fn head_hasher(generation: u64, offset: u64, length: u32) -> Hasher {
    let mut head = [0; 20];
    head[..8].copy_from_slice(&generation.to_le_bytes());
    head[8..16].copy_from_slice(&offset.to_le_bytes());
    head[16..].copy_from_slice(&length.to_le_bytes());
    let mut hasher = Hasher::new();
    hasher.update(&head);
    hasher
}

/// Writes what every version begins with.
pub(super) fn push_preamble(bytes: &mut Vec<u8>, version: u16) {
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    push_checksum(bytes);
}

fn read_preamble(bytes: &[u8]) -> Option<u16> {
    let preamble: &[u8; PREAMBLE_BYTES] = bytes.first_chunk()?;
    let (summed, sum) = preamble.split_at(PREAMBLE_BYTES - 4);
    let whole = summed.starts_with(MAGIC) && sum == crc32fast::hash(summed).to_le_bytes();
    whole.then(|| u16::from_le_bytes(chunk(preamble, MAGIC.len())))
}

fn push_checksum(bytes: &mut Vec<u8>) {
    let sum = crc32fast::hash(bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("offsets are constants inside a head or header of fixed length")
}

fn damaged(offset: usize) -> Fault {
    Fault::Damaged {
        offset: offset as u64,
        legible: None,
    }
}
