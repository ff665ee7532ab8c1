//! What of a step may go ahead of the journal while that cannot be written: what gives something
//! back never waits for a disk.

use crate::duties::duties;
use crate::effect::Effect;
use crate::run::Run;
use crate::state::State;

impl Effect {
    /// Whether it gives back what a run holds: the source's writes, or the destination. Done twice,
    /// or for a run of which a start after a crash knows less, it does no harm: what was given back
    /// is taken again, or given back again.
    #[must_use]
    pub const fn gives_back(&self) -> bool {
        match self {
            // An earlier run is one by a declaration that was journaled.
            Self::RetireEarlier { .. }
            | Self::StopSync
            | Self::UnblockSource { .. }
            | Self::OpenDestination
            | Self::FreeDestination => true,
            Self::Validate
            | Self::DropEarlier
            | Self::DropExisting
            | Self::StartSync
            | Self::CheckResumePoint
            | Self::PrepareCutover { .. }
            | Self::BlockSource { .. }
            | Self::WatchSource { .. }
            | Self::Drain { .. }
            | Self::RestoreSettings
            | Self::CleanUp => false,
        }
    }
}

/// What may be carried out of a step from `before` to `after` that cannot be journaled; `None`: the
/// step has to wait.
///
/// It is what a start from `journaled`, the newest state in the journal, would demand as well, and
/// what gives something back. A step that demands more waits, and so does one after which somebody
/// may rely on the run: `ready` and `completed` are in the journal first. That the destination is
/// open is a fact, and known at once.
#[must_use]
pub fn ahead_of_journal(journaled: &Run, before: &Run, after: &Run) -> Option<Vec<Effect>> {
    let enters = |is: fn(&State) -> bool| is(&after.state) && !is(&before.state);
    if enters(|state| matches!(state, State::Ready))
        || enters(|state| matches!(state, State::Completed { .. }))
    {
        return None;
    }
    let known = duties(journaled);
    let demanded = duties(after);
    let allowed: Vec<Effect> = demanded
        .iter()
        .filter(|effect| known.contains(effect) || effect.gives_back())
        .cloned()
        .collect();
    let has_opened = before.state.writable_at().is_none() && after.state.writable_at().is_some();
    (allowed.len() == demanded.len() || has_opened).then_some(allowed)
}
