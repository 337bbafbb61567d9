//! What version 2 adds to kinds of version 1: the old fields as they were, and new ones before or behind them.

use super::check::Checked;
use super::messages::MoreStatus;
use super::{Birth, BlockHeader, Lifetime, SAMPLE_INDEX_MAX, Status, VERSION_2};
use serde::{Deserialize, Serialize};

/// Header of a block whose samples were thinned out.
#[derive(Serialize, Deserialize)]
pub(super) struct Thinned<'a> {
    pub(super) decimation: u16,
    #[serde(borrow)]
    pub(super) block: BlockHeader<'a>,
}

impl<'a> From<BlockHeader<'a>> for Thinned<'a> {
    fn from(block: BlockHeader<'a>) -> Self {
        Self { decimation: block.decimation, block }
    }
}

impl Checked for Thinned<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        // A block with every sample has one form only: that of version 1.
        if self.decimation < 2 {
            return Some("decimation");
        }
        BlockHeader { decimation: self.decimation, ..self.block }.field_out_of_range()
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct BirthOfTwo<'a> {
    #[serde(borrow)]
    pub(super) birth: Birth<'a>,
    pub(super) lifetime: Lifetime,
}

impl Checked for BirthOfTwo<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        self.birth.field_out_of_range()
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StatusOfTwo<'a> {
    #[serde(borrow)]
    pub(super) status: Status<'a>,
    pub(super) more: MoreStatus,
}

impl Checked for StatusOfTwo<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        let counted = self.more.steps.iter().all(|step| step.withheld <= SAMPLE_INDEX_MAX);
        let paired = self.more.steps.len() == self.status.streams.len();
        let more = match (paired, counted) {
            (false, _) => Some("steps"),
            (_, false) => Some("steps.withheld"),
            _ => None,
        };
        self.status.field_out_of_range().or(more)
    }
}
