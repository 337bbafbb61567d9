//! A disk as a power cut sees it: what was written is on it only once it was synced; before that any part of it may be.
//!
//! The model takes the file operations of a process in their order ([`Op`]) and gives, for any moment and seed, what a disk
//! may hold when the power goes then ([`Disk::cut`]). It is as hard as POSIX allows:
//! - of a file's writes since its last fsync each sector of 512 bytes is old, new or torn, and its length old or new;
//! - a name made, removed or changed since its folder's last fsync may be there or not;
//! - what was unsynced when an fsync failed is never made durable by a later one: it has to be written again.
//!
//! One assumption is SQLite's own (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`): a write never harms bytes beside it. Folders
//! themselves are there at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes that are written together or torn.
pub const SECTOR: usize = 512;

/// One operation on files, with paths relative to the folder that is looked at.
#[derive(Debug, Clone)]
pub enum Op {
    /// A file got a name.
    Create {
        /// The name.
        path: PathBuf,
        /// The file's number.
        file: u64,
    },
    /// A name was removed.
    Unlink {
        /// The name.
        path: PathBuf,
    },
    /// A name was changed.
    Rename {
        /// From.
        from: PathBuf,
        /// To.
        to: PathBuf,
    },
    /// Bytes were written.
    Write {
        /// The file's number.
        file: u64,
        /// Where.
        at: usize,
        /// What.
        data: Vec<u8>,
    },
    /// A file's length was set.
    Truncate {
        /// The file's number.
        file: u64,
        /// New length.
        len: usize,
    },
    /// A file's bytes and length were synced.
    Sync {
        /// The file's number.
        file: u64,
    },
    /// A sync failed.
    SyncFailed {
        /// The file's number.
        file: u64,
    },
    /// A folder's names were synced.
    SyncDir {
        /// The folder.
        path: PathBuf,
    },
}

/// Seeded dice: the same seed throws the same numbers.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is not 0 (splitmix64).
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// Whether a coin shows heads.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
    /// Pending when a sync failed; gone with the next one that succeeds.
    doomed: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// What is on the disk for certain, and what may be.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    /// Not yet durable, in order.
    renames: Vec<NameChange>,
}

/// Files and their bytes after a cut, by path.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// How much of what was not synced has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    Everything,
    /// The first operations, whole.
    Prefix,
    /// Each sector and each name by itself.
    Any,
}

impl Disk {
    /// Goes on by one operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path, file } => {
                self.files.entry(*file).or_default();
                self.renames.push(NameChange::Create(path.clone(), *file));
            }
            Op::Unlink { path } => self.renames.push(NameChange::Unlink(path.clone())),
            Op::Rename { from, to } => self.renames.push(NameChange::Rename(from.clone(), to.clone())),
            Op::Write { file, at, data } => {
                let change = Change::Write { at: *at, data: data.clone() };
                self.files.entry(*file).or_default().pending.push(change);
            }
            Op::Truncate { file, len } => {
                self.files.entry(*file).or_default().pending.push(Change::Truncate(*len));
            }
            Op::Sync { file } => {
                let content = self.files.entry(*file).or_default();
                content.doomed.clear();
                for change in std::mem::take(&mut content.pending) {
                    make(&mut content.durable, &change);
                }
            }
            Op::SyncFailed { file } => {
                let content = self.files.entry(*file).or_default();
                let mut pending = std::mem::take(&mut content.pending);
                content.doomed.append(&mut pending);
            }
            Op::SyncDir { path } => self.sync_dir(path),
        }
    }

    fn sync_dir(&mut self, dir: &Path) {
        let of_dir = |path: &Path| path.parent() == Some(dir);
        let (durable, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.renames).into_iter().partition(|change| match change {
                NameChange::Create(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _) => {
                    of_dir(path)
                }
            });
        self.renames = rest;
        for change in &durable {
            rename(&mut self.names, change);
        }
        // A file without a name can never be seen again.
        let named = |file: &u64| self.names.values().any(|named| named == file);
        let pending = |file: &u64| {
            self.renames.iter().any(|c| matches!(c, NameChange::Create(_, named) if named == file))
        };
        self.files.retain(|file, _| named(file) || pending(file));
    }

    /// What the disk holds when the power goes now, as `dice` fall.
    #[must_use]
    pub fn cut(&self, dice: &mut Dice) -> Image {
        let fate = [Fate::Nothing, Fate::Everything, Fate::Prefix, Fate::Any, Fate::Any, Fate::Any]
            [dice.below(6) as usize];
        let mut names = self.names.clone();
        let prefix = dice.below(self.renames.len() as u64 + 1) as usize;
        // Half of all file systems keep the order of names.
        let ordered = dice.coin();
        for (index, change) in self.renames.iter().enumerate() {
            let kept = match fate {
                Fate::Nothing => false,
                Fate::Everything => true,
                Fate::Prefix => index < prefix,
                Fate::Any => {
                    if ordered {
                        index < prefix
                    } else {
                        dice.coin()
                    }
                }
            };
            if kept {
                rename(&mut names, change);
            }
        }
        let content = |file: &u64, dice: &mut Dice| {
            self.files.get(file).map(|content| content.cut(fate, dice)).unwrap_or_default()
        };
        names.into_iter().map(|(path, file)| (path, content(&file, dice))).collect()
    }
}

impl Content {
    fn cut(&self, fate: Fate, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let prefix = dice.below((self.doomed.len() + self.pending.len()) as u64 + 1) as usize;
        for (index, change) in self.doomed.iter().chain(&self.pending).enumerate() {
            match fate {
                Fate::Nothing => {}
                Fate::Everything => make(&mut bytes, change),
                Fate::Prefix if index < prefix => make(&mut bytes, change),
                Fate::Prefix => {}
                Fate::Any => make_some(&mut bytes, change, dice),
            }
        }
        if fate == Fate::Any && bytes.len() > self.durable.len() && dice.coin() {
            let grown = (bytes.len() - self.durable.len()) as u64;
            bytes.truncate(self.durable.len() + dice.below(grown + 1) as usize);
        }
        bytes
    }
}

fn make(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate(len) => bytes.resize(*len, 0),
        Change::Write { at, data } => write(bytes, *at, data),
    }
}

/// Each sector of it old, new, or torn: a part of it new, or of old and new neither.
fn make_some(bytes: &mut Vec<u8>, change: &Change, dice: &mut Dice) {
    let (at, data) = match change {
        Change::Truncate(len) if dice.coin() => return bytes.resize(*len, 0),
        Change::Truncate(_) => return,
        Change::Write { at, data } => (*at, data),
    };
    let mut start = 0;
    while start < data.len() {
        let end = (start + SECTOR - (at + start) % SECTOR).min(data.len());
        let sector = &data[start..end];
        match dice.below(5) {
            0 | 1 => {}
            2 | 3 => write(bytes, at + start, sector),
            _ if dice.below(4) == 0 => {
                let waste: Vec<u8> = sector.iter().map(|_| dice.below(256) as u8).collect();
                write(bytes, at + start, &waste);
            }
            _ => write(bytes, at + start, &sector[..dice.below(sector.len() as u64 + 1) as usize]),
        }
        start = end;
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Create(path, file) => drop(names.insert(path.clone(), *file)),
        NameChange::Unlink(path) => drop(names.remove(path)),
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

/// Writes an image into the folder `dir`.
///
/// # Errors
/// The folder cannot be written.
pub fn lay(image: &Image, dir: &Path) -> std::io::Result<()> {
    for (path, bytes) in image {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Vec<Op> {
        let path = PathBuf::from("a");
        vec![Op::Create { path, file: 1 }, Op::Write { file: 1, at: 0, data: bytes.to_vec() }]
    }

    fn after(ops: &[Op], seed: u64) -> Option<Vec<u8>> {
        let mut disk = Disk::default();
        ops.iter().for_each(|op| disk.apply(op));
        disk.cut(&mut Dice::new(seed)).remove(Path::new("a"))
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go_or_tear() {
        let mut ops = file(&[1; 2000]);
        ops.push(Op::SyncDir { path: "".into() });
        let unsynced: std::collections::BTreeSet<_> = (0..200).map(|seed| after(&ops, seed)).collect();
        assert!(unsynced.len() > 20, "{}", unsynced.len());
        ops.push(Op::Sync { file: 1 });
        assert!((0..200).all(|seed| after(&ops, seed) == Some(vec![1; 2000])));
        ops.push(Op::Write { file: 1, at: 600, data: vec![2; 10] });
        for seed in 0..200 {
            let bytes = after(&ops, seed).unwrap();
            assert!(
                bytes[..600].iter().chain(&bytes[610..]).all(|byte| *byte == 1),
                "its neighbours are safe"
            );
        }
    }

    #[test]
    fn a_name_needs_its_folder_synced() {
        let mut ops = file(&[1; 10]);
        ops.push(Op::Sync { file: 1 });
        assert!((0..100).any(|seed| after(&ops, seed).is_none()));
        ops.push(Op::SyncDir { path: "".into() });
        assert!((0..100).all(|seed| after(&ops, seed).is_some()));
        ops.push(Op::Unlink { path: "a".into() });
        assert!((0..100).any(|seed| after(&ops, seed).is_some()));
    }

    #[test]
    fn a_sync_after_a_failed_one_does_not_cover_what_was_lost_then() {
        let mut ops = file(&[1; 10]);
        ops.extend([Op::SyncDir { path: "".into() }, Op::SyncFailed { file: 1 }, Op::Sync { file: 1 }]);
        assert!((0..100).all(|seed| after(&ops, seed) == Some(Vec::new())));
        ops.push(Op::Write { file: 1, at: 0, data: vec![1; 10] });
        ops.push(Op::Sync { file: 1 });
        assert!((0..100).all(|seed| after(&ops, seed) == Some(vec![1; 10])));
    }
}
