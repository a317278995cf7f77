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
        let lines = data
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        let verbs: Result<Vec<Verb>, _> = lines.map(parse_verb).collect();
        // A note is for everybody who takes locks: it changes a figure, and nothing for anybody.
        if !matches!(&verbs, Ok(verbs) if verbs.iter().all(|verb| matches!(verb, Verb::Note(_)))) {
            self.check_privilege(context)?;
        }
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
        self.carry_out_all(context, verbs, Before::default())?;
        Ok(Some(Answer::Written(size)))
    }

    /// Does beforehand what verbs need that is slow.
    pub(super) fn prepare_verbs(&self, verbs: &[Verb]) -> Before {
        for verb in verbs {
            if let Verb::Note(warning) = verb {
                self.count_commit_warning(warning);
            }
        }
        let reloads = verbs.iter().filter(|verb| **verb == Verb::Reload).count();
        let saved = verbs.contains(&Verb::FlushMetrics).then(|| self.save_figures());
        Before {
            read: std::iter::repeat_with(|| (self.reload)()).take(reloads).collect(),
            saved: saved.unwrap_or(Ok(())),
        }
    }

    /// Carries out verbs in order, up to the first that is refused.
    pub(super) fn carry_out_all(&self, context: &Context, verbs: Vec<Verb>, before: Before) -> Result<(), Refused> {
        let mut read = before.read.into_iter();
        verbs.into_iter().try_for_each(|verb| match verb {
            Verb::Reload => read.next().map_or(Ok(()), |found| self.reload(context, found)),
            Verb::FlushMetrics => before.saved.clone().map_err(|sentence| {
                let sentence = format!("control: the figures cannot be written: {sentence}");
                Refused::new(Refusal::Internal, sentence)
            }),
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
            // These are done by who has read the configuration, or had the figures, before the turn.
            Verb::Reload | Verb::FlushMetrics | Verb::Note(_) => return Ok(()),
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

/// What was done for verbs before their turn.
pub(super) struct Before {
    /// What each `reload` among them found.
    read: Vec<Found>,
    /// Whether `flush-metrics` could write.
    saved: Result<(), String>,
}

impl Default for Before {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            saved: Ok(()),
        }
    }
}

/// Whether a verb is for the inspector: it reads git's configuration or the sessions of all holders, or waits for the disk
/// or the figures.
fn is_slow(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Reload | Verb::ReleaseSession(_) | Verb::FlushMetrics | Verb::Note(_)
    )
}
