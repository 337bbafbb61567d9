//! Where a gateway keeps its data: named by its configuration, or directly.

use crate::config;
use std::path::PathBuf;

/// Whose data is looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The gateway's configuration; its `data_dir` is looked at
    #[arg(long, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// The gateway's data folder, in place of a configuration
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

impl Place {
    /// Where the configuration's hardware descriptions are, if one is read and names them.
    pub fn hardware(&self) -> anyhow::Result<Option<PathBuf>> {
        match &self.data_dir {
            Some(_) => Ok(None),
            None => Ok(config::load(&self.config)?.gateway.hardware_configs),
        }
    }

    /// The data folder, which exists.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => config::load(&self.config)?.gateway.data_dir,
        };
        anyhow::ensure!(dir.is_dir(), "{} is no folder: has a gateway run with it?", dir.display());
        Ok(dir)
    }
}
