//! A folder of secrets: closed to others, never in a repository, each file whole or not there.

use anyhow::{Context as _, ensure};
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Largest file that is read back, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether the folder may lie in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repository {
    Refused,
    Allowed,
}

/// The folder. Paths are relative to it.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it when it is missing.
    pub(super) fn open(path: &Path, repository: Repository) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
        if repository == Repository::Refused
            && let Some(root) = repository_around(&path)
        {
            anyhow::bail!(
                "{} lies in the repository {}: secrets there are soon published. Name a folder outside, or add \
                 --allow-repository when it is certain that they stay out of it",
                path.display(),
                root.display()
            );
        }
        let folder = Self(path);
        folder.make("")?;
        ensure_closed(&folder.0)?;
        Ok(folder)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder in it, mode 0700.
    pub(super) fn make(&self, path: &str) -> anyhow::Result<()> {
        let path = self.0.join(path);
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("cannot make {}", path.display()))
    }

    /// The text of a file; `None` when it is not there.
    pub(super) fn read(&self, path: &str) -> anyhow::Result<Option<String>> {
        let path = self.0.join(path);
        let read = || {
            if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("is larger than {FILE_BYTES_MAX} bytes")));
            }
            std::fs::read_to_string(&path)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a file, mode 0600, unless it holds just this: a power cut leaves the old one or the new one.
    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let (path, content) = (self.0.join(path), content.as_ref());
        if std::fs::read(&path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        let write = || {
            // Its mode is 0600 from the start.
            let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&self.0))?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().map(drop).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Names of the folders in a folder of it.
    pub(super) fn folders(&self, path: &str) -> anyhow::Result<Vec<String>> {
        let path = self.0.join(path);
        let entries = std::fs::read_dir(&path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot read {}", path.display()))?;
        let folders = entries.into_iter().filter(|entry| entry.path().is_dir());
        let mut names: Vec<_> =
            folders.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }
}

/// The root of the repository that `path` would lie in. Links are followed as far as the path exists.
fn repository_around(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok())?;
    [".git", ".hg", ".svn"]
        .iter()
        .find_map(|name| there.ancestors().find(|ancestor| ancestor.join(name).exists()))
        .map(Path::to_owned)
}

#[cfg(unix)]
fn ensure_closed(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).with_context(|| path.display().to_string())?.permissions().mode();
    let name = path.display();
    ensure!(mode & 0o077 == 0, "{name} is open to others (mode {:o}): chmod 700 {name}", mode & 0o777);
    Ok(())
}

#[cfg(not(unix))]
fn ensure_closed(_: &Path) -> anyhow::Result<()> {
    Ok(())
}
