//! Fetches what the peer has and we lack, while it is this session's turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::assembly::{Added, Assembly};
use super::message::{DataIndex, Message, Part, WANTS_MAX};
use super::serve::CREDIT_FRAMES;
use super::{Output, SessionError};
use crate::log::{Heads, Position, StreamRef};
use crate::trust::Seq;

/// A question without progress for this long is asked again.
///
/// A link of 70 kbit/s still delivers one data frame of 256 KiB in this time.
pub const WANT_TIMEOUT_MS: u64 = 30_000;

/// After this many questions in a row without progress the turn is given back.
pub const TRIES_MAX: u32 = 3;

/// The longest turn; whoever needs longer asks for another one, after the other sessions.
pub const TURN_MS: u64 = 120_000;

/// The longest turn while the parts of one large envelope keep coming.
///
/// Giving up would mean to start that envelope again: at 240 kbit/s the largest one just passes.
pub const LARGE_TURN_MS: u64 = 1_200_000;

/// The first pause after a peer did not deliver what it claims to have; then it doubles.
pub const BACKOFF_MS_MIN: u64 = 1_000;

/// The longest pause after a peer did not deliver what it claims to have.
pub const BACKOFF_MS_MAX: u64 = 60_000;

const _: () = assert!(TURN_MS > TRIES_MAX as u64 * WANT_TIMEOUT_MS);
const _: () = assert!(LARGE_TURN_MS > TURN_MS);
const _: () = assert!(BACKOFF_MS_MIN < BACKOFF_MS_MAX);

/// Why a turn to pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// Everything the peer claims to have was fetched, or is being left alone for a while.
    Complete,
    /// The peer did not answer, or nothing of its answer could be used; another may be better.
    TimedOut,
    /// [`TURN_MS`] are over and there is more to fetch.
    TurnOver,
}

/// What we lack, and the question under way.
#[derive(Default)]
pub(super) struct Pull {
    behind: BTreeSet<StreamRef>,
    shunned: BTreeMap<StreamRef, Pause>,
    link: Pause,
    state: State,
    /// The number of the last question; frames of earlier ones are still of use.
    round: u64,
    /// One more than the highest number of this round's data frames so far.
    seen: u64,
    /// Whether this round's frames came in order and were all used.
    clean: bool,
    assembly: Assembly,
}

/// How long something is left alone.
#[derive(Clone, Copy, Default)]
struct Pause {
    tries: u32,
    until_ms: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Requested,
    Pulling(Turn),
}

struct Turn {
    /// What the question under way asked for.
    asked: BTreeMap<StreamRef, Seq>,
    /// Whether this question brought anything, parts included.
    progress: bool,
    /// Whether the log advanced in this turn.
    advanced: bool,
    tries: u32,
    deadline_ms: u64,
    began_ms: u64,
}

impl Turn {
    fn ends_ms(&self, assembly: &Assembly) -> u64 {
        match assembly.grows() {
            true => self.began_ms + LARGE_TURN_MS,
            false => self.began_ms + TURN_MS,
        }
    }
}

impl Pause {
    fn lengthened(self, now_ms: u64) -> Pause {
        let factor = 1 << self.tries.min(16);
        let until_ms = now_ms + (BACKOFF_MS_MIN * factor).min(BACKOFF_MS_MAX);
        Pause {
            tries: self.tries + 1,
            until_ms,
        }
    }
}

impl Pull {
    /// Notes that the peer told of an advance.
    pub(super) fn peer_advanced(&mut self, stream: StreamRef, ours: Seq, theirs: Seq) {
        if theirs > ours {
            self.behind.insert(stream);
        }
    }

    /// Notes that our log advanced.
    pub(super) fn we_advanced(&mut self, stream: StreamRef, ours: Seq, theirs: Seq, now_ms: u64) {
        if ours >= theirs {
            self.behind.remove(&stream);
        }
        self.shunned.remove(&stream);
        if let State::Pulling(turn) = &mut self.state
            && turn.asked.get(&stream).is_some_and(|after| ours > *after)
        {
            turn.progress = true;
            turn.advanced = true;
            turn.tries = 0;
            turn.deadline_ms = now_ms + WANT_TIMEOUT_MS;
            self.link = Pause::default();
        }
    }

    /// Ends the turn when nothing is left to fetch; whatever is still on its way stays welcome.
    pub(super) fn finish_if_level(&mut self, now_ms: u64, outbox: &mut VecDeque<Output>) {
        if matches!(self.state, State::Pulling(_)) && self.eligible(now_ms).next().is_none() {
            self.finish(PullEnd::Complete, outbox);
        }
    }

    /// Begins a turn.
    pub(super) fn grant(&mut self, ours: &Heads, now_ms: u64, outbox: &mut VecDeque<Output>) {
        if matches!(self.state, State::Pulling(_)) {
            return;
        }
        if self.eligible(now_ms).next().is_none() {
            self.finish(PullEnd::Complete, outbox);
            return;
        }
        self.state = State::Pulling(Turn {
            asked: BTreeMap::new(),
            progress: false,
            advanced: false,
            tries: 0,
            deadline_ms: 0,
            began_ms: now_ms,
        });
        self.ask(ours, now_ms, outbox);
    }

    /// Accepts a data frame by its number; returns what acknowledges it.
    pub(super) fn accept(&mut self, at: DataIndex) -> Result<Option<Output>, SessionError> {
        self.check_round(at.round)?;
        if at.round < self.round {
            return Ok(None);
        }
        let allowed = self.seen + CREDIT_FRAMES;
        if at.index >= allowed {
            return Err(SessionError::Overrun {
                index: at.index,
                allowed,
            });
        }
        self.clean &= at.index <= self.seen;
        self.seen = self.seen.max(at.index + 1);
        let upto = DataIndex {
            round: self.round,
            index: self.seen,
        };
        Ok(Some(Output::Send(Message::Ack { upto }.encode())))
    }

    /// Takes in a part; returns the envelope that it completes.
    pub(super) fn accept_part(
        &mut self,
        part: Part,
        now_ms: u64,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let added = self.assembly.add(part)?;
        if let (Added::Kept, State::Pulling(turn)) = (&added, &mut self.state) {
            turn.progress = true;
            turn.deadline_ms = now_ms + WANT_TIMEOUT_MS;
        }
        self.clean &= added != Added::Crowded;
        match added {
            Added::Complete(envelope) => Ok(Some(envelope)),
            Added::Kept | Added::Known | Added::Crowded => Ok(None),
        }
    }

    /// Takes in that the peer has sent all it has of the question under way.
    pub(super) fn done(
        &mut self,
        upto: DataIndex,
        ours: &Heads,
        now_ms: u64,
        outbox: &mut VecDeque<Output>,
    ) -> Result<(), SessionError> {
        self.check_round(upto.round)?;
        if upto.round == self.round && matches!(self.state, State::Pulling(_)) {
            let whole = self.clean && upto.index == self.seen;
            self.end_round(whole, ours, now_ms, outbox);
        }
        Ok(())
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        match &self.state {
            State::Requested => u64::MAX,
            State::Pulling(turn) => turn.deadline_ms.min(turn.ends_ms(&self.assembly)),
            State::Idle => self
                .behind
                .iter()
                .map(|stream| self.shunned.get(stream).map_or(0, |pause| pause.until_ms))
                .min()
                .map_or(u64::MAX, |until_ms| until_ms.max(self.link.until_ms)),
        }
    }

    pub(super) fn act_on_time(&mut self, ours: &Heads, now_ms: u64, outbox: &mut VecDeque<Output>) {
        if matches!(&self.state, State::Pulling(turn) if now_ms >= turn.deadline_ms) {
            self.end_round(false, ours, now_ms, outbox);
        }
        // Asked afresh, for the question may have marked an envelope's parts as stale.
        if let State::Pulling(turn) = &self.state
            && now_ms >= turn.ends_ms(&self.assembly)
        {
            if !turn.advanced {
                self.link = self.link.lengthened(now_ms);
            }
            self.take_back(outbox);
            self.finish(PullEnd::TurnOver, outbox);
        }
        if matches!(self.state, State::Idle) && now_ms >= self.deadline_ms() {
            self.state = State::Requested;
            outbox.push_back(Output::PullWanted);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.assembly.memory_bytes()
    }

    /// Decides what follows a question: the next one, or the end of the turn.
    ///
    /// `whole` says that the peer's answer came in full; then what it did not contain is not there.
    fn end_round(&mut self, whole: bool, ours: &Heads, now_ms: u64, outbox: &mut VecDeque<Output>) {
        let State::Pulling(turn) = &mut self.state else {
            return;
        };
        if whole {
            for (stream, after) in &turn.asked {
                if ours.seq(stream) <= *after {
                    let pause = self.shunned.entry(*stream).or_default();
                    *pause = pause.lengthened(now_ms);
                }
            }
        }
        if !whole && !turn.progress {
            turn.tries += 1;
        }
        if turn.tries >= TRIES_MAX {
            self.link = self.link.lengthened(now_ms);
            self.take_back(outbox);
            return self.finish(PullEnd::TimedOut, outbox);
        }
        if self.eligible(now_ms).next().is_some() {
            self.ask(ours, now_ms, outbox);
        } else {
            self.finish(PullEnd::Complete, outbox);
        }
    }

    fn ask(&mut self, ours: &Heads, now_ms: u64, outbox: &mut VecDeque<Output>) {
        let entries: Vec<Position> = self
            .eligible(now_ms)
            .take(WANTS_MAX)
            .map(|stream| Position {
                stream: *stream,
                seq: ours.seq(stream),
            })
            .collect();
        assert!(
            !entries.is_empty(),
            "only asked when there is something to ask for"
        );
        let asked = entries
            .iter()
            .map(|position| (position.stream, position.seq))
            .collect();
        self.send_want(entries, outbox);
        let State::Pulling(turn) = &mut self.state else {
            unreachable!("only asked while it is this session's turn")
        };
        turn.asked = asked;
        turn.progress = false;
        turn.deadline_ms = now_ms + WANT_TIMEOUT_MS;
    }

    /// Takes the question back, so that the peer stops sending.
    fn take_back(&mut self, outbox: &mut VecDeque<Output>) {
        self.send_want(Vec::new(), outbox);
    }

    fn send_want(&mut self, entries: Vec<Position>, outbox: &mut VecDeque<Output>) {
        self.round += 1;
        self.seen = 0;
        self.clean = true;
        self.assembly.question_asked();
        let want = Message::Want {
            round: self.round,
            entries,
        };
        outbox.push_back(Output::Send(want.encode()));
    }

    fn finish(&mut self, end: PullEnd, outbox: &mut VecDeque<Output>) {
        self.state = State::Idle;
        outbox.push_back(Output::PullFinished(end));
    }

    fn check_round(&self, round: u64) -> Result<(), SessionError> {
        match round {
            round if round == 0 || round > self.round => Err(SessionError::Unasked { round }),
            _ => Ok(()),
        }
    }

    fn eligible(&self, now_ms: u64) -> impl Iterator<Item = &StreamRef> {
        self.behind.iter().filter(move |stream| {
            self.shunned
                .get(stream)
                .is_none_or(|pause| pause.until_ms <= now_ms)
        })
    }
}
