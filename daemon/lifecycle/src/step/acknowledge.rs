//! The acknowledgement: fits exactly one attempt to cut over one run with one spec, and works once.

use schemas::history::{Actor, EntryKind};
use schemas::spec::SourceWrites;

use super::Walk;
use crate::refusal::{Guard, Refusal};
use crate::state::{Cutover, DrainStage, State};
use crate::token::Token;

impl Walk<'_> {
    pub(super) fn acknowledge(
        &mut self,
        token: Token,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        // The token of the cutover that is on its way, or was: said again, and nothing changes.
        if self.run.state.cutover().is_some_and(|cutover| cutover.token == token) {
            return Ok(());
        }
        let reasons = self.run.unready_reasons(self.now);
        let fits = token == self.run.next_token();
        let guard = match &self.run.state {
            State::Expired { at, .. } => Guard::WindowExpired { at: *at },
            _ if self.run.used_tokens.contains(&token) => Guard::UsedToken,
            _ if !fits => Guard::WrongToken,
            State::Ready if reasons.is_empty() => {
                self.begin_cutover(token, actor);
                return Ok(());
            }
            State::Ready
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Paused { .. }
            | State::Failed { .. } => Guard::NotReady(reasons),
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
            State::Cancelled { .. } => Guard::Cancelled,
        };
        Err(self.refuse(event, guard))
    }

    fn begin_cutover(&mut self, token: Token, actor: Actor) {
        let attempt = self.run.attempt;
        self.run.attempt = attempt.next();
        self.run.used_tokens.push(token.clone());
        self.run.aborted = None;
        self.run.trouble = None;
        let mode = self.run.settings.source_writes;
        let cutover = Cutover { attempt, token, by: actor.clone(), at: self.now, mode };
        let stage = DrainStage::Preparing { prepared_at: None, doing: None };
        self.go(State::Draining { cutover, stage }, "the cutover was acknowledged", Some(actor));
    }

    /// Stops the source's writes, or watches for their stop: everything that comes before has been
    /// checked.
    pub(super) fn stop_writes(&mut self) {
        let State::Draining { cutover, stage: DrainStage::Preparing { .. } } = &self.run.state
        else {
            return;
        };
        let cutover = cutover.clone();
        let (stage, message) = match cutover.mode {
            SourceWrites::Block => {
                (DrainStage::Blocking { since: self.now }, "blocking the source's writes")
            }
            SourceWrites::Observe => {
                (DrainStage::Watching, "waiting for the source's writes to stop")
            }
        };
        self.run.state = State::Draining { cutover, stage };
        self.note(EntryKind::Step, message, None);
    }
}
