//! How one attempt's log and result are handed in: what goes next, and what an answer to it means. Pure: the clock is an argument.
//!
//! The log goes first while it is nearly whole; a result never waits long for it. Who answers may be the daemon, which says what it
//! holds, or a stranger in between, who takes no body of this length or says nothing of use: then smaller pieces are tried, and a log
//! that gets through in no way is given up once the daemon is known to be there. What the daemon holds is never overwritten: where it
//! holds other bytes than the spool, the spool is what a power cut has shortened.

use forge_api::{LOG_CHUNK_BYTES_MAX, LogAccepted, ResultAccepted};

/// How long a known result waits for the rest of its log, in milliseconds.
const RESULT_WAIT_MS: u64 = 2_000;

/// How long to wait before asking again whether the whole log is on the daemon's disk, in milliseconds.
const SYNC_WAIT_MS: u64 = 1_100;

/// Pieces do not get smaller than this, in bytes: a proxy that takes less takes no API at all.
const PIECE_BYTES_MIN: u64 = 16 * 1024;

/// How often in a row a stranger may answer to a piece before smaller ones are tried.
const GARBLED_BEFORE_HALVING: u32 = 3;

/// How often in a row a stranger may answer to the smallest piece, while the daemon is there, before the log is given up.
const GARBLED_MAX: u32 = 8;

/// How often an acknowledged result may be answered with a log that is shorter than what was handed in. A daemon that lost its power has
/// lost what was not synced, which is sent again; one that says the same each time will not change its mind.
const REWINDS_MAX: u32 = 8;

/// Whether the spool holds every byte that its daemon may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spool {
    /// It is what was written.
    Whole,
    /// A power cut may have shortened it after some of it was handed in: every byte is compared once more.
    MayBeShorter,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send so many bytes of the log from here.
    Piece {
        /// The first byte.
        first: u64,
        /// How many.
        length: u64,
    },
    /// Hand in the result.
    Result,
    /// Nothing before this moment, unless there is more to hand in.
    WaitUntil(u64),
    /// Nothing more: the spool may go.
    Done,
}

/// Why a piece of the log was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceFault {
    /// It does not begin where the log ends that the daemon holds, which has this length.
    Rewind(u64),
    /// The daemon holds other bytes.
    Differs,
    /// Something in between takes no body of this length, in its words.
    TooLarge(String),
    /// Something answered that is no daemon.
    Garbled,
    /// It may work later.
    Passing,
    /// The daemon takes no more of this log, or the spool cannot be read.
    Refused,
}

/// Why a result was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultFault {
    /// It may work later.
    Passing,
    /// The daemon, or something in between, takes none like it: words for people.
    Unfit(String),
    /// The daemon does not want it.
    Refused,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// At once.
    Now,
    /// After a pause that grows.
    Later,
}

/// How the daemon stands to this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It takes it.
    Taken,
    /// It holds other bytes.
    Differs,
    /// It takes no more of it.
    Refused,
}

/// The state of it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// How much the daemon holds.
    accepted: LogAccepted,
    spool: Spool,
    stand: Stand,
    /// Why the log does not get through, where something in between is to blame.
    blocked_by: Option<String>,
    piece_bytes_max: u64,
    /// How often in a row a stranger answered to a piece.
    garbled: u32,
    /// When the result goes first.
    result_at_ms: Option<u64>,
    /// The result was acknowledged before the rest of its log was there.
    sent_early: bool,
    /// The result was acknowledged.
    told: bool,
    /// Why the result is handed in without what is long of it.
    reduced: Option<String>,
    /// The whole log was sent a second time.
    sent_again: bool,
    /// How often the daemon has asked for a part of it once more.
    rewinds: u32,
    /// The daemon wants nothing of the attempt.
    unwanted: bool,
    /// All is handed in: how much of the log is still to be on the daemon's disk.
    settled: Option<u64>,
    sync_at_ms: u64,
}

impl Delivery {
    /// Nothing is handed in yet, as far as is known.
    pub fn new(spool: Spool) -> Self {
        Self::of_pieces(spool, LOG_CHUNK_BYTES_MAX as u64)
    }

    /// The same with pieces of at most so many bytes.
    pub fn of_pieces(spool: Spool, piece_bytes_max: u64) -> Self {
        Self {
            accepted: LogAccepted { length: 0, synced: 0 },
            spool,
            stand: Stand::Taken,
            blocked_by: None,
            piece_bytes_max,
            garbled: 0,
            result_at_ms: None,
            sent_early: false,
            told: false,
            reduced: None,
            sent_again: false,
            rewinds: 0,
            unwanted: false,
            settled: None,
            sync_at_ms: 0,
        }
    }

    /// Whether the result is acknowledged, and the log handed in as far as it ever will be.
    pub fn is_settled(&self) -> bool {
        self.settled.is_some()
    }

    /// Whether the daemon wants nothing of the attempt.
    pub fn is_unwanted(&self) -> bool {
        self.unwanted
    }

    /// Why the result is to be handed in without what is long of it.
    pub fn reduced(&self) -> Option<&str> {
        self.reduced.as_deref()
    }

    /// Why the log did not get through, where something in between is to blame.
    pub fn blocked_by(&self) -> Option<&str> {
        self.blocked_by.as_deref()
    }

    /// What to do at `now_ms`, when the spool holds `log_length` bytes and perhaps a result.
    pub fn next(&mut self, log_length: u64, has_result: bool, now_ms: u64) -> Step {
        if self.unwanted {
            return Step::Done;
        }
        if let Some(whole) = self.settled {
            return self.next_to_sync(whole, now_ms);
        }
        let is_behind = self.stand == Stand::Taken && self.accepted.length < log_length;
        if has_result {
            let result_at_ms = *self.result_at_ms.get_or_insert(now_ms.saturating_add(RESULT_WAIT_MS));
            if !is_behind || (!self.sent_early && now_ms >= result_at_ms) {
                return Step::Result;
            }
        }
        if is_behind {
            let first = self.accepted.length;
            return Step::Piece { first, length: (log_length - first).min(self.piece_bytes_max) };
        }
        Step::WaitUntil(u64::MAX)
    }

    /// Until the daemon has the whole log on its disk a power cut there could need the spool.
    fn next_to_sync(&self, whole: u64, now_ms: u64) -> Step {
        if self.stand != Stand::Taken || self.accepted.synced >= whole {
            return Step::Done;
        }
        if self.accepted.length == whole && now_ms < self.sync_at_ms {
            return Step::WaitUntil(self.sync_at_ms);
        }
        // Handing in the last byte again changes nothing and brings news; what was lost goes from where it is missing.
        let first = self.accepted.length.min(whole.saturating_sub(1));
        Step::Piece { first, length: (whole - first).min(self.piece_bytes_max) }
    }

    /// The daemon took a piece that ended before byte `end` of a spool of `log_length`.
    pub fn taken(&mut self, answer: LogAccepted, end: u64, log_length: u64, now_ms: u64) {
        self.garbled = 0;
        let most = self.settled.unwrap_or(log_length);
        let most = match self.spool {
            Spool::Whole => most,
            // What the daemon has beyond was not compared.
            Spool::MayBeShorter => most.min(end),
        };
        self.accepted = LogAccepted { length: answer.length.min(most), synced: answer.synced };
        self.sync_at_ms = now_ms.saturating_add(SYNC_WAIT_MS);
    }

    /// The piece of `length` bytes from `first` was not taken.
    pub fn piece_failed(&mut self, fault: PieceFault, first: u64, length: u64, log_length: u64) -> Again {
        if fault != PieceFault::Garbled {
            self.garbled = 0;
        }
        match fault {
            PieceFault::Rewind(held) if self.settled.is_some() && held >= first => {
                self.stand = Stand::Refused;
                Again::Now
            }
            PieceFault::Rewind(held) if held != first && held <= log_length => {
                self.accepted = LogAccepted { length: held, synced: 0 };
                Again::Now
            }
            PieceFault::Rewind(held) => {
                if held != first {
                    self.stand = Stand::Refused;
                }
                Again::Later
            }
            PieceFault::Differs => {
                self.stand = Stand::Differs;
                Again::Now
            }
            PieceFault::TooLarge(words) => {
                if length > PIECE_BYTES_MIN {
                    self.halve(length);
                } else {
                    self.blocked_by = Some(words);
                    self.stand = Stand::Refused;
                }
                Again::Now
            }
            PieceFault::Garbled => {
                self.garbled += 1;
                self.try_smaller(length);
                Again::Later
            }
            PieceFault::Passing => Again::Later,
            PieceFault::Refused => {
                self.stand = Stand::Refused;
                Again::Now
            }
        }
    }

    fn halve(&mut self, length: u64) {
        self.piece_bytes_max = (length / 2).max(PIECE_BYTES_MIN);
        self.garbled = 0;
    }

    /// A stranger may mean that a piece is too large, or stand for a daemon that is away: only one that took the result is surely there.
    fn try_smaller(&mut self, length: u64) {
        if length > PIECE_BYTES_MIN {
            if self.garbled >= GARBLED_BEFORE_HALVING {
                self.halve(length);
            }
        } else if self.garbled >= GARBLED_MAX && self.told {
            self.blocked_by = Some("something between runner and daemon answers to it".to_owned());
            self.stand = Stand::Refused;
        }
    }

    /// The daemon acknowledged the result, which names a log of `log_length` bytes.
    pub fn answered(&mut self, answer: &ResultAccepted, log_length: u64, now_ms: u64) {
        self.garbled = 0;
        self.told = true;
        match self.stand {
            _ if answer.log_whole => self.settle(now_ms),
            Stand::Refused => self.settle(now_ms),
            // It has thrown away what it held, and asks for the log as it is.
            Stand::Differs if answer.log_length == 0 && log_length > 0 && !self.sent_again => self.send_again(),
            Stand::Differs => self.settle(now_ms),
            Stand::Taken if self.accepted.length < log_length => self.sent_early = true,
            Stand::Taken if answer.log_length < log_length && self.rewinds < REWINDS_MAX => {
                self.rewinds += 1;
                self.accepted = LogAccepted { length: answer.log_length, synced: 0 };
            }
            Stand::Taken if !self.sent_again => self.send_again(),
            Stand::Taken => {
                // It stays damaged.
                self.stand = Stand::Refused;
                self.settle(now_ms);
            }
        }
    }

    fn send_again(&mut self) {
        self.sent_again = true;
        self.stand = Stand::Taken;
        self.accepted = LogAccepted { length: 0, synced: 0 };
    }

    fn settle(&mut self, now_ms: u64) {
        self.settled = Some(self.accepted.length);
        self.sync_at_ms = now_ms.saturating_add(SYNC_WAIT_MS);
    }

    /// The result was not taken.
    pub fn result_failed(&mut self, fault: ResultFault) -> Again {
        match fault {
            ResultFault::Passing => Again::Later,
            ResultFault::Unfit(words) if self.reduced.is_none() => {
                self.reduced = Some(words);
                Again::Now
            }
            ResultFault::Unfit(_) | ResultFault::Refused => {
                // What was acknowledged once stays so.
                if self.told {
                    self.settled = Some(0)
                } else {
                    self.unwanted = true
                }
                Again::Now
            }
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
