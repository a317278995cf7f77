//! The open files of a process that lie on the mount, seen without touching them.
//!
//! The links in /proc/PID/fd and the texts in /proc/PID/fdinfo come from the kernel's own tables. A stat(2) or open(2)
//! *through* such a link would be a request to our own mount, and the thread that should answer it would wait for
//! itself: so links are only read.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::procfs::read_bounded;

/// How many descriptors of one process are looked at.
const DESCRIPTORS_MAX: usize = 16_384;
/// More than the fields that are read; locks and watches follow them, in bytes.
const FDINFO_BYTES_MAX: u64 = 512;
/// What the kernel appends to a name that no longer leads to the file.
const DELETED: &[u8] = b" (deleted)";

/// An open file of some process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Its number in the descriptor table.
    pub number: i32,
    /// Its path, without the kernel's mark for names that are gone.
    pub path: PathBuf,
    /// The flags of its open(2).
    pub flags: i32,
    /// Its inode number; told since Linux 5.14.
    pub ino: Option<u64>,
    /// The mount it was opened through, as the first field of /proc/PID/mountinfo.
    pub mount_id: Option<u64>,
}

/// How many different open file descriptions stand behind these descriptors of one process.
///
/// Copies made by dup(2) count once (kcmp(2)). Where the kernel does not compare, copies cannot be told from others and
/// all count as one.
pub fn distinct_files(pid: u32, files: &[&OpenFile]) -> usize {
    let mut different: Vec<&OpenFile> = Vec::new();
    for &file in files {
        if different
            .iter()
            .all(|known| is_other_file(pid, known.number, file.number))
        {
            different.push(file);
        }
    }
    different.len()
}

/// Whether two descriptors of a process are known to be different open file descriptions.
fn is_other_file(pid: u32, a: i32, b: i32) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: kcmp takes plain numbers and writes no memory of ours.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a, b) };
    order > 0
}

/// The files below `prefix` that a process has open; none of a process that is gone or hidden.
///
/// Paths are as seen from the mounts of the process. So a file opened through a bind mount elsewhere is not found.
pub fn open_files(pid: u32, prefix: &Path) -> Vec<OpenFile> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    descriptors
        .take(DESCRIPTORS_MAX)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let path = without_mark(fs::read_link(entry.path()).ok()?);
            if !path.starts_with(prefix) {
                return None;
            }
            let number = entry.file_name().into_string().ok()?;
            let info = read_bounded(format!("/proc/{pid}/fdinfo/{number}"), FDINFO_BYTES_MAX).ok()?;
            let info = String::from_utf8_lossy(&info);
            Some(OpenFile {
                number: number.parse().ok()?,
                path,
                flags: i32::from_str_radix(field(&info, "flags:")?, 8).ok()?,
                ino: field(&info, "ino:").and_then(|text| text.parse().ok()),
                mount_id: field(&info, "mnt_id:").and_then(|text| text.parse().ok()),
            })
        })
        .collect()
}

/// The files below `prefix` that any process has open which we may look at.
pub fn open_everywhere(prefix: &Path) -> Vec<(u32, Vec<OpenFile>)> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok());
    pids.map(|pid| (pid, open_files(pid, prefix)))
        .filter(|(_, files)| !files.is_empty())
        .collect()
}

fn field<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// No lock's name has a blank, so the mark cannot be part of one.
fn without_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(name) => PathBuf::from(OsString::from_vec(name.to_vec())),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::testing::Program;
    use super::*;

    #[test]
    fn what_is_below_the_prefix_is_found_with_its_flags() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path();
        let script = format!(
            "exec 7>{0}/a.lock 8<>{0}/b.lock 9</dev/null; rm {0}/b.lock; echo; read line",
            at.display()
        );
        let mut program = Program::shell(&script);
        program.line();
        let mut files = open_files(program.pid(), at);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let [a, b] = &files[..] else { panic!("{files:?}") };
        assert_eq!(a.path, at.join("a.lock"));
        assert_eq!(a.flags & libc::O_ACCMODE, libc::O_WRONLY);
        let ino = fs::metadata(at.join("a.lock")).expect("it is there").ino();
        assert!(a.ino.is_none_or(|told| told == ino));
        assert!(a.mount_id.is_some());
        assert_eq!(b.path, at.join("b.lock"), "also when the name is gone");
        assert_eq!(b.flags & libc::O_ACCMODE, libc::O_RDWR);
    }

    #[test]
    fn a_sibling_with_the_same_beginning_is_not_below() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _file = fs::File::create(dir.path().join("ab")).expect("it is ours");
        assert_eq!(open_files(std::process::id(), &dir.path().join("a")), []);
        assert_eq!(open_files(u32::MAX, dir.path()), []);
    }
}
