//! What somebody who is no client sees, and what must hold whatever the clients do.

use git_lockfs::service::api::{Access, Answer, Call, Files};
use git_lockfs::types::{NodeId, Unique};

use super::{CLIENTS, Kernel};
use crate::client::{LOCKS, NAMES, ROOT, mode};
use crate::machine::nobody;

impl Kernel {
    /// A call of somebody who is no client.
    pub(super) fn ask(&mut self, call: Call<'_>) -> Answer {
        self.next += 2;
        let answer = self.service.call(Unique(self.next - 2), nobody(), call);
        answer.expect("looking never waits")
    }

    /// What a file reads, without what passes with time; `None` when there is none.
    pub(super) fn read(&mut self, parent: NodeId, name: &str) -> Option<String> {
        let name = name.as_bytes();
        let Answer::Entry(entry) = self.ask(Call::Lookup { parent, name }) else {
            return None;
        };
        let (node, mode) = (entry.node, mode(Access::Read, false));
        let handle = match self.ask(Call::Open { node, mode }) {
            Answer::Opened(opened) => opened.handle,
            other => return Some(format!("{other:?}")),
        };
        let (offset, size) = (0, 1 << 20);
        let Answer::Data(data) = self.ask(Call::Read { handle, offset, size }) else {
            panic!("a text")
        };
        self.ask(Call::Release { handle });
        let text = String::from_utf8(data).expect("text");
        let is_timeless = |line: &&str| {
            !["age", "since", "waits", "estimate"]
                .iter()
                .any(|word| line.contains(word))
        };
        Some(text.lines().filter(is_timeless).collect::<Vec<_>>().join("\n"))
    }

    /// What anybody can see of the locks.
    pub fn look(&mut self) -> Vec<Option<String>> {
        NAMES.map(|name| self.read(LOCKS, name)).into()
    }

    /// The highest tokens that anybody can have seen.
    pub(super) fn look_at_tokens(&mut self) {
        for text in self.look().into_iter().flatten() {
            let tokens = text.lines().filter_map(|line| line.strip_prefix("token="));
            tokens.for_each(|token| self.tokens.seen(token.parse().expect("a number")));
        }
    }

    pub(super) fn check_nothing_is_left(&mut self) {
        let seed = self.seed;
        let scratch = (0..CLIENTS).map(|number| format!(".scratch{number}"));
        for name in NAMES.map(str::to_owned).into_iter().chain(scratch) {
            let found = self.read(LOCKS, &name);
            assert_eq!(found, None, "seed {seed}: {name} is gone with the power");
        }
        // Somebody new gets all of them at once, with a token that nobody had.
        let taken = self.try_to_take(&NAMES);
        assert_eq!(taken, Ok(()), "seed {seed}: all is free");
    }

    /// Somebody new takes these and lets go at once, if they are free.
    pub(super) fn try_to_take(&mut self, names: &[&str]) -> Result<(), Answer> {
        let seed = self.seed;
        let (parent, name) = (ROOT, &b"acquire"[..]);
        let Answer::Entry(entry) = self.ask(Call::Lookup { parent, name }) else {
            panic!("seed {seed}: acquire is there")
        };
        let (node, mode) = (entry.node, mode(Access::Both, false));
        let Answer::Opened(opened) = self.ask(Call::Open { node, mode }) else {
            panic!("seed {seed}: acquire opens")
        };
        let handle = opened.handle;
        let request = format!("locks={} wait=0", names.join(","));
        let (offset, size, data) = (0, 4096, request.as_bytes());
        let written = self.ask(Call::Write { handle, offset, data });
        if written == Answer::Written(data.len() as u32) {
            let Answer::Data(line) = self.ask(Call::Read { handle, offset, size }) else {
                panic!("seed {seed}: a token")
            };
            let line = String::from_utf8(line).expect("a line");
            let token = line.trim_end().strip_prefix("token=").expect("a token");
            for name in names {
                let lock = NAMES.iter().position(|known| known == name).expect("a known name");
                self.tokens.given(seed, lock, token.parse().expect("a number"));
            }
        }
        self.ask(Call::Release { handle });
        match written {
            Answer::Written(_) => Ok(()),
            refused => Err(refused),
        }
    }
}
