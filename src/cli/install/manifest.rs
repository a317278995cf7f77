//! What `install` put where, and what was there before.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::place::Place;

const FILE: &str = "install.json";
/// The longest settings file that is edited: it is kept twice in the manifest.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// A file outside of the state directory, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file.
    pub path: PathBuf,
    /// What it said; `None` when it was not there.
    pub before: Option<String>,
    /// What it says.
    pub after: String,
    /// The directories that were made for it, the outermost first.
    #[serde(default)]
    pub made: Vec<PathBuf>,
}

impl Edit {
    /// The change of a file below `top` to what `change` makes of its text. Only a plain file in that directory is
    /// changed: a link that leads out of it may be a trap of whoever wrote the repository.
    pub fn of(top: &Path, below: &str, change: impl FnOnce(Option<&str>) -> Result<String>) -> Result<Self> {
        let path = top.join(below);
        let before = read(top, &path).with_context(|| path.display().to_string())?;
        let after = change(before.as_deref()).with_context(|| path.display().to_string())?;
        let missing = path.ancestors().skip(1).take_while(|dir| !dir.exists());
        let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        made.reverse();
        Ok(Self {
            path,
            before,
            after,
            made,
        })
    }

    /// Whether there is nothing to change.
    pub fn is_done(&self) -> bool {
        self.before.as_deref() == Some(self.after.as_str())
    }

    /// The file and its new text, for people.
    pub fn shown(&self) -> String {
        let old: Vec<&str> = self.before.as_deref().unwrap_or_default().lines().collect();
        let mut text = format!("{}:\n", self.path.display());
        for line in self.after.lines() {
            let mark = if old.contains(&line) { ' ' } else { '+' };
            text += &format!("{mark} {line}\n");
        }
        text
    }

    /// Makes the change.
    pub fn write(&self) -> Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        replace(&self.path, &self.after)
    }

    /// Takes the change back; false when somebody has changed the file since.
    pub fn take_back(&self) -> Result<bool> {
        let now = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            // Whoever removed it, or the whole worktree, took ours along.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).context(self.path.display().to_string()),
        };
        if Some(&now) == self.before.as_ref() {
            return Ok(true);
        }
        if now != self.after {
            return Ok(false);
        }
        match &self.before {
            Some(before) => replace(&self.path, before)?,
            None => fs::remove_file(&self.path)?,
        }
        for dir in self.made.iter().rev() {
            // Somebody else may have put something there.
            let _ = fs::remove_dir(dir);
        }
        Ok(true)
    }
}

/// All edits, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    edits: Vec<Edit>,
}

impl Manifest {
    /// What was put here; nothing when nothing was.
    pub fn read(place: &Place) -> Result<Self> {
        let path = place.state_dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self {
                version: 1,
                edits: Vec::new(),
            }),
            Err(error) => Err(error).context(path.display().to_string()),
        }
    }

    /// Keeps what is needed to take an edit back. Of a file that was edited before, what was there at first counts.
    pub fn remember(&mut self, edit: &Edit) {
        match self.edits.iter_mut().find(|known| known.path == edit.path) {
            Some(known) if edit.before.as_ref() == Some(&known.after) => known.after.clone_from(&edit.after),
            Some(known) => *known = edit.clone(),
            None => self.edits.push(edit.clone()),
        }
    }

    /// Writes it down.
    pub fn write(&self, place: &Place) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        replace(&place.state_dir.join(FILE), &text)
    }

    /// Takes everything back; gives the files that somebody has changed since, which stay, and stay written down.
    pub fn take_back(mut self, place: &Place) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for edit in self.edits.drain(..).rev() {
            if !edit.take_back()? {
                kept.push(edit);
            }
        }
        kept.reverse();
        let paths = kept.iter().map(|edit| edit.path.clone()).collect();
        self.edits = kept;
        if self.edits.is_empty() {
            match fs::remove_file(place.state_dir.join(FILE)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        } else {
            self.write(place)?;
        }
        Ok(paths)
    }
}

/// What a file below `top` says; `None` when it is not there.
fn read(top: &Path, path: &Path) -> Result<Option<String>> {
    let parents = path.ancestors().skip(1);
    let nearest = parents.filter_map(|dir| dir.canonicalize().ok()).next();
    let is_inside = |real: &Path| top.canonicalize().is_ok_and(|top| real.starts_with(top));
    ensure!(
        nearest.is_some_and(|dir| is_inside(&dir)),
        "its directory is a link that leads elsewhere"
    );
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    ensure!(is_inside(&real), "it is a link that leads elsewhere");
    let meta = fs::metadata(&real)?;
    ensure!(meta.is_file(), "it is no file");
    ensure!(
        meta.len() <= SETTINGS_BYTES_MAX,
        "it has {} bytes, and settings are shorter",
        meta.len()
    );
    fs::read_to_string(&real).map(Some).context("it cannot be read")
}

/// Replaces a file at once: a reader finds the old text or the new one. Its mode stays.
fn replace(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension(format!("lockfs-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&aside)?;
        if let Ok(meta) = fs::metadata(path) {
            file.set_permissions(meta.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link stays one: what it points at is replaced.
        fs::rename(&aside, fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
    };
    write().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &tempfile::TempDir) -> Place {
        let place = Place::of(dir.path().join(".git"));
        fs::create_dir_all(&place.state_dir).expect("a directory");
        place
    }

    #[test]
    fn what_was_there_comes_back_byte_for_byte() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        let (old, new) = (dir.path().join("old"), dir.path().join("a/b/new"));
        fs::write(&old, "one\r\n\ttwo").expect("a file");
        let mut manifest = Manifest::read(&place).expect("nothing");
        for path in ["old", "a/b/new"] {
            for word in ["x", "y"] {
                let change = |text: Option<&str>| Ok(text.unwrap_or_default().to_owned() + word);
                let edit = Edit::of(dir.path(), path, change).expect("an edit");
                manifest.remember(&edit);
                edit.write().expect("written");
            }
        }
        manifest.write(&place).expect("written");
        assert_eq!(fs::read_to_string(&new).expect("a file"), "xy");
        let kept = Manifest::read(&place)
            .expect("read")
            .take_back(&place)
            .expect("taken back");
        assert!(kept.is_empty());
        assert_eq!(fs::read_to_string(&old).expect("a file"), "one\r\n\ttwo");
        assert!(!dir.path().join("a").exists(), "also the directories");
        assert!(!place.state_dir.join(FILE).exists());
    }

    #[test]
    fn what_somebody_changed_since_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        let path = dir.path().join("file");
        let edit = Edit::of(dir.path(), "file", |_| Ok("ours".to_owned())).expect("an edit");
        let mut manifest = Manifest::read(&place).expect("nothing");
        manifest.remember(&edit);
        edit.write().expect("written");
        fs::write(&path, "theirs").expect("a file");
        assert_eq!(manifest.take_back(&place).expect("tried"), std::slice::from_ref(&path));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "theirs");
        assert!(place.state_dir.join(FILE).exists(), "it can be tried again");
    }
}
