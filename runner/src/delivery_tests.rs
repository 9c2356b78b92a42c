//! The steps of a delivery, one answer at a time.

use forge_api::TaskState;

use super::*;

const PIECE: u64 = LOG_CHUNK_BYTES_MAX as u64;

fn taken(delivery: &mut Delivery, length: u64, log_length: u64) {
    delivery.taken(LogAccepted { length, synced: length }, length, log_length, 0);
}

fn accepted(log_length: u64, log_whole: bool) -> ResultAccepted {
    ResultAccepted { state: TaskState::Succeeded, counted: true, log_length, log_whole }
}

/// What is sent next has this length.
fn piece(delivery: &mut Delivery, log_length: u64) -> u64 {
    match delivery.next(log_length, false, 0) {
        Step::Piece { length, .. } => length,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_goes_in_pieces_and_its_result_after_it() {
    let mut delivery = Delivery::new(Spool::Whole);
    assert_eq!(delivery.next(0, false, 0), Step::WaitUntil(u64::MAX));
    let length = PIECE + 10;
    assert_eq!(delivery.next(length, true, 0), Step::Piece { first: 0, length: PIECE });
    taken(&mut delivery, PIECE, length);
    assert_eq!(delivery.next(length, true, 0), Step::Piece { first: PIECE, length: 10 });
    taken(&mut delivery, length, length);
    assert_eq!(delivery.next(length, true, 0), Step::Result);
    delivery.answered(&accepted(length, true), length, 0);
    assert!(delivery.is_settled());
    assert_eq!(delivery.next(length, true, 0), Step::Done);
}

#[test]
fn a_result_waits_for_its_log_no_longer_than_a_moment_and_the_log_follows_it() {
    let mut delivery = Delivery::new(Spool::Whole);
    assert!(matches!(delivery.next(10, true, 1_000), Step::Piece { .. }));
    assert!(matches!(delivery.next(10, true, 2_999), Step::Piece { .. }));
    assert_eq!(delivery.next(10, true, 3_000), Step::Result);
    delivery.answered(&accepted(0, false), 10, 3_000);
    assert_eq!(delivery.next(10, true, 3_000), Step::Piece { first: 0, length: 10 });
    taken(&mut delivery, 10, 10);
    assert_eq!(delivery.next(10, true, 3_000), Step::Result);
}

#[test]
fn what_is_not_on_the_daemons_disk_is_asked_for_until_it_is_and_sent_again_when_it_is_lost() {
    let mut delivery = Delivery::new(Spool::Whole);
    delivery.taken(LogAccepted { length: 10, synced: 0 }, 10, 10, 0);
    delivery.answered(&accepted(10, true), 10, 0);
    assert_eq!(delivery.next(10, true, 0), Step::WaitUntil(SYNC_WAIT_MS));
    assert_eq!(delivery.next(10, true, SYNC_WAIT_MS), Step::Piece { first: 9, length: 1 });
    assert_eq!(delivery.piece_failed(PieceFault::Rewind(4), 9, 1, 10), Again::Now);
    assert_eq!(delivery.next(10, true, SYNC_WAIT_MS), Step::Piece { first: 4, length: 6 });
    delivery.taken(LogAccepted { length: 10, synced: 10 }, 10, 10, SYNC_WAIT_MS);
    assert_eq!(delivery.next(10, true, SYNC_WAIT_MS), Step::Done);
}

#[test]
fn a_daemon_that_holds_other_bytes_keeps_them() {
    let mut delivery = Delivery::new(Spool::MayBeShorter);
    assert_eq!(delivery.piece_failed(PieceFault::Differs, 0, 10, 10), Again::Now);
    assert_eq!(delivery.next(10, true, 0), Step::Result, "nothing more of the log goes");
    delivery.answered(&accepted(25, false), 10, 0);
    assert_eq!(delivery.next(10, true, 0), Step::Done);
    // One that has thrown them away wants the log as it is, once.
    let mut delivery = Delivery::new(Spool::MayBeShorter);
    delivery.piece_failed(PieceFault::Differs, 0, 10, 10);
    delivery.answered(&accepted(0, false), 10, 0);
    assert_eq!(delivery.next(10, true, 0), Step::Piece { first: 0, length: 10 });
}

#[test]
fn after_a_power_cut_every_byte_is_compared() {
    for (spool, next) in [(Spool::Whole, 30), (Spool::MayBeShorter, 10)] {
        let mut delivery = Delivery::of_pieces(spool, 10);
        assert_eq!(delivery.next(40, true, 0), Step::Piece { first: 0, length: 10 });
        delivery.taken(LogAccepted { length: 30, synced: 30 }, 10, 40, 0);
        assert_eq!(delivery.next(40, true, 0), Step::Piece { first: next, length: 10 }, "{spool:?}");
    }
}

#[test]
fn a_body_that_is_too_large_gets_smaller_at_once_and_is_given_up_at_the_smallest() {
    let mut delivery = Delivery::new(Spool::Whole);
    let too_large = || PieceFault::TooLarge("no".to_owned());
    let mut lengths = Vec::new();
    while delivery.next(10 * PIECE, true, 0) != Step::Result {
        let length = piece(&mut delivery, 10 * PIECE);
        lengths.push(length / 1024);
        assert_eq!(delivery.piece_failed(too_large(), 0, length, 10 * PIECE), Again::Now);
    }
    assert_eq!(lengths, [1024, 512, 256, 128, 64, 32, 16]);
    assert_eq!(delivery.blocked_by(), Some("no"));
    delivery.answered(&accepted(0, false), 10 * PIECE, 0);
    assert_eq!(delivery.next(10 * PIECE, true, 0), Step::Done);
}

#[test]
fn a_stranger_makes_pieces_smaller_and_ends_the_log_only_when_the_daemon_is_there() {
    let mut delivery = Delivery::new(Spool::Whole);
    let garble = |delivery: &mut Delivery, times: u32| {
        for _ in 0..times {
            let length = piece(delivery, 10 * PIECE);
            assert_eq!(delivery.piece_failed(PieceFault::Garbled, 0, length, 10 * PIECE), Again::Later);
        }
    };
    garble(&mut delivery, 2);
    assert_eq!(piece(&mut delivery, 10 * PIECE), PIECE);
    garble(&mut delivery, 1);
    assert_eq!(piece(&mut delivery, 10 * PIECE), PIECE / 2);
    // A page of a proxy may stand for a daemon that is being restarted, for however long.
    garble(&mut delivery, 100);
    assert_eq!(piece(&mut delivery, 10 * PIECE), PIECE_BYTES_MIN);
    assert_eq!(delivery.next(10 * PIECE, true, 0), Step::Piece { first: 0, length: PIECE_BYTES_MIN });
    assert_eq!(delivery.next(10 * PIECE, true, RESULT_WAIT_MS), Step::Result);
    delivery.answered(&accepted(0, false), 10 * PIECE, RESULT_WAIT_MS);
    garble(&mut delivery, GARBLED_MAX);
    assert_eq!(delivery.next(10 * PIECE, true, RESULT_WAIT_MS), Step::Result);
    delivery.answered(&accepted(0, false), 10 * PIECE, RESULT_WAIT_MS);
    assert_eq!(delivery.next(10 * PIECE, true, RESULT_WAIT_MS), Step::Done);
}

#[test]
fn a_result_that_is_not_taken_is_reduced_once() {
    let mut delivery = Delivery::new(Spool::Whole);
    assert_eq!(delivery.result_failed(ResultFault::Passing), Again::Later);
    assert_eq!(delivery.reduced(), None);
    assert_eq!(delivery.result_failed(ResultFault::Unfit("too long".to_owned())), Again::Now);
    assert_eq!(delivery.reduced(), Some("too long"));
    assert_eq!(delivery.next(0, true, 0), Step::Result);
    delivery.result_failed(ResultFault::Unfit("again".to_owned()));
    assert!(delivery.is_unwanted());
    assert_eq!(delivery.next(0, true, 0), Step::Done);
}

#[test]
fn a_copy_that_arrived_damaged_is_sent_once_more() {
    let mut delivery = Delivery::new(Spool::Whole);
    for expected in [Step::Piece { first: 0, length: 10 }, Step::Done] {
        taken(&mut delivery, 10, 10);
        assert_eq!(delivery.next(10, true, 0), Step::Result);
        delivery.answered(&accepted(10, false), 10, 0);
        assert_eq!(delivery.next(10, true, 0), expected);
    }
}

#[test]
fn a_daemon_that_keeps_asking_for_what_it_was_sent_is_left_in_the_end() {
    let mut delivery = Delivery::new(Spool::Whole);
    taken(&mut delivery, 10, 10);
    for _ in 0..REWINDS_MAX {
        assert_eq!(delivery.next(10, true, 0), Step::Result);
        delivery.answered(&accepted(4, false), 10, 0);
        assert_eq!(delivery.next(10, true, 0), Step::Piece { first: 4, length: 6 });
        taken(&mut delivery, 10, 10);
    }
    // The whole of it once more, and then it is over.
    delivery.answered(&accepted(4, false), 10, 0);
    assert_eq!(delivery.next(10, true, 0), Step::Piece { first: 0, length: 10 });
    taken(&mut delivery, 10, 10);
    delivery.answered(&accepted(4, false), 10, 0);
    assert_eq!(delivery.next(10, true, 0), Step::Done);
}
