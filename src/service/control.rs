//! `control`: the verbs of the mount's owner.

use super::api::Answer;
use super::inspector::{LateCall, Strangers};
use super::refusals::{Refused, about_lock};
use super::{Context, Outcome, Service};
use crate::engine::Command;
use crate::types::{Refusal, Settings};
use crate::view::requests::{Verb, parse_verb};

/// What reading the configuration again came to.
pub(super) type Found = Result<Settings, String>;

impl Service {
    pub(super) fn control(&self, context: &Context, data: &[u8]) -> Outcome {
        self.check_privilege(context)?;
        let lines = data
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        let verbs: Result<Vec<Verb>, _> = lines.map(parse_verb).collect();
        let verbs = verbs.map_err(|error| Refused::new(Refusal::Malformed, format!("control: {error}")))?;
        if verbs.is_empty() {
            return Err(Refused::new(
                Refusal::Malformed,
                "control: a verb is missing; read control for the verbs",
            ));
        }
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if verbs.iter().any(is_slow) {
            let handed_over = self.hand_over(context, LateCall::Verbs { verbs, size }, Strangers::None);
            return if handed_over {
                Ok(None)
            } else {
                Err(Refused::new(
                    Refusal::Full,
                    "control: the daemon has too much before it; try again",
                ))
            };
        }
        self.carry_out_all(context, verbs, Vec::new())?;
        Ok(Some(Answer::Written(size)))
    }

    /// Carries out verbs in order, up to the first that is refused; `read` is what each `reload` among them found.
    pub(super) fn carry_out_all(&self, context: &Context, verbs: Vec<Verb>, read: Vec<Found>) -> Result<(), Refused> {
        let mut read = read.into_iter();
        verbs.into_iter().try_for_each(|verb| match verb {
            Verb::Reload => read.next().map_or(Ok(()), |found| self.reload(context, found)),
            verb => self.carry_out(context, verb),
        })
    }

    /// The mount's owner or root, and nobody more confined than the daemon.
    fn check_privilege(&self, context: &Context) -> Result<(), Refused> {
        if context.caller.uid != self.owner.0 && context.caller.uid != 0 {
            return Err(Refused::new(
                Refusal::Denied,
                "control: only the owner of the mount or root may write here",
            ));
        }
        self.confinement.check(context.caller.tid).map_err(|what| {
            Refused::new(
                Refusal::Denied,
                format!("control: the caller is confined otherwise than the daemon ({what})"),
            )
        })
    }

    fn carry_out(&self, context: &Context, verb: Verb) -> Result<(), Refused> {
        let mut state = self.state();
        let (command, about) = match verb {
            Verb::Break(lock, token, reason) => {
                tracing::warn!(%lock, %token, uid = context.caller.uid, tid = context.caller.tid, "broken: {reason}");
                state.breaking = Some(format!("broken: {reason}"));
                (
                    Command::Break {
                        lock: lock.clone(),
                        token,
                    },
                    Some(lock),
                )
            }
            Verb::Withdraw(ticket) => (Command::Withdraw(ticket), None),
            Verb::ReleaseSession(session) => (Command::ReleaseSession(session), None),
            Verb::Drain => (Command::Drain(true), None),
            Verb::Resume => (Command::Drain(false), None),
            // Reloading is done by who has read the configuration. Figures are kept in memory only, so nothing is ever
            // left to flush.
            Verb::Reload | Verb::FlushMetrics => return Ok(()),
        };
        let result = state.command(context.now, command);
        state.breaking = None;
        let result = result.map_err(|refusal| match (refusal, about) {
            (Refusal::HeldByOther, Some(lock)) => {
                let sentence =
                    format!("control: no holder of {lock} has that token; see cat locks/{lock} for the current one");
                Refused::new(Refusal::HeldByOther, sentence)
            }
            (refusal, Some(lock)) => about_lock(&state.engine, &lock, refusal, context.now),
            (Refusal::Absent, None) => Refused::new(Refusal::Absent, "control: there is no such ticket"),
            (refusal, None) => Refused::new(refusal, "control: refused"),
        });
        self.finish(state, context.now);
        result.map(|_| ())
    }

    /// Takes over a configuration that was read again; a bad one changes nothing.
    fn reload(&self, context: &Context, found: Found) -> Result<(), Refused> {
        let settings = found.map_err(|sentence| {
            Refused::new(
                Refusal::Malformed,
                format!("control: {sentence}; the settings stay as they were"),
            )
        })?;
        let mut state = self.state();
        let result = state.command(context.now, Command::Configure(settings));
        self.finish(state, context.now);
        result
            .map(|_| ())
            .map_err(|refusal| Refused::new(refusal, "control: the settings were refused"))
    }
}

/// Whether a verb reads what only the inspector may: git's configuration, the sessions of all holders.
fn is_slow(verb: &Verb) -> bool {
    matches!(verb, Verb::Reload | Verb::ReleaseSession(_))
}
